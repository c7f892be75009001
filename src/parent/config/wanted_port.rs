//! The address and port that a row names, as it is to be bound.

use super::port_names::PortNames;
use crate::policy::{self, Family, Peer, ProgramSocket, Service};
use crate::sys::port::{Protocol, Wanted};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is to be bound for a port of a row. Err: what is wrong with it.
pub fn wanted(s: &Service, p: &policy::Port, names: &mut PortNames) -> Result<Wanted, String> {
    if s.endpoint.family == Family::Unix {
        return Err(format!("expected the path of a Unix socket, found {p}"));
    }
    let protocol = match s.endpoint.socket {
        ProgramSocket::Datagrams => Protocol::Udp,
        ProgramSocket::Connection | ProgramSocket::Listener => Protocol::Tcp,
    };
    let named = || names.number(&p.name, protocol.as_str());
    // One that begins with a sign is no number.
    let digits = p.name.starts_with(|c: char| c.is_ascii_digit());
    let Some(number) = p.name.parse().ok().filter(|_| digits).or_else(named) else {
        return Err(format!("expected a number or a name of services(5), found {:?}", p.name));
    };
    let family = s.endpoint.family;
    let has = |ip: IpAddr| family.has(Peer::Address(ip));
    let has_v4 = has(Ipv4Addr::LOCALHOST.into());
    let any = if has(Ipv6Addr::LOCALHOST.into()) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let ip = p.address.unwrap_or(any);
    if !has(ip) {
        return Err(format!("{p}: expected an address of {}, found {ip}", s.endpoint.protocol()));
    }
    let only_v6 = ip.is_ipv6() && !(ip.is_unspecified() && has_v4);
    let backlog = s.attributes.backlog;
    Ok(Wanted { protocol, address: (ip, number).into(), only_v6, backlog })
}
