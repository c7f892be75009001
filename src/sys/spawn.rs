//! Starting a program with a connection as its standard input and output, fast and with nothing of
//! ours in it.
//!
//! The child shares this process's memory and descriptor table (clone(2): CLONE_VM, CLONE_FILES),
//! leaves the table by a copy of its lowest few entries (close_range(2), CLOSE_RANGE_UNSHARE) and
//! makes only raw system calls until it execs, so that neither memory nor thousands of open
//! descriptors cost anything. A step that fails before exec is written into the shared memory.
//!
//! A start is a [`PendingStart`]: this process may go on and start others meanwhile, each in a slot
//! of its own. Most of a start is the child's own way to exec, which other processors can take: one
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
//!
//! | file | noun |
//! |---|---|
//! | `launch` | what is to be started |
//! | `list` | words as exec wants them |
//! | `slot` | what a start needs on its way to exec |
//! | `gate` | what a child shares with this process, and where it gets its order from |
//! | `entry` | where it begins |
//! | `child` | what it does between clone and exec |
//! | `order` | what it reads, and where it writes what became of that |
//! | `given` `places` | the descriptors that it is given, and their places |
//! | `trial` | it tries the program |
//! | `tried` | what is remembered of the last trial |
//! | `instead` | it does something else than becoming a program |
//! | `inherited` | what it has from this process |
//! | `pending` | a start that is under way |
//! | `failure` | why nothing was started |
//! | `running` | a program that was started |
//! | `spare` | a child that is made before there is an order for it |

mod child;
mod entry;
mod failure;
mod gate;
mod given;
mod inherited;
mod instead;
mod launch;
mod list;
mod order;
mod pending;
mod places;
mod running;
mod slot;
mod spare;
mod trial;
mod tried;

pub use failure::{Failure, Stage};
pub use launch::{Instead, Launch, PATH, Passed, Rlimit, Stderr};
pub use list::{BadWord, CList, Env};
pub use pending::{LOOK_AFTER, PendingStart};
pub use running::Child;
pub use tried::Tried;

use super::message::Fds;
use super::{process, signal};
use failure::Fault;
use given::{Given, discard};
use inherited::Inherited;
use order::Order;
use pending::{Begun, Finished, NotBegun};
use slot::{Slot, low};
use spare::{Demand, Maker, Spare};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ids' raw system calls have 16 bits on 32-bit systems");

/// What starts programs: a few reserved low descriptors, stacks, and what is known of ourselves.
#[derive(Debug)]
pub struct Spawner {
    /// /dev/null.
    null: OwnedFd,
    /// So that no queue has a number that a program's descriptor may have.
    _place: OwnedFd,
    /// The free ones, the best last. Besides the starts that may be under way there is one for
    /// [`Spawner::start`] alone, and one for a spare.
    free: Vec<Slot>,
    capacity: usize,
    inherited: Arc<Inherited>,
    spare: Option<Spare>,
    /// More than one.
    has_processors: bool,
    demand: Demand,
    /// Since it was asked last.
    started: bool,
}

const FULL: Failure = Failure { stage: Stage::Clone, errno: libc::EAGAIN, greeted: false };

impl Spawner {
    /// For so many starts at a time. To be made early: marks all descriptors from 3 on
    /// close-on-exec, reserves the lowest free ones, gives up ambient capabilities and ignores no
    /// signal but those that are blocked. It must be made again after this process changed its
    /// ids.
    pub fn new(capacity: usize) -> io::Result<Spawner> {
        let all = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: no memory is handed over.
        if unsafe { libc::syscall(libc::SYS_close_range, all.0, all.1, all.2) } != 0 {
            return Err(io::Error::last_os_error());
        }
        inherited::drop_ambient()?;
        signal::catch_ignored();
        let file = process::null()?;
        // They ascend, because nothing closes meanwhile: each is the lowest that is free.
        let (null, place) = (low(&file)?, low(&file)?);
        let slots = (0..capacity + 2).map(|_| low(&file)).collect::<io::Result<Vec<OwnedFd>>>()?;
        let free = slots.into_iter().rev().map(Slot::new).collect::<io::Result<_>>()?;
        Ok(Spawner {
            null,
            _place: place,
            free,
            capacity,
            inherited: Arc::new(Inherited::look()?),
            spare: None,
            has_processors: process::processors() > 1,
            demand: Demand::default(),
            started: false,
        })
    }

    /// How many may be under way.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Starts it, and returns when it runs or cannot.
    pub fn start(&mut self, launch: &Launch) -> Result<Child, Failure> {
        // SAFETY: it is finished before this function ends, and what `launch` borrows lives as
        // long.
        let begun = unsafe { self.prepare(launch) }.map_err(|f| (f, Fds::default()));
        let begun = begun.and_then(|prepared| self.make_child(prepared, Fds::default()));
        let start = PendingStart::new(Box::into_raw(Box::new(())), begun);
        let (_, result, rest) = self.finish(start);
        discard(rest);
        result
    }

    /// Lets it start; `launch` lays out what the payload holds. Where as many are under way as may
    /// be this one fails.
    pub fn begin<T: 'static>(
        &mut self,
        payload: Box<T>,
        launch: impl FnOnce(&T) -> Launch<'_>,
    ) -> PendingStart<T> {
        self.begin_with(payload, Fds::default(), |payload, _| launch(payload))
    }

    /// The same of a launch that has what is passed, of which this process has no copy when a
    /// program runs.
    pub fn begin_passing<T: 'static>(
        &mut self,
        payload: Box<T>,
        passed: Passed,
        launch: impl for<'a> FnOnce(&'a T, &'a Passed) -> Launch<'a>,
    ) -> PendingStart<T> {
        self.begin_with(payload, passed, launch)
    }

    fn begin_with<T: 'static, P: Into<Fds>>(
        &mut self,
        payload: Box<T>,
        passed: P,
        launch: impl for<'a> FnOnce(&'a T, &'a P) -> Launch<'a>,
    ) -> PendingStart<T> {
        let payload = Box::into_raw(payload);
        let prepared = match self.under_way() < self.capacity {
            // SAFETY: the pending start keeps the box, and leaves it alone, until the child has
            // left. What is passed is not the launch's any more.
            true => unsafe { self.prepare(&launch(&*payload, &passed)) },
            false => Err(FULL),
        };
        let passed = passed.into();
        let begun = match prepared {
            Ok(prepared) => self.make_child(prepared, passed),
            Err(f) => Err((f, passed)),
        };
        PendingStart::new(payload, begun)
    }

    /// How many starts have a slot.
    fn under_way(&self) -> usize {
        self.capacity + 2 - self.free.len() - usize::from(self.spare.is_some())
    }

    /// What became of a start, as soon as that is known; and the descriptors of its launch, in
    /// their order, if no program can have had them. A child that becomes no program ends then, and
    /// is left to whoever reaps all that ends.
    pub fn finish<T: 'static>(
        &mut self,
        start: PendingStart<T>,
    ) -> (Box<T>, Result<Child, Failure>, Fds) {
        let (payload, finished) = start.finish();
        let Finished { slot, result, rest } = finished;
        slot.into_iter().for_each(|slot| self.add_free(slot));
        (payload, result, rest)
    }

    /// Others may have the place of a start that hangs: its child needs its stack and queue alone.
    pub fn free_place<T: 'static>(&mut self, start: &mut PendingStart<T>) {
        if let Some(slot) = start.take_slot() {
            self.add_free(slot);
        }
    }

    /// Makes a spare where there is none and services are started often. To be called when there is
    /// nothing else to do, as often as that is. `now`: of a clock that never goes back.
    pub fn make_ahead(&mut self, now: Duration) {
        if !self.demand.wants_spare(now) || self.spare.as_ref().is_some_and(Spare::is_there) {
            return;
        }
        if self.end_spare() {
            // Somebody has ended it.
            return self.demand.pause(now);
        }
        let Some(slot) = self.free.pop() else { return };
        match Spare::make(slot) {
            Ok(spare) => self.spare = Some(spare),
            Err((slot, _)) => {
                self.free.push(slot);
                self.demand.pause(now);
            }
        }
    }

    /// A start will begin in a moment, unless something comes between. A spare is woken for it
    /// where there is a processor for both.
    pub fn expect_start(&self) {
        if self.has_processors {
            self.spare.iter().for_each(Spare::expect_order);
        }
    }

    /// Has a start begun since this was asked last?
    pub fn has_started(&mut self) -> bool {
        std::mem::take(&mut self.started)
    }

    /// Is there a spare, which [`Spawner::tidy`] may end?
    pub fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Ends a spare that nobody has needed lately.
    pub fn tidy(&mut self, now: Duration) {
        if !self.demand.wants_spare(now) {
            self.end_spare();
        }
    }

    /// Ends the spare; was there one?
    pub fn end_spare(&mut self) -> bool {
        let ended = self.spare.take().map(Spare::end);
        let was = ended.is_some();
        ended.into_iter().for_each(|slot| self.add_free(slot));
        was
    }

    /// What the child is made by and what it is to do, from which nothing has begun yet.
    ///
    /// # Safety
    ///
    /// All that the launch borrows lives, and nobody changes it, until the child has left our
    /// memory; but not the descriptors, if they are queued.
    unsafe fn prepare(&mut self, launch: &Launch) -> Result<Prepared, Failure> {
        // What a spare has done already is what this one is to do.
        let fits = launch.new_session && launch.identity.is_some();
        self.demand.count(fits);
        self.started = true;
        let spare = self.spare.take_if(|spare| fits && spare.is_there()).map(Maker::Spare);
        let mut maker = spare.or_else(|| self.free.pop().map(Maker::Slot)).ok_or(FULL)?;
        match self.order(launch, &mut maker) {
            Ok(order) => Ok(Prepared { maker, order }),
            Err(f) => {
                self.add_free(maker.end());
                Err(f.before_the_child())
            }
        }
    }

    /// Makes the child. What was passed to it is closed here before that, if it is queued: this
    /// process may get no processor until the program runs.
    fn make_child(&mut self, prepared: Prepared, passed: Fds) -> Result<Begun, NotBegun> {
        let Prepared { maker, order } = prepared;
        let here = match order.given {
            Given::Queued(_) => {
                discard(passed);
                Fds::default()
            }
            Given::Here(_) => passed,
        };
        // SAFETY: `prepare` was promised it.
        match unsafe { maker.begin(order) } {
            Ok(begun) => Ok(begun.with(here)),
            Err((slot, e)) => {
                let rest = if here.count() == Some(0) { slot.rest() } else { here };
                self.add_free(slot);
                Err((Fault::at(Stage::Clone)(e).before_the_child(), rest))
            }
        }
    }

    /// Sends the child what it is given, and writes down what it is to do.
    fn order(&self, launch: &Launch, maker: &mut Maker) -> Result<Box<Order<'static>>, Fault> {
        // SAFETY: `prepare` was promised what the longer life says.
        let mut launch = unsafe { std::mem::transmute::<Launch<'_>, Launch<'static>>(*launch) };
        if !matches!(launch.instead, Some(Instead::Connect(_))) {
            launch.connection.map_or(Ok(()), given::block)?;
        }
        let given = Given::send(&mut launch, maker.slot());
        let given = given.map_err(Fault::at(Stage::Descriptors))?;
        let queue = maker.slot().fd();
        let mut groups = launch.identity.map_or_else(Vec::new, |i| i.groups.clone());
        groups.sort_unstable();
        Ok(Box::new(Order {
            launch,
            inherited: self.inherited.clone(),
            groups_back: vec![Cell::new(0); groups.len() + 1],
            groups,
            null: self.null.as_raw_fd(),
            queue,
            given,
            has_own_table: AtomicBool::new(false),
            above: given.above(queue),
            nofile: process::nofile_before(),
            prepared: matches!(maker, Maker::Spare(_)),
            greeted: Cell::new(false),
            fault: Cell::new(launch.instead.map(|_| instead::NOT_DONE)),
        }))
    }

    /// A slot that no child uses any more.
    fn add_free(&mut self, slot: Slot) {
        self.free.push(slot);
        // The child copies the table up to its own place.
        self.free.sort_unstable_by_key(|s| std::cmp::Reverse(s.fd()));
    }
}

/// A child that is to be made.
struct Prepared {
    maker: Maker,
    order: Box<Order<'static>>,
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.end_spare();
    }
}

#[cfg(test)]
mod tests;
