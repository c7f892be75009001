//! The stack of a process that shares our memory, with a page below it that faults.

use super::check;
use std::io;
use std::ptr;

/// See the module.
#[derive(Debug)]
pub struct Stack(*mut libc::c_void);

// SAFETY: the memory is this value's alone.
unsafe impl Send for Stack {}
// SAFETY: likewise, and a reference to it gives away its address alone.
unsafe impl Sync for Stack {}

impl Stack {
    /// Bytes; the child's calls are shallow. A multiple of any page size in use.
    const SIZE: usize = 128 * 1024;
    const GUARD: usize = 64 * 1024;

    pub fn new() -> io::Result<Stack> {
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
        unsafe { super::sanitizer::unpoison(at, Self::SIZE - Self::GUARD) };
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
