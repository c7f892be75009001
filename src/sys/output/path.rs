//! The log's file by its name (`sys::directory_calls`).

use crate::sys::{directory_calls, file};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Opens it to append to it. It is made if it does not exist.
pub fn open(path: &str) -> io::Result<File> {
    let at = PathBuf::from(path);
    directory_calls::open(Path::new(path), move || open_now(&at)).map(File::from)
}

fn open_now(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.file_type().is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(file.into())
}

/// As [`file::may_append`].
pub fn may_append(path: &str) -> io::Result<()> {
    let name = path.to_string();
    directory_calls::make(Path::new(path), &[], move |_| file::may_append(&name))
}
