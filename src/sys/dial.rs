//! Outgoing connections. [`begin`] starts one; once poll(2) reports it writable, [`finish`] says
//! whether it succeeded.

use super::{check, socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Begins a connection; the descriptor does not block. `mptcp`: it is Multipath TCP, if the kernel
/// has that. On Linux 6.18 such a socket, even one that fell back to TCP, stalls for a
/// retransmission time whenever its small first receive window is full (36 MB/s on loopback).
pub fn begin(address: SocketAddr, mptcp: bool) -> io::Result<OwnedFd> {
    let fd = socket::stream(address, mptcp)?;
    match socket::connect(&fd, address) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(fd),
    }
}

/// Is it connected, as far as can be told without waiting? Errors: why it will not be.
pub fn look(fd: BorrowedFd) -> io::Result<bool> {
    use nix::sys::socket::{getsockopt, sockopt};
    if socket::peer(fd).is_ok() {
        return Ok(true);
    }
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(false),
        n => Err(io::Error::from_raw_os_error(n)),
    }
}

/// Says whether the connection succeeded, once the descriptor is writable. From then on it blocks,
/// and sends small writes at once.
pub fn finish(fd: BorrowedFd) -> io::Result<()> {
    use nix::sys::socket::{getsockopt, sockopt};
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => {}
        n => return Err(io::Error::from_raw_os_error(n)),
    }
    // SAFETY: F_GETFL and F_SETFL hand no memory over.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
    socket::set_nodelay(fd, true)
}

#[cfg(test)]
mod tests {
    use super::super::poll::{self, Poll};
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_connection_is_decided_when_it_is_writable() {
        let decided = |address: SocketAddr| -> io::Result<()> {
            let fd = begin(address, false)?;
            let mut polls = [Poll::new(fd.as_fd(), false, true)];
            poll::wait(&mut polls, Some(Duration::from_secs(20)))?;
            assert!(polls[0].writable());
            finish(fd.as_fd())
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        decided(address).unwrap();
        drop(listener);
        assert_eq!(decided(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
