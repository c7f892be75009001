//! Where rows listen: lists of addresses before a name, and in lines of their own.

use super::super::super::endpoint::Family;
use super::super::parse::Wrong;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where rows listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    Everywhere,
    /// At those of these addresses that are of the row's family: the option -a.
    Option(Vec<IpAddr>),
    /// At these addresses alone.
    Addresses(Vec<ListenAddress>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    Address(IpAddr),
    /// The name `localhost`: the address of the row's family.
    Localhost,
}

impl ListenAddress {
    pub fn of(self, family: Family) -> IpAddr {
        match (self, family) {
            (ListenAddress::Address(address), _) => address,
            (ListenAddress::Localhost, Family::V6) => Ipv6Addr::LOCALHOST.into(),
            (ListenAddress::Localhost, Family::V4 | Family::Any | Family::Unix) => {
                Ipv4Addr::LOCALHOST.into()
            }
        }
    }
}

/// Reads `ADDR[,ADDR]`: the addresses, and a mistake for every word that is not one. `usual`: what
/// `*` stands for.
pub fn addresses(list: &str, usual: &At) -> (At, Vec<Wrong>) {
    if list == "*" {
        return (usual.clone(), Vec::new());
    }
    let (mut places, mut wrong) = (Vec::new(), Vec::new());
    for word in list.split(',') {
        let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
        match bare.parse() {
            Ok(address) => places.push(ListenAddress::Address(address)),
            Err(_) if word.eq_ignore_ascii_case("localhost") => {
                places.push(ListenAddress::Localhost)
            }
            Err(_) => wrong.push(Wrong::expected("an address, * or localhost", word)),
        }
    }
    (At::Addresses(places), wrong)
}
