//! What this process was started with: descriptors, by number, and environment variables, by name.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The value of a variable, byte for byte. None: it is not set.
pub fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

/// Takes over an inherited descriptor (3 to 63); each can be taken once. Errors: EBADF if it is not
/// open, or was taken before.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicU64 = AtomicU64::new(0b111);
    let bit = u32::try_from(number).ok().and_then(|n| 1u64.checked_shl(n));
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    let bit = bit.ok_or_else(bad)?;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(bad());
    }
    // SAFETY: F_SETFD only sets a flag of a descriptor of ours, and fails for one that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (fcntl succeeded), and the bit above makes this its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
