//! What is a header, and what never becomes one.

use super::super::{Client, Version, header};
use super::*;
use proptest::prelude::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn addresses(client: &str, local: &str) -> Option<AddressPair> {
    Some(AddressPair { client: address(client), local: address(local) })
}

/// Version 2: command, family, and what they are followed by.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

/// 192.0.2.1:258 to 198.51.100.2:1.
const FOUR: &[u8] = b"\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\0\x01";

#[test]
fn a_line_says_both_addresses() {
    for (text, wanted) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
            addresses("192.0.2.1:56324", "198.51.100.2:443"),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n",
            addresses("[2001:db8::1]:0", "[2001:db8::2]:65535"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n",
            addresses("192.0.2.1:1", "[2001:db8::2]:2"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 anything at all\r\n", None),
    ] {
        let expected = Read::Header { addresses: wanted, length: text.len() };
        assert_eq!(read(text.as_bytes()), expected, "{text}");
        // What comes after it is not looked at, not even where it looks like another one.
        assert_eq!(read(format!("{text}{text}").as_bytes()), expected);
        for n in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..n]), Read::More, "{n} bytes of {text}");
        }
    }
}

#[test]
fn another_line_is_wrong() {
    for text in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 fe80::1%1 2001:db8::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2  2\r\n",
        "PROXY TCP4 0.0.0.0 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 0.0.0.0 1 2\r\n",
        "PROXY TCP4 224.0.0.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 255.255.255.255 198.51.100.2 1 2\r\n",
        "PROXY TCP6 ff02::1 2001:db8::2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "HELP\r\n",
        "\r\nHELP\r\n",
    ] {
        assert_eq!(read(text.as_bytes()), Read::Wrong, "{text}");
    }
    assert_eq!(read(b"PROXY TCP4 \xff 198.51.100.2 1 2\r\n"), Read::Wrong);
}

/// A client that never ends its line gets no more than its 107 bytes (CVE-2021-23351 of
/// go-proxyproto, which read on for ever; CVE-2019-10097 of httpd's mod_remoteip, which read past
/// its buffer).
#[test]
fn a_line_without_an_end_is_wrong_after_107_bytes() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 16));
    assert_eq!(longest.len(), LINE_MAX);
    assert_eq!(read(longest.as_bytes()), Read::Header { addresses: None, length: LINE_MAX });
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 15));
    assert_eq!(read(longer.as_bytes()), Read::Wrong);
    assert_eq!(read(&longer.as_bytes()[..LINE_MAX]), Read::Wrong);
    assert_eq!(read(&longer.as_bytes()[..LINE_MAX - 1]), Read::More);
}

/// HAProxy 1.6 to 2.1 took what follows the header for more of it (its commit 488ee7fb); Exim 4.89
/// lost a TLS handshake there (its bug 2018).
#[test]
fn version_2_says_both_addresses_and_the_rest_is_skipped() {
    let wanted = addresses("192.0.2.1:258", "198.51.100.2:1");
    // What follows the addresses: nothing, two rightly formed texts, and what is no such text.
    for rest in [&b""[..], b"\x02\0\x01h\x04\0\0", b"\x05\xff\xff", &[0; REST_MAX - 12]] {
        let bytes = v2(COMMAND, TCP4, &[FOUR, rest].concat());
        let expected = Read::Header { addresses: wanted, length: bytes.len() };
        assert_eq!(read(&bytes), expected);
        assert_eq!(read(&[&bytes[..], b"\x16\x03\x01"].concat()[..]), expected);
        for n in 0..bytes.len() {
            assert_eq!(read(&bytes[..n]), Read::More, "{n} bytes");
        }
    }
    let six = [&[0x20, 1], &[0; 13][..], &[1, 0x20, 1], &[0; 13], &[2, 0, 1, 0, 2]].concat();
    let bytes = v2(COMMAND, TCP6, &six);
    let wanted = addresses("[2001::1]:1", "[2001::2]:2");
    assert_eq!(read(&bytes), Read::Header { addresses: wanted, length: 52 });
}

/// LOCAL is what a balancer's own checks say, with whatever family and bytes (CVE-2024-23327:
/// Envoy ended where it had none).
#[test]
fn local_and_unspecified_are_the_balancers_own() {
    for (command, family, rest) in [
        (LOCAL, UNSPECIFIED, &b""[..]),
        (LOCAL, TCP4, b""),
        (LOCAL, TCP4, FOUR),
        (LOCAL, 0xff, b"\x01\x02\x03"),
        (COMMAND, UNSPECIFIED, b""),
        (COMMAND, UNSPECIFIED, b"\x04\0\0"),
        (COMMAND, UNIX, &[b'a'; UNIX_BYTES]),
    ] {
        let bytes = v2(command, family, rest);
        let expected = Read::Header { addresses: None, length: bytes.len() };
        assert_eq!(read(&bytes), expected, "{command} {family}");
    }
}

/// Among them lengths that are less than the addresses need, past which parsers have read.
#[test]
fn another_version_command_family_or_length_is_wrong() {
    for (command, family, rest) in [
        (0x11, TCP4, FOUR),
        (0x01, TCP4, FOUR),
        (0x22, TCP4, FOUR),
        (0x2f, TCP4, FOUR),
        // Datagrams, and a family or a kind that there is not.
        (COMMAND, 0x12, FOUR),
        (COMMAND, 0x10, FOUR),
        (COMMAND, 0x13, FOUR),
        (COMMAND, 0x41, FOUR),
        (COMMAND, TCP4, b""),
        (COMMAND, TCP4, &FOUR[1..]),
        (COMMAND, TCP6, FOUR),
        (COMMAND, TCP6, &[1; 35]),
        (COMMAND, UNIX, &[1; UNIX_BYTES - 1]),
        (COMMAND, TCP4, &[0; REST_MAX + 1]),
        (LOCAL, TCP4, &[0; REST_MAX + 1]),
        (COMMAND, TCP4, &[0; 12]),
    ] {
        assert_eq!(read(&v2(command, family, rest)), Read::Wrong, "{command} {family}");
    }
    // As soon as it is there.
    assert_eq!(read(&v2(0x11, TCP4, FOUR)[..13]), Read::Wrong);
    assert_eq!(read(&v2(COMMAND, 0x12, FOUR)[..FIXED]), Read::Wrong);
    assert_eq!(read(&[&v2(COMMAND, TCP4, b"")[..14], &[0xff, 0xff]].concat()[..]), Read::Wrong);
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    (ip, any::<u16>())
        .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
        .prop_filter("an address that a client can have", |a| {
            !a.ip().is_unspecified() && !is_many(a.ip())
        })
}

proptest! {
    /// What this side writes is read as it was meant, whatever follows; a part of it is never
    /// taken for the whole.
    #[test]
    fn what_is_written_is_read(
        client in any_address(),
        local in any_address(),
        host in "[a-z.]{0,40}",
        after in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        for version in [Version::V1, Version::V2] {
            let addresses = Some((client, local));
            let wanted = Client { addresses, host: &host, tls: None, user: Some("ann"), session: 3 };
            let mut bytes = header(version, &wanted);
            let length = bytes.len();
            prop_assert!((0..length).all(|n| read(&bytes[..n]) == Read::More));
            bytes.extend(&after);
            let addresses = Some(AddressPair { client, local });
            prop_assert_eq!(read(&bytes), Read::Header { addresses, length });
        }
    }

    /// Any bytes: more of them never change what was decided, and a header lies within them.
    #[test]
    fn what_is_decided_stays(
        begin in prop_oneof![
            Just(&b""[..]), Just(BEGIN), Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(&SIGNATURE[..]),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [begin, &rest].concat();
        let mut decided = Read::More;
        for n in 0..=bytes.len() {
            let now = read(&bytes[..n]);
            prop_assert!(decided == Read::More || now == decided);
            decided = now;
            if let Read::Header { length, .. } = now {
                prop_assert!(length <= n);
            }
        }
    }
}
