//! Orders to the parent, in their order, without ever waiting for it.
//!
//! What the channel does not take at once is held with its descriptors, at most [`HELD_MAX`]
//! orders: the loop accepts nobody while anything is held. A refusal that would only have been
//! logged is then dropped and counted.

use crate::sys::message::{self, Failed};
use crate::sys::shared::Shared;
use crate::wire::orders::{Data, FromNet, Message, ORDER};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Orders that wait for the parent, at most; beyond it nothing is accepted, and this many come from
/// clients already there.
pub const HELD_MAX: usize = 4096;

struct Held {
    order: [u8; ORDER],
    with: [Option<Shared>; 2],
}

/// The channel's sending side.
pub struct OrderQueue {
    channel: OwnedFd,
    held: VecDeque<Held>,
    unlogged: u64,
    /// The system had no room: nobody tells when it has some.
    scarce: bool,
    /// The channel is of no more use.
    broken: Option<io::Error>,
}

impl OrderQueue {
    pub fn new(channel: OwnedFd) -> OrderQueue {
        OrderQueue { channel, held: VecDeque::new(), unlogged: 0, scarce: false, broken: None }
    }

    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Does the parent lag?
    pub fn has_backlog(&self) -> bool {
        !self.held.is_empty()
    }

    /// Must what is held be tried again although the poll says nothing?
    pub fn is_scarce(&self) -> bool {
        self.scarce && self.has_backlog()
    }

    /// Why the channel is of no more use, if it is: whoever finds it so must end.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Sends or holds an order with copies of these descriptors, two at most. Errors: too much is
    /// held, or there is no descriptor for a copy. A parent that is gone takes it, too: its end is
    /// noticed where its orders are read.
    pub fn send(&mut self, order: &FromNet, with: &[BorrowedFd]) -> io::Result<()> {
        let only_log = matches!(order, FromNet::Refused(_));
        if !self.has_backlog() {
            match message::send_message(self.channel(), &order.encode(), with, false) {
                Ok(()) => return Ok(()),
                Err(e) if self.is_over(&e) => return Ok(()),
                // It is held.
                _ => {}
            }
        }
        if self.held.len() >= HELD_MAX || only_log && self.held.len() >= HELD_MAX / 2 {
            self.unlogged += u64::from(only_log);
            return if only_log { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut copies = [None, None];
        for (copy, fd) in copies.iter_mut().zip(with) {
            *copy = Some(Shared::copy(*fd)?);
        }
        self.held.push_back(Held { order: order.encode(), with: copies });
        Ok(())
    }

    /// Sends what is held, as far as the channel takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(Held { order, with }) = self.held.front() {
            let fds: Vec<BorrowedFd> = with.iter().flatten().map(AsFd::as_fd).collect();
            match message::send_message(self.channel.as_fd(), order, &fds, false) {
                Ok(()) => drop(self.held.pop_front()),
                Err(e) if self.is_over(&e) => self.held.clear(),
                _ => return Ok(()),
            }
        }
        self.scarce = false;
        match std::mem::take(&mut self.unlogged) {
            0 => Ok(()),
            n => self.send(
                &FromNet::Warn(Data::cut(
                    format!("{n} refusals not logged: too many at once").as_bytes(),
                )),
                &[],
            ),
        }
    }

    /// Can nothing be said any more? Else it is tried again.
    fn is_over(&mut self, e: &io::Error) -> bool {
        let failed = Failed::of(e);
        self.scarce = failed == Failed::Scarce;
        if failed == Failed::Broken {
            self.broken = Some(io::Error::new(e.kind(), e.to_string()));
        }
        matches!(failed, Failed::Gone | Failed::Broken)
    }
}
