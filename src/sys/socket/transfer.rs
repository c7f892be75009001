//! Receives and sends bytes without waiting.

use crate::sys::count;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use syscalls::{Errno, Sysno, syscall};

/// Takes the bytes that have come. 0: the other end has finished. `WouldBlock`: there are none yet.
pub fn receive(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_DONTWAIT)
}

/// As [`receive`], but the bytes stay to be received.
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
    // SAFETY: for TCP nothing is written with MSG_TRUNC, so no buffer is needed; for other sockets
    // the system finds that there is none (EFAULT).
    match count(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), most, flags) }) {
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => discard_by(receive, fd, most),
        done => done,
    }
}

/// [`discard`] for a Unix socket, which copies what it gives away: `receive` takes the copies.
pub(in crate::sys) fn discard_by(
    receive: fn(BorrowedFd, &mut [u8]) -> io::Result<usize>,
    fd: BorrowedFd,
    most: usize,
) -> io::Result<usize> {
    let (mut buffer, mut taken) = ([0; 8192], 0);
    while taken < most {
        let part = buffer.len().min(most - taken);
        match receive(fd, &mut buffer[..part]) {
            Ok(0) => break,
            Ok(n) => taken += n,
            Err(e) if taken == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(taken)
}

/// Sends as much as the socket takes now; how many bytes. `WouldBlock`: none. `BrokenPipe`: nobody
/// reads any more.
pub fn send(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    send_with(fd, bytes, 0)
}

/// As [`send`], but of TCP only whole segments go at once (MSG_MORE, send(2)): the rest waits, for
/// 0.2 s at most, and goes with what follows, the end of this direction included.
pub fn send_with_more(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    send_with(fd, bytes, libc::MSG_MORE)
}

fn send_with(fd: BorrowedFd, bytes: &[u8], more: libc::c_int) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    // SAFETY: the bytes are readable for their whole length.
    count(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// [`send`] for several pieces at once, or the first of them where the kernel has no such call
/// (before Linux 6.4). A net process may not make sendmsg(2) (`confine`). Rust's runtime ignores
/// SIGPIPE.
pub fn send_parts(fd: BorrowedFd, parts: &[io::IoSlice]) -> io::Result<usize> {
    const PARTS_MAX: usize = 1024;
    // Where the file stands, which a socket has none of.
    const HERE: libc::c_long = -1;
    let (call, fd_number, flags) = (Sysno::pwritev2, fd.as_raw_fd(), libc::RWF_NOWAIT);
    // An IoSlice is an iovec (its documentation says so).
    let (all, n) = (parts.as_ptr(), parts.len().min(PARTS_MAX));
    // SAFETY: the pieces are readable for their whole lengths and outlive the call.
    match unsafe { syscall!(call, fd_number, all, n, HERE, HERE, flags) } {
        Err(Errno::EOPNOTSUPP) => match parts.iter().find(|part| !part.is_empty()) {
            Some(part) => send(fd, part),
            None => Ok(0),
        },
        sent => sent.map_err(|e| io::Error::from_raw_os_error(e.into_raw())),
    }
}

/// A socket for code that uses std's Read and Write: it never waits, and returns `WouldBlock` where
/// it would have to.
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
