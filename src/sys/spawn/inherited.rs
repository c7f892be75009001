//! What a child inherits from this process, so that it need not set it, or must undo it.

use crate::sys::identity;
use std::io;
use std::path::Path;
use std::ptr;

/// What a child inherits and therefore need not set, or must undo.
#[derive(Debug)]
pub(super) struct Inherited {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Vec<u32>,
    pub nice: i32,
    /// In the root directory, which this process does not leave.
    pub in_root: bool,
    pub signals: Vec<libc::c_int>,
}

impl Inherited {
    pub fn look() -> io::Result<Inherited> {
        let (u, g) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
        let mut groups = identity::current()?.groups;
        groups.sort_unstable();
        let (uid, gid) = (u.real.as_raw(), g.real.as_raw());
        Ok(Inherited {
            uid: ([u.effective, u.saved] == [u.real; 2]).then_some(uid),
            gid: ([g.effective, g.saved] == [g.real; 2]).then_some(gid),
            groups,
            // SAFETY: no memory is handed over.
            nice: unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) },
            in_root: std::env::current_dir().is_ok_and(|d| d == Path::new("/")),
            signals: undefaulted(),
        })
    }
}

/// Signals that do not have their default effect; also those that the C library keeps for itself
/// and hides, because a strange parent may have had us ignore them. Those of a fault keep ours
/// (std's, for a full stack) until exec ends it: a child that faults must not end without a word.
fn undefaulted() -> Vec<libc::c_int> {
    const LAST: libc::c_int = 64;
    let other = |&n: &libc::c_int| {
        // The kernel's sigaction begins with the handler; no system's is longer.
        let mut now = [0u64; 4];
        let (call, size) = (libc::SYS_rt_sigaction, size_of::<u64>());
        let new = ptr::null::<u64>();
        // SAFETY: nothing is set; one kernel sigaction is written.
        let answer = unsafe { libc::syscall(call, n, new, now.as_mut_ptr(), size) };
        answer == 0 && now[0] != libc::SIG_DFL as u64
    };
    let fault = |n: &libc::c_int| matches!(*n, libc::SIGSEGV | libc::SIGBUS);
    (1..=LAST).filter(other).filter(|n| !fault(n)).collect()
}
