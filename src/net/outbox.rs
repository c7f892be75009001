//! Orders to the parent, in their order, without ever waiting for it.
//!
//! What the channel does not take at once is held with its descriptors, at most [`HELD_MAX`] orders: the loop accepts
//! nobody while anything is held. A refusal that would only have been logged is then dropped and counted.

use crate::sys::message;
use crate::wire::orders::{Data, FromNet, Message, ORDER};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Orders that wait for the parent, at most; beyond it nothing is accepted, and this many come from clients already there.
pub const HELD_MAX: usize = 4096;

struct Held {
    order: [u8; ORDER],
    with: [Option<OwnedFd>; 2],
}

/// The channel's sending side.
pub struct Outbox {
    channel: OwnedFd,
    held: VecDeque<Held>,
    unlogged: u64,
}

impl Outbox {
    pub fn new(channel: OwnedFd) -> Outbox {
        Outbox { channel, held: VecDeque::new(), unlogged: 0 }
    }

    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Does the parent lag?
    pub fn lags(&self) -> bool {
        !self.held.is_empty()
    }

    /// Sends or holds an order with copies of these descriptors, two at most. Errors: the channel is broken, or too much is held.
    pub fn send(&mut self, order: &FromNet, with: &[BorrowedFd]) -> io::Result<()> {
        let only_log = matches!(order, FromNet::Refused(_));
        if !self.lags() {
            match message::send_message(self.channel(), &order.encode(), with, false) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        if self.held.len() >= HELD_MAX || only_log && self.held.len() >= HELD_MAX / 2 {
            self.unlogged += u64::from(only_log);
            return if only_log { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut copies = [None, None];
        for (copy, fd) in copies.iter_mut().zip(with) {
            *copy = Some(fd.try_clone_to_owned()?);
        }
        self.held.push_back(Held { order: order.encode(), with: copies });
        Ok(())
    }

    /// Sends what is held, as far as the channel takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(Held { order, with }) = self.held.front() {
            let fds: Vec<BorrowedFd> = with.iter().flatten().map(AsFd::as_fd).collect();
            match message::send_message(self.channel.as_fd(), order, &fds, false) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                done => done?,
            }
            self.held.pop_front();
        }
        match std::mem::take(&mut self.unlogged) {
            0 => Ok(()),
            n => self.send(&FromNet::Warn(Data::cut(format!("{n} refusals not logged: too many at once").as_bytes())), &[]),
        }
    }
}
