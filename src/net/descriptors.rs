//! How near this process is to its last descriptor, and how many are on their way to it.
//!
//! Nothing that lasts begins with one of the last: they are for clients that come, and for those
//! that the parent gives back. What the parent was asked for and will send has its place
//! beforehand.

use crate::sys::reserve::Reserve;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// The last descriptors: so many, or an eighth of all where that is less.
const RESERVE: i32 = 32;
/// Farther than this from the last ones it is not looked which number is next.
const FAR: i32 = 256;

/// See the module.
#[derive(Debug)]
pub struct Descriptors {
    reserve: Reserve,
    /// The number that was given last: the kernel gives the lowest that is free.
    last: AtomicI32,
    expected: AtomicI32,
}

/// A place for a descriptor that is to come; it is given back when this is dropped.
#[derive(Debug)]
pub struct Reservation(Arc<Descriptors>);

impl Descriptors {
    /// By the limit of now.
    pub fn new() -> Descriptors {
        Descriptors {
            reserve: Reserve::of(RESERVE),
            last: AtomicI32::new(0),
            expected: AtomicI32::new(0),
        }
    }

    /// Is it one of the last?
    pub fn is_reserved(&self, fd: impl AsFd) -> bool {
        self.last.store(fd.as_fd().as_raw_fd(), Ordering::Relaxed);
        self.reserve.has(fd)
    }

    /// What was made, unless one of it is one of the last: then the error of a process that has no
    /// descriptor left, and nothing.
    pub fn unless_reserved<T: AsFd>(&self, made: io::Result<(T, T)>) -> io::Result<(T, T)> {
        if let Ok((_, b)) = &made {
            self.last.store(b.as_fd().as_raw_fd(), Ordering::Relaxed);
        }
        self.reserve.but(made)
    }

    /// A place for a descriptor that will be asked for. None: it would be one of the last. `open`
    /// is any descriptor.
    pub fn reserve(self: &Arc<Self>, open: BorrowedFd) -> Option<Reservation> {
        let expected = self.expected.fetch_add(1, Ordering::Relaxed);
        let place = Reservation(self.clone());
        let last = self.last.load(Ordering::Relaxed);
        if self.reserve.is_after(last.saturating_add(expected).saturating_add(FAR)) {
            return Some(place);
        }
        let next = open.try_clone_to_owned().ok()?.as_raw_fd();
        self.last.store(next, Ordering::Relaxed);
        self.reserve.is_after(next.saturating_add(expected)).then_some(place)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
    }
}
