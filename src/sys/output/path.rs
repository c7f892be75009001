//! The log's file by its name. Who may list its directory can keep that directory's lock, by a call
//! (getdents(2)) with memory that somebody else provides (userfaultfd(2), FUSE): whoever makes a file
//! there waits for it, and then whoever looks for one, and no signal ends that. So a process beside
//! this one does (`sys::bounded_calls`).

use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::file;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A disk may be slow.
const LONGEST: Duration = Duration::from_secs(1);
const LOCKED: &str = "the system has not answered in time: a process may keep the lock of its directory (a call that lists it does not return)";

static CALLS: Mutex<Option<BoundedCalls>> = Mutex::new(None);

fn with_calls<T>(call: impl FnOnce(&mut BoundedCalls) -> Option<io::Result<T>>) -> io::Result<T> {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = calls.get_or_insert_default();
    calls.guard_for(LONGEST);
    let answer = call(calls);
    calls.rest();
    answer.unwrap_or_else(|| Err(io::Error::new(ErrorKind::TimedOut, LOCKED)))
}

/// Opens it to append to it. It is made if it does not exist.
pub fn open(path: &str) -> io::Result<File> {
    let path = path.to_string();
    let opened = with_calls(|calls| calls.make_socket(&[], move |_| open_now(&path)));
    opened.map(File::from)
}

fn open_now(path: &str) -> io::Result<OwnedFd> {
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
    let path = path.to_string();
    with_calls(|calls| calls.make(&[], move |_| file::may_append(&path)))
}
