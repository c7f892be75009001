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

/// A start's own place and stack.
#[derive(Debug)]
pub(super) struct Slot {
    /// A reserved low descriptor: the child's end of the queue. Until the first start here it leads
    /// to /dev/null.
    fd: OwnedFd,
    /// Our end.
    sender: Option<OwnedFd>,
    pub stack: Stack,
}

/// What a start has of a slot.
#[derive(Debug)]
pub(super) enum Place {
    Slot(Slot),
    Apart(Apart),
}

/// What a start keeps whose slot another one has: its stack, and both ends of its queue.
#[derive(Debug)]
pub(super) struct Apart {
    #[expect(dead_code, reason = "the child is on it")]
    stack: Stack,
    queue: Option<(OwnedFd, OwnedFd)>,
}

impl Slot {
    pub fn new(fd: OwnedFd) -> io::Result<Slot> {
        Ok(Slot { fd, sender: None, stack: Stack::new()? })
    }

    /// Where the child receives them.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends descriptors to the child: [`message::FDS_MAX`] at most.
    pub fn send(&mut self, all: &[BorrowedFd]) -> io::Result<()> {
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None => {
                let (sender, receiver) = socket::seqpacket()?;
                duplicate(receiver.as_raw_fd(), self.fd())?;
                sender
            }
        };
        message::send(self.sender.insert(sender).as_fd(), &[1], all)
    }

    /// A slot for another start, with a stack of its own, and what the start here keeps. Err: the
    /// system lacks something, and nothing has changed.
    pub fn split(self, null: &OwnedFd) -> Result<(Slot, Apart), Slot> {
        let Ok((new, receiver)) = self.parts(null) else { return Err(self) };
        let Slot { fd, sender, stack } = self;
        let queue = sender.zip(receiver);
        Ok((Slot { fd, sender: None, stack: new }, Apart { stack, queue }))
    }

    /// What the child has not taken out of the queue, and will not.
    pub fn rest(&self) -> Fds {
        rest(self.sender.as_ref().map(|_| &self.fd))
    }

    /// A new stack, and the child's end of the queue elsewhere.
    fn parts(&self, null: &OwnedFd) -> io::Result<(Stack, Option<OwnedFd>)> {
        let new = Stack::new()?;
        let receiver = self.sender.as_ref().map(|_| low(&self.fd)).transpose()?;
        duplicate(null.as_raw_fd(), self.fd())?;
        Ok((new, receiver))
    }
}

impl Place {
    /// As [`Slot::rest`].
    pub fn rest(&self) -> Fds {
        match self {
            Place::Slot(slot) => slot.rest(),
            Place::Apart(apart) => rest(apart.queue.as_ref().map(|(_, receiver)| receiver)),
        }
    }
}

fn rest(end: Option<&OwnedFd>) -> Fds {
    // An error: nothing is left.
    let received = end.and_then(|end| message::receive(end.as_fd(), &mut [0; 1]).ok());
    received.map(|(_, fds)| fds).unwrap_or_default()
}

/// The lowest free descriptor above the standard ones.
pub(super) fn low(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let raw = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: it was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes `to`, a descriptor that is reserved here, lead to what `from` leads to.
fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a slot of ours, so nobody else's descriptor is closed by it.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}
