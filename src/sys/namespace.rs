//! A network namespace where every address is local, so that the two ends of a TCP connection there
//! can have any addresses.
//!
//! Nothing gets in or out of it: it has only the loopback, and routes that make all addresses its
//! own. This process's only thread enters it for the moment in which it makes sockets; they are
//! used from outside.
//!
//! Services have sockets of this namespace, and may connect and listen with them. So no pair
//! depends on a listener or on an address that is free: both ends are put into the state of a
//! connection that stands (TCP_REPAIR, which needs CAP_NET_ADMIN), without a handshake.

use super::check;
use super::origin_mark;
use super::shared::Shared;
use super::socket::{self, connect};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The loopback's interface index in every namespace.
const LOOPBACK: u32 = 1;
/// Values of TCP_REPAIR: [`pair`] may set what a handshake would; it has.
const BEGIN: libc::c_int = 1;
const DONE: libc::c_int = -1;
/// Options of TCP as a handshake would find them (RFC 9293, 3.2; RFC 7323), as pairs of their kind
/// and value. The window scale has a value for each direction. Bytes of a segment: as many as fit
/// the loopback's MTU.
const HANDSHAKE: [libc::c_int; 8] = [2, 65_495, 3, 7 << 16 | 7, 4, 0, 8, 0];
/// What either end may send at first, in bytes.
const WINDOW: libc::c_int = 65_536;
/// The numbers of `struct tcp_repair_window`: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
const WINDOWS: [libc::c_int; 5] = [0, WINDOW, WINDOW, WINDOW, 0];

/// A network namespace of this process's own.
#[derive(Debug)]
pub struct Namespace {
    outside: OwnedFd,
    inside: OwnedFd,
}

impl Namespace {
    /// Makes one. For a process of one thread with CAP_SYS_ADMIN and CAP_NET_ADMIN. Err also where
    /// no pair can be made in it.
    pub fn new() -> io::Result<Namespace> {
        let outside = current()?;
        // Whoever has these rights over new namespaces alone may leave this one, but not come back:
        // a container without root that shares its host's network.
        setns(&outside, CloneFlags::CLONE_NEWNET)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let made = current().and_then(|inside| {
            configure()?;
            let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            pair([unconnected(false)?, unconnected(false)?], local(0), local(1))?;
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

    /// `n` sockets of one family, for the ends of [`pair`]. They block.
    pub fn sockets(&self, v6: bool, n: usize) -> io::Result<Vec<OwnedFd>> {
        self.enter(|| (0..n).map(|_| unconnected(v6)).collect())
    }
}

/// A process that cannot go back must not go on: nobody could reach its listeners.
fn go_back(outside: &OwnedFd) {
    if setns(outside, CloneFlags::CLONE_NEWNET).is_err() {
        std::process::abort();
    }
}

/// The network namespace that this process is in, to which every socket leads; so /proc need not be
/// mounted.
fn current() -> io::Result<OwnedFd> {
    /// Since Linux 4.9; libc does not have it.
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    let socket = any_socket()?;
    // SAFETY: the call takes no memory, and returns a descriptor that is nobody's yet.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _))?)) }
}

fn any_socket() -> io::Result<OwnedFd> {
    let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
    Ok(nix::sys::socket::socket(AddressFamily::Inet, kind, flags, None)?)
}

fn unconnected(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let fd = nix::sys::socket::socket(family, kind, flags, SockProtocol::Tcp)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    if v6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, &[1])?;
    }
    // It lets connections to different places have the same port, too.
    origin_mark::set(fd.as_fd())?;
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, &[BEGIN])?;
    Ok(fd)
}

/// Sets an option whose value is of this many ints.
fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &[libc::c_int],
) -> io::Result<()> {
    let size = size_of_val(value) as libc::socklen_t;
    // SAFETY: as many bytes as the length says are read.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), size) })
        .map(drop)
}

/// Connects two sockets of the namespace: the first from `from` to `to`, the second the other way
/// round. Port 0 of `from` means any. Errors: EADDRNOTAVAIL, if there is such a connection.
pub fn pair(
    [one, other]: [OwnedFd; 2],
    from: SocketAddr,
    to: SocketAddr,
) -> io::Result<(OwnedFd, Shared)> {
    // This tells a close from a half-close: a reset follows a close as soon as the other end has
    // received everything.
    set_option(&other, libc::IPPROTO_TCP, libc::TCP_LINGER2, &[-1])?;
    let (mut from, to) = (here(from), here(to));
    socket::bind(&one, from)?;
    connect(&one, to)?;
    if from.port() == 0 {
        from = here(socket::local(one.as_fd())?);
    }
    socket::bind(&other, to)?;
    connect(&other, from)?;
    stands(&one)?;
    stands(&other)?;
    Ok((one, other.into()))
}

/// Sets what a handshake would have, and ends TCP_REPAIR.
fn stands(fd: &OwnedFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &HANDSHAKE)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &WINDOWS)?;
    // The system works out the size of a segment again when IP's options are set: to none here.
    set_option(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &[])?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, &[DONE])
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
    let fd = any_socket()?;
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
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn addresses([from, to]: [&str; 2]) -> (SocketAddr, SocketAddr) {
        (from.parse().unwrap(), to.parse().unwrap())
    }

    /// What [`pair`] makes in this namespace, as streams.
    fn made(space: &Namespace, from: SocketAddr, to: SocketAddr) -> io::Result<[TcpStream; 2]> {
        let sockets = space.sockets(to.is_ipv6(), 2)?.try_into().expect("two");
        let (one, other) = pair(sockets, from, to)?;
        Ok([one.into(), other.our_own().into()])
    }

    /// Sends so much in both directions at once, then the end.
    fn exchange([one, other]: [TcpStream; 2]) {
        let text: Vec<u8> = (0..500_000u32).flat_map(u32::to_ne_bytes).collect();
        let text = &text[..];
        std::thread::scope(|s| {
            for (to, from) in [(&one, &other), (&other, &one)] {
                s.spawn(move || {
                    let mut to = to;
                    to.write_all(text).unwrap();
                    to.shutdown(std::net::Shutdown::Write).unwrap();
                });
                s.spawn(move || {
                    let (mut from, mut got) = (from, Vec::new());
                    from.read_to_end(&mut got).unwrap();
                    assert!(got == text);
                });
            }
        });
    }

    #[test]
    fn ends_have_the_addresses_that_they_are_given() {
        if super::super::identity::effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let space = Namespace::new().unwrap();
        for between in [
            ["192.0.2.7:4321", "198.51.100.9:1"],
            ["[2001:db8::7]:4321", "[2001:db8:1::9]:1"],
            ["127.0.0.1:4322", "127.0.0.1:1"],
            ["[fe80::7]:4321", "[fe80::9]:1"],
        ] {
            let (from, to) = addresses(between);
            let first = made(&space, from, to).unwrap();
            let again = made(&space, from, to).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::EADDRNOTAVAIL));
            let any = made(&space, SocketAddr::new(from.ip(), 0), to).unwrap();
            let mut ports = Vec::new();
            for ends in [first, any] {
                let (peer, local) = (ends[1].peer_addr().unwrap(), ends[1].local_addr().unwrap());
                assert_eq!((peer.ip(), local.ip(), local.port()), (from.ip(), to.ip(), to.port()));
                ports.push(peer.port());
                exchange(ends);
            }
            assert!(ports[0] == from.port() && ports[1] != ports[0], "{ports:?}");
        }
    }

    /// A service has a socket of the namespace, and may do with it what it likes.
    #[test]
    fn nobody_who_has_a_socket_there_is_in_the_way() {
        if super::super::identity::effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let space = Namespace::new().unwrap();
        let (from, to) = addresses(["192.0.2.7:4321", "198.51.100.9:4322"]);
        let [at_from, at_to] = [from, to].map(|at| space.enter(|| TcpListener::bind(at)).unwrap());
        exchange(made(&space, from, to).unwrap());
        for listener in [at_from, at_to] {
            listener.set_nonblocking(true).unwrap();
            let accepted = listener.accept().map(drop);
            assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
