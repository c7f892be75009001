//! Between whom a client's connection is, as a net process says it in orders.

use super::Data;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The two addresses of a client's connection. An IPv4 address that was received is never in the
/// form of an IPv4-mapped IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPair {
    /// The client's.
    pub client: SocketAddr,
    /// The one that it connected to.
    pub local: SocketAddr,
}

impl AddressPair {
    /// With IPv4-mapped addresses as IPv4 addresses.
    pub fn canonical(self) -> AddressPair {
        let plain = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        AddressPair { client: plain(self.client), local: plain(self.local) }
    }

    fn bytes(of: Option<AddressPair>) -> Vec<u8> {
        of.map_or(vec![0; 2 * BYTES], |a| [bytes(a.client), bytes(a.local)].concat())
    }

    /// Zeros: there are none.
    fn first(data: &[u8]) -> Option<(Option<AddressPair>, &[u8])> {
        let (pair, after) = data.split_first_chunk::<{ 2 * BYTES }>()?;
        let (client, rest) = first(pair)?;
        let (local, _) = first(rest)?;
        Some(((*pair != [0; 2 * BYTES]).then_some(AddressPair { client, local }), after))
    }
}

/// What a net process says of a client's connection that it hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientAddresses {
    /// The connection's own. The parent believes them only if its socket has them. None: it is one
    /// of a Unix socket, or its client has gone.
    pub own: Option<AddressPair>,
    /// Those that a load balancer gave for its client (`proxy_from`). The parent believes them only
    /// if the socket's peer may give them. None: the client connected by itself.
    pub proxied: Option<AddressPair>,
}

impl ClientAddresses {
    /// Encodes them. No bytes: there are none.
    pub(super) fn data(&self) -> Data {
        if *self == ClientAddresses::default() {
            return Data::default();
        }
        Data([AddressPair::bytes(self.own), AddressPair::bytes(self.proxied)].concat())
    }

    /// What [`ClientAddresses::data`] wrote.
    pub(super) fn from_data(data: &Data) -> Option<ClientAddresses> {
        if data.bytes().is_empty() {
            return Some(ClientAddresses::default());
        }
        let (own, rest) = AddressPair::first(data.bytes())?;
        let (proxied, rest) = AddressPair::first(rest)?;
        rest.is_empty().then_some(ClientAddresses { own, proxied })
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
