//! How near the parent is to its last descriptor.
//!
//! Nothing that somebody asks for begins with one of the last [`RESERVE`], be it one that came with
//! an order or one that was made for it: those are for what was begun already, for a reload, and to
//! hear the next order, whose answer is that fived is busy. Orders of a net process that there is
//! no number for stay where they are, in its channel, until there is.

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

    /// Is this one of the last descriptors? The log tells of it, once in a while.
    pub fn is_scarce(&mut self, fd: impl AsFd, now: Duration) -> bool {
        self.few = self.reserve.has(fd);
        if self.few {
            self.tell(now);
        }
        self.few
    }

    /// There was none.
    pub fn ran_out(&mut self, now: Duration) {
        self.few = true;
        self.tell(now);
    }

    fn tell(&mut self, now: Duration) {
        if self.told.is_none_or(|told| told + TOLD_FOR <= now) {
            self.told = Some(now);
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

    pub fn lacks_descriptors(&self) -> bool {
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
