//! Orders to the parent, sent without ever waiting for it.
//!
//! Orders that the channel does not take at once are held with their descriptors, and the sources
//! of the clients take turns: whoever asks for much keeps nobody else waiting. Where too many
//! requests and refusals are held, the source with most loses its newest: a request is refused, and
//! a refusal, which would only be logged, is counted. How many refusals the parent has not been
//! told of is counted where it can see that (`sys::gauges`), for the case that this process is
//! killed.

use crate::policy::{BySource, Peer, Source};
use crate::sys::gauges;
use crate::sys::message::{self, Failed};
use crate::sys::process;
use crate::sys::shared::Shared;
use crate::wire::orders::{FromNet, Message, ORDER};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most requests and refusals that are held; and an eighth of the descriptors that this process
/// may have, where that is less.
const HELD_MAX: usize = 4096;

/// What becomes of an order that is held, if it cannot be held any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of a request for this service, which is refused.
    Start(u32),
    /// It is counted.
    Refusal,
    /// It is held.
    Other,
}

struct Held {
    order: [u8; ORDER],
    kind: Kind,
    with: [Option<Shared>; 2],
}

/// The sending side of the channel.
pub struct OrderQueue {
    channel: Arc<OwnedFd>,
    /// The one that is sent next.
    next: Option<Held>,
    requests: BySource<Held>,
    others: BySource<Held>,
    /// Was the last one that was sent a request?
    last_was_request: bool,
    most: usize,
    /// How many others are held.
    other: usize,
    /// Requests that are not held any longer: for which service, and their clients.
    refused: Vec<(u32, Shared)>,
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
        let eighth = usize::try_from(process::nofile() / 8).unwrap_or(usize::MAX);
        OrderQueue {
            channel,
            next: None,
            requests: BySource::default(),
            others: BySource::default(),
            last_was_request: false,
            most: HELD_MAX.min(eighth),
            other: 0,
            refused: Vec::new(),
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
        self.next.is_some() || !self.requests.is_empty() || !self.others.is_empty()
    }

    /// Must sending be tried again although the poll reports nothing?
    pub fn is_scarce(&self) -> bool {
        self.scarce && self.has_backlog()
    }

    /// Why the channel has failed, if it has: the process must then end.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Requests that were not held any longer, since the last call: for which service, and their
    /// clients.
    pub fn refused(&mut self) -> Vec<(u32, Shared)> {
        std::mem::take(&mut self.refused)
    }

    /// Sends or holds the order to start this service for a client. `of`: whose source it counts
    /// for. It may be [refused](OrderQueue::refused) later.
    pub fn request(&mut self, order: &FromNet, service: u32, of: Peer, client: Shared) {
        if !self.sent(order, &[client.as_fd()]) {
            self.hold_or_lose(order, Kind::Start(service), of, [Some(client), None]);
        }
    }

    /// Sends or holds an order with copies of these descriptors, two at most. `of`: the client
    /// whose source it counts for, if it is about one. Errors: too many orders are held, or no
    /// descriptor is left for a copy. It is no error if the parent is gone: that is noticed where
    /// its orders are read.
    pub fn send(
        &mut self,
        order: &FromNet,
        of: Option<Peer>,
        with: &[BorrowedFd],
    ) -> io::Result<()> {
        if self.sent(order, with) {
            return Ok(());
        }
        let of = of.unwrap_or(Peer::Nobody);
        if let FromNet::Refused(_) = order {
            self.hold_or_lose(order, Kind::Refusal, of, [None, None]);
            return Ok(());
        }
        let held = self.hold(order, of, with);
        held.inspect_err(|e| log::debug!("sending order {order:?}: {e}"))
    }

    /// Sends it if none is held. True also if the channel is of no more use.
    fn sent(&mut self, order: &FromNet, with: &[BorrowedFd]) -> bool {
        !self.has_backlog()
            && match message::send(self.channel(), &order.encode(), with) {
                Ok(()) => true,
                Err(e) => self.is_over(&e),
            }
    }

    fn hold(&mut self, order: &FromNet, of: Peer, with: &[BorrowedFd]) -> io::Result<()> {
        if self.other >= self.most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut copies = [None, None];
        for (copy, fd) in copies.iter_mut().zip(with) {
            *copy = Some(Shared::copy(*fd)?);
        }
        let held = Held { order: order.encode(), kind: Kind::Other, with: copies };
        self.other += 1;
        self.others.add(Source::of(of), held);
        Ok(())
    }

    fn hold_or_lose(&mut self, order: &FromNet, kind: Kind, of: Peer, with: [Option<Shared>; 2]) {
        let held = Held { order: order.encode(), kind, with };
        self.held_refusals += u64::from(kind == Kind::Refusal);
        let lost = self.requests.add_within(self.most, Source::of(of), held);
        lost.into_iter().for_each(|lost| self.lose(lost));
        self.count();
    }

    /// One that is not held any longer.
    fn lose(&mut self, Held { kind, with: [client, _], .. }: Held) {
        self.unlogged += 1;
        match (kind, client) {
            (Kind::Start(service), Some(client)) => self.refused.push((service, client)),
            _ => self.held_refusals -= u64::from(kind == Kind::Refusal),
        }
    }

    /// Tells the parent how many refusals it would never hear of, if this process ended now.
    fn count(&self) {
        gauges::unreported(self.unlogged + self.held_refusals);
    }

    /// The one that is sent next. Requests and others take turns.
    fn take_next(&mut self) -> Option<Held> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        let request = !self.last_was_request || self.others.is_empty();
        let request = request.then(|| self.requests.take_next()).flatten();
        self.last_was_request = request.is_some();
        request.or_else(|| {
            let other = self.others.take_next().or_else(|| self.requests.take_next());
            self.other -= usize::from(other.as_ref().is_some_and(|o| o.kind == Kind::Other));
            other
        })
    }

    /// Sends the orders that are held, as many as the channel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(held) = self.take_next() {
            let fds: Vec<BorrowedFd> = held.with.iter().flatten().map(AsFd::as_fd).collect();
            match message::send(self.channel.as_fd(), &held.order, &fds) {
                Ok(()) => {
                    self.held_refusals -= u64::from(held.kind == Kind::Refusal);
                    self.count();
                }
                Err(e) if self.is_over(&e) => {
                    (self.requests, self.others) = (BySource::default(), BySource::default());
                    self.other = 0;
                }
                _ => {
                    self.next = Some(held);
                    return Ok(());
                }
            }
        }
        self.scarce = false;
        match std::mem::take(&mut self.unlogged) {
            0 => Ok(()),
            n => {
                let sent = self.send(&FromNet::Unlogged { refusals: n }, None, &[]);
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
