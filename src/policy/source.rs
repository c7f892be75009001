//! What limits count as one client: an IPv4 address, or an IPv6 network of 64 bits, which one user
//! usually has alone.

use std::net::{IpAddr, Ipv6Addr};

/// One client, as limits and penalties count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// Is it that of the unspecified address, which no client has?
    pub fn is_nobody(self) -> bool {
        self.0.is_unspecified()
    }

    /// The source that an address belongs to. An IPv4 address within IPv6 (`::ffff:192.0.2.1`) is
    /// that IPv4 address.
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V6(a) => {
                Source(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX)).into())
            }
            v4 => Source(v4),
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
    }
}
