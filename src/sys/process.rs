//! This process and its children: limits, names, reaping, and running in the background.

mod daemon;
mod limits;
mod standard;

pub use daemon::{Detached, branch, daemonize};
pub(super) use limits::nofile_before;
pub use limits::{
    file_size_is_limited, hard_nofile, has_hard_limit, nofile, raise_nofile, raise_others,
};
pub use standard::{null, redirect_to_null};

use super::check;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Status(i32),
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(n) => write!(f, "exit status {n}"),
            Exit::Signal(n) => write!(f, "signal {n}"),
        }
    }
}

/// Reaps the next child that has ended.
pub fn wait_any() -> Option<(i32, Exit)> {
    wait(-1)
}

/// The next child that has ended, or this one if it has, and how. It is still a zombie, so that its
/// pid is not reused. However many children there are, to ask for one costs the same.
pub fn ended(which: Option<i32>) -> Option<(i32, Exit)> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let (kind, id) = which.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid as libc::id_t));
    // SAFETY: all zeros is a valid siginfo, which the call fills; its number stays zero where
    // nobody has ended.
    let (pid, status, code) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        check(libc::waitid(kind, id, &mut info, flags)).ok()?;
        (info.si_pid(), info.si_status(), info.si_code)
    };
    let exit = match code {
        libc::CLD_EXITED => Exit::Status(status),
        _ => Exit::Signal(status),
    };
    (pid != 0).then_some((pid, exit))
}

/// Reaps a child that has ended ([`reaper`](super::reaper): that may take long).
pub(super) fn reap(pid: i32) {
    let (kind, id, flags) = (libc::P_PID, pid as libc::id_t, libc::WEXITED | libc::__WALL);
    // SAFETY: nothing is written.
    while check(unsafe { libc::waitid(kind, id, std::ptr::null_mut(), flags) })
        .is_err_and(|e| e.kind() == io::ErrorKind::Interrupted)
    {}
}

/// Sends this process the signal that tells of the end of a child.
pub(super) fn child_signal() {
    // SAFETY: no memory is handed over.
    unsafe { libc::kill(libc::getpid(), libc::SIGCHLD) };
}

fn wait(who: i32) -> Option<(i32, Exit)> {
    let mut status = 0;
    loop {
        // SAFETY: the call writes one int.
        match check(unsafe { libc::waitpid(who, &mut status, libc::WNOHANG) }) {
            Ok(0) => return None,
            Ok(pid) if libc::WIFEXITED(status) => {
                return Some((pid, Exit::Status(libc::WEXITSTATUS(status))));
            }
            // Any signal, those of real time too.
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Some((pid, Exit::Signal(libc::WTERMSIG(status))));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Has that child been stopped (SIGSTOP)? Each stop is reported once.
pub fn has_stopped(pid: i32) -> bool {
    let flags = libc::WSTOPPED | libc::WNOHANG;
    // SAFETY: all zeros is a valid siginfo, which the call fills; its number stays zero where there
    // is nothing to report.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        check(libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags)).is_ok()
            && info.si_pid() == pid
    }
}

/// Does something with this umask. For a process of one thread.
pub fn with_umask<T>(mask: u32, what: impl FnOnce() -> T) -> T {
    // Unit tests are threads of one process.
    #[cfg(test)]
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    #[cfg(test)]
    let _turn = TURN.lock();
    // SAFETY: no memory is handed over.
    let before = unsafe { libc::umask(mask) };
    let done = what();
    // SAFETY: as before.
    unsafe { libc::umask(before) };
    done
}

/// No core dump, and no debugger of the same user (prctl(2), PR_SET_DUMPABLE): nobody else reads
/// this process's memory.
pub fn keep_memory_private() {
    // SAFETY: no memory is handed over.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// From now on this process is killed when its parent ends. To be called once it has its user for
/// good: the kernel forgets it with a change of that.
pub fn end_with_parent() -> io::Result<()> {
    super::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// The name that ps(1) shows, 15 bytes at most.
pub fn set_name(name: &str) {
    let mut bytes = [0u8; 16];
    bytes.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: the kernel reads the 16 bytes, of which the last is zero, and keeps a copy.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Limits how many arenas malloc(3) uses, for a process of many threads that allocate little. Does
/// nothing without glibc.
pub fn limit_malloc_arenas(n: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, n);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = n;
}

/// How this program can be started again.
struct OwnProgram {
    /// Where it is, and the file that it must be there. As long as that is open nobody has to wait
    /// who looks for it at this path.
    place: Option<(CString, File)>,
    /// /proc/self/exe, which is the same file for ever; or without /proc the path by which it was
    /// started.
    link: CString,
}

const LINK: &CStr = c"/proc/self/exe";

fn own() -> &'static OwnProgram {
    static OWN: OnceLock<OwnProgram> = OnceLock::new();
    OWN.get_or_init(|| {
        // SAFETY: the kernel's own string, which stays as long as the process does (getauxval(3));
        // 0 where it gave none.
        let given = unsafe {
            (libc::getauxval(libc::AT_EXECFN) as *const libc::c_char)
                .as_ref()
                .map(|c| CStr::from_ptr(c))
        };
        let link = Path::new(OsStr::from_bytes(LINK.to_bytes()));
        let c_string = |path: PathBuf| CString::new(path.into_os_string().into_vec()).ok();
        let absolute = |path: &CStr| std::path::absolute(OsStr::from_bytes(path.to_bytes())).ok();
        let found = given.and_then(absolute).filter(|_| !link.exists());
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(link).ok();
        OwnProgram {
            place: std::fs::read_link(link).ok().and_then(c_string).zip(open()),
            link: found.and_then(c_string).unwrap_or_else(|| LINK.into()),
        }
    })
}

/// The path by which this program can be started again, whoever starts it, and whatever file is at
/// its place then. To be called before the working directory changes; later calls give the same.
pub fn own_link() -> &'static CStr {
    &own().link
}

/// The path by which whoever this process is can start this program now. A process that was just
/// made has no place in /proc that anybody has looked for, and whoever keeps /proc locked keeps it
/// from finding that one; so this is where the program is, if it is there still.
pub fn own_program() -> &'static CStr {
    let OwnProgram { place, link } = own();
    let is_there = |(path, file): &&(CString, File)| {
        let at = std::fs::metadata(OsStr::from_bytes(path.to_bytes()));
        let is = |m: Metadata| Some((m.dev(), m.ino()));
        at.ok().and_then(is).is_some_and(|at| Some(at) == file.metadata().ok().and_then(is))
    };
    place.as_ref().filter(is_there).map_or(link, |(path, _)| path)
}

/// The name of another process (proc(5), comm). None: there is no such process, or no /proc.
pub fn name_of(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|n| n.trim_end().to_string())
}

/// Has a process been stopped (SIGSTOP)? If /proc does not say: no. One that is traced is stopped
/// for a moment at each of its calls: that does not count.
pub fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state, in parentheses, may be anything.
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
}

/// The computer's own name (gethostname(2)); `localhost` where it has none.
pub fn hostname() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is writable for its length; one byte is kept for the NUL.
    let answer = check(unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) });
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    match (answer, std::str::from_utf8(&name[..end])) {
        (Ok(_), Ok(name)) if !name.is_empty() => name.into(),
        _ => "localhost".into(),
    }
}

/// This thread's priority (nice(2)) where it goes before the others.
const FIRST: libc::c_int = -10;

/// From now on this thread has its turn before the others of its process, and those that it starts
/// have the usual one: where hundreds are busy it would wait for seconds. That needs a right that
/// root has. Where whoever started fived has set another priority, that stays.
pub fn go_first() {
    let usual = libc::sched_param { sched_priority: 0 };
    let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the calls read a value of their own type, and nothing else.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) == 0
            && libc::sched_setscheduler(0, policy, &usual) == 0
        {
            libc::setpriority(libc::PRIO_PROCESS, 0, FIRST);
        }
    }
}

/// How many processors this thread may use. (std asks /proc, too, see `sys::start`.)
pub fn processors() -> usize {
    // SAFETY: all zeros are a set, which is written.
    let n = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of_val(&set), &mut set) {
            0 => libc::CPU_COUNT(&set),
            _ => 1,
        }
    };
    usize::try_from(n).unwrap_or(1).max(1)
}

/// From now on this thread gives way: woken, it does not interrupt who has its processor, and then
/// finds more to do at once (sched(7), SCHED_BATCH). Its share of the processors stays the same.
/// Where whoever started fived has set another policy, that stays.
pub fn give_way() {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: the calls read a value of their own type, and nothing else.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &usual);
        }
    }
}

/// Gives back to the system the unused pages of this thread's stack; for threads that sleep for a
/// long time. Does nothing on the first thread, whose stack the kernel grows by itself.
pub fn release_unused_stack() {
    let page = 4096.max(page_size());
    let here = std::hint::black_box(&page) as *const usize as usize;
    // A local need not be on the stack: the address sanitizer can keep it elsewhere.
    let Some((low, _)) = stack().filter(|(low, high)| (*low..*high).contains(&here)) else {
        return;
    };
    let end = (here.saturating_sub(RELEASE_MARGIN)) & !(page - 1);
    let start = low.next_multiple_of(page);
    if end > start {
        // SAFETY: from the stack's lowest page to a margin below this frame nothing is in use:
        // stacks grow down, and whatever madvise itself needs lies within the margin.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}

/// Bytes below the frame that stay: the red zone, and the call itself.
const RELEASE_MARGIN: usize = 2048;

fn page_size() -> usize {
    // SAFETY: no memory is handed over.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Where this thread's stack begins and ends.
fn stack() -> Option<(usize, usize)> {
    thread_local!(static STACK: Option<(usize, usize)> = ask_stack());
    STACK.with(|s| *s)
}

fn ask_stack() -> Option<(usize, usize)> {
    // SAFETY: no memory is handed over.
    if unsafe { libc::gettid() == libc::getpid() } {
        return None;
    }
    // SAFETY: pthread_getattr_np fills the attributes, which are read and then destroyed; the
    // thread is this one.
    unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        let answer = libc::pthread_attr_getstack(&attributes, &mut low, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        (answer == 0).then_some((low as usize, low as usize + size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_stack_is_given_back_and_the_used_one_stays() {
        fn deep(n: u32) -> u32 {
            let page = std::hint::black_box([n as u8; 4096]);
            if n == 0 { 0 } else { u32::from(page[7] & 1) + deep(n - 1) }
        }
        let work = || {
            let kept = std::hint::black_box([7u8; 10_000]);
            let before = deep(200);
            release_unused_stack();
            release_unused_stack();
            assert!(kept.iter().all(|&b| b == 7));
            assert_eq!(deep(200), before);
        };
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        thread.spawn(work).unwrap().join().unwrap();
        work();
        release_unused_stack();
    }

    #[test]
    fn names_and_numbers() {
        assert!(!hostname().is_empty());
        limit_malloc_arenas(2);
        assert!(null().is_ok());
    }
}
