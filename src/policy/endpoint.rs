//! How clients reach a service.

use super::text::parse::{expected, is_one_path};
use crate::wire::peer::Peer;
use std::fmt;
use std::net::IpAddr;

/// Which clients a row serves, by the kind of their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
    /// Those of this computer that connect to a Unix socket of the row's own.
    Unix,
}

impl Family {
    /// Does it serve this client?
    pub fn has(self, peer: Peer) -> bool {
        match (self, peer) {
            (Family::Any, _) | (_, Peer::Nobody) => true,
            (Family::V4, Peer::Address(a)) => a.is_ipv4(),
            (Family::V6, Peer::Address(a)) => a.is_ipv6(),
            (Family::V4 | Family::V6, Peer::User(_)) => false,
            (Family::Unix, peer) => matches!(peer, Peer::User(_)),
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
            Family::Unix => "unix",
        }
    }
}

/// A port of a service's own, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// None: every address, or a path.
    pub address: Option<IpAddr>,
    /// A number, a name of services(5), or the path of a Unix socket.
    pub name: String,
}

impl Port {
    /// `[ADDRESS:]PORT`, where an IPv6 address stands in brackets; or `/PATH`.
    pub fn read(word: &str) -> Result<Port, String> {
        const FORMS: &str = "PORT, ADDRESS:PORT, [IPV6-ADDRESS]:PORT or /PATH";
        let wrong = || match word.contains('%') {
            true => expected(format!("{FORMS}, the address without an interface"), word),
            false => expected(FORMS, word),
        };
        if word.starts_with('/') {
            return Ok(Port { address: None, name: one_socket(word)?.into() });
        }
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

impl Port {
    /// The path, if it is a Unix socket.
    pub fn path(&self) -> Option<&str> {
        Some(&*self.name).filter(|name| name.starts_with('/'))
    }
}

/// Bytes of a Unix socket's path at most (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// The path of a Unix socket, if this word is one. Err: what was expected.
pub fn socket_path(word: &str) -> Result<&str, String> {
    let printable = word.bytes().all(|b| (b'!'..=b'~').contains(&b));
    let named = word.rsplit('/').next().is_some_and(|name| !matches!(name, "" | "." | ".."));
    if !word.starts_with('/') || !printable || !named {
        return Err(expected("the absolute path of a Unix socket, without blanks", word));
    }
    if word.len() > SOCKET_PATH_MAX {
        let n = word.len();
        return Err(format!(
            "expected a path of at most {SOCKET_PATH_MAX} bytes, because it is that of a Unix socket, found {n}"
        ));
    }
    Ok(word)
}

/// The path of a Unix socket in a list, which must not be several paths with commas between them.
pub fn one_socket(word: &str) -> Result<&str, String> {
    if is_one_path(word) {
        return socket_path(word);
    }
    Err(expected("paths of Unix sockets with blanks between them", word))
}

/// Whose a Unix socket's file is: a user and perhaps a group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub user: String,
    /// None: the user's own.
    pub group: Option<String>,
}

impl Owner {
    /// `USER` or `USER:GROUP`. Err: what was expected.
    pub fn read(word: &str) -> Result<Owner, String> {
        let (user, group) = match word.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (word, None),
        };
        if user.is_empty() || group.is_some_and(|g| g.is_empty() || g.contains(':')) {
            return Err(expected("USER or USER:GROUP", word));
        }
        Ok(Owner { user: user.into(), group: group.map(Into::into) })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => f.write_str(&self.user),
        }
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
    /// Is it reached at its ports alone, and never by its name?
    pub fn has_ports_alone(&self) -> bool {
        self.socket.waits() || self.family == Family::Unix
    }

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
