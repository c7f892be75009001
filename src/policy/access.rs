//! `only_from` and `no_access`: from which addresses a service may be used, in xinetd's notation.
//! The most specific match decides; a tie refuses.

use super::subject::PeerName;
use super::text::parse::expected;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses that one word with factors may stand for (`10.{1,2,3}`).
const FACTORS_MAX: usize = 64;

/// Words of hosts_access(5). Read as names of hosts they would match no client, or the wrong ones.
const HOSTS_ACCESS: [&str; 7] = ["ALL", "LOCAL", "KNOWN", "UNKNOWN", "PARANOID", "EXCEPT", "NONE"];

/// Where clients may come from, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPattern {
    Net(IpNet),
    /// A host's name.
    Name(String),
    /// `.domain`: every name below it.
    Domain(String),
}

impl ClientPattern {
    /// How specific a match is. None: no match. The longer a network's prefix is (that of IPv4
    /// counts as in ::ffff:0:0/96), the more specific the match. A host's name is as specific as an
    /// address. A domain is less specific than any network except that of all addresses, which is
    /// the least specific. `named`: does the client have such a name?
    fn matches(&self, address: IpAddr, named: impl Fn(&ClientPattern) -> bool) -> Option<u8> {
        match self {
            ClientPattern::Net(net) if net.prefix_len() == 0 => net.contains(&address).then_some(0),
            ClientPattern::Net(net) => net
                .contains(&address)
                .then(|| 1 + net.prefix_len() + if net.addr().is_ipv4() { 96 } else { 0 }),
            ClientPattern::Name(_) => named(self).then_some(129),
            ClientPattern::Domain(_) => named(self).then_some(1),
        }
    }

    /// Does this name match it?
    fn is_named(&self, name: &str) -> bool {
        match self {
            ClientPattern::Net(_) => false,
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
            ClientPattern::Name(n) | ClientPattern::Domain(n) => f.write_str(n),
        }
    }
}

/// Reads one word: an address, a network (`/LENGTH` or `/MASK`), an address with zeros or nothing
/// at its end (`10.0.0.0`, `10.`: a network), factors (`10.1.{2,3}`), a host's name, or `.domain`.
/// Err: what was expected.
pub fn read(word: &str) -> Result<Vec<ClientPattern>, String> {
    let wrong =
        || expected("an address, a network such as 10.0.0.0/8, a host name or .domain", word);
    if HOSTS_ACCESS.contains(&word) {
        return Err("expected an address, a network, a host name or .domain, found a word of hosts_access(5); for everybody leave the rule out, or 0.0.0.0/0 ::/0".into());
    }
    let one = |net: IpNet| vec![ClientPattern::Net(net)];
    if let Some((address, length)) = word.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let net = match length.parse::<u8>() {
            Ok(n) => IpNet::new(address, n).ok(),
            Err(_) => length.parse().ok().and_then(|mask| IpNet::with_netmask(address, mask).ok()),
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
    if word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || ".{},".contains(c))
    {
        return dotted(word).ok_or_else(wrong);
    }
    let named = word.strip_prefix('.').unwrap_or(word);
    let good = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if named.len() > 253 || !named.split('.').all(good) {
        return Err(wrong());
    }
    Ok(vec![if word.starts_with('.') {
        ClientPattern::Domain(word.into())
    } else {
        ClientPattern::Name(word.into())
    }])
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
/// `{x,y}`.
fn dotted(word: &str) -> Option<Vec<ClientPattern>> {
    let (head, factors) = match word.split_once('{') {
        Some((head, rest)) => (head, Some(rest.strip_suffix('}')?)),
        None => (word, None),
    };
    let parts: Vec<u8> =
        head.split('.').filter(|p| !p.is_empty()).map(|p| p.parse().ok()).collect::<Option<_>>()?;
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
            .map(|f| net(&[&parts[..], &[f.parse().ok()?]].concat()))
            .collect::<Option<Vec<_>>>()
            .filter(|v| v.len() <= FACTORS_MAX),
    }
}

/// The two lists of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// None: from everywhere.
    pub only_from: Option<&'a [ClientPattern]>,
    pub no_access: &'a [ClientPattern],
}

impl Access<'_> {
    /// Does every address have access? -T prints no rule as the networks of all addresses.
    pub fn is_open(&self) -> bool {
        let all = |places: &[ClientPattern], v4: bool| {
            places.iter().any(|p| match p {
                ClientPattern::Net(net) => net.prefix_len() == 0 && net.addr().is_ipv4() == v4,
                ClientPattern::Name(_) | ClientPattern::Domain(_) => false,
            })
        };
        self.no_access.is_empty() && self.only_from.is_none_or(|p| all(p, true) && all(p, false))
    }

    /// May a client with this address and this name use the service? A name that could not be
    /// looked up matches every name in `no_access`, and none in `only_from`.
    pub fn allows(&self, address: IpAddr, name: &PeerName) -> bool {
        let named = |p: &ClientPattern| matches!(name, PeerName::Is(n) if p.is_named(n));
        let unknown = matches!(name, PeerName::Unknown | PeerName::NotAsked);
        self.decide(address, named, |p| unknown || named(p))
    }

    /// Does the decision about this address depend on its name?
    pub fn depends_on_name(&self, address: IpAddr) -> bool {
        let (all, none) = (|_: &ClientPattern| true, |_: &ClientPattern| false);
        self.decide(address, all, none) != self.decide(address, none, all)
    }

    /// Decides, where the caller says which names match: in `only_from`, and in `no_access`.
    fn decide(
        &self,
        address: IpAddr,
        named_in_only_from: impl Fn(&ClientPattern) -> bool,
        named_in_no_access: impl Fn(&ClientPattern) -> bool,
    ) -> bool {
        let yes = match self.only_from {
            None => Some(0),
            Some(places) => {
                places.iter().filter_map(|p| p.matches(address, &named_in_only_from)).max()
            }
        };
        let no =
            self.no_access.iter().filter_map(|p| p.matches(address, &named_in_no_access)).max();
        yes.is_some_and(|y| no.is_none_or(|n| n < y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(words: &str) -> Vec<ClientPattern> {
        words.split(' ').filter(|w| !w.is_empty()).flat_map(|w| read(w).expect("good")).collect()
    }

    fn allows(only: Option<&str>, no: &str, address: &str) -> bool {
        let (only, no) = (only.map(places), places(no));
        let a = Access { only_from: only.as_deref(), no_access: &no };
        a.allows(address.parse().expect("address"), &PeerName::Is("host.example.org".into()))
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
            "",
        ] {
            assert!(word == "-" || read(word).is_err(), "{word}");
        }
    }

    #[test]
    fn the_most_specific_decides_and_a_tie_refuses() {
        assert!(allows(None, "", "1.2.3.4"));
        assert!(!allows(None, "1.2.3.0/24", "1.2.3.4"));
        assert!(!allows(Some("10.0.0.0/8"), "10.1.0.0/16", "10.1.2.3"));
        assert!(allows(Some("10.1.0.0/16"), "10.0.0.0/8", "10.1.2.3"));
        assert!(!allows(Some("10.0.0.0/8"), "10.0.0.0/8", "10.1.2.3"));
        assert!(!allows(Some(""), "", "10.1.2.3"));
        assert!(
            !allows(Some("10.0.0.0/8"), "", "11.1.2.3") && !allows(Some("10.0.0.0/8"), "", "::1")
        );
        assert!(
            allows(Some(".example.org"), "", "9.9.9.9")
                && !allows(Some(".ample.org host"), "", "9.9.9.9")
        );
        assert!(allows(Some("host.EXAMPLE.org"), "0.0.0.0/0", "9.9.9.9"));
        for everywhere in [None, Some("0.0.0.0/0 ::/0")] {
            assert!(
                !allows(everywhere, ".example.org", "9.9.9.9")
                    && !allows(everywhere, "0.0.0.0/0", "9.9.9.9")
            );
            assert!(allows(everywhere, "0.0.0.0/0", "::1"));
        }
    }

    #[test]
    fn a_name_is_needed_only_where_it_decides() {
        let depends = |only: Option<&str>, no: &str, address: &str| {
            let (only, no) = (only.map(places), places(no));
            let a = Access { only_from: only.as_deref(), no_access: &no };
            a.depends_on_name(address.parse().expect("address"))
        };
        assert!(
            depends(Some(".example.org"), "", "192.0.2.1")
                && depends(None, ".example.org", "192.0.2.1")
        );
        assert!(depends(Some("192.0.2.0/24 host.example.org"), "", "198.51.100.1"));
        assert!(!depends(Some("192.0.2.0/24 host.example.org"), "", "192.0.2.1"));
        assert!(
            !depends(Some(".example.org"), "192.0.2.0/24", "192.0.2.1")
                && depends(Some("host"), "192.0.2.0/24", "192.0.2.1")
        );
        assert!(
            !depends(Some("192.0.2.0/24"), ".example.org", "192.0.2.1")
                && depends(Some("192.0.2.1"), "host", "192.0.2.1")
        );
        assert!(
            !depends(None, "", "192.0.2.1")
                && !depends(Some("10.0.0.0/8"), "10.1.0.0/16", "10.1.1.1")
        );
    }

    #[test]
    fn a_name_that_could_not_be_looked_up_is_refused_by_name_and_allowed_by_none() {
        let one = "192.0.2.1".parse().expect("address");
        for (only, no, unknown, none) in [
            (None, ".example.org", false, true),
            (Some(".example.org"), "", false, false),
            (None, "", true, true),
        ] {
            let (only, no) = (only.map(places), places(no));
            let a = Access { only_from: only.as_deref(), no_access: &no };
            assert_eq!(
                (a.allows(one, &PeerName::Unknown), a.allows(one, &PeerName::None)),
                (unknown, none),
                "{only:?} {no:?}"
            );
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
        #[test]
        fn as_one_would_count_bits(
            only in any::<u32>(),
            n in 0u8..33,
            no in any::<u32>(),
            m in 0u8..33,
            a in any::<u32>(),
        ) {
            let net = |a: u32, n: u8| {
                let net = Ipv4Net::new(Ipv4Addr::from(a), n).expect("length");
                ClientPattern::Net(net.trunc().into())
            };
            let near = |b: u32, n: u8| (a ^ b).leading_zeros() >= u32::from(n);
            let access = Access { only_from: Some(&[net(only, n)]), no_access: &[net(no, m)] };
            let wanted = near(only, n) && (!near(no, m) || m < n);
            prop_assert_eq!(access.allows(Ipv4Addr::from(a).into(), &PeerName::NotAsked), wanted);
        }
    }
}
