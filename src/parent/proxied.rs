//! Clients of load balancers (`proxy_from`). Net reads their addresses from the header that the
//! load balancer sends. The parent believes net only if the connection comes from the address of a
//! load balancer, which the parent reads from the socket itself.

use super::addresses::Addresses;
use super::arrival::{Arrival, Requester, StartError};
use super::channel::Broken;
use super::config::Config;
use super::lines;
use super::run::Parent;
use crate::policy::{Peer, Proxies};
use crate::sys::origin_mark;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{ProxyAddresses, ToNet};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

/// The addresses of a client's connection. `config`: that of the net process that has handed it
/// over; `now`: the one that is served now, which may have let the client in before net had it.
fn addresses(
    config: &Config,
    now: &Config,
    client: BorrowedFd,
    proxied: Option<ProxyAddresses>,
) -> Result<Option<Addresses>, Broken> {
    let own_paths = [&config.ports.own_paths[..], &now.ports.own_paths];
    let own = match Addresses::of(client, &own_paths) {
        Ok(own) => own,
        Err(e) if e.kind() == ErrorKind::InvalidInput => return Err(Broken::Forbidden),
        Err(_) => return Ok(None),
    };
    let proxies = &config.table.settings.proxy_from;
    believed(proxies, own, proxied).map(Some).ok_or(Broken::Forbidden)
}

fn believed(
    proxies: &Proxies,
    own: Addresses,
    proxied: Option<ProxyAddresses>,
) -> Option<Addresses> {
    let Some(proxied) = proxied else { return Some(own) };
    let at = Addresses::Internet { peer: proxied.client, local: proxied.local };
    proxies.may_give(own.peer(), &proxied).then_some(at)
}

impl Parent {
    /// The addresses of a connection that a net process has handed over. `config`: that of net;
    /// `proxied`: those that its load balancer gave. None: the client has gone already. Err:
    /// whoever connected may not give them, or it is no client's connection.
    pub fn addresses(
        &self,
        config: &Config,
        client: BorrowedFd,
        proxied: Option<ProxyAddresses>,
    ) -> Result<Option<Addresses>, Broken> {
        self.is_of_a_client(client)?;
        addresses(config, &self.cx.config, client, proxied)
    }

    /// Err: the parent itself has connected it, or it was made elsewhere.
    fn is_of_a_client(&self, connection: BorrowedFd) -> Result<(), Broken> {
        let is = !origin_mark::is_set(connection) && self.listeners.is_of_a_client(connection);
        is.then_some(()).ok_or(Broken::Forbidden)
    }

    /// A client that has come to a service's own port: if it is a load balancer, net reads who its
    /// client is. Returned: one that is not.
    pub fn ask_balancer(&mut self, a: Box<Arrival>) -> Option<Box<Arrival>> {
        let proxies = &a.config.table.settings.proxy_from;
        if !matches!(a.who.from, Requester::Port) || !proxies.contains(a.who.facts.peer) {
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

    /// Net has read who the client is. `config`: that of net. None: the client has gone, or there
    /// is no such port any more, or nobody may say that; the log has a line about it. Err: it is no
    /// client.
    pub fn proxied_at_port(
        &mut self,
        config: &Config,
        client: Shared,
        proxied: Option<ProxyAddresses>,
    ) -> Result<Option<Box<Arrival>>, Broken> {
        self.is_of_a_client(client.as_fd())?;
        let Ok(own) = Addresses::of(client.as_fd(), &[]) else {
            let config = self.cx.config.clone();
            let real = socket::local(client.as_fd()).ok();
            let service = real.and_then(|real| self.ports.service_at(real));
            let what = service.map(|s| (s, config.table.host_at_port(s)));
            self.client_gone(&config, what);
            return Ok(None);
        };
        // The table may have changed since the client came.
        let tables = [config, &self.cx.config];
        let mut trusting = tables.iter().map(|c| &c.table.settings.proxy_from);
        let proxies = trusting.find(|proxies| proxies.contains(own.peer()));
        let (balancer, real) = (own.peer(), own.internet().map(|(_, real)| real));
        let at = proxies.and_then(|proxies| believed(proxies, own, proxied));
        let Some((at, real)) = at.zip(real) else {
            self.no_service(balancer, "proxy");
            return Ok(None);
        };
        let (from, name) = (at.peer(), self.names.known(self.cx.now, at.peer()));
        let arrival = self.ports.arrival_at(&mut self.cx, real, client, at, name);
        if arrival.is_none() {
            // A reload has taken the port away since the client came.
            self.no_service(from, "unknown");
        }
        Ok(arrival)
    }

    /// Logs and counts a client at a port for whom there is no service.
    fn no_service(&mut self, from: Peer, reason: &'static str) {
        self.cx.counters.refuse(None, reason);
        lines::of_none(from, reason);
    }
}
