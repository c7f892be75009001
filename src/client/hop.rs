//! The way to a server through others (-J, `via`): gates, the nearest first, each with the service
//! that leads on.

use super::syntax::{is_host, is_name, with_port};

/// A gate as it was written: `[user@]host[:port]/service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    pub service: String,
}

/// The way that is no way: the server itself is called.
const DIRECT: &str = "none";
/// What is expected, for messages.
pub const EXPECTED: &str =
    "expected [USER@]HOST[:PORT]/SERVICE, at most 16 separated by commas, or none";
/// Gates on one way, at most.
const HOPS_MAX: usize = 16;

/// Reads a way. None: it is not one.
pub fn read(text: &str) -> Option<Vec<Hop>> {
    if text == DIRECT {
        return Some(Vec::new());
    }
    let hops: Vec<Hop> = text.split(',').map(hop).collect::<Option<_>>()?;
    (hops.len() <= HOPS_MAX).then_some(hops)
}

fn hop(text: &str) -> Option<Hop> {
    let (place, service) = text.trim().split_once('/')?;
    let (user, place) = place.rsplit_once('@').map_or((None, place), |(u, p)| (Some(u), p));
    let (host, port) = with_port(place).map_or((place, None), |(host, port)| (host, Some(port)));
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let valid = is_host(host) && is_name(service) && user.is_none_or(is_name) && port != Some(0);
    valid.then(|| Hop {
        user: user.map(String::from),
        host: host.into(),
        port,
        service: service.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read() {
        let of = |text| {
            read(text).map(|hops| {
                let one = |h: &Hop| {
                    let user = h.user.as_deref().unwrap_or("-");
                    format!("{user} {} {} {}", h.host, h.port.unwrap_or(1), h.service)
                };
                hops.iter().map(one).collect::<Vec<_>>().join(";")
            })
        };
        for (text, way) in [
            ("gate/inner", "- gate 1 inner"),
            ("me@gate:1001/inner", "me gate 1001 inner"),
            ("me@corp@[::1]:7/in/ner", "me@corp ::1 7 in/ner"),
            ("::1/inner", "- ::1 1 inner"),
            ("a/b, c@d/e", "- a 1 b;c d 1 e"),
            ("none", ""),
        ] {
            assert_eq!(of(text).as_deref(), Some(way), "{text}");
        }
        for text in ["", "gate", "gate/", "/inner", "gate:0/a", "@gate/a", "a/b,", "a b/c"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&["a/b"; HOPS_MAX + 1].join(",")), None, "a way has an end");
    }
}
