//! The sessions: what the parent itself knows about each. It believes nothing that net says about
//! one.
//!
//! A session's user is the one whom a login process found to be right. It is encrypted once its
//! handshake was signed (`signers`). Its peer comes from its socket. Its host is the client's own
//! choice, and gives no rights.
//!
//! | file | noun |
//! |---|---|
//! | `session` | a session, as the parent knows it |
//! | `groups` | what concerns several at once |
//! | `end` | how they end |
//! | `counts` | how many a client address may have |
//! | `resumables` | those that outlive their connections |
//! | `resumption` | the orders about them |

pub mod counts;
mod end;
mod groups;
pub mod resumables;
mod resumption;
pub mod session;

use super::arrival::{Arrival, StreamTag};
use super::backend::environment::Tls;
use super::channel::{self, Broken, Held};
use super::config::Config;
use super::context::Context;
use super::lines;
use super::tokens::{NetToken, SessionToken};
use crate::policy::{HostId, Peer, PeerName, ServiceId, Source};
use crate::sys::message::Failed;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::phases::may_start_on_client;
use crate::wire::orders::{
    Answer, Ask, Claim, Data, Method, Named, OWN_CONNECTION, OfferAsk, Refused, Why,
};
use crate::wire::resume::KEY;
use crate::wire::run::Way;
use counts::SessionCounts;
use resumables::Claimant;
use session::{NewSession, SessionRecord, SessionRequest, Step, User};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

/// Answers held for a stream's own channel at most: a stream asks for one thing at a time.
const BRANCH_HELD_MAX: usize = 64;

/// What an order of a session asks other parts to do.
pub enum Request {
    /// Nothing: the order was for this part alone.
    Done,
    /// It asks for the signature of its handshake.
    Sign { config: Rc<Config>, pair: u32, scheme: u16, message: Data },
    /// May it try to log in?
    MayLogin { method: Method },
    /// It tries to log in.
    Verify { method: Method, user: Data },
    /// It asks for a service.
    Start(Box<Arrival>),
    /// One of its streams asks for facts of its own, and for a channel.
    Branch { host: HostId, tag: u32 },
    /// Net refused a request itself. With the session's number, and the user who logged in.
    Refused { config: Rc<Config>, refused: Refused, number: u64, user: Option<Rc<User>> },
    /// A relay has ended, after this many bytes to the service and from it.
    Tally { tag: u32, to: u64, from: u64 },
    /// A relay of a running server's connection has ended, likewise.
    RelayEnded { relay: u32, to: u64, from: u64 },
    /// A rule asks for the name of this client's address.
    Name(Peer),
    /// An order about a service that it offers.
    Offer(OfferAsk),
    /// It outlives its connection; the key of its proofs.
    Resumable([u8; KEY]),
    /// Its connection is lost.
    Lost(Data),
    /// Its client asks for another session to go on, on its connection.
    Claim(Claim),
    /// It goes on, on the connection that it was offered, or it does not.
    Resumed(bool),
}

/// See the module.
#[derive(Default)]
pub struct Sessions {
    /// By token. Streams that have facts of their own are among them.
    all: HashMap<SessionToken, SessionRecord>,
    counts: SessionCounts,
    /// How many answers are held for all of them together.
    held: Held,
    failed: Vec<(SessionToken, Broken)>,
}

impl Sessions {
    pub fn has(&self, token: SessionToken) -> bool {
        self.all.contains_key(&token)
    }

    pub fn get(&self, token: SessionToken) -> Option<&SessionRecord> {
        self.all.get(&token)
    }

    pub fn get_mut(&mut self, token: SessionToken) -> Option<&mut SessionRecord> {
        self.all.get_mut(&token)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SessionToken, &SessionRecord)> {
        self.all.iter()
    }

    /// Begins a session. Err: it is refused; the log's word for why.
    pub fn begin(&mut self, cx: &mut Context, r: SessionRequest) -> Result<(), &'static str> {
        let SessionRequest { net, drains, config, addresses, name, socket, pair, tls_port } = r;
        let peer = addresses.peer();
        let source = Source::of(peer);
        let begun = self.counts.begin(net, source, &config.table.settings);
        let opened = begun.and_then(|()| {
            let opened = cx.new_channel().and_then(|(opened, theirs)| {
                channel::send_end(pair.as_fd(), opened.0, theirs.as_fd()).map(|()| opened)
            });
            opened.inspect_err(|_| self.counts.end(net, source)).map_err(|e| {
                // Its net process may have ended meanwhile.
                if Failed::of(&e) == Failed::Gone { "gone" } else { "descriptors" }
            })
        });
        let (token, channel) = opened.inspect_err(|_| channel::open_none(pair.as_fd()))?;
        let number = cx.next_number();
        let settings = &config.table.settings;
        let streams = settings.max_streams.max(settings.max_streams_anonymous);
        // Of each client of a service that it offers, it is told twice.
        let most = settings.unanswered(streams).saturating_add(streams.saturating_mul(2));
        let most = most.saturating_add(settings.dialogues());
        let channel = channel.holding(most as usize, &self.held);
        let socket = socket::cookie(socket.as_fd());
        let new = NewSession { net, number, addresses, socket, name, tls_port };
        let session = SessionRecord::new(channel, config, new, cx.now);
        self.all.insert(token, session);
        self.tell_if_drained(cx, token, drains);
        cx.counters.sessions += 1;
        lines::session(peer, number);
        Ok(())
    }

    /// The next order of a session. None: no order waits.
    pub fn order(
        &mut self,
        cx: &mut Context,
        token: SessionToken,
    ) -> Result<Option<Request>, Broken> {
        let Some(s) = self.all.get_mut(&token) else { return Ok(None) };
        let Some((ask, _)) = s.channel.receive::<Ask>(&s.phase())? else { return Ok(None) };
        cx.counters.orders += 1;
        ::log::trace!("session {}: {ask:?}", s.number);
        Ok(Some(match ask {
            Ask::Sign { chain, scheme, message } => {
                s.step = Step::Signing;
                Request::Sign { config: s.config.clone(), pair: chain, scheme, message }
            }
            Ask::Encrypted { suite, name } => {
                s.encrypted(suite, &name)?;
                Request::Done
            }
            Ask::MayLogin { method } => Request::MayLogin { method },
            Ask::Verify { method, user } => Request::Verify { method, user },
            Ask::Start { service, host, tag, way } => {
                let what = (ServiceId(service), HostId(host), way);
                let stream = StreamTag { session: token, tag };
                Request::Start(Box::new(s.arrival(cx.minute(), stream, what, None)?))
            }
            Ask::Branch { host, tag } => Request::Branch { host: HostId(host), tag },
            Ask::Refused(refused) => {
                let (config, user) = (s.config.clone(), s.user.clone());
                Request::Refused { config, refused, number: s.number, user }
            }
            Ask::Tally { tag, to, from } => {
                s.add_traffic(to, from);
                Request::Tally { tag, to, from }
            }
            Ask::RelayEnded { relay, to, from } => {
                s.add_traffic(to, from);
                Request::RelayEnded { relay, to, from }
            }
            Ask::Name => Request::Name(s.addresses.peer()),
            Ask::Resumable { key } => Request::Resumable(key.0),
            Ask::Lost(why) => Request::Lost(why),
            Ask::Resume(claim) => Request::Claim(claim),
            Ask::Resumed { taken } => Request::Resumed(taken),
            Ask::Offer(ask) => Request::Offer(ask),
            Ask::End(why) => {
                s.end_reason = Some(String::from_utf8_lossy(why.bytes()).into_owned());
                Request::Done
            }
        }))
    }

    /// A session of this net process asks for a service on its client's own socket. Nothing: it is
    /// over, or gets its answer here; without the socket, for which the parent had no descriptor.
    pub fn start_on_client(
        &mut self,
        cx: &mut Context,
        net: NetToken,
        token: SessionToken,
        (service, host): (ServiceId, HostId),
        client: Option<Shared>,
    ) -> Result<Option<Arrival>, Broken> {
        let Some(s) = self.all.get_mut(&token) else { return Ok(None) };
        if s.net != net || s.parent.is_some() || !may_start_on_client(s.phase()) {
            return Err(Broken::Forbidden);
        }
        let Some(client) = client else {
            let (tag, service, why) = (OWN_CONNECTION, service.0, Why::Busy);
            self.tell(cx, token, &Answer::Refused { tag, service, why });
            return Ok(None);
        };
        let stream = StreamTag { session: token, tag: OWN_CONNECTION };
        let what = (service, host, Way::Plain);
        s.arrival(cx.minute(), stream, what, Some(client)).map(Some)
    }

    /// Does this session read what it is sent, and has it a connection?
    pub fn reads(&self, token: SessionToken) -> bool {
        self.all.get(&token).is_some_and(|s| !s.channel.is_behind() && !s.is_lost())
    }

    /// Net has closed its end of this channel.
    pub fn hung_up(&mut self, token: SessionToken) {
        if let Some(s) = self.all.get_mut(&token) {
            s.hung_up = true;
        }
    }

    /// Does nobody hear what becomes of this session's orders any more, or of the session whose
    /// stream it is?
    pub fn has_hung_up(&self, token: SessionToken) -> bool {
        let hung_up = |token| self.get(token).is_some_and(|s| s.hung_up);
        hung_up(token) || self.root(token).is_some_and(hung_up)
    }

    /// The source of its client. None: that is no session's token.
    pub fn source_of(&self, token: SessionToken) -> Option<Source> {
        self.all.get(&token).map(|s| Source::of(s.addresses.peer()))
    }

    /// Has this session no connection now?
    pub fn is_lost(&self, token: SessionToken) -> bool {
        self.all.get(&token).is_some_and(SessionRecord::is_lost)
    }

    /// Sends a session an answer.
    pub fn tell(&mut self, cx: &Context, token: SessionToken, answer: &Answer) {
        self.tell_with(cx, token, answer, &[]);
    }

    /// The same, with descriptors.
    pub fn tell_with(
        &mut self,
        cx: &Context,
        token: SessionToken,
        answer: &Answer,
        with: &[BorrowedFd],
    ) {
        if let Some(s) = self.all.get_mut(&token)
            && let Err(why) = s.channel.send(cx.registry(), answer, with)
        {
            self.failed.push((token, why));
        }
    }

    /// Notes the name of its client's address, and sends it to net.
    pub fn tell_name(&mut self, cx: &Context, token: SessionToken, name: PeerName, for_net: Named) {
        if let Some(s) = self.all.get_mut(&token) {
            s.name = name;
        }
        self.tell(cx, token, &Answer::Name(for_net));
    }

    /// Those to which an answer could not be sent: their channels cannot be used any more.
    pub fn failed(&mut self) -> Vec<(SessionToken, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// Sends it the signature that it waits for, or that there is none.
    pub fn tell_signature(&mut self, cx: &Context, token: SessionToken, answer: &Answer) {
        if let Some(s) = self.all.get_mut(&token) {
            let signed = *answer != Answer::NotSigned;
            s.step = if signed { Step::Signed } else { Step::Idle };
        }
        self.tell(cx, token, answer);
    }

    /// The net process that serves it.
    pub fn net_of(&self, token: SessionToken) -> Option<NetToken> {
        self.all.get(&token).map(|s| s.net)
    }

    /// The session that it is, or that it is a stream of. None: that is over, even if a stream's
    /// own channel has not ended yet.
    pub fn root(&self, token: SessionToken) -> Option<SessionToken> {
        self.all.get(&token).map(|s| s.parent.unwrap_or(token)).filter(|root| self.has(*root))
    }

    /// Has this session as many streams with facts of their own as it may have?
    pub fn is_full(&self, token: SessionToken) -> bool {
        self.all.get(&token).is_some_and(|s| s.branches >= s.config.table.settings.dialogues())
    }

    /// Gives a stream facts of its own. At first they are those of its session.
    pub fn branch(
        &mut self,
        cx: &mut Context,
        (token, tag): (SessionToken, u32),
        host: HostId,
        drains: bool,
    ) {
        // Net may count one fewer than the parent, which has not yet read that a stream ended.
        let Some((net, reads)) = self.get(token).map(|s| (s.net, !s.channel.is_behind())) else {
            return;
        };
        // A channel that is held for whoever does not read is two descriptors.
        let may = reads && !self.is_full(token) && self.counts.branch(net);
        let Some(((branch, channel), theirs)) = may.then(|| cx.new_channel().ok()).flatten() else {
            if may {
                self.counts.branch_over(net);
            }
            return self.tell(cx, token, &Answer::Branched { tag });
        };
        let Some(s) = self.all.get_mut(&token) else { return };
        let channel = channel.holding(BRANCH_HELD_MAX, &self.held);
        s.branches += 1;
        let own = s.branch(channel, (token, tag), host, cx.now);
        self.all.insert(branch, own);
        self.tell_with(cx, token, &Answer::Branched { tag }, &[theirs.as_fd()]);
        self.tell_if_drained(cx, branch, drains);
    }

    /// Sends a session that begins in a draining net process what the others there were sent when
    /// it began to drain.
    fn tell_if_drained(&mut self, cx: &Context, token: SessionToken, drains: bool) {
        if drains {
            self.tell(cx, token, &Answer::GoAway { last: cx.is_stopping() });
        }
    }

    /// Sends a session what its channel holds.
    pub fn flush(&mut self, cx: &Context, token: SessionToken) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |s| s.channel.flush(cx.registry()))
    }

    /// It outlives its connection from now on.
    pub fn count_resumable(&mut self, token: SessionToken) {
        if let Some(s) = self.all.get(&token) {
            self.counts.resumable(Source::of(s.addresses.peer()), true);
        }
    }

    /// It has lost its connection, or has one again.
    pub fn count_lost(&mut self, token: SessionToken, lost: bool) {
        if let Some(s) = self.all.get(&token) {
            self.counts.lost(Source::of(s.addresses.peer()), lost);
        }
    }

    /// It goes on, on this connection.
    pub fn moved(&mut self, token: SessionToken, on: &Claimant, name: PeerName) {
        let Some(s) = self.all.get_mut(&token) else { return };
        let (from, to) = (s.addresses.peer(), on.addresses.peer());
        self.counts.moved(s.net, Source::of(from), Source::of(to));
        (s.addresses, s.name) = (on.addresses.clone(), name);
        if let (Some(old), Some(new)) = (&s.tls, &on.tls) {
            let server_name = old.server_name.clone();
            s.tls = Some(Rc::new(Tls { suite: new.suite, server_name }));
        }
        lines::resumed(s.number, to);
    }
}
