//! Ports of services' own: bound here, and accepted from here. No byte that comes there is read:
//! the system says who has connected, and which service is meant is known by the port.

use super::arrival::{Arrival, From, Who};
use super::context::Context;
use super::row_ports::Port;
use crate::policy::{Facts, HostId, HostScope, PeerName, ServiceId};
use crate::sys::port;
use crate::sys::shared::Shared;
use crate::sys::socket;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Clients that wait for the name of their address at a time.
const NAMING: usize = 256;

struct Listener {
    port: Port,
    real: SocketAddr,
    socket: OwnedFd,
    /// None: it is not watched yet.
    token: Option<usize>,
}

/// What a listener has.
pub enum Came {
    Client(Box<Arrival>),
    /// It went before it was accepted.
    Gone,
    Nobody,
    /// The system lacks descriptors or memory for it now.
    Scarce,
}

/// Listeners that are bound, and that nobody uses yet.
pub struct Fresh(Vec<Listener>);

/// See the module.
#[derive(Default)]
pub struct Ports {
    all: Vec<Listener>,
    naming: BTreeMap<u64, Arrival>,
    next: u64,
}

impl Ports {
    /// Binds those that are not bound already. `beside`: other listeners of this process.
    pub fn bind(
        &self,
        wanted: &[Port],
        beside: &[(SocketAddr, BorrowedFd)],
    ) -> Result<Fresh, String> {
        let mut fresh: Vec<Listener> = Vec::new();
        for (port, _) in wanted.iter().zip(self.bound(wanted)).filter(|(_, at)| at.is_none()) {
            let number = port.wanted.address.port();
            let own: Vec<BorrowedFd> = {
                let ours = self.all.iter().chain(&fresh).map(|l| (l.real, l.socket.as_fd()));
                ours.chain(beside.iter().copied())
                    .filter(|(address, _)| address.port() == number)
                    .map(|(_, fd)| fd)
                    .collect()
            };
            let said = |e: io::Error| format!("{}: {e}", port.wanted.address);
            let socket = port::listen(&port.wanted, &own).map_err(said)?;
            let real = socket::local(socket.as_fd()).map_err(said)?;
            fresh.push(Listener { port: port.clone(), real, socket, token: None });
        }
        Ok(Fresh(fresh))
    }

    /// For each port the place of the listener that is bound to it already: one port's each.
    fn bound(&self, wanted: &[Port]) -> Vec<Option<usize>> {
        let mut unclaimed: Vec<_> = self.all.iter().map(|l| Some(key(&l.port))).collect();
        let mut claim = |port: &Port| {
            let at = unclaimed.iter().position(|k| *k == Some(key(port)))?;
            unclaimed[at] = None;
            Some(at)
        };
        wanted.iter().map(&mut claim).collect()
    }

    /// The listeners that these ports have no use for, by their tokens.
    pub fn given_up(&self, wanted: &[Port]) -> Vec<usize> {
        let kept = self.bound(wanted);
        let given_up = self.all.iter().enumerate().filter(|(n, _)| !kept.contains(&Some(*n)));
        given_up.filter_map(|(_, l)| l.token).collect()
    }

    /// These ports and no others, from now on. Returns where it listens anew.
    pub fn adopt(&mut self, wanted: &[Port], Fresh(mut fresh): Fresh) -> Vec<SocketAddr> {
        let addresses = fresh.iter().map(|l| l.real).collect();
        let bound = self.bound(wanted);
        let mut old: Vec<_> = self.all.drain(..).map(Some).collect();
        for (port, at) in wanted.iter().zip(bound) {
            if let Some(mut l) = at.and_then(|at| old[at].take()) {
                if l.port.wanted.backlog != port.wanted.backlog {
                    // Else it stays as it was.
                    let _ = port::set_backlog(l.socket.as_fd(), port.wanted.backlog);
                }
                l.port = port.clone();
                self.all.push(l);
            }
        }
        self.all.append(&mut fresh);
        addresses
    }

    /// Hears of those that are new.
    pub fn watch(&mut self, cx: &mut Context) -> io::Result<()> {
        for l in self.all.iter_mut().filter(|l| l.token.is_none()) {
            let token = cx.new_token();
            cx.registry().register(
                &mut SourceFd(&l.socket.as_raw_fd()),
                Token(token),
                Interest::READABLE,
            )?;
            l.token = Some(token);
        }
        Ok(())
    }

    pub fn has(&self, token: usize) -> bool {
        self.all.iter().any(|l| l.token == Some(token))
    }

    /// Its listeners, and those that are bound and not used yet.
    pub fn with<'a>(&'a self, fresh: &'a Fresh) -> Vec<(SocketAddr, BorrowedFd<'a>)> {
        self.all.iter().chain(&fresh.0).map(|l| (l.real, l.socket.as_fd())).collect()
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|l| l.real)
    }

    /// Nobody comes any more.
    pub fn close(&mut self) {
        self.all.clear();
        self.naming.clear();
    }

    /// The next client at a listener.
    pub fn accept(
        &self,
        cx: &mut Context,
        token: usize,
        name: impl FnOnce(IpAddr) -> PeerName,
    ) -> Came {
        let Some(l) = self.all.iter().find(|l| l.token == Some(token)) else { return Came::Nobody };
        let (client, peer) = match socket::accept(l.socket.as_fd()) {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Came::Nobody,
            Err(e) if socket::is_scarcity(&e) => {
                if socket::is_out_of_descriptors(&e) {
                    cx.out_of_descriptors();
                }
                return Came::Scarce;
            }
            // Errors of one connection (accept(2)).
            Err(_) => return Came::Gone,
        };
        let Ok(local) = socket::local(client.as_fd()) else { return Came::Gone };
        Came::Client(Box::new(arrival(cx, l.port.service, (client, peer, local), name(peer.ip()))))
    }

    /// A client whose service depends on the name of its address: its number, until that is known.
    /// Err: too many wait.
    pub fn name(&mut self, a: Arrival) -> Result<u64, Box<Arrival>> {
        if self.naming.len() >= NAMING {
            return Err(Box::new(a));
        }
        self.next += 1;
        self.naming.insert(self.next, a);
        Ok(self.next)
    }

    /// The name is known, or is known to be none.
    pub fn named(&mut self, number: u64, name: PeerName) -> Option<Arrival> {
        let mut a = self.naming.remove(&number)?;
        a.who.facts.peer_name = name;
        Some(a)
    }
}

fn arrival(
    cx: &mut Context,
    service: ServiceId,
    (client, peer, local): (Shared, SocketAddr, SocketAddr),
    peer_name: PeerName,
) -> Arrival {
    let config = cx.config.clone();
    let host = match config.table.service(service).map(|s| s.host) {
        Some(HostScope::Host(host)) => host,
        Some(HostScope::All) | None => HostId::DEFAULT,
    };
    let facts = Facts {
        peer: peer.ip(),
        host,
        encrypted: false,
        login: None,
        minute: cx.minute(),
        peer_name,
        by_port: true,
    };
    let (number, from) = (cx.next_number(), From::Port);
    let who = Who { peer, local, facts, number, account: None, tls: None, from };
    Arrival { config, service, who, client: Some(client), passed_libwrap: false }
}

/// What tells one listener from another.
fn key(p: &Port) -> (SocketAddr, bool, Option<&str>) {
    (p.wanted.address, p.wanted.only_v6, p.free.as_deref())
}
