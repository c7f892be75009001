//! Sockets: listeners, accepted connections, and pairs.
//!
//! Receiving and sending here never waits (MSG_DONTWAIT) and never raises SIGPIPE, whatever the
//! descriptor's mode. A service gets a descriptor that blocks, as from inetd; so none is ever made
//! nonblocking but a listener, and a client's that a relay has and no program gets.
//!
//! | file | noun |
//! |---|---|
//! | `internet` | the internet families, and their addresses |
//! | `listener` | listeners, and what they accept |
//! | `transfer` | receiving and sending |
//! | `pieces` | receiving straight into a buffer of frames |

mod internet;
mod listener;
mod pieces;
mod transfer;

pub(super) use internet::{bind, connect, datagram, stream};
pub use internet::{canonical, is_of_another_family, local, peer, set_keepalive};
pub(in crate::sys) use listener::listen_sharing;
pub use listener::{BACKLOG, accept, is_listening, is_without_family, listen, set_nonblocking};
pub use pieces::{PIECES, read_pieces, receive_pieces};
pub(super) use transfer::discard_by;
pub use transfer::{Stream, discard, peek, receive, send, send_parts, send_with_more};

use super::{check, local};
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Has this process no descriptor left? (The system may have some.)
pub fn is_out_of_descriptors(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EMFILE)
}

/// A connection that went away before it was accepted, or a call that was interrupted: accept(2)
/// says to try the next one.
pub fn is_transient(e: &io::Error) -> bool {
    const GONE: [i32; 10] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EPERM,
    ];
    e.raw_os_error().is_some_and(|n| GONE.contains(&n))
}

/// The system has run out of descriptors, processes or memory: try again when some were freed.
pub fn is_scarcity(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(is_scarce)
}

/// [`is_scarcity`] of an error's number. EAGAIN of fork(2) is a limit of processes.
pub(super) fn is_scarce(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
}

/// Is it a socket of datagrams?
pub fn is_datagram(fd: BorrowedFd) -> bool {
    getsockopt(&fd, sockopt::SockType) == Ok(SockType::Datagram)
}

/// A number that no other socket of this computer has, or ever had since it was booted, whichever
/// descriptor it is asked by (SO_COOKIE). None: it is no socket.
pub fn cookie(fd: BorrowedFd) -> Option<u64> {
    option(fd, libc::SO_COOKIE)
}

/// The network namespace that a socket is in, by a number that no other has (SO_NETNS_COOKIE).
/// None: it is no socket, or the kernel does not say (before Linux 5.14).
pub fn network(fd: BorrowedFd) -> Option<u64> {
    option(fd, libc::SO_NETNS_COOKIE)
}

/// The one that this process is in now.
pub fn own_network() -> Option<u64> {
    pair().ok().and_then(|(fd, _)| network(fd.as_fd()))
}

/// An option whose value is a number of this size. None of those that are asked for takes the lock
/// of the socket.
pub(super) fn option<N: Default>(fd: BorrowedFd, name: libc::c_int) -> Option<N> {
    let mut value = N::default();
    let mut size = size_of_val(&value) as libc::socklen_t;
    let (level, to) = (libc::SOL_SOCKET, (&raw mut value).cast());
    // SAFETY: at most this many bytes are written, and their length.
    let asked = check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, to, &mut size) });
    asked.ok().map(|_| value)
}

/// Is it a Unix socket that keeps messages apart and has no path, such as an end of a
/// [`seqpacket`]? (Only of a Unix socket may the path be asked for: with others that takes the
/// socket's lock.)
pub fn is_end_of_pair(fd: BorrowedFd) -> bool {
    let kind = getsockopt(&fd, sockopt::SockType);
    is_unix(fd) && kind == Ok(SockType::SeqPacket) && local::has_no_path(fd)
}

/// Is it a Unix socket (SO_DOMAIN)?
pub fn is_unix(fd: BorrowedFd) -> bool {
    domain(fd) == Some(libc::AF_UNIX)
}

/// The family of its addresses (SO_DOMAIN). None: it is no socket.
pub(super) fn domain(fd: BorrowedFd) -> Option<libc::c_int> {
    option(fd, libc::SO_DOMAIN)
}

/// Is it a socket of the internet, or a Unix socket?
pub fn is_usual(fd: BorrowedFd) -> bool {
    matches!(domain(fd), Some(libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX))
}

/// Is it a socket of a stream (SO_TYPE)?
pub fn is_stream(fd: BorrowedFd) -> bool {
    getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream)
}

/// The number of the interface to which a socket is bound (SO_BINDTOIFINDEX). 0: to none.
pub fn interface(fd: BorrowedFd) -> u32 {
    /// asm-generic/socket.h
    const SO_BINDTOIFINDEX: libc::c_int = 62;
    option(fd, SO_BINDTOIFINDEX).unwrap_or(0)
}

/// The two ends of a stream; they block. Closing them never waits (SO_LINGER is for TCP).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    connected(libc::SOCK_STREAM)
}

/// The two ends of a channel that keeps messages apart.
pub fn seqpacket() -> io::Result<(OwnedFd, OwnedFd)> {
    connected(libc::SOCK_SEQPACKET)
}

fn connected(kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` holds two descriptors.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Ends the direction in which this end sends.
pub fn shutdown_write(fd: BorrowedFd) -> io::Result<()> {
    shutdown(fd, libc::SHUT_WR)
}

/// Receives nothing more than what has come; whoever waits for more sees an end.
pub fn shutdown_read(fd: BorrowedFd) -> io::Result<()> {
    shutdown(fd, libc::SHUT_RD)
}

/// Ends both directions, for every process that holds this socket.
pub fn shutdown_both(fd: BorrowedFd) -> io::Result<()> {
    shutdown(fd, libc::SHUT_RDWR)
}

/// Acknowledges at once what has come, so that a close(2) of the other end that waits for it
/// (SO_LINGER) returns. Errors: EOPNOTSUPP on a socket that is not TCP, where there is nothing to
/// acknowledge.
pub fn acknowledge(fd: BorrowedFd) -> io::Result<()> {
    set_tcp(fd, libc::TCP_QUICKACK, 1)
}

/// Sends what [`send_with_more`] has left to wait. Errors: EOPNOTSUPP on a socket that is not TCP,
/// where nothing waits.
pub fn push(fd: BorrowedFd) -> io::Result<()> {
    set_tcp(fd, libc::TCP_CORK, 0)
}

fn set_tcp(fd: BorrowedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let (level, size) = (libc::IPPROTO_TCP, size_of_val(&value) as libc::socklen_t);
    let value = (&raw const value).cast();
    // SAFETY: the option is an int, which is read.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, size) }).map(drop)
}

/// Shows the other end that this one did not finish: once this one is closed, the other end of a
/// TCP connection sees a reset, and that of a pair sees both directions end at once.
pub fn abort(fd: BorrowedFd) {
    // An error means that the other end has closed already.
    let _ = if local(fd).is_ok() { drop_unsent(fd) } else { shutdown_both(fd) };
}

fn shutdown(fd: BorrowedFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// Bytes that were received and not yet read; 0 where the kernel does not say.
pub fn unread(fd: BorrowedFd) -> usize {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut n) };
    if asked < 0 {
        return 0;
    }
    usize::try_from(n).unwrap_or(0)
}

/// Bytes that were written and wait until the other end has space for them. Errors: it is no TCP
/// socket. A terminal is not asked: that waits while somebody else changes its line discipline
/// (TIOCSETD), for as long as that one likes.
pub fn unsent(fd: BorrowedFd) -> io::Result<usize> {
    /// linux/sockios.h
    const SIOCOUTQNSD: u64 = 0x894B;
    domain(fd).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTSOCK))?;
    let mut n: libc::c_int = 0;
    // SAFETY: the request writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCOUTQNSD as _, &raw mut n) })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// Does a TCP connection hold anything that its other end has not acknowledged? After a reset it
/// does not, whatever [`unsent`] says. Neither takes the lock of the socket, which a process that
/// has it too can keep for as long as it likes, as TCP_INFO would.
pub fn holds_output(fd: BorrowedFd) -> bool {
    /// asm-generic/socket.h
    const SO_MEMINFO: libc::c_int = 55;
    /// linux/sock_diag.h
    const SK_MEMINFO_WMEM_QUEUED: usize = 5;
    let mut memory = [0u32; 9];
    let mut size = size_of_val(&memory) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, SO_MEMINFO);
    let (to, length) = ((&raw mut memory).cast(), &raw mut size);
    // SAFETY: at most the array's size is written, and the length.
    let asked = check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, to, length) });
    asked.is_ok() && memory[SK_MEMINFO_WMEM_QUEUED] > 0
}

/// Sends small writes at once (TCP_NODELAY); for relays, whose writes are as large as they will
/// get.
pub fn set_nodelay(fd: BorrowedFd, on: bool) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::TcpNoDelay, &on)?)
}

/// Is an urgent byte (tcp(7)) to be read in its place among the others? If not, which is the
/// default, it is left out and can be read with MSG_OOB. This also applies to bytes that have come
/// and were not read yet. Errors: the system's; Multipath TCP has no urgent bytes.
pub fn set_urgent_inline(fd: BorrowedFd, on: bool) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::OobInline, &on)?)
}

/// When the socket is closed, bytes that were not delivered yet are dropped, and the other end sees
/// a reset (SO_LINGER 0, socket(7)).
pub fn drop_unsent(fd: BorrowedFd) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
}

/// As [`set_send_buffer`], of what is received, too.
#[cfg(test)]
pub fn set_buffers(fd: BorrowedFd, send: usize, receive: usize) -> io::Result<()> {
    set_send_buffer(fd, send)?;
    Ok(setsockopt(&fd, sockopt::RcvBuf, &receive)?)
}

/// Bounds what the kernel holds of what is sent, in bytes (it counts its own overhead by doubling
/// them: socket(7)). It is never larger than the system's limit (net.core.wmem_max).
pub fn set_send_buffer(fd: BorrowedFd, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::SndBuf, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::super::shared::Shared;
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    fn accepted(address: &str, mptcp: bool) -> (TcpStream, Shared, SocketAddr) {
        let l = listen(address.parse().unwrap(), mptcp).unwrap();
        assert_eq!(accept(l.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let port = local(l.as_fd()).unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (fd, from) = accept(l.as_fd()).unwrap();
        (client, fd, from)
    }

    #[test]
    fn one_listener_takes_both_families_and_says_ipv4_plainly() {
        for mptcp in [false, true] {
            let (client, fd, from) = accepted("[::]:0", mptcp);
            assert_eq!(from, client.local_addr().unwrap());
            assert_eq!(peer(fd.as_fd()).unwrap(), from);
            assert_eq!(local(fd.as_fd()).unwrap(), client.peer_addr().unwrap());
        }
    }

    #[test]
    fn nothing_here_waits() {
        let (mut client, fd, _) = accepted("127.0.0.1:0", true);
        let mut b = [0; 8];
        assert_eq!(receive(fd.as_fd(), &mut b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"hello").unwrap();
        while unread(fd.as_fd()) < 5 {
            std::thread::yield_now();
        }
        assert_eq!(peek(fd.as_fd(), &mut b).unwrap(), 5);
        assert_eq!(receive(fd.as_fd(), &mut b).unwrap(), 5);
        assert_eq!(send(fd.as_fd(), b"you").unwrap(), 3);
        shutdown_write(fd.as_fd()).unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert_eq!(all, "you");
        set_nodelay(fd.as_fd(), true).unwrap();
        set_buffers(fd.as_fd(), 8192, 8192).unwrap();
        drop_unsent(fd.as_fd()).unwrap();
        drop(fd);
        assert!(client.write_all(&[0; 9]).and_then(|()| client.write_all(&[0; 9])).is_err());
    }

    #[test]
    fn pieces_have_gaps_of_zeros_in_front() {
        let (a, b) = pair().unwrap();
        let mut all = vec![9];
        let mut take = |most| {
            receive_pieces(b.as_fd(), &mut all, 2, 3, most)
                .map(|n| (n, std::mem::replace(&mut all, vec![9])))
        };
        assert_eq!(take(5).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(a.as_fd(), b"abcdefgh").unwrap();
        assert_eq!(take(1).unwrap(), (1, b"\x09\0\0a".to_vec()));
        assert_eq!(take(4).unwrap(), (4, b"\x09\0\0bcd\0\0e".to_vec()));
        assert_eq!(take(99).unwrap(), (3, b"\x09\0\0fgh".to_vec()));
        send(a.as_fd(), &[7; 99]).unwrap();
        assert_eq!(take(99).unwrap().0, 3 * PIECES);
        drop(a);
        while take(99).unwrap().0 > 0 {}
        assert_eq!(take(99).unwrap(), (0, vec![9]));
    }

    #[test]
    fn only_a_pair_is_a_pair() {
        assert!(is_end_of_pair(seqpacket().unwrap().1.as_fd()));
        assert!(!is_end_of_pair(pair().unwrap().0.as_fd()));
        assert!(!is_end_of_pair(accepted("127.0.0.1:0", false).1.as_fd()));
        assert!(!is_end_of_pair(std::io::pipe().unwrap().0.as_fd()));
    }

    #[test]
    fn a_pair_has_no_address_and_no_signal() {
        let (a, b) = pair().unwrap();
        assert_eq!(peer(a.as_fd()).unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        drop(b);
        // A child of another test may still hold it.
        let gone = std::iter::repeat_with(|| send(a.as_fd(), b"x").err());
        let gone = gone.flatten().find(|e| e.kind() != io::ErrorKind::WouldBlock);
        assert_eq!(gone.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
