//! What a program can leave on a socket that it got whole (inetd's `wait`), and that the next
//! program gets: options, a filter, the end of a direction, another end that it is connected to.
//!
//! What can be undone is undone, so that nobody who waits there is lost. Otherwise the socket is of
//! no use any more, and another has to be bound in its place.

use super::options::{LOCK, RECEIVE_BUFFER, SEND_BUFFER, SocketOption, Value, get, restore, set};
use super::{check, count, socket};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

const LOCK_FILTER: SocketOption = (libc::SOL_SOCKET, libc::SO_LOCK_FILTER);
const BIND_TO_INTERFACE: SocketOption = (libc::SOL_SOCKET, 62);
const UDP_CORK: SocketOption = (libc::IPPROTO_UDP, 1);
const UDP_ENCAP: SocketOption = (libc::IPPROTO_UDP, 100);
const IP_MINTTL: SocketOption = (libc::IPPROTO_IP, 21);
const IPV6_MINHOPCOUNT: SocketOption = (libc::IPPROTO_IPV6, 73);

/// The options by which a program could keep the next one from what comes, make it wait or not
/// wait, or have the kernel send it what it does not expect. Those that a socket does not have at
/// the beginning it never has.
const OPTIONS: [SocketOption; 23] = [
    RECEIVE_BUFFER,
    SEND_BUFFER,
    // Setting the size of a buffer sets it, so it comes after them.
    LOCK,
    LOCK_FILTER,
    BIND_TO_INTERFACE,
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    UDP_CORK,
    UDP_ENCAP,
];

/// More of them, by which the kernel writes to each datagram what else it knows of it, or sends and
/// receives several as one: whoever did not ask for that has no room for it. Those that libc does
/// not name are IP_CHECKSUM, IP_RECVERR_RFC4884, IPV6_RECVERR_RFC4884, SO_RCVMARK, SO_RCVPRIORITY
/// and UDP_NO_CHECK6_RX.
const OF_DATAGRAMS: [SocketOption; 29] = [
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
    (libc::SOL_SOCKET, 75),
    (libc::SOL_SOCKET, 82),
    (libc::IPPROTO_IP, libc::IP_RECVOPTS),
    (libc::IPPROTO_IP, libc::IP_RETOPTS),
    (libc::IPPROTO_IP, libc::IP_RECVTTL),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IP, libc::IP_PASSSEC),
    (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
    (libc::IPPROTO_IP, libc::IP_RECVFRAGSIZE),
    (libc::IPPROTO_IP, 23),
    (libc::IPPROTO_IP, 26),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPOPTS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVRTHDR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVDSTOPTS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPATHMTU),
    (libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVFRAGSIZE),
    (libc::IPPROTO_IPV6, 31),
    (libc::IPPROTO_UDP, 102),
    (libc::IPPROTO_UDP, libc::UDP_SEGMENT),
    (libc::IPPROTO_UDP, libc::UDP_GRO),
];

/// More of them, which do nothing to a socket of datagrams.
const OF_CONNECTIONS: [SocketOption; 5] = [
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    IP_MINTTL,
    IPV6_MINHOPCOUNT,
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
];

/// A socket as it was before any program had it.
#[derive(Debug)]
pub struct AsMade {
    /// Where datagrams come: its address, as something could be sent there.
    datagrams: Option<SockaddrStorage>,
    values: Vec<(SocketOption, Value)>,
    flags: libc::c_int,
}

impl AsMade {
    /// Notes how it is. From now on it blocks, as its programs expect.
    pub fn of(socket: BorrowedFd) -> AsMade {
        let flags = flags(socket).unwrap_or_default();
        let blocks = flags & !libc::O_NONBLOCK;
        // Where this fails, each start does it.
        let flags = set_flags(socket, blocks).map_or(flags, |()| blocks);
        let datagrams = socket::is_datagram(socket).then(|| to_itself(socket)).flatten();
        let more = if datagrams.is_some() { &OF_DATAGRAMS[..] } else { &OF_CONNECTIONS };
        let all = OPTIONS.iter().chain(more).map(|o| (*o, get(socket, *o)));
        AsMade { datagrams, values: all.filter(|(_, value)| value.exists()).collect(), flags }
    }

    /// Undoes what a program has left on the socket. Err: what cannot be undone.
    pub fn put_back(&self, socket: BorrowedFd) -> Result<(), &'static str> {
        if let Some(itself) = &self.datagrams {
            if socket::peer(socket).is_ok() {
                return Err("its program connected this socket");
            }
            if is_shut_down(socket) || is_shut_for_sending(socket, itself) {
                return Err("its program shut this socket down");
            }
        } else if !socket::is_listening(socket) || is_shut_down(socket) {
            return Err("its program shut this socket down");
        }
        if has_filter(socket) && without_filter(socket).is_err() {
            return Err("its program left a locked filter on this socket");
        }
        for &(option, before) in &self.values {
            if get(socket, option) != before
                && (restore(socket, option, &before).is_err() || get(socket, option) != before)
            {
                return Err("its program left an option on this socket that cannot be undone");
            }
        }
        if flags(socket).is_ok_and(|now| now != self.flags) {
            set_flags(socket, self.flags)
                .map_err(|_| "its program left flags on this socket that cannot be undone")?;
        }
        Ok(())
    }
}

/// The flags of fcntl(2).
fn flags(fd: BorrowedFd) -> io::Result<libc::c_int> {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}

fn set_flags(fd: BorrowedFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// Does nothing come to this socket any more? (A Unix socket counts as one that listens even then.)
fn is_shut_down(fd: BorrowedFd) -> bool {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry is read and written. It does not wait.
    let n = unsafe { libc::poll(&mut one, 1, 0) };
    n > 0 && one.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0
}

/// Can a socket of datagrams send nothing any more? poll(2) does not tell, only an attempt to send.
/// This one is of a byte that the kernel cannot read, so that it fails in any case, and nothing is
/// sent: the kernel looks whether the socket may send before it reads what.
fn is_shut_for_sending(fd: BorrowedFd, to: &SockaddrStorage) -> bool {
    let (nowhere, flags) = (ptr::without_provenance(1), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    // SAFETY: the address is a valid sockaddr of the length given. Nothing is ever mapped at the
    // place of the byte (mmap(2) gives no page at 0), so no memory is read.
    let sent =
        unsafe { libc::sendto(fd.as_raw_fd(), nowhere, 1, flags, to.as_ptr().cast(), to.len()) };
    count(sent).is_err_and(|e| e.raw_os_error() == Some(libc::EPIPE))
}

/// The address of a socket of datagrams, as something could be sent there.
fn to_itself(fd: BorrowedFd) -> Option<SockaddrStorage> {
    let mut to = socket::local(fd).ok()?;
    match to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => to.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => to.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Some(SockaddrStorage::from(to))
}

/// Asks for the number of a filter's instructions; one that cannot be shown is one.
fn has_filter(fd: BorrowedFd) -> bool {
    let mut n: libc::socklen_t = 0;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_GET_FILTER);
    // SAFETY: nothing is written but the number, because there is no room for more.
    let asked =
        check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, ptr::null_mut(), &mut n) });
    asked.is_err() || n > 0
}

fn without_filter(fd: BorrowedFd) -> io::Result<()> {
    set(fd, (libc::SOL_SOCKET, libc::SO_DETACH_FILTER), &Value::int(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::sys::time::TimeVal;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn what_can_be_undone_is_undone() {
        let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
        let (udp, tcp) = (udp.expect("a port"), tcp.expect("a port"));
        for fd in [udp.as_fd(), tcp.as_fd()] {
            let before = AsMade::of(fd);
            assert_eq!(before.put_back(fd), Ok(()));
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).expect("set");
            set(fd, RECEIVE_BUFFER, &Value::int(4096)).expect("set");
            set(fd, (libc::IPPROTO_IP, libc::IP_TTL), &Value::int(7)).expect("set");
            let ttl = (libc::IPPROTO_IP, libc::IP_RECVTTL);
            if socket::is_datagram(fd) {
                set(fd, ttl, &Value::int(1)).expect("set");
            }
            let filter = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
            let program = libc::sock_fprog { len: 1, filter: filter.as_ptr().cast_mut() };
            // SAFETY: the filter is read.
            check(unsafe {
                let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
                let size = size_of_val(&program) as libc::socklen_t;
                libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const program).cast(), size)
            })
            .expect("set");
            set_flags(fd, before.flags | libc::O_ASYNC | libc::O_NONBLOCK).expect("set");
            assert!(has_filter(fd));
            assert_eq!(before.put_back(fd), Ok(()));
            assert_eq!(get(fd, ttl), Value::int(0));
            assert!(!has_filter(fd));
            assert!(before.values.len() > 15);
            assert!(before.values.iter().all(|(o, value)| get(fd, *o) == *value));
            assert_eq!(flags(fd).expect("flags"), before.flags);
            set(fd, LOCK_FILTER, &Value::int(1)).expect("set");
            assert!(before.put_back(fd).is_err());
        }
    }

    #[test]
    fn a_socket_that_is_of_no_use_is_told_from_others() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let before = AsMade::of(tcp.as_fd());
        socket::shutdown_both(tcp.as_fd()).expect("shutdown");
        assert!(before.put_back(tcp.as_fd()).is_err());
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let before = AsMade::of(udp.as_fd());
        // It is not connected, and is shut down all the same.
        assert!(socket::shutdown_both(udp.as_fd()).is_err());
        assert!(before.put_back(udp.as_fd()).is_err());
        // The same, of one direction alone; the attempts to send reach nobody.
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let there = if address.contains("::") { "[::1]:0" } else { address };
            let Ok(udp) = UdpSocket::bind(there).and(UdpSocket::bind(address)) else { continue };
            let before = AsMade::of(udp.as_fd());
            assert_eq!(before.put_back(udp.as_fd()), Ok(()));
            udp.set_nonblocking(true).expect("set");
            assert!(udp.recv(&mut [0]).is_err(), "{address}");
            // SAFETY: no memory is handed over.
            let shut = unsafe { libc::shutdown(udp.as_raw_fd(), libc::SHUT_WR) };
            assert!(shut != 0);
            assert!(before.put_back(udp.as_fd()).is_err(), "{address}");
        }
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let before = AsMade::of(udp.as_fd());
        udp.connect("127.0.0.1:9").expect("connect");
        assert!(before.put_back(udp.as_fd()).is_err());
    }
}
