//! What a client of a service is given: a program of its own, one of fived's own services, a server
//! that runs already, or nothing.

use super::endpoint::{SOCKET_PATH_MAX, is_name};
use super::text::parse::expected;
use crate::wire::internal::Internal;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// What serves the clients of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A program, started for each client.
    Exec {
        /// Its absolute path.
        program: String,
        /// The first is `argv[0]`.
        arguments: Vec<String>,
    },
    /// One of fived's own services.
    Internal(Internal),
    /// Nothing: whoever comes is refused, by every service, for the row's `deny_time`.
    Sensor,
    /// Servers that run already: each client is connected to one of them. One at least.
    Redirect(Vec<Upstream>),
    /// A daemon that runs already: it is given the connection itself.
    Handover {
        /// The absolute path of the Unix socket where it listens.
        path: String,
    },
    /// Whatever computer offers it at the time, through a session of its own: users whom
    /// `offered_by` names may.
    Offer,
}

impl Backend {
    /// Does fived copy between each client and somebody who serves it already?
    pub fn is_relayed(&self) -> bool {
        matches!(self, Backend::Redirect(_) | Backend::Offer)
    }

    /// Its program's arguments.
    pub fn arguments(&self) -> &[String] {
        match self {
            Backend::Exec { arguments, .. } => arguments,
            Backend::Internal(_)
            | Backend::Redirect(_)
            | Backend::Sensor
            | Backend::Handover { .. }
            | Backend::Offer => &[],
        }
    }
}

/// The name of [`Backend::Sensor`] in a row, after `internal`.
pub const SENSOR: &str = "sensor";

/// A server that runs already, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// An address and a port.
    Address(IpAddr, u16),
    /// A host's name, which is looked up, and a port.
    Name(String, u16),
    /// The path of a Unix socket.
    Unix(String),
}

/// What an upstream is, for messages.
const FORM: &str = "an upstream: HOST:PORT, [IPV6-ADDRESS]:PORT or /path";
/// Bytes of a host's name (RFC 1035).
const NAME_MAX: usize = 255;
impl Upstream {
    /// `HOST:PORT`, `[v6]:PORT` or `/path`.
    pub fn read(word: &str) -> Result<Upstream, String> {
        let wrong = || expected(FORM, word);
        if word.starts_with('/') {
            return match word.len() {
                ..=SOCKET_PATH_MAX => Ok(Upstream::Unix(word.into())),
                n => Err(format!(
                    "expected the path of a Unix socket, {SOCKET_PATH_MAX} bytes at most, found {n}"
                )),
            };
        }
        let (host, port) = word.rsplit_once(':').ok_or_else(wrong)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|&p: &u16| digits && p > 0).ok_or_else(wrong)?;
        if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            let v6: Ipv6Addr = v6.parse().map_err(|_| wrong())?;
            return Ok(Upstream::Address(v6.into(), port));
        }
        match host.parse() {
            Ok(IpAddr::V4(v4)) => Ok(Upstream::Address(v4.into(), port)),
            _ if host.len() <= NAME_MAX && is_name(host) && !host.starts_with('-') => {
                Ok(Upstream::Name(host.into(), port))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Upstream::Address(IpAddr::V4(a), port) => write!(f, "{a}:{port}"),
            Upstream::Address(IpAddr::V6(a), port) => write!(f, "[{a}]:{port}"),
            Upstream::Name(name, port) => write!(f, "{name}:{port}"),
            Upstream::Unix(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_addresses_names_and_paths() {
        for word in ["127.0.0.1:8080", "[::1]:80", "db.example.org:5432", "/run/x y.sock", "web:1"]
        {
            assert_eq!(Upstream::read(word).map(|u| u.to_string()), Ok(word.into()));
        }
        let name = Upstream::Name("localhost".into(), 80);
        assert_eq!(Upstream::read("localhost:80"), Ok(name));
        let wrong = [
            "",
            ":80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:80",
            "[::1]",
            "[x]:1",
        ];
        for word in wrong {
            assert!(Upstream::read(word).is_err(), "{word}");
        }
        let long = format!("/{}", "x".repeat(SOCKET_PATH_MAX));
        assert!(Upstream::read(&long).expect_err("long").contains("107 bytes"));
    }
}
