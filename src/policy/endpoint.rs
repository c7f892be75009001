//! How clients reach a service.

use super::text::parse::expected;
use std::fmt;
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

/// A port of a service's own, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// None: every address.
    pub address: Option<IpAddr>,
    /// A number, or a name of services(5).
    pub name: String,
}

impl Port {
    /// `[ADDRESS:]PORT`; an IPv6 address stands in brackets.
    pub fn read(word: &str) -> Result<Port, String> {
        let wrong = || expected("PORT, ADDRESS:PORT or [IPV6-ADDRESS]:PORT", word);
        let (address, name) = match word.rsplit_once(':') {
            None => (None, word),
            Some((address, name)) => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
                let address: IpAddr = bare.unwrap_or(address).parse().map_err(|_| wrong())?;
                if address.is_ipv6() != bare.is_some() {
                    return Err(wrong());
                }
                // An IPv4 address within IPv6 is that IPv4 address.
                (Some(address.to_canonical()), name)
            }
        };
        let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let known = if digits { name.parse::<u16>().is_ok() } else { is_name(name) };
        if known { Ok(Port { address, name: name.into() }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.address {
            None => f.write_str(&self.name),
            Some(IpAddr::V4(a)) => write!(f, "{a}:{}", self.name),
            Some(IpAddr::V6(a)) => write!(f, "[{a}]:{}", self.name),
        }
    }
}

/// Could it be a name of services(5)?
pub fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| (b'!'..=b'~').contains(&b) && !b":/[]".contains(&b))
}

/// The socket that a row's program gets, as its type and `wait` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramSocket {
    /// A connection, which fived has accepted: a program for each (`stream`, `nowait`).
    Connection,
    /// The listening socket: one program at a time, which accepts connections itself (`stream`,
    /// `wait`).
    Listener,
    /// The socket at which datagrams arrive: one program at a time (`dgram`, `wait`).
    Datagrams,
}

impl ProgramSocket {
    /// Does fived wait until the program has ended before it starts another?
    pub fn waits(self) -> bool {
        self != ProgramSocket::Connection
    }
}

/// Where a service is reached: by its name, at fived's listeners, if the attribute `tcpmux` does
/// not forbid it, and at the ports of its own (`port`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The clients that it is there for.
    pub family: Family,
    /// fived sends the reply line (`+Go`); if not, the program itself does.
    pub announce: bool,
    pub socket: ProgramSocket,
}

impl Endpoint {
    /// The protocol's column of a row.
    pub fn protocol(&self) -> &'static str {
        match (self.socket, self.family) {
            (ProgramSocket::Datagrams, Family::Any) => "udp",
            (ProgramSocket::Datagrams, Family::V4) => "udp4",
            (ProgramSocket::Datagrams, Family::V6) => "udp6",
            (_, family) => family.protocol(),
        }
    }
}
