//! Orders to the parent, sent without ever waiting for it.
//!
//! Orders that the channel does not take at once are held with their descriptors, and the sources
//! of the clients take turns: whoever asks for much keeps nobody else waiting. Where too many are
//! held, the source with most loses its newest: a request is refused, and a refusal, which would
//! only be logged, is counted. Requests and refusals wait apart from the other orders of clients,
//! and the two take turns. How many refusals the parent has not been told of is counted
//! where it can see that (`sys::gauges`), for the case that this process is killed.

use crate::policy::{BySource, Peer, Source};
use crate::sys::gauges;
use crate::sys::message::{self, Failed};
use crate::sys::process;
use crate::sys::shared::{Shared, Whose};
use crate::wire::orders::{Answer, FromNet, Message, ORDER};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most requests and refusals that are held, and the most of all others; and an eighth of the
/// descriptors that this process may have, where that is less.
const HELD_MAX: usize = 4096;

/// What becomes of an order that is held, if it cannot be held any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of a request for this service, which is refused.
    Start(u32),
    /// It is counted.
    Refusal,
    /// Of a client that waits for the name of its address, and is refused.
    Name { client: u32, generation: u32 },
    /// Of a session, which is told that there are too many.
    Session,
    /// Of a client that a load balancer has named: its connection ends.
    AtPort,
    /// It tells of so many refusals, and is always held: it is of no client.
    Unlogged(u64),
    /// It is of no client, and is always held.
    Own,
}

impl Kind {
    fn of(order: &FromNet) -> Kind {
        match *order {
            FromNet::Start { service, .. } => Kind::Start(service),
            FromNet::Refused(_) => Kind::Refusal,
            FromNet::Name { client, generation, .. } => Kind::Name { client, generation },
            FromNet::Session { .. } => Kind::Session,
            FromNet::AtPort { .. } => Kind::AtPort,
            FromNet::Unlogged { refusals } => Kind::Unlogged(refusals),
            FromNet::Ready
            | FromNet::StartOnClient { .. }
            | FromNet::ListenersClosed
            | FromNet::Close
            | FromNet::Pong => Kind::Own,
        }
    }

    /// Of how many refusals it tells.
    fn refusals(self) -> u64 {
        match self {
            Kind::Refusal => 1,
            Kind::Unlogged(n) => n,
            Kind::Start(_) | Kind::Name { .. } | Kind::Session | Kind::AtPort | Kind::Own => 0,
        }
    }
}

struct Held {
    order: [u8; ORDER],
    kind: Kind,
    with: [Option<Shared>; 2],
}

/// A request that is not held any longer, and is to be refused.
pub enum Lost {
    Start { service: u32, client: Shared },
    Name { client: u32, generation: u32 },
}

/// The sending side of the channel.
pub struct OrderQueue {
    channel: Arc<OwnedFd>,
    /// Those that are sent next: one that the channel did not take, and those of no client.
    next: VecDeque<Held>,
    requests: BySource<Held>,
    others: BySource<Held>,
    /// Was the last one that was sent a request?
    last_was_request: bool,
    most: usize,
    lost: Vec<Lost>,
    /// Refusals that were dropped, and those of which orders tell that are held.
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
            next: VecDeque::new(),
            requests: BySource::default(),
            others: BySource::default(),
            last_was_request: false,
            most: HELD_MAX.min(eighth),
            lost: Vec::new(),
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
        !self.next.is_empty() || !self.requests.is_empty() || !self.others.is_empty()
    }

    /// Must sending be tried again although the poll reports nothing?
    pub fn is_scarce(&self) -> bool {
        self.scarce && self.has_backlog()
    }

    /// Why the channel has failed, if it has: the process must then end.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Requests that were not held any longer, since the last call.
    pub fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Sends or holds an order with this socket, to start a service for a client or to close it;
    /// then it is closed here. `of`: whose source it counts for. It may be
    /// [lost](OrderQueue::lost) later.
    pub fn request(&mut self, order: &FromNet, of: Peer, client: Shared) {
        if self.sent(order, &[client.as_fd()]) {
            drop(client);
            self.has_closed(Kind::of(order));
        } else {
            self.hold(order, of, [Some(client), None]);
        }
    }

    /// This process has no copy any more of what it has sent with such an order.
    fn has_closed(&self, kind: Kind) {
        if matches!(kind, Kind::Start(_) | Kind::AtPort) {
            gauges::closed();
        }
    }

    /// Sends or holds an order with copies of these descriptors, two at most. `of`: the client
    /// whose source it counts for, if it is about one; it may be [lost](OrderQueue::lost) later.
    /// Error: no descriptor is left for a copy. It is no error if the parent is gone: that is
    /// noticed where its orders are read.
    pub fn send(
        &mut self,
        order: &FromNet,
        of: Option<Peer>,
        with: &[BorrowedFd],
    ) -> io::Result<()> {
        if self.sent(order, with) {
            return Ok(());
        }
        let mut copies = [None, None];
        for (copy, fd) in copies.iter_mut().zip(with) {
            match Shared::copy(*fd).map(|copy| copy.of(Whose::Anybody)) {
                Ok(made) => *copy = Some(made),
                Err(e) => {
                    log::debug!("sending order {order:?}: {e}");
                    self.unlogged += 1;
                    self.count();
                    return Err(e);
                }
            }
        }
        self.hold(order, of.unwrap_or(Peer::Nobody), copies);
        Ok(())
    }

    /// Sends it if none is held. True also if the channel is of no more use.
    fn sent(&mut self, order: &FromNet, with: &[BorrowedFd]) -> bool {
        !self.has_backlog()
            && match message::send(self.channel(), &order.encode(), with) {
                Ok(()) => true,
                Err(e) => self.is_over(&e),
            }
    }

    fn hold(&mut self, order: &FromNet, of: Peer, with: [Option<Shared>; 2]) {
        let (kind, of) = (Kind::of(order), Source::of(of));
        let held = Held { order: order.encode(), kind, with };
        self.held_refusals += kind.refusals();
        let lost = match kind {
            Kind::Start(_) | Kind::Refusal => self.requests.add_within(self.most, of, held),
            Kind::Name { .. } | Kind::Session | Kind::AtPort => {
                self.others.add_within(self.most, of, held)
            }
            Kind::Unlogged(_) | Kind::Own => {
                self.next.push_back(held);
                None
            }
        };
        lost.into_iter().for_each(|lost| self.lose(lost));
        self.count();
    }

    /// One that is not held any longer.
    fn lose(&mut self, Held { kind, with: [client, pair], .. }: Held) {
        self.unlogged += 1;
        self.held_refusals -= kind.refusals();
        match (kind, client, pair) {
            (Kind::Start(service), Some(client), _) => {
                self.lost.push(Lost::Start { service, client })
            }
            (Kind::Name { client, generation }, ..) => {
                self.lost.push(Lost::Name { client, generation })
            }
            (Kind::Session, _, Some(pair)) => {
                // Its thread waits for that, and answers its client. If it is gone, so is the
                // client.
                let _ = message::send(pair.as_fd(), &Answer::Full.encode(), &[]);
            }
            _ => {}
        }
    }

    /// Of how many refusals the parent would never hear, if this process ended now.
    fn unreported(&self) -> u64 {
        self.unlogged + self.held_refusals
    }

    fn count(&self) {
        gauges::unreported(self.unreported());
    }

    /// The one that is sent next. Requests and others take turns.
    fn take_next(&mut self) -> Option<Held> {
        if let Some(next) = self.next.pop_front() {
            return Some(next);
        }
        let request = !self.last_was_request || self.others.is_empty();
        let request = request.then(|| self.requests.take_next()).flatten();
        self.last_was_request = request.is_some();
        request.or_else(|| self.others.take_next()).or_else(|| self.requests.take_next())
    }

    /// Sends the orders that are held, as many as the channel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(held) = self.take_next() {
            let fds: Vec<BorrowedFd> = held.with.iter().flatten().map(AsFd::as_fd).collect();
            match message::send(self.channel.as_fd(), &held.order, &fds) {
                Ok(()) => {
                    let kind = held.kind;
                    drop(held);
                    self.has_closed(kind);
                    self.held_refusals -= kind.refusals();
                    self.count();
                }
                Err(e) if self.is_over(&e) => {
                    self.next.clear();
                    (self.requests, self.others) = (BySource::default(), BySource::default());
                }
                _ => {
                    self.next.push_front(held);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use crate::wire::orders::{ClientAddresses, NetPhase, Reason, Refused};

    const NOWHERE: ClientAddresses = ClientAddresses { own: None, proxied: None };

    fn source(n: u8) -> Peer {
        std::net::IpAddr::from([192, 0, 2, n]).into()
    }

    fn name(client: u32) -> FromNet {
        FromNet::Name { client, generation: 7, addresses: NOWHERE }
    }

    fn names(lost: &[Lost]) -> Vec<u32> {
        let of = |lost: &Lost| match lost {
            Lost::Name { client, generation: 7 } => Some(*client),
            _ => None,
        };
        lost.iter().filter_map(of).collect()
    }

    fn refused(n: u8) -> FromNet {
        let (reason, name) = (Reason::TooLong, Vec::new());
        FromNet::Refused(Refused { service: None, host: 0, reason, from: source(n), name })
    }

    /// The next order that the parent reads: of how many refusals it tells.
    fn read(parent: BorrowedFd) -> Option<u64> {
        let mut bytes = [0; ORDER];
        let (n, fds) = message::receive(parent, &mut bytes).ok()?;
        let order = FromNet::accept(&bytes[..n], fds.count(), &NetPhase::Serving);
        Some(Kind::of(&order.expect("an order")).refusals())
    }

    #[test]
    fn the_source_with_most_loses_and_no_refusal_is_lost_count_of() {
        let (ours, parent) = socket::seqpacket().expect("a pair");
        let (pair, thread) = socket::seqpacket().expect("a pair");
        socket::set_send_buffer(ours.as_fd(), 4096).expect("a small buffer");
        let mut q = OrderQueue { most: 4, ..OrderQueue::new(Arc::new(ours)) };
        while !q.has_backlog() {
            q.send(&FromNet::Pong, None, &[]).expect("held");
        }
        let fd = [pair.as_fd()];
        (0..6).for_each(|n| q.send(&name(n), Some(source(1)), &fd).expect("held"));
        assert_eq!(names(&q.lost()), [4, 5]);
        // Others have room for as many, and what is of no client is always held.
        let session = FromNet::Session { tls_port: None, addresses: NOWHERE };
        let both = [pair.as_fd(), pair.as_fd()];
        (2..5).for_each(|n| q.send(&session, Some(source(n)), &both).expect("held"));
        q.send(&FromNet::Pong, None, &[]).expect("held");
        assert_eq!(names(&q.lost()), [3, 2, 1]);
        let mut bytes = [0; ORDER];
        let mut answer = || message::receive(thread.as_fd(), &mut bytes).map(|(n, _)| n);
        assert!(answer().is_err());
        q.send(&session, Some(source(3)), &both).expect("held");
        let n = answer().expect("an answer");
        assert_eq!(Answer::accept(&bytes[..n], Some(0), &()), Some(Answer::Full));
        (0..6).for_each(|_| q.send(&refused(1), Some(source(1)), &[]).expect("held"));
        q.send(&refused(2), Some(source(2)), &[]).expect("held");
        // Six of the names and sessions, and seven refusals.
        let (mut told, mut count_was_held) = (0, false);
        while q.has_backlog() {
            let held = q.next.iter().chain(q.requests.iter()).chain(q.others.iter());
            assert_eq!(q.unreported(), q.unlogged + held.map(|h| h.kind.refusals()).sum::<u64>());
            count_was_held |= q.next.iter().any(|h| matches!(h.kind, Kind::Unlogged(_)));
            told += read(parent.as_fd()).expect("an order");
            q.flush().expect("sent or held");
        }
        told += std::iter::from_fn(|| read(parent.as_fd())).sum::<u64>();
        assert_eq!((told, q.unreported(), count_was_held), (13, 0, true));
    }
}
