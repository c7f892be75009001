//! The system calls of the process of a service's terminal: a connection, a terminal, memory.

use super::filter::{Rules, is, masked, only, rule};
use seccompiler::Error;
use std::io;

/// Allowed with any arguments.
const ANY: &[i64] = &[
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// Filters this process from now on. False: the kernel or this machine has no filters.
pub(super) fn apply() -> io::Result<bool> {
    only(rules().map_err(io::Error::other)?)
}

fn rules() -> Result<Rules, Error> {
    let mut rules: Rules = ANY.iter().map(|n| (*n, Vec::new())).collect();
    let no_exec = || masked(2, libc::PROT_EXEC, 0);
    // Of the terminal its size, and how it is read: no byte goes into it but as its client's input
    // (TIOCSTI), and no setting is changed.
    let calls = [libc::TIOCSWINSZ, libc::TCGETS].map(|what| rule([is(1, what as i32)]));
    rules.insert(libc::SYS_ioctl, calls.into_iter().collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_mmap, vec![rule([no_exec()])?]);
    rules.insert(libc::SYS_mprotect, vec![rule([no_exec()])?]);
    Ok(rules)
}
