//! Who is at the other end of a connection, as rules, limits, penalties and the log know it.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Nobody in particular: the program accepts its clients itself (`wait`).
    Nobody,
    /// A client with an internet address, which is canonical: no IPv4 address within IPv6.
    Address(IpAddr),
    /// A process of this computer that connected to a Unix socket: the user that it ran as
    /// (SO_PEERCRED, unix(7)).
    User(u32),
}

impl Peer {
    /// The client's address. None: it has none.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Address(a) => Some(a),
            Peer::Nobody | Peer::User(_) => None,
        }
    }

    /// Is it a process of this computer, so that nobody can listen to what it sends?
    pub fn is_of_this_computer(self) -> bool {
        match self {
            Peer::Nobody => false,
            Peer::Address(a) => a.is_loopback(),
            Peer::User(_) => true,
        }
    }
}

impl From<IpAddr> for Peer {
    fn from(a: IpAddr) -> Peer {
        Peer::Address(a.to_canonical())
    }
}

impl From<[u8; 4]> for Peer {
    fn from(octets: [u8; 4]) -> Peer {
        Peer::Address(octets.into())
    }
}

impl From<SocketAddr> for Peer {
    fn from(a: SocketAddr) -> Peer {
        a.ip().into()
    }
}

/// What [`Peer`]'s `Display` writes of a user.
const UID: &str = "uid:";

/// As the log has it: `192.0.2.1`, `uid:1000`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Peer::Nobody => f.write_str("nobody"),
            Peer::Address(a) => a.fmt(f),
            Peer::User(uid) => write!(f, "{UID}{uid}"),
        }
    }
}

impl FromStr for Peer {
    type Err = AddrParseError;

    /// Reads what `Display` writes of a client.
    fn from_str(text: &str) -> Result<Peer, AddrParseError> {
        let number = |n: &str| n.parse().ok().filter(|_| !n.starts_with('+'));
        match text.strip_prefix(UID).and_then(number) {
            Some(uid) => Ok(Peer::User(uid)),
            None => text.parse::<IpAddr>().map(Peer::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_read_as_it_is_written() {
        for text in ["192.0.2.1", "2001:db8::1", "uid:0", "uid:4294967294"] {
            assert_eq!(text.parse::<Peer>().expect(text).to_string(), text);
        }
        for bad in ["", "nobody", "uid:", "uid:-1", "uid:+1", "uid:x", "1000"] {
            assert!(bad.parse::<Peer>().is_err(), "{bad}");
        }
        let mapped: Peer = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(mapped.to_string(), "192.0.2.1");
    }
}
