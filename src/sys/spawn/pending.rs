//! A start between clone and exec, in which its child shares our memory.

use super::entry;
use super::failure::{Failure, Fault, Stage};
use super::gate::Gate;
use super::given::discard;
use super::order::Order;
use super::running::Child;
use super::slot::{Place, Slot};
use crate::sys::message::Fds;
use crate::sys::process;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a child is waited for before it is looked after; a start takes some 0.1 ms. Not
/// shorter: a timer that would be the processor's next costs 8 µs at every start.
pub const LOOK_AFTER: Duration = Duration::from_millis(20);
/// One that had all of that while nobody waited is waited for all the same, for its child may be at
/// its last step.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How long others run, as often as this process would, before it sleeps until the child has left.
const YIELD_TIME: Duration = Duration::from_micros(50);
/// A child that has not exec'd when it was looked after for so long is killed.
const START_MAX: Duration = Duration::from_secs(5);
/// One that has not ended so long after that hangs where no signal reaches it.
const KILL_MAX: Duration = Duration::from_secs(1);

/// A start that is under way, with all that its child reads in a box of its own: nothing of it
/// changes or goes before the child has left our memory, however it does. Dropped before that, it
/// waits.
#[derive(Debug)]
pub struct PendingStart<T: 'static> {
    /// From a Box, which is made again at the end.
    payload: *mut T,
    state: State,
}

#[derive(Debug)]
enum State {
    Begun(Begun),
    /// There is no child; why, where it never began.
    NotBegun(NotBegun),
}

/// Why there is no child, and what it was to be given.
pub(super) type NotBegun = (Failure, Fds);

#[derive(Debug)]
pub(super) struct Begun {
    /// None: it is being exchanged.
    place: Option<Place>,
    /// From a Box; the child's alone until it has left.
    order: *mut Order<'static>,
    /// What was passed to the child, if it is not in the queue.
    here: Fds,
    /// From a Box; shared with the child.
    gate: *mut Gate,
    pid: i32,
    begun: Instant,
    /// When it was last looked after, and how often.
    looked: Instant,
    looks: u32,
    /// It was waited for long enough.
    late: bool,
    /// It was killed because it was stopped or held up.
    killed: bool,
}

impl<T: 'static> PendingStart<T> {
    pub(super) fn new(payload: *mut T, begun: Result<Begun, NotBegun>) -> PendingStart<T> {
        PendingStart { payload, state: begun.map_or_else(State::NotBegun, State::Begun) }
    }

    /// The child's process id; None: no child was made.
    pub fn pid(&self) -> Option<i32> {
        match &self.state {
            State::Begun(a) => Some(a.pid),
            _ => None,
        }
    }

    /// What its launch borrows.
    pub fn payload(&self) -> &T {
        // SAFETY: the box is there until the start is finished, which takes it; nobody has it for
        // writing.
        unsafe { &*self.payload }
    }

    /// Has its child left our memory, by exec or by its end?
    pub fn is_over(&self) -> bool {
        match &self.state {
            State::Begun(a) => !a.is_ours(),
            _ => true,
        }
    }

    /// How long it has been under way; nothing where it never began.
    pub fn age(&self) -> Duration {
        match &self.state {
            State::Begun(a) => a.begun.elapsed(),
            State::NotBegun(_) => Duration::ZERO,
        }
    }

    /// How long it was looked after: less than its age where this process itself was late. A
    /// computer that stands still, or has no processor for this process, has none for the child
    /// either.
    pub fn looked_after(&self) -> Duration {
        match &self.state {
            State::Begun(a) => a.looked_after(),
            State::NotBegun(_) => Duration::ZERO,
        }
    }

    /// Does it take one of the places of starts?
    pub fn has_place(&self) -> bool {
        matches!(&self.state, State::Begun(Begun { place: Some(Place::Slot(_)), .. }))
    }

    /// Its place, which another start may have. None: it has none, or needs it.
    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        match &mut self.state {
            State::Begun(a) if a.is_ours() => a.take_slot(),
            _ => None,
        }
    }

    /// Was its child killed, and does it hang so that not even that ends it?
    pub fn cannot_be_killed(&self) -> bool {
        matches!(&self.state, State::Begun(a)
            if a.killed && a.looked_after() > START_MAX + KILL_MAX && a.is_ours())
    }

    /// It was waited for in vain, or nobody was to wait: ask [`PendingStart::is_over`], and call
    /// [`PendingStart::look_after`] now and then.
    pub fn is_late(&self) -> bool {
        matches!(&self.state, State::Begun(a) if a.late)
    }

    /// `late`: nobody is to wait for this one, which counts as late from now on.
    pub fn expect_late(&mut self, late: bool) {
        if let State::Begun(a) = &mut self.state {
            a.late |= late;
        }
    }

    /// Waits until it is over or, [`LOOK_AFTER`] after its beginning, is late; then as long once
    /// more.
    pub fn wait(&mut self) {
        if let State::Begun(a) = &mut self.state {
            a.wait();
        }
    }

    /// Of one that is late: a child that was stopped, or that takes too long, is killed.
    pub fn look_after(&mut self) {
        if let State::Begun(a) = &mut self.state {
            a.look_after();
        }
    }

    /// Ends a child that has not left by now, without waiting for its end: the memory that it may
    /// still use is never freed.
    pub fn abandon(mut self) {
        if let State::Begun(a) = &mut self.state {
            a.kill();
            std::mem::forget(self);
        }
    }

    /// The payload, and what became of the child, as soon as that is known.
    pub(super) fn finish(mut self) -> (Box<T>, Finished) {
        let finished = match self.take_state() {
            State::Begun(begun) => begun.finish(),
            State::NotBegun((why, rest)) => Finished { slot: None, result: Err(why), rest },
        };
        let payload = std::mem::replace(&mut self.payload, ptr::null_mut());
        // SAFETY: it came from a Box and was left alone; the child has left.
        (unsafe { Box::from_raw(payload) }, finished)
    }
}

impl<T: 'static> PendingStart<T> {
    fn take_state(&mut self) -> State {
        let taken = Failure { stage: Stage::Clone, errno: 0, greeted: false };
        std::mem::replace(&mut self.state, State::NotBegun((taken, Fds::default())))
    }
}

/// A start that is over.
pub(super) struct Finished {
    /// None: another start has it.
    pub slot: Option<Slot>,
    pub result: Result<Child, Failure>,
    /// What its child was given, where no program can have had it.
    pub rest: Fds,
}

impl<T: 'static> Drop for PendingStart<T> {
    fn drop(&mut self) {
        if let State::Begun(begun) = self.take_state() {
            // Nobody wants to know; the slot ends with it.
            drop(begun.finish());
        }
        if !self.payload.is_null() {
            // SAFETY: as in `finish`.
            drop(unsafe { Box::from_raw(self.payload) });
        }
    }
}

impl Begun {
    /// Makes a child for the order.
    ///
    /// # Safety
    ///
    /// All that the order leads to lives, and nobody changes it, until the child has left.
    pub unsafe fn begin(
        order: Box<Order<'static>>,
        slot: Slot,
    ) -> Result<Begun, (Slot, io::Error)> {
        let order = Box::into_raw(order);
        let gate = Box::into_raw(Box::new(Gate::open_to(order)));
        // SAFETY: the caller's promise; order, gate and slot are left alone until the child has
        // left: `Begun` sees to that.
        match unsafe { entry::make_child(gate, &slot) } {
            Ok(pid) => Ok(Begun::new(slot, order, gate, pid)),
            Err(e) => {
                // SAFETY: no child was made.
                drop(unsafe { (Box::from_raw(order), Box::from_raw(gate)) });
                Err((slot, e))
            }
        }
    }

    /// Of a child that has its order. Order and gate come from Boxes.
    pub fn new(slot: Slot, order: *mut Order<'static>, gate: *mut Gate, pid: i32) -> Begun {
        let (place, begun) = (Some(Place::Slot(slot)), Instant::now());
        let (looked, looks, late, killed) = (begun, 0, false, false);
        Begun { place, order, here: Fds::default(), gate, pid, begun, looked, looks, late, killed }
    }

    /// This was passed to it, and is not in its queue.
    pub fn with(mut self, here: Fds) -> Begun {
        self.here = here;
        self
    }

    fn gate(&self) -> &Gate {
        // SAFETY: it lives as long as this does.
        unsafe { &*self.gate }
    }

    fn is_ours(&self) -> bool {
        self.gate().is_ours()
    }

    fn wait(&mut self) {
        let until = Instant::now() + YIELD_TIME;
        while self.is_ours() && !self.late {
            // Mostly the child runs now. On this processor it is gone when we are back: less than
            // vfork's two changes of process. On another one it is soon, and to sleep and be woken
            // would take longer. SAFETY: no memory is handed over.
            unsafe { libc::syscall(libc::SYS_sched_yield) };
            if Instant::now() >= until {
                break;
            }
        }
        let time = if self.late {
            LOOK_AFTER
        } else {
            LOOK_AFTER.saturating_sub(self.begun.elapsed()).max(WAIT_MIN)
        };
        let until = Instant::now() + time;
        // The wake of a former child in the same place is no answer.
        while self.is_ours() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.late = true;
                return self.look_after();
            }
            self.gate().wait_until_gone(left);
        }
    }

    fn look_after(&mut self) {
        if self.looked.elapsed() < LOOK_AFTER {
            return;
        }
        self.looked = Instant::now();
        self.looks = self.looks.saturating_add(1);
        if self.is_ours() && (process::has_stopped(self.pid) || self.looked_after() > START_MAX) {
            self.kill();
        }
    }

    fn looked_after(&self) -> Duration {
        LOOK_AFTER.saturating_mul(self.looks)
    }

    fn kill(&mut self) {
        if self.is_ours() && !self.killed {
            // SAFETY: no memory is handed over; the child was not reaped, for then it would
            // not be in our memory: the number is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.killed = true;
        }
    }

    fn finish(mut self) -> Finished {
        while self.is_ours() {
            self.wait();
        }
        // SAFETY: they came from Boxes, and the child has left.
        let (order, gate) = unsafe { (Box::from_raw(self.order), Box::from_raw(self.gate)) };
        drop(gate);
        let stopped = Fault { stage: Stage::Stopped, errno: libc::ETIMEDOUT };
        let ends = order.launch.instead.is_some();
        // One without its greeting was ended by somebody else before its exec.
        let no_exec = self.killed || !order.launch.greeting.is_empty() && !order.greeted.get();
        let failed = order.fault.take().or((no_exec && !ends).then_some(stopped));
        let result = match failed {
            None => Ok(Child::new(self.pid)),
            Some(f) => {
                Err(Failure { stage: f.stage, errno: f.errno, greeted: order.greeted.get() })
            }
        };
        let here = std::mem::take(&mut self.here);
        let rest = match (&result, &self.place, here.count()) {
            (Err(_), Some(place), Some(0)) => place.rest(),
            (Err(_), ..) => here,
            (Ok(_), ..) => {
                // Whoever has it now may keep this waiting; but its client waits for its end, and
                // no other process can close it as long as none can be sent.
                discard(here);
                Fds::default()
            }
        };
        let slot = match self.place {
            Some(Place::Slot(slot)) => Some(slot),
            Some(Place::Apart(_)) | None => None,
        };
        Finished { slot, result, rest }
    }

    /// Gives up what others can use, once the child has a descriptor table of its own.
    fn take_slot(&mut self) -> Option<Slot> {
        // SAFETY: it lives as long as this does, and of this the child only reads.
        let order = unsafe { &(*self.order) };
        if !order.has_own_table.load(Ordering::Acquire) {
            return None;
        }
        match self.place.take() {
            Some(Place::Slot(slot)) => match slot.split() {
                Ok((slot, apart)) => {
                    self.place = Some(Place::Apart(apart));
                    Some(slot)
                }
                Err(slot) => {
                    self.place = Some(Place::Slot(slot));
                    None
                }
            },
            other => {
                self.place = other;
                None
            }
        }
    }
}
