//! Whether a TCP connection is between two addresses, asked without its socket's lock.
//!
//! getpeername(2) and getsockname(2) take that lock, and a process that has the socket too can keep
//! it. sock_diag(7) looks the connection up by its addresses, and the socket's cookie (SO_COOKIE)
//! says that it is this very socket, in this process's network namespace. Only INET_DIAG_INFO,
//! which is never asked for here, would take the lock.

use super::{check, dial, socket};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// struct nlmsghdr; struct inet_diag_req_v2; and where in that struct inet_diag_sockid begins.
const HEAD: usize = 16;
const REQUEST: usize = 56;
const ID: usize = HEAD + 8;
/// Where nlmsg_seq is.
const NUMBER: Range<usize> = 8..12;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// See the module.
pub struct InetDiag {
    socket: OwnedFd,
    /// The number of the last question.
    last: Cell<u32>,
}

impl InetDiag {
    /// None: there is no such thing here, or to ask could take as long as others like.
    pub fn open() -> Option<InetDiag> {
        if !answers_at_once() {
            return None;
        }
        // SAFETY: no memory is handed over.
        let fd = check(unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG)
        });
        // SAFETY: the descriptor was just made and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd.ok()?) };
        let diag = InetDiag { socket, last: Cell::new(0) };
        // The first questions may load modules of the kernel.
        let nobody = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1);
        let asked = diag.ask(0, 0, (nobody, nobody)).and_then(|_| diag.knows_connections());
        asked.is_ok_and(|knows| knows).then_some(diag)
    }

    fn knows_connections(&self) -> io::Result<bool> {
        let listener = socket::listen((Ipv4Addr::LOCALHOST, 0).into(), false)?;
        let to = socket::local(listener.as_fd())?;
        let client = dial::begin(to, false)?;
        Ok(self.is_between(client.as_fd(), to, socket::local(client.as_fd())?))
    }

    /// Is this socket a connection between these two addresses, which are canonical, in this
    /// process's network namespace? Link-local addresses are ambiguous, so the answer is no.
    pub fn is_between(&self, fd: BorrowedFd, peer: SocketAddr, local: SocketAddr) -> bool {
        let plain = |a: SocketAddr| match a.ip() {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        let Some(cookie) = socket::cookie(fd).filter(|_| plain(peer) && plain(local)) else {
            return false;
        };
        let found = self.ask(cookie, socket::interface(fd), (peer, local));
        found.is_ok_and(|found| found == Some((peer, local)))
    }

    /// The other end's address and this end's of the connection that has these addresses, if it is
    /// the socket with this cookie. None: there is no such connection.
    fn ask(&self, cookie: u64, interface: u32, between: Between) -> io::Result<Option<Between>> {
        let number = self.send(cookie, interface, between)?;
        let mut answer = [0; 1024];
        loop {
            // It is here when the question has been sent; before it, that of an earlier question
            // may be, which could not be received then.
            let n = socket::receive(self.socket.as_fd(), &mut answer)?;
            if answer[..n].get(NUMBER) == Some(&number.to_ne_bytes()) {
                return Ok(read(&answer[..n]));
            }
        }
    }

    /// Sends a question. Its number is returned.
    fn send(&self, cookie: u64, interface: u32, between: Between) -> io::Result<u32> {
        self.last.set(self.last.get().wrapping_add(1));
        let mut request = request(cookie, interface, between);
        request[NUMBER].copy_from_slice(&self.last.get().to_ne_bytes());
        socket::send(self.socket.as_fd(), &request).map(|_| self.last.get())
    }
}

/// The other end's address, and this end's.
type Between = (SocketAddr, SocketAddr);

fn request(cookie: u64, interface: u32, (peer, local): Between) -> [u8; HEAD + REQUEST] {
    let mut r = [0; HEAD + REQUEST];
    r[0..4].copy_from_slice(&((HEAD + REQUEST) as u32).to_ne_bytes());
    r[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    r[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    let family = if peer.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    (r[HEAD], r[HEAD + 1]) = (family as u8, libc::IPPROTO_TCP as u8);
    r[HEAD + 4..ID].fill(0xff);
    for (at, a) in [(0, local), (2, peer)] {
        r[ID + at..ID + at + 2].copy_from_slice(&a.port().to_be_bytes());
        let to = ID + 4 + 8 * at;
        match a.ip() {
            IpAddr::V4(ip) => r[to..to + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => r[to..to + 16].copy_from_slice(&ip.octets()),
        }
    }
    r[ID + 36..ID + 40].copy_from_slice(&interface.to_ne_bytes());
    r[ID + 40..ID + 48].copy_from_slice(&cookie.to_ne_bytes());
    r
}

/// None: it is about no connection.
fn read(answer: &[u8]) -> Option<Between> {
    /// The states of tcp_states.h without a connection, or whose connection is over: TIME_WAIT,
    /// CLOSE, LISTEN.
    const NONE: [u8; 3] = [6, 7, 10];
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let (family, state) = (*answer.get(HEAD)?, *answer.get(HEAD + 1)?);
    if kind != SOCK_DIAG_BY_FAMILY || NONE.contains(&state) {
        return None;
    }
    // struct inet_diag_msg: four bytes, then struct inet_diag_sockid.
    let id = answer.get(HEAD + 4..)?;
    let address = |at: usize| -> Option<SocketAddr> {
        let port = u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?);
        let ip: [u8; 16] = id.get(4 + 8 * at..20 + 8 * at)?.try_into().ok()?;
        let ip = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).into(),
            _ => Ipv6Addr::from(ip).to_canonical(),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some((address(2)?, address(0)?))
}

/// Does sock_diag(7) answer at once, about Unix sockets too? Before Linux 6.9 it answers one
/// process of the computer at a time, and any user can ask it about a socket whose lock is kept.
pub fn answers_at_once() -> bool {
    kernel_is_at_least((6, 9))
}

fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    // SAFETY: all zeros is a valid utsname, whose strings end within it.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: one utsname is written.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return false;
    }
    let release: String = name.release.iter().map(|c| char::from(*c as u8)).collect();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_connection_is_between_its_own_addresses_alone() {
        let Some(diag) = InetDiag::open() else { return };
        for (at, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
            let l = socket::listen(at.parse().unwrap(), true).unwrap();
            let port = socket::local(l.as_fd()).unwrap().port();
            let Ok(client) = TcpStream::connect((to, port)) else { continue };
            let (fd, _) = socket::accept(l.as_fd()).unwrap();
            let (peer, local) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let is = |fd: BorrowedFd, peer, local| diag.is_between(fd, peer, local);
            assert!(is(fd.as_fd(), peer, local), "{at} {to}");
            assert!(is(client.as_fd(), local, peer));
            assert!(!is(client.as_fd(), peer, local) && !is(l.as_fd(), peer, local));
            assert!(!is(fd.as_fd(), (peer.ip(), 1).into(), local) && !is(fd.as_fd(), local, local));
            let other = "192.0.2.1".parse::<IpAddr>().unwrap();
            assert!(!is(fd.as_fd(), (other, peer.port()).into(), local));
            // Somebody's question has an answer that was not received.
            diag.send(0, 0, (local, local)).unwrap();
            assert!(is(fd.as_fd(), peer, local));
            // Once it is over, nobody is there.
            socket::drop_unsent(client.as_fd()).unwrap();
            drop(client);
            while socket::peer(fd.as_fd()).is_ok() {
                std::thread::yield_now();
            }
            assert!(!is(fd.as_fd(), peer, local));
        }
        let (a, _b) = socket::pair().unwrap();
        let any = "127.0.0.1:1".parse().unwrap();
        assert!(!diag.is_between(a.as_fd(), any, any));
    }
}
