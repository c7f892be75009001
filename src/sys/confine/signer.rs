//! The system calls of the process that has the private keys: one channel, threads, memory,
//! randomness. It was given all that it needs: it makes no socket, opens no file, and communicates
//! only through its channel.

use super::filter::{Rules, is, masked, only, rule};
use seccompiler::Error;
use std::io;

/// Allowed with any arguments.
const ANY: &[i64] = &[
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_fstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_gettid,
];

/// Filters this process from now on. False: the kernel or this machine has no filters.
pub(super) fn apply() -> io::Result<bool> {
    only(rules().map_err(io::Error::other)?)
}

fn rules() -> Result<Rules, Error> {
    let mut rules: Rules = ANY.iter().map(|n| (*n, Vec::new())).collect();
    let (thread, no_exec) = (libc::CLONE_THREAD, || masked(2, libc::PROT_EXEC, 0));
    let duplicates = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD].map(|what| rule([is(1, what)]));
    rules.insert(libc::SYS_fcntl, duplicates.into_iter().collect::<Result<_, _>>()?);
    for (call, only) in [
        (libc::SYS_mmap, no_exec()),
        (libc::SYS_mprotect, no_exec()),
        (libc::SYS_clone, masked(0, thread, thread)),
        (libc::SYS_prctl, is(0, libc::PR_SET_NAME)),
        (libc::SYS_newfstatat, is(3, libc::AT_EMPTY_PATH)),
        (libc::SYS_statx, is(2, libc::AT_EMPTY_PATH)),
    ] {
        rules.insert(call, vec![rule([only])?]);
    }
    Ok(rules)
}
