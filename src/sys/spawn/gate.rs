//! What a child shares with us from its beginning, and where it gets its order from.

use super::child::{join_keyring, own_session};
use super::failure::{Fault, Stage, Step, step};
use super::order::Order;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;
use syscalls::{Errno, Sysno, syscall};

/// What ps(1) calls a spare (prctl(2), PR_SET_NAME: 15 bytes at most).
const NAME: &CStr = c"fived-spare";

/// The child sleeps, or will.
const SHUT: u32 = 0;
const OPEN: u32 = 1;
/// It is awake, or will be, because its order is being written.
const EXPECTED: u32 = 2;

/// How often others may run while an order is expected. It takes some microseconds; to be woken
/// only then would take longer.
const YIELDS: u32 = 100;

/// See the module. It lives as long as the child is in our memory.
#[derive(Debug)]
pub(super) struct Gate {
    /// 1 as long as the child is in our memory, which the kernel ends (clone(2),
    /// CLONE_CHILD_CLEARTID: at exec, or at its end).
    pub runs: AtomicU32,
    state: AtomicU32,
    order: AtomicPtr<Order<'static>>,
    /// Our process id; for a child that was made before its order, which counts on what that child
    /// does first. Such a child does so even if its order has come before it runs.
    made_ahead_by: Option<u32>,
}

impl Gate {
    /// For a child that has its order from the beginning.
    pub fn open_to(order: *mut Order<'static>) -> Gate {
        Gate {
            runs: AtomicU32::new(1),
            state: AtomicU32::new(OPEN),
            order: AtomicPtr::new(order),
            made_ahead_by: None,
        }
    }

    /// For one that waits for its order.
    pub fn shut() -> Gate {
        Gate {
            runs: AtomicU32::new(1),
            state: AtomicU32::new(SHUT),
            order: AtomicPtr::new(ptr::null_mut()),
            made_ahead_by: Some(std::process::id()),
        }
    }

    pub fn is_ours(&self) -> bool {
        self.runs.load(Ordering::Acquire) != 0
    }

    /// Waits until the child is gone, or for some time of less than a second: the caller looks
    /// which.
    pub fn wait_until_gone(&self, time: Duration) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos() as _ };
        let (call, at, running) = (libc::SYS_futex, self.runs.as_ptr(), 1u32);
        // SAFETY: one word and one timespec are read. Not private: the kernel wakes us as it wakes
        // who joins a thread.
        unsafe { libc::syscall(call, at, libc::FUTEX_WAIT, running, &raw const time) };
    }

    /// Wakes a child that waits: its order will come in a moment, or not at all.
    pub fn expect_order(&self) {
        let (from, to, relaxed) = (SHUT, EXPECTED, Ordering::Relaxed);
        if self.state.compare_exchange(from, to, relaxed, relaxed).is_ok() {
            self.wake();
        }
    }

    /// Gives a child that waits its order.
    pub fn open(&self, order: *mut Order<'static>) {
        self.order.store(order, Ordering::Relaxed);
        if self.state.swap(OPEN, Ordering::Release) == SHUT {
            self.wake();
        }
    }

    fn wake(&self) {
        let (call, wake, one) = (libc::SYS_futex, libc::FUTEX_WAKE, 1);
        // SAFETY: no memory is read or written; the address names who waits.
        unsafe { libc::syscall(call, self.state.as_ptr(), wake, one) };
    }

    /// The child's: its order, as soon as there is one. None: it must end.
    pub fn order(&self) -> Option<*mut Order<'static>> {
        if let Some(parent) = self.made_ahead_by {
            prepare(parent).ok()?;
            loop {
                match self.state.load(Ordering::Acquire) {
                    SHUT => self.sleep(),
                    EXPECTED => self.expect(),
                    _ => break,
                }
            }
            awake().ok()?;
        }
        Some(self.order.load(Ordering::Acquire))
    }

    fn sleep(&self) {
        let (word, for_ever) = (self.state.as_ptr(), ptr::null::<libc::timespec>());
        let (call, wait) = (Sysno::futex, libc::FUTEX_WAIT);
        // SAFETY: one word is read, which lives as long as the child is here. Whatever the answer
        // is, the state is looked at again.
        let _ = unsafe { syscall!(call, word, wait, SHUT, for_ever) };
    }

    /// Lets others run until the order is there, or does not come.
    fn expect(&self) {
        for _ in 0..YIELDS {
            if self.state.load(Ordering::Relaxed) != EXPECTED {
                return;
            }
            // SAFETY: no memory is handed over. It cannot fail.
            let _ = unsafe { syscall!(Sysno::sched_yield) };
        }
        let (from, to, relaxed) = (EXPECTED, SHUT, Ordering::Relaxed);
        // An error: it is there.
        let _ = self.state.compare_exchange(from, to, relaxed, relaxed);
    }
}

/// What a spare does before it sleeps. `parent`: the process that it must not outlive.
fn prepare(parent: u32) -> Step {
    end_with_parent(libc::SIGKILL)?;
    // SAFETY: no memory is handed over.
    if unsafe { syscall!(Sysno::getppid) } != Ok(parent as usize) {
        return Err(Fault::new(Stage::Session, Errno::ESRCH));
    }
    let (call, what) = (Sysno::prctl, libc::PR_SET_NAME);
    // SAFETY: a C string is read.
    step(Stage::Session, unsafe { syscall!(call, what, NAME.as_ptr(), 0, 0, 0) })?;
    own_session()?;
    join_keyring()
}

/// What it does when it has its order: from here on it is as a child that was made for it.
fn awake() -> Step {
    end_with_parent(0)?;
    forget_signals();
    Ok(())
}

fn end_with_parent(signal: i32) -> Step {
    let (call, what) = (Sysno::prctl, libc::PR_SET_PDEATHSIG);
    // SAFETY: no memory is handed over.
    step(Stage::Session, unsafe { syscall!(call, what, signal, 0, 0, 0) })
}

/// Signals are blocked until exec. One that somebody sent to all that pidof(1) finds must not meet
/// the program.
fn forget_signals() {
    let (all, now, nothing) = (!0u64, [0u64; 2], ptr::null::<u8>());
    let (call, size) = (Sysno::rt_sigtimedwait, size_of::<u64>());
    // No standard signal is pending twice; whoever sends real-time signals may send more of them.
    for _ in 0..u64::BITS {
        // SAFETY: one signal set and one timespec are read.
        if unsafe { syscall!(call, &raw const all, nothing, now.as_ptr(), size) }.is_err() {
            return;
        }
    }
}
