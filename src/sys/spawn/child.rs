//! The child between clone and exec: raw system calls and nothing else.
//!
//! It runs in its parent's memory while its parent goes on. It must not allocate, lock, panic,
//! unwind or call what might, nor the C library, whose errno is the parent's: it writes to its own
//! stack and to the Cells of its [`Order`] alone.

use super::failure::{Fault, Stage, Step, step};
use super::launch::{Launch, Rlimit};
use super::order::Order;
use super::places;
use super::trial::try_if_changed;
use crate::sys::given_mark;
use crate::sys::local::PASS_RIGHTS;
use std::ffi::CStr;
use std::ptr;
use syscalls::{Errno, Sysno, syscall};

/// How long a client may take until its greeting can be sent, in all, in milliseconds. On a new
/// connection it can be sent at once.
const GREETING_WAIT: i64 = 50;

/// All of the way to exec. It returns only when a step of it failed.
pub(super) fn become_program(o: &Order) -> Step {
    let l = &o.launch;
    places::take_places(o)?;
    if l.new_session && !o.prepared {
        own_session()?;
    }
    if l.terminal {
        // SAFETY: no memory is handed over.
        step(Stage::Terminal, unsafe { syscall!(Sysno::ioctl, 0, libc::TIOCSCTTY, 0) })?;
    }
    default_signals(o)?;
    limits(o)?;
    if l.nice != 0 {
        let nice = o.inherited.nice.saturating_add(l.nice);
        // SAFETY: no memory is handed over.
        let set = unsafe { syscall!(Sysno::setpriority, libc::PRIO_PROCESS, 0, nice) };
        step(Stage::Nice, set)?;
    }
    if let Some(root) = l.chroot {
        // SAFETY: a C string.
        step(Stage::Chroot, unsafe { syscall!(Sysno::chroot, root.as_ptr()) })?;
    }
    if l.identity.is_some() && !o.prepared {
        join_keyring()?;
    }
    become_identity(o)?;
    // After the ids, so that the user's own rights decide, and after the root, so that nothing
    // outside of it stays in reach.
    if !o.inherited.in_root || l.chroot.is_some() || l.directory != c"/" {
        enter_directory(l)?;
    }
    if o.inherited.umask != Some(l.umask) {
        // SAFETY: no memory is handed over. It cannot fail.
        let _ = unsafe { syscall!(Sysno::umask, l.umask) };
    }
    if l.no_new_privs {
        let (call, what) = (Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS);
        // SAFETY: no memory is handed over.
        step(Stage::NoNewPrivs, unsafe { syscall!(call, what, 1, 0, 0, 0) })?;
    }
    let tried = l.check.map_or(Ok(false), |tried| try_if_changed(l, &o.groups, tried))?;
    if !tried {
        may_have_a_process(o)?;
    }
    places::be_alone(o)?;
    greet(o)?;
    exec(l)
}

fn enter_directory(l: &Launch) -> Step {
    // SAFETY: a C string.
    let enter = |path: &CStr| unsafe { syscall!(Sysno::chdir, path.as_ptr()) };
    let entered = match enter(l.directory) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) if l.or_root => enter(c"/"),
        other => other,
    };
    step(Stage::Directory, entered)
}

/// The dispositions are a copy (no CLONE_SIGHAND): the parent's stay.
fn default_signals(o: &Order) -> Step {
    for &signal in &o.inherited.signals {
        // The kernel's sigaction, in which all zeros is SIG_DFL; no system's is longer.
        let default = [0u64; 4];
        let (call, old, size) = (Sysno::rt_sigaction, ptr::null::<u64>(), size_of::<u64>());
        // SAFETY: one kernel sigaction is read.
        let set = unsafe { syscall!(call, signal, default.as_ptr(), old, size) };
        step(Stage::Signals, set)?;
    }
    Ok(())
}

fn limits(o: &Order) -> Step {
    let wanted = o.launch.rlimits;
    if !wanted.iter().any(|(kind, _)| *kind == Rlimit::Files)
        && let Some((soft, hard)) = o.nofile
    {
        limit(Rlimit::Files, soft, hard)?;
    }
    for &(kind, value) in wanted {
        let done = limit(kind, value, value);
        if done.is_err() && value == libc::RLIM64_INFINITY {
            // As much as fived itself may have. Of descriptors nobody may have more than a number.
            let hard = hard_limit(kind)?;
            limit(kind, hard, hard)?;
        } else {
            done?;
        }
    }
    Ok(())
}

fn limit(kind: Rlimit, soft: u64, hard: u64) -> Step {
    let new = [soft, hard];
    let (call, old) = (Sysno::prlimit64, ptr::null::<u64>());
    // SAFETY: rlimit64 is two 64-bit numbers, soft and hard, which are read.
    step(Stage::Limits, unsafe { syscall!(call, 0, resource(kind), new.as_ptr(), old) })
}

fn hard_limit(kind: Rlimit) -> Result<u64, Fault> {
    let mut old = [0u64; 2];
    let (call, new) = (Sysno::prlimit64, ptr::null::<u64>());
    // SAFETY: rlimit64 is two 64-bit numbers, soft and hard, which are written.
    step(Stage::Limits, unsafe { syscall!(call, 0, resource(kind), new, old.as_mut_ptr()) })?;
    Ok(old[1])
}

fn resource(kind: Rlimit) -> usize {
    let number = match kind {
        Rlimit::As => libc::RLIMIT_AS,
        Rlimit::Cpu => libc::RLIMIT_CPU,
        Rlimit::Data => libc::RLIMIT_DATA,
        Rlimit::Files => libc::RLIMIT_NOFILE,
        Rlimit::Stack => libc::RLIMIT_STACK,
    };
    number as usize
}

/// Sets what differs from ours, and reads back what was set. A change of uid also makes the memory
/// undumpable, which is shared: fived's parent is then out of every debugger's reach but root's,
/// and well so.
pub(super) fn become_identity(o: &Order) -> Step {
    let Some(i) = o.launch.identity else {
        return Ok(());
    };
    if o.groups != o.inherited.groups {
        let (count, list) = (o.groups.len(), o.groups.as_ptr());
        // SAFETY: `count` groups are read.
        step(Stage::Groups, unsafe { syscall!(Sysno::setgroups, count, list) })?;
        read_groups(o)?;
    }
    if o.inherited.gid != Some(i.gid) {
        let call = Sysno::setresgid;
        // SAFETY: no memory is handed over.
        step(Stage::Gid, unsafe { syscall!(call, i.gid, i.gid, i.gid) })?;
        read_ids(Sysno::getresgid, i.gid)?;
    }
    if o.inherited.uid != Some(i.uid) {
        let call = Sysno::setresuid;
        // SAFETY: no memory is handed over. A raw call concerns this thread, which is all of the
        // child.
        step(Stage::Uid, unsafe { syscall!(call, i.uid, i.uid, i.uid) })?;
        read_ids(Sysno::getresuid, i.uid)?;
    }
    Ok(())
}

/// A session of its own, without a terminal (setsid(2)).
pub(super) fn own_session() -> Step {
    // SAFETY: no memory is handed over.
    step(Stage::Session, unsafe { syscall!(Sysno::setsid) })
}

/// A session keyring of its own (keyrings(7)): what another service has put into its own, and what
/// is in that of whoever started fived, is not found through it. Joined before the ids change, so
/// that it counts in root's quota: a user's is 200 keyrings, fewer than services may run. A kernel
/// without keyrings, or a filter that refuses the call, has none to keep apart.
pub(super) fn join_keyring() -> Step {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    let (call, anonymous) = (Sysno::keyctl, ptr::null::<u8>());
    // SAFETY: no memory is handed over: a keyring without a name.
    match unsafe { syscall!(call, KEYCTL_JOIN_SESSION_KEYRING, anonymous) } {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(e) => Err(Fault::new(Stage::Keyring, e)),
    }
}

/// A user at the limit of processes (RLIMIT_NPROC) is told so by exec, which is too late for the
/// greeting. execve(2) looks at that limit before it opens the file, so asking it for a directory,
/// which cannot run, costs little; and it then forgets the limit, so that the real one cannot meet
/// it. Where the program is tried, that is the same question.
fn may_have_a_process(o: &Order) -> Step {
    if o.launch.identity.is_none_or(|i| o.inherited.uid == Some(i.uid)) {
        return Ok(());
    }
    let none = [ptr::null::<u8>()];
    // SAFETY: a C string and two empty lists; a directory cannot be executed, so it returns.
    match unsafe { syscall!(Sysno::execve, c".".as_ptr(), none.as_ptr(), none.as_ptr()) } {
        Err(Errno::EAGAIN) => Err(Fault::new(Stage::Exec, Errno::EAGAIN)),
        _ => Ok(()),
    }
}

const NOT_THAT: Fault = Fault { stage: Stage::IdentityCheck, errno: libc::EPERM };

fn read_groups(o: &Order) -> Step {
    let (most, place) = (o.groups_back.len(), o.groups_back.as_ptr());
    // SAFETY: at most `most` groups are written, into Cells.
    let count = unsafe { syscall!(Sysno::getgroups, most, place) };
    let same = o.groups_back.iter().zip(&o.groups).all(|(b, g)| b.get() == *g);
    match count {
        Ok(n) if n == o.groups.len() && same => Ok(()),
        Ok(_) => Err(NOT_THAT),
        Err(e) => Err(Fault::new(Stage::IdentityCheck, e)),
    }
}

fn read_ids(call: Sysno, wanted: u32) -> Step {
    let (mut real, mut effective, mut saved) = (!wanted, !wanted, !wanted);
    // SAFETY: three ids are written.
    let answer = unsafe { syscall!(call, &raw mut real, &raw mut effective, &raw mut saved) };
    step(Stage::IdentityCheck, answer)?;
    if [real, effective, saved] != [wanted; 3] {
        return Err(NOT_THAT);
    }
    Ok(())
}

pub(super) fn greet(o: &Order) -> Step {
    let options = [(o.launch.takes_rights, PASS_RIGHTS), (o.launch.marks, given_mark::OPTION)];
    for (_, name) in options.into_iter().filter(|(wanted, _)| *wanted) {
        let (call, on) = (Sysno::setsockopt, 1 as libc::c_int);
        let (level, size) = (libc::SOL_SOCKET, size_of_val(&on));
        // SAFETY: the option is an int, which is read. It fails only where there is none.
        let _ = unsafe { syscall!(call, 0, level, name, &raw const on, size) };
    }
    let mut left = o.launch.greeting;
    while !left.is_empty() {
        let sent = o.greeted.get();
        // Before, because this process may be stopped after the call, and never come back.
        o.greeted.set(true);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let (call, to) = (Sysno::sendto, ptr::null::<libc::sockaddr>());
        // SAFETY: as many bytes are read as there are.
        match unsafe { syscall!(call, 1, left.as_ptr(), left.len(), flags, to, 0) } {
            Ok(n) => left = left.get(n..).unwrap_or_default(),
            Err(e) => {
                o.greeted.set(sent);
                if e != Errno::EAGAIN || !can_send_more() {
                    return Err(Fault::new(Stage::Greeting, e));
                }
            }
        }
    }
    Ok(())
}

/// Waits for a moment: can the client take more?
fn can_send_more() -> bool {
    let mut at = libc::pollfd { fd: 1, events: libc::POLLOUT, revents: 0 };
    // ppoll(2) writes what is left of the time.
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: GREETING_WAIT * 1_000_000 };
    let (call, no_mask) = (Sysno::ppoll, ptr::null::<u64>());
    // SAFETY: one pollfd and one timespec are read and written.
    unsafe { syscall!(call, &raw mut at, 1, &raw mut time, no_mask, 8) == Ok(1) }
}

fn exec(l: &Launch) -> Step {
    let (none, old) = (0u64, ptr::null::<u64>());
    let (call, size) = (Sysno::rt_sigprocmask, size_of::<u64>());
    // SAFETY: the kernel's signal sets have 64 bits; one is read.
    let set = unsafe { syscall!(call, libc::SIG_SETMASK, &raw const none, old, size) };
    step(Stage::Signals, set)?;
    let (argv, env) = (l.argv.as_ptr(), l.env.as_ptr());
    // SAFETY: a C string, and two lists of C strings with a null at the end. It returns only when
    // it failed.
    step(Stage::Exec, unsafe { syscall!(Sysno::execve, l.program.as_ptr(), argv, env) })
}
