//! The standard descriptors (0 to 2), and /dev/null, to which unused ones are redirected.

use crate::sys::check;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `/dev/null`, for reading and writing.
pub fn null() -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    Ok(file.into())
}

/// Redirects a standard descriptor (0 to 2) to /dev/null.
pub fn redirect_to_null(number: i32) -> io::Result<()> {
    redirect(&null()?.into(), number)
}

pub(super) fn redirect(to: &File, number: i32) -> io::Result<()> {
    // SAFETY: the standard descriptors belong to the whole process and stay open; what they lead to
    // is ours to choose.
    check(unsafe { libc::dup2(to.as_fd().as_raw_fd(), number) }).map(drop)
}
