//! What a request line gets: one decision procedure for a fresh connection, a session and a
//! multiplexed stream.
//!
//! Nothing here touches a descriptor. A name that this session may not use gets the same bytes,
//! after the same work, as a name that does not exist.

use super::builtins::help;
use super::session_counts::Full;
use super::world::World;
use crate::policy::{Denied, Facts, PeerName, ServiceId};
use crate::wire::builtins::{self, Builtin};
use crate::wire::orders::{self, Named, Refused, Why};
use crate::wire::peer::Peer;
use crate::wire::reply;
use crate::wire::request::{self, NAME_MAX, Request};
use crate::wire::run::Way;
use std::fmt;

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
pub enum Decision {
    /// Send these bytes; then the connection (or the stream) ends.
    Help(Vec<u8>),
    /// Run the built-in.
    Builtin(Builtin),
    /// Send these bytes; then the connection ends. `why` is for the log; None: nothing is logged.
    Refuse { bytes: Vec<u8>, why: Option<Refusal> },
    /// It depends on the name of the client's address: have that looked up, then decide again.
    LookUp,
    /// Ask the parent to start this service.
    Start(ServiceId),
}

/// Why a request was refused, for the log alone.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub service: Option<ServiceId>,
    pub reason: Reason,
}

/// Reasons that net itself finds.
#[derive(Debug, Clone, Copy)]
pub enum Reason {
    Denied(Denied),
    TooLong,
    /// It waited, and had to make room for others.
    Connections,
    /// This limit is reached.
    Full(Full),
    /// Its load balancer did not say who it is.
    Proxy,
}

/// A client that waited was closed to make room: it was the oldest of the source that has most of
/// them.
pub const EVICTED: Refusal = Refusal { service: None, reason: Reason::Connections };

/// A load balancer did not say in time who its client is, or its header is not valid.
pub const NO_HEADER: Refusal = Refusal { service: None, reason: Reason::Proxy };

/// Decides about the text of a request line; or about a name after RUN, where no built-in has a
/// name.
pub fn decide(world: &World, facts: &Facts, place: Where, text: &[u8], way: &Way) -> Decision {
    let decision = match way.is_run() {
        // Its line may be longer than a name.
        true if text.len() > NAME_MAX => too_long(),
        true => decision_on_name(world, facts, request::read_name(text)),
        false => decision(world, facts, place, text),
    };
    log::debug!(
        "request {:?} from {} host={} tls={} user={:?}: {decision}",
        String::from_utf8_lossy(text),
        facts.peer,
        facts.host.0,
        facts.encrypted,
        facts.login.as_ref().map(|l| &l.name)
    );
    decision
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Decision::Help(_) => f.write_str("help"),
            Decision::Builtin(b) => write!(f, "built-in {b:?}"),
            Decision::Refuse { why: Some(Refusal { reason, .. }), .. } => {
                write!(f, "refused, {reason:?}")
            }
            Decision::Refuse { why: None, .. } => f.write_str("refused"),
            Decision::LookUp => f.write_str("asking for the name of the address"),
            Decision::Start(ServiceId(n)) => write!(f, "asking for service {n} of the table"),
        }
    }
}

fn decision(world: &World, facts: &Facts, place: Where, text: &[u8]) -> Decision {
    match request::read(text) {
        Request::Help => {
            Decision::Help(help::answer(&world.table, facts, session(world, facts, place)))
        }
        Request::Builtin(b) => {
            let (row, mut session) = (b.row(), session(world, facts, place));
            // HELP does not list it: a new session is refused later.
            session.resume |= world.resumes && !matches!(facts.peer, Peer::User(_));
            let Some(bytes) = row.refusal(session) else { return Decision::Builtin(b) };
            // The client would have sent a password in the clear, or has done so: that is logged.
            let why = Refusal { service: None, reason: Reason::Denied(Denied::Tls) };
            let why = row.lacks_tls(session).then_some(why);
            Decision::Refuse { bytes: bytes.to_vec(), why }
        }
        Request::NoName(_) => decision_on_name(world, facts, None),
        Request::Name(name) => decision_on_name(world, facts, Some(name)),
    }
}

/// None: it cannot be a name.
fn decision_on_name(world: &World, facts: &Facts, name: Option<&[u8]>) -> Decision {
    match name {
        None => not_available(None, Denied::Unknown),
        Some(name) if world.table.asks_name(name, facts) => Decision::LookUp,
        Some(name) => match world.table.allowed(name, facts) {
            Ok(id) => Decision::Start(id),
            Err((Some(id), _)) if world.table.is_sensor_for(id, facts) => Decision::Start(id),
            Err((service, denied)) => not_available(service, denied),
        },
    }
}

/// For a line that is longer than a name may be.
pub fn too_long() -> Decision {
    let why = Some(Refusal { service: None, reason: Reason::TooLong });
    Decision::Refuse { bytes: reply::TOO_LONG.to_vec(), why }
}

/// For what needs a session, where there are too many.
pub fn no_session_left(full: Full) -> Decision {
    Decision::Refuse { bytes: reply::BUSY.to_vec(), why: Some(self::full(None, full)) }
}

/// This limit is reached. `service`: the one that was asked for; None: it was a built-in.
pub fn full(service: Option<ServiceId>, limit: Full) -> Refusal {
    Refusal { service, reason: Reason::Full(limit) }
}

/// What the parent has answered about the name of the client's address.
pub fn named(name: Named) -> PeerName {
    match name {
        Named::Unknown => PeerName::Unknown,
        Named::None => PeerName::None,
        Named::Is(name) => name.text().map_or(PeerName::Unknown, |n| PeerName::Is(n.into())),
    }
}

/// The order that reports a refusal to the parent; `name` is what was asked for.
pub fn refused(facts: &Facts, why: Refusal, name: &[u8]) -> Refused {
    let reason = match why.reason {
        Reason::Denied(d) => orders::Reason::Denied(d.number()),
        Reason::TooLong => orders::Reason::TooLong,
        Reason::Connections => orders::Reason::Connections,
        Reason::Full(full) => full.reason(),
        Reason::Proxy => orders::Reason::Proxy,
    };
    let (service, host) = (why.service.map(|s| s.0), facts.host.0);
    Refused { service, host, reason, from: facts.peer, name: name.to_vec() }
}

/// The reply for a service that was not started, with its banners where they reveal nothing.
pub fn not_started(world: &World, service: ServiceId, why: Why) -> Vec<u8> {
    let line = match why {
        Why::Busy => reply::BUSY,
        Why::Failed => reply::FAILED,
        Why::NotAvailable => return reply::NOT_AVAILABLE.to_vec(),
    };
    let tail = world.table.service(service).map(|s| s.attributes.tail()).unwrap_or_default();
    [line, &tail].concat()
}

fn not_available(service: Option<ServiceId>, denied: Denied) -> Decision {
    let why = Some(Refusal { service, reason: Reason::Denied(denied) });
    Decision::Refuse { bytes: reply::NOT_AVAILABLE.to_vec(), why }
}

/// What the rules of the built-ins depend on.
fn session(world: &World, facts: &Facts, place: Where) -> builtins::Conditions {
    builtins::Conditions {
        stream: place == Where::Stream,
        tls: facts.encrypted,
        certificate: world.tls.is_some(),
        plain_login: facts.peer.is_of_this_computer() || world.table.settings.plaintext_login,
        offers: place == Where::Stream
            && world.table.may_offer_any(facts.host, facts.login.as_ref()),
        // Nothing between this computer and itself is lost, and there is no TLS that could prove
        // who comes back.
        resume: !world.table.settings.resume_timeout.is_zero()
            && !matches!(facts.peer, Peer::User(_)),
    }
}
