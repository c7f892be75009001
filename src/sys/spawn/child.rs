//! The child between clone and exec: raw system calls and nothing else.
//!
//! It runs in its parent's memory while its parent goes on. It must not allocate, lock, panic,
//! unwind or call what might, nor the C library, whose errno is the parent's: it writes to its own
//! stack and to the Cells of its [`Order`] alone.

use super::super::program::{self, Bytes, Needs};
use super::super::shared;
use super::{Launch, Rlimit, Stage, Stderr, Us};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use syscalls::{Errno, Sysno, syscall};

/// What the child is told, and how it tells what failed.
pub(super) struct Order<'a> {
    pub launch: Launch<'a>,
    pub us: Arc<Us>,
    /// The identity's groups, sorted as the kernel sorts them.
    pub groups: Vec<u32>,
    /// Longer than `groups`.
    pub groups_back: Vec<Cell<u32>>,
    pub null: RawFd,
    pub connection: RawFd,
    pub extra: RawFd,
    pub second: RawFd,
    /// Places of other starts, whose connections are in the copy of the table too.
    pub others: Vec<RawFd>,
    /// Descriptors from here on are not the child's.
    pub above: u32,
    /// The limit of descriptors before we raised ours.
    pub nofile: Option<(u64, u64)>,
    /// 1 as long as the child is in our memory; the kernel makes it 0.
    pub runs: AtomicU32,
    /// Some of the greeting may have been sent.
    pub greeted: Cell<bool>,
    pub fault: Cell<Option<Fault>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub stage: Stage,
    pub errno: i32,
}

/// The status of a child that could not exec; nobody sees it.
const NOT_STARTED: c_int = 127;
/// How long a client may take to make room for its greeting, in all, in milliseconds. A new
/// connection has the room.
const GREETING_WAIT: i64 = 50;

pub(super) extern "C" fn run(order: *mut c_void) -> c_int {
    // SAFETY: the parent handed over an Order, which lives and is left alone until this process has
    // left its memory.
    let order = unsafe { &*order.cast::<Order>() };
    if let Err(fault) = steps(order) {
        order.fault.set(Some(fault));
    }
    NOT_STARTED
}

type Step = Result<(), Fault>;

fn steps(o: &Order) -> Step {
    let l = &o.launch;
    descriptors(o)?;
    if l.new_session {
        // SAFETY: no memory is handed over.
        told(Stage::Session, unsafe { syscall!(Sysno::setsid) })?;
    }
    default_signals(o)?;
    limits(o)?;
    if l.nice != 0 {
        let nice = o.us.nice.saturating_add(l.nice);
        // SAFETY: no memory is handed over.
        let set = unsafe { syscall!(Sysno::setpriority, libc::PRIO_PROCESS, 0, nice) };
        told(Stage::Nice, set)?;
    }
    if let Some(root) = l.chroot {
        // SAFETY: a C string.
        told(Stage::Chroot, unsafe { syscall!(Sysno::chroot, root.as_ptr()) })?;
    }
    if l.identity.is_some() {
        keyring()?;
    }
    become_identity(o)?;
    // After the ids, so that the user's own rights decide, and after the root, so that nothing
    // outside of it stays in reach.
    if !o.us.in_root || l.chroot.is_some() || l.directory != c"/" {
        // SAFETY: a C string.
        told(Stage::Directory, unsafe { syscall!(Sysno::chdir, l.directory.as_ptr()) })?;
    }
    // SAFETY: no memory is handed over. It cannot fail.
    let _ = unsafe { syscall!(Sysno::umask, l.umask) };
    if l.no_new_privs {
        let (call, what) = (Sysno::prctl, libc::PR_SET_NO_NEW_PRIVS);
        // SAFETY: no memory is handed over.
        told(Stage::NoNewPrivs, unsafe { syscall!(call, what, 1, 0, 0, 0) })?;
    }
    if l.check {
        try_program(l)?
    } else {
        room_for_a_process(o)?
    }
    greet(o)?;
    exec(l)
}

fn told(stage: Stage, answer: Result<usize, Errno>) -> Step {
    match answer {
        Ok(_) => Ok(()),
        Err(e) => Err(failed(stage, e)),
    }
}

fn failed(stage: Stage, errno: Errno) -> Fault {
    Fault { stage, errno: errno.into_raw() }
}

/// Leaves the shared table, then puts everything into its place. What lies between is
/// close-on-exec.
fn descriptors(o: &Order) -> Step {
    let (call, flags) = (Sysno::close_range, libc::CLOSE_RANGE_UNSHARE);
    // SAFETY: no memory is handed over. From here on the table is the child's own.
    told(Stage::Descriptors, unsafe { syscall!(call, o.above, u32::MAX, flags) })?;
    let stderr = match o.launch.stderr {
        Stderr::Connection => Some(o.connection),
        Stderr::Null => Some(o.null),
        Stderr::Ours => None,
    };
    duplicate(Some(o.connection), 0)?;
    duplicate(Some(o.connection), 1)?;
    duplicate(stderr, 2)?;
    // The slots ascend from 3, so that of these neither is overwritten before it was used.
    duplicate(o.launch.extra.map(|_| o.extra), 3)?;
    duplicate(o.launch.second.map(|_| o.second), 4)?;
    // The copy holds other starts' connections too, which must not stay open if this one is held
    // up.
    let first = match (o.launch.extra, o.launch.second) {
        (_, Some(_)) => 5u32,
        (Some(_), None) => 4,
        (None, None) => 3,
    };
    for &fd in &o.others {
        shared::calm(fd);
    }
    // SAFETY: no memory is handed over.
    told(Stage::Descriptors, unsafe { syscall!(Sysno::close_range, first, u32::MAX, 0) })
}

fn duplicate(from: Option<RawFd>, to: RawFd) -> Step {
    let Some(from) = from else { return Ok(()) };
    // SAFETY: no memory is handed over.
    told(Stage::Descriptors, unsafe { syscall!(Sysno::dup3, from, to, 0) })
}

/// The dispositions are a copy (no CLONE_SIGHAND): the parent's stay.
fn default_signals(o: &Order) -> Step {
    for &signal in &o.us.signals {
        // The kernel's sigaction, in which all zeros is SIG_DFL; no system's is longer.
        let default = [0u64; 4];
        let (call, old, size) = (Sysno::rt_sigaction, ptr::null::<u64>(), size_of::<u64>());
        // SAFETY: one kernel sigaction is read.
        let set = unsafe { syscall!(call, signal, default.as_ptr(), old, size) };
        told(Stage::Signals, set)?;
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
        limit(kind, value, value)?;
    }
    Ok(())
}

fn limit(kind: Rlimit, soft: u64, hard: u64) -> Step {
    let kind = match kind {
        Rlimit::As => libc::RLIMIT_AS,
        Rlimit::Core => libc::RLIMIT_CORE,
        Rlimit::Cpu => libc::RLIMIT_CPU,
        Rlimit::Data => libc::RLIMIT_DATA,
        Rlimit::Files => libc::RLIMIT_NOFILE,
        Rlimit::Stack => libc::RLIMIT_STACK,
    };
    let new = [soft, hard];
    let (call, old) = (Sysno::prlimit64, ptr::null::<u64>());
    // SAFETY: rlimit64 is two 64-bit numbers, soft and hard, which are read.
    told(Stage::Limits, unsafe { syscall!(call, 0, kind, new.as_ptr(), old) })
}

/// Sets what differs from ours, and reads back what was set. A change of uid also makes the memory
/// undumpable, which is shared: fived's parent is then out of every debugger's reach but root's,
/// and well so.
fn become_identity(o: &Order) -> Step {
    let Some(i) = o.launch.identity else {
        return Ok(());
    };
    if o.groups != o.us.groups {
        let (count, list) = (o.groups.len(), o.groups.as_ptr());
        // SAFETY: `count` groups are read.
        told(Stage::Groups, unsafe { syscall!(Sysno::setgroups, count, list) })?;
        read_groups(o)?;
    }
    if o.us.gid != Some(i.gid) {
        let call = Sysno::setresgid;
        // SAFETY: no memory is handed over.
        told(Stage::Gid, unsafe { syscall!(call, i.gid, i.gid, i.gid) })?;
        read_ids(Sysno::getresgid, i.gid)?;
    }
    if o.us.uid != Some(i.uid) {
        let call = Sysno::setresuid;
        // SAFETY: no memory is handed over. A raw call concerns this thread, which is all of the
        // child.
        told(Stage::Uid, unsafe { syscall!(call, i.uid, i.uid, i.uid) })?;
        read_ids(Sysno::getresuid, i.uid)?;
    }
    Ok(())
}

/// A session keyring of its own (keyrings(7)): what another service put into its own, or whoever
/// started fived into his, is not found through it. Joined before the ids change, so that it counts
/// in root's quota: a user's is 200 keyrings, fewer than services may run. A kernel without
/// keyrings, or a filter that refuses the call, has none to keep apart.
fn keyring() -> Step {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    let (call, anonymous) = (Sysno::keyctl, ptr::null::<u8>());
    // SAFETY: no memory is handed over: a keyring without a name.
    match unsafe { syscall!(call, KEYCTL_JOIN_SESSION_KEYRING, anonymous) } {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(e) => Err(failed(Stage::Keyring, e)),
    }
}

/// A user at the limit of processes (RLIMIT_NPROC) is told so by exec, which is too late for the
/// greeting. execve(2) looks at that limit before it opens the file, so asking it for a directory,
/// which cannot run, costs little; and it then forgets the limit, so that the real one cannot meet
/// it. Where the program is tried, that is the same question.
fn room_for_a_process(o: &Order) -> Step {
    if o.launch.identity.is_none_or(|i| o.us.uid == Some(i.uid)) {
        return Ok(());
    }
    let none = [ptr::null::<u8>()];
    // SAFETY: a C string and two empty lists; a directory cannot be executed, so it returns.
    match unsafe { syscall!(Sysno::execve, c".".as_ptr(), none.as_ptr(), none.as_ptr()) } {
        Err(Errno::EAGAIN) => Err(failed(Stage::Exec, Errno::EAGAIN)),
        _ => Ok(()),
    }
}

const NOT_THAT: Fault = Fault { stage: Stage::IdentityCheck, errno: libc::EPERM };

fn read_groups(o: &Order) -> Step {
    let (room, place) = (o.groups_back.len(), o.groups_back.as_ptr());
    // SAFETY: at most `room` groups are written, into Cells.
    let count = unsafe { syscall!(Sysno::getgroups, room, place) };
    let same = o.groups_back.iter().zip(&o.groups).all(|(b, g)| b.get() == *g);
    match count {
        Ok(n) if n == o.groups.len() && same => Ok(()),
        Ok(_) => Err(NOT_THAT),
        Err(e) => Err(failed(Stage::IdentityCheck, e)),
    }
}

fn read_ids(call: Sysno, wanted: u32) -> Step {
    let (mut real, mut effective, mut saved) = (!wanted, !wanted, !wanted);
    // SAFETY: three ids are written.
    let told_ids = unsafe { syscall!(call, &raw mut real, &raw mut effective, &raw mut saved) };
    told(Stage::IdentityCheck, told_ids)?;
    if [real, effective, saved] != [wanted; 3] {
        return Err(NOT_THAT);
    }
    Ok(())
}

/// Asks all that exec will ask, of the program and of what runs it. Whatever hangs here hangs in
/// this process alone, which is killed then.
fn try_program(l: &Launch) -> Step {
    let mut buffer = [0; program::BUFFER];
    let mut next = None;
    for _ in 0..=program::DEPTH {
        let stage = if next.is_none() { Stage::Check } else { Stage::Interpreter };
        let wrong = |errno: i32| Fault { stage, errno };
        let path = match next {
            None => l.program,
            Some(at) => program::path(&buffer, at).map_err(wrong)?,
        };
        // First, for it does not wait for who holds a lease on it.
        let file = open(path);
        if matches!(file, Err(Errno::EAGAIN)) {
            return Err(wrong(libc::EBUSY));
        }
        executable(l, path, stage)?;
        let file = match file {
            // It may be run and not be read: exec will tell the rest.
            Err(Errno::EACCES) => return Ok(()),
            file => file.map_err(|e| failed(stage, e))?,
        };
        match program::needs(&file, &mut buffer).map_err(wrong)? {
            Needs::Nothing => return Ok(()),
            Needs::Interpreter(at) => next = Some(at),
            Needs::Loader(at) => {
                let loader = program::path(&buffer, at).map_err(wrong)?;
                return may_run(loader, Stage::Interpreter);
            }
        }
    }
    Err(Fault { stage: Stage::Interpreter, errno: libc::ELOOP })
}

/// An open file of this process, which exec closes, or this process's end.
struct File(usize);

impl Bytes for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, i32> {
        // SAFETY: the buffer is writable for its whole length.
        unsafe { syscall!(Sysno::pread64, self.0, buffer.as_mut_ptr(), buffer.len(), at) }
            .map_err(Errno::into_raw)
    }
}

fn open(path: &CStr) -> Result<File, Errno> {
    // SAFETY: a C string.
    unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), program::OPEN, 0) }.map(File)
}

/// Would exec take it (AT_EXECVE_CHECK, since Linux 6.14)? That is everything but its content:
/// rights, mount options, words that are too long, a program that is open for writing, a user who
/// has too many processes. It costs some 10 µs, for it makes a new process's memory: a loader,
/// which is hardly ever anybody's own, is not asked about so.
fn executable(l: &Launch, path: &CStr, stage: Stage) -> Step {
    const AT_EXECVE_CHECK: c_int = 0x10000;
    let (call, at) = (Sysno::execveat, libc::AT_FDCWD);
    // SAFETY: a C string, and two lists of C strings with a null at the end. With this flag nothing
    // is executed.
    match unsafe {
        syscall!(call, at, path.as_ptr(), l.argv.as_ptr(), l.env.as_ptr(), AT_EXECVE_CHECK)
    } {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN) => Err(failed(Stage::Exec, Errno::EAGAIN)),
        Err(Errno::EINVAL) => may_run(path, stage),
        Err(e) => Err(failed(stage, e)),
    }
}

/// The real ids are the effective ones by now, so access(2)'s question is exec's.
fn may_run(path: &CStr, stage: Stage) -> Step {
    // SAFETY: a C string.
    told(stage, unsafe { syscall!(Sysno::faccessat, libc::AT_FDCWD, path.as_ptr(), libc::X_OK) })
}

fn greet(o: &Order) -> Step {
    let mut left = o.launch.greeting;
    while !left.is_empty() {
        let sent = o.greeted.get();
        // Before, because this process may be stopped behind the call, and never come back.
        o.greeted.set(true);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let (call, to) = (Sysno::sendto, ptr::null::<libc::sockaddr>());
        // SAFETY: as many bytes are read as there are.
        match unsafe { syscall!(call, 1, left.as_ptr(), left.len(), flags, to, 0) } {
            Ok(n) => left = left.get(n..).unwrap_or_default(),
            Err(e) => {
                o.greeted.set(sent);
                if e != Errno::EAGAIN || !room_for_more() {
                    return Err(failed(Stage::Greeting, e));
                }
            }
        }
    }
    Ok(())
}

/// Waits once, in short.
fn room_for_more() -> bool {
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
    told(Stage::Signals, set)?;
    let (argv, env) = (l.argv.as_ptr(), l.env.as_ptr());
    // SAFETY: a C string, and two lists of C strings with a null at the end. It returns only when
    // it failed.
    told(Stage::Exec, unsafe { syscall!(Sysno::execve, l.program.as_ptr(), argv, env) })
}
