//! The socket of a port of a service's own, or of one of fived's own Unix sockets: bound, watched,
//! accepted from.

use super::claims::Claimable;
use super::waits::{Found, State, Wait, look};
use crate::log;
use crate::parent::addresses::Addresses;
use crate::parent::config::row_ports::{At, Port};
use crate::parent::context::{Context, Timer};
use crate::parent::tokens::PortToken;
use crate::policy::{BySource, ProgramSocket, Source};
use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::leftover::AsMade;
use crate::sys::local;
use crate::sys::port::{self, Protocol, Wanted};
use crate::sys::process;
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use crate::sys::unix_listener::{self, SocketFile};
use mio::Interest;
use mio::unix::SourceFd;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Clients that were accepted and wait for their turn, at most; and an eighth of the descriptors
/// that fived may have, where that is less.
const WAITING_MAX: u64 = 4096;
/// Clients that are accepted before one of them is served: the queue of the kernel, where all wait
/// for those who came before them, must not stay long.
const ACCEPTED: usize = 16;

/// When the poll is asked again to watch one that it did not take.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// A client at a port.
pub enum Accepted {
    /// It has its turn.
    Next(Shared, Addresses),
    /// Too many wait, and most of them are of its source: it is not served.
    Lost(Addresses),
}

/// See the module.
pub struct PortListener {
    pub port: Port,
    /// Where it is bound. None: at a path.
    pub real: Option<SocketAddr>,
    /// Where it is a Unix socket that fived has bound.
    pub file: Option<Box<SocketFile>>,
    pub socket: Shared,
    /// Clients that were accepted; their sources take turns.
    waiting: BySource<(Shared, Addresses)>,
    /// One of them that has lost its place.
    displaced: Option<Addresses>,
    /// No client is accepted before those who wait are served, because descriptors are scarce.
    scarce: bool,
    /// None: it is not watched yet.
    pub token: Option<PortToken>,
    /// Where the program gets the socket itself.
    pub wait: Option<Wait>,
    /// There, the socket as it was before any program had it.
    pub made: Option<Arc<AsMade>>,
    /// The poll did not take it.
    unwatched: bool,
    /// What makes the calls on it that a program could make wait.
    pub calls: BoundedCalls,
    pub condition: Condition,
    /// Another socket has its path: no client comes there any more.
    pub replaced: bool,
    /// When a reload began, its path did not lead to its file any more.
    pub lost: bool,
}

/// What its last program has left of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It is as it was made, or a program has it that has not ended.
    Good,
    /// That program has ended, and nobody knows yet what it has left.
    Unexamined,
    /// It cannot be used any more, and no other could be bound in its place yet.
    Useless,
}

impl PortListener {
    pub fn bind(
        port: &Port,
        at: &Wanted,
        beside: &[BorrowedFd],
    ) -> io::Result<(PortListener, SocketAddr)> {
        let socket = port::listen(at, beside)?;
        let real = socket::local(socket.as_fd())?;
        Ok((PortListener::new(port, socket, Some(real), None), real))
    }

    /// A listener, or a socket of datagrams. What clients of a Unix socket have sent to it, and to
    /// connections that nobody has accepted, is closed with it.
    pub fn socket(socket: OwnedFd, real: Option<SocketAddr>) -> Shared {
        let socket = Shared::from(socket).for_no_service();
        if real.is_some() { socket } else { socket.of(Whose::Anybody) }
    }

    /// `real`, `file`: as in [`PortListener`].
    pub fn new(
        port: &Port,
        socket: OwnedFd,
        real: Option<SocketAddr>,
        file: Option<SocketFile>,
    ) -> PortListener {
        let waits = port.socket.waits();
        // fived may still accept at one of the service manager's, which must not block then.
        let is_alone = real.is_some() || file.is_some();
        PortListener {
            port: port.clone(),
            real,
            file: file.map(Box::new),
            token: None,
            wait: waits.then(Wait::new),
            made: (waits && is_alone).then(|| AsMade::of(socket.as_fd()).into()),
            unwatched: false,
            calls: BoundedCalls::default(),
            condition: Condition::Good,
            socket: PortListener::socket(socket, real),
            waiting: BySource::default(),
            displaced: None,
            scarce: false,
            replaced: false,
            lost: false,
        }
    }

    /// It is used from now on.
    pub fn keep(&mut self) {
        if let Some(file) = self.file.as_mut() {
            file.keep();
        }
        if self.wait.is_some() && self.made.is_none() {
            self.made = Some(AsMade::of(self.socket.as_fd()).into());
        }
    }

    /// Looks whether its path still leads to its file, which somebody may have removed.
    pub fn look_for_file(&mut self) {
        let (file, path) = (self.file.as_deref(), self.port.path());
        let is_there = |(file, path): (&SocketFile, _)| {
            unix_listener::identity_at(path) == Some(file.identity())
        };
        self.lost = !file.zip(path).is_none_or(is_there);
    }

    /// Has the service manager bound it? Nobody else can do that again.
    pub fn is_given(&self) -> bool {
        self.real.is_none() && self.file.is_none()
    }

    /// As the log names it.
    pub fn name(&self) -> String {
        let address = match (&self.port.at, self.real) {
            (At::Path(wanted), _) => return wanted.path.clone(),
            (At::Port(_), Some(real)) => real,
            (At::Port(wanted), None) => wanted.address,
        };
        // The same number may be a port of TCP, too.
        let protocol = if self.has_datagrams() { " (udp)" } else { "" };
        format!("{address}{protocol}")
    }

    /// An error of poll, with its name.
    pub fn at(&self, e: io::Error) -> io::Error {
        io::Error::new(e.kind(), format!("{}: poll: {e}", self.name()))
    }

    pub fn claimable(&self) -> Claimable<'_> {
        // Without a file of ours it is the service manager's.
        let theirs = || self.port.path().and_then(unix_listener::identity_at);
        let file = self.file.as_ref().map(|file| file.identity()).or_else(theirs);
        Claimable { port: &self.port, real: self.real, file, lost: self.lost }
    }

    /// Where it is bound, if not at a path.
    pub fn bound(&self) -> Option<(SocketAddr, BorrowedFd<'_>)> {
        Some((self.real?, self.socket.as_fd()))
    }

    pub fn has_port(&self, protocol: Protocol, port: u16) -> bool {
        self.real.is_some_and(|real| real.port() == port)
            && self.port.at.port().is_some_and(|w| w.protocol == protocol)
    }

    /// From now on it is this port's, which has the same key.
    pub fn become_like(&mut self, port: &Port) {
        let backlog = |at: &At| match at {
            At::Port(wanted) => wanted.backlog,
            At::Path(wanted) => wanted.backlog,
        };
        let (old, new) = (backlog(&self.port.at), backlog(&port.at));
        if old != new {
            let set = move |socket: BorrowedFd| port::set_backlog(socket, new);
            // Else it stays as it was.
            let _ = look(self.socket.as_fd(), &mut self.calls, set);
        }
        if let (Some(file), At::Path(old), At::Path(new)) = (&self.file, &self.port.at, &port.at)
            && (old.mode, old.owner) != (new.mode, new.owner)
            && let Err(e) = file.change(new)
        {
            log::warn(&format!("{}: {}: {e}", port.place, new.path));
        }
        self.port = port.clone();
    }

    /// The next client. `WouldBlock`: there is none, and the poll reports the next one. Other
    /// errors: there may be one later, of which the poll reports nothing.
    pub fn next_client(&mut self, cx: &mut Context) -> io::Result<Accepted> {
        if let Some(addresses) = self.displaced.take() {
            return Ok(Accepted::Lost(addresses));
        }
        self.scarce &= !self.waiting.is_empty();
        let mut none = ErrorKind::Interrupted;
        let most = WAITING_MAX.min(process::nofile() / 8) as usize;
        // What the service manager has bound another fived gets after this one, with all who wait.
        let ahead = if self.is_given() { 1 } else { ACCEPTED };
        for _ in 0..ahead {
            if self.scarce {
                break;
            }
            let (client, addresses) = match self.accept() {
                Ok((client, Some(addresses))) => (client, addresses),
                // It has gone already.
                Ok((_, None)) => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    none = ErrorKind::WouldBlock;
                    break;
                }
                Err(e) if socket::is_scarcity(&e) && self.waiting.is_empty() => return Err(e),
                Err(e) if socket::is_scarcity(&e) => {
                    self.scarce = true;
                    break;
                }
                // Errors of one connection (accept(2)).
                Err(_) => continue,
            };
            self.scarce = cx.is_scarce(&client);
            let source = Source::of(addresses.peer());
            if let Some((_, addresses)) = self.waiting.add_within(most, source, (client, addresses))
            {
                self.displaced = Some(addresses);
                break;
            }
        }
        let (client, addresses) = self.waiting.take_next().ok_or(none)?;
        Ok(Accepted::Next(client, addresses))
    }

    /// Accepts a client. None: it has gone already.
    fn accept(&self) -> io::Result<(Shared, Option<Addresses>)> {
        if self.real.is_none() {
            let client = Shared::from(local::accept(self.socket.as_fd())?).of(Whose::Anybody);
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

    /// Looks at what a program that has ended has left, and undoes that (the inner Err: what cannot
    /// be undone, so that the socket is of no use). Errors: those of [`look`].
    pub fn examine(&mut self) -> io::Result<(Found, Result<(), &'static str>)> {
        let (socket, made) = (self.socket.as_fd(), self.made.clone());
        let port = self.real.map_or(0, |a| a.port());
        let queue = self.wait.as_ref().and_then(Wait::queue);
        let all_wait = self.wait.as_mut().is_some_and(|w| w.all_wait(socket, port));
        look(socket, &mut self.calls, move |socket| {
            let found = Found::at(socket, queue.as_ref(), all_wait);
            (found, made.map_or(Ok(()), |made| made.put_back(socket)))
        })
    }

    /// Has a program the socket, or is it about to get it?
    pub fn is_taken(&self) -> bool {
        self.wait.as_ref().is_some_and(|w| w.state == State::Taken)
    }

    /// Has a program the socket that keeps it at a reload without its row? No internal service
    /// does.
    pub fn stays_taken(&self) -> bool {
        self.is_taken() && self.wait.as_ref().is_some_and(|w| !w.is_internal)
    }

    pub fn is_watched(&self) -> bool {
        self.token.is_some()
            && !self.unwatched
            && self.wait.as_ref().is_none_or(|w| w.state == State::Watched)
    }

    pub fn has_datagrams(&self) -> bool {
        self.port.socket == ProgramSocket::Datagrams
    }

    /// Where that fails, for want of memory say, it is tried again after a pause.
    pub fn watch(&mut self, cx: &mut Context) -> io::Result<()> {
        let (fd, Some(token)) = (self.socket.as_raw_fd(), self.token) else { return Ok(()) };
        let done = cx.registry().register(&mut SourceFd(&fd), token.into(), Interest::READABLE);
        self.unwatched = done.is_err();
        if self.unwatched {
            if let Some(wait) = self.wait.as_mut() {
                wait.state = State::Paused;
            }
            cx.after(WATCH_AGAIN, Timer::PortAgain { token });
        }
        done
    }

    /// Watches it; the first of several errors is logged.
    pub fn watch_again(&mut self, cx: &mut Context) {
        let known = self.unwatched;
        if let Err(e) = self.watch(cx)
            && !known
        {
            log::warn(&format!("{}; fived tries again every second", self.at(e)));
        }
    }

    /// Did the poll not take it?
    pub fn is_unwatched(&self) -> bool {
        self.unwatched
    }

    /// From now on a program has the socket, or is about to get it: it is not watched.
    pub fn give_away(&mut self, cx: &Context) {
        let before = self.wait.as_mut().map(|w| std::mem::replace(&mut w.state, State::Taken));
        let fd = self.socket.as_raw_fd();
        if before == Some(State::Watched)
            && let Err(e) = cx.registry().deregister(&mut SourceFd(&fd))
        {
            log::warn(&format!("{}: poll: {e}", self.name()));
        }
    }

    /// There was no answer in time: it is looked at again after a pause.
    pub fn look_again(&mut self, cx: &mut Context, e: &io::Error) {
        let (Some(wait), Some(token)) = (self.wait.as_mut(), self.token) else { return };
        let (pause, warns) = wait.unexamined(cx.now);
        if warns {
            log::warn(&format!("{}: port: {}: {e}", self.port.place, self.name()));
        }
        cx.after(pause, Timer::PortAgain { token });
    }
}
