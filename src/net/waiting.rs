//! The loop: accept clients, wait for their requests, answer them or hand them on. It never waits
//! for a single client, nor for the parent.
//!
//! A client's bytes stay in its socket until its line is complete, and only the line is read: what
//! follows belongs to the service. When `max_connections` clients wait, or descriptors run out, a
//! new client replaces the oldest of the source that has most. No client is accepted for a moment
//! after the system had no memory or descriptor. Listeners are polled edge-triggered, so each
//! remembers that clients may be waiting in its backlog.
//!
//! | file | noun |
//! |---|---|
//! | `listeners` `listener` `newest` | accepting; the newest client is looked at first |
//! | `header` `line` `urgent` | what a client sends, peeked at until it is complete |
//! | `answer` | the answer to a client, and what is discarded after it |
//! | `parent` | orders from the parent and to it |
//! | `relays` | what the relays' threads leave to the loop |

mod answer;
mod header;
mod line;
mod listener;
mod listeners;
mod newest;
mod parent;
mod relays;
mod urgent;

use super::answers::Answers;
use super::channel::Asked;
use super::clients::{AfterHeader, ClientState, Clients};
use super::order_queue::OrderQueue;
use super::relays::Relays;
use super::request::{self, Decision, Where};
use super::returned::Returned;
use super::session_counts::Full;
use super::sources::Slot;
use super::world::World;
use super::{session, session_state};
use crate::link::{LINGER_BYTES, LINGER_TIME};
use crate::policy::{Facts, HostId, Peer, Reached, ServiceId};
use crate::sys::shared::Shared;
use crate::sys::{clock, gauges, socket};
use crate::wire::orders::{ClientAddresses, FromNet};
use crate::wire::reply;
use listener::{Listener, Newest};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

/// How many bytes a client that has its answer may still send, and for how long.
const DISCARD_BYTES: u32 = LINGER_BYTES as u32;
const DISCARD_TIME: Duration = LINGER_TIME;
/// How often a draining process without a session checks whether nothing else is left.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// When something is tried again for which the system had no memory or descriptor.
const RETRY: Duration = Duration::from_millis(10);

const CHANNEL: Token = Token(0);
/// Relays leave something to the loop, or the last session of a draining process has ended.
const WAKER: Token = Token(usize::MAX);
/// Listeners have the tokens from 1, clients those from here.
const CLIENTS: usize = 1 << 16;

/// How far this process is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It accepts clients.
    Serving,
    /// It accepts only clients that connected before this phase began, until then at most. `last`:
    /// fived ends, so that nobody is waited for who has not asked for anything.
    Draining { accepts_until: Duration, last: bool },
    /// No client and no session is left, and the parent was told so. The parent may still send a
    /// client to be refused.
    Finished,
    /// The parent has closed its end of the channel. The process ends with its last client.
    ParentGone,
}

/// The loop's whole state.
pub struct Loop {
    world: Arc<World>,
    poll: Poll,
    order_queue: OrderQueue,
    /// Is the poll asked to report when the channel takes orders again?
    watched: bool,
    listeners: Vec<Listener>,
    clients: Clients,
    newest: Option<Newest>,
    /// The client that was accepted just now: it is not watched before it was looked at.
    arriving: Option<Slot>,
    /// Answers that sockets did not take at once.
    answers: Answers,
    relays: Relays,
    waker: Arc<Waker>,
    accept_after: Duration,
    /// Sockets that the parent is to close.
    returned: Returned,
    /// The system had no memory or descriptor for the parent's next order.
    orders_unread: bool,
    phase: Phase,
    now: Duration,
    minute: (Duration, u16),
}

impl Loop {
    /// A loop for this configuration.
    pub fn new(world: Arc<World>) -> io::Result<Loop> {
        let (poll, channel) = (Poll::new()?, world.channel.clone());
        let fd = channel.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), CHANNEL, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let relays = Relays::new(waker.clone(), world.descriptors.clone());
        let returned = Returned::new(waker.clone());
        Ok(Loop {
            world,
            poll,
            relays,
            waker,
            order_queue: OrderQueue::new(channel),
            watched: false,
            listeners: Vec::new(),
            clients: Clients::default(),
            newest: None,
            arriving: None,
            answers: Answers::default(),
            accept_after: Duration::ZERO,
            returned,
            orders_unread: false,
            phase: Phase::Serving,
            now: clock::monotonic(),
            minute: (Duration::ZERO, clock::minute_of_day()),
        })
    }

    /// Serves until the parent has sent `Drain` and no client is left. Errors: the parent has sent
    /// something that is not an order, or the poll fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        self.order_queue.send(&FromNet::Ready, None, &[])?;
        while self.phase != Phase::ParentGone || !self.is_empty() {
            gauges::waiting(self.clients.len());
            self.wait(&mut events)?;
            self.now = clock::monotonic();
            for event in &events {
                match event.token() {
                    CHANNEL => self.receive_orders()?,
                    // Below.
                    WAKER => {}
                    Token(t) if t >= CLIENTS => {
                        let closed = event.is_read_closed() || event.is_error();
                        self.ready(t - CLIENTS, closed, event.is_priority())
                    }
                    Token(t) => self.may_have_clients(t - 1),
                }
            }
            if std::mem::take(&mut self.orders_unread) {
                self.receive_orders()?;
            }
            self.look_after_relays();
            self.accept();
            self.close_listeners();
            self.expire();
            self.return_sockets();
            self.flush_orders();
            self.clients.free_slots();
            self.finish();
            if let Some(e) = self.order_queue.broken() {
                return Err(e);
            }
        }
        Ok(())
    }

    /// When no client is left, closes the sending direction of the channel. The parent may still
    /// refuse what was asked last: it closes the channel when nothing more follows.
    fn finish(&mut self) {
        if matches!(self.phase, Phase::Draining { .. }) && self.is_empty() {
            self.phase = Phase::Finished;
            // This fails if the parent is gone, which changes nothing.
            let _ = socket::shutdown_write(self.order_queue.channel());
        }
    }

    fn is_empty(&self) -> bool {
        self.phase != Phase::Serving
            && self.listeners.is_empty()
            && self.clients.is_empty()
            && self.relays.is_empty()
            && !self.order_queue.has_backlog()
            && self.world.sessions.is_empty()
    }

    /// How long the poll may wait.
    fn poll_timeout(&self) -> Option<Duration> {
        let mut until = self.clients.next_deadline().map(|d| d.saturating_sub(self.now));
        let mut at_most = |d: Duration| until = Some(until.map_or(d, |u| u.min(d)));
        // The last session's end wakes it.
        let waits_for_sessions = self.listeners.is_empty() && !self.world.sessions.is_empty();
        if self.phase != Phase::Serving && !waits_for_sessions {
            at_most(DRAIN_POLL);
        }
        if self.orders_unread || self.order_queue.is_scarce() {
            at_most(RETRY);
        }
        if self.listeners.iter().any(|l| l.pending) {
            at_most(self.accept_after.saturating_sub(self.now));
        }
        // The poll counts milliseconds: rounded up, so that it never wakes just before a deadline.
        until.map(|d| if d.is_zero() { d } else { d + Duration::from_millis(1) })
    }

    // Clients.

    fn ready(&mut self, slot: Slot, closed: bool, urgent: bool) {
        let Some(client) = self.clients.get(slot) else { return };
        client.closed |= closed;
        let request = [ClientState::Request, ClientState::Header { then: AfterHeader::Request }];
        if urgent && request.contains(&client.state) {
            urgent::receive_inline(client);
        }
        match client.state {
            ClientState::Header { then } => self.header(slot, then),
            ClientState::Request => self.request(slot),
            ClientState::Handshake { port } => self.handshake(slot, port),
            ClientState::Answer => self.continue_answer(slot),
            ClientState::Discard { left } => self.discard_rest(slot, left),
        }
    }

    /// What is known about a client that has not begun a session.
    fn facts(&mut self, slot: Slot) -> Option<Facts> {
        if self.now.saturating_sub(self.minute.0) >= Duration::from_secs(1) {
            self.minute = (self.now, clock::minute_of_day());
        }
        let client = self.clients.get(slot)?;
        Some(Facts {
            peer: client.peer,
            host: HostId::DEFAULT,
            // Nobody can listen to what goes through a Unix socket.
            encrypted: matches!(client.peer, Peer::User(_)),
            login: client.login.as_deref().cloned(),
            minute: self.minute.1,
            peer_name: client.name.name(),
            reached: Reached::ByName,
        })
    }

    fn start(&mut self, slot: Slot, service: ServiceId, host: HostId) {
        self.clients.get(slot).into_iter().for_each(urgent::restore);
        let Some(of) = self.clients.get(slot).map(|client| client.peer) else { return };
        let Some((socket, addresses)) = self.detach(slot) else { return };
        let order = FromNet::Start { service: service.0, host: host.0, addresses };
        self.order_queue.request(&order, of, socket);
    }

    fn session(&mut self, slot: Slot, first: session_state::First) {
        let Some(mut facts) = self.facts(slot) else { return };
        if first.tls_port().is_some() {
            facts.reached = Reached::AtTlsPort;
        }
        let world = self.world.clone();
        let (settings, resumes) = (&world.table.settings, first.leads_to_resume());
        let guard = match world.sessions.admit(facts.peer, settings, resumes) {
            Ok(guard) => guard,
            Err(full) => return self.refuse_session(slot, &facts, first, full),
        };
        let reserved =
            self.clients.get(slot).is_some_and(|c| world.descriptors.is_reserved(&c.socket));
        let pair = world.descriptors.unless_reserved(socket::seqpacket());
        let (Ok((ours, theirs)), false) = (pair, reserved) else {
            return self.refuse_session(slot, &facts, first, Full::Descriptors);
        };
        let Some((socket, addresses)) = self.detach(slot) else { return };
        let order = FromNet::Session { tls_port: first.tls_port(), addresses };
        if !self.send_order(&order, Some(facts.peer), &[socket.as_fd(), theirs.as_fd()]) {
            // A client that expects TLS cannot read a line.
            return if first.is_tls() {
                drop(socket)
            } else {
                self.answer_returned(socket, reply::BUSY.to_vec())
            };
        }
        let place = Where::Connection;
        session::begin(session_state::Start {
            world,
            connection: socket,
            facts,
            channel: Asked::Pair(ours),
            place,
            first,
            guard,
            outer: None,
            handover: None,
        });
    }

    fn refuse_session(
        &mut self,
        slot: Slot,
        facts: &Facts,
        first: session_state::First,
        full: Full,
    ) {
        if full == Full::Descriptors {
            self.world.sessions.free_descriptors(facts.peer, &self.world.table.settings);
        }
        if let Decision::Refuse { bytes, why } = request::no_session_left(full) {
            self.report_refusal(facts, why, b"");
            // A client that expects TLS cannot read a line.
            if first.is_tls() { self.close(slot) } else { self.answer_and_close(slot, bytes) }
        }
    }

    /// Removes a client from the poll and the slab and returns its socket, which others may keep
    /// open, and its addresses.
    fn detach(&mut self, slot: Slot) -> Option<(Shared, ClientAddresses)> {
        let client = self.clients.remove(slot)?;
        if client.polled {
            let forgotten =
                self.poll.registry().deregister(&mut SourceFd(&client.socket.as_raw_fd()));
            debug_assert!(forgotten.is_ok());
        }
        let addresses = client.addresses();
        Some((client.socket, addresses))
    }

    fn close(&mut self, slot: Slot) {
        self.answers.remove(slot);
        if let Some(client) = self.clients.remove(slot) {
            // Read what is left of its request: closing a socket with unread data would send a
            // reset.
            let _ = client.discard(DISCARD_BYTES as usize);
            if client.sends_rights() {
                // The parent closes it, when it comes to that.
                let _ = socket::shutdown_both(client.socket.as_fd());
            }
        }
    }

    fn watch(&mut self, slot: Slot, interest: Interest) {
        if self.arriving == Some(slot) && !interest.is_writable() {
            return;
        }
        let interest = interest | Interest::PRIORITY;
        let Some(client) = self.clients.get(slot) else { return };
        let fd = client.socket.as_raw_fd();
        let known = std::mem::replace(&mut client.polled, true);
        let (registry, token) = (self.poll.registry(), Token(CLIENTS + slot));
        let done = match known {
            false => registry.register(&mut SourceFd(&fd), token, interest),
            true if !interest.is_writable() => Ok(()),
            true => registry.reregister(&mut SourceFd(&fd), token, interest),
        };
        if done.is_err() {
            self.close(slot);
        }
    }

    fn expire(&mut self) {
        while let Some(slot) = self.clients.overdue(self.now) {
            match self.clients.get(slot).map(|c| c.state) {
                Some(ClientState::Header { .. }) => self.no_header(slot),
                _ => self.close(slot),
            }
        }
    }
}
