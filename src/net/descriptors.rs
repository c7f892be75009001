//! How many descriptors this process has left, counting those that the parent is about to send.
//!
//! The last ones are reserved for clients that connect, and for clients that the parent hands back:
//! nothing long-lived may begin with one of them. A descriptor that the parent was asked for has
//! its place set aside before it comes. A source may have one more such place only while it has
//! fewer than are left: streams whose clients are gone keep theirs until the parent has answered.

use crate::policy::{Source, SourceCounts};
use crate::sys::reserve::{self, Reserve};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many are reserved; or an eighth of the limit, where that is less.
const RESERVE: i32 = 32;
/// As long as the reserve is at least so far away, nobody asks the kernel which number is next.
const FAR: i32 = 256;

/// See the module.
#[derive(Debug)]
pub struct Descriptors {
    reserve: Reserve,
    /// The number that was allocated last. The kernel always allocates the lowest that is free.
    last: AtomicI32,
    expected: AtomicI32,
    /// Whose these are.
    sources: Mutex<SourceCounts>,
    /// Was one of the reserved ones allocated since none of them was in use?
    few: AtomicBool,
}

/// A place for a descriptor that will come; dropping it gives the place back.
#[derive(Debug)]
pub struct Reservation(Arc<Descriptors>, Source);

impl Descriptors {
    /// Computed from the current limit.
    pub fn new() -> Descriptors {
        Descriptors {
            reserve: Reserve::of(RESERVE),
            last: AtomicI32::new(0),
            expected: AtomicI32::new(0),
            sources: Mutex::default(),
            few: AtomicBool::new(false),
        }
    }

    /// Is it one of the reserved ones?
    pub fn is_reserved(&self, fd: impl AsFd) -> bool {
        self.note(&fd);
        self.reserve.has(fd)
    }

    /// A descriptor was allocated.
    pub fn note(&self, fd: impl AsFd) {
        self.last.store(fd.as_fd().as_raw_fd(), Ordering::Relaxed);
        if self.reserve.has(fd) {
            self.few.store(true, Ordering::Relaxed);
        }
    }

    /// Can a message be received with this many descriptors? It takes system calls only after a
    /// reserved one was allocated, so it does not notice a limit that was lowered. `open` is any
    /// descriptor that is open.
    pub fn can_receive(&self, open: BorrowedFd, n: usize) -> bool {
        if !self.few.swap(false, Ordering::Relaxed) || self.reserve.is_unused() {
            return true;
        }
        self.few.store(true, Ordering::Relaxed);
        reserve::are_free(open, n)
    }

    /// Passes on a pair that was just made, unless one of it is a reserved descriptor: then the
    /// pair is closed, and the error is that of a process without free descriptors.
    pub fn unless_reserved<T: AsFd>(&self, made: io::Result<(T, T)>) -> io::Result<(T, T)> {
        if let Ok((a, b)) = &made {
            self.note(a);
            self.note(b);
        }
        self.reserve.but(made)
    }

    /// Sets a place aside for a descriptor that will be asked for, for a client of this source.
    /// None: it would be one of the reserved ones, or too many are this source's. `open` is any
    /// descriptor that is open.
    pub fn reserve(self: &Arc<Self>, source: Source, open: BorrowedFd) -> Option<Reservation> {
        let mut sources = self.sources();
        let own = i32::try_from(sources.of(source)).unwrap_or(i32::MAX);
        sources.add(source, 1);
        drop(sources);
        let expected = self.expected.fetch_add(1, Ordering::Relaxed);
        let place = Reservation(self.clone(), source);
        // As many as it has must be left.
        let before = expected.saturating_add(own);
        let last = self.last.load(Ordering::Relaxed);
        if self.reserve.is_after(last.saturating_add(before).saturating_add(FAR)) {
            return Some(place);
        }
        let next = open.try_clone_to_owned().ok()?.as_raw_fd();
        self.last.store(next, Ordering::Relaxed);
        self.reserve.is_after(next.saturating_add(before)).then_some(place)
    }

    fn sources(&self) -> MutexGuard<'_, SourceCounts> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
        self.0.sources().take(self.1, 1);
    }
}
