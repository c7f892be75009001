//! What limits count as one client: an IPv4 address, or an IPv6 network of 64 bits, which one user
//! usually has alone; an IPv4 address as a translator writes it in IPv6; of the clients of this
//! computer that use a Unix socket, a user.

use crate::wire::peer::Peer;
use std::net::{IpAddr, Ipv6Addr};

/// `64:ff9b::/96`: IPv4 addresses behind a translator (RFC 6052), all of which one network of 64
/// bits would make one client.
const TRANSLATED: u128 = 0x0064_ff9b << 96;

/// One client, as limits and penalties count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(Peer);

impl Source {
    /// Is it that of no client in particular ([`Peer::Nobody`])?
    pub fn is_nobody(self) -> bool {
        self.0 == Peer::Nobody
    }

    /// The source that a client belongs to. An IPv4 address within IPv6 (`::ffff:192.0.2.1`) is
    /// that IPv4 address.
    pub fn of(client: Peer) -> Source {
        match client {
            Peer::Address(IpAddr::V6(a)) if a.to_bits() >> 32 != TRANSLATED >> 32 => {
                let network = Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX));
                Source(Peer::Address(network.into()))
            }
            other => Source(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_source_is_its_network() {
        let of = |s: &str| Source::of(s.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        assert_ne!(of("64:ff9b::192.0.2.2"), of("64:ff9b::192.0.2.1"));
        assert_eq!(of("64:ff9b::1:0:0:1"), of("64:ff9b::2:0:0:1"));
    }

    #[test]
    fn a_user_of_this_computer_is_a_source() {
        assert_eq!(Source::of(Peer::User(7)), Source::of(Peer::User(7)));
        assert_ne!(Source::of(Peer::User(7)), Source::of(Peer::User(8)));
        assert!(Source::of(Peer::Nobody).is_nobody() && !Source::of(Peer::User(0)).is_nobody());
    }
}
