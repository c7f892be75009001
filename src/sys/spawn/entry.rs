//! Where a child begins, in its parent's memory: what it does, and what it leaves there.

use super::child::become_program;
use super::gate::Gate;
use super::instead::{connect, hand_over};
use super::launch::Instead;
use super::slot::Slot;
use crate::sys::{check, reaper};
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

/// The status of a child that does not exec; nobody sees it.
const ENDED: c_int = 127;

pub(super) extern "C" fn run(gate: *mut c_void) -> c_int {
    // SAFETY: the parent handed over a Gate, which lives until this process has left its memory.
    let gate = unsafe { &*gate.cast::<Gate>() };
    let Some(order) = gate.order() else { return ENDED };
    // SAFETY: an Order lives, and is left alone, as long.
    let order = unsafe { &*order };
    let done = match order.launch.instead {
        None => become_program(order),
        Some(Instead::Connect(to)) => connect(order, to),
        Some(Instead::HandOver { to, message }) => hand_over(order, to, message),
    };
    order.fault.set(done.err());
    ENDED
}

/// Makes the child; its process id. Signals are blocked meanwhile, so that no handler runs in
/// it.
///
/// # Safety
///
/// The gate, which comes from a Box, the slot's stack and all that the order leads to live, and
/// nobody changes them but by the gate's atomics, until the child has left our memory.
pub(super) unsafe fn make_child(gate: *mut Gate, slot: &Slot) -> io::Result<i32> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let (parent_tid, tls) = (ptr::null_mut::<libc::pid_t>(), ptr::null_mut::<libc::c_void>());
    #[cfg(asan)]
    slot.stack.unpoison();
    let before = mask(!0);
    let clone = || {
        // SAFETY: the caller's promise. The kernel writes to `runs`, the child to its Cells.
        check(unsafe {
            let (top, runs) = (slot.stack.top(), (*gate).runs.as_ptr());
            libc::clone(run, top, flags, gate.cast(), parent_tid, tls, runs)
        })
    };
    let made = reaper::own::start(clone, |pid| *pid);
    mask(before);
    made
}

/// Sets this thread's signal mask, a bit a signal; what it was.
fn mask(new: u64) -> u64 {
    let mut old = 0u64;
    let (call, size) = (libc::SYS_rt_sigprocmask, size_of::<u64>());
    // SAFETY: the kernel's signal sets have 64 bits; one is read and one written. It cannot fail.
    unsafe { libc::syscall(call, libc::SIG_SETMASK, &raw const new, &raw mut old, size) };
    old
}
