//! What a child inherits from this process, so that it need not set it, or must undo it.

use crate::sys::{check, identity};
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
    pub umask: Option<u32>,
    /// Signals that are ignored, which exec(2) leaves so.
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
            umask: umask(),
            signals: ignored(),
        })
    }
}

/// This process's umask (proc(5)). None: the system does not say.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// Signals that are ignored; also those that the C library keeps for itself and hides, because a
/// strange parent may have had us ignore them.
fn ignored() -> Vec<libc::c_int> {
    const LAST: libc::c_int = 64;
    let ignored = |&n: &libc::c_int| {
        // The kernel's sigaction begins with the handler; no system's is longer.
        let mut now = [0u64; 4];
        let (call, size) = (libc::SYS_rt_sigaction, size_of::<u64>());
        let new = ptr::null::<u64>();
        // SAFETY: nothing is set; one kernel sigaction is written.
        let answer = unsafe { libc::syscall(call, n, new, now.as_mut_ptr(), size) };
        answer == 0 && now[0] == libc::SIG_IGN as u64
    };
    (1..=LAST).filter(ignored).collect()
}

/// Services must not inherit what a system manager gave us to bind port 1 (capabilities(7)). Secure
/// bits that would let rights survive a change of ids are refused.
pub(super) fn drop_ambient() -> io::Result<()> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_int = 1 << 2;
    const SECBIT_KEEP_CAPS: libc::c_int = 1 << 4;
    // SAFETY: prctl(2)s without memory.
    let bits = unsafe {
        let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
        // A kernel without ambient capabilities has none to clear.
        libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0);
        check(libc::prctl(libc::PR_GET_SECUREBITS))?
    };
    if bits & (SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS) != 0 {
        let what = "secure bits keep capabilities across a change of user";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}
