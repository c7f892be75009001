//! The sockets of services' own ports: those of the current table, and those that it does not have
//! while a program has them.
//!
//! A program that got the socket itself (`wait`) keeps it until it ends. Where a reload has no row
//! for it any more, fived keeps it, too: a row of the same kind and address that a later reload
//! brings takes it over, and nobody else gets that address meanwhile.

use super::addresses::Addresses;
use super::bind_error::{self, Unbound};
use super::claims::{self, Bound};
use super::context::Context;
use super::given_paths::GivenPaths;
use super::row_ports::{At, Port};
use super::waits::{State, Wait};
use crate::log;
use crate::policy::ProgramSocket;
use crate::sys::leftover::AsMade;
use crate::sys::local;
use crate::sys::port::{self, Protocol, Wanted};
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::sys::unix_listener::{self, SocketFile};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const REPLACED: &str = "the program that was started for this row keeps the socket that it has, where no new clients come; end it if nobody needs it";

/// The socket of a port.
pub struct PortListener {
    pub port: Port,
    /// Where it is bound. None: at a path.
    pub real: Option<SocketAddr>,
    /// Where it is a Unix socket that fived has bound.
    pub file: Option<Box<SocketFile>>,
    pub socket: OwnedFd,
    /// None: it is not watched yet.
    pub token: Option<usize>,
    /// Where the program gets the socket itself.
    pub wait: Option<Wait>,
    /// There, the socket as it was before any program had it.
    pub made: Option<AsMade>,
    /// A program has made it useless, and no other could be bound in its place yet.
    pub useless: bool,
    /// Another socket has its path: no client comes there any more.
    replaced: bool,
}

/// Listeners that nobody uses yet.
#[derive(Default)]
pub struct Fresh(Vec<PortListener>);

/// See the module.
#[derive(Default)]
pub struct PortListeners {
    now: Vec<PortListener>,
    /// Those that the current table does not have, and a program has.
    kept: Vec<PortListener>,
    /// Those that nobody needs, until they are closed.
    gone: Vec<PortListener>,
    /// The places in `now`, by tokens.
    places: HashMap<usize, usize>,
    /// Those that the service manager has bound.
    pub given: GivenPaths,
}

impl PortListeners {
    /// Binds those that are not bound already. `beside`: other listeners of this process.
    pub fn bind(&self, wanted: &[Port], beside: &[(SocketAddr, BorrowedFd)]) -> (Fresh, Unbound) {
        let claimed = self.claimed(wanted);
        let mut own: HashMap<u16, Vec<BorrowedFd>> = HashMap::new();
        for (address, fd) in self.shareable(&claimed).chain(beside.iter().copied()) {
            own.entry(address.port()).or_default().push(fd);
        }
        let (mut fresh, mut unbound) = (Vec::<PortListener>::new(), Unbound::default());
        let mut new: HashMap<u16, Vec<usize>> = HashMap::new();
        for (port, _) in wanted.iter().zip(&claimed).filter(|(_, at)| at.is_none()) {
            let At::Port(at) = &port.at else {
                fresh.extend(unbound.or_note(port, self.at_path(port, wanted)));
                continue;
            };
            let number = at.address.port();
            let on_port = new.get(&number).into_iter().flatten();
            let mut beside = own.get(&number).cloned().unwrap_or_default();
            beside.extend(on_port.map(|n| fresh[*n].socket.as_fd()));
            let made = PortListener::bind(port, at, &beside);
            let made = made.map_err(|e| self.why(port, at, &e, &claimed));
            if let Some((l, real)) = unbound.or_note(port, made) {
                new.entry(real.port()).or_default().push(fresh.len());
                fresh.push(l);
            }
        }
        (Fresh(fresh), unbound)
    }

    /// A Unix socket. One of fived's own that has the path already, and that this port cannot go on
    /// using, makes way for it.
    fn at_path(&self, port: &Port, wanted: &[Port]) -> Result<PortListener, String> {
        let there = port.at.path().and_then(|w| unix_listener::identity_at(&w.path));
        let all = self.now.iter().chain(&self.kept).filter_map(|l| l.file.as_deref());
        let own: Vec<_> = all.filter(|file| Some(file.identity()) == there).collect();
        let (socket, file) = self.given.listener(port, &own, wanted)?;
        Ok(PortListener {
            port: port.clone(),
            real: None,
            file: file.map(Box::new),
            token: None,
            wait: port.socket.waits().then(Wait::new),
            made: None,
            socket,
            useless: false,
            replaced: false,
        })
    }

    /// For each port the place of the listener that is bound to it already, among those of now and
    /// then those that are kept: one port's each.
    fn claimed(&self, wanted: &[Port]) -> Vec<Option<usize>> {
        let all = self.now.iter().chain(&self.kept).enumerate().filter(|(_, l)| !l.replaced);
        claims::of(all.map(|(n, l)| (n, l.as_bound())).collect(), wanted)
    }

    /// The listeners beside which others may be bound: not those that a program has and no port
    /// claims.
    fn shareable(
        &self,
        claimed: &[Option<usize>],
    ) -> impl Iterator<Item = (SocketAddr, BorrowedFd<'_>)> {
        let claimed: HashSet<usize> = claimed.iter().flatten().copied().collect();
        let all = self.now.iter().chain(&self.kept).enumerate();
        let all = all.filter(move |(n, l)| claimed.contains(n) || !l.stays_taken());
        all.filter_map(|(_, l)| l.bound())
    }

    fn why(&self, port: &Port, at: &Wanted, e: &io::Error, claimed: &[Option<usize>]) -> String {
        let (place, word) = (&port.place, port.word());
        let mut line = bind_error::line(place, &word, at.address, e, port.socket.waits());
        let mut all = self.now.iter().chain(&self.kept).enumerate();
        let has = |(n, l): &(usize, &PortListener)| {
            l.stays_taken()
                && l.has_port(at.protocol, at.address.port())
                && !claimed.contains(&Some(*n))
        };
        if e.kind() == ErrorKind::AddrInUse
            && let Some((_, l)) = all.find(has)
        {
            line = format!(
                "{place}: {word}: {}: the program that was started for {} has this port until it ends; end it, and reload again",
                at.address, l.port.place
            );
        }
        line
    }

    /// The one that a connection whose own address is this has come to, if its service gets
    /// connections. The kernel chooses likewise among listeners that meet.
    pub fn at(&self, real: SocketAddr) -> Option<&PortListener> {
        let fits = |l: &&PortListener| match l.real {
            Some(at) if at.port() == real.port() && l.port.socket == ProgramSocket::Connection => {
                match at.ip() {
                    ip if ip == real.ip() => 3,
                    ip if ip.is_unspecified() && ip.is_ipv4() == real.is_ipv4() => 2,
                    ip if ip.is_unspecified() && ip.is_ipv6() => 1,
                    _ => 0,
                }
            }
            _ => 0,
        };
        self.now.iter().filter(|l| fits(l) > 0).max_by_key(fits)
    }

    /// The listeners where clients may wait whom these ports have no use for, by their tokens. For
    /// a client a program may be started that keeps the port: not where a new listener is.
    pub fn given_up(&self, wanted: &[Port], fresh: &Fresh) -> Vec<usize> {
        let claimed: HashSet<usize> = self.claimed(wanted).into_iter().flatten().collect();
        let new: HashSet<u16> = fresh.0.iter().filter_map(|l| Some(l.real?.port())).collect();
        let given_up = self.now.iter().enumerate().filter(|(n, l)| {
            !claimed.contains(n)
                && (l.wait.is_none() || l.real.is_none_or(|real| !new.contains(&real.port())))
        });
        given_up.filter_map(|(_, l)| l.token).collect()
    }

    /// These ports and no others, from now on. Returns where it listens anew.
    pub fn adopt(&mut self, wanted: &[Port], Fresh(mut fresh): Fresh) -> Vec<String> {
        let (addresses, claimed) =
            (fresh.iter().map(PortListener::name).collect(), self.claimed(wanted));
        let mut old: Vec<_> = self.now.drain(..).chain(self.kept.drain(..)).map(Some).collect();
        for (port, at) in wanted.iter().zip(claimed) {
            if let Some(mut l) = at.and_then(|at| old[at].take()) {
                l.become_like(port);
                self.now.push(l);
            }
        }
        fresh.iter_mut().filter_map(|l| l.file.as_mut()).for_each(|file| file.keep());
        self.now.append(&mut fresh);
        self.given.adopt(wanted);
        let (kept, gone): (Vec<_>, Vec<_>) =
            old.into_iter().flatten().partition(PortListener::is_taken);
        (self.kept, self.gone) = (kept, gone);
        let now: HashSet<&str> = self.now.iter().filter_map(|l| l.port.path()).collect();
        for l in self.kept.iter_mut().filter(|l| !l.replaced) {
            if let Some(path) = l.port.path().filter(|path| now.contains(path)) {
                log::warn(&format!("{}: port: {path}: {REPLACED}", l.port.place));
                l.replaced = true;
            }
        }
        addresses
    }

    /// Watches those that are new, and closes those that nobody needs.
    pub fn watch(&mut self, cx: &mut Context) -> io::Result<()> {
        for l in self.gone.drain(..).filter(PortListener::is_watched) {
            // A program may have it still, so that closing it does not end this.
            cx.registry().deregister(&mut SourceFd(&l.socket.as_raw_fd()))?;
        }
        for l in self.now.iter_mut().filter(|l| l.token.is_none()) {
            l.token = Some(cx.new_token());
            l.watch(cx.registry())?;
        }
        let now = self.now.iter().enumerate();
        self.places = now.filter_map(|(n, l)| Some((l.token?, n))).collect();
        Ok(())
    }

    pub fn has(&self, token: usize) -> bool {
        self.places.contains_key(&token)
    }

    /// Is it one where fived itself listens?
    pub fn is_own(&self, token: usize) -> bool {
        let at = self.places.get(&token).and_then(|at| self.now.get(*at));
        at.is_some_and(|l| l.port.service.is_none())
    }

    pub fn get_mut(&mut self, token: usize) -> Option<&mut PortListener> {
        self.now.get_mut(*self.places.get(&token)?)
    }

    /// A program has ended: if its listener was kept for it alone, nobody needs it now.
    pub fn forget_kept(&mut self, token: usize) {
        self.kept.retain(|l| l.token != Some(token));
    }

    /// Binds another socket in place of one that a program has made useless.
    pub fn bind_again(&mut self, token: usize) -> io::Result<()> {
        let Some(l) = self.places.get(&token).and_then(|at| self.now.get(*at)) else {
            return Ok(());
        };
        let (Some(wanted), Some(real)) = (l.port.at.port(), l.real) else { return Ok(()) };
        let same = |other: &&PortListener| other.has_port(wanted.protocol, real.port());
        let own: Vec<_> =
            self.now.iter().chain(&self.kept).filter(same).map(|l| l.socket.as_fd()).collect();
        let address = SocketAddr::new(wanted.address.ip(), real.port());
        let socket = port::listen_again(&Wanted { address, ..*wanted }, &own)?;
        let made = AsMade::of(socket.as_fd());
        if let Some(l) = self.get_mut(token) {
            (l.socket, l.made, l.useless) = (socket, Some(made), false);
        }
        Ok(())
    }

    /// Its listeners beside which others may be bound, for a table with these ports, and those that
    /// are bound and not used yet.
    pub fn with<'a>(
        &'a self,
        wanted: &[Port],
        fresh: &'a Fresh,
    ) -> Vec<(SocketAddr, BorrowedFd<'a>)> {
        let new = fresh.0.iter().filter_map(PortListener::bound);
        self.shareable(&self.claimed(wanted)).chain(new).collect()
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.now.iter().map(PortListener::name)
    }

    pub fn close(&mut self) {
        *self = PortListeners::default();
    }
}

impl PortListener {
    fn bind(
        port: &Port,
        at: &Wanted,
        beside: &[BorrowedFd],
    ) -> io::Result<(PortListener, SocketAddr)> {
        let socket = port::listen(at, beside)?;
        let real = socket::local(socket.as_fd())?;
        let waits = port.socket.waits();
        let listener = PortListener {
            port: port.clone(),
            real: Some(real),
            file: None,
            token: None,
            wait: waits.then(Wait::new),
            made: waits.then(|| AsMade::of(socket.as_fd())),
            socket,
            useless: false,
            replaced: false,
        };
        Ok((listener, real))
    }

    /// As the log names it.
    pub fn name(&self) -> String {
        match (&self.port.at, self.real) {
            (At::Path(wanted), _) => wanted.path.clone(),
            (At::Port(_), Some(real)) => real.to_string(),
            (At::Port(wanted), None) => wanted.address.to_string(),
        }
    }

    fn as_bound(&self) -> Bound<'_> {
        // Without a file of ours it is the service manager's.
        let theirs = || self.port.path().and_then(unix_listener::identity_at);
        let file = self.file.as_ref().map(|file| file.identity()).or_else(theirs);
        Bound { port: &self.port, real: self.real, file }
    }

    /// Where it is bound, if not at a path.
    fn bound(&self) -> Option<(SocketAddr, BorrowedFd<'_>)> {
        Some((self.real?, self.socket.as_fd()))
    }

    fn has_port(&self, protocol: Protocol, port: u16) -> bool {
        self.real.is_some_and(|real| real.port() == port)
            && self.port.at.port().is_some_and(|w| w.protocol == protocol)
    }

    /// From now on it is this port's, which has the same key.
    fn become_like(&mut self, port: &Port) {
        let backlog = |at: &At| match at {
            At::Port(wanted) => wanted.backlog,
            At::Path(wanted) => wanted.backlog,
        };
        let (old, new) = (backlog(&self.port.at), backlog(&port.at));
        if old != new {
            // Else it stays as it was.
            let _ = port::set_backlog(self.socket.as_fd(), new);
        }
        if let (Some(file), At::Path(old), At::Path(new)) = (&self.file, &self.port.at, &port.at)
            && (old.mode, old.owner) != (new.mode, new.owner)
            && let Err(e) = file.change(new)
        {
            log::warn(&format!("{}: {}: {e}", port.place, new.path));
        }
        self.port = port.clone();
    }

    /// The next client. None: it has gone already.
    pub fn accept(&self) -> io::Result<(Shared, Option<Addresses>)> {
        if self.real.is_none() {
            let client = Shared::from(local::accept(self.socket.as_fd())?);
            let addresses = Addresses::of_unix(client.as_fd()).ok();
            return Ok((client, addresses));
        }
        let (client, peer) = socket::accept(self.socket.as_fd())?;
        let local = match self.real {
            // It has come to no other address.
            Some(real) if real.is_ipv4() && !real.ip().is_unspecified() => Some(real),
            _ => socket::local(client.as_fd()).ok(),
        };
        Ok((client, local.map(|local| Addresses::Internet { peer, local })))
    }

    /// Has a program the socket, or is it about to get it?
    fn is_taken(&self) -> bool {
        self.wait.as_ref().is_some_and(|w| w.state == State::Taken)
    }

    /// The same of a program that keeps it at a reload without its row: no internal service.
    fn stays_taken(&self) -> bool {
        self.is_taken() && self.wait.as_ref().is_some_and(|w| !w.is_internal)
    }

    fn is_watched(&self) -> bool {
        self.token.is_some() && self.wait.as_ref().is_none_or(|w| w.state == State::Watched)
    }

    pub fn has_datagrams(&self) -> bool {
        self.port.socket == ProgramSocket::Datagrams
    }

    pub fn watch(&self, registry: &Registry) -> io::Result<()> {
        let (fd, Some(token)) = (self.socket.as_raw_fd(), self.token) else { return Ok(()) };
        registry.register(&mut SourceFd(&fd), Token(token), Interest::READABLE)
    }
}
