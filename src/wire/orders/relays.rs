//! The messages on the channel of a thread that relays, of a net process.

use super::phases::{self, Row, kind};
use super::{DATA_MAX, Data, Message, Raw, raw, with};

/// From the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToRelays {
    /// With a client's socket and that of an upstream, connected: copy between them.
    Begin { relay: u32 },
    /// The same twice: with the two sockets of the first, and then those of the second.
    BeginTwo { relays: [u32; 2] },
}

/// From the thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromRelays {
    /// These relays are over; [`ENDS_MAX`] at most.
    Ended(Vec<RelayEnd>),
}

/// A relay that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayEnd {
    pub relay: u32,
    /// Bytes to the upstream, and from it.
    pub to: u64,
    pub from: u64,
}

/// How many ends one message tells of.
pub const ENDS_MAX: usize = DATA_MAX / END;
/// Bytes of one.
const END: usize = 20;

impl RelayEnd {
    fn bytes(&self) -> [u8; END] {
        let mut b = [0; END];
        b[0..4].copy_from_slice(&self.relay.to_le_bytes());
        b[4..12].copy_from_slice(&self.to.to_le_bytes());
        b[12..20].copy_from_slice(&self.from.to_le_bytes());
        b
    }

    fn read(b: &[u8; END]) -> Option<RelayEnd> {
        let (relay, b) = b.split_first_chunk()?;
        let (to, b) = b.split_first_chunk()?;
        let relay = u32::from_le_bytes(*relay);
        let [to, from] = [to, b.first_chunk()?].map(|n| u64::from_le_bytes(*n));
        Some(RelayEnd { relay, to, from })
    }
}

impl Message for ToRelays {
    type Phase = ();
    const ROWS: &'static [Row<()>] = &phases::TO_RELAYS;

    fn raw(&self) -> Raw {
        match self {
            ToRelays::Begin { relay } => raw(kind::RELAY, *relay, 0),
            ToRelays::BeginTwo { relays: [a, b] } => raw(kind::TWO_RELAYS, *a, *b),
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        match r.kind {
            kind::RELAY => Some(ToRelays::Begin { relay: r.a }),
            kind::TWO_RELAYS => Some(ToRelays::BeginTwo { relays: [r.a, r.b] }),
            _ => None,
        }
    }
}

impl Message for FromRelays {
    type Phase = ();
    const ROWS: &'static [Row<()>] = &phases::FROM_RELAYS;

    fn raw(&self) -> Raw {
        match self {
            FromRelays::Ended(all) => {
                let bytes: Vec<u8> = all.iter().take(ENDS_MAX).flat_map(RelayEnd::bytes).collect();
                with(kind::RELAYS_ENDED, 0, 0, &Data::truncate(&bytes))
            }
        }
    }

    fn from_raw(r: Raw) -> Option<Self> {
        let (all, rest) = r.data.bytes().as_chunks();
        match r.kind {
            kind::RELAYS_ENDED if rest.is_empty() => {
                Some(FromRelays::Ended(all.iter().map(RelayEnd::read).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }
}
