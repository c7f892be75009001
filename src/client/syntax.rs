//! How names, places, pins and comments are written: what the command line, the configuration and
//! `known_hosts` have in common.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a pin begins, as curl and HPKP write it.
pub const PIN_PREFIX: &str = "sha256//";

/// `sha256//` and the base64 of 32 bytes?
pub fn is_pin(text: &str) -> bool {
    text.strip_prefix(PIN_PREFIX)
        .and_then(|b| STANDARD.decode(b).ok())
        .is_some_and(|d| d.len() == 32)
}

/// Splits `HOST:PORT` and `[ADDRESS]:PORT`. None: it is a host alone. An IPv6 address has two
/// colons and more.
pub fn with_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let port = port.parse().ok()?;
    (bracketed || !host.is_empty() && !host.contains(':'))
        .then_some((host.trim_matches(['[', ']']), port))
}

/// `HOST:PORT`, as in messages and in known_hosts.
pub fn place(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A message about a place, without that place before it.
pub fn without_place<'a>(text: &'a str, place: &str) -> &'a str {
    text.strip_prefix(place).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text)
}

/// May this be the name or the address of a host? Names that DNS does not have may be in
/// /etc/hosts. What has a `/` is a path.
pub fn is_host(text: &str) -> bool {
    let zone_free = text.split('%').next().unwrap_or_default();
    let address = !text.contains(':') || zone_free.parse::<std::net::Ipv6Addr>().is_ok();
    address
        && !text.is_empty()
        && !text.starts_with('-')
        && !text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'/')
}

/// What may be sent on a line of its own: 1 to 255 bytes, none of them a control byte.
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.bytes().any(|b| b.is_ascii_control())
}

/// A line up to its comment.
pub fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_begins_a_line_or_follows_white_space() {
        for (line, text) in [("#a", ""), (" # a", " "), ("a#b #c #d", "a#b "), ("a\t#b", "a\t")] {
            assert_eq!(without_comment(line), text);
        }
    }

    #[test]
    fn a_path_is_no_host() {
        assert!(["./fived.sock", "/run/fived.sock", "h/date"].into_iter().all(|h| !is_host(h)));
    }

    #[test]
    fn a_pin_is_a_hash() {
        assert!(
            is_pin("sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
                && !is_pin("sha256//AAAA")
                && !is_pin("AAAA")
        );
    }
}
