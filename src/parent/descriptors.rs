//! The parent's descriptors: what it makes at run time, and how few are left.
//!
//! No request is served with one of the last [`RESERVE`] descriptors, whether it came with the
//! order or was made for it. Those are for requests that are being served already, for a reload,
//! and to receive the next order, whose answer is that fived is busy. So nothing else in the parent
//! makes descriptors at run time, and each is made for somebody ([`Descriptors`]), or for fived
//! itself ([`own`]); `tests/layers.rs` holds that. Orders of a net process that there is
//! no number for stay where they are, in its channel, until there is.

use crate::log;
use crate::sys::message::FDS_MAX;
use crate::sys::reserve::{self, Reserve};
use crate::sys::shared::Shared;
use crate::sys::spawn::{BadWord, Failure};
use crate::sys::{memfd, socket};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// The last descriptors: so many, or an eighth of all where that is less.
const RESERVE: RawFd = 32;
/// The time between two warnings, at least.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Descriptors that fived cannot go on without, which may be of the reserve: of a network or keys
/// process, of a configuration, of an answer to what was begun already.
pub mod own {
    use crate::sys::shared::Shared;
    use crate::sys::{memfd, socket};
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};

    /// Two ends of a channel.
    pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
        socket::seqpacket()
    }

    /// A sealed file of these bytes.
    pub fn file(bytes: &[u8]) -> io::Result<OwnedFd> {
        memfd::sealed(bytes)
    }

    /// A copy.
    pub fn copy(fd: BorrowedFd) -> io::Result<Shared> {
        Shared::copy(fd)
    }
}

pub struct Descriptors {
    reserve: Reserve,
    /// Was the newest one of the reserve, or was there none? Then the parent asks whether any are
    /// free before it receives more.
    few: bool,
    warned: Option<Duration>,
}

impl Descriptors {
    pub fn new() -> Descriptors {
        Descriptors { reserve: Reserve::of(RESERVE), few: false, warned: None }
    }

    /// Two ends of a stream for what somebody asks, none of them of the reserve.
    pub fn pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.reserve.but(socket::pair())
    }

    /// Two ends of a channel, likewise.
    pub fn channel(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.reserve.but(socket::seqpacket())
    }

    /// A sealed file of these bytes, likewise.
    pub fn file(&self, bytes: &[u8]) -> io::Result<OwnedFd> {
        self.reserve.but_one(memfd::sealed(bytes))
    }

    /// A copy, likewise.
    pub fn copy(&self, fd: BorrowedFd) -> io::Result<Shared> {
        self.reserve.but_one(Shared::copy(fd))
    }

    /// Can an order be received with all its descriptors? Asked of every order of a net process,
    /// for a client's only socket may come with it; it is a call only where few are left.
    pub fn can_receive(&mut self, channel: BorrowedFd) -> bool {
        if !self.few {
            return true;
        }
        // The limit may have changed.
        self.reserve = Reserve::of(RESERVE);
        reserve::are_free(channel, FDS_MAX)
    }

    /// Is this one of the last descriptors? Of what nobody has asked for yet.
    pub fn is_of_reserve(&self, fd: impl AsFd) -> bool {
        self.reserve.has(fd)
    }

    /// Is this one of the last descriptors? Then the log has a warning, now and then.
    pub fn is_scarce(&mut self, fd: impl AsFd, now: Duration) -> bool {
        self.few = self.reserve.has(fd);
        if self.few {
            self.tell(now);
        }
        self.few
    }

    /// Notes that there was none left.
    pub fn ran_out(&mut self, now: Duration) {
        self.few = true;
        self.tell(now);
    }

    fn tell(&mut self, now: Duration) {
        if self.warned.is_none_or(|warned| warned + WARN_EVERY <= now) {
            self.warned = Some(now);
            log::warn("descriptors: only a few are free; fived answers new requests with busy");
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
    /// Did the system lack something? Then it can be tried again later.
    pub fn is_scarcity(&self) -> bool {
        match self {
            NotStarted::System(e) => socket::is_scarcity(e),
            NotStarted::Start(f) => f.is_scarcity(),
            NotStarted::Words(_) => false,
        }
    }

    /// Had this process no descriptors left for it, but for the reserve?
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
