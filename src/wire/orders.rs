//! Orders: the messages between the parent and its own processes. They have one fixed size and a
//! version word, and are sent over SOCK_SEQPACKET; descriptors travel beside them. A process that
//! sends what does not decode, or what is not allowed at that time ([`phases`]), is ended.
//!
//! | channel | net or keys sends | the parent sends |
//! |---|---|---|
//! | a net process's own | [`FromNet`] | [`ToNet`] |
//! | that of a thread that relays | [`FromRelays`] | [`ToRelays`] |
//! | a session's own | [`Ask`] | [`Answer`] |
//! | the keys process's | [`FromKeys`](super::signing::FromKeys) | [`ToKeys`](super::signing::ToKeys) |
//!
//! | file | noun |
//! |---|---|
//! | `net` | messages on a net process's channel |
//! | `relays` | on that of a thread that relays |
//! | `session` | on a session's |
//! | `offer` | of these, those about services that sessions offer |
//! | `resume` | about sessions that are resumed |
//! | `run` | about services of RUN |
//! | `refused` | a request that net itself refused |
//! | `client_addresses` | between whom a client's connection is, by net and by its load balancer |
//! | `phases` | which order may be sent when |

mod client_addresses;
mod net;
pub mod offer;
pub mod phases;
mod refused;
mod relays;
mod resume;
mod run;
mod session;
#[cfg(test)]
mod tests;

pub use client_addresses::{AddressPair, ClientAddresses};
pub use net::{FromNet, KnownLogin, Named, ToNet, Why};
pub use offer::{OfferAsk, OfferClient};
pub use phases::{KeysPhase, NetPhase, SessionPhase};
pub use refused::{Reason, Refused};
pub use relays::{ENDS_MAX, FromRelays, RelayEnd, ToRelays};
pub use resume::{Claim, Claimed, Resumption};
pub use run::Extras;
pub use session::{Answer, Ask, May, Method, OWN_CONNECTION};

use phases::Row;

/// The size of every order, in bytes.
pub const ORDER: usize = HEAD + DATA_MAX;
/// The most bytes of text, signature or message in an order: an RSA signature of 4096 bits.
pub const DATA_MAX: usize = 512;
const HEAD: usize = 32;
/// Changes with every change of the messages: a net process of another build is refused.
const VERSION: u16 = 7;

/// A byte string within an order, of bounded length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data(Vec<u8>);

impl Data {
    /// None: longer than [`DATA_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Data> {
        (bytes.len() <= DATA_MAX).then(|| Data(bytes.to_vec()))
    }

    /// As much of `bytes` as fits; for what is only logged.
    pub fn truncate(bytes: &[u8]) -> Data {
        Data(bytes[..bytes.len().min(DATA_MAX)].to_vec())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// The messages of one channel and direction.
pub trait Message: Sized {
    /// The states of a sender that the receiver distinguishes.
    type Phase: PartialEq + 'static;
    /// All of these messages, and when each is allowed.
    const ROWS: &'static [Row<Self::Phase>];

    fn raw(&self) -> Raw;
    fn from_raw(raw: Raw) -> Option<Self>;

    /// Decodes a message, if it is allowed in this phase and with this many descriptors (see
    /// [`Row::allows`]).
    fn accept(bytes: &[u8], descriptors: Option<usize>, phase: &Self::Phase) -> Option<Self> {
        let kind = u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?);
        let row = Self::ROWS.iter().find(|row| row.kind == kind)?;
        row.allows(phase, descriptors).then(|| Self::decode(bytes))?
    }

    fn encode(&self) -> [u8; ORDER] {
        let r = self.raw();
        let mut b = [0; ORDER];
        b[0..2].copy_from_slice(&VERSION.to_le_bytes());
        b[2..4].copy_from_slice(&r.kind.to_le_bytes());
        b[4..8].copy_from_slice(&r.a.to_le_bytes());
        b[8..12].copy_from_slice(&r.b.to_le_bytes());
        b[12..16].copy_from_slice(&(r.data.0.len() as u32).to_le_bytes());
        b[16..24].copy_from_slice(&r.c.to_le_bytes());
        b[24..32].copy_from_slice(&r.d.to_le_bytes());
        b[HEAD..HEAD + r.data.0.len()].copy_from_slice(&r.data.0);
        b
    }

    /// Decodes a message. None: it is not one of these messages in this version. A process that
    /// receives from another one uses [`Message::accept`].
    fn decode(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; ORDER] = bytes.try_into().ok()?;
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        let len = u32_at(12) as usize;
        if u16_at(0) != VERSION || len > DATA_MAX {
            return None;
        }
        let data = Data(b[HEAD..HEAD + len].to_vec());
        Self::from_raw(Raw {
            kind: u16_at(2),
            a: u32_at(4),
            b: u32_at(8),
            c: u64_at(16),
            d: u64_at(24),
            data,
        })
    }
}

/// The fields of every message.
#[derive(Debug, Default)]
pub struct Raw {
    pub(super) kind: u16,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u64,
    pub(super) d: u64,
    pub(super) data: Data,
}

pub(super) fn raw(kind: u16, a: u32, b: u32) -> Raw {
    Raw { kind, a, b, ..Raw::default() }
}

pub(super) fn with(kind: u16, a: u32, b: u32, data: &Data) -> Raw {
    Raw { data: data.clone(), ..raw(kind, a, b) }
}

fn flag(n: u32) -> Option<bool> {
    (n <= 1).then_some(n == 1)
}
