//! The descriptors that the parent makes at run time, and the reserve of the last ones.
//!
//! No request is served with one of the last [`RESERVE`] descriptors, whether it came with the
//! order or was made for it. They are for requests that are being served already, for a reload, and
//! for receiving the next order, which fived then answers with busy. So the parent makes all its
//! descriptors here: for a request ([`Descriptors`]), or for fived itself ([`own`]);
//! `tests/layers.rs` holds that. While there are not enough free descriptors to receive an order of
//! a net process with its descriptors, the order stays in the channel.

use crate::log;
use crate::sys::message::FDS_MAX;
use crate::sys::reserve::{self, Reserve};
use crate::sys::shared::{Shared, Whose};
use crate::sys::spawn::{BadWord, Failure};
use crate::sys::{dial, local, memfd, origin_mark, pty, socket};
use crate::wire::run::Size;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// How many descriptors are kept in reserve, or an eighth of all where that is less.
const RESERVE: RawFd = 32;
/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Descriptors that fived cannot do without, and which may be from the reserve: those of a net or
/// keys process, of a configuration, of an answer to a request that is being served already.
pub mod own {
    use crate::sys::gauges::Gauges;
    use crate::sys::memfd::Unsealed;
    use crate::sys::shared::{Shared, Whose};
    use crate::sys::{memfd, socket};
    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};

    /// The two ends of a channel.
    pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
        socket::seqpacket()
    }

    /// A sealed file of these bytes.
    pub fn file(bytes: &[u8]) -> io::Result<OwnedFd> {
        memfd::sealed(bytes)
    }

    /// An empty file of this process, to be written and sealed.
    pub fn unsealed() -> io::Result<Unsealed> {
        Unsealed::new()
    }

    /// What a net process counts, for this one to look at, and its descriptor for that process.
    pub fn gauges() -> io::Result<(Gauges, OwnedFd)> {
        Gauges::new()
    }

    /// A copy.
    pub fn copy(fd: BorrowedFd) -> io::Result<Shared> {
        Ok(Shared::copy(fd)?.of(Whose::Anybody))
    }
}

pub struct Descriptors {
    reserve: Reserve,
    /// Was the last new descriptor from the reserve, or was there none? Then the parent checks that
    /// some are free before it receives more.
    few: bool,
    warned: Option<Duration>,
}

impl Descriptors {
    pub fn new() -> Descriptors {
        Descriptors { reserve: Reserve::of(RESERVE), few: false, warned: None }
    }

    /// The two ends of a stream for a request: the first is fived's own, and takes no descriptors.
    /// Err also where one would be from the reserve.
    pub fn pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let pair = self.reserve.but(socket::pair())?;
        local::take_rights(pair.0.as_fd(), false);
        Ok(pair)
    }

    /// The two ends of a channel, likewise.
    pub fn channel(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.reserve.but(socket::seqpacket())
    }

    /// The two ends of a channel, of which the second is sent away at once, and may be from the
    /// reserve.
    pub fn channel_to_send(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let (ours, theirs) = socket::seqpacket()?;
        Ok((self.reserve.but_one(Ok(ours))?, theirs))
    }

    /// The two ends of a terminal for a service of this user, likewise: ours and the service's.
    pub fn terminal(&self, uid: u32, size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
        self.reserve.but(pty::open(uid, size.rows, size.columns))
    }

    /// A connection to that address that has begun, likewise; it can pass for no client's.
    pub fn dial(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        let fd = self.reserve.but_one(dial::begin(address, false))?;
        origin_mark::set(fd.as_fd())?;
        Ok(fd)
    }

    /// A Unix socket that is to be connected, likewise.
    pub fn unix(&self) -> io::Result<OwnedFd> {
        self.reserve.but_one(local::unconnected())
    }

    /// A sealed file of these bytes, likewise.
    pub fn file(&self, bytes: &[u8]) -> io::Result<OwnedFd> {
        self.reserve.but_one(memfd::sealed(bytes))
    }

    /// A copy of a descriptor of theirs, likewise.
    pub fn copy(&self, fd: BorrowedFd, whose: Whose) -> io::Result<Shared> {
        self.reserve.but_one(Shared::copy(fd).map(|copy| copy.of(whose)))
    }

    /// Can an order be received with all its descriptors? The parent checks this before every order
    /// of a net process, because a client's only socket may come with it. It takes a system call
    /// only where few descriptors are left.
    pub fn can_receive(&mut self, channel: BorrowedFd) -> bool {
        if !self.few {
            return true;
        }
        // The limit may have changed.
        self.reserve = Reserve::of(RESERVE);
        reserve::are_free(channel, FDS_MAX)
    }

    /// Is this descriptor, which no request needs yet, from the reserve?
    pub fn is_of_reserve(&self, fd: impl AsFd) -> bool {
        self.reserve.has(fd)
    }

    /// Is this descriptor, which a request needs, from the reserve? If so, this logs a warning now
    /// and then.
    pub fn is_scarce(&mut self, fd: impl AsFd, now: Duration) -> bool {
        self.few = self.reserve.has(fd);
        if self.few {
            self.warn(now);
        }
        self.few
    }

    /// Notes that no descriptor was free.
    pub fn ran_out(&mut self, now: Duration) {
        self.few = true;
        self.warn(now);
    }

    fn warn(&mut self, now: Duration) {
        if self.warned.is_none_or(|warned| warned + WARN_EVERY <= now) {
            self.warned = Some(now);
            log::warn("descriptors: only a few are free; fived answers new requests with busy");
        }
    }
}

/// Why a child of fived's own was not started.
pub enum ChildError {
    System(io::Error),
    Start(Failure),
    Words(BadWord),
}

impl ChildError {
    /// Did the system lack something? Then a later attempt may succeed.
    pub fn is_scarcity(&self) -> bool {
        match self {
            ChildError::System(e) => socket::is_scarcity(e),
            ChildError::Start(f) => f.is_scarcity(),
            ChildError::Words(_) => false,
        }
    }

    /// Had the parent no descriptors free for it, except the reserve?
    pub fn lacks_descriptors(&self) -> bool {
        matches!(self, ChildError::System(e) if socket::is_out_of_descriptors(e))
    }
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ChildError::System(e) => e.fmt(f),
            ChildError::Start(e) => e.fmt(f),
            ChildError::Words(e) => e.fmt(f),
        }
    }
}

impl From<io::Error> for ChildError {
    fn from(e: io::Error) -> ChildError {
        ChildError::System(e)
    }
}

impl From<Failure> for ChildError {
    fn from(f: Failure) -> ChildError {
        ChildError::Start(f)
    }
}

impl From<BadWord> for ChildError {
    fn from(e: BadWord) -> ChildError {
        ChildError::Words(e)
    }
}
