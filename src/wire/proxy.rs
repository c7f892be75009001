//! The header that tells the server behind a proxy who its client is: the PROXY protocol (HAProxy's
//! doc/proxy-protocol.txt). Here is the side that sends it; `reader` is the side that gets it.

mod reader;

pub use reader::{READ_MAX, Read, read};

use std::net::{IpAddr, SocketAddr};

/// Which form of the header is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text with the addresses and ports.
    V1,
    /// Binary, with more about the client after the addresses.
    V2,
}

/// What is told of a client.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its address, and this computer's that it has come to. None: it has come to a socket without
    /// one.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The host that it chose; empty: none.
    pub host: &'a str,
    /// TLS's version and cipher suite. None: the connection is not encrypted.
    pub tls: Option<(&'a str, &'a str)>,
    /// Who logged in.
    pub user: Option<&'a str>,
    /// The session's number.
    pub session: u64,
}

/// Bytes of a text in it at most; a longer one is left out. Names of hosts are no longer.
const TEXT_MAX: usize = 255;

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const COMMAND: u8 = 0x21;
/// The families with SOCK_STREAM.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

const AUTHORITY: u8 = 0x02;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// The client connected over TLS.
const CLIENT_SSL: u8 = 0x01;

/// The header that the server gets before anything else.
pub fn header(version: Version, client: &Client) -> Vec<u8> {
    match version {
        Version::V1 => line(client).into_bytes(),
        Version::V2 => binary(client),
    }
}

/// Both addresses, of one family: where they differ the IPv4 one is written as IPv6.
fn alike(client: &Client) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to) = client.addresses?;
    let wide = |a: SocketAddr| match a.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), a.port()),
        IpAddr::V6(_) => a,
    };
    let same = from.is_ipv4() == to.is_ipv4();
    Some(if same { (from, to) } else { (wide(from), wide(to)) })
}

fn line(client: &Client) -> String {
    let Some((from, to)) = alike(client) else { return "PROXY UNKNOWN\r\n".into() };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
}

fn binary(client: &Client) -> Vec<u8> {
    let (mut family, mut rest) = (UNSPECIFIED, Vec::new());
    if let Some((from, to)) = alike(client) {
        family = if from.is_ipv4() { TCP4 } else { TCP6 };
        for address in [from, to] {
            match address.ip() {
                IpAddr::V4(a) => rest.extend(a.octets()),
                IpAddr::V6(a) => rest.extend(a.octets()),
            }
        }
        rest.extend(from.port().to_be_bytes());
        rest.extend(to.port().to_be_bytes());
    }
    put(&mut rest, AUTHORITY, client.host.as_bytes());
    put(&mut rest, UNIQUE_ID, client.session.to_string().as_bytes());
    if client.tls.is_some() || client.user.is_some() {
        let bits = if client.tls.is_some() { CLIENT_SSL } else { 0 };
        // 0: who it is was proved. It was by a login, not by a certificate, which has bits of its
        // own.
        let verify = u32::from(client.user.is_none());
        let mut ssl = [&[bits][..], &verify.to_be_bytes()].concat();
        if let Some((version, cipher)) = client.tls {
            put(&mut ssl, SSL_VERSION, version.as_bytes());
            put(&mut ssl, SSL_CIPHER, cipher.as_bytes());
        }
        put(&mut ssl, SSL_CN, client.user.unwrap_or_default().as_bytes());
        put_whole(&mut rest, SSL, &ssl);
    }
    let length = rest.len() as u16;
    [&SIGNATURE[..], &[COMMAND, family], &length.to_be_bytes(), &rest].concat()
}

/// A text and what it is. An empty one, and one that is too long, is left out.
fn put(to: &mut Vec<u8>, kind: u8, text: &[u8]) {
    if (1..=TEXT_MAX).contains(&text.len()) {
        put_whole(to, kind, text);
    }
}

fn put_whole(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend((value.len() as u16).to_be_bytes());
    to.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(from: &str, to: &str) -> Client<'static> {
        let address = |text: &str| text.parse().expect("an address");
        let addresses = Some((address(from), address(to)));
        Client { addresses, host: "", tls: None, user: None, session: 7 }
    }

    #[test]
    fn version_1_is_a_line() {
        let text_of = |c: &Client| String::from_utf8(header(Version::V1, c)).expect("text");
        let c = client("192.0.2.1:56324", "198.51.100.2:443");
        assert_eq!(text_of(&c), "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        let c = client("[2001:db8::1]:4124", "[2001:db8::2]:1");
        assert_eq!(text_of(&c), "PROXY TCP6 2001:db8::1 2001:db8::2 4124 1\r\n");
        let c = client("192.0.2.1:56324", "[2001:db8::2]:1");
        assert_eq!(text_of(&c), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 1\r\n");
        assert_eq!(text_of(&Client { addresses: None, ..c }), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_has_the_addresses_and_what_is_known_of_the_client() {
        let plain = client("192.0.2.1:258", "198.51.100.2:1");
        let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
        let addresses = b"\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\0\x01";
        let expected = [&fixed[..], &[0, 16], addresses, b"\x05\0\x017"].concat();
        assert_eq!(header(Version::V2, &plain), expected);

        let known = Client {
            host: "www.example.org",
            tls: Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256")),
            user: Some("alice"),
            ..plain
        };
        let ssl = [
            &b"\x20\0\x30\x01\0\0\0\0"[..],
            b"\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_128_GCM_SHA256\x22\0\x05alice",
        ]
        .concat();
        let rest = [&addresses[..], b"\x02\0\x0fwww.example.org\x05\0\x017", &ssl].concat();
        let expected = [&fixed[..], &(rest.len() as u16).to_be_bytes(), &rest].concat();
        assert_eq!(header(Version::V2, &known), expected);
        assert_eq!(ssl.len(), 3 + 0x30);
    }

    #[test]
    fn version_2_without_an_address_says_so() {
        let c = Client { addresses: None, ..client("192.0.2.1:1", "192.0.2.2:1") };
        assert_eq!(header(Version::V2, &c)[12..], *b"\x21\0\0\x04\x05\0\x017");
    }

    #[test]
    fn a_header_has_a_bound() {
        let (long, longer) = ("x".repeat(TEXT_MAX), "x".repeat(TEXT_MAX + 1));
        let c = client("[2001:db8::1]:1", "[2001:db8::2]:1");
        let c = Client { host: &long, tls: Some((&long, &long)), user: Some(&long), ..c };
        let c = Client { session: u64::MAX, ..c };
        let all = header(Version::V2, &c);
        assert!(all.len() > 4 * TEXT_MAX && all.len() <= 1280);
        let c = Client { host: &longer, ..c };
        assert!(header(Version::V2, &c).len() < all.len() - TEXT_MAX);
    }
}
