//! Where clients come from, in xinetd's notation: `only_from` and `no_access` are lists of these.

use super::text::parse::{expected, plain};
use crate::wire::peer::Peer;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses that one word with factors may stand for (`10.{1,2,3}`).
const FACTORS_MAX: usize = 64;

/// Words of hosts_access(5). Read as names of hosts they would match no client, or the wrong ones.
const HOSTS_ACCESS: [&str; 7] = ["ALL", "LOCAL", "KNOWN", "UNKNOWN", "PARANOID", "EXCEPT", "NONE"];

/// Another word that somebody may have meant so.
const ANY: &str = "ANY";

/// Where clients may come from, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPattern {
    Net(IpNet),
    /// A host's name.
    Name(String),
    /// `.domain`: every name below it.
    Domain(String),
    /// `unix:`: a client of this computer that uses a Unix socket, and so has no address.
    Unix,
}

/// The word for [`ClientPattern::Unix`], which is nginx's.
const UNIX: &str = "unix:";

impl ClientPattern {
    /// How specific a match is. None: no match. The longer a network's prefix is (that of IPv4
    /// counts as in ::ffff:0:0/96), the more specific the match. A host's name is as specific as an
    /// address. A domain is less specific than any network except that of all addresses, which is
    /// the least specific. `named`: does the client have such a name?
    pub fn matches(&self, peer: Peer, named: impl Fn(&ClientPattern) -> bool) -> Option<u8> {
        let Peer::Address(address) = peer else { return self.matches_no_address(peer) };
        match self {
            ClientPattern::Unix => None,
            ClientPattern::Net(net) if net.prefix_len() == 0 => net.contains(&address).then_some(0),
            ClientPattern::Net(net) => net
                .contains(&address)
                .then(|| 1 + net.prefix_len() + if net.addr().is_ipv4() { 96 } else { 0 }),
            ClientPattern::Name(_) => named(self).then_some(129),
            ClientPattern::Domain(_) => named(self).then_some(1),
        }
    }

    /// How closely it matches a client without an address: only what stands for every client does.
    fn matches_no_address(&self, peer: Peer) -> Option<u8> {
        match self {
            ClientPattern::Unix => matches!(peer, Peer::User(_)).then_some(129),
            ClientPattern::Net(net) => (net.prefix_len() == 0).then_some(0),
            ClientPattern::Name(_) | ClientPattern::Domain(_) => None,
        }
    }

    /// Does this name match it?
    pub fn is_named(&self, name: &str) -> bool {
        match self {
            ClientPattern::Net(_) | ClientPattern::Unix => false,
            ClientPattern::Name(n) => name.eq_ignore_ascii_case(n),
            ClientPattern::Domain(d) => ends_with(name, d),
        }
    }
}

fn ends_with(name: &str, domain: &str) -> bool {
    name.len() > domain.len()
        && name.as_bytes()[name.len() - domain.len()..].eq_ignore_ascii_case(domain.as_bytes())
}

impl fmt::Display for ClientPattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ClientPattern::Net(n) => write!(f, "{n}"),
            ClientPattern::Name(n) | ClientPattern::Domain(n) if is_doubtful(n) => {
                write!(f, "{n}.")
            }
            ClientPattern::Name(n) | ClientPattern::Domain(n) => f.write_str(n),
            ClientPattern::Unix => f.write_str(UNIX),
        }
    }
}

/// Reads one word: an address, a network (`/LENGTH` or `/MASK`), an address with zeros or nothing
/// at its end (`10.0.0.0`, `10.`: a network), factors (`10.1.{2,3}`), a host's name, `.domain`, or
/// `unix:`. A name may have a dot at its end. Err: what was expected.
pub fn read(word: &str) -> Result<Vec<ClientPattern>, String> {
    let wrong = || {
        let what = "an address, a network such as 10.0.0.0/8, a host name, .domain or unix:";
        expected(what, word)
    };
    if word == UNIX {
        return Ok(vec![ClientPattern::Unix]);
    }
    if is_of_hosts_access(word) {
        return Err("expected an address, a network, a host name or .domain, found a word of hosts_access(5); for everybody leave the rule out, or 0.0.0.0/0 ::/0".into());
    }
    let one = |net: IpNet| vec![ClientPattern::Net(net)];
    if let Some((address, length)) = word.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let net = match plain(length) {
            Some(n) => IpNet::new(address, n).ok(),
            None => length.parse().ok().and_then(|mask| IpNet::with_netmask(address, mask).ok()),
        };
        return net
            .map(|n| one(canonical(n.trunc())))
            .ok_or_else(|| expected(format!("a prefix length or mask of {address}"), length));
    }
    if let Ok(IpAddr::V6(a)) = word.parse() {
        // No client has the address `::`. Like 0.0.0.0, it stands for all addresses (xinetd).
        return Ok(one(if a.is_unspecified() {
            IpNet::V6(Ipv6Net::default())
        } else {
            canonical(Ipv6Net::from(a).into())
        }));
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '{')
        && word.chars().all(|c| c.is_ascii_digit() || ".{},".contains(c))
    {
        return dotted(word).ok_or_else(wrong);
    }
    let (word, absolute) = word.strip_suffix('.').map_or((word, false), |name| (name, true));
    let named = word.strip_prefix('.').unwrap_or(word);
    let good = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if named.len() > 253 || !named.split('.').all(good) || !absolute && is_doubtful(word) {
        return Err(wrong());
    }
    Ok(vec![if word.starts_with('.') {
        ClientPattern::Domain(word.into())
    } else {
        ClientPattern::Name(word.into())
    }])
}

fn is_of_hosts_access(word: &str) -> bool {
    HOSTS_ACCESS.iter().chain(&[ANY]).any(|w| w.eq_ignore_ascii_case(word))
}

/// Was this name, or domain, more likely meant as something else? The last part of a name does not
/// begin with a digit (RFC 1123, 2.1), `10.0.0.x` and `10.x` begin like addresses, and `unix` lacks
/// its colon.
fn is_doubtful(name: &str) -> bool {
    let parts: Vec<&str> = name.strip_prefix('.').unwrap_or(name).split('.').collect();
    let number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let digit = |part: &&str| part.starts_with(|c: char| c.is_ascii_digit());
    let like_address = parts.len() > 1
        && parts.first().is_some_and(number)
        && (parts.get(1).is_some_and(number) || parts.last().is_some_and(|p| p.len() == 1));
    let no_colon = UNIX.strip_suffix(':').is_some_and(|word| word.eq_ignore_ascii_case(name));
    is_of_hosts_access(name) || no_colon || parts.last().is_some_and(digit) || like_address
}

/// A word of another program, for which it is a name, as the word that is that name here.
pub fn as_name(word: &str) -> String {
    let absolute = format!("{word}.");
    // Those have always been mistakes.
    let is_name = !HOSTS_ACCESS.contains(&word) && read(word).is_err() && read(&absolute).is_ok();
    if is_name { absolute } else { word.into() }
}

/// An IPv4-mapped network as the IPv4 network that it is.
fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(n) if n.prefix_len() >= 96 => match n.addr().to_ipv4_mapped() {
            Some(a) => Ipv4Net::new(a, n.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
}

/// Reads `a.b.c.d`. Zeros or missing parts at the end are wildcards, and the last part may be
/// `{x,y}`. None: it is none, or a number begins with 0, which xinetd would read as octal.
fn dotted(word: &str) -> Option<Vec<ClientPattern>> {
    let (head, factors) = match word.split_once('{') {
        Some((head, rest)) => (head, Some(rest.strip_suffix('}')?)),
        None => (word, None),
    };
    let number = |p: &str| (p.len() == 1 || !p.starts_with('0')).then(|| p.parse().ok())?;
    let parts: Vec<u8> =
        head.split('.').filter(|p| !p.is_empty()).map(number).collect::<Option<_>>()?;
    if parts.len() + usize::from(factors.is_some()) > 4 || head.contains("..") {
        return None;
    }
    let net = |parts: &[u8]| {
        let mut octets = [0; 4];
        octets[..parts.len()].copy_from_slice(parts);
        Ipv4Net::new(Ipv4Addr::from(octets), 8 * parts.len() as u8)
            .ok()
            .map(|n| ClientPattern::Net(n.into()))
    };
    match factors {
        // Zeros at the end are wildcards, except in factors (xinetd.conf(5)).
        None => {
            net(&parts[..parts.iter().rposition(|&o| o != 0).map_or(0, |i| i + 1)]).map(|p| vec![p])
        }
        Some(list) => list
            .split(',')
            .take(FACTORS_MAX + 1)
            .map(|f| net(&[&parts[..], &[number(f)?]].concat()))
            .collect::<Option<Vec<_>>>()
            .filter(|v| v.len() <= FACTORS_MAX),
    }
}

/// Are these places every address of both families?
pub fn is_everywhere(places: &[ClientPattern]) -> bool {
    let all = |v4: bool| {
        places.iter().any(|p| match p {
            ClientPattern::Net(net) => net.prefix_len() == 0 && net.addr().is_ipv4() == v4,
            ClientPattern::Name(_) | ClientPattern::Domain(_) | ClientPattern::Unix => false,
        })
    };
    all(true) && all(false)
}

#[cfg(test)]
mod tests {
    use super::super::{Extract, Files, Grammar, Origin, load};
    use super::*;
    use proptest::prelude::*;

    fn places(words: &str) -> Vec<ClientPattern> {
        words.split(' ').filter(|w| !w.is_empty()).flat_map(|w| read(w).expect("good")).collect()
    }

    #[test]
    fn xinetds_forms() {
        for (word, nets) in [
            ("10.0.0.0", "10.0.0.0/8"),
            ("10.", "10.0.0.0/8"),
            ("192.168", "192.168.0.0/16"),
            ("0.0.0.0", "0.0.0.0/0"),
            ("1.2.3.4", "1.2.3.4/32"),
            ("10.1.{2,3}", "10.1.2.0/24 10.1.3.0/24"),
            ("10.0.{0,1}", "10.0.0.0/24 10.0.1.0/24"),
            ("10.1.2.{0,7}", "10.1.2.0/32 10.1.2.7/32"),
            ("{127,10}", "127.0.0.0/8 10.0.0.0/8"),
            ("::", "::/0"),
            ("1.2.3.4/255.255.0.0", "1.2.0.0/16"),
            ("::1", "::1/128"),
            ("::ffff:1.2.3.4", "1.2.3.4/32"),
            ("fe80::1/10", "fe80::/10"),
        ] {
            assert_eq!(
                places(word).iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                nets,
                "{word}"
            );
        }
        for word in [
            "300.1.1.1",
            "1.2.3.4.5",
            "1.2.3.4/33",
            "10.{1,",
            "a..b",
            "-",
            "10.0.0.0/x",
            "::1/129",
            "1..2",
            "010.9.0.1",
            "10.9.0.{01,2}",
            "",
        ] {
            assert!(word == "-" || read(word).is_err(), "{word}");
        }
    }

    /// As a name it would match nobody, and so refuse nobody.
    #[test]
    fn what_was_not_meant_as_a_name_is_none() {
        for word in [
            "all",
            "Local",
            "known",
            "UNKNOWN",
            "Paranoid",
            "except",
            "Any",
            "none",
            "unix",
            "Unix",
            "ALL",
            "127.0.0.1-127.0.0.9",
            "1.2.3.4-9",
            "10.0.0.x",
            "10.x",
            "10.x.x.x",
            "0x7f000001",
            "10.0.0.1_8",
            "host.1",
            "10-20",
        ] {
            assert!(read(word).is_err(), "{word}");
        }
        for word in [
            "163.com",
            "0.pool.ntp.org",
            "local.example.org",
            ".local",
            "7up.example",
            "a",
            "any-1",
        ] {
            let names = places(word);
            assert_eq!(names.iter().map(ToString::to_string).collect::<String>(), word);
        }
    }

    /// xinetd takes them for names, and what -T prints of its tables is read again.
    #[test]
    fn in_a_table_of_xinetd_they_are_names_as_ever() {
        struct One;
        impl Files for One {
            fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
                if path != "/x" {
                    return Err("no such file".into());
                }
                let rules = "no_access = local 10.0.0.x any.example";
                Ok(format!("service ssh\n{{\n socket_type = stream\n wait = no\n user = u\n server = /p\n port = 22\n type = UNLISTED\n protocol = tcp\n {rules}\n}}\n").into())
            }

            fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
                Ok(Vec::new())
            }
        }
        let (table, mistakes) = load(&Origin::new(Grammar::Xinetd, "/x"), &mut One);
        assert_eq!(mistakes, []);
        let row = &table.services()[0].attributes;
        let names: Vec<String> = row.no_access.iter().map(ToString::to_string).collect();
        assert_eq!(
            (names.join(" ").as_str(), row.disable),
            ("local. 10.0.0.x. any.example", false)
        );
        assert!(row.no_access[0].is_named("LOCAL"));
        let again = Extract::read(Extract::of(&table).files).expect("a table");
        assert_eq!(again.services()[0].attributes.no_access, row.no_access);
    }

    /// With a dot at its end a word is a name, whatever it looks like.
    #[test]
    fn a_name_may_be_absolute() {
        for (word, name, printed) in [
            ("local.", ClientPattern::Name("local".into()), "local."),
            (
                "host.example.org.",
                ClientPattern::Name("host.example.org".into()),
                "host.example.org",
            ),
            ("10.0.0.x.", ClientPattern::Name("10.0.0.x".into()), "10.0.0.x."),
            (".host.1.", ClientPattern::Domain(".host.1".into()), ".host.1."),
        ] {
            assert_eq!(places(word), [name]);
            assert_eq!(places(word)[0].to_string(), printed);
        }
        assert!(read("local..").is_err() && read(".").is_err() && read("300.1.1.1.").is_err());
        for (word, wanted) in [
            ("local", "local."),
            ("10.0.0.x", "10.0.0.x."),
            ("1.2.3.4-9", "1.2.3.4-9."),
            ("Any", "Any."),
            ("ALL", "ALL"),
            ("host", "host"),
            ("10.", "10."),
            ("300.1.1.1", "300.1.1.1"),
            ("::1", "::1"),
            ("a/b", "a/b"),
            ("ANY", "ANY."),
        ] {
            assert_eq!(as_name(word), wanted);
        }
    }

    proptest! {
        #[test]
        fn any_word_is_read_or_refused(word in "[0-9a-f.:/{},_-]{0,24}") {
            if let Ok(all) = read(&word) {
                for p in all {
                    prop_assert_eq!(read(&p.to_string()).ok(), Some(vec![p]));
                }
            }
        }
    }
}
