//! Listeners, and the connections that they accept.

use super::internet::{address_from, bind, canonical, stream};
use crate::sys::check;
use crate::sys::options::FAMILY;
use crate::sys::shared::{self, Shared};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

/// A listener that does not block. `[::]` takes IPv4 too, and is 0.0.0.0 on a system without IPv6.
/// With `mptcp` it speaks Multipath TCP (RFC 8684) where the kernel does, plain TCP otherwise; a
/// plain client is served the same either way.
pub fn listen(address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
    listen_sharing(address, mptcp, false)
}

/// As [`listen`]; `shared`: with SO_REUSEPORT.
pub(in crate::sys) fn listen_sharing(
    address: SocketAddr,
    mptcp: bool,
    shared: bool,
) -> io::Result<OwnedFd> {
    match listen_on(address, mptcp, shared) {
        Err(e) if is_without_family(&e) && is_any_v6(address) => {
            listen_on((Ipv4Addr::UNSPECIFIED, address.port()).into(), mptcp, shared)
        }
        other => other,
    }
}

fn is_any_v6(a: SocketAddr) -> bool {
    a.is_ipv6() && a.ip().is_unspecified()
}

/// Does this computer have no address of that family?
pub fn is_without_family(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn listen_on(address: SocketAddr, mptcp: bool, shared: bool) -> io::Result<OwnedFd> {
    let fd = stream(address, mptcp)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &shared)?;
    if is_any_v6(address) {
        both_families(&fd)?;
    }
    bind(&fd, address)?;
    // SAFETY: no memory is handed over.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(fd)
}

/// Does it accept connections? No longer after any process that has it has shut it down.
pub fn is_listening(fd: BorrowedFd) -> bool {
    nix::sys::socket::getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

fn both_families(fd: &OwnedFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    let size = size_of_val(&off) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
    // SAFETY: the option is an int, which is read.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const off).cast(), size) })?;
    Ok(())
}

/// The next connection and its canonical peer; the descriptor blocks. The socket of an IPv4 client
/// is one of IPv4 (`into_v4`). `WouldBlock`: no client waits.
/// [`is_transient`](super::is_transient) and [`is_scarcity`](super::is_scarcity) tell what other
/// errors mean.
pub fn accept(listener: BorrowedFd) -> io::Result<(Shared, SocketAddr)> {
    let (fd, address) = address_from(|addr, len| {
        // SAFETY: `addr` leads to `len` bytes.
        unsafe { libc::accept4(listener.as_raw_fd(), addr, len, libc::SOCK_CLOEXEC) }
    })?;
    let (client, address) = (shared::accepted(fd)?, address?);
    let canonical = canonical(address);
    if canonical.is_ipv4() && address.is_ipv6() {
        into_v4(client.as_fd());
    }
    Ok((client, canonical))
}

/// Makes what a listener of both families has accepted from IPv4 a socket of IPv4, as inetd's and
/// xinetd's services have it: many programs know sockaddr_in alone. (Nobody else has the socket
/// yet, so nobody keeps its lock.) The kernel refuses where the client has sent its end already,
/// and for Multipath TCP: such a socket stays as it is, and so xinetd's does.
fn into_v4(client: BorrowedFd) {
    let family = libc::AF_INET;
    let size = size_of_val(&family) as libc::socklen_t;
    let (fd, (level, name)) = (client.as_raw_fd(), FAMILY);
    // SAFETY: the option is an int, which is read.
    unsafe { libc::setsockopt(fd, level, name, (&raw const family).cast(), size) };
}

/// Makes a socket nonblocking, for every process that has it.
pub fn set_nonblocking(fd: BorrowedFd) -> io::Result<()> {
    let mut on: libc::c_int = 1;
    // SAFETY: FIONBIO reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw mut on) }).map(drop)
}
