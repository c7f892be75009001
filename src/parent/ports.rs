//! Ports of services' own: bound here, and accepted from here. No byte that comes there is read:
//! the system says who has connected, and which service is meant is known by the port.

use super::arrival::{Arrival, From, Who};
use super::context::{Context, Timer};
use super::row_ports::Port;
use super::waits::{Next, State, Wait};
use crate::log;
use crate::policy::{Facts, HostId, HostScope, PeerName, ProgramSocket, Reached, ServiceId};
use crate::sys::port;
use crate::sys::queue_head;
use crate::sys::shared::Shared;
use crate::sys::socket;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Clients that wait for the name of their address at a time.
const NAMING: usize = 256;

struct Listener {
    port: Port,
    real: SocketAddr,
    socket: OwnedFd,
    /// None: it is not watched yet.
    token: Option<usize>,
    /// Where the program gets the socket itself.
    wait: Option<Wait>,
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
    /// Where among them each token's is: a client costs the same with thousands of ports.
    places: HashMap<usize, usize>,
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
            let wrong = |e: io::Error| format!("{}: {e}", port.wanted.address);
            let socket = port::listen(&port.wanted, &own).map_err(wrong)?;
            let real = socket::local(socket.as_fd()).map_err(wrong)?;
            let wait = port.socket.waits().then(Wait::new);
            fresh.push(Listener { port: port.clone(), real, socket, token: None, wait });
        }
        Ok(Fresh(fresh))
    }

    /// For each port the place of the listener that is bound to it already: one port's each.
    fn bound(&self, wanted: &[Port]) -> Vec<Option<usize>> {
        let mut unclaimed: HashMap<_, VecDeque<usize>> = HashMap::new();
        for (at, l) in self.all.iter().enumerate() {
            unclaimed.entry(l.port.key()).or_default().push_back(at);
        }
        wanted.iter().map(|port| unclaimed.get_mut(&port.key())?.pop_front()).collect()
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
        self.find_places();
        addresses
    }

    fn find_places(&mut self) {
        let tokens = self.all.iter().enumerate();
        self.places = tokens.filter_map(|(at, l)| Some((l.token?, at))).collect();
    }

    fn listener(&mut self, token: usize) -> Option<&mut Listener> {
        self.all.get_mut(*self.places.get(&token)?)
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
        self.find_places();
        Ok(())
    }

    pub fn has(&self, token: usize) -> bool {
        self.places.contains_key(&token)
    }

    /// Its listeners, and those that are bound and not used yet.
    pub fn with<'a>(&'a self, fresh: &'a Fresh) -> Vec<(SocketAddr, BorrowedFd<'a>)> {
        self.all.iter().chain(&fresh.0).map(|l| (l.real, l.socket.as_fd())).collect()
    }

    /// Its listeners.
    pub fn all(&self) -> Vec<(SocketAddr, BorrowedFd<'_>)> {
        self.all.iter().map(|l| (l.real, l.socket.as_fd())).collect()
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|l| l.real)
    }

    /// Nobody comes any more.
    pub fn close(&mut self) {
        self.all.clear();
        self.places.clear();
        self.naming.clear();
    }

    /// The next client at a listener.
    pub fn accept(
        &mut self,
        cx: &mut Context,
        token: usize,
        name: impl FnOnce(IpAddr) -> PeerName,
    ) -> Came {
        let Some(l) = self.listener(token) else { return Came::Nobody };
        if l.wait.is_some() {
            return l.woken(cx, name);
        }
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
        let place = (peer, local, From::Port);
        Came::Client(Box::new(arrival(cx, l.port.service, client, place, name(peer.ip()))))
    }

    /// A program that has had the socket itself has ended.
    pub fn program_ended(&mut self, cx: &mut Context, token: usize) {
        self.free(cx, token, |l, wait, now| wait.ended(l.socket.as_fd(), l.real.port(), now));
    }

    /// A program that was to get the socket itself was not started. `denied`: the client may not
    /// use the service, so that its datagram is thrown away.
    pub fn not_started(&mut self, cx: &mut Context, token: usize, denied: bool) {
        self.free(cx, token, |l, wait, now| {
            let gone = denied && l.port.socket == ProgramSocket::Datagrams;
            if gone && let Err(e) = queue_head::drop_datagram(l.socket.as_fd()) {
                ::log::debug!("{}: {e}", l.real);
            }
            wait.after(!gone, now)
        });
    }

    fn free(
        &mut self,
        cx: &mut Context,
        token: usize,
        what: impl FnOnce(&Listener, &mut Wait, Duration) -> Next,
    ) {
        let Some(l) = self.listener(token) else { return };
        let Some(mut wait) = l.wait.take() else { return };
        let Next { pause, warn } = what(l, &mut wait, cx.now);
        l.wait = Some(wait);
        if let (Some(n), Some(pause)) = (warn, pause) {
            let s = cx.config.table.service(l.port.service);
            let (name, at) = s.map_or(("", String::new()), |s| {
                (s.name.as_str(), format!("{}:{}", s.file, s.line))
            });
            let pause = pause.as_secs();
            log::warn(&format!(
                "{at}: {name}: its program ended {n} times in a row without taking what it was started for; it is started again after {pause} s"
            ));
        }
        match pause {
            Some(pause) => cx.after(pause, Timer::PortAgain { token }),
            None => l.watch_again(cx),
        }
    }

    /// The pause before a program is started again is over.
    pub fn again(&mut self, cx: &mut Context, token: usize) {
        if let Some(l) = self.listener(token)
            && let Some(wait) = l.wait.as_mut().filter(|w| w.state == State::Paused)
        {
            wait.state = State::Watched;
            l.watch_again(cx);
        }
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

impl Listener {
    /// Something waits at a port whose program gets the socket itself: the port is not watched
    /// until that program has ended.
    fn woken(&mut self, cx: &mut Context, name: impl FnOnce(IpAddr) -> PeerName) -> Came {
        let (socket, real) = (self.socket.as_fd(), self.real);
        let (Some(wait), Some(token)) = (self.wait.as_mut(), self.token) else {
            return Came::Nobody;
        };
        if wait.state != State::Watched {
            return Came::Nobody;
        }
        let nobody = if real.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        let peer = match self.port.socket {
            ProgramSocket::Datagrams => wait.datagram(socket),
            _ => wait.connections(socket, real.port()).map(|any| any.then_some(nobody)),
        };
        let peer = match peer {
            Ok(Some(peer)) => peer,
            Ok(None) => return Came::Nobody,
            // An error of an earlier answer.
            Err(_) => return Came::Gone,
        };
        let client = match cx.descriptors.copy(socket) {
            Ok(client) => client,
            Err(_) => {
                cx.out_of_descriptors();
                return Came::Scarce;
            }
        };
        wait.state = State::Taken;
        let fd = self.socket.as_raw_fd();
        if let Err(e) = cx.registry().deregister(&mut SourceFd(&fd)) {
            log::warn(&format!("{real}: poll: {e}"));
        }
        let place = (peer, real, From::Wait(token));
        let name = if peer.ip().is_unspecified() { PeerName::NotAsked } else { name(peer.ip()) };
        Came::Client(Box::new(arrival(cx, self.port.service, client, place, name)))
    }

    fn watch_again(&self, cx: &Context) {
        let (fd, Some(token)) = (self.socket.as_raw_fd(), self.token) else { return };
        let watched = cx.registry().register(&mut SourceFd(&fd), Token(token), Interest::READABLE);
        if let Err(e) = watched {
            log::warn(&format!("{}: poll: {e}", self.real));
        }
    }
}

fn arrival(
    cx: &mut Context,
    service: ServiceId,
    client: Shared,
    (peer, local, from): (SocketAddr, SocketAddr, From),
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
        reached: Reached::AtPort,
    };
    let number = cx.next_number();
    let who = Who { peer, local, facts, number, account: None, tls: None, from };
    Arrival { config, service, who, client: Some(client), passed_libwrap: false }
}
