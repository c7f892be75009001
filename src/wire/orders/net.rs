//! The messages on a net process's own channel.

use super::phases::{self, NetPhase, Row, kind};
use super::refused::Refused;
use super::{ClientAddresses, Data, Message, Raw, flag, raw, with};

/// From a net process. `addresses`: those of the client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNet {
    /// It is confined and has read its table: it can take listeners.
    Ready,
    /// With the client's socket: start this service on it.
    Start {
        service: u32,
        host: u32,
        addresses: ClientAddresses,
    },
    /// With the client's socket and one end of a pair, on which
    /// [`Answer::Channel`](super::Answer::Channel) follows: a session begins.
    Session {
        /// The number of the services' own port to which the client came. None: it came to a
        /// listener of fived's own.
        tls_port: Option<u32>,
        addresses: ClientAddresses,
    },
    /// With the client's own socket: a session of this process asks for this service on it.
    /// `session`: as in [`Answer::Channel`](super::Answer::Channel). What became of it is answered
    /// on the session's channel.
    StartOnClient {
        session: u64,
        service: u32,
        host: u32,
    },
    /// With the socket of [`ToNet::Header`], after its header.
    AtPort {
        addresses: ClientAddresses,
    },
    Refused(Refused),
    /// Draining, it has closed all its listeners.
    ListenersClosed,
    /// This many refusals were not reported: there were too many at once.
    Unlogged {
        refusals: u64,
    },
    /// With the client's socket: look up the name of its address. (If the table has rules about
    /// names.)
    Name {
        client: u32,
        generation: u32,
        addresses: ClientAddresses,
    },
    /// The answer to [`ToNet::Ping`].
    Pong,
    /// With a Unix socket, whose last close may wait: close it, after this order has come again
    /// without one. Then net has closed its own.
    Close,
}

/// From the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToNet {
    /// With a listening socket: accept clients from it. `tls_port`: as in [`FromNet::Session`].
    Listener { tls_port: Option<u32> },
    /// With the socket of a load balancer that connected to a port of a service's own: read from it
    /// who the client is.
    Header,
    /// With a client's socket that no service has had: discard what the client still sends, then
    /// close.
    Linger,
    /// With the client's socket, handed back: refuse it.
    Refuse { service: u32, why: Why },
    /// Accept no more clients, finish what runs, then exit; `last`: fived itself ends, and clients
    /// that have not sent their request are closed.
    Drain { last: bool },
    /// The answer to [`FromNet::Name`].
    Name { client: u32, generation: u32, name: Named },
    /// Clients are waiting at a listener: is the loop alive?
    Ping,
    /// With one end of a new channel: a thread that relays is to begin
    /// ([`ToRelays`](super::ToRelays)).
    Relays,
    /// With the socket of a client that has connected to a Unix socket of fived's own: it is this
    /// user, and has sent nothing yet.
    Client { uid: u32, login: Option<KnownLogin> },
    /// The first order, before net is confined: with a page of memory that the parent looks at,
    /// where what is counted goes.
    Gauges,
}

/// What the rules ask about the user who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLogin {
    pub name: Data,
    pub superuser: bool,
    pub groups: [u64; 4],
}

impl KnownLogin {
    fn raw(uid: u32, login: Option<&KnownLogin>) -> Raw {
        let Some(l) = login else { return raw(kind::CLIENT, uid, NOBODY) };
        let groups = l.groups.iter().flat_map(|g| g.to_le_bytes());
        let data =
            Data::truncate(&groups.chain(l.name.bytes().iter().copied()).collect::<Vec<_>>());
        with(kind::CLIENT, uid, if l.superuser { SUPERUSER } else { SOMEBODY }, &data)
    }

    /// None: it is no such order.
    fn from_raw(r: &Raw) -> Option<Option<KnownLogin>> {
        let superuser = match r.b {
            NOBODY if r.data == Data::default() => return Some(None),
            SOMEBODY => false,
            SUPERUSER => true,
            _ => return None,
        };
        let (words, name) = r.data.bytes().split_first_chunk::<32>()?;
        let mut groups = [0; 4];
        for (group, word) in groups.iter_mut().zip(words.chunks_exact(8)) {
            *group = word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        Some(Some(KnownLogin { name: Data::new(name)?, superuser, groups }))
    }
}

/// Who is logged in.
const NOBODY: u32 = 0;
const SOMEBODY: u32 = 1;
const SUPERUSER: u32 = 2;

/// The result of a look-up of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// No answer came in time.
    Unknown,
    /// The address has no name.
    None,
    Is(Data),
}

impl Named {
    pub(super) fn number(&self) -> u64 {
        match self {
            Named::Unknown => 0,
            Named::None => 1,
            Named::Is(_) => 2,
        }
    }

    pub(super) fn data(&self) -> Data {
        match self {
            Named::Is(name) => name.clone(),
            Named::Unknown | Named::None => Data::default(),
        }
    }

    pub(super) fn from_raw(number: u64, data: Data) -> Option<Named> {
        [Named::Unknown, Named::None, Named::Is(data)]
            .into_iter()
            .nth(usize::try_from(number).ok()?)
    }
}

/// Why a service was not started although net allowed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Busy,
    Failed,
    /// Not allowed after all: the client gets the same reply as for a name that does not exist.
    NotAvailable,
}

impl Why {
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn from_number(n: u32) -> Option<Why> {
        [Why::Busy, Why::Failed, Why::NotAvailable].get(n as usize).copied()
    }
}

impl Message for FromNet {
    type Phase = NetPhase;
    const ROWS: &'static [Row<NetPhase>] = &phases::FROM_NET;

    fn raw(&self) -> Raw {
        match self {
            FromNet::Ready => raw(kind::READY, 0, 0),
            FromNet::Start { service, host, addresses } => {
                with(kind::START, *service, *host, &addresses.data())
            }
            FromNet::Session { tls_port, addresses } => {
                with(kind::SESSION, from_option(*tls_port), 0, &addresses.data())
            }
            FromNet::StartOnClient { session, service, host } => {
                Raw { c: *session, ..raw(kind::START_ON_CLIENT, *service, *host) }
            }
            FromNet::AtPort { addresses } => with(kind::AT_PORT, 0, 0, &addresses.data()),
            FromNet::Refused(r) => r.raw(kind::REFUSED),
            FromNet::Unlogged { refusals } => Raw { c: *refusals, ..raw(kind::UNLOGGED, 0, 0) },
            FromNet::Name { client, generation, addresses } => {
                with(kind::NAME, *client, *generation, &addresses.data())
            }
            FromNet::Pong => raw(kind::PONG, 0, 0),
            FromNet::Close => raw(kind::CLOSE, 0, 0),
            FromNet::ListenersClosed => raw(kind::LISTENERS_CLOSED, 0, 0),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::READY => FromNet::Ready,
            kind::START => FromNet::Start {
                service: r.a,
                host: r.b,
                addresses: ClientAddresses::from_data(&r.data)?,
            },
            kind::SESSION => FromNet::Session {
                tls_port: r.a.checked_sub(1),
                addresses: ClientAddresses::from_data(&r.data)?,
            },
            kind::START_ON_CLIENT => {
                FromNet::StartOnClient { session: r.c, service: r.a, host: r.b }
            }
            kind::AT_PORT => FromNet::AtPort { addresses: ClientAddresses::from_data(&r.data)? },
            kind::REFUSED => FromNet::Refused(Refused::from_raw(&r)?),
            kind::UNLOGGED => FromNet::Unlogged { refusals: r.c },
            kind::NAME => FromNet::Name {
                client: r.a,
                generation: r.b,
                addresses: ClientAddresses::from_data(&r.data)?,
            },
            kind::PONG => FromNet::Pong,
            kind::CLOSE => FromNet::Close,
            kind::LISTENERS_CLOSED => FromNet::ListenersClosed,
            _ => return None,
        })
    }
}

impl Message for ToNet {
    type Phase = ();
    const ROWS: &'static [Row<()>] = &phases::TO_NET;

    fn raw(&self) -> Raw {
        match self {
            ToNet::Listener { tls_port } => raw(kind::LISTENER, from_option(*tls_port), 0),
            ToNet::Header => raw(kind::HEADER, 0, 0),
            ToNet::Linger => raw(kind::LINGER, 0, 0),
            ToNet::Refuse { service, why } => raw(kind::REFUSE, *service, why.number()),
            ToNet::Drain { last } => raw(kind::DRAIN, u32::from(*last), 0),
            ToNet::Name { client, generation, name } => {
                Raw { c: name.number(), ..with(kind::NAMED, *client, *generation, &name.data()) }
            }
            ToNet::Ping => raw(kind::PING, 0, 0),
            ToNet::Relays => raw(kind::RELAYS, 0, 0),
            ToNet::Gauges => raw(kind::GAUGES, 0, 0),
            ToNet::Client { uid, login } => KnownLogin::raw(*uid, login.as_ref()),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        Some(match r.kind {
            kind::LISTENER => ToNet::Listener { tls_port: r.a.checked_sub(1) },
            kind::HEADER => ToNet::Header,
            kind::LINGER => ToNet::Linger,
            kind::REFUSE => ToNet::Refuse { service: r.a, why: Why::from_number(r.b)? },
            kind::DRAIN => ToNet::Drain { last: flag(r.a)? },
            kind::NAMED => {
                ToNet::Name { client: r.a, generation: r.b, name: Named::from_raw(r.c, r.data)? }
            }
            kind::PING => ToNet::Ping,
            kind::RELAYS => ToNet::Relays,
            kind::GAUGES => ToNet::Gauges,
            kind::CLIENT => ToNet::Client { uid: r.a, login: KnownLogin::from_raw(&r)? },
            _ => return None,
        })
    }
}

/// 0 is none.
fn from_option(n: Option<u32>) -> u32 {
    n.map_or(0, |n| n.saturating_add(1))
}
