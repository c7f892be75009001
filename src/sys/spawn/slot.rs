//! What one start needs for itself on its way to exec: places for its connection and its standard
//! error, and a stack.

use crate::sys::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

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

impl Slot {
    pub fn new([fd, errors]: [OwnedFd; 2]) -> io::Result<Slot> {
        Ok(Slot { fd, errors, holds_errors: false, stack: Stack::new()? })
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

/// The child's stack, with a page below it that faults.
#[derive(Debug)]
pub(super) struct Stack(*mut libc::c_void);

// SAFETY: the memory is this value's alone.
unsafe impl Send for Stack {}

impl Stack {
    /// Bytes; the child's calls are shallow. A multiple of any page size in use.
    const SIZE: usize = 128 * 1024;
    const GUARD: usize = 64 * 1024;

    fn new() -> io::Result<Stack> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
        );
        // SAFETY: a new mapping, of which the lower part becomes the guard.
        unsafe {
            let low = libc::mmap(ptr::null_mut(), Self::SIZE, access, kind, -1, 0);
            if low == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Stack(low);
            check(libc::mprotect(low, Self::GUARD, libc::PROT_NONE))?;
            Ok(stack)
        }
    }

    /// Forgets what the address sanitizer has noted of the last child's calls here, from which that
    /// child never returned: it left by exec.
    #[cfg(asan)]
    pub fn unpoison(&self) {
        let at = self.0.wrapping_byte_add(Self::GUARD);
        // SAFETY: the memory is this value's own, and no child is on it.
        unsafe { crate::sys::sanitizer::unpoison(at, Self::SIZE - Self::GUARD) };
    }

    /// Stacks grow down on every system that this runs on.
    pub fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(Self::SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no child is left on it.
        unsafe { libc::munmap(self.0, Self::SIZE) };
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
