//! The listening sockets of fived's own port. The parent keeps them, so that no client is refused
//! while a net process is replaced.
//!
//! | file | noun |
//! |---|---|
//! | `listener` | a socket that net processes have, too |
//! | `tls_ports` | those of services' own ports where TLS is expected |
//! | `bound` | all that a configuration listens on, bound |
//! | `bind_error` | why an address could not be |

pub mod bind_error;
pub mod bound;
mod listener;
mod tls_ports;

use super::client_sockets::ClientSockets;
use crate::policy::LISTEN_MAX;
use crate::sys::port::{self, Protocol, Wanted};
use crate::sys::{origin_mark, shared_port, socket};
use bind_error::Kept;
use listener::Listener;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tls_ports::TlsPorts;

/// The address in the configuration or after -l. None: the service manager handed it over.
type OwnListener = Listener<Option<SocketAddr>>;

/// Sockets that are bound, and that nobody uses yet.
pub struct Fresh(Vec<OwnListener>);

#[derive(Default)]
pub struct Listeners {
    now: Vec<OwnListener>,
    /// Those that the current table does not have, while a net process of an older table may still
    /// have them. Their addresses are not free, but a reload can take them back.
    given_up: Vec<OwnListener>,
    /// Those at services' own ports where TLS is expected.
    pub tls: TlsPorts,
    /// Between whom the connections of those are that come there.
    pub clients: ClientSockets,
}

impl Listeners {
    /// Takes the sockets that the service manager has bound (sd_listen_fds(3)).
    pub fn inherited(sockets: Vec<OwnedFd>) -> Result<Listeners, String> {
        let each = |socket: OwnedFd| {
            let address = socket::local(socket.as_fd())
                .map_err(|e| format!("LISTEN_FDS: not an internet socket: {e}"))?;
            socket::set_nonblocking(socket.as_fd())
                .and_then(|()| socket::set_keepalive(socket.as_fd()))
                .map_err(|e| format!("LISTEN_FDS: {e}"))?;
            origin_mark::clear(socket.as_fd());
            Ok(Listener::new(None, address, socket))
        };
        let networks = sockets.iter().filter_map(|s| socket::network(s.as_fd()));
        let clients = ClientSockets::new(networks);
        let now = sockets.into_iter().map(each).collect::<Result<_, String>>()?;
        Ok(Listeners { now, clients, ..Listeners::default() })
    }

    /// Those that the service manager has handed over.
    pub fn handed(&self) -> Vec<Wanted> {
        let handed = self.now.iter().filter(|l| l.wanted.is_none());
        handed.map(|l| port::of(l.address, l.socket())).collect()
    }

    /// Did the service manager hand them over?
    pub fn are_handed(&self) -> bool {
        self.now.iter().any(|l| l.wanted.is_none())
    }

    /// Listens on these addresses where it does not yet; nothing uses the sockets until
    /// [`Listeners::adopt`]. `place`: where the addresses are given. `beside`: other listeners of
    /// the parent; `kept`: what programs have. Err: what could not be bound, one line each.
    pub fn bind(
        &self,
        wanted: &[SocketAddr],
        place: &str,
        mptcp: bool,
        beside: &[(SocketAddr, BorrowedFd)],
        kept: &Kept,
    ) -> Result<Fresh, Vec<String>> {
        if self.are_handed() {
            return Ok(Fresh(Vec::new()));
        }
        if wanted.len() > LISTEN_MAX {
            let n = wanted.len();
            return Err(vec![format!(
                "{place}: listen: expected at most {LISTEN_MAX} addresses, found {n}"
            )]);
        }
        let (mut fresh, mut wrong) = (Vec::<OwnListener>::new(), Vec::new());
        for &address in wanted {
            if self.is_served(address, wanted, &fresh) {
                continue;
            }
            let new = fresh.iter().map(|l| (l.address, l.socket()));
            let beside: Vec<_> = beside.iter().copied().chain(new).collect();
            let made = self.listen(address, mptcp, &beside).and_then(|socket| {
                let real = socket::local(socket.as_fd())?;
                Ok(Listener::new(Some(address), real, socket))
            });
            match made {
                Ok(l) => fresh.push(l),
                Err(e) => {
                    wrong.push(kept.line(place, "listen", Protocol::Tcp, address, &e, false));
                }
            }
        }
        if wrong.is_empty() { Ok(Fresh(fresh)) } else { Err(wrong) }
    }

    /// Has this address, one of those `wanted`, a listener already, or does another's take its
    /// clients? A free port (0) was chosen at the start, and a reload does not choose another.
    fn is_served(&self, address: SocketAddr, wanted: &[SocketAddr], fresh: &[OwnListener]) -> bool {
        let is_its = |l: &OwnListener| l.wanted == Some(address);
        if self.now.iter().chain(&self.given_up).any(is_its) {
            return true;
        }
        // `[::]` includes it. Many configurations name both, as sshd_config does.
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        let included = address.ip() == Ipv4Addr::UNSPECIFIED && wanted.contains(&both);
        address.port() != 0 && (included || fresh.iter().any(is_its))
    }

    /// Listens on these addresses and no others, from now on. Returns those that the table before
    /// did not have, with their real ports.
    pub fn adopt(&mut self, wanted: &[SocketAddr], Fresh(mut fresh): Fresh) -> Vec<SocketAddr> {
        if self.are_handed() {
            return Vec::new();
        }
        let is_wanted = |l: &OwnListener| l.wanted.is_none_or(|w| wanted.contains(&w));
        let new = fresh.iter().chain(&self.given_up).filter(|l| is_wanted(l));
        let new = new.map(|l| l.address).collect();
        self.now.append(&mut fresh);
        self.now.append(&mut self.given_up);
        (self.now, self.given_up) = std::mem::take(&mut self.now).into_iter().partition(is_wanted);
        new
    }

    /// Makes a listening socket. If another listener of the parent has the same port, for one
    /// address or for all, this one is bound beside it.
    fn listen(
        &self,
        address: SocketAddr,
        mptcp: bool,
        beside: &[(SocketAddr, BorrowedFd)],
    ) -> io::Result<OwnedFd> {
        let own: Vec<_> = self
            .now
            .iter()
            .chain(&self.given_up)
            .map(|l| (l.address, l.socket()))
            .chain(self.tls.all())
            .chain(beside.iter().copied())
            .filter(|(a, _)| a.port() == address.port())
            .map(|(_, fd)| fd)
            .collect();
        match socket::listen(address, mptcp) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && !own.is_empty() => {
                shared_port::listen(address, mptcp, &own)
            }
            made => made,
        }
    }

    /// Undoes what a net process that an attacker controlled can have done to them. Returns what
    /// was wrong or could not be undone, one line each.
    pub fn revive(&mut self, mptcp: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for n in 0..self.now.len() {
            let l = &self.now[n];
            let again = l.is_dead().then(|| self.listen(l.address, mptcp, &[]));
            wrong.extend(self.now[n].revive(again));
        }
        wrong.extend(self.tls.revive());
        wrong
    }

    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.now.iter().map(|l| l.socket())
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.now.iter().map(|l| l.address)
    }

    /// Every listener, also those that were given up and those at services' own ports.
    pub fn all(&self) -> Vec<(SocketAddr, BorrowedFd<'_>)> {
        let own = self.now.iter().chain(&self.given_up).map(|l| (l.address, l.socket()));
        own.chain(self.tls.all()).collect()
    }

    /// Closes those that were given up. No net process may have one of them any more.
    pub fn close_unused(&mut self) {
        self.given_up.clear();
        self.tls.close_unused();
    }

    pub fn close(&mut self) {
        self.now.clear();
        self.tls.close();
        self.close_unused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_was_shut_down_listens_again() {
        for mptcp in [false, true] {
            let mut all = Listeners::default();
            let wanted = [(Ipv4Addr::LOCALHOST, 0).into()];
            let made = all.bind(&wanted, "", mptcp, &[], &Kept::default());
            let fresh = made.unwrap_or_else(|e| panic!("{e:?}"));
            all.adopt(&wanted, fresh);
            let address = all.addresses().next().expect("one");
            assert!(all.revive(mptcp).is_empty());
            // A captured net process holds the same socket.
            socket::shutdown_both(all.now[0].socket()).expect("shutdown");
            assert!(std::net::TcpStream::connect(address).is_err());
            assert_eq!(
                all.revive(mptcp),
                [format!("{address}: a process shut this socket down; fived opens it again")]
            );
            std::net::TcpStream::connect(address).expect("it listens");
        }
    }
}
