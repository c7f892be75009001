//! What is first in the queue of a socket that a program gets whole (inetd's `wait`): whether that
//! program has taken it is known by looking again. No byte of it is read.

use super::check;
use super::datagram::CONTROL_MAX;
use super::socket;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The datagram that is first in a queue: its sender, and when it arrived or was first looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    /// Seconds and nanoseconds.
    at: (i64, i64),
}

/// The first datagram; None: there is none. Errors: an ICMP error of an earlier answer, which is
/// taken by this, so that it does not come again.
pub fn datagram(fd: BorrowedFd) -> io::Result<Option<Datagram>> {
    // The kernel writes the time to the datagram when it is first asked for, and keeps it. On for
    // this moment alone: a program's own control messages must not be cut off by ours.
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
    let head = peek(fd);
    setsockopt(&fd, sockopt::ReceiveTimestampns, &false)?;
    match head {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        head => head.map(Some),
    }
}

fn peek(fd: BorrowedFd) -> io::Result<Datagram> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let mut control = vec![0; CONTROL_MAX];
    let head = recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut [], Some(&mut control), flags)?;
    // Where a program has asked for so much that some of it is cut off, the time is not known.
    let at = head.cmsgs().ok().and_then(|mut all| {
        all.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(t) => Some((t.tv_sec(), t.tv_nsec())),
            _ => None,
        })
    });
    let from = head.address.and_then(|a| {
        let v4 = a.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
        v4.or_else(|| a.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
    });
    let from = socket::canonical(from.ok_or(ErrorKind::InvalidData)?);
    Ok(Datagram { from, at: at.unwrap_or_default() })
}

/// Throws the first datagram away.
pub fn drop_datagram(fd: BorrowedFd) -> io::Result<()> {
    match socket::receive(fd, &mut []) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
        done => done.map(drop),
    }
}

/// How many connections wait to be accepted.
pub fn connections(listener: BorrowedFd) -> io::Result<u32> {
    let mut info = [0u32; 64];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: at most the array's size is written, and the length.
    check(unsafe {
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        let at = info.as_mut_ptr().cast();
        libc::getsockopt(listener.as_raw_fd(), level, name, at, &mut size)
    })?;
    // struct tcp_info: eight bytes, then four numbers, then tcpi_unacked, which is the length of
    // the queue where the socket listens (tcp_get_info()).
    Ok(info[6])
}

const REQUEST: usize = 16 + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const ESTABLISHED: u32 = 1 << 1;
const CLOSE_WAIT: u32 = 1 << 8;

/// The clients whose connections to that port nobody has accepted yet (sock_diag(7)). Errors: the
/// system cannot tell. (Before Linux 6.9 it may take long:
/// [`answers_at_once`](super::inet_diag::answers_at_once).)
pub fn unaccepted(port: u16) -> io::Result<BTreeSet<SocketAddr>> {
    let mut all = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // SAFETY: no memory is handed over.
        let fd = check(unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG)
        })?;
        // SAFETY: it was just made and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        socket::send(fd.as_fd(), &request(family as u8, port))?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let n = socket::receive(fd.as_fd(), &mut buffer)?;
            if read(&buffer[..n], &mut all)? {
                break;
            }
        }
    }
    Ok(all)
}

/// A dump of the TCP connections of that local port (struct inet_diag_req_v2).
fn request(family: u8, port: u16) -> [u8; REQUEST] {
    let mut r = [0; REQUEST];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    r[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    r[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    r[6..8].copy_from_slice(&flags.to_ne_bytes());
    (r[16], r[17]) = (family, libc::IPPROTO_TCP as u8);
    r[20..24].copy_from_slice(&(ESTABLISHED | CLOSE_WAIT).to_ne_bytes());
    r[24..26].copy_from_slice(&port.to_be_bytes());
    r
}

/// Adds the clients of some messages. True: they were the last ones.
fn read(mut bytes: &[u8], all: &mut BTreeSet<SocketAddr>) -> io::Result<bool> {
    const HEAD: usize = 16;
    let number = |b: &[u8], at: usize| -> Option<u32> {
        b.get(at..at + 4).and_then(|n| n.try_into().ok()).map(u32::from_ne_bytes)
    };
    while let Some(length) = number(bytes, 0).map(|n| n as usize) {
        let message = bytes.get(..length).filter(|m| m.len() >= HEAD);
        let message = message.ok_or(ErrorKind::InvalidData)?;
        match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return Err(ErrorKind::Unsupported.into()),
            _ => {}
        }
        all.extend(client(&message[HEAD..]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The other end of a connection that has no inode (struct inet_diag_msg): nobody has accepted it.
fn client(m: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(m.get(6..8)?.try_into().ok()?);
    let address: [u8; 16] = m.get(24..40)?.try_into().ok()?;
    let inode = u32::from_ne_bytes(m.get(68..72)?.try_into().ok()?);
    let ip: IpAddr = match i32::from(*m.first()?) {
        libc::AF_INET => Ipv4Addr::new(address[0], address[1], address[2], address[3]).into(),
        _ => Ipv6Addr::from(address).to_canonical(),
    };
    (inode == 0).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn the_first_datagram_is_the_same_until_it_is_taken() {
        let s = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let (fd, client) = (s.as_fd(), UdpSocket::bind("127.0.0.1:0").expect("bind"));
        assert_eq!(datagram(fd).expect("look"), None);
        for _ in 0..2 {
            client.send_to(b"same", s.local_addr().expect("bound")).expect("send");
        }
        let first = datagram(fd).expect("look").expect("a datagram");
        assert_eq!(first.from, client.local_addr().expect("bound"));
        assert_eq!(datagram(fd).expect("look"), Some(first));
        drop_datagram(fd).expect("drop");
        let second = datagram(fd).expect("look").expect("another");
        assert!(second != first && second.from == first.from);
        drop_datagram(fd).expect("drop");
        drop_datagram(fd).expect("nothing is no error");
        assert_eq!(datagram(fd).expect("look"), None);
    }

    #[test]
    fn connections_are_known_until_they_are_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(l) = TcpListener::bind(address) else { continue };
            let at = l.local_addr().expect("bound");
            assert_eq!(connections(l.as_fd()).expect("look"), 0);
            let clients = [0, 1].map(|_| TcpStream::connect(at).expect("connect"));
            assert_eq!(connections(l.as_fd()).expect("look"), 2);
            let all = |n: usize| {
                clients[n..].iter().map(|c| c.local_addr().expect("bound")).collect::<BTreeSet<_>>()
            };
            assert_eq!(unaccepted(at.port()).expect("look"), all(0));
            let _first = l.accept().expect("accept");
            assert_eq!((connections(l.as_fd()).expect("look"), all(1).len()), (1, 1));
            assert_eq!(unaccepted(at.port()).expect("look"), all(1));
        }
    }
}
