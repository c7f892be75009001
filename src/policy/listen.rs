//! Where fived itself listens, for clients that name a service.

use super::endpoint::one_socket;
use super::text::parse::expected;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The port of tcpmux (RFC 1078).
const PORT: u16 = 1;
/// Addresses to listen on, at most.
pub const LISTEN_MAX: usize = 64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Internet(SocketAddr),
    /// A Unix socket with this path.
    Unix(String),
}

impl Listen {
    /// Where fived listens if nothing else is said.
    pub fn usual() -> Listen {
        Listen::Internet((Ipv6Addr::UNSPECIFIED, PORT).into())
    }

    /// Reads `ADDRESS:PORT`, `[IPV6]:PORT`, `*:PORT`, a port alone, an address alone (port 1), or
    /// a path. Err: what was expected.
    pub fn read(text: &str) -> Result<Listen, String> {
        if text.starts_with('/') {
            return one_socket(text).map(|path| Listen::Unix(path.into()));
        }
        internet(text).map(Listen::Internet)
    }

    pub fn internet(&self) -> Option<SocketAddr> {
        match self {
            Listen::Internet(address) => Some(*address),
            Listen::Unix(_) => None,
        }
    }

    pub fn path(&self) -> Option<&str> {
        match self {
            Listen::Internet(_) => None,
            Listen::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Listen::Internet(address) => address.fmt(f),
            Listen::Unix(path) => f.write_str(path),
        }
    }
}

fn internet(text: &str) -> Result<SocketAddr, String> {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let port = |p: &str| p.parse::<u16>().ok().filter(|_| p.bytes().all(|b| b.is_ascii_digit()));
    // An address of IPv4 is the same one where it is written as one of IPv6.
    if let Ok(mut a) = text.parse::<SocketAddr>() {
        a.set_ip(a.ip().to_canonical());
        return Ok(a);
    }
    if let Some(p) = port(text.strip_prefix("*:").unwrap_or(text)) {
        return Ok((any, p).into());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok((ip.to_canonical(), PORT).into()),
        Err(_) if text.contains('%') => {
            let what = "the number of an interface (`ip link`) after %, as in [fe80::1%2]:1";
            Err(expected(what, text))
        }
        Err(_) => Err(expected("an address such as 127.0.0.1:1 or [::]:1, or a path", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, wanted) in [
            ("[::]:1", "[::]:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("*:7", "[::]:7"),
            ("1001", "[::]:1001"),
            ("127.0.0.1", "127.0.0.1:1"),
            ("::1", "[::1]:1"),
            ("[::1]", "[::1]:1"),
            ("[::ffff:127.0.0.1]:5", "127.0.0.1:5"),
            ("::ffff:127.0.0.1", "127.0.0.1:1"),
            ("[fe80::1%2]:5", "[fe80::1%2]:5"),
            ("/run/fived.sock", "/run/fived.sock"),
        ] {
            assert_eq!(Listen::read(text).expect(text).to_string(), wanted);
        }
        let named = Listen::read("[fe80::1%eth0]:5").expect_err("a name");
        assert!(named.contains("number of an interface") && named.contains("%eth0"), "{named}");
        for bad in ["host:1", "1.2.3.4:99999", "+1", "", "[::1", "run/x", "@x", "/", "/run/"] {
            assert!(Listen::read(bad).is_err(), "{bad}");
        }
    }
}
