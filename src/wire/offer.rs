//! OFFER: the line with which a server begins a stream for a client of a service that is offered.
//!
//! `NAME ADDRESS PORT USER` and CRLF: the service as the row spells it, where the client is, and
//! the user who logged in there, or `-`. After it the stream is the service's connection.

use std::net::{IpAddr, SocketAddr};

/// Bytes of the line at most, its end not counted.
pub const LINE_MAX: usize = 510;

/// The client of an offered service, as the line describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Printable characters and no blanks.
    pub service: String,
    pub address: SocketAddr,
    /// Who logged in there; None: nobody.
    pub user: Option<String>,
}

impl Client {
    /// The line with its end. In a user's name, bytes that could end the line or be taken for its
    /// end are shown as `?`. None: it would be too long.
    pub fn line(&self) -> Option<Vec<u8>> {
        let user = self.user.as_deref().unwrap_or("-");
        let user: String = user.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let (ip, port) = (self.address.ip().to_canonical(), self.address.port());
        let line = format!("{} {ip} {port} {user}\r\n", self.service);
        (line.len() <= LINE_MAX + 2).then(|| line.into_bytes())
    }

    /// Reads a line without its end. None: it is not such a line.
    pub fn read(line: &[u8]) -> Option<Client> {
        let mut words = std::str::from_utf8(line).ok()?.splitn(4, ' ');
        let service = words.next().filter(|w| !w.is_empty())?.to_string();
        let ip: IpAddr = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        let user = words.next().filter(|w| !w.is_empty())?;
        let user = (user != "-").then(|| user.to_string());
        Some(Client { service, address: SocketAddr::new(ip, port), user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, user: Option<&str>) -> Client {
        let address = address.parse().expect("an address");
        Client { service: "Web".into(), address, user: user.map(String::from) }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for (client, text) in [
            (client("192.0.2.1:80", None), "Web 192.0.2.1 80 -"),
            (client("[2001:db8::1]:65535", Some("ann")), "Web 2001:db8::1 65535 ann"),
            (client("[::1]:0", Some("ann b")), "Web ::1 0 ann b"),
        ] {
            let line = client.line().expect("short");
            assert_eq!(line, format!("{text}\r\n").into_bytes());
            assert_eq!(Client::read(text.as_bytes()), Some(client));
        }
    }

    #[test]
    fn a_line_is_one_line() {
        let line = client("[::ffff:192.0.2.1]:1", Some("x\r\ny\u{85}")).line().expect("short");
        assert_eq!(String::from_utf8(line), Ok("Web 192.0.2.1 1 x??y?\r\n".into()));
        assert_eq!(client("192.0.2.1:1", Some(&"x".repeat(600))).line(), None);
        let not: [&[u8]; 6] =
            [b"", b"Web", b"Web x 1 -", b"Web ::1 70000 -", b"Web ::1 1", b"Web ::1 1 "];
        for line in not {
            assert_eq!(Client::read(line), None);
        }
    }
}
