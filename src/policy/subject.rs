//! The subject of a decision: what is known about the client that asks.

use super::ids::HostId;
use crate::wire::peer::Peer;

/// The groups that a user is in: bit `i` is `Table::groups()[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupSet(pub [u64; 4]);

impl GroupSet {
    pub fn insert(&mut self, i: usize) {
        if let Some(word) = self.0.get_mut(i / 64) {
            *word |= 1 << (i % 64);
        }
    }

    pub fn contains(&self, i: usize) -> bool {
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

/// The user who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    pub groups: GroupSet,
    /// Is it uid 0?
    pub superuser: bool,
}

/// Everything that is known about a client, and so everything that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub peer: Peer,
    pub host: HostId,
    pub encrypted: bool,
    pub login: Option<Login>,
    /// Minutes since midnight, local time.
    pub minute: u16,
    pub peer_name: PeerName,
    pub reached: Reached,
}

/// How the client has reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// It named the service, at one of fived's own listeners.
    ByName,
    /// It came to a port of the service's own, and names nothing.
    AtPort,
    /// It came to a port of the service's own where TLS is expected from the first byte.
    AtTlsPort,
}

/// What is known about the name of the peer's address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerName {
    /// It was not looked up; where a rule needs it, it will be.
    #[default]
    NotAsked,
    /// It was looked up, and no answer came. The address may have any name, so every rule that
    /// refuses a name refuses this client.
    Unknown,
    /// The address has no name.
    None,
    Is(String),
}
