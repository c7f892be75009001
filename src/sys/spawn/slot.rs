//! What one start needs for itself on its way to exec: places for its connection and its standard
//! error, and a stack.

use crate::sys::check;
use crate::sys::stack::Stack;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A start's own place and stack.
#[derive(Debug)]
pub(super) struct Slot {
    /// A reserved low descriptor, which leads to /dev/null while nothing starts here.
    fd: OwnedFd,
    /// Another, the next higher one.
    errors: OwnedFd,
    holds_errors: bool,
    pub stack: Stack,
}

/// What a start has of a slot.
#[derive(Debug)]
pub(super) enum Place {
    Slot(Slot),
    /// The stack alone: another start has the rest, with a new one.
    Stack(#[expect(dead_code, reason = "the child is on it")] Stack),
}

impl Slot {
    pub fn new([fd, errors]: [OwnedFd; 2]) -> io::Result<Slot> {
        Ok(Slot { fd, errors, holds_errors: false, stack: Stack::new()? })
    }

    /// The slot with a new stack, for another start, and the stack of the child that is here. Err:
    /// there is no memory, and nothing has changed.
    pub fn split(self) -> Result<(Slot, Stack), Slot> {
        let Ok(new) = Stack::new() else { return Err(self) };
        let Slot { fd, errors, holds_errors, stack } = self;
        Ok((Slot { fd, errors, holds_errors, stack: new }, stack))
    }

    /// Where the connection is for the child.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn connection(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where a standard error that is neither the connection nor ours is for the child.
    pub fn errors(&self) -> RawFd {
        self.errors.as_raw_fd()
    }

    /// The start has such a standard error, or it has none.
    pub fn use_errors(&mut self, used: bool) {
        self.holds_errors = used;
    }

    /// Lets go of the connection and the standard error, which are the child's now.
    pub fn clear(&self, null: &OwnedFd) {
        let both = [Some(self.fd()), self.holds_errors.then(|| self.errors())];
        for fd in both.into_iter().flatten() {
            // It cannot fail: both are open.
            let _ = duplicate(null.as_raw_fd(), fd);
        }
    }
}

/// The lowest free descriptor above the standard ones.
pub(super) fn low(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let raw = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: it was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes `to`, a descriptor that is reserved here, lead to what `from` leads to.
pub(super) fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a slot of ours, so nobody else's descriptor is closed by it.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}
