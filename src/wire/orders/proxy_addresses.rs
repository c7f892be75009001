//! The addresses of a load balancer's client, in orders.

use super::Data;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The two addresses of a client's connection, as its load balancer gives them (`proxy_from`). An
/// IPv4 address that was received is never in the form of an IPv4-mapped IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The client's.
    pub client: SocketAddr,
    /// The one that it connected to.
    pub local: SocketAddr,
}

impl ProxyAddresses {
    /// With IPv4-mapped addresses as IPv4 addresses.
    pub fn canonical(self) -> ProxyAddresses {
        let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        ProxyAddresses { client: plain(self.client), local: plain(self.local) }
    }

    /// Encodes them. No bytes: there is no load balancer.
    pub(super) fn data(proxied: Option<ProxyAddresses>) -> Data {
        let both = proxied.map(|a| [bytes(a.client), bytes(a.local)].concat());
        Data(both.unwrap_or_default())
    }

    /// What [`ProxyAddresses::data`] wrote.
    pub(super) fn from_data(data: &Data) -> Option<Option<ProxyAddresses>> {
        if data.bytes().is_empty() {
            return Some(None);
        }
        let (client, rest) = first(data.bytes())?;
        let (local, rest) = first(rest)?;
        rest.is_empty().then_some(Some(ProxyAddresses { client, local }))
    }
}

/// Bytes of an IP address, and of one with the port after it.
const IP: usize = 16;
const BYTES: usize = IP + 2;

/// An address and its port.
fn bytes(of: SocketAddr) -> [u8; BYTES] {
    let ip = match of.ip() {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    let mut all = [0; BYTES];
    all[..IP].copy_from_slice(&ip.octets());
    all[IP..].copy_from_slice(&of.port().to_le_bytes());
    all
}

/// The address at the beginning of these bytes, and what follows it.
fn first(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = bytes.split_first_chunk::<IP>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let ip = IpAddr::from(Ipv6Addr::from(*ip)).to_canonical();
    Some((SocketAddr::new(ip, u16::from_le_bytes(*port)), rest))
}
