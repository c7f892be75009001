//! Starting a program with a connection as its standard input and output, fast and with nothing of ours in it.
//!
//! The child shares this process's memory and descriptor table (clone(2): CLONE_VM, CLONE_FILES) while this thread waits
//! (CLONE_VFORK), leaves the table by a copy of its lowest few entries (close_range(2), CLOSE_RANGE_UNSHARE) and makes only
//! raw system calls until it execs, so that neither memory nor thousands of open descriptors cost anything. What went wrong
//! before exec is told through the shared memory.
//!
//! What it promises: a step that fails means no exec; ids and groups are read back; after exec no descriptor is open but those
//! that were asked for, no signal is blocked or ignored, and no ambient capability is left. It never looks anything up.
//!
//! One thread may use a [`Spawner`], and no other thread may change the reserved descriptors meanwhile; fived's parent has one.

mod child;
mod list;

pub use list::{CList, Env, Nul};

use super::identity::{self, Identity};
use super::signal::Signal;
use super::{check, process, socket};
use child::{Fault, Order};
use std::cell::{Cell, OnceCell};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ids' raw system calls have 16 bits on 32-bit systems");

/// Where descriptor 2 goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    Connection,
    /// This process's own descriptor 2.
    Ours,
    Null,
}

/// What is tried, as the identity, before the greeting is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check<'a> {
    /// Nothing; a failing exec tells.
    None,
    /// That the program may be executed.
    Program,
    /// That the program may be, and what it needs (`program::Image::needs`).
    Needs(&'a CStr),
}

/// A resource that a service can be limited in (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rlimit {
    /// Bytes of address space.
    As,
    /// Bytes of a core dump.
    Core,
    /// Seconds of processor time.
    Cpu,
    /// Bytes of data.
    Data,
    /// Open descriptors.
    Files,
    /// Bytes of stack.
    Stack,
}

/// The value of an [`Rlimit`] that is none.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// A program and all that it is to find.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// An absolute path, inside `chroot` where there is one.
    pub program: &'a CStr,
    pub argv: &'a CList,
    pub env: &'a CList,
    /// None: who we are.
    pub identity: Option<&'a Identity>,
    pub chroot: Option<&'a CStr>,
    /// Entered as that identity, inside `chroot`: a directory which the user may not enter means no exec.
    pub directory: &'a CStr,
    pub umask: u32,
    /// Added to our own; below 0 needs rights.
    pub nice: i32,
    /// Soft and hard alike.
    pub rlimits: &'a [(Rlimit, u64)],
    pub no_new_privs: bool,
    pub stderr: Stderr,
    pub check: Check<'a>,
    /// Sent right before exec, when all that can be checked was; may be empty.
    pub greeting: &'a [u8],
    /// Becomes 0 and 1. It is made blocking. With a greeting it must be a socket.
    pub connection: BorrowedFd<'a>,
    /// Becomes 3.
    pub extra: Option<BorrowedFd<'a>>,
    /// Becomes 4.
    pub second: Option<BorrowedFd<'a>>,
    pub new_session: bool,
}

/// Where a start failed, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Clone,
    Descriptors,
    Session,
    Signals,
    Limits,
    Nice,
    Chroot,
    Groups,
    Gid,
    Uid,
    IdentityCheck,
    Directory,
    NoNewPrivs,
    Check,
    Greeting,
    Exec,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Clone => "clone",
            Stage::Descriptors => "descriptors",
            Stage::Session => "session",
            Stage::Signals => "signals",
            Stage::Limits => "limits",
            Stage::Nice => "nice",
            Stage::Chroot => "chroot",
            Stage::Groups => "groups",
            Stage::Gid => "gid",
            Stage::Uid => "uid",
            Stage::IdentityCheck => "identity-check",
            Stage::Directory => "directory",
            Stage::NoNewPrivs => "no-new-privs",
            Stage::Check => "check",
            Stage::Greeting => "greeting",
            Stage::Exec => "exec",
        }
    }
}

/// Why nothing was started. There is no child to reap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    pub errno: i32,
    /// Some of the greeting may have reached the client: no other answer can follow.
    pub greeted: bool,
}

impl Failure {
    /// The system has no room now ("busy"); otherwise the program, its user or its limits are wrong ("failed").
    pub fn is_scarcity(&self) -> bool {
        let processes = matches!(self.stage, Stage::Clone | Stage::Uid | Stage::Exec);
        socket::is_scarce(self.errno) || (self.errno == libc::EAGAIN && processes)
    }

    /// The client went away before it was greeted: nobody's fault.
    pub fn is_peer_gone(&self) -> bool {
        self.stage == Stage::Greeting && matches!(self.errno, libc::EPIPE | libc::ECONNRESET)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let why = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {why}", self.stage.as_str())
    }
}

impl std::error::Error for Failure {}

impl From<Fault> for Failure {
    fn from(f: Fault) -> Failure {
        Failure {
            stage: f.stage,
            errno: f.errno,
            greeted: f.greeted,
        }
    }
}

/// A running program, ours to reap (`process::wait_any`). To be dropped when it was reaped.
///
/// Its pidfd is made when it is first needed: that costs 5 µs at every start otherwise, and a descriptor for every service that
/// runs. Until a child was reaped its number is nobody else's, and what is opened is checked to be a child of ours.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pidfd: OnceCell<OwnedFd>,
}

impl Child {
    /// Readable when the program has ended (pidfd_open(2)). ESRCH or ECHILD: it was reaped.
    pub fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(fd) = self.pidfd.get() {
            return Ok(fd.as_fd());
        }
        // SAFETY: no memory is handed over.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let raw = check(raw as RawFd)?;
        // SAFETY: it was just made (close-on-exec always) and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        is_our_child(&fd)?;
        Ok(self.pidfd.get_or_init(|| fd).as_fd())
    }

    /// Signals the process itself. ESRCH or ECHILD: it was reaped.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal.number(), 0)
    }

    /// Signals its process group, which it leads where it was started with `new_session`.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        /// pidfd_send_signal(2), since Linux 6.9.
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        match self.send(signal.number(), PIDFD_SIGNAL_PROCESS_GROUP) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                // As long as the process was not reaped, its number and its group's are its own.
                self.send(0, 0)?;
                // SAFETY: no memory is handed over.
                check(unsafe { libc::kill(-self.pid, signal.number()) }).map(drop)
            }
            other => other,
        }
    }

    fn send(&self, number: i32, flags: libc::c_uint) -> io::Result<()> {
        let (call, fd) = (libc::SYS_pidfd_send_signal, self.pidfd()?.as_raw_fd());
        let info = ptr::null::<libc::siginfo_t>();
        // SAFETY: no siginfo is handed over.
        match unsafe { libc::syscall(call, fd, number, info, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Asks for its end and leaves it (waitid(2)): ECHILD where it is none of ours.
fn is_our_child(pidfd: &OwnedFd) -> io::Result<()> {
    let id = pidfd.as_raw_fd() as libc::id_t;
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeros is a valid siginfo, which the call fills.
    check(unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PIDFD, id, &mut info, flags)
    })
    .map(drop)
}

/// What starts programs: a few reserved low descriptors, a stack, and what is known of ourselves.
#[derive(Debug)]
pub struct Spawner {
    /// Low and ascending: /dev/null, then places for the connection and two extras, which hold /dev/null meanwhile.
    slots: [OwnedFd; 4],
    stack: Stack,
    us: Us,
    /// The identity's groups in the kernel's order, and room to read them back.
    groups: Vec<u32>,
    groups_back: Vec<u32>,
}

/// What a child inherits and therefore need not set, or must undo.
#[derive(Debug)]
struct Us {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    nice: i32,
    signals: Vec<libc::c_int>,
}

impl Spawner {
    /// To be made early: marks all descriptors from 3 on close-on-exec, reserves the lowest free
    /// ones and gives up ambient capabilities. It must be made again after this process changed its ids.
    pub fn new() -> io::Result<Spawner> {
        let all = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: no memory is handed over.
        if unsafe { libc::syscall(libc::SYS_close_range, all.0, all.1, all.2) } != 0 {
            return Err(io::Error::last_os_error());
        }
        drop_ambient()?;
        let null = process::null()?;
        let slots = [low(&null)?, low(&null)?, low(&null)?, low(&null)?];
        Ok(Spawner {
            slots,
            stack: Stack::new()?,
            us: Us::look()?,
            groups: Vec::new(),
            groups_back: Vec::new(),
        })
    }

    /// Starts it, and returns when it runs or cannot.
    pub fn start(&mut self, launch: &Launch) -> Result<Child, Failure> {
        self.want(launch.identity);
        let [null, connection, extra, second] = self.slots.each_ref().map(AsRawFd::as_raw_fd);
        let placed = [
            (Some(launch.connection), connection),
            (launch.extra, extra),
            (launch.second, second),
        ];
        let keep = placed.iter().filter(|p| p.0.is_some()).map(|p| p.1);
        let keep = keep.max().unwrap_or(connection);
        let order = Order {
            launch,
            us: &self.us,
            groups: &self.groups,
            groups_back: Cell::from_mut(&mut self.groups_back[..]).as_slice_of_cells(),
            null,
            connection,
            extra,
            second,
            // Not negative: a descriptor.
            above: keep as u32 + 1,
            nofile: process::nofile_before(),
            fault: Cell::new(None),
        };
        let made = block(launch.connection)
            .and_then(|()| place(&placed))
            .and_then(|()| clone(&order, &self.stack));
        for (fd, slot) in placed {
            if fd.is_some() {
                // It cannot fail: both are open. The slot lets go of what the child has.
                let _ = duplicate(null, slot);
            }
        }
        let child = made?;
        match order.fault.take() {
            None => Ok(child),
            Some(fault) => {
                reap(child.pid);
                Err(fault.into())
            }
        }
    }

    fn want(&mut self, identity: Option<&Identity>) {
        self.groups.clear();
        self.groups
            .extend(identity.into_iter().flat_map(|i| &i.groups));
        self.groups.sort_unstable();
        self.groups_back.clear();
        self.groups_back.resize(self.groups.len() + 1, 0);
    }
}

impl Us {
    fn look() -> io::Result<Us> {
        let (u, g) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
        let mut groups = identity::current()?.groups;
        groups.sort_unstable();
        let (uid, gid) = (u.real.as_raw(), g.real.as_raw());
        Ok(Us {
            uid: ([u.effective, u.saved] == [u.real; 2]).then_some(uid),
            gid: ([g.effective, g.saved] == [g.real; 2]).then_some(gid),
            groups,
            // SAFETY: no memory is handed over.
            nice: unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) },
            signals: undefaulted(),
        })
    }
}

/// Signals that do not have their default effect; also those that the C library keeps for itself and hides, because a strange
/// parent may have had us ignore them. Those of a fault keep ours (std's, for a full stack) until exec ends it: a child
/// that faults must not die in silence.
fn undefaulted() -> Vec<libc::c_int> {
    const LAST: libc::c_int = 64;
    let other = |&n: &libc::c_int| {
        // The kernel's sigaction begins with the handler; no system's is longer.
        let mut now = [0u64; 4];
        let (call, size) = (libc::SYS_rt_sigaction, size_of::<u64>());
        let new = ptr::null::<u64>();
        // SAFETY: nothing is set; one kernel sigaction is written.
        let told = unsafe { libc::syscall(call, n, new, now.as_mut_ptr(), size) };
        told == 0 && now[0] != libc::SIG_DFL as u64
    };
    let fault = |n: &libc::c_int| matches!(*n, libc::SIGSEGV | libc::SIGBUS);
    (1..=LAST).filter(other).filter(|n| !fault(n)).collect()
}

/// Services must not inherit what a system manager gave us to bind port 1 (capabilities(7)). Secure bits that would let
/// rights survive a change of ids are refused.
fn drop_ambient() -> io::Result<()> {
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

/// The lowest free descriptor above the standard ones.
fn low(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let raw = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: it was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn fault(stage: Stage) -> impl Fn(io::Error) -> Failure {
    move |e| Failure {
        stage,
        errno: e.raw_os_error().unwrap_or(0),
        greeted: false,
    }
}

/// A service expects a descriptor that blocks, and the process that hands us the connection shares its flags.
fn block(fd: BorrowedFd) -> Result<(), Failure> {
    let raw = fd.as_raw_fd();
    // SAFETY: no memory is handed over.
    let flags =
        check(unsafe { libc::fcntl(raw, libc::F_GETFL) }).map_err(fault(Stage::Descriptors))?;
    if flags & libc::O_NONBLOCK != 0 {
        // SAFETY: no memory is handed over.
        let set = check(unsafe { libc::fcntl(raw, libc::F_SETFL, flags & !libc::O_NONBLOCK) });
        set.map_err(fault(Stage::Descriptors))?;
    }
    Ok(())
}

fn place(placed: &[(Option<BorrowedFd>, RawFd)]) -> Result<(), Failure> {
    for (fd, slot) in placed {
        if let Some(fd) = fd {
            duplicate(fd.as_raw_fd(), *slot).map_err(fault(Stage::Descriptors))?;
        }
    }
    Ok(())
}

fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a slot of ours, so nobody else's descriptor is closed by it.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}

/// Makes the child and waits until it has exec'd or ended. Signals are blocked meanwhile, so that no handler runs in the child.
fn clone(order: &Order, stack: &Stack) -> Result<Child, Failure> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    let before = mask(!0);
    // SAFETY: the stack is the child's alone as long as it needs it, because CLONE_VFORK holds this thread until the child has
    // exec'd or ended; so long `order` and all it points to live and stand still. The child writes to its Cells alone.
    let made = check(unsafe {
        let argument = ptr::from_ref(order).cast_mut().cast();
        libc::clone(child::run, stack.top(), flags, argument)
    })
    .map_err(fault(Stage::Clone));
    mask(before);
    let pid = made?;
    Ok(Child {
        pid,
        pidfd: OnceCell::new(),
    })
}

/// Sets this thread's signal mask, a bit a signal; what it was.
fn mask(new: u64) -> u64 {
    let mut old = 0u64;
    let (call, size) = (libc::SYS_rt_sigprocmask, size_of::<u64>());
    // SAFETY: the kernel's signal sets have 64 bits; one is read and one written. It cannot fail.
    unsafe { libc::syscall(call, libc::SIG_SETMASK, &raw const new, &raw mut old, size) };
    old
}

/// A child that failed is ending at this moment.
fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: one int is written.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// The child's stack, with a page below it that faults.
#[derive(Debug)]
struct Stack(*mut libc::c_void);

// SAFETY: the memory is this value's alone.
unsafe impl Send for Stack {}

impl Stack {
    /// Bytes; the child's calls are shallow. A multiple of any page size in use.
    const SIZE: usize = 128 * 1024;
    const GUARD: usize = 64 * 1024;

    fn new() -> io::Result<Stack> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
        );
        // SAFETY: a new mapping, of which the lower part becomes the guard.
        unsafe {
            let low = libc::mmap(ptr::null_mut(), Self::SIZE, access, kind, -1, 0);
            if low == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Stack(low);
            check(libc::mprotect(low, Self::GUARD, libc::PROT_NONE))?;
            Ok(stack)
        }
    }

    /// Stacks grow down on every system that this runs on.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(Self::SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no child is left on it.
        unsafe { libc::munmap(self.0, Self::SIZE) };
    }
}

#[cfg(test)]
mod tests;
