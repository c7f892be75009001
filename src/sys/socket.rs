//! Sockets: listeners, what comes from them, and pairs.
//!
//! What is received and sent here never waits (MSG_DONTWAIT) and never raises SIGPIPE, whatever
//! mode the descriptor is in: a service gets a descriptor that blocks, as inetd's do, so no
//! descriptor is ever made nonblocking but a listener.

use super::shared::{self, Shared};
use super::{check, count};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

/// A listener that does not block. `[::]` takes IPv4 too, and is 0.0.0.0 on a system without IPv6.
/// With `mptcp` it speaks Multipath TCP (RFC 8684) where the kernel does, plain TCP otherwise; a
/// plain client is served the same either way.
pub fn listen(address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
    listen_sharing(address, mptcp, false)
}

/// As [`listen`], where listeners of our own have the port already, for all addresses or for one of
/// them (`[::]:1` and `127.0.0.1:1`). The port is shared for this moment only (SO_REUSEPORT,
/// socket(7)), and with nobody else's.
pub fn listen_beside(address: SocketAddr, mptcp: bool, own: &[BorrowedFd]) -> io::Result<OwnedFd> {
    let share = |on: bool| own.iter().try_for_each(|fd| setsockopt(fd, sockopt::ReusePort, &on));
    share(true)?;
    let made = listen_sharing(address, mptcp, true);
    share(false)?;
    let made = made?;
    setsockopt(&made, sockopt::ReusePort, &false)?;
    Ok(made)
}

fn listen_sharing(address: SocketAddr, mptcp: bool, shared: bool) -> io::Result<OwnedFd> {
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

fn is_without_family(e: &io::Error) -> bool {
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

/// Does it accept connections? Not one that any process that holds it has shut down.
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

pub(super) fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    // SAFETY: the address is read for its length.
    with_address(address, |raw, len| check(unsafe { libc::bind(fd.as_raw_fd(), raw, len) }))
}

pub(super) fn connect(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    // SAFETY: the address is read for its length.
    with_address(address, |raw, len| check(unsafe { libc::connect(fd.as_raw_fd(), raw, len) }))
}

/// The address as the kernel wants it, for as long as the call lasts.
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

/// All addresses of a family.
pub(super) fn any(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// A socket that does not block.
pub(super) fn stream(address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is handed over.
    let made = |protocol| check(unsafe { libc::socket(family, kind, protocol) });
    let fd = match mptcp.then(|| made(libc::IPPROTO_MPTCP)) {
        Some(Ok(fd)) => fd,
        _ => made(libc::IPPROTO_TCP)?,
    };
    // SAFETY: the descriptor was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next connection and its canonical peer; the descriptor blocks. `WouldBlock`: there is none.
/// [`is_transient`] and [`is_scarcity`] tell what other errors mean.
pub fn accept(listener: BorrowedFd) -> io::Result<(Shared, SocketAddr)> {
    let (fd, address) = address_from(|addr, len| {
        // SAFETY: `addr` has room for `len` bytes.
        unsafe { libc::accept4(listener.as_raw_fd(), addr, len, libc::SOCK_CLOEXEC) }
    })?;
    Ok((shared::accepted(fd)?, canonical(address?)))
}

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

/// The system has no room: descriptors, processes or memory. To be tried again when something was
/// freed.
pub fn is_scarcity(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(is_scarce)
}

/// [`is_scarcity`] of an error's number. EAGAIN of fork(2) is a limit of processes.
pub(super) fn is_scarce(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
}

/// The other end's address, canonical. An error where it is not an internet socket.
pub fn peer(fd: BorrowedFd) -> io::Result<SocketAddr> {
    // SAFETY: the pointer has room for that length.
    let (_, a) = address_from(|addr, len| unsafe { libc::getpeername(fd.as_raw_fd(), addr, len) })?;
    a.map(canonical)
}

/// This end's address, canonical. An error where it is not an internet socket.
pub fn local(fd: BorrowedFd) -> io::Result<SocketAddr> {
    // SAFETY: the pointer has room for that length.
    let (_, a) = address_from(|addr, len| unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) })?;
    a.map(canonical)
}

/// An IPv4 address in IPv6's clothes (RFC 4291, 2.5.5.2) as the IPv4 address that it is.
pub fn canonical(a: SocketAddr) -> SocketAddr {
    match a.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, a.port()).into(),
        IpAddr::V6(_) => a,
    }
}

type Written = io::Result<SocketAddr>;

fn address_from(
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

/// Two ends of a stream that block. Nobody's close of such a one waits, whatever it was told
/// (SO_LINGER is TCP's).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    connected(libc::SOCK_STREAM)
}

/// Two ends of a channel that keeps messages apart.
pub fn seqpacket() -> io::Result<(OwnedFd, OwnedFd)> {
    connected(libc::SOCK_SEQPACKET)
}

fn connected(kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Takes what is there. 0: the other end has finished. `WouldBlock`: nothing yet.
pub fn receive(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_DONTWAIT)
}

/// How many pieces [`receive_pieces`] takes at once.
pub const PIECES: usize = 8;

/// Takes what is there, at most [`PIECES`] pieces and at most `most` bytes, behind what the buffer
/// has: in front of each piece are `gap` zeros, for a header; the last piece may be shorter. The
/// bytes taken; 0: the other end has finished. `WouldBlock`: nothing yet.
pub fn receive_pieces(
    fd: BorrowedFd,
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
) -> io::Result<usize> {
    take_pieces(buffer, gap, piece, most, |parts, n| {
        // SAFETY: all zeros is a message without an address, parts and rights.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts;
        message.msg_iovlen = n as _;
        // SAFETY: take_pieces says that each part is writable for its whole length.
        count(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    })
}

/// As [`receive_pieces`], of whatever read(2) reads; it waits where that does.
pub fn read_pieces(
    fd: BorrowedFd,
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
) -> io::Result<usize> {
    take_pieces(buffer, gap, piece, most, |parts, n| {
        // SAFETY: take_pieces says that each part is writable for its whole length.
        count(unsafe { libc::readv(fd.as_raw_fd(), parts, n as _) })
    })
}

/// Has `read` fill parts of the buffer's own memory, each writable for its whole length: it says
/// how many bytes it has filled, in their order.
fn take_pieces(
    buffer: &mut Vec<u8>,
    gap: usize,
    piece: usize,
    most: usize,
    read: impl FnOnce(*mut libc::iovec, usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let pieces = most.div_ceil(piece).min(PIECES);
    let most = most.min(pieces * piece);
    buffer.reserve_exact(pieces * (gap + piece));
    let spare = buffer.spare_capacity_mut();
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES];
    for (k, (part, room)) in
        parts.iter_mut().zip(spare.chunks_exact_mut(gap + piece)).take(pieces).enumerate()
    {
        let room = &mut room[gap..];
        *part = libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: piece.min(most - k * piece),
        };
    }
    let n = read(parts.as_mut_ptr(), pieces)?;
    let got = n.div_ceil(piece);
    spare
        .chunks_mut(gap + piece)
        .take(got)
        .flat_map(|c| &mut c[..gap])
        .for_each(|b| _ = b.write(0));
    // SAFETY: the kernel has filled the pieces in their order, and the gaps in front of them were
    // filled here.
    unsafe { buffer.set_len(buffer.len() + got * gap + n) };
    Ok(n)
}

/// Looks at what is there and leaves it.
pub fn peek(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

fn receive_with(fd: BorrowedFd, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its whole length.
    count(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Takes up to `most` bytes and throws them away, without copying them (MSG_TRUNC, tcp(7)). 0: the
/// other end has finished.
pub fn discard(fd: BorrowedFd, most: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: for TCP nothing is written with MSG_TRUNC, so no buffer is needed.
    count(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), most, flags) })
}

/// A listener that was handed to us must not block either.
pub fn set_nonblocking(fd: BorrowedFd) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL hand no memory over.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Gives as much as is taken now; how many bytes. `WouldBlock`: none. `BrokenPipe`: nobody reads
/// any more.
pub fn send(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are readable for their whole length.
    count(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// The same for several pieces at once.
pub fn send_parts(fd: BorrowedFd, parts: &[io::IoSlice]) -> io::Result<usize> {
    const PARTS_MAX: usize = 1024;
    // SAFETY: all zeros is a valid msghdr.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    // An IoSlice is an iovec (its documentation says so); sendmsg only reads them.
    head.msg_iov = parts.as_ptr().cast_mut().cast();
    head.msg_iovlen = parts.len().min(PARTS_MAX) as _;
    // SAFETY: the pieces are readable for their whole lengths and outlive the call.
    count(unsafe { libc::sendmsg(fd.as_raw_fd(), &head, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) })
}

/// A socket as others' code reads and writes it: never waiting, `WouldBlock` where it would have
/// to.
pub struct Stream<'fd>(pub BorrowedFd<'fd>);

impl io::Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        receive(self.0, bytes)
    }
}

impl io::Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0, bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice]) -> io::Result<usize> {
        send_parts(self.0, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says that nothing more will be sent.
pub fn shutdown_write(fd: BorrowedFd) -> io::Result<()> {
    shutdown(fd, libc::SHUT_WR)
}

/// Ends both directions, for every process that holds this socket.
pub fn shutdown_both(fd: BorrowedFd) -> io::Result<()> {
    shutdown(fd, libc::SHUT_RDWR)
}

/// Acknowledges what has come at once: the other end's close is then known for one. Does nothing on
/// what is no TCP socket.
pub fn acknowledge(fd: BorrowedFd) {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option is an int, which is read.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUICKACK,
            (&raw const on).cast(),
            size,
        )
    };
}

/// What was cut off must not look like an end: once it is closed, the other end of a TCP connection
/// sees a reset, and that of a pair sees both directions end at once.
pub fn cut(fd: BorrowedFd) {
    // Whoever has gone already need not be told.
    let _ = if local(fd).is_ok() { drop_unsent(fd) } else { shutdown_both(fd) };
}

fn shutdown(fd: BorrowedFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// Bytes that were received and not yet read; 0 where it cannot be told.
pub fn unread(fd: BorrowedFd) -> usize {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let asked = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut n) };
    if asked < 0 {
        return 0;
    }
    usize::try_from(n).unwrap_or(0)
}

/// Sends small writes at once (TCP_NODELAY); for relays, whose writes are as large as they will
/// get.
pub fn set_nodelay(fd: BorrowedFd, on: bool) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::TcpNoDelay, &on)?)
}

/// What was not yet delivered when the socket is closed is dropped, and the other end sees a reset
/// (SO_LINGER 0, socket(7)).
pub fn drop_unsent(fd: BorrowedFd) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
}

/// Bounds what the kernel holds for this socket, in bytes (it counts its own overhead by doubling
/// them: socket(7)).
pub fn set_buffers(fd: BorrowedFd, send: usize, receive: usize) -> io::Result<()> {
    set_send_buffer(fd, send)?;
    Ok(setsockopt(&fd, sockopt::RcvBuf, &receive)?)
}

/// As [`set_buffers`], of what was sent and not taken yet; the system's own bound
/// (net.core.wmem_max) goes before.
pub fn set_send_buffer(fd: BorrowedFd, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(&fd, sockopt::SndBuf, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;

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
