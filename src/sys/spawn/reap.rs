//! The end of a child that becomes no program.

use std::io;
use std::time::{Duration, Instant};

/// How long a child is waited for that has left our memory and ends: some microseconds mostly.
const END_TIME: Duration = Duration::from_millis(1);

/// Waits for the end of a child that nothing keeps from it.
pub(super) fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: one int is written.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Of a child that has left our memory and is ending at this moment. One that was killed may hang
/// even so, and so may any other: the end of a session waits for the lock of its terminal, which
/// others may have. It is left to whoever reaps all that ends.
pub(super) fn reap_at_once(pid: i32, killed: bool) {
    let (mut status, until) = (0, Instant::now() + END_TIME);
    loop {
        // SAFETY: one int is written.
        let reaped = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        let again = match reaped {
            0 => !killed && Instant::now() < until,
            _ => reaped < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted,
        };
        if !again {
            return;
        }
        // SAFETY: no memory is handed over.
        unsafe { libc::syscall(libc::SYS_sched_yield) };
    }
}
