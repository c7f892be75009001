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
    /// The name `localhost`: the address of the row's family, or those of both.
    Localhost,
}

impl ListenAddress {
    /// The addresses for a row of this family. `six`: the computer has the loopback address of
    /// IPv6.
    pub fn of(self, family: Family, six: bool) -> Vec<IpAddr> {
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        match (self, family) {
            (ListenAddress::Address(address), _) => vec![address],
            (ListenAddress::Localhost, Family::V6) => vec![v6],
            (ListenAddress::Localhost, Family::Any) if six => vec![v4, v6],
            (ListenAddress::Localhost, Family::V4 | Family::Any | Family::Unix) => vec![v4],
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

#[cfg(test)]
mod tests {
    use super::super::tests::{END, rows};

    #[test]
    fn localhost_has_a_port_for_each_family_that_the_protocol_has() {
        // As openbsd-inetd.
        for (text, wanted) in [
            (format!("localhost:5 {END}"), vec!["5 tcp 127.0.0.1:5 [::1]:5"]),
            (format!("localhost:\n5 {END}"), vec!["5 tcp 127.0.0.1:5 [::1]:5"]),
            ("localhost:5 stream tcp4 nowait root /x".into(), vec!["5 tcp4 127.0.0.1:5"]),
            ("localhost:5 stream tcp6 nowait root /x".into(), vec!["5 tcp6 [::1]:5"]),
            ("localhost:5 dgram udp wait root /x".into(), vec!["5 udp 127.0.0.1:5 [::1]:5"]),
            (
                format!("localhost:5 stream tcp6 nowait root /x\nlocalhost:5 {END}"),
                vec!["5 tcp6 [::1]:5", "5 tcp 127.0.0.1:5"],
            ),
        ] {
            assert_eq!(rows(&text), wanted, "{text}");
        }
    }
}
