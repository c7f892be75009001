//! Running in the background: a process that belongs to no terminal and no shell. The process that
//! was called waits until it serves, or goes on with something else.

use super::standard::{null, redirect};
use crate::sys::check;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork, pipe2, setsid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;

/// The exit status of the process that was called, if the daemon ends before it reports one: an
/// error of the system (fived(8)).
const ENDED: u8 = 111;

/// With this the daemon tells the process that was called, which still waits, that it serves.
/// Dropping it means that the start failed: the reason was printed on descriptor 2.
#[derive(Debug)]
pub struct Detached {
    caller: File,
    null: File,
}

impl Detached {
    /// The daemon serves: the process that was called exits with 0, and descriptor 2 is /dev/null
    /// from now on.
    pub fn ready(mut self) {
        // If this fails, the log still goes to where descriptor 2 led.
        let _ = redirect(&self.null, 2);
        // An error means that the caller has ended, and needs no status.
        let _ = self.caller.write_all(&[0]);
    }
}

/// Goes on as a daemon, in a session of its own that has no leader, with descriptors 0 and 1 on
/// /dev/null. Only the daemon returns from this call: the process that was called waits for the
/// daemon's status and exits with it. Working directory and umask stay (a configuration may have
/// been named by a relative path). To be called before the first thread is made; signals, timers
/// and what `std::process::id` says are the new process's.
pub fn daemonize() -> io::Result<Detached> {
    let null = File::from(null()?);
    let (status_pipe, caller) = pipe2(OFlag::O_CLOEXEC)?;
    let (status_pipe, caller) = (File::from(status_pipe), File::from(caller));
    // SAFETY: this process has one thread, so the child may go on as it did.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        drop(caller);
        exit(wait(status_pipe));
    }
    drop(status_pipe);
    setsid()?;
    // SAFETY: as above. The leader of the session ends, so that no terminal can become the
    // session's.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        exit(0);
    }
    redirect(&null, 0)?;
    redirect(&null, 1)?;
    Ok(Detached { caller, null })
}

/// Does `work` in a process of its own, which belongs to no terminal and to no shell: in a session
/// without a leader, descriptors 0 to 2 on /dev/null, no other open than those to `keep` (numbers),
/// working directory `/`. That process exits with what `work` returns. The caller gets its process
/// id at once. To be called while this process has one thread.
pub fn branch(keep: &[RawFd], work: impl FnOnce() -> u8) -> io::Result<i32> {
    let null = File::from(null()?);
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.cast_unsigned()).collect();
    kept.sort_unstable();
    let (mut status_pipe, mut to) =
        pipe2(OFlag::O_CLOEXEC).map(|(a, b)| (File::from(a), File::from(b)))?;
    // SAFETY: this process has one thread, so the child may go on as it did.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        drop(to);
        let mut pid = [0; size_of::<i32>()];
        let read = status_pipe.read_exact(&mut pid);
        // This child ends at once; its own child goes on.
        while matches!(nix::sys::wait::waitpid(child, None), Err(nix::errno::Errno::EINTR)) {}
        return read.map(|()| i32::from_ne_bytes(pid));
    }
    let mut detached = || -> io::Result<()> {
        setsid()?;
        // SAFETY: as above.
        if let ForkResult::Parent { child } = unsafe { fork() }? {
            // Where nobody reads it any more, nobody needs it.
            let _ = to.write_all(&child.as_raw().to_ne_bytes());
            exit(0);
        }
        (0..3).try_for_each(|n| redirect(&null, n))?;
        std::env::set_current_dir("/")?;
        close_others(&kept)
    };
    exit(if detached().is_ok() { work() } else { ENDED });
}

/// Closes all descriptors from 3 on but these, which are in rising order. The process never returns
/// to the code that owned the others.
fn close_others(kept: &[u32]) -> io::Result<()> {
    let mut from = 3;
    for to in kept.iter().copied().chain([u32::MAX]) {
        if to > from {
            // SAFETY: no memory is handed over; who owns these descriptors never runs in this
            // process again.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, from, to - 1, 0) };
            check(closed as libc::c_int)?;
        }
        from = from.max(to.saturating_add(1));
    }
    Ok(())
}

fn wait(mut status_pipe: File) -> u8 {
    let mut status = [ENDED];
    // If the pipe ends without a byte, the daemon has died.
    let _ = status_pipe.read_exact(&mut status);
    status[0]
}

/// Without exit handlers: they are for the daemon to run.
fn exit(status: u8) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    #[test]
    fn a_branch_has_what_it_was_given_and_nothing_else() {
        let (mut status_pipe, to) =
            pipe2(OFlag::O_CLOEXEC).map(|(a, b)| (File::from(a), File::from(b))).unwrap();
        let other = File::open("/etc/passwd").unwrap();
        // As everywhere where tests run side by side: the child only makes system calls, and looks
        // at what is open.
        let pid = branch(&[to.as_raw_fd()], || {
            // SAFETY: F_GETFD hands no memory over.
            let open = |fd: i32| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            // SAFETY: a question without memory.
            let alone = unsafe { libc::getsid(0) != libc::getpid() };
            let right =
                open(0) && open(2) && open(to.as_raw_fd()) && !open(other.as_raw_fd()) && alone;
            // SAFETY: one byte is read.
            unsafe { libc::write(to.as_raw_fd(), [u8::from(right)].as_ptr().cast(), 1) };
            0
        })
        .unwrap();
        let mut byte = [0];
        status_pipe.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [1]);
        assert!(pid > 0 && pid != std::process::id() as i32 && !super::super::is_stopped(pid));
    }

    const TASK: &str = "FIVED_TEST_DAEMON";

    /// Becomes a daemon in a process of its own (see below).
    #[test]
    fn inside() {
        let Ok(task) = std::env::var(TASK) else {
            return;
        };
        let detached = daemonize().unwrap();
        if task == "ready" {
            detached.ready();
        }
        exit(99);
    }

    #[test]
    fn the_caller_exits_with_the_daemons_status() {
        for (task, status) in [("ready", 0), ("ended", ENDED.into())] {
            let ended = Command::new("/proc/self/exe")
                .args(["--exact", "sys::process::daemon::tests::inside", "--nocapture"])
                .env(TASK, task)
                .output()
                .unwrap();
            assert_eq!(ended.status.code(), Some(status), "{task}");
        }
    }
}
