//! Starting a program with a connection as its standard input and output, fast and with nothing of
//! ours in it.
//!
//! The child shares this process's memory and descriptor table (clone(2): CLONE_VM, CLONE_FILES),
//! leaves the table by a copy of its lowest few entries (close_range(2), CLOSE_RANGE_UNSHARE) and
//! makes only raw system calls until it execs, so that neither memory nor thousands of open
//! descriptors cost anything. What went wrong before exec is told through the shared memory.
//!
//! A start is a [`PendingStart`]: this process may go on and start others meanwhile, each in a slot of
//! its own. Most of a start is the child's own way to exec, which other processors can take: one
//! start after the other leaves them idle.
//!
//! vfork(2)'s own wait is not used, also because between its change of user and exec the child can
//! be stopped by any process of that user, and a wait that only the child can end would hold fived
//! for ever. A child that is stopped then is killed, and did not start. Its memory, ours, is out of
//! that user's reach: a change of user makes it undumpable (ptrace(2)).
//!
//! What it promises: a step that fails means no exec; ids and groups are read back; after exec no
//! descriptor is open but those that were asked for, no signal is blocked or ignored, and no
//! ambient capability is left. It never looks anything up.
//!
//! One thread may use a [`Spawner`], and no other thread may change the reserved descriptors
//! meanwhile; fived's parent has one.

mod child;
mod failure;
mod launch;
mod list;
mod pending;
mod running;
mod slot;

pub use failure::{Failure, Stage};
pub use launch::{Launch, Rlimit, Stderr, UNLIMITED};
pub use list::{BadWord, CList, Env};
pub use pending::{LOOK_AFTER, PendingStart};
pub use running::Child;

use super::identity;
use super::{check, process};
use child::{Fault, Order};
use pending::Begun;
use slot::Slot;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ids' raw system calls have 16 bits on 32-bit systems");

/// What starts programs: a few reserved low descriptors, stacks, and what is known of ourselves.
#[derive(Debug)]
pub struct Spawner {
    /// /dev/null.
    null: OwnedFd,
    /// The free ones, the best last; one is for [`Spawner::start`] alone.
    free: Vec<Slot>,
    /// Places for two extras, above the slots; they hold /dev/null meanwhile.
    extras: [OwnedFd; 2],
    extras_taken: bool,
    capacity: usize,
    /// The descriptors of slots that are not free.
    busy: Vec<RawFd>,
    us: Arc<Us>,
}

const FULL: Failure = Failure { stage: Stage::Clone, errno: libc::EAGAIN, greeted: false };

/// What a child inherits and therefore need not set, or must undo.
#[derive(Debug)]
struct Us {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    nice: i32,
    /// In the root directory, which this process does not leave.
    in_root: bool,
    signals: Vec<libc::c_int>,
}

impl Spawner {
    /// For so many capacity at a time. To be made early: marks all descriptors from 3 on
    /// close-on-exec, reserves the lowest free ones and gives up ambient capabilities. It must be
    /// made again after this process changed its ids.
    pub fn new(capacity: usize) -> io::Result<Spawner> {
        let all = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: no memory is handed over.
        if unsafe { libc::syscall(libc::SYS_close_range, all.0, all.1, all.2) } != 0 {
            return Err(io::Error::last_os_error());
        }
        drop_ambient()?;
        let file = process::null()?;
        // They ascend, because nothing closes meanwhile: each is the lowest that is free.
        let null = low(&file)?;
        let slots: Vec<OwnedFd> = (0..=capacity).map(|_| low(&file)).collect::<io::Result<_>>()?;
        let extras = [low(&file)?, low(&file)?];
        let free = slots.into_iter().rev().map(Slot::new).collect::<io::Result<_>>()?;
        Ok(Spawner {
            null,
            free,
            extras,
            extras_taken: false,
            capacity,
            busy: Vec::new(),
            us: Arc::new(Us::look()?),
        })
    }

    /// How many may be under way.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Starts it, and returns when it runs or cannot.
    pub fn start(&mut self, launch: &Launch) -> Result<Child, Failure> {
        // SAFETY: it is finished before this function ends, and what `launch` borrows lives as long.
        let begun = unsafe { self.make_child(launch) };
        PendingStart::new(Box::into_raw(Box::new(())), begun).finish(self, false).1
    }

    /// Lets it start; `launch` lays out what the payload holds. Where as many are under way as may
    /// be, or one with extras already, this one fails for want of room.
    pub fn begin<T: 'static>(
        &mut self,
        payload: Box<T>,
        launch: impl FnOnce(&T) -> Launch<'_>,
    ) -> PendingStart<T> {
        let payload = Box::into_raw(payload);
        let begun = match self.free.len() {
            // The last slot is for what cannot wait.
            ..2 => Err(FULL),
            // SAFETY: the pending start keeps the box, and leaves it alone, until the child has left.
            _ => unsafe { self.make_child(&launch(&*payload)) },
        };
        PendingStart::new(payload, begun)
    }

    /// # Safety
    ///
    /// All that the launch borrows lives, and nobody changes it, until the child has left our
    /// memory.
    unsafe fn make_child(&mut self, launch: &Launch) -> Result<Begun, Failure> {
        let none = |f: Fault| Failure { stage: f.stage, errno: f.errno, greeted: false };
        let extras = launch.extra.is_some() || launch.second.is_some();
        let free = if extras && self.extras_taken { None } else { self.free.pop() };
        let slot = free.ok_or(FULL)?;
        self.extras_taken |= extras;
        let prepared = self.prepare(launch, &slot);
        self.busy.push(slot.fd());
        match prepared {
            Err(f) => {
                self.take_back(slot, extras);
                Err(none(f))
            }
            // SAFETY: the caller's promise.
            Ok(order) => unsafe { Begun::begin(order, slot) }.map_err(|(slot, e)| {
                self.take_back(slot, extras);
                none(fault(Stage::Clone)(e))
            }),
        }
    }

    /// Puts the descriptors into their places and writes down what the child is to do.
    fn prepare(&self, launch: &Launch, slot: &Slot) -> Result<Box<Order<'static>>, Fault> {
        launch.connection.map_or(Ok(()), block)?;
        let [extra, second] = self.extras.each_ref().map(AsRawFd::as_raw_fd);
        let placed =
            [(launch.connection, slot.fd()), (launch.extra, extra), (launch.second, second)];
        let mut keep = slot.fd();
        for (fd, slot) in placed {
            if let Some(fd) = fd {
                duplicate(fd.as_raw_fd(), slot).map_err(fault(Stage::Descriptors))?;
                keep = slot;
            }
        }
        let mut groups = launch.identity.map_or_else(Vec::new, |i| i.groups.clone());
        groups.sort_unstable();
        // SAFETY: `make_child` has promised what the longer life says.
        let launch = unsafe { std::mem::transmute::<Launch<'_>, Launch<'static>>(*launch) };
        Ok(Box::new(Order {
            launch,
            us: self.us.clone(),
            groups_back: vec![Cell::new(0); groups.len() + 1],
            groups,
            null: self.null.as_raw_fd(),
            connection: slot.fd(),
            extra,
            second,
            others: self.busy.iter().copied().filter(|fd| *fd < keep).collect(),
            // Not negative: a descriptor.
            above: keep as u32 + 1,
            nofile: process::nofile_before(),
            runs: AtomicU32::new(1),
            greeted: Cell::new(false),
            fault: Cell::new(None),
        }))
    }

    /// A slot that no child uses any more.
    fn take_back(&mut self, slot: Slot, extras: bool) {
        // Not the last copy: whoever launched it has the connection until then.
        slot.clear(&self.null);
        self.busy.retain(|fd| *fd != slot.fd());
        if extras {
            for slot in &self.extras {
                // It cannot fail: both are open.
                let _ = duplicate(self.null.as_raw_fd(), slot.as_raw_fd());
            }
            self.extras_taken = false;
        }
        self.free.push(slot);
        // The child copies the table up to its own place.
        self.free.sort_unstable_by_key(|s| std::cmp::Reverse(s.fd()));
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
            in_root: std::env::current_dir().is_ok_and(|d| d == Path::new("/")),
            signals: undefaulted(),
        })
    }
}

/// Signals that do not have their default effect; also those that the C library keeps for itself
/// and hides, because a strange parent may have had us ignore them. Those of a fault keep ours
/// (std's, for a full stack) until exec ends it: a child that faults must not die in silence.
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

/// Services must not inherit what a system manager gave us to bind port 1 (capabilities(7)). Secure
/// bits that would let rights survive a change of ids are refused.
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

fn fault(stage: Stage) -> impl Fn(io::Error) -> Fault {
    move |e| Fault { stage, errno: e.raw_os_error().unwrap_or(0) }
}

/// A service expects a descriptor that blocks, and the process that hands us the connection shares
/// its flags.
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

fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a slot of ours, so nobody else's descriptor is closed by it.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}

#[cfg(test)]
mod tests;
