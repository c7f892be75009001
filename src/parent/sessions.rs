//! The sessions: what the parent itself knows of each, and nothing that net says of it.
//!
//! A session's user is whom a login child vouched for; it is encrypted once its handshake was
//! signed (`signers`); its peer is what its socket says. Its host is the client's own choice and
//! gives no right.

use super::catalog::Account;
use super::channel::{Broken, Channel};
use super::config::Config;
use super::environment::Tls;
use super::names::Asker;
use super::nets::two;
use super::run::Parent;
use super::start::{From, Who};
use super::verdicts;
use crate::log::Event;
use crate::policy::{Facts, HostId, Login, PeerName, ServiceId, Source};
use crate::sys::shared::Shared;
use crate::sys::{message, socket};
use crate::wire::orders::{Answer, Ask, Data, Message, Why};
use crate::wire::sshsig::Kind;
use mio::Token;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Orders of a stream that are heard before another stream may have its place: more than any has in
/// flight.
const HEARD: usize = 64;
/// Orders of a session that are heard after its net process has ended: more than a channel holds.
const LAST_HEARD: usize = 4096;

/// Answers of a stream's own channel that are held: it asks for one at a time.
const BRANCH_HELD: usize = 64;
/// Answers that are held of all sessions, of half a kilobyte each.
const HELD_MAX: usize = 16_384;

/// Somebody who has logged in.
pub struct User {
    pub login: Login,
    /// None: a name that is no user of this computer.
    pub account: Option<Rc<Account>>,
    pub method: &'static str,
}

pub struct Session {
    pub channel: Channel,
    pub config: Rc<Config>,
    /// The net process that serves it, by its token.
    pub net: usize,
    pub number: u64,
    /// The session that this stream belongs to.
    pub parent: Option<usize>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Of its client's address.
    pub name: PeerName,
    pub host: HostId,
    pub tls: Option<Rc<Tls>>,
    pub user: Option<Rc<User>>,
    pub since: Duration,
    /// Bytes to services and from them, as far as counted.
    pub traffic: (u64, u64),
    signed: bool,
    /// A signature is on its way to it.
    signing: bool,
    /// A try of its waits or runs.
    pub trying: bool,
    pub tries: [u32; 2],
    /// Those of them that earned a penalty.
    pub failures: u32,
    /// Streams that have facts of their own.
    branches: u32,
    why: Option<String>,
}

impl Parent {
    /// A client has asked for a built-in, or for TLS.
    pub fn session_begins(
        &mut self,
        net: usize,
        config: &Rc<Config>,
        client: &Shared,
        channel: OwnedFd,
    ) {
        let (Ok(peer), Ok(local)) = (socket::peer(client.as_fd()), socket::local(client.as_fd()))
        else {
            return;
        };
        let source = Source::of(peer.ip());
        let scarce = self.is_scarce(&channel);
        let begun = if scarce {
            Err("descriptors")
        } else {
            self.standing.begin(net, source, &config.table.settings)
        };
        if let Err(reason) = begun {
            self.counters.refused += 1;
            Event::new("REFUSE")
                .word("service", "")
                .word("host", "")
                .address("from", peer.ip())
                .word("reason", reason)
                .put();
            // Whoever has no room for it sees the channel close.
            let _ = message::send_message(channel.as_fd(), &Answer::Full.encode(), &[], false);
            return;
        }
        self.number += 1;
        let name = self.known_name(peer.ip());
        let session = |channel: Channel, number: u64, since: Duration| Session {
            channel,
            config: config.clone(),
            net,
            number,
            parent: None,
            peer,
            local,
            name: name.clone(),
            host: HostId::DEFAULT,
            tls: None,
            user: None,
            since,
            traffic: (0, 0),
            signed: false,
            trying: false,
            signing: false,
            tries: [0; 2],
            failures: 0,
            branches: 0,
            why: None,
        };
        let token = self.new_token();
        let most = config.table.settings.unanswered(
            config.table.settings.max_streams.max(config.table.settings.max_streams_anonymous),
        );
        let channel = Channel::new(channel, Token(token), self.poll.registry(), &self.retries);
        let Ok(channel) = channel.map(|c| c.holding(most as usize, &self.held)) else {
            return self.standing.end(net, source);
        };
        self.sessions.insert(token, session(channel, self.number, self.now));
        self.tell_if_drained(token, net);
        self.counters.sessions += 1;
        Event::new("SESSION").address("from", peer.ip()).number("session", self.number).put();
    }

    /// One order of a session. Ok(false): there is none now.
    pub fn session_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(false) };
        let Some((ask, fds)) = s.channel.receive::<Ask>()? else { return Ok(false) };
        self.counters.orders += 1;
        ::log::trace!("session {}: {ask:?}", s.number);
        if fds.lost() {
            self.out_of_descriptors();
            return self.lost(token, &ask).map(|()| true);
        }
        match (ask, two(fds)) {
            (Ask::Sign { chain, scheme, message }, (None, None))
                if s.tls.is_none() && !s.signing =>
            {
                s.signing = true;
                self.sign(token, chain, scheme, message)?;
            }
            (Ask::Encrypted { suite, name }, (None, None)) => s.encrypted(suite, &name)?,
            (Ask::MayLogin { method }, (None, None)) => {
                let room = self.logins.has_room(&s.config, method, s.peer.ip());
                let may = s.may_login(method, self.penalties.left(s.peer.ip(), self.now), room);
                s.channel.send(self.poll.registry(), &Answer::Login(may), None)?;
            }
            (Ask::Verify { method, user }, (Some(channel), None)) => {
                self.verify(token, method, user, channel.our_own())?
            }
            (Ask::Start { service, host, tag }, (Some(connection), None)) => {
                self.start_in(token, ServiceId(service), HostId(host), tag, connection)?;
            }
            (Ask::Branch { host }, (Some(channel), None)) => {
                self.branch(token, HostId(host), channel.our_own())?
            }
            (Ask::Refused(r), (None, None)) => {
                let (config, number, user) = (s.config.clone(), s.number, s.user.clone());
                self.note_refusal(
                    &config,
                    &r,
                    Some((number, user.as_ref().map(|u| u.login.name.as_str()))),
                )?;
            }
            (Ask::Tally { tag, to, from }, (None, None)) => {
                s.traffic = (s.traffic.0.saturating_add(to), s.traffic.1.saturating_add(from));
                self.counters.bytes = (
                    self.counters.bytes.0.saturating_add(to),
                    self.counters.bytes.1.saturating_add(from),
                );
                match self.flights.iter().any(|f| f.cargo().is_of((token, tag))) {
                    true => drop(self.children.early.insert((token, tag), (to, from))),
                    false => self.children.tally((token, tag), to, from),
                }
            }
            (Ask::Name, (None, None)) => {
                let address = s.peer.ip();
                self.ask_name(Asker::Session(token), address);
            }
            (Ask::End(why), (None, None)) => {
                s.why = Some(String::from_utf8_lossy(why.bytes()).into_owned())
            }
            _ => return Err(Broken::Nonsense),
        }
        Ok(true)
    }

    /// What was asked came without its descriptors, for there was none free. Whose channel that was
    /// sees it close.
    fn lost(&mut self, token: usize, ask: &Ask) -> Result<(), Broken> {
        let answer = match ask {
            Ask::Start { service, tag, .. } => {
                Answer::Refused { tag: *tag, service: *service, why: Why::Busy }
            }
            Ask::Verify { .. } => Answer::Login(verdicts::NO_ROOM),
            _ => return Ok(()),
        };
        self.sessions
            .get_mut(&token)
            .map_or(Ok(()), |s| s.channel.send(self.poll.registry(), &answer, None))
    }

    /// The signature that it waits for, or that there is none.
    pub fn tell_signature(&mut self, token: usize, answer: Answer) -> Result<(), Broken> {
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        s.signing = false;
        s.signed |= answer != Answer::NotSigned;
        s.channel.send(self.poll.registry(), &answer, None)
    }

    fn start_in(
        &mut self,
        token: usize,
        service: ServiceId,
        host: HostId,
        tag: u32,
        connection: Shared,
    ) -> Result<(), Broken> {
        let minute = self.minute();
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        let config = s.config.clone();
        if config.table.host(host).is_none() || config.table.service(service).is_none() {
            return Err(Broken::Nonsense);
        }
        s.host = host;
        let (tls, user) = (s.tls.clone(), s.user.clone());
        let login = user.as_ref().map(|u| u.login.clone());
        let facts = Facts {
            peer: s.peer.ip(),
            host,
            encrypted: tls.is_some(),
            login,
            minute,
            peer_name: s.name.clone(),
        };
        let who = Who {
            peer: s.peer,
            local: s.local,
            facts,
            number: s.number,
            account: user.as_ref().map(|u| (u.account.clone(), u.method)),
            tls,
            from: From::Session((token, tag)),
        };
        self.start(&config, service, who, connection);
        Ok(())
    }

    /// A stream gets facts of its own: they begin as its session's.
    fn branch(&mut self, token: usize, host: HostId, channel: OwnedFd) -> Result<(), Broken> {
        let full = |p: &Parent| {
            p.sessions
                .get(&token)
                .is_some_and(|s| s.branches >= s.config.table.settings.dialogues())
        };
        if full(self) {
            // Ends of others may be here that were not heard yet.
            self.hear_branches(token);
        }
        if self.sessions.get(&token).is_some_and(|s| s.parent.is_some()) {
            return Err(Broken::Nonsense);
        }
        // Where net counts one less than is known here, one has ended that the parent has yet to
        // hear of.
        if full(self) || self.is_scarce(&channel) {
            let _ = message::send_message(channel.as_fd(), &Answer::Full.encode(), &[], false);
            return Ok(());
        }
        let branch = self.new_token();
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        let channel = Channel::new(channel, Token(branch), self.poll.registry(), &self.retries);
        let Ok(channel) = channel.map(|c| c.holding(BRANCH_HELD, &self.held)) else {
            return Ok(());
        };
        s.branches += 1;
        let own = Session {
            channel,
            config: s.config.clone(),
            net: s.net,
            number: s.number,
            parent: Some(token),
            peer: s.peer,
            local: s.local,
            name: s.name.clone(),
            host,
            tls: s.tls.clone(),
            user: s.user.clone(),
            since: self.now,
            traffic: (0, 0),
            signed: false,
            trying: false,
            signing: false,
            tries: [0; 2],
            failures: 0,
            branches: 0,
            why: None,
        };
        let net = own.net;
        self.sessions.insert(branch, own);
        self.tell_if_drained(branch, net);
        Ok(())
    }

    /// A session that begins in a net process that drains is told what the others there were told.
    fn tell_if_drained(&mut self, token: usize, net: usize) {
        let (drains, last) = (self.drains(net), self.stopping);
        let Some(s) = self.sessions.get_mut(&token).filter(|_| drains) else { return };
        if let Err(why) = s.channel.send(self.poll.registry(), &Answer::GoAway { last }, None) {
            self.session_over(token, why);
        }
    }

    /// Hears what the streams of a session with facts of their own have said, and which of them
    /// have ended.
    fn hear_branches(&mut self, token: usize) {
        let all: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.parent == Some(token))
            .map(|(t, _)| *t)
            .collect();
        for branch in all {
            for _ in 0..HEARD {
                match self.session_order(branch) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(why) => {
                        self.broken(branch, why);
                        break;
                    }
                }
            }
        }
    }

    /// Where too many answers are held the sessions that do not take theirs end, first the one that
    /// has most, its streams' among them.
    pub fn relieve(&mut self) {
        while self.held.count() > HELD_MAX {
            let mut counts = HashMap::new();
            for (token, s) in &self.sessions {
                *counts.entry(s.parent.unwrap_or(*token)).or_insert(0) += s.channel.held();
            }
            let Some((most, _)) = counts.into_iter().max_by_key(|(_, n)| *n) else { return };
            let mut all: Vec<usize> = self
                .sessions
                .iter()
                .filter(|(t, s)| **t == most || s.parent == Some(most))
                .map(|(t, _)| *t)
                .collect();
            // Streams before the session that they belong to, which began before them.
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.into_iter().for_each(|token| self.session_over(token, Broken::Stuck));
        }
    }

    /// The sessions of a net process that drains: they take no new streams.
    pub fn sessions_drain(&mut self, net: usize, last: bool) {
        let registry = self.poll.registry();
        let mut over = Vec::new();
        for (token, s) in self.sessions.iter_mut().filter(|(_, s)| s.net == net) {
            if let Err(why) = s.channel.send(registry, &Answer::GoAway { last }, None) {
                over.push((*token, why));
            }
        }
        over.into_iter().for_each(|(token, why)| self.session_over(token, why));
    }

    /// The sessions of a net process that is no more end with it, whoever has their channels, once
    /// it was heard what it said before.
    pub fn sessions_end(&mut self, net: usize) {
        let mut all: Vec<usize> =
            self.sessions.iter().filter(|(_, s)| s.net == net).map(|(token, _)| *token).collect();
        // Streams before the sessions that they belong to, which began before them.
        all.sort_unstable_by(|a, b| b.cmp(a));
        for token in all {
            let mut heard = Ok(true);
            for _ in 0..LAST_HEARD {
                heard = self.session_order(token);
                if heard != Ok(true) {
                    break;
                }
            }
            self.session_over(token, heard.err().unwrap_or(Broken::Closed));
        }
    }

    /// Its channel has closed: with it goes all that was known of it.
    pub fn session_over(&mut self, token: usize, why: Broken) {
        // What it began is told of before its end, but for what is late.
        while self.flights.iter().any(|f| !f.is_late() && f.cargo().is_in(token)) {
            self.wait_for_one();
        }
        let Some(s) = self.sessions.remove(&token) else { return };
        if why == Broken::Nonsense {
            // No net process of ours says that, of any session.
            self.net_broken(s.net, Broken::Nonsense);
        }
        if s.trying {
            self.logins.forget(token);
        }
        if s.signing {
            self.signers.forget(token);
        }
        self.children.forget(token);
        if let Some(parent) = s.parent {
            if let Some(p) = self.sessions.get_mut(&parent) {
                p.branches -= 1;
            }
            return;
        }
        self.standing.end(s.net, Source::of(s.peer.ip()));
        let reason = match (why, s.why) {
            (Broken::Nonsense, _) => "nonsense".to_string(),
            (Broken::Stuck, _) => "system".to_string(),
            (Broken::Closed, said) => said.unwrap_or_else(|| "closed".into()),
        };
        Event::new("END")
            .number("session", s.number)
            .address("from", s.peer.ip())
            .word("reason", reason)
            .seconds("duration", self.now.saturating_sub(s.since))
            .put();
    }
}

impl Session {
    fn encrypted(&mut self, suite: u16, name: &Data) -> Result<(), Broken> {
        let suite = match suite {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            _ => return Err(Broken::Nonsense),
        };
        // Without our signature no client has finished a handshake with us.
        if !self.signed || self.tls.is_some() {
            return Err(Broken::Nonsense);
        }
        let server_name = name.text().ok_or(Broken::Nonsense)?.to_string();
        self.host = self.config.table.host_named(name.bytes()).unwrap_or(HostId::DEFAULT);
        self.user = None;
        self.tls = Some(Rc::new(Tls { suite, server_name }));
        Ok(())
    }

    pub fn kind(&self) -> Kind {
        if self.tls.is_some() { Kind::Tls } else { Kind::Plain }
    }
}
