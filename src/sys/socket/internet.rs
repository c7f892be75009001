//! Sockets of the internet families, and their addresses.

use crate::sys::check;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(in crate::sys) fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    // SAFETY: the address is read for its length.
    with_address(address, |raw, len| check(unsafe { libc::bind(fd.as_raw_fd(), raw, len) }))
}

pub(in crate::sys) fn connect(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    // SAFETY: the address is read for its length.
    with_address(address, |raw, len| check(unsafe { libc::connect(fd.as_raw_fd(), raw, len) }))
}

/// Makes a call with the address in the kernel's form.
fn with_address(
    address: SocketAddr,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> io::Result<libc::c_int>,
) -> io::Result<()> {
    match address {
        SocketAddr::V4(a) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: a.ip().to_bits().to_be() },
                sin_zero: [0; 8],
            };
            call((&raw const raw).cast(), size_of_val(&raw) as _)?;
        }
        SocketAddr::V6(a) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: a.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            call((&raw const raw).cast(), size_of_val(&raw) as _)?;
        }
    }
    Ok(())
}

/// A socket of datagrams that does not block.
pub(in crate::sys) fn datagram(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is handed over.
    let fd = check(unsafe { libc::socket(family, kind, libc::IPPROTO_UDP) })?;
    // SAFETY: the descriptor was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket that does not block. It has SO_KEEPALIVE, and so have the connections that it accepts:
/// an end that has vanished does not occupy the other for ever (tcp(7); after two hours, as the
/// kernel has it).
pub(in crate::sys) fn stream(address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is handed over.
    let made = |protocol| check(unsafe { libc::socket(family, kind, protocol) });
    let fd = match mptcp.then(|| made(libc::IPPROTO_MPTCP)) {
        Some(Ok(fd)) => fd,
        _ => made(libc::IPPROTO_TCP)?,
    };
    // SAFETY: the descriptor was just made and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_keepalive(fd.as_fd())?;
    Ok(fd)
}

/// Sets SO_KEEPALIVE: an end that has vanished does not occupy the other for ever.
pub fn set_keepalive(fd: BorrowedFd) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::KeepAlive, &true)?)
}

/// The other end's address, canonical. An error where it is not an internet socket.
pub fn peer(fd: BorrowedFd) -> io::Result<SocketAddr> {
    // SAFETY: the pointer leads to as many bytes as the length says.
    let (_, a) = address_from(|addr, len| unsafe { libc::getpeername(fd.as_raw_fd(), addr, len) })?;
    a.map(canonical)
}

/// This end's address, canonical. An error where it is not an internet socket.
pub fn local(fd: BorrowedFd) -> io::Result<SocketAddr> {
    // SAFETY: the pointer leads to as many bytes as the length says.
    let (_, a) = address_from(|addr, len| unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) })?;
    a.map(canonical)
}

/// Is this the error of [`peer`] and [`local`] about a socket that is not an internet socket?
pub fn is_of_another_family(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Turns an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) into the IPv4 address; any other stays as
/// it is.
pub fn canonical(a: SocketAddr) -> SocketAddr {
    match a.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, a.port()).into(),
        IpAddr::V6(_) => a,
    }
}

pub(super) type Written = io::Result<SocketAddr>;

pub(super) fn address_from(
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<(libc::c_int, Written)> {
    // SAFETY: an address of all zeros is a valid one (AF_UNSPEC).
    let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&raw) as libc::socklen_t;
    let answer = check(call((&raw mut raw).cast(), &mut len))?;
    Ok((answer, internet_address(&raw)))
}

fn internet_address(raw: &libc::sockaddr_storage) -> Written {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which type it is; a sockaddr_storage holds and aligns all of
            // them.
            let a = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(a.sin_addr.s_addr));
            Ok((ip, u16::from_be(a.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let a = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            let port = u16::from_be(a.sin6_port);
            Ok(SocketAddrV6::new(ip, port, a.sin6_flowinfo, a.sin6_scope_id).into())
        }
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}
