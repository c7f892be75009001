//! The listening sockets of services' own ports where TLS is expected. The parent binds and keeps
//! them, and net accepts from them, because the handshake is bytes of strangers.

use super::bind_error::Kept;
use super::listener::Listener;
use crate::parent::config::row_ports::TlsPort;
use crate::sys::{port, socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// See the module.
#[derive(Default)]
pub struct TlsPorts {
    /// In the order of the configuration's ports, which is what net knows them by.
    now: Vec<Listener<TlsPort>>,
    /// Those that the current table does not have, while a net process of an older table may still
    /// have them. A reload can take them back.
    given_up: Vec<Listener<TlsPort>>,
}

/// Listeners that are bound, and that nobody uses yet.
pub struct Fresh(Vec<Listener<TlsPort>>);

impl Fresh {
    pub fn all(&self) -> Vec<(SocketAddr, BorrowedFd<'_>)> {
        self.0.iter().map(|l| (l.address, l.socket())).collect()
    }
}

impl TlsPorts {
    /// Binds those that are not bound already. `beside`: other listeners of this process; `kept`:
    /// what programs have. Returns what could not be bound too, one line each.
    pub fn bind(
        &self,
        wanted: &[TlsPort],
        beside: &[(SocketAddr, BorrowedFd)],
        kept: &Kept,
    ) -> (Fresh, Vec<String>) {
        let (mut fresh, mut wrong) = (Vec::<Listener<TlsPort>>::new(), Vec::new());
        for (wanted, at) in wanted.iter().zip(self.bound(wanted)) {
            if at.is_none() {
                let new = fresh.iter().map(|l| (l.address, l.socket()));
                let own = self.all().chain(new).chain(beside.iter().copied());
                match listen(wanted, own) {
                    Ok(made) => fresh.push(made),
                    Err(e) => {
                        let (at, to) = (&wanted.place, &wanted.wanted);
                        let (protocol, address) = (to.protocol, to.address);
                        wrong.push(kept.line(at, "tls_port", protocol, address, &e, false));
                    }
                }
            }
        }
        (Fresh(fresh), wrong)
    }

    /// For each port the index of the listener that is bound to it already: those of now come
    /// first, then those that were given up. No listener is used for two ports.
    fn bound(&self, wanted: &[TlsPort]) -> Vec<Option<usize>> {
        let listeners = self.now.iter().chain(&self.given_up);
        let mut unclaimed: Vec<_> = listeners.map(|l| Some(l.wanted.key())).collect();
        let claim = |wanted: &TlsPort| {
            let at = unclaimed.iter().position(|k| *k == Some(wanted.key()))?;
            unclaimed[at] = None;
            Some(at)
        };
        wanted.iter().map(claim).collect()
    }

    /// From now on these ports are the current ones. Returns the addresses at which nobody listened
    /// before.
    pub fn adopt(&mut self, wanted: &[TlsPort], Fresh(fresh): Fresh) -> Vec<SocketAddr> {
        let addresses = fresh.iter().map(|l| l.address).collect();
        let bound = self.bound(wanted);
        let listeners = self.now.drain(..).chain(self.given_up.drain(..));
        let mut old: Vec<_> = listeners.map(Some).collect();
        let mut fresh = fresh.into_iter();
        for (wanted, at) in wanted.iter().zip(bound) {
            let kept = at.and_then(|at| old[at].take());
            let Some(mut l) = kept.or_else(|| fresh.next()) else { continue };
            if l.wanted.wanted.backlog != wanted.wanted.backlog {
                // After an error the listener keeps its old backlog, and serves all the same.
                let _ = port::set_backlog(l.socket(), wanted.wanted.backlog);
            }
            l.wanted = wanted.clone();
            self.now.push(l);
        }
        self.given_up = old.into_iter().flatten().collect();
        addresses
    }

    /// As [`Listeners::revive`](crate::parent::listeners::Listeners::revive).
    pub fn revive(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for n in 0..self.now.len() {
            let l = &self.now[n];
            let again = l.is_dead().then(|| {
                let mut wanted = l.wanted.wanted;
                // For port 0 the system has chosen a port, and clients know that one.
                wanted.address = l.address;
                port::listen(&wanted, &on_port(l.address.port(), self.all()))
            });
            wrong.extend(self.now[n].revive(again));
        }
        wrong
    }

    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.now.iter().map(Listener::socket)
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.now.iter().map(|l| l.address)
    }

    /// Every listener, also those that were given up.
    pub fn all(&self) -> impl Iterator<Item = (SocketAddr, BorrowedFd<'_>)> {
        self.now.iter().chain(&self.given_up).map(|l| (l.address, l.socket()))
    }

    /// Closes those that were given up. No net process may have one of them any more.
    pub fn close_unused(&mut self) {
        self.given_up.clear();
    }

    pub fn close(&mut self) {
        self.now.clear();
        self.given_up.clear();
    }
}

fn listen<'a>(
    wanted: &TlsPort,
    own: impl Iterator<Item = (SocketAddr, BorrowedFd<'a>)>,
) -> io::Result<Listener<TlsPort>> {
    let own = on_port(wanted.wanted.address.port(), own);
    let socket = port::listen(&wanted.wanted, &own)?;
    let address = socket::local(socket.as_fd())?;
    Ok(Listener::new(wanted.clone(), address, socket))
}

/// Those on this port.
fn on_port<'a>(
    number: u16,
    all: impl Iterator<Item = (SocketAddr, BorrowedFd<'a>)>,
) -> Vec<BorrowedFd<'a>> {
    all.filter(|(address, _)| address.port() == number).map(|(_, fd)| fd).collect()
}
