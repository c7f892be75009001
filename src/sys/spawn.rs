//! Starting a program with a connection as its standard input and output, fast and with nothing of ours in it.
//!
//! The child shares this process's memory and descriptor table (clone(2): CLONE_VM, CLONE_FILES) while this thread waits,
//! leaves the table by a copy of its lowest few entries (close_range(2), CLOSE_RANGE_UNSHARE) and makes only
//! raw system calls until it execs, so that neither memory nor thousands of open descriptors cost anything. What went wrong
//! before exec is told through the shared memory.
//!
//! vfork(2)'s own wait is not used: between its change of user and exec the child can be stopped by any process of that user, and
//! a wait that only the child can end would hold fived for ever. A child that is stopped then is killed, and did not start.
//! Its memory, ours, is out of that user's reach: a change of user makes it undumpable (ptrace(2)).
//!
//! What it promises: a step that fails means no exec; ids and groups are read back; after exec no descriptor is open but those
//! that were asked for, no signal is blocked or ignored, and no ambient capability is left. It never looks anything up.
//!
//! One thread may use a [`Spawner`], and no other thread may change the reserved descriptors meanwhile; fived's parent has one.

mod child;
mod failure;
mod held;
mod launch;
mod list;
mod running;

pub use failure::{Failure, Stage};
pub use launch::{Check, Launch, Rlimit, Stderr, UNLIMITED};
pub use list::{CList, Env, Nul};
pub use running::Child;

use super::identity::{self, Identity};
use super::{check, process};
use child::{Fault, Order};
use held::{Made, Stack};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU32;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ids' raw system calls have 16 bits on 32-bit systems");

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
            runs: AtomicU32::new(1),
            greeted: Cell::new(false),
            fault: Cell::new(None),
        };
        let made = block(launch.connection)
            .and_then(|()| place(&placed))
            .and_then(|()| held::clone(&order, &self.stack).map_err(fault(Stage::Clone)));
        for (fd, slot) in placed {
            if fd.is_some() {
                // It cannot fail: both are open. The slot lets go of what the child has.
                let _ = duplicate(null, slot);
            }
        }
        told(&order, made)
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

/// What the child told, or what its silence means.
fn told(order: &Order, made: Result<Made, Fault>) -> Result<Child, Failure> {
    let failed = match made {
        Ok(Made { pid, killed }) => {
            let stopped = Fault {
                stage: Stage::Stopped,
                errno: libc::ETIMEDOUT,
            };
            let failed = order.fault.take().or(killed.then_some(stopped));
            let Some(failed) = failed else {
                return Ok(Child::new(pid));
            };
            held::reap(pid);
            failed
        }
        Err(failed) => failed,
    };
    Err(Failure {
        stage: failed.stage,
        errno: failed.errno,
        greeted: order.greeted.get(),
    })
}

fn fault(stage: Stage) -> impl Fn(io::Error) -> Fault {
    move |e| Fault {
        stage,
        errno: e.raw_os_error().unwrap_or(0),
    }
}

/// A service expects a descriptor that blocks, and the process that hands us the connection shares its flags.
fn block(fd: BorrowedFd) -> Result<(), Fault> {
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

fn place(placed: &[(Option<BorrowedFd>, RawFd)]) -> Result<(), Fault> {
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

#[cfg(test)]
mod tests;
