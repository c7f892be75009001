//! Who comes to a port: the next client, or what waits for a program that gets the socket itself.

use super::Ports;
use super::port_listener::{Accepted, PortListener};
use super::waits::{NotStarted, State};
use crate::log;
use crate::parent::addresses::Addresses;
use crate::parent::arrival::{Arrival, Requester, Who};
use crate::parent::context::Context;
use crate::parent::tokens::{NetToken, PortToken};
use crate::policy::{Backend, Facts, Peer, PeerName, ProgramSocket, Reached, ServiceId};
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// What a listener has.
pub enum Came {
    Client(Box<Arrival>),
    /// At a Unix socket of fived's own: it will name a service.
    Unnamed(Shared, Addresses),
    /// It went before it was accepted.
    Gone,
    /// One of too many, which is not served.
    Lost(Peer),
    Nobody,
    /// The system lacks descriptors or memory for it now.
    Scarce,
}

impl Ports {
    /// The next client at a listener.
    pub fn accept(
        &mut self,
        cx: &mut Context,
        token: PortToken,
        name: impl FnOnce(Peer) -> PeerName,
    ) -> Came {
        let Some(l) = self.listeners.get_mut(token) else { return Came::Nobody };
        if l.wait.is_some() {
            let came = woken(l, cx, name);
            if let Err(e) = &came {
                l.give_away(cx);
                if e.kind() == ErrorKind::TimedOut {
                    l.look_again(cx, e);
                } else {
                    log::warn(&format!("{}: port: {}: {e}", l.port.place, l.name()));
                    self.not_started(cx, token, NotStarted::Failed);
                }
            }
            return came.unwrap_or(Came::Nobody);
        }
        let (client, addresses) = match l.next_client(cx) {
            Ok(Accepted::Next(client, addresses)) => (client, addresses),
            Ok(Accepted::Lost(addresses)) => return Came::Lost(addresses.peer()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Came::Nobody,
            Err(e) => {
                if socket::is_out_of_descriptors(&e) {
                    cx.out_of_descriptors();
                }
                return Came::Scarce;
            }
        };
        let Some(service) = l.port.service else { return Came::Unnamed(client, addresses) };
        let name = name(addresses.peer());
        Came::Client(Box::new(arrival(cx, service, client, addresses, Requester::Port(None), name)))
    }

    /// A client that has come to a port and is `at` these addresses, as its load balancer says.
    /// `real`: this computer's address of its connection; `net`: who has its socket, too. None: no
    /// service is there.
    pub fn arrival_at(
        &self,
        cx: &mut Context,
        (net, real): (NetToken, SocketAddr),
        client: Shared,
        at: Addresses,
        name: PeerName,
    ) -> Option<Box<Arrival>> {
        let service = self.service_at(real)?;
        Some(Box::new(arrival(cx, service, client, at, Requester::Port(Some(net)), name)))
    }
}

/// Something waits at a port whose program gets the socket itself: the port is not watched until
/// that program has ended. Err: the socket cannot be looked at.
fn woken(
    l: &mut PortListener,
    cx: &mut Context,
    name: impl FnOnce(Peer) -> PeerName,
) -> io::Result<Came> {
    let (socket, real) = (l.socket.as_fd(), l.real);
    let (Some(wait), Some(token), Some(service)) = (l.wait.as_mut(), l.token, l.port.service)
    else {
        return Ok(Came::Nobody);
    };
    let was_watched = match wait.state {
        State::Watched => true,
        State::Ready => false,
        State::Taken | State::Paused => return Ok(Came::Nobody),
    };
    let addresses = match (l.port.socket, real) {
        (ProgramSocket::Datagrams, Some(local)) => {
            let sender = wait.datagram(socket, &mut l.calls);
            sender.map(|s| s.map(|peer| Addresses::Internet { peer, local }))
        }
        (_, Some(local)) => wait
            .connections(socket, local.port(), &mut l.calls)
            .map(|any| any.then_some(Addresses::Listener(Some(local)))),
        (_, None) => Ok(wait.unix_connections(socket).then_some(Addresses::Listener(None))),
    };
    let failed_before = std::mem::replace(&mut wait.look_failed, addresses.is_err());
    let addresses = match addresses {
        Ok(Some(addresses)) => addresses,
        Ok(None) if was_watched => return Ok(Came::Nobody),
        Ok(None) => {
            wait.state = State::Watched;
            l.watch_again(cx);
            return Ok(Came::Nobody);
        }
        // An error of an earlier answer, which comes once.
        Err(e) if e.kind() != ErrorKind::TimedOut && !failed_before => return Ok(Came::Gone),
        Err(e) => return Err(e),
    };
    let client = match cx.descriptors.copy(socket, Whose::Anybody) {
        Ok(client) => client,
        Err(_) => {
            cx.out_of_descriptors();
            return Ok(Came::Scarce);
        }
    };
    let backend = cx.config.table.service(service).map(|s| &s.backend);
    wait.is_internal = matches!(backend, Some(Backend::Internal(_)));
    l.give_away(cx);
    let (name, requester) = (name(addresses.peer()), Requester::Wait(token));
    Ok(Came::Client(Box::new(arrival(cx, service, client, addresses, requester, name))))
}

fn arrival(
    cx: &mut Context,
    service: ServiceId,
    client: Shared,
    addresses: Addresses,
    requester: Requester,
    peer_name: PeerName,
) -> Arrival {
    let config = cx.config.clone();
    let host = config.table.host_at_port(service);
    let facts = Facts {
        peer: addresses.peer(),
        host,
        encrypted: matches!(addresses, Addresses::Unix(_)),
        login: None,
        minute: cx.minute(),
        peer_name,
        reached: Reached::AtPort,
    };
    let number = cx.next_number();
    let who = Who { addresses, facts, number, account: None, tls: None, requester };
    Arrival { config, service, who, client: Some(client), passed_libwrap: false, run: None }
}
