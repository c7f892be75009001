//! A program that was started.

use super::super::signal::Signal;
use super::super::{check, processes};
use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Processes of a tree that are ended at most: what is more than a login's own is its group's.
const TREE_MAX: usize = 256;
/// pidfd_send_signal(2), since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// A running program, ours to reap (`reaper`). To be dropped when it has ended.
///
/// Its pidfd is made when it is first needed: that costs 5 µs at every start otherwise, and a
/// descriptor for every service that runs. Until a child was reaped its number is nobody else's,
/// and what is opened is checked to be a child of ours.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pidfd: OnceCell<OwnedFd>,
}

impl Child {
    pub(super) fn new(pid: i32) -> Child {
        Child { pid, pidfd: OnceCell::new() }
    }

    /// All of it but its number, for whoever signals the group later.
    pub fn take(&mut self) -> Child {
        Child { pid: self.pid, pidfd: std::mem::take(&mut self.pidfd) }
    }

    /// Ends it, descriptors or not. It must not have been reaped.
    pub fn kill(&self) {
        // SAFETY: no memory is handed over. Its number is its own until it was reaped; of one that
        // has ended it reaches nobody.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Ends it with all that it has started, whatever sessions and groups these have made their own
    /// (as pam_exec(8)'s programs do), as far as /proc tells of them. It must not have been reaped.
    pub fn kill_tree(&self) {
        let mut left = TREE_MAX;
        kill_tree(self.pid, &mut left);
    }

    /// Readable when the program has ended (pidfd_open(2)). ESRCH or ECHILD: it was reaped.
    pub fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(fd) = self.pidfd.get() {
            return Ok(fd.as_fd());
        }
        // SAFETY: no memory is handed over.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let raw = check(raw as RawFd)?;
        // SAFETY: it was just made (close-on-exec always) and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        is_our_child(&fd)?;
        Ok(self.pidfd.get_or_init(|| fd).as_fd())
    }

    /// Signals the process itself. ESRCH or ECHILD: it was reaped.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal.number(), 0)
    }

    /// Signals its process group, which it leads where it was started with `new_session`. Once that
    /// was done, it works also when the child was reaped, but not before Linux 6.9: the pidfd
    /// stands for the group too, whose number is nobody else's as long as there is anybody in it.
    /// ESRCH: nobody is.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match self.send(signal.number(), PIDFD_SIGNAL_PROCESS_GROUP) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                // As long as the process was not reaped, its number and its group's are its own.
                self.send(0, 0)?;
                // SAFETY: no memory is handed over.
                check(unsafe { libc::kill(-self.pid, signal.number()) }).map(drop)
            }
            other => other,
        }
    }

    /// Is anybody in its process group, the child itself too as long as it was not reaped? None:
    /// before Linux 6.9.
    pub fn has_group(&self) -> Option<bool> {
        match self.send(0, PIDFD_SIGNAL_PROCESS_GROUP) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => None,
            // Whom we may not signal is there.
            other => Some(other.map_or_else(|e| e.raw_os_error() == Some(libc::EPERM), |()| true)),
        }
    }

    fn send(&self, number: i32, flags: libc::c_uint) -> io::Result<()> {
        let (call, fd) = (libc::SYS_pidfd_send_signal, self.pidfd()?.as_raw_fd());
        let info = ptr::null::<libc::siginfo_t>();
        // SAFETY: no siginfo is handed over.
        match unsafe { libc::syscall(call, fd, number, info, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Stopped first, it starts nothing more and reaps nobody: the numbers of its children stay their
/// own until they were ended, too.
fn kill_tree(pid: i32, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    // SAFETY: no memory is handed over.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    processes::children(pid).into_iter().for_each(|child| kill_tree(child, left));
    // SAFETY: no memory is handed over.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Asks for its end and leaves it (waitid(2)): ECHILD where it is none of ours.
fn is_our_child(pidfd: &OwnedFd) -> io::Result<()> {
    let id = pidfd.as_raw_fd() as libc::id_t;
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeros is a valid siginfo, which the call fills.
    check(unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PIDFD, id, &mut info, flags)
    })
    .map(drop)
}
