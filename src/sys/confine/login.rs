//! The system calls of a login child. One that has read its files only hashes, verifies and
//! answers: the list of what it may call is short. One that runs code of the administrator's choice
//! (PAM's modules, a checkpassword program) may make every call but those that no login needs.

use super::filter::{Rules, conditional, install};
use seccompiler::{Error, SeccompAction, SeccompFilter, TargetArch};
use std::io;

/// Allowed to a child that only answers: no file, no socket, no program, no other process.
const ANSWER: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_sigaltstack,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Allowed with the same arguments as to net: no memory that can be executed.
const CONDITIONAL: [i64; 6] = [
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_tgkill,
];

/// Refused to all: tracing, mounts, the kernel's modules, programs and keys, its clock and name,
/// namespaces.
const NEVER: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// With this bit, a number is the same call of x32, which a filter sees as another one.
const X32: Option<i64> = if cfg!(target_arch = "x86_64") { Some(0x4000_0000) } else { None };

/// From now on this process only answers. False: there are no filters here.
pub(super) fn answer_only() -> io::Result<bool> {
    install(true, |machine| {
        let mut rules: Rules = ANSWER.iter().map(|n| (*n, Vec::new())).collect();
        for (call, rule) in
            conditional()?.into_iter().filter(|(call, _)| CONDITIONAL.contains(call))
        {
            rules.entry(call).or_default().push(rule);
        }
        filter(rules, refused(), SeccompAction::Allow, machine)
    })
}

/// From now on this process, and every program that it starts, is refused what no login needs.
/// `privileged`: programs may still gain rights by exec. False: there are no filters here.
pub(super) fn without_what_no_login_needs(privileged: bool) -> io::Result<bool> {
    install(!privileged, |machine| {
        let numbers = NEVER.iter().flat_map(|n| [Some(*n), X32.map(|bit| n | bit)]).flatten();
        filter(numbers.map(|n| (n, Vec::new())).collect(), SeccompAction::Allow, refused(), machine)
    })
}

fn refused() -> SeccompAction {
    SeccompAction::Errno(libc::EPERM as u32)
}

fn filter(
    rules: Rules,
    others: SeccompAction,
    listed: SeccompAction,
    machine: TargetArch,
) -> Result<SeccompFilter, Error> {
    Ok(SeccompFilter::new(rules, others, listed, machine)?)
}
