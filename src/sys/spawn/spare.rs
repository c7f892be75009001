//! A child that is made before there is an order for it, while fived would only wait, where
//! services are started often.
//!
//! It has done what is the same for every service, and sleeps, in our memory and descriptor table,
//! until the next start. That start then neither makes a process nor waits until there are a
//! session and a keyring for it: with one client at a time it takes a seventh less. Under load a
//! start makes its child itself, which costs the same work in all.

use super::entry;
use super::gate::Gate;
use super::order::Order;
use super::pending::Begun;
use super::slot::Slot;
use std::io;
use std::time::Duration;

/// So many services started within a second or two, and a spare is made for the next one.
const OFTEN: u32 = 16;
/// The second.
const WINDOW: Duration = Duration::from_secs(1);
/// After a spare that somebody ended, or that could not be made, none is made for this long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether one that was killed has left our memory.
const LOOK: Duration = Duration::from_millis(20);

/// How often services are started: a computer where that is seldom has no process for it.
#[derive(Debug, Default)]
pub(super) struct Demand {
    since: Duration,
    starts: u32,
    /// It was high in the window before this one.
    high_before: bool,
    paused_until: Duration,
}

impl Demand {
    pub fn count(&mut self, fits: bool) {
        self.starts = self.starts.saturating_add(u32::from(fits));
    }

    pub fn wants_spare(&mut self, now: Duration) -> bool {
        let age = now.saturating_sub(self.since);
        if age >= WINDOW {
            self.high_before = self.starts >= OFTEN && age < 2 * WINDOW;
            (self.since, self.starts) = (now, 0);
        }
        (self.high_before || self.starts >= OFTEN) && now >= self.paused_until
    }

    pub fn pause(&mut self, now: Duration) {
        self.paused_until = now + PAUSE;
    }
}

/// See the module. Its owner ends it or gives it an order.
#[derive(Debug)]
pub(super) struct Spare {
    slot: Slot,
    /// From a Box.
    gate: *mut Gate,
    pub(super) pid: i32,
}

// SAFETY: what the gate leads to is this value's and its child's.
unsafe impl Send for Spare {}

impl Spare {
    pub fn make(slot: Slot) -> Result<Spare, (Slot, io::Error)> {
        let gate = Box::into_raw(Box::new(Gate::shut()));
        // SAFETY: gate and slot stay as they are until `end`, or until the start that has them is
        // finished; there is no order yet.
        match unsafe { entry::make_child(gate, &slot) } {
            Ok(pid) => Ok(Spare { slot, gate, pid }),
            Err(e) => {
                // SAFETY: no child was made.
                drop(unsafe { Box::from_raw(gate) });
                Err((slot, e))
            }
        }
    }

    fn gate(&self) -> &Gate {
        // SAFETY: only `end` and `begin` give it up.
        unsafe { &*self.gate }
    }

    /// Its order is being written.
    pub fn expect_order(&self) {
        self.gate().expect_order();
    }

    /// Nobody has ended it. One that ends after this was asked is a start's child that ended.
    pub fn is_there(&self) -> bool {
        self.gate().is_ours()
    }

    /// # Safety
    ///
    /// As of [`Begun::begin`].
    unsafe fn begin(self, order: Box<Order<'static>>) -> Begun {
        let order = Box::into_raw(order);
        self.gate().open(order);
        Begun::new(self.slot, order, self.gate, self.pid)
    }

    /// Ends it, unless it has ended already. Its slot, which nobody uses now.
    pub fn end(self) -> Slot {
        if self.is_there() {
            // SAFETY: no memory is handed over. It is in our memory, so nobody has reaped it: the
            // number is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
        // It sleeps where SIGKILL ends it at once.
        while self.is_there() {
            self.gate().wait_until_gone(LOOK);
        }
        // SAFETY: from a Box; the child has ended.
        drop(unsafe { Box::from_raw(self.gate) });
        self.slot
    }
}

/// What a start begins with: a spare, or a slot for a child that is made for it.
pub(super) enum Maker {
    Spare(Spare),
    Slot(Slot),
}

impl Maker {
    pub fn slot(&mut self) -> &mut Slot {
        match self {
            Maker::Spare(spare) => &mut spare.slot,
            Maker::Slot(slot) => slot,
        }
    }

    /// # Safety
    ///
    /// As of [`Begun::begin`].
    pub unsafe fn begin(self, order: Box<Order<'static>>) -> Result<Begun, (Slot, io::Error)> {
        match self {
            // SAFETY: the caller's promise.
            Maker::Spare(spare) => Ok(unsafe { spare.begin(order) }),
            // SAFETY: the caller's promise.
            Maker::Slot(slot) => unsafe { Begun::begin(order, slot) },
        }
    }

    /// The slot, which nobody uses now.
    pub fn end(self) -> Slot {
        match self {
            Maker::Spare(spare) => spare.end(),
            Maker::Slot(slot) => slot,
        }
    }
}
