//! The messages on a session's channel.

use super::net::{Named, Why};
use super::offer::{OfferAsk, OfferClient};
use super::phases::{self, Row, SessionPhase, kind};
use super::refused::Refused;
use super::resume::{Claim, Claimed, Resumption};
use super::run::{Extras, status_number, status_of, way_number, way_of};
use super::{Data, Message, Raw, flag, raw, with};
use crate::wire::resume::ProofKey;
use crate::wire::run::{Status, Way};

/// The tag of a session's own connection; its streams have other tags.
pub const OWN_CONNECTION: u32 = 0;

/// From a session's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Sign a handshake with the key of that chain, by that scheme (RFC 8446, 4.2.3).
    Sign {
        chain: u32,
        scheme: u16,
        message: Data,
    },
    /// The handshake is finished: the cipher suite, and the server name that the client asked for.
    Encrypted {
        suite: u16,
        name: Data,
    },
    /// May this source try to log in now?
    MayLogin {
        method: Method,
    },
    /// Check that this user is who they claim to be.
    Verify {
        method: Method,
        user: Data,
    },
    /// Start this service on a connection that the parent makes.
    Start {
        service: u32,
        host: u32,
        tag: u32,
        way: Way,
    },
    /// A stream will change its own facts, beginning with those of this session. The answer is
    /// [`Answer::Branched`]. The session learns by this tag how what runs in that stream has ended.
    Branch {
        host: u32,
        tag: u32,
    },
    Refused(Refused),
    /// A relayed connection has ended: how many bytes went to the service, and from it.
    Tally {
        tag: u32,
        to: u64,
        from: u64,
    },
    /// Why the session ends, as the log says it.
    End(Data),
    /// Look up the name of the client's address.
    Name,
    /// A relay of a running server's connection is over ([`Answer::Started`]): bytes to it, bytes
    /// from it.
    RelayEnded {
        relay: u32,
        to: u64,
        from: u64,
    },
    /// About a service that this session offers, or one of its streams.
    Offer(OfferAsk),
    /// RESUME begins a session. Its proofs are made with this key.
    Resumable {
        key: ProofKey,
    },
    /// The connection of a resumable session is lost; why, as the log says it.
    Lost(Data),
    /// The client asks for another session to go on, on this connection.
    Resume(Claim),
    /// The answer to the oldest [`Answer::Resumption`] without one: has it taken the connection?
    Resumed {
        taken: bool,
    },
}

/// From the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With one end of a new channel: of the session that has begun, which is named so, or of the
    /// login child of [`Ask::Verify`]. Nobody but the parent or the child has the other end: who
    /// has a socket, too, can keep its locks and change its options.
    Channel {
        session: u64,
    },
    /// With one end of a new channel of the stream of this tag. Without: too many stand.
    Branched {
        tag: u32,
    },
    Signed(Data),
    NotSigned,
    /// Whether a login may be tried.
    Login(May),
    /// The result of a try (`wire::login::LoginResult` as its exit status), and after a good one
    /// the user's groups.
    LoginResult {
        status: u32,
        superuser: bool,
        groups: [u64; 4],
    },
    /// With net's end of the connection, if the parent has made one, and what [`Extras`] says.
    Started {
        tag: u32,
        /// It is connected to a server that was running already: the number of this relay. 0: to a
        /// program.
        relay: u32,
        /// Bytes that the client gets before those of the service. If they do not fit here, they
        /// are in a file, the last descriptor.
        greeting: Data,
        extras: Extras,
    },
    /// A service of RUN has ended: it was asked for with this tag, or in the stream of this tag
    /// ([`Ask::Branch`]). None: nobody is told how, because output of it was lost.
    Ended {
        tag: u32,
        status: Option<Status>,
    },
    Refused {
        tag: u32,
        service: u32,
        why: Why,
    },
    /// A new table is in force: take no new streams. `last`: fived itself ends.
    GoAway {
        last: bool,
    },
    /// This session is refused: there are too many in all net processes together. Its orders are
    /// ignored.
    Full,
    Name(Named),
    /// The offer was noted, under this number.
    Offered {
        offer: u32,
    },
    NotOffered,
    /// About the client of this number, of a service that this session offers.
    OfferClient {
        client: u32,
        what: OfferClient,
    },
    /// What names this session ([`Ask::Resumable`]).
    Resumable {
        id: [u8; 16],
    },
    /// [`Ask::Resume`]: what became of this connection.
    Claimed(Claimed),
    /// A client has proved that this session is its own, and offers a new connection.
    Resumption(Resumption),
    /// There are too many lost sessions of the same user or source, and this one is the oldest: it
    /// ends, if it is still lost.
    Forget,
    /// fived itself ends at once: so does a session with streams, in order.
    EndNow,
}

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// `password_first`: the back end needs a name and a password and asks for nothing else; the
    /// try begins when both are there.
    Try { password_first: bool },
    /// A penalty lasts for this many seconds more; or no slot is free, for about as long.
    Later { seconds: u32 },
    /// The connection is neither encrypted nor local, or there were too many tries.
    Never,
}

/// How a user proves who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    Pubkey,
}

impl Method {
    fn number(self) -> u32 {
        self as u32
    }

    fn from_number(n: u32) -> Option<Method> {
        [Method::Password, Method::Pubkey].get(n as usize).copied()
    }
}

impl Message for Ask {
    type Phase = SessionPhase;
    const ROWS: &'static [Row<SessionPhase>] = &phases::ASK;

    fn raw(&self) -> Raw {
        match self {
            Ask::Sign { chain, scheme, message } => {
                with(kind::SIGN, *chain, u32::from(*scheme), message)
            }
            Ask::Encrypted { suite, name } => with(kind::ENCRYPTED, u32::from(*suite), 0, name),
            Ask::MayLogin { method } => raw(kind::MAY_LOGIN, method.number(), 0),
            Ask::Verify { method, user } => with(kind::VERIFY, method.number(), 0, user),
            Ask::Start { service, host, tag, way } => {
                let term = way.terminal().map_or(&b""[..], |t| t.term().as_bytes());
                let start = with(kind::START_IN_SESSION, *service, *host, &Data::truncate(term));
                Raw { c: u64::from(*tag), d: way_number(way), ..start }
            }
            Ask::Branch { host, tag } => raw(kind::BRANCH, *host, *tag),
            Ask::Refused(r) => r.raw(kind::REFUSED_IN_SESSION),
            Ask::Tally { tag, to, from } => Raw { c: *to, d: *from, ..raw(kind::TALLY, *tag, 0) },
            Ask::End(d) => with(kind::END, 0, 0, d),
            Ask::Name => raw(kind::NAME_IN_SESSION, 0, 0),
            Ask::RelayEnded { relay, to, from } => {
                Raw { c: *to, d: *from, ..raw(kind::RELAY_ENDED_IN_SESSION, *relay, 0) }
            }
            Ask::Offer(ask) => ask.raw(),
            Ask::Resumable { key } => with(kind::RESUMABLE, 0, 0, &Data(key.0.to_vec())),
            Ask::Lost(d) => with(kind::LOST, 0, 0, d),
            Ask::Resume(claim) => claim.raw(),
            Ask::Resumed { taken } => raw(kind::RESUMED, u32::from(*taken), 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::SIGN => {
                Ask::Sign { chain: r.a, scheme: u16::try_from(r.b).ok()?, message: r.data }
            }
            kind::ENCRYPTED => Ask::Encrypted { suite: u16::try_from(r.a).ok()?, name: r.data },
            kind::MAY_LOGIN => Ask::MayLogin { method: Method::from_number(r.a)? },
            kind::VERIFY => Ask::Verify { method: Method::from_number(r.a)?, user: r.data },
            kind::START_IN_SESSION => {
                let (tag, way) = (u32::try_from(r.c).ok()?, way_of(r.d, &r.data)?);
                Ask::Start { service: r.a, host: r.b, tag, way }
            }
            kind::BRANCH => Ask::Branch { host: r.a, tag: r.b },
            kind::REFUSED_IN_SESSION => Ask::Refused(Refused::from_raw(&r)?),
            kind::TALLY => Ask::Tally { tag: r.a, to: r.c, from: r.d },
            kind::END => Ask::End(r.data),
            kind::NAME_IN_SESSION => Ask::Name,
            kind::RELAY_ENDED_IN_SESSION => Ask::RelayEnded { relay: r.a, to: r.c, from: r.d },
            kind::OFFER
            | kind::OFFER_ENDED
            | kind::OFFER_TAKEN
            | kind::OFFER_REFUSED
            | kind::OFFER_RETURNED => Ask::Offer(OfferAsk::from_raw(&r)?),
            kind::RESUMABLE => Ask::Resumable { key: ProofKey(r.data.bytes().try_into().ok()?) },
            kind::LOST => Ask::Lost(r.data),
            kind::RESUME => Ask::Resume(Claim::from_raw(&r)?),
            kind::RESUMED => Ask::Resumed { taken: flag(r.a)? },
            _ => return None,
        })
    }
}

impl Message for Answer {
    type Phase = ();
    const ROWS: &'static [Row<()>] = &phases::ANSWER;

    fn raw(&self) -> Raw {
        match self {
            Answer::Channel { session } => Raw { c: *session, ..raw(kind::CHANNEL, 0, 0) },
            Answer::Branched { tag } => raw(kind::BRANCHED, *tag, 0),
            Answer::Signed(d) => with(kind::SIGNED, 0, 0, d),
            Answer::NotSigned => raw(kind::NOT_SIGNED, 0, 0),
            Answer::Login(May::Try { password_first }) => {
                raw(kind::LOGIN, 0, u32::from(*password_first))
            }
            Answer::Login(May::Later { seconds }) => raw(kind::LOGIN, 1, *seconds),
            Answer::Login(May::Never) => raw(kind::LOGIN, 2, 0),
            Answer::LoginResult { status, superuser, groups } => {
                let data = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
                with(kind::RESULT, *status, u32::from(*superuser), &Data(data))
            }
            Answer::Started { tag, relay, greeting, extras } => {
                Raw { c: extras.number(), ..with(kind::STARTED, *tag, *relay, greeting) }
            }
            Answer::Ended { tag, status } => raw(kind::ENDED, *tag, status_number(*status)),
            Answer::Refused { tag, service, why } => {
                Raw { c: u64::from(why.number()), ..raw(kind::NOT_STARTED, *tag, *service) }
            }
            Answer::GoAway { last } => raw(kind::GO_AWAY, u32::from(*last), 0),
            Answer::Full => raw(kind::FULL, 0, 0),
            Answer::Name(name) => {
                Raw { c: name.number(), ..with(kind::NAMED_IN_SESSION, 0, 0, &name.data()) }
            }
            Answer::Offered { offer } => raw(kind::OFFERED, *offer, 0),
            Answer::NotOffered => raw(kind::NOT_OFFERED, 0, 0),
            Answer::OfferClient { client, what } => what.raw(*client),
            Answer::Resumable { id } => with(kind::NAMED_RESUMABLE, 0, 0, &Data(id.to_vec())),
            Answer::Claimed(what) => raw(kind::CLAIMED, *what as u32, 0),
            Answer::Resumption(r) => r.raw(),
            Answer::Forget => raw(kind::FORGET, 0, 0),
            Answer::EndNow => raw(kind::END_NOW, 0, 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::CHANNEL => Answer::Channel { session: r.c },
            kind::BRANCHED => Answer::Branched { tag: r.a },
            kind::SIGNED => Answer::Signed(r.data),
            kind::NOT_SIGNED => Answer::NotSigned,
            kind::LOGIN => Answer::Login(match r.a {
                0 => May::Try { password_first: flag(r.b)? },
                1 => May::Later { seconds: r.b },
                2 => May::Never,
                _ => return None,
            }),
            kind::RESULT => {
                let words: &[u8; 32] = r.data.bytes().try_into().ok()?;
                let mut groups = [0; 4];
                for (g, w) in groups.iter_mut().zip(words.chunks_exact(8)) {
                    *g = w.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
                }
                Answer::LoginResult { status: r.a, superuser: flag(r.b)?, groups }
            }
            kind::STARTED => {
                let extras = Extras::from_number(r.c);
                Answer::Started { tag: r.a, relay: r.b, greeting: r.data, extras }
            }
            kind::ENDED => Answer::Ended { tag: r.a, status: status_of(r.b)? },
            kind::NOT_STARTED => Answer::Refused {
                tag: r.a,
                service: r.b,
                why: Why::from_number(u32::try_from(r.c).ok()?)?,
            },
            kind::GO_AWAY => Answer::GoAway { last: flag(r.a)? },
            kind::FULL => Answer::Full,
            kind::NAMED_IN_SESSION => Answer::Name(Named::from_raw(r.c, r.data)?),
            kind::OFFERED => Answer::Offered { offer: r.a },
            kind::NOT_OFFERED => Answer::NotOffered,
            kind::OFFER_CLIENT | kind::OFFER_CONNECT | kind::OFFER_CANCEL => {
                Answer::OfferClient { client: r.a, what: OfferClient::from_raw(&r)? }
            }
            kind::NAMED_RESUMABLE => Answer::Resumable { id: r.data.bytes().try_into().ok()? },
            kind::CLAIMED => {
                Answer::Claimed(*[Claimed::No, Claimed::Taken, Claimed::Relay].get(r.a as usize)?)
            }
            kind::RESUMPTION => Answer::Resumption(Resumption::from_raw(&r)?),
            kind::FORGET => Answer::Forget,
            kind::END_NOW => Answer::EndNow,
            _ => return None,
        })
    }
}
