//! The record of a request that net itself refused, for the log.

use super::{Data, Raw, with};
use crate::wire::peer::Peer;
use std::net::{IpAddr, Ipv6Addr};

/// Why net refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The rules of the table; the number is policy's own, below 100.
    Denied(u32),
    /// Its line was too long.
    TooLong,
    /// There are `max_sessions` sessions.
    Sessions,
    /// There are `max_sessions_per_source` sessions from its source.
    SourceSessions,
    /// `max_connections` clients waited, and this one had to make room.
    Connections,
    /// No descriptor was left for it.
    Descriptors,
    /// A load balancer did not say in time who its client is, or its header is not valid.
    Proxy,
    /// Its session waits for the answers to as many starts as it may.
    Starts,
    /// As many streams have dialogues as its session or its source may have.
    Dialogues,
}

/// Numbers of [`Reason::Denied`] are below this; the other reasons are numbered from here.
const OWN: u32 = 100;
/// The other reasons, in the order of their numbers, and how the log names them.
const REASONS: [(Reason, &str); 8] = [
    (Reason::TooLong, "too-long"),
    (Reason::Sessions, "sessions"),
    (Reason::SourceSessions, "sessions_per_source"),
    (Reason::Connections, "connections"),
    (Reason::Descriptors, "descriptors"),
    (Reason::Proxy, "proxy"),
    (Reason::Starts, "starts"),
    (Reason::Dialogues, "dialogues"),
];

impl Reason {
    /// How the log names it; `denied` names policy's reasons. None: there is no such reason.
    pub fn word(self, denied: impl Fn(u32) -> Option<&'static str>) -> Option<&'static str> {
        match self {
            Reason::Denied(n) => denied(n),
            own => REASONS.iter().find(|r| r.0 == own).map(|r| r.1),
        }
    }

    fn number(self) -> u32 {
        match self {
            Reason::Denied(n) => n,
            own => OWN + REASONS.iter().take_while(|r| r.0 != own).count() as u32,
        }
    }

    fn from_number(n: u32) -> Option<Reason> {
        match n.checked_sub(OWN) {
            None => Some(Reason::Denied(n)),
            Some(own) => REASONS.get(own as usize).map(|r| r.0),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The service, if there is one of that name.
    pub service: Option<u32>,
    pub host: u32,
    pub reason: Reason,
    pub from: Peer,
    /// The name that was asked for, as it was received.
    pub name: Vec<u8>,
}

/// Bytes of an address.
const ADDRESS: usize = 16;
/// Set beside the uid of a client that has no address.
const USER: u64 = 1 << 32;
/// Stands for no service.
const NONE: u32 = u32::MAX;

impl Refused {
    pub(super) fn raw(&self, kind: u16) -> Raw {
        let (address, user) = match self.from {
            Peer::Address(IpAddr::V4(a)) => (a.to_ipv6_mapped(), 0),
            Peer::Address(IpAddr::V6(a)) => (a, 0),
            Peer::User(uid) => (Ipv6Addr::UNSPECIFIED, USER | u64::from(uid)),
            Peer::Nobody => (Ipv6Addr::UNSPECIFIED, 0),
        };
        // A name is always far shorter than the room for it.
        let data = Data::truncate(&[&address.octets()[..], &self.name].concat());
        let service = self.service.unwrap_or(NONE);
        let reason = u64::from(self.reason.number());
        Raw { c: reason, d: user, ..with(kind, service, self.host, &data) }
    }

    pub(super) fn from_raw(r: &Raw) -> Option<Refused> {
        let (address, name) = r.data.bytes().split_first_chunk::<ADDRESS>()?;
        let from = match r.d {
            0 => IpAddr::from(Ipv6Addr::from(*address)).into(),
            user => Peer::User(u32::try_from(user.checked_sub(USER)?).ok()?),
        };
        Some(Refused {
            service: (r.a != NONE).then_some(r.a),
            host: r.b,
            reason: Reason::from_number(u32::try_from(r.c).ok()?)?,
            from,
            name: name.to_vec(),
        })
    }
}
