//! How the parent knows a service's connection that is relayed here, and whom its bytes are counted
//! for.

use crate::link::Tally;
use crate::wire::orders::{Answer, Ask};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A program's, by the tag that it was asked for with.
    Tag(u32),
    /// That of a server that was running already, by the number of its relay. The parent learns
    /// from its tally that it is over.
    Relay(u32),
    /// That of a client of a service that this session offers, likewise. The stream leads to the
    /// service, and the local end to the client.
    Offered(u32),
}

impl Counted {
    /// Of a connection that was asked for with this tag.
    pub fn of(answer: &Answer, tag: u32) -> Counted {
        match answer {
            Answer::Started { relay: n @ 1.., .. } => Counted::Relay(*n),
            _ => Counted::Tag(tag),
        }
    }

    /// Is it a server's that was running already?
    pub fn is_relay(self) -> bool {
        matches!(self, Counted::Relay(_) | Counted::Offered(_))
    }

    /// The order that tells the parent what was copied, when it is over.
    pub fn tally(self, tally: Tally) -> Ask {
        let (to, from) = (tally.received, tally.sent);
        match self {
            Counted::Tag(tag) => Ask::Tally { tag, to, from },
            Counted::Relay(relay) => Ask::RelayEnded { relay, to, from },
            Counted::Offered(relay) => Ask::RelayEnded { relay, to: from, from: to },
        }
    }
}
