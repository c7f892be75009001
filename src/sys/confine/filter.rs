//! The system calls that the process that reads strangers' bytes may make (seccomp(2)): for sockets
//! that it was given, threads, memory, time.
//!
//! Any other call is refused with EPERM, so that an unexpected call of a library fails and does not
//! kill the process. Not on it: opening files, making sockets (but pairs), connecting, starting
//! programs or processes, signalling others, tracing, memory that can be executed. The list serves
//! std's threads, mio, rustls and malloc(3), with glibc and musl.

use crate::sys::options::{ASKED_BY_NET, FAMILY, OF_NET};
use crate::sys::{check, pipe, prctl};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;
use std::io;

pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters this process from now on. False: the kernel or this machine has no filters.
pub(super) fn apply() -> io::Result<bool> {
    only(listed().map_err(io::Error::other)?)
}

/// From now on this call fails so for this thread, and for those that it makes.
#[cfg(test)]
pub(in crate::sys) fn refuse(call: i64, errno: i32) {
    let (rules, arch) = ([(call, vec![])].into(), std::env::consts::ARCH.try_into().unwrap());
    let (others, this) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let filter = SeccompFilter::new(rules, others, this, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Filters this process with these rules. False: as of [`apply`].
pub(super) fn only(rules: Rules) -> io::Result<bool> {
    let Ok(machine) = std::env::consts::ARCH.try_into() else {
        return Ok(false);
    };
    for program in programs(rules, machine).map_err(io::Error::other)? {
        match apply_filter_all_threads(&program) {
            Ok(()) => {}
            Err(Error::Seccomp(e)) if is_without(&e) => return Ok(false),
            Err(Error::Seccomp(e) | Error::Prctl(e)) => return Err(e),
            Err(e) => return Err(io::Error::other(e)),
        }
    }
    Ok(true)
}

/// Installs a filter in this process, which has one thread. Without `no_new_privs` it needs
/// CAP_SYS_ADMIN. False: there are no filters here.
pub(super) fn install(
    no_new_privs: bool,
    filter: impl FnOnce(TargetArch) -> Result<SeccompFilter, Error>,
) -> io::Result<bool> {
    let Ok(machine) = std::env::consts::ARCH.try_into() else {
        return Ok(false);
    };
    let program: BpfProgram =
        filter(machine).and_then(|f| Ok(f.try_into()?)).map_err(io::Error::other)?;
    if no_new_privs {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    }
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies a program of that length; seccompiler's instructions are the
    // kernel's own, in C's layout.
    match check(
        unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) } as libc::c_int
    ) {
        Err(e) if is_without(&e) => Ok(false),
        done => done.map(|_| true),
    }
}

fn is_without(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

/// Two filters. The kernel takes the stricter answer of the two; if both refuse, that of the filter
/// that was installed last. clone3(2) has its flags in memory, where a filter cannot see them; if
/// the call seems not to exist, glibc falls back to clone(2).
fn programs(mut rules: Rules, machine: TargetArch) -> Result<[BpfProgram; 2], Error> {
    // The other filter decides about it.
    rules.insert(libc::SYS_clone3, Vec::new());
    let (allow, errno) = (SeccompAction::Allow, |e: i32| SeccompAction::Errno(e as u32));
    let missing = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompFilter::new(missing, allow.clone(), errno(libc::ENOSYS), machine)?;
    let listed = SeccompFilter::new(rules, errno(libc::EPERM), allow, machine)?;
    Ok([missing.try_into()?, listed.try_into()?])
}

fn listed() -> Result<Rules, Error> {
    let mut rules: Rules = ANY.iter().map(|n| (*n, Vec::new())).collect();
    for (call, rule) in conditional()? {
        rules.entry(call).or_default().push(rule);
    }
    Ok(rules)
}

/// The number of the channel to the parent.
const CHANNEL: libc::c_int = 3;

/// Allowed with any arguments.
const ANY: &[i64] = &[
    // sockets and descriptors
    libc::SYS_accept4,
    libc::SYS_dup,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_fstat,
    // waiting
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    // time; most of it never enters the kernel
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    // memory (mmap, mprotect: below)
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // threads (clone: below)
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // signals to oneself
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // questions about oneself, and randomness
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
];

/// Allowed with these arguments; several rules for one call are alternatives.
pub(super) fn conditional() -> Result<Vec<(i64, SeccompRule)>, Error> {
    let no_exec = || masked(2, libc::PROT_EXEC, 0);
    let (thread, anonymous) = (libc::CLONE_THREAD, libc::MAP_ANONYMOUS);
    let mut rules = vec![
        // No file: whose pages come from a file system of somebody's own can make a call that
        // touches them wait for ever, with the lock of a socket that others have, too.
        (libc::SYS_mmap, rule([no_exec(), masked(3, anonymous, anonymous)])?),
        (libc::SYS_mprotect, rule([no_exec()])?),
        (libc::SYS_clone, rule([masked(0, thread, thread)])?),
        // fstat(2) is made with these; only with a path could they look at other files.
        (libc::SYS_newfstatat, rule([is(3, libc::AT_EMPTY_PATH)])?),
        (libc::SYS_statx, rule([is(2, libc::AT_EMPTY_PATH)])?),
        // Limits can be read, not set.
        (libc::SYS_prlimit64, rule([null(2)])?),
        (libc::SYS_prctl, rule([is(0, libc::PR_SET_NAME)])?),
        // MSG_FASTOPEN connects: a listener that was shut down could reach any address with it. Nor
        // is anything sent to an address.
        // Descriptors can be sent (SCM_RIGHTS) with sendmsg alone, and with that to the parent
        // alone: its channel keeps its number, because it cannot be closed, and no call puts
        // another descriptor in its place.
        (libc::SYS_sendmsg, rule([is(0, CHANNEL), masked(2, libc::MSG_FASTOPEN, 0)])?),
        (libc::SYS_close, rule([condition(0, SeccompCmpOp::Ne, CHANNEL)])?),
        (libc::SYS_sendto, rule([masked(3, libc::MSG_FASTOPEN, 0), null(4)])?),
        (libc::SYS_tgkill, rule([is(0, std::process::id() as i32)])?),
        // A thread may give way to others, and not the reverse.
        (libc::SYS_sched_getscheduler, rule([is(0, 0)])?),
        (libc::SYS_sched_setscheduler, rule([is(0, 0), is(1, libc::SCHED_BATCH)])?),
    ];
    // A datagram socket could send to any address; these send only to the other end of their pair.
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let kind = masked(1, 0xf, kind);
        rules.push((libc::SYS_socketpair, rule([is(0, libc::AF_UNIX), kind])?));
    }
    // By option alone: what net sets on a socket that others have, too, they restore (options.rs).
    for (level, name) in OF_NET.into_iter().chain([FAMILY]) {
        rules.push((libc::SYS_setsockopt, rule([is(1, level), is(2, name)])?));
    }
    for (level, name) in OF_NET.into_iter().chain([ASKED_BY_NET]) {
        rules.push((libc::SYS_getsockopt, rule([is(1, level), is(2, name)])?));
    }
    // Not F_SETFL nor FIONBIO: whether a socket blocks changes for all processes that have it.
    for what in
        [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETPIPE_SZ]
    {
        rules.push((libc::SYS_fcntl, rule([is(1, what)])?));
    }
    // Relays: a pipe of this process's own, and what goes through it; no file has an offset there.
    rules.push((libc::SYS_pipe2, rule([is(1, pipe::FLAGS)])?));
    rules.push((libc::SYS_splice, rule([null(1), null(3)])?));
    rules.push((libc::SYS_ioctl, rule([is(1, libc::FIONREAD as i32)])?));
    Ok(rules)
}

pub(super) fn rule<const N: usize>(
    all: [Result<SeccompCondition, Error>; N],
) -> Result<SeccompRule, Error> {
    let all = all.into_iter().collect::<Result<_, _>>()?;
    Ok(SeccompRule::new(all)?)
}

pub(super) fn is(argument: u8, value: i32) -> Result<SeccompCondition, Error> {
    condition(argument, SeccompCmpOp::Eq, value)
}

pub(super) fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, Error> {
    condition(argument, SeccompCmpOp::MaskedEq(mask as u32 as u64), value)
}

/// The kernel takes these arguments as 32 bits, or looks at bits of the lower half only.
fn condition(argument: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompCondition, Error> {
    let value = value as u32 as u64;
    let half = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(argument, half, operator, value)?)
}

/// A null pointer.
fn null(argument: u8) -> Result<SeccompCondition, Error> {
    let whole = SeccompCmpArgLen::Qword;
    Ok(SeccompCondition::new(argument, whole, SeccompCmpOp::Eq, 0)?)
}
