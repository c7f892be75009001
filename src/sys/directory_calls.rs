//! Calls that make, remove or look for a file in a directory. Whoever may list the directory can
//! keep its lock, by a call (getdents(2)) with memory that somebody else provides (userfaultfd(2),
//! FUSE): whoever makes or removes a file there waits for that, and then whoever looks for one, and
//! no signal ends it. So a process beside this one makes such calls, for each directory its own
//! (`bounded_calls`).

use super::bounded_calls::BoundedCalls;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A disk may be slow.
const LONGEST: Duration = Duration::from_secs(1);
const LOCKED: &str = "the system has not answered in time: a process may keep the lock of its directory (a call that lists it does not return)";

/// By directory.
static CALLS: Mutex<BTreeMap<PathBuf, BoundedCalls>> = Mutex::new(BTreeMap::new());

/// One that concerns this path; it has copies of the descriptors `with`. `TimedOut`: there is no
/// answer in time.
pub fn make<T: Send + 'static>(
    path: &Path,
    with: &[BorrowedFd],
    call: impl FnOnce(&[BorrowedFd]) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    bounded(path, |calls| calls.make(with, call))
}

/// The same of one that is made in any case: where there is no answer in time, by a process of its
/// own, for which nobody waits. It may be made twice.
pub fn make_late(
    path: &Path,
    with: &[BorrowedFd],
    call: impl Fn(&[BorrowedFd]) + Clone + Send + 'static,
) {
    let first = call.clone();
    let made = make(path, with, move |with| {
        first(with);
        Ok(())
    });
    if made.is_err() {
        let mut calls = BoundedCalls::default();
        calls.guard_for(Duration::ZERO);
        let _ = calls.make(with, move |with| call(with));
    }
}

/// The same of one that opens a file.
pub fn open(
    path: &Path,
    call: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
) -> io::Result<OwnedFd> {
    bounded(path, |calls| calls.make_socket(&[], move |_| call()))
}

fn bounded<T>(
    path: &Path,
    call: impl FnOnce(&mut BoundedCalls) -> Option<io::Result<T>>,
) -> io::Result<T> {
    let mut all = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = all.entry(path.parent().unwrap_or(path).into()).or_default();
    calls.guard_for(LONGEST);
    let answer = call(calls);
    calls.rest();
    answer.unwrap_or_else(|| Err(io::Error::new(ErrorKind::TimedOut, LOCKED)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn who_keeps_one_directory_locked_keeps_no_other() {
        let (end, ended) = mpsc::channel::<()>();
        let (here, there) = (Path::new("/a/x"), Path::new("/b/x"));
        let kept = make(here, &[], move |_| Ok(ended.recv().is_err()));
        assert_eq!(kept.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(
            make(Path::new("/a/y"), &[], |_| Ok(1)).unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        assert_eq!(make(there, &[], |_| Ok(1)).unwrap(), 1);
        let missing = open(there, || Err(ErrorKind::NotFound.into()));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        drop(end);
        assert!((0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            make(here, &[], |_| Ok(1)).is_ok()
        }));
    }
}
