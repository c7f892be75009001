//! The load balancers that give the addresses of their clients (`proxy_from`), and which addresses
//! they may give.

use super::client_pattern::{self, ClientPattern};
use super::text::entry::Codec;
use super::text::parse::expected;
use super::text::value::{print_list, read_list};
use crate::wire::orders::AddressPair;
use crate::wire::peer::Peer;
use ipnet::IpNet;

/// The addresses of load balancers. Each connection from there begins with a header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is it a load balancer? `peer`: a connection's own.
    pub fn contains(&self, peer: Peer) -> bool {
        let at = |address| self.0.iter().any(|net| net.contains(&address));
        !self.0.is_empty() && peer.address().is_some_and(at)
    }

    /// May whoever has this address give these addresses?
    pub fn may_give(&self, peer: Peer, proxied: &AddressPair) -> bool {
        self.contains(peer) && !Proxies::gives_itself(peer, proxied)
    }

    /// Does this load balancer give a loopback address, which means its own computer? If another
    /// computer could give one, its clients would get the rights of clients of this computer.
    pub fn gives_itself(peer: Peer, proxied: &AddressPair) -> bool {
        proxied.client.ip().is_loopback() && !peer.is_of_this_computer()
    }
}

/// Reads and prints them.
pub const PROXIES: Codec<Proxies> = Codec {
    list: true,
    read: |all, given| {
        read_list(&mut all.0, given.operator, given.words, |word| {
            let what = "an address or a network such as 10.0.0.0/8";
            let everybody = format!("{what}, and not that of everybody");
            let one = |pattern| match pattern {
                ClientPattern::Net(net) if net.prefix_len() > 0 => Ok(net),
                ClientPattern::Net(_) => Err(expected(&everybody, word)),
                ClientPattern::Name(_) | ClientPattern::Domain(_) | ClientPattern::Unix => {
                    Err(expected(what, word))
                }
            };
            let all = client_pattern::read(word).map_err(|_| expected(what, word))?;
            all.into_iter().map(one).collect()
        })
    },
    print: |all| print_list(&all.0),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_says_who_is_there_and_nobody_else_does() {
        let all = Proxies(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let may = |from: &str, client: &str| {
            let proxied = AddressPair {
                client: client.parse().unwrap(),
                local: "192.0.2.9:1".parse().unwrap(),
            };
            all.may_give(from.parse::<Peer>().unwrap(), &proxied)
        };
        assert!(may("10.1.2.3", "192.0.2.1:5") && may("::1", "[2001:db8::1]:5"));
        assert!(!may("11.1.2.3", "192.0.2.1:5") && !may("::2", "192.0.2.1:5"));
        assert!(may("::1", "127.0.0.1:5") && !may("10.1.2.3", "127.0.0.1:5"));
        assert!(!may("10.1.2.3", "[::1]:5"));
        assert!(!Proxies::default().contains("10.1.2.3".parse::<Peer>().unwrap()));
    }
}
