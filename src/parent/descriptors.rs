//! How near the parent is to its last descriptor.
//!
//! Nothing that somebody asks for begins with one of the last [`RESERVE`], be it one that came with
//! an order or one that was made for it: those are for what was begun already, for a reload, and to
//! hear the next order, whose answer is that fived is busy. Orders of a net process that there is
//! no number for stay where they are, in its channel, until there is.

use super::run::Parent;
use crate::log;
use crate::sys::message::FDS_MAX;
use crate::sys::reserve::{self, Reserve};
use crate::sys::socket;
use crate::sys::spawn::{BadWord, Failure};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

/// The last descriptors: so many, or an eighth of all where that is less.
const RESERVE: RawFd = 32;
/// How often the log tells of it at most.
const TOLD_FOR: Duration = Duration::from_secs(60);

pub struct Descriptors {
    reserve: Reserve,
    /// Was the last that came one of the reserve, or was there none? Then it is looked, before more
    /// come, whether there are any.
    few: bool,
    told: Option<Duration>,
}

impl Descriptors {
    pub fn new() -> Descriptors {
        Descriptors { reserve: Reserve::of(RESERVE), few: false, told: None }
    }

    /// Those that nothing begins with.
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// Can an order be received with all its descriptors? Asked of every order of a net process,
    /// for a client's only socket may come with it; it is a call only where few are left.
    pub fn have_room(&mut self, channel: BorrowedFd) -> bool {
        if !self.few {
            return true;
        }
        // The limit may have changed.
        self.reserve = Reserve::of(RESERVE);
        reserve::are_free(channel, FDS_MAX)
    }
}

impl Parent {
    /// Is this one of the last descriptors? What it is for is refused then.
    pub fn is_scarce(&mut self, fd: impl AsFd) -> bool {
        self.descriptors.few = self.descriptors.reserve.has(fd);
        if self.descriptors.few {
            self.tell_scarcity();
        }
        self.descriptors.few
    }

    /// There was none.
    pub fn out_of_descriptors(&mut self) {
        self.descriptors.few = true;
        self.tell_scarcity();
    }

    /// Tells of a child that could not be started; of descriptors that lack no more often than of
    /// any.
    pub fn note_not_started(&mut self, what: &str, e: &NotStarted) {
        match e.lacks_descriptors() {
            true => self.out_of_descriptors(),
            false => log::warn(&format!("{what}: {e}")),
        }
    }

    fn tell_scarcity(&mut self) {
        if self.descriptors.told.is_none_or(|told| told + TOLD_FOR <= self.now) {
            self.descriptors.told = Some(self.now);
            log::warn("descriptors: no more than a few are free; new requests are busy");
        }
    }
}

/// Why a child of fived's own was not started.
pub enum NotStarted {
    System(io::Error),
    Start(Failure),
    Words(BadWord),
}

impl NotStarted {
    /// Has the system no room for it now? Then it is tried later, and nobody is to blame.
    pub fn for_want_of_room(&self) -> bool {
        match self {
            NotStarted::System(e) => socket::is_scarcity(e),
            NotStarted::Start(f) => f.is_scarcity(),
            NotStarted::Words(_) => false,
        }
    }

    fn lacks_descriptors(&self) -> bool {
        matches!(self, NotStarted::System(e) if socket::is_out_of_descriptors(e))
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            NotStarted::System(e) => e.fmt(f),
            NotStarted::Start(e) => e.fmt(f),
            NotStarted::Words(e) => e.fmt(f),
        }
    }
}

impl From<io::Error> for NotStarted {
    fn from(e: io::Error) -> NotStarted {
        NotStarted::System(e)
    }
}

impl From<Failure> for NotStarted {
    fn from(f: Failure) -> NotStarted {
        NotStarted::Start(f)
    }
}

impl From<BadWord> for NotStarted {
    fn from(e: BadWord) -> NotStarted {
        NotStarted::Words(e)
    }
}
