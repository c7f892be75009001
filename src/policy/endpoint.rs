//! How clients reach a service.

use std::net::IpAddr;

/// Which clients a row serves, by their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    /// Does it serve the client with this (canonical) address?
    pub fn has(self, peer: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => peer.is_ipv4(),
            Family::V6 => peer.is_ipv6(),
        }
    }

    /// Is there a client that both serve?
    pub fn meets(self, other: Family) -> bool {
        self == Family::Any || other == Family::Any || self == other
    }

    /// The protocol's column of a row.
    pub fn protocol(self) -> &'static str {
        match self {
            Family::Any => "tcp",
            Family::V4 => "tcp4",
            Family::V6 => "tcp6",
        }
    }
}

/// Where a service is reached: by its name, at fived's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The clients that it is there for.
    pub family: Family,
    /// fived sends the reply line (`+Go`); if not, the program itself does.
    pub announce: bool,
}
