//! The last descriptors of this process, reserved for what must not fail.
//!
//! The kernel gives the lowest number that is free, so the number of a new descriptor tells how
//! many are left, at no cost.

use super::process;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// The reserved descriptors: all numbers from this one on.
#[derive(Debug, Clone, Copy)]
pub struct Reserve(RawFd);

impl Reserve {
    /// The last numbers below the present limit: `most` of them, or an eighth of all if that is
    /// less.
    pub fn of(most: RawFd) -> Reserve {
        let limit = RawFd::try_from(process::nofile()).unwrap_or(RawFd::MAX);
        Reserve(limit - most.min(limit / 8))
    }

    /// Is this a reserved number?
    pub fn has(self, fd: impl AsFd) -> bool {
        fd.as_fd().as_raw_fd() >= self.0
    }

    /// Returns what was made. If one of the two has a reserved number, both are closed, and the
    /// error is that of a process without a descriptor left (EMFILE).
    pub fn but<T: AsFd>(self, made: io::Result<(T, T)>) -> io::Result<(T, T)> {
        match made {
            Ok((a, b)) if self.has(&a) || self.has(&b) => {
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
            made => made,
        }
    }

    /// Returns the one that was made. If it has a reserved number it is closed, with that error.
    pub fn but_one<T: AsFd>(self, made: io::Result<T>) -> io::Result<T> {
        match made {
            Ok(fd) if self.has(&fd) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            made => made,
        }
    }

    /// Is none of the reserved numbers in use?
    pub fn is_unused(self) -> bool {
        let limit = RawFd::try_from(process::nofile()).unwrap_or(RawFd::MAX);
        // SAFETY: F_GETFD hands no memory over, and fails where there is no such descriptor.
        (self.0..limit).all(|n| unsafe { libc::fcntl(n, libc::F_GETFD) } < 0)
    }

    /// Do the reserved numbers begin after this one?
    pub fn is_after(self, number: RawFd) -> bool {
        number < self.0
    }
}

/// Can this process open `n` more descriptors? `open` is any open one.
pub fn are_free(open: BorrowedFd, n: usize) -> bool {
    (0..n).map(|_| open.try_clone_to_owned()).collect::<io::Result<Vec<_>>>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;

    #[test]
    fn the_last_numbers_are_recognised() {
        let pair = || socket::pair();
        assert!(Reserve(RawFd::MAX).but(pair()).is_ok());
        let none = Reserve(0).but(pair()).expect_err("none is to be had");
        assert!(socket::is_out_of_descriptors(&none));
        assert!(Reserve(0).but_one(Ok(pair().expect("a pair").0)).is_err());
        let (a, b) = pair().expect("a pair");
        let last = Reserve(a.as_raw_fd().max(b.as_raw_fd()));
        assert!(last.has(&a) != last.has(&b));
        assert!(are_free(a.as_fd(), 2));
    }
}
