//! What a child is given of this process's descriptors, and where it finds them.

use super::failure::{Fault, Stage};
use super::launch::Launch;
use super::slot::Slot;
use crate::sys::check;
use crate::sys::message::{FDS_MAX, Fds};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// All of a program's descriptors have lower numbers than this. The queues, and what is received,
/// have higher ones, so that nothing is overwritten before it is in its place.
pub(super) const PLACES: u32 = 5;

/// Something for each of them: the connection, the standard error, the extra and the second one.
pub(super) type Each<T> = [T; FDS_MAX];

/// Where they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given {
    /// In the queue, those that there are.
    Queued(Each<bool>),
    /// In this process's table, which has them until the start is over: too many descriptors of its
    /// user are on their way through sockets (unix(7), ETOOMANYREFS), perhaps of other processes.
    Here(Each<Option<RawFd>>),
}

impl Given {
    /// Sends those of a launch, which then has them no more.
    pub fn send(l: &mut Launch, slot: &Slot) -> io::Result<Given> {
        let each = [l.connection.take(), l.errors.take(), l.extra.take(), l.second.take()];
        let all: Vec<BorrowedFd> = each.into_iter().flatten().collect();
        match if all.is_empty() { Ok(()) } else { slot.send(&all) } {
            Err(e) if e.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                Ok(Given::Here(each.map(|fd| fd.map(|fd| fd.as_raw_fd()))))
            }
            sent => sent.map(|()| Given::Queued(each.map(|fd| fd.is_some()))),
        }
    }

    /// Descriptors from here on are not the child's. `queue`: where the child receives.
    pub fn above(&self, queue: RawFd) -> u32 {
        let last = match self {
            Given::Queued(_) => queue,
            Given::Here(each) => each.iter().flatten().copied().fold(queue, RawFd::max),
        };
        // Not negative: a descriptor.
        PLACES.max(last as u32 + 1)
    }
}

/// A service expects a descriptor that blocks, and the process that hands us the connection shares
/// its flags.
pub(super) fn block(fd: BorrowedFd) -> Result<(), Fault> {
    let raw = fd.as_raw_fd();
    // SAFETY: no memory is handed over.
    let flags =
        check(unsafe { libc::fcntl(raw, libc::F_GETFL) }).map_err(Fault::at(Stage::Descriptors))?;
    if flags & libc::O_NONBLOCK != 0 {
        // SAFETY: no memory is handed over.
        let set = check(unsafe { libc::fcntl(raw, libc::F_SETFL, flags & !libc::O_NONBLOCK) });
        set.map_err(Fault::at(Stage::Descriptors))?;
    }
    Ok(())
}

/// Closes copies that are not the last ones, or wherever nobody else can close them.
pub(super) fn discard(mut fds: Fds) {
    while let Some(mut copy) = fds.take() {
        copy.is_of_nobody();
    }
}
