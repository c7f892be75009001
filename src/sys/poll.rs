//! Waiting for a few descriptors (poll(2)).
//!
//! An entry without interest is left out of the call, so that a hung-up descriptor that nobody
//! handles never makes a loop spin.

use super::check;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// One descriptor, the events that are wanted, and after [`wait`] the events that it has.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Poll<'fd>(libc::pollfd, PhantomData<BorrowedFd<'fd>>);

impl<'fd> Poll<'fd> {
    pub fn new(fd: BorrowedFd<'fd>, read: bool, write: bool) -> Poll<'fd> {
        let interest = |wanted, flag| if wanted { flag } else { 0 };
        let events =
            interest(read, libc::POLLIN | libc::POLLRDHUP) | interest(write, libc::POLLOUT);
        // poll(2) ignores an entry whose descriptor is negative.
        let fd = if events == 0 { -1 } else { fd.as_raw_fd() };
        Poll(libc::pollfd { fd, events, revents: 0 }, PhantomData)
    }

    /// What has a descriptor of its own: reading from it is wanted.
    pub fn readable_of(owner: &'fd impl AsRawFd) -> Poll<'fd> {
        let (fd, events) = (owner.as_raw_fd(), libc::POLLIN);
        Poll(libc::pollfd { fd, events, revents: 0 }, PhantomData)
    }

    /// No descriptor: keeps a place in a list.
    pub fn none() -> Poll<'fd> {
        Poll(libc::pollfd { fd: -1, events: 0, revents: 0 }, PhantomData)
    }

    /// Waits for nothing but its end ([`Poll::hung`]).
    pub fn hangup(fd: BorrowedFd<'fd>) -> Poll<'fd> {
        Poll(libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }, PhantomData)
    }

    /// Waits for its end ([`Poll::hung`]) and, if `finishes`, that of the direction that is read
    /// ([`Poll::ended`]), but for nothing that can be read.
    pub fn end(fd: BorrowedFd<'fd>, finishes: bool, write: bool) -> Poll<'fd> {
        let interest = |wanted, flag| if wanted { flag } else { 0 };
        let events = interest(finishes, libc::POLLRDHUP) | interest(write, libc::POLLOUT);
        Poll(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }, PhantomData)
    }

    /// There is something to read, or its end, or an error that a read returns. Only if reading was
    /// wanted.
    pub fn readable(&self) -> bool {
        self.got(libc::POLLIN)
    }

    /// Something can be written, or a write returns the error. Only if writing was wanted.
    pub fn writable(&self) -> bool {
        self.got(libc::POLLOUT)
    }

    /// The direction that is read has ended; there may be bytes before its end. Only if that was
    /// wanted.
    pub fn ended(&self) -> bool {
        self.got(libc::POLLRDHUP)
    }

    /// Both directions have ended, or broken.
    pub fn hung(&self) -> bool {
        self.0.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// It ended by an error: a connection that was reset, a pipe that nobody reads.
    pub fn broken(&self) -> bool {
        self.0.revents & (libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Takes the result of `other`, an entry for the same descriptor.
    pub fn answer_as(&mut self, other: &Poll) {
        self.0.revents = other.0.revents;
    }

    fn got(&self, what: i16) -> bool {
        self.0.events & what != 0 && (self.0.revents & what != 0 || self.hung())
    }
}

/// Waits until one of them is ready, or for `timeout` (rounded up to a millisecond; None: for
/// ever). How many are ready. It goes on after a signal, which is no end of the time:
/// `sys::interrupt` sends many.
pub fn wait(entries: &mut [Poll], timeout: Option<Duration>) -> io::Result<usize> {
    let until = timeout.and_then(|t| Instant::now().checked_add(t));
    let n = entries.len() as libc::nfds_t;
    let mut left = timeout;
    loop {
        let millis =
            left.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        // SAFETY: Poll is a transparent pollfd, so this is an array of `n` of them; the descriptors
        // outlive the entries.
        match check(unsafe { libc::poll(entries.as_mut_ptr().cast(), n, millis) }) {
            Ok(ready) => return Ok(ready as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                left = until.map(|u| u.saturating_duration_since(Instant::now()));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Is there something to read or to accept, or an end? Never waits. If poll(2) fails: yes.
pub fn is_readable(fd: BorrowedFd) -> bool {
    let mut p = Poll::new(fd, true, false);
    // SAFETY: one valid pollfd; a timeout of 0 never waits.
    unsafe { libc::poll(&raw mut p.0, 1, 0) != 0 }
}

/// Has an urgent byte come, or been announced? Never waits. If poll(2) fails: no.
pub fn is_urgent(fd: BorrowedFd) -> bool {
    let mut p = Poll::hangup(fd);
    p.0.events = libc::POLLPRI;
    // SAFETY: one valid pollfd; a timeout of 0 never waits.
    unsafe { libc::poll(&raw mut p.0, 1, 0) == 1 && p.0.revents & libc::POLLPRI != 0 }
}

/// Have both directions ended, or broken? Never waits. If poll(2) fails: no.
pub fn has_hung(fd: BorrowedFd) -> bool {
    let mut p = Poll::hangup(fd);
    // SAFETY: one valid pollfd; a timeout of 0 never waits.
    unsafe { libc::poll(&raw mut p.0, 1, 0) };
    p.hung()
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn tells_what_was_asked_and_is_silent_without_interest() {
        let (a, b) = socket::pair().unwrap();
        let mut p = [Poll::new(a.as_fd(), true, false), Poll::new(b.as_fd(), true, true)];
        assert_eq!(wait(&mut p, Some(Duration::ZERO)).unwrap(), 1);
        assert!(!p[0].readable() && p[1].writable() && !p[1].readable());
        drop(b);
        let mut p = [Poll::new(a.as_fd(), true, false)];
        assert_eq!(wait(&mut p, None).unwrap(), 1);
        assert!(p[0].readable() && p[0].hung() && !p[0].writable());
        let mut p = [Poll::new(a.as_fd(), false, false)];
        assert_eq!(wait(&mut p, Some(Duration::from_micros(10))).unwrap(), 0);
    }

    #[test]
    fn readable_is_what_is_there_or_ended() {
        let (a, b) = socket::pair().unwrap();
        assert!(!is_readable(a.as_fd()));
        socket::send(b.as_fd(), b"x").unwrap();
        assert!(is_readable(a.as_fd()));
        socket::receive(a.as_fd(), &mut [0; 1]).unwrap();
        assert!(!is_readable(a.as_fd()));
        drop(b);
        assert!(is_readable(a.as_fd()));
    }
}
