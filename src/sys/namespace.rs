//! A network namespace where every address is local, so that the two ends of a TCP connection there
//! can have any addresses.
//!
//! Nothing gets in or out of it: it has only the loopback, and routes that make all addresses its
//! own. This process's only thread enters it for the moment in which it makes sockets; they are
//! used from outside.

use super::shared::Shared;
use super::socket::{self, connect};
use super::{check, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The loopback's interface index in every namespace.
const LOOPBACK: u32 = 1;
/// Connections from others that [`pair`] discards before it gives up.
const FOREIGN_MAX: usize = 64;
/// How long a connection over the loopback may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(50);

/// A network namespace of this process's own.
#[derive(Debug)]
pub struct Namespace {
    outside: File,
    inside: File,
}

impl Namespace {
    /// Makes one. For a process of one thread with CAP_SYS_ADMIN and CAP_NET_ADMIN; /proc must be
    /// mounted.
    pub fn new() -> io::Result<Namespace> {
        let outside = File::open("/proc/thread-self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let made = File::open("/proc/thread-self/ns/net").and_then(|inside| {
            configure()?;
            Ok(inside)
        });
        go_back(&outside);
        Ok(Namespace { outside, inside: made? })
    }

    fn enter<T>(&self, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        setns(&self.inside, CloneFlags::CLONE_NEWNET)?;
        let done = what();
        go_back(&self.outside);
        done
    }

    /// `n` sockets of one family, for the connecting ends of [`pair`].
    pub fn sockets(&self, v6: bool, n: usize) -> io::Result<Vec<OwnedFd>> {
        self.enter(|| (0..n).map(|_| connecting(v6)).collect())
    }

    /// A listener for that port, at all addresses of one family.
    pub fn listener(&self, v6: bool, port: u16) -> io::Result<OwnedFd> {
        self.enter(|| {
            let any = socket::any(v6);
            let fd = socket::stream(SocketAddr::new(any, port), false)?;
            if v6 {
                setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            }
            // Accepted connections inherit it.
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
            // This tells a close from a half-close: a reset follows a close as soon as the other
            // end has received everything.
            set_option(&fd, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1)?;
            socket::bind(&fd, SocketAddr::new(any, port))?;
            // SAFETY: no memory is handed over.
            check(unsafe { libc::listen(fd.as_raw_fd(), socket::BACKLOG) })?;
            Ok(fd)
        })
    }
}

/// A process that cannot go back must not go on: nobody could reach its listeners.
fn go_back(outside: &File) {
    if setns(outside, CloneFlags::CLONE_NEWNET).is_err() {
        std::process::abort();
    }
}

fn connecting(v6: bool) -> io::Result<OwnedFd> {
    let fd = socket::stream(SocketAddr::new(socket::any(v6), 0), false)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND)
    } else {
        (libc::IPPROTO_IP, libc::IP_FREEBIND)
    };
    set_option(&fd, level, name, 1)?;
    set_option(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    Ok(fd)
}

fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option is an int, which is read.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) })
        .map(drop)
}

/// Binds one end to `from`, connects it to a listener of this namespace, and accepts the other
/// end, whose peer is `from` and whose own address is `to`.
pub fn pair(
    connecting: OwnedFd,
    listener: BorrowedFd,
    from: SocketAddr,
    to: SocketAddr,
) -> io::Result<(OwnedFd, Shared)> {
    socket::bind(&connecting, here(from))?;
    match connect(&connecting, here(to)) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => {}
    }
    let ours = match from.port() {
        0 => socket::local(connecting.as_fd())?,
        _ => socket::canonical(here(from)),
    };
    // Others who have a socket of this namespace can connect to the listener, too.
    for _ in 0..FOREIGN_MAX {
        let (accepted, peer) = match socket::accept(listener) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if poll::wait(&mut [poll::Poll::new(listener, true, false)], Some(CONNECT_TIMEOUT))?
                    == 0
                {
                    return Err(ErrorKind::TimedOut.into());
                }
                continue;
            }
            got => got?,
        };
        if peer == ours && socket::local(accepted.as_fd())? == socket::canonical(here(to)) {
            return Ok((connecting, accepted));
        }
    }
    Err(ErrorKind::ConnectionAborted.into())
}

/// The address as it is in the namespace, where the scope of a link-local address is the loopback.
fn here(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut a) => {
            a.set_scope_id(if a.ip().is_unicast_link_local() { LOOPBACK } else { 0 });
            a.set_flowinfo(0);
            a.into()
        }
        v4 => v4,
    }
}

/// Brings the loopback up and gives it all addresses.
fn configure() -> io::Result<()> {
    // SAFETY: no memory is handed over; the descriptor is this function's own.
    let fd = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))?)
    };
    // SAFETY: all zeros is a valid request; the name is shorter than its place; the call reads the
    // name and the flags.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request))?;
    }
    own_all(libc::AF_INET as u8)?;
    // A system without IPv6 has no such clients.
    let _ = own_all(libc::AF_INET6 as u8);
    // The system's congestion control (BBR, for example) may pace its packets. Here no packet is
    // lost, and nobody shares the link.
    for (name, value) in [
        ("ip_local_port_range", "1024 65535"),
        ("tcp_tw_reuse", "1"),
        ("tcp_congestion_control", "reno"),
        ("tcp_no_metrics_save", "1"),
    ] {
        // If they cannot be set, the system's values are good enough.
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    }
    Ok(())
}

/// `ip route add local default dev lo` (rtnetlink(7)).
fn own_all(family: u8) -> io::Result<()> {
    const LENGTH: u32 = 16 + 12 + 8;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_ACK) as u16;
    let scope =
        if family == libc::AF_INET as u8 { libc::RT_SCOPE_HOST } else { libc::RT_SCOPE_UNIVERSE };
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // No prefix, no source, no TOS; table, protocol, scope, type; no flags.
    message.extend([
        family,
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        scope,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ]);
    message.extend(8u16.to_ne_bytes());
    message.extend(libc::RTA_OIF.to_ne_bytes());
    message.extend(LOOPBACK.to_ne_bytes());
    // SAFETY: no memory is handed over; the descriptor is this function's own.
    let fd = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        ))?)
    };
    socket::send(fd.as_fd(), &message)?;
    let mut answer = [0; 256];
    let n = socket::receive(fd.as_fd(), &mut answer)?;
    let error = answer[..n]
        .get(16..20)
        .and_then(|b| b.try_into().ok())
        .map_or(libc::EIO, |b| -i32::from_ne_bytes(b));
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_the_addresses_that_they_are_given() {
        if super::super::identity::effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let space = Namespace::new().unwrap();
        for (from, to) in [
            ("192.0.2.7:4321", "198.51.100.9:1"),
            ("[2001:db8::7]:4321", "[2001:db8:1::9]:1"),
            ("127.0.0.1:4322", "127.0.0.1:1"),
            ("[fe80::7]:4321", "[fe80::9]:1"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let listener = space.listener(to.is_ipv6(), 0).unwrap();
            let to = SocketAddr::new(to.ip(), socket::local(listener.as_fd()).unwrap().port());
            let sockets = space.sockets(to.is_ipv6(), 2).unwrap();
            let mut ports = Vec::new();
            let mut pairs = Vec::new();
            for (connecting, port) in sockets.into_iter().zip([from.port(), 0]) {
                let (connecting, accepted) =
                    pair(connecting, listener.as_fd(), SocketAddr::new(from.ip(), port), to)
                        .unwrap();
                let (peer, local) = (
                    socket::peer(accepted.as_fd()).unwrap(),
                    socket::local(accepted.as_fd()).unwrap(),
                );
                assert_eq!((peer.ip(), local.ip(), local.port()), (from.ip(), to.ip(), to.port()));
                ports.push(peer.port());
                socket::send(connecting.as_fd(), b"x").unwrap();
                poll::wait(
                    &mut [poll::Poll::new(accepted.as_fd(), true, false)],
                    Some(Duration::from_secs(5)),
                )
                .unwrap();
                assert_eq!(socket::receive(accepted.as_fd(), &mut [0; 9]).unwrap(), 1);
                pairs.push((connecting, accepted));
            }
            assert!(ports[0] == from.port() && ports[1] != ports[0], "{ports:?}");
        }
    }
}
