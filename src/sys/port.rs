//! Services' own ports: listeners, and sockets of datagrams.

use super::check;
use super::shared_port;
use super::socket::{self, BACKLOG};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a port is of (ip(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As services(5) has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// The socket that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub protocol: Protocol,
    /// `[::]` takes IPv4 too, unless `only_v6`.
    pub address: SocketAddr,
    pub only_v6: bool,
    /// Connections that may wait to be accepted. None: as many as the system allows.
    pub backlog: Option<u32>,
}

impl Wanted {
    /// Are they the same address and port, for one family at least?
    pub fn meets(&self, other: &Wanted) -> bool {
        let both = |w: &Wanted| w.address.ip() == Ipv6Addr::UNSPECIFIED && !w.only_v6;
        let v4_any = |w: &Wanted| w.address.ip() == Ipv4Addr::UNSPECIFIED;
        let any = |a, b| both(a) && v4_any(b);
        self.protocol == other.protocol
            && self.address.port() == other.address.port()
            && (self.address == other.address || any(self, other) || any(other, self))
    }
}

/// What a listener of TCP at this address is bound to.
pub fn of(address: SocketAddr, socket: BorrowedFd) -> Wanted {
    let only_v6 = getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or(false);
    Wanted { protocol: Protocol::Tcp, address, only_v6, backlog: None }
}

/// A socket at that port: a listener that does not block, or one of datagrams. `own`: this
/// process's listeners on the same port, for all addresses or for one; the port is shared with them
/// (SO_REUSEPORT for this moment, socket(7)).
pub fn listen(wanted: &Wanted, own: &[BorrowedFd]) -> io::Result<OwnedFd> {
    match listen_on(wanted, false) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && !own.is_empty() => {
            listen_again(wanted, own)
        }
        made => made,
    }
}

/// Binds a port again, in place of a socket that has become useless while others may still have it.
/// `own`: that socket, and this process's others on the same port.
pub fn listen_again(wanted: &Wanted, own: &[BorrowedFd]) -> io::Result<OwnedFd> {
    let wanted = *wanted;
    shared_port::bind(wanted.address.port(), own, move || listen_on(&wanted, true))
}

fn listen_on(wanted: &Wanted, shared: bool) -> io::Result<OwnedFd> {
    let any = wanted.address.is_ipv6() && wanted.address.ip().is_unspecified();
    match listen_at(wanted, wanted.address, shared) {
        // A system without IPv6.
        Err(e)
            if any
                && !wanted.only_v6
                && matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            listen_at(wanted, (Ipv4Addr::UNSPECIFIED, wanted.address.port()).into(), shared)
        }
        made => made,
    }
}

fn listen_at(wanted: &Wanted, address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let fd = match wanted.protocol {
        Protocol::Tcp => socket::stream(address, false)?,
        Protocol::Udp => socket::datagram(address)?,
    };
    if wanted.protocol == Protocol::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if shared {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &wanted.only_v6)?;
    }
    socket::bind(&fd, address)?;
    if wanted.protocol == Protocol::Tcp {
        set_backlog(fd.as_fd(), wanted.backlog)?;
    }
    Ok(fd)
}

/// Makes the socket listen. If it does already, only the backlog changes: who waits there stays
/// (listen(2)).
pub fn set_backlog(fd: BorrowedFd, backlog: Option<u32>) -> io::Result<()> {
    let backlog = backlog.map_or(BACKLOG, |n| i32::try_from(n).unwrap_or(i32::MAX));
    // SAFETY: no memory is handed over.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// The port of a name in services(5); `protocol`: `tcp` or `udp`. For a process of one thread.
pub fn named(name: &str, protocol: &str) -> Option<u16> {
    let (name, protocol) = (CString::new(name).ok()?, CString::new(protocol).ok()?);
    // SAFETY: two C strings are read; what is returned is the C library's, and read at once.
    unsafe {
        let found = libc::getservbyname(name.as_ptr(), protocol.as_ptr());
        found.as_ref().map(|s| u16::from_be(s.s_port as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_numbers() {
        if std::path::Path::new("/etc/services").exists() {
            assert_eq!(named("ssh", "tcp"), Some(22));
        }
        assert_eq!(named("no such service", "tcp"), None);
    }
}
