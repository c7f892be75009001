//! Clients of load balancers (`proxy_from`). Net reads their addresses from the header that the
//! load balancer sends. The parent believes net only if the connection comes from the address of a
//! load balancer, which the parent reads from the socket itself.

use super::addresses::Addresses;
use super::arrival::{Arrival, Requester, StartError};
use super::channel::Broken;
use super::config::Config;
use super::nets::net::CameTo;
use super::run::Parent;
use super::tokens::NetToken;
use crate::policy::Proxies;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{AddressPair, ClientAddresses, ToNet};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

fn believed(proxies: &Proxies, own: Addresses, proxied: Option<AddressPair>) -> Option<Addresses> {
    let Some(proxied) = proxied else { return Some(own) };
    let at = Addresses::Internet { peer: proxied.client, local: proxied.local };
    proxies.may_give(own.peer(), &proxied).then_some(at)
}

impl Parent {
    /// The addresses of a connection that a net process (`net`, of this configuration) has handed
    /// over. `came_to`: the listeners where it can have come. None: the client has gone already.
    /// Err: whoever connected may not give them, or it is no client's connection.
    pub fn addresses(
        &mut self,
        (net, config): (NetToken, &Config),
        client: BorrowedFd,
        said: &ClientAddresses,
        came_to: CameTo,
    ) -> Result<Option<Addresses>, Broken> {
        let Some(own) = self.own_addresses((net, config), client, said)? else { return Ok(None) };
        self.nets.admit(net, &own, came_to)?;
        let proxies = &config.table.settings.proxy_from;
        believed(proxies, own, said.proxied).map(Some).ok_or(Broken::Forbidden)
    }

    /// The connection's own addresses, whatever a load balancer has said. None and Err: as above.
    fn own_addresses(
        &mut self,
        (net, config): (NetToken, &Config),
        client: BorrowedFd,
        said: &ClientAddresses,
    ) -> Result<Option<Addresses>, Broken> {
        if socket::is_unix(client) {
            // The one that is served now may have let the client in before net had it.
            let own_paths = [&config.ports.own_paths[..], &self.cx.config.ports.own_paths];
            return match Addresses::of_own_path(client, &own_paths) {
                Ok(own) => Ok(Some(own)),
                Err(e) if e.kind() == ErrorKind::InvalidInput => Err(Broken::Forbidden),
                Err(_) => Ok(None),
            };
        }
        let calls = self.nets.calls(net).ok_or(Broken::Closed)?;
        let own = self.listeners.clients.addresses(calls, client, said.own)?;
        Ok(own.map(|AddressPair { client: peer, local }| Addresses::Internet { peer, local }))
    }

    /// A client that has come to a service's own port: if it is a load balancer, net reads who its
    /// client is. Returned: one that is not.
    pub fn ask_balancer(&mut self, a: Box<Arrival>) -> Option<Box<Arrival>> {
        let proxies = &a.config.table.settings.proxy_from;
        if !matches!(a.who.requester, Requester::Port(_)) || !proxies.contains(a.who.facts.peer) {
            return Some(a);
        }
        match (self.nets.serving(), &a.client) {
            (Some(net), Some(client)) => {
                self.nets.tell(&self.cx, net, &ToNet::Header, Some(client.as_fd()));
            }
            _ => {
                let text = Some("no network process serves now".into());
                self.refuse(*a, StartError { reply: None, reason: "processes", text });
            }
        }
        None
    }

    /// Net has read who the client is. None: the client has gone, or there is no such port any
    /// more, or nobody may say that; the log has a line about it. Err: it is no client.
    pub fn proxied_at_port(
        &mut self,
        (net, config): (NetToken, &Config),
        client: Shared,
        said: &ClientAddresses,
    ) -> Result<Option<Box<Arrival>>, Broken> {
        let own = self.own_addresses((net, config), client.as_fd(), said)?;
        let Some(own) = own.filter(|own| own.internet().is_some()) else {
            let config = self.cx.config.clone();
            // For the line in the log alone.
            let service = said.own.and_then(|own| self.ports.service_at(own.local));
            let what = service.map(|s| (s, config.table.host_at_port(s)));
            self.client_gone(&config, what);
            return Ok(None);
        };
        // The table may have changed since the client came.
        let tables = [config, &self.cx.config];
        let mut trusting = tables.iter().map(|c| &c.table.settings.proxy_from);
        let proxies = trusting.find(|proxies| proxies.contains(own.peer()));
        let (balancer, real) = (own.peer(), own.internet().map(|(_, real)| real));
        let at = proxies.and_then(|proxies| believed(proxies, own, said.proxied));
        let Some((at, real)) = at.zip(real) else {
            self.refuse_nameless(balancer, "proxy");
            return Ok(None);
        };
        let (from, name) = (at.peer(), self.names.known(self.cx.now, at.peer()));
        let arrival = self.ports.arrival_at(&mut self.cx, (net, real), client, at, name);
        if arrival.is_none() {
            // A reload has taken the port away since the client came.
            self.refuse_nameless(from, "unknown");
        }
        Ok(arrival)
    }
}
