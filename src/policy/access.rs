//! `only_from` and `no_access`: from where a service may be used, in xinetd's notation. The most
//! specific match decides; a tie refuses.

use super::client_pattern::{ClientPattern, is_everywhere};
use super::subject::PeerName;
use crate::wire::peer::Peer;

/// The two lists of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// None: from everywhere.
    pub only_from: Option<&'a [ClientPattern]>,
    pub no_access: &'a [ClientPattern],
}

impl Access<'_> {
    /// Does every client have access? -T prints no rule as the networks of all addresses.
    pub fn is_open(&self) -> bool {
        self.no_access.is_empty() && self.only_from.is_none_or(is_everywhere)
    }

    /// May this client, whose address has this name, use the service? A name that could not be
    /// looked up matches every name in `no_access`, and none in `only_from`.
    pub fn allows(&self, peer: Peer, name: &PeerName) -> bool {
        let named = |p: &ClientPattern| matches!(name, PeerName::Is(n) if p.is_named(n));
        self.decide(peer, named, refused_names(name))
    }

    /// The entry of `no_access` that decides about a client who may not use the service; None: no
    /// entry of either list is for this client.
    pub fn refusing(&self, peer: Peer, name: &PeerName) -> Option<&ClientPattern> {
        let named = refused_names(name);
        let matching = self.no_access.iter().filter_map(|p| Some((p.matches(peer, &named)?, p)));
        matching.max_by_key(|(how, _)| *how).map(|(_, p)| p)
    }

    /// Does the decision about this client depend on the name of its address?
    pub fn depends_on_name(&self, peer: Peer) -> bool {
        let (all, none) = (|_: &ClientPattern| true, |_: &ClientPattern| false);
        self.decide(peer, all, none) != self.decide(peer, none, all)
    }

    /// Decides, where the caller says which names match: in `only_from`, and in `no_access`.
    fn decide(
        &self,
        peer: Peer,
        named_in_only_from: impl Fn(&ClientPattern) -> bool,
        named_in_no_access: impl Fn(&ClientPattern) -> bool,
    ) -> bool {
        let yes = match self.only_from {
            None => Some(0),
            // A client without an address comes from everywhere or nowhere.
            Some(places) if peer.address().is_none() && is_everywhere(places) => Some(0),
            Some(places) => {
                let meant = places
                    .iter()
                    .filter(|p| peer.address().is_some() || **p == ClientPattern::Unix);
                meant.filter_map(|p| p.matches(peer, &named_in_only_from)).max()
            }
        };
        let no = self.no_access.iter().filter_map(|p| p.matches(peer, &named_in_no_access)).max();
        yes.is_some_and(|y| no.is_none_or(|n| n < y))
    }
}

/// Which names in `no_access` are of a client whose address has this name: all of them, where the
/// name could not be looked up.
fn refused_names(name: &PeerName) -> impl Fn(&ClientPattern) -> bool {
    move |p| match name {
        PeerName::Unknown | PeerName::NotAsked => true,
        PeerName::None => false,
        PeerName::Is(n) => p.is_named(n),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_pattern::read;
    use super::*;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn places(words: &str) -> Vec<ClientPattern> {
        words.split(' ').filter(|w| !w.is_empty()).flat_map(|w| read(w).expect("good")).collect()
    }

    fn allows(only: Option<&str>, no: &str, address: &str) -> bool {
        let (only, no) = (only.map(places), places(no));
        let a = Access { only_from: only.as_deref(), no_access: &no };
        a.allows(address.parse().expect("address"), &PeerName::Is("host.example.org".into()))
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
    fn a_client_without_an_address_comes_from_everywhere_or_from_unix() {
        for (only, no, wanted) in [
            (None, "", true),
            (Some("0.0.0.0/0 ::/0"), "", true),
            (Some("10.0.0.0/8 unix:"), "", true),
            (Some("unix:"), "0.0.0.0/0", true),
            (None, "10.0.0.0/8 host .example.org", true),
            (Some("0.0.0.0/0"), "", false),
            (Some("127.0.0.1 ::1"), "", false),
            (Some("host .example.org"), "", false),
            (Some(""), "", false),
            (None, "unix:", false),
            (Some("unix:"), "unix:", false),
            (None, "0.0.0.0/0", false),
        ] {
            assert_eq!(allows(only, no, "uid:1000"), wanted, "{only:?} {no:?}");
        }
        assert!(!allows(Some("unix:"), "", "127.0.0.1") && allows(None, "unix:", "127.0.0.1"));
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
            let within = |b: u32, n: u8| (a ^ b).leading_zeros() >= u32::from(n);
            let access = Access { only_from: Some(&[net(only, n)]), no_access: &[net(no, m)] };
            let wanted = within(only, n) && (!within(no, m) || m < n);
            prop_assert_eq!(access.allows(a.to_be_bytes().into(), &PeerName::NotAsked), wanted);
        }
    }
}
