//! Orders to the parent, sent in their order without ever waiting for it.
//!
//! Orders that the channel does not take at once are held with their descriptors, at most
//! [`HELD_MAX`] of them; while any is held the loop accepts no clients. When half of that is held,
//! refusals, which would only be logged, are dropped and counted. How many refusals the parent has
//! not been told of is counted where it can see that (`sys::gauges`), for the case that this
//! process is killed.

use crate::sys::gauges;
use crate::sys::message::{self, Failed};
use crate::sys::shared::Shared;
use crate::wire::orders::{FromNet, Message, ORDER};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most orders that are held. No client is accepted meanwhile, so all of them come from clients
/// that were there before.
pub const HELD_MAX: usize = 4096;

struct Held {
    order: [u8; ORDER],
    only_log: bool,
    with: [Option<Shared>; 2],
}

/// The sending side of the channel.
pub struct OrderQueue {
    channel: Arc<OwnedFd>,
    held: VecDeque<Held>,
    /// Refusals that were dropped, and those that are held.
    unlogged: u64,
    held_refusals: u64,
    /// Sending failed for want of memory or descriptors: no event tells when to try again.
    scarce: bool,
    /// The channel has failed.
    broken: Option<io::Error>,
}

impl OrderQueue {
    pub fn new(channel: Arc<OwnedFd>) -> OrderQueue {
        OrderQueue {
            channel,
            held: VecDeque::new(),
            unlogged: 0,
            held_refusals: 0,
            scarce: false,
            broken: None,
        }
    }

    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Does the parent have orders waiting that the channel did not take?
    pub fn has_backlog(&self) -> bool {
        !self.held.is_empty()
    }

    /// Must sending be tried again although the poll reports nothing?
    pub fn is_scarce(&self) -> bool {
        self.scarce && self.has_backlog()
    }

    /// Why the channel has failed, if it has: the process must then end.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Sends or holds an order with copies of these descriptors, two at most. Errors: too many
    /// orders are held, or no descriptor is left for a copy. It is no error if the parent is gone:
    /// that is noticed where its orders are read.
    pub fn send(&mut self, order: &FromNet, with: &[BorrowedFd]) -> io::Result<()> {
        let sent = self.send_or_hold(order, with);
        sent.inspect_err(|e| log::debug!("sending order {order:?}: {e}"))
    }

    fn send_or_hold(&mut self, order: &FromNet, with: &[BorrowedFd]) -> io::Result<()> {
        let only_log = matches!(order, FromNet::Refused(_));
        if !self.has_backlog() {
            match message::send(self.channel(), &order.encode(), with) {
                Ok(()) => return Ok(()),
                Err(e) if self.is_over(&e) => return Ok(()),
                // Hold it.
                _ => {}
            }
        }
        if self.held.len() >= HELD_MAX || only_log && self.held.len() >= HELD_MAX / 2 {
            self.unlogged += u64::from(only_log);
            self.count();
            return if only_log { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut copies = [None, None];
        for (copy, fd) in copies.iter_mut().zip(with) {
            *copy = Some(Shared::copy(*fd)?);
        }
        self.held.push_back(Held { order: order.encode(), only_log, with: copies });
        self.held_refusals += u64::from(only_log);
        self.count();
        Ok(())
    }

    /// Tells the parent how many refusals it would never hear of, if this process ended now.
    fn count(&self) {
        gauges::unreported(self.unlogged + self.held_refusals);
    }

    /// Sends the orders that are held, as many as the channel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(Held { order, only_log, with }) = self.held.front() {
            let only_log = *only_log;
            let fds: Vec<BorrowedFd> = with.iter().flatten().map(AsFd::as_fd).collect();
            match message::send(self.channel.as_fd(), order, &fds) {
                Ok(()) => {
                    self.held_refusals -= u64::from(only_log);
                    self.held.pop_front();
                    self.count();
                }
                Err(e) if self.is_over(&e) => self.held.clear(),
                _ => return Ok(()),
            }
        }
        self.scarce = false;
        match std::mem::take(&mut self.unlogged) {
            0 => Ok(()),
            n => {
                let sent = self.send(&FromNet::Unlogged { refusals: n }, &[]);
                self.count();
                sent
            }
        }
    }

    /// Is the channel of no more use? If not, sending is tried again.
    fn is_over(&mut self, e: &io::Error) -> bool {
        let failed = Failed::of(e);
        self.scarce = failed == Failed::Scarce;
        if failed == Failed::Broken {
            self.broken = Some(io::Error::new(e.kind(), e.to_string()));
        }
        matches!(failed, Failed::Gone | Failed::Broken)
    }
}
