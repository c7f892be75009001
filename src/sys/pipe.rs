//! Bytes that go from one socket to another inside the kernel, through a pipe (splice(2)): they are
//! not copied, and this process never sees them.
//!
//! splice(2) has no flag like MSG_DONTWAIT: it waits for a socket that blocks. So both sockets must
//! not block ([`never_waits`]).

use super::{check, count};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// A pipe of which nobody else has an end, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    holds: usize,
}

/// The two ends of a new pipe: where it is read, and where it is written.
pub fn ends() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` holds two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), FLAGS) })?;
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

impl Pipe {
    /// An empty one, of the two [`ends`], for about this many bytes; for fewer where the system's
    /// limit for this user is lower (pipe(7)).
    pub fn new((reader, writer): (OwnedFd, OwnedFd), bytes: libc::c_int) -> Pipe {
        // An error means that it stays as it is, which serves as well.
        // SAFETY: F_SETPIPE_SZ hands no memory over.
        let _ = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
        Pipe { reader, writer, holds: 0 }
    }

    /// Bytes that are in it.
    pub fn holds(&self) -> usize {
        self.holds
    }

    /// Takes up to `most` bytes from a socket. 0 and `WouldBlock`: splice(2) finds none, and only a
    /// receive can tell why: before an urgent byte it says the same as at the end.
    pub fn fill(&mut self, from: BorrowedFd, most: usize) -> io::Result<usize> {
        let n = splice(from.as_raw_fd(), self.writer.as_raw_fd(), most)?;
        self.holds += n;
        Ok(n)
    }

    /// Gives a socket what is in it, as far as the socket takes it now. `WouldBlock`: nothing.
    pub fn drain(&mut self, to: BorrowedFd) -> io::Result<usize> {
        let n = splice(self.reader.as_raw_fd(), to.as_raw_fd(), self.holds)?;
        self.holds -= n;
        Ok(n)
    }
}

/// How a pipe is made, which is also what a filter of system calls allows.
pub(super) const FLAGS: libc::c_int = libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Is this socket one that does not block?
pub fn never_waits(fd: BorrowedFd) -> bool {
    // SAFETY: F_GETFL hands no memory over.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

fn splice(from: libc::c_int, to: libc::c_int, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: neither a socket nor a pipe has an offset, so no memory is handed over.
    count(unsafe { libc::splice(from, null_mut(), to, null_mut(), most, flags) })
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;
    use std::io::ErrorKind::WouldBlock;
    use std::os::fd::AsFd;

    #[test]
    fn bytes_go_through_and_nothing_waits() {
        let (a, b) = socket::pair().unwrap();
        let (c, d) = socket::pair().unwrap();
        assert!(!never_waits(b.as_fd()));
        for fd in [&b, &c] {
            socket::set_nonblocking(fd.as_fd()).unwrap();
            assert!(never_waits(fd.as_fd()));
        }
        let mut pipe = Pipe::new(ends().unwrap(), 128 * 1024);
        assert_eq!(pipe.fill(b.as_fd(), 9).unwrap_err().kind(), WouldBlock);
        socket::send(a.as_fd(), b"abcdef").unwrap();
        assert_eq!((pipe.fill(b.as_fd(), 4).unwrap(), pipe.holds()), (4, 4));
        assert_eq!((pipe.drain(c.as_fd()).unwrap(), pipe.holds()), (4, 0));
        assert_eq!((pipe.fill(b.as_fd(), 4).unwrap(), pipe.holds()), (2, 2));
        // A socket that takes no more.
        while socket::send(c.as_fd(), &[0; 4096]).is_ok() {}
        assert_eq!(pipe.drain(c.as_fd()).unwrap_err().kind(), WouldBlock);
        assert_eq!(pipe.holds(), 2);
        let mut first = [0; 4];
        assert_eq!(socket::receive(d.as_fd(), &mut first).unwrap(), 4);
        assert_eq!(&first, b"abcd");
        drop(a);
        assert_eq!(pipe.fill(b.as_fd(), 4).unwrap(), 0);
    }
}
