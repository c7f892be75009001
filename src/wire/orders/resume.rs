//! What the orders about resumed sessions say.

use super::phases::kind;
use super::{Data, Raw, with};
use crate::wire::peer::Peer;
use crate::wire::pubkey::CHALLENGE;
use crate::wire::resume::{self, Id, KEY};

/// A client asks for a session to go on, on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The number by which this net process knows the connection until the session takes it.
    pub connection: u64,
    pub claim: resume::Claim,
    /// This connection's exporter, which the proof is about, and that of PUBKEY.
    pub exporter: [u8; KEY],
    pub challenge: [u8; CHALLENGE],
}

/// What became of a connection on which another session was to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// There is no such session, or the client did not prove that it is its own.
    No,
    /// The session has taken the connection itself: it is in the same net process.
    Taken,
    /// The session has got the other end of the socket pair that comes with this.
    Relay,
}

/// A session may go on, on a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// As in [`Claim`], if the connection is in the same net process.
    pub connection: u64,
    /// How many bytes of records' data the client has had.
    pub received: u64,
    /// The client, as it is known from now on.
    pub from: Peer,
    /// PUBKEY's exporter of the new connection.
    pub challenge: [u8; CHALLENGE],
}

impl Claim {
    pub(super) fn raw(&self) -> Raw {
        let data = [&self.claim.id.0[..], &self.claim.proof, &self.exporter, &self.challenge];
        let data = Data(data.concat());
        Raw { c: self.connection, d: self.claim.received, ..with(kind::RESUME, 0, 0, &data) }
    }

    pub(super) fn from_raw(r: &Raw) -> Option<Claim> {
        let (id, rest) = r.data.bytes().split_first_chunk()?;
        let (proof, rest) = rest.split_first_chunk()?;
        let (exporter, challenge) = rest.split_first_chunk()?;
        Some(Claim {
            connection: r.c,
            claim: resume::Claim { id: Id(*id), received: r.d, proof: *proof },
            exporter: *exporter,
            challenge: challenge.try_into().ok()?,
        })
    }
}

impl Resumption {
    pub(super) fn raw(&self) -> Raw {
        let from = self.from.to_string();
        let data = Data([&self.challenge, from.as_bytes()].concat());
        Raw { c: self.connection, d: self.received, ..with(kind::RESUMPTION, 0, 0, &data) }
    }

    pub(super) fn from_raw(r: &Raw) -> Option<Resumption> {
        let (challenge, from) = r.data.bytes().split_first_chunk()?;
        let from = std::str::from_utf8(from).ok()?.parse().ok()?;
        Some(Resumption { connection: r.c, received: r.d, from, challenge: *challenge })
    }
}
