//! What a request line gets: one judgement, the same for a fresh connection, a session and a
//! multiplexed stream.
//!
//! Never touches a descriptor. A name that this session may not use gets the same bytes, by the
//! same work, as one that does not exist.

use super::builtins::help;
use super::standing::Full;
use super::world::World;
use crate::policy::{Denied, Facts, PeerName, ServiceId};
use crate::wire::builtins::{self, Builtin};
use crate::wire::orders::{self, Named, Refused, Why};
use crate::wire::reply;
use crate::wire::request::{self, Request};
use std::fmt;
use std::net::SocketAddr;

/// Where a request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On a connection of its own.
    Connection,
    /// On a multiplexed stream.
    Stream,
}

/// What a request gets.
#[derive(Debug)]
pub enum Judged {
    /// These bytes; then the connection (the stream) ends.
    Help(Vec<u8>),
    /// The built-in may be used.
    Builtin(Builtin),
    /// These bytes; then the connection ends. `why` is for the log: None where it is no event.
    Refuse { bytes: Vec<u8>, why: Option<Refusal> },
    /// What this gets depends on the name of the client's address: it is to be asked for, then this
    /// is to be judged again.
    LookUp,
    /// The parent is asked to start it.
    Start(ServiceId),
}

/// Why a request was refused, for the log alone.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub service: Option<ServiceId>,
    pub reason: Reason,
}

/// Net's own reasons.
#[derive(Debug, Clone, Copy)]
pub enum Reason {
    Denied(Denied),
    TooLong,
    /// It waited, and others had to have its place.
    Connections,
    /// No session more may stand.
    Sessions(Full),
}

/// A client that waited for so long that others of its source, which has most of those that wait,
/// came after it.
pub const EVICTED: Refusal = Refusal { service: None, reason: Reason::Connections };

/// Judges the text of a request line.
pub fn judge(world: &World, facts: &Facts, place: Where, text: &[u8]) -> Judged {
    let judged = judged(world, facts, place, text);
    log::debug!(
        "request {:?} from {} host={} tls={} user={:?}: {judged}",
        String::from_utf8_lossy(text),
        facts.peer,
        facts.host.0,
        facts.encrypted,
        facts.login.as_ref().map(|l| &l.name)
    );
    judged
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Judged::Help(_) => f.write_str("help"),
            Judged::Builtin(b) => write!(f, "built-in {b:?}"),
            Judged::Refuse { why: Some(Refusal { reason, .. }), .. } => {
                write!(f, "refused, {reason:?}")
            }
            Judged::Refuse { why: None, .. } => f.write_str("refused"),
            Judged::LookUp => f.write_str("the name of the address is asked for"),
            Judged::Start(ServiceId(n)) => write!(f, "service {n} of the table is asked for"),
        }
    }
}

fn judged(world: &World, facts: &Facts, place: Where, text: &[u8]) -> Judged {
    match request::read(text) {
        Request::Help => {
            Judged::Help(help::answer(&world.table, facts, session(world, facts, place)))
        }
        Request::Builtin(b) => {
            let (row, session) = (b.row(), session(world, facts, place));
            let Some(bytes) = row.refusal(session) else { return Judged::Builtin(b) };
            // Somebody who would have sent a password in the clear, or did: the log says so.
            let why = Refusal { service: None, reason: Reason::Denied(Denied::Tls) };
            let why = row.lacks_tls(session).then_some(why);
            Judged::Refuse { bytes: bytes.to_vec(), why }
        }
        Request::NoName(_) => not_available(None, Denied::Unknown),
        Request::Name(name) if world.table.asks_name(name, facts) => Judged::LookUp,
        Request::Name(name) => match world.table.allowed(name, facts) {
            Ok(id) => Judged::Start(id),
            Err((service, denied)) => not_available(service, denied),
        },
    }
}

/// A line that is longer than a name may be.
pub fn too_long() -> Judged {
    let why = Some(Refusal { service: None, reason: Reason::TooLong });
    Judged::Refuse { bytes: reply::TOO_LONG.to_vec(), why }
}

/// A built-in that needs a session, where none more may stand.
pub fn no_session_left(full: Full) -> Judged {
    let why = Some(Refusal { service: None, reason: Reason::Sessions(full) });
    Judged::Refuse { bytes: reply::BUSY.to_vec(), why }
}

/// What the parent said of the name of the client's address.
pub fn named(name: Named) -> PeerName {
    match name {
        Named::Unknown => PeerName::Unknown,
        Named::None => PeerName::None,
        Named::Is(name) => name.text().map_or(PeerName::Unknown, |n| PeerName::Is(n.into())),
    }
}

/// The order that tells the parent of a refusal; `name` is what was asked for.
pub fn refused(facts: &Facts, peer: SocketAddr, why: Refusal, name: &[u8]) -> Refused {
    let reason = match why.reason {
        Reason::Denied(d) => orders::Reason::Denied(d.number()),
        Reason::TooLong => orders::Reason::TooLong,
        Reason::Connections => orders::Reason::Connections,
        Reason::Sessions(full) => full.reason(),
    };
    let (service, host) = (why.service.map(|s| s.0), facts.host.0);
    Refused { service, host, reason, from: peer, name: name.to_vec() }
}

/// The line for a service that was not started, with its banners where they tell no secret.
pub fn not_started(world: &World, service: ServiceId, why: Why) -> Vec<u8> {
    let line = match why {
        Why::Busy => reply::BUSY,
        Why::Failed => reply::FAILED,
        Why::NotAvailable => return reply::NOT_AVAILABLE.to_vec(),
    };
    let tail = world.table.service(service).map(|s| s.attributes.tail()).unwrap_or_default();
    [line, &tail].concat()
}

fn not_available(service: Option<ServiceId>, denied: Denied) -> Judged {
    let why = Some(Refusal { service, reason: Reason::Denied(denied) });
    Judged::Refuse { bytes: reply::NOT_AVAILABLE.to_vec(), why }
}

/// What the built-ins' rules ask.
fn session(world: &World, facts: &Facts, place: Where) -> builtins::Session {
    builtins::Session {
        stream: place == Where::Stream,
        tls: facts.encrypted,
        certificate: world.tls.is_some(),
        plain_login: facts.peer.is_loopback() || world.table.settings.plaintext_login,
    }
}
