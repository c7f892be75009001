//! Processes, as /proc shows them. Everybody may list that directory, and so keep it locked: a
//! process beside this one looks into it (`directory_calls`).

use super::directory_calls;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn look<T: Send + 'static>(what: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    directory_calls::make(Path::new("/proc/self"), &[], |_| what())
}

/// The users that processes run as, as far as /proc shows them.
pub fn users_running() -> HashSet<u32> {
    let is_number = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let all = look(move || {
        let processes = std::fs::read_dir("/proc")?.flatten().filter(|e| is_number(&e.file_name()));
        Ok(processes.filter_map(|e| Some(e.metadata().ok()?.uid())).collect())
    });
    all.unwrap_or_default()
}

/// How many descriptors a process has now; None: this one. Errors: there is no such process, or it
/// may not be seen, or somebody keeps /proc locked.
pub fn descriptors(pid: Option<libc::pid_t>) -> io::Result<u64> {
    let all = format!("/proc/{}/fd", pid.unwrap_or(std::process::id() as libc::pid_t));
    look(move || {
        // Linux 6.2 and later tell it by the directory's size, whatever the number.
        match std::fs::metadata(&all)?.len() {
            0 => Ok(std::fs::read_dir(&all)?.count() as u64),
            n => Ok(n),
        }
    })
}

/// A process's children, of all its threads (proc(5), children). None if /proc does not say.
pub fn children(pid: i32) -> Vec<i32> {
    let lists = look(move || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let lists = threads.map(|t| std::fs::read_to_string(t.path().join("children")));
        Ok(lists.map(Result::unwrap_or_default).collect())
    });
    let all: Vec<String> = lists.unwrap_or_default();
    all.iter().flat_map(|l| l.split_ascii_whitespace()).filter_map(|n| n.parse().ok()).collect()
}
