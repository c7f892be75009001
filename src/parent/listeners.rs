//! The listening sockets: they are the parent's, so that no client is refused while a net process is replaced.

use crate::policy::LISTEN_MAX;
use crate::sys::socket;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

struct Listener {
    /// What was asked for; None: it was handed to us (systemd).
    wanted: Option<SocketAddr>,
    address: SocketAddr,
    socket: OwnedFd,
}

#[derive(Default)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Sockets that somebody else has bound (sd_listen_fds(3)).
    pub fn inherited(sockets: Vec<OwnedFd>) -> Result<Listeners, String> {
        let each = |socket: OwnedFd| {
            let address = socket::local(socket.as_fd()).map_err(|e| format!("LISTEN_FDS: not an internet socket: {e}"))?;
            socket::set_nonblocking(socket.as_fd()).map_err(|e| format!("LISTEN_FDS: {e}"))?;
            Ok(Listener { wanted: None, address, socket })
        };
        Ok(Listeners(sockets.into_iter().map(each).collect::<Result<_, String>>()?))
    }

    /// These addresses and no others: those that are bound already stay as they are. Err: nothing has changed.
    pub fn rebound(&mut self, wanted: &[SocketAddr], mptcp: bool) -> Result<(), String> {
        if self.0.iter().any(|l| l.wanted.is_none()) {
            return Ok(());
        }
        if wanted.len() > LISTEN_MAX {
            return Err(format!("{} addresses to listen on: {LISTEN_MAX} are the most", wanted.len()));
        }
        let mut fresh = Vec::new();
        for &address in wanted {
            if self.0.iter().chain(&fresh).any(|l| l.wanted == Some(address) && address.port() != 0) {
                continue;
            }
            // Port 0 was answered at the start: a reload does not move it.
            if address.port() == 0 && self.0.iter().any(|l| l.wanted == Some(address)) {
                continue;
            }
            // `[::]` takes it too; sshd_config names both.
            let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
            if address.ip() == Ipv4Addr::UNSPECIFIED && wanted.contains(&both) && address.port() != 0 {
                continue;
            }
            let socket = self.listen(address, mptcp).map_err(|e| format!("{address}: {e}"))?;
            let real = socket::local(socket.as_fd()).map_err(|e| format!("{address}: {e}"))?;
            fresh.push(Listener { wanted: Some(address), address: real, socket });
        }
        self.0.retain(|l| l.wanted.is_none_or(|w| wanted.contains(&w)));
        self.0.append(&mut fresh);
        Ok(())
    }

    /// Where a listener of ours has the port, for all addresses or for one, the new one comes beside it.
    fn listen(&self, address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
        let own: Vec<_> = self.0.iter().filter(|l| l.address.port() == address.port()).map(|l| l.socket.as_fd()).collect();
        match socket::listen(address, mptcp) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && !own.is_empty() => socket::listen_beside(address, mptcp, &own),
            made => made,
        }
    }

    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|l| l.socket.as_fd())
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|l| l.address)
    }

    pub fn close(&mut self) {
        self.0.clear();
    }
}
