//! Where a child begins, in its parent's memory: what it does, and what it leaves there.

use super::child::{Order, become_program};
use super::instead::{connect, hand_over};
use super::launch::Instead;
use std::ffi::{c_int, c_void};

/// The status of a child that does not exec; nobody sees it.
const ENDED: c_int = 127;

pub(super) extern "C" fn run(order: *mut c_void) -> c_int {
    // SAFETY: the parent handed over an Order, which lives and is left alone until this process has
    // left its memory.
    let order = unsafe { &*order.cast::<Order>() };
    let done = match order.launch.instead {
        None => become_program(order),
        Some(Instead::Connect(to)) => connect(order, to),
        Some(Instead::HandOver { to, message }) => hand_over(order, to, message),
    };
    order.fault.set(done.err());
    ENDED
}
