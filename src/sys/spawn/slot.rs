//! What one start needs for itself on its way to exec: a queue in which its descriptors wait for
//! the child, and a stack.
//!
//! Whoever closes the last copy of a descriptor may have to wait for as long as another process
//! likes that has had it (see `shared`). So this process must have no copy when a program runs; but
//! it wants the descriptors back where none does. It sends them through a socket pair (unix(7),
//! SCM_RIGHTS), and closes its own. The child receives them without taking them out of the queue
//! (recv(2), MSG_PEEK), and takes them out when nothing but exec is left to do.

use crate::sys::message::{self, Fds};
use crate::sys::stack::Stack;
use crate::sys::{check, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A start's own queue and stack.
#[derive(Debug)]
pub(super) struct Slot {
    /// A reserved low descriptor: the child's end of the queue.
    fd: OwnedFd,
    /// Our end.
    sender: OwnedFd,
    pub stack: Stack,
}

/// What a start has of a slot.
#[derive(Debug)]
pub(super) enum Place {
    Slot(Slot),
    Apart(Apart),
}

/// What a start keeps whose slot another one has: its stack, and its queue.
#[derive(Debug)]
pub(super) struct Apart {
    #[expect(dead_code, reason = "the child is on it")]
    stack: Stack,
    receiver: OwnedFd,
    _sender: OwnedFd,
}

impl Slot {
    /// `fd`: a low descriptor, which it takes over.
    pub fn new(fd: OwnedFd) -> io::Result<Slot> {
        let (stack, (sender, receiver)) = (Stack::new()?, socket::seqpacket()?);
        duplicate(&receiver, &fd)?;
        Ok(Slot { fd, sender, stack })
    }

    /// Where the child receives them.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends descriptors to the child: [`message::FDS_MAX`] at most.
    pub fn send(&self, all: &[BorrowedFd]) -> io::Result<()> {
        message::send(self.sender.as_fd(), &[1], all)
    }

    /// A slot for another start, with a queue and a stack of its own, and what the start here
    /// keeps. Err: the system lacks something, and nothing has changed.
    pub fn split(self) -> Result<(Slot, Apart), Slot> {
        let Ok((new, receiver, queue)) = self.parts() else { return Err(self) };
        let Slot { fd, sender, stack } = self;
        Ok((Slot { fd, sender: queue, stack: new }, Apart { stack, receiver, _sender: sender }))
    }

    /// A new stack, our end of the queue elsewhere, and the sending end of a new one.
    fn parts(&self) -> io::Result<(Stack, OwnedFd, OwnedFd)> {
        let (new, (sender, receiver)) = (Stack::new()?, socket::seqpacket()?);
        let old = self.fd.try_clone()?;
        duplicate(&receiver, &self.fd)?;
        Ok((new, old, sender))
    }

    /// What the child has not taken out of the queue, and will not.
    pub fn rest(&self) -> Fds {
        rest(&self.fd)
    }
}

impl Place {
    /// As [`Slot::rest`].
    pub fn rest(&self) -> Fds {
        match self {
            Place::Slot(slot) => slot.rest(),
            Place::Apart(apart) => rest(&apart.receiver),
        }
    }
}

fn rest(queue: &OwnedFd) -> Fds {
    // An error: nothing is left.
    message::receive(queue.as_fd(), &mut [0; 1]).map(|(_, fds)| fds).unwrap_or_default()
}

/// The lowest free descriptor above the standard ones.
pub(super) fn low(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let raw = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: it was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes `to`, a descriptor that is reserved here, lead to what `from` leads to.
fn duplicate(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    // SAFETY: `to` is a slot of ours, so nobody else's descriptor is closed by it.
    check(unsafe { libc::dup3(from.as_raw_fd(), to.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}
