//! Reads from Unix sockets without closing what others have sent through them (unix(7),
//! SCM_RIGHTS), where the kernel cannot refuse it (`local::take_rights`).
//!
//! Descriptors are closed by whoever reads the bytes that they came with, and thousands of sockets
//! can come so, whose close takes some milliseconds each (packet(7)). So what has come is looked at
//! before it is read: a look closes nothing, and the kernel says what it has left out. Whoever
//! finds descriptors gives the socket up. A byte of MSG_OOB is read past unseen, unless it is kept
//! in line with the others ([`socket::set_urgent_inline`]).

use super::{count, socket};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};

/// As [`socket::peek`]. `InvalidData`: descriptors have come with these bytes.
pub fn peek(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid msghdr: no name, and no room for descriptors.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    (head.msg_iov, head.msg_iovlen) = (&raw mut part, 1);
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: `head` leads to the buffer, which is writable for its whole length.
    let n = count(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut head, flags) })?;
    if head.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(n)
}

/// As [`socket::receive`]. `InvalidData`: as of [`peek`]; nothing was read.
pub fn receive(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let n = peek(fd, buffer)?;
    socket::receive(fd, &mut buffer[..n])
}

/// As [`socket::discard`]. `InvalidData`: as of [`peek`], with the first bytes.
pub fn discard(fd: BorrowedFd, most: usize) -> io::Result<usize> {
    socket::discard_by(receive, fd, most)
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_came_with_descriptors_is_not_read() {
        let ((a, b), (c, d)) = (socket::pair().unwrap(), socket::pair().unwrap());
        let mut bytes = [0; 8];
        let none = receive(b.as_fd(), &mut bytes).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        socket::send(a.as_fd(), b"ab").unwrap();
        socket::send(a.as_fd(), b"cd").unwrap();
        assert_eq!(receive(b.as_fd(), &mut bytes[..3]).unwrap(), 3);
        message::send(a.as_fd(), b"ef", &[c.as_fd()]).unwrap();
        drop(c);
        let refused = [
            peek(b.as_fd(), &mut bytes),
            receive(b.as_fd(), &mut bytes),
            discard(b.as_fd(), bytes.len()),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
        }
        assert_eq!(socket::peek(d.as_fd(), &mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(a);
        drop(b);
        assert_eq!(socket::peek(d.as_fd(), &mut bytes).unwrap(), 0);
    }

    #[test]
    fn an_urgent_byte_in_line_hides_none() {
        let ((a, b), (c, _d)) = (socket::pair().unwrap(), socket::pair().unwrap());
        socket::set_urgent_inline(b.as_fd(), true).unwrap();
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let (fds, part) = ([c.as_raw_fd()], [io::IoSlice::new(b"x")]);
        let rights = [ControlMessage::ScmRights(&fds)];
        if sendmsg::<()>(a.as_raw_fd(), &part, &rights, MsgFlags::MSG_OOB, None).is_err() {
            // Before Linux 5.15.
            return;
        }
        socket::send(a.as_fd(), b"more").unwrap();
        let refused = receive(b.as_fd(), &mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }
}
