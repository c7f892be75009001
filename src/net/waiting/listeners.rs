//! Accepts clients, as many as there is room for, from each listener in turn.

use super::listener::Listener;
use super::{DISCARD_TIME, Loop, Phase, urgent};
use crate::net::clients::{AfterHeader, ClientState};
use crate::net::request;
use crate::net::sources::Slot;
use crate::policy::{Login, Peer};
use crate::sys::shared::Shared;
use crate::sys::{poll, socket};
use crate::wire::orders::FromNet;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// How many clients are accepted from one listener before the others have their turn.
const BATCH: usize = 64;
/// How long no client is accepted after the system had no memory or descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a draining process may take to accept the clients that connected before: it ends this
/// where clients come without end, and a busy machine takes more than a second for some hundreds.
const LAST_ACCEPT_TIME: Duration = Duration::from_secs(5);

impl Loop {
    /// The poll has reported a listener.
    pub(super) fn may_have_clients(&mut self, listener: usize) {
        if let Some(l) = self.listeners.get_mut(listener) {
            l.pending = true;
        }
    }

    /// Accepts clients, as many as there is room for.
    pub(super) fn accept(&mut self) {
        for i in 0..self.listeners.len() {
            for n in 0..BATCH {
                if !self.listeners[i].pending || self.now < self.accept_after {
                    break;
                }
                match socket::accept(self.listeners[i].socket.as_fd()) {
                    Ok((client, peer)) => {
                        self.arrived(client, peer.into(), i);
                        self.listeners[i].pending = n > 0 || self.next_has_come(i);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        self.listeners[i].pending = false
                    }
                    Err(e) if socket::is_transient(&e) => {}
                    // The source with most clients has lost one; its descriptor is used in the next
                    // turn.
                    Err(e) if socket::is_out_of_descriptors(&e) && self.evict() => break,
                    // Another net process has shut this listener down; the others still work.
                    Err(e) if e.kind() == ErrorKind::InvalidInput => {
                        self.listeners[i].pending = false
                    }
                    Err(e) => {
                        log::debug!("accept: {e}");
                        self.accept_after = self.now + ACCEPT_PAUSE;
                    }
                }
            }
        }
        self.close_silent();
    }

    /// After the first client that was accepted from a listener: does another one wait there? Most
    /// come alone, and this costs less than to try to accept one that is not there. Where the
    /// newest client came from this listener and is waited for, this is looked at together with
    /// what it sends.
    fn next_has_come(&self, listener: usize) -> bool {
        self.newest.is_none_or(|newest| newest.listener != listener)
            && poll::is_readable(self.listeners[listener].socket.as_fd())
    }

    fn arrived(&mut self, client: Shared, peer: Peer, listener: usize) {
        let settings = &self.world.table.settings;
        let deadline = self.now + settings.request_timeout;
        let then = self.listeners[listener]
            .tls_port
            .map_or(AfterHeader::Request, |port| AfterHeader::Handshake { port });
        let state = match settings.proxy_from.contains(peer) {
            true => ClientState::Header { then },
            false => Loop::state_of(then),
        };
        let slot = self.admit(client, peer, state, deadline);
        self.serve_newest(slot, listener);
    }

    /// A client that the parent has accepted at a Unix socket of fived's own.
    pub(super) fn local_client(&mut self, client: Shared, uid: u32, login: Option<Login>) {
        let deadline = self.now + self.world.table.settings.request_timeout;
        let slot = self.admit(client, Peer::User(uid), ClientState::Request, deadline);
        if let Some(client) = self.clients.get(slot) {
            client.login = login.map(Box::new);
        }
        self.request(slot);
    }

    /// Adds a client; if there is no room, another one has to go.
    pub(super) fn admit(
        &mut self,
        client: Shared,
        peer: Peer,
        state: ClientState,
        deadline: Duration,
    ) -> Slot {
        let reserved = self.world.descriptors.is_reserved(&client);
        if reserved || self.clients.len() >= self.world.table.settings.max_connections as usize {
            self.evict();
        }
        let slot = self.clients.insert(client, peer, state, deadline);
        if let Peer::User(_) = peer {
            let client = self.clients.get(slot).filter(|client| client.sends_rights());
            client.into_iter().for_each(urgent::receive_inline);
        }
        slot
    }

    /// Closes the oldest client of the source that has most. False: there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some(slot) = self.clients.to_evict() else { return false };
        if self.clients.get(slot).is_some_and(|c| c.state.is_first())
            && let Some(facts) = self.facts(slot)
        {
            self.report_refusal(&facts, Some(request::EVICTED), b"");
        }
        self.close(slot);
        true
    }

    pub(super) fn listen(&mut self, socket: OwnedFd, tls_port: Option<u32>) -> io::Result<()> {
        let token = Token(1 + self.listeners.len());
        self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        self.listeners.push(Listener { socket, tls_port, pending: true });
        Ok(())
    }

    /// Stops accepting, after the clients that are already waiting at listeners that are given up:
    /// a new table may have another listener for the same address.
    pub(super) fn drain(&mut self, last: bool) {
        let accepts_until = if last { self.now } else { self.now + LAST_ACCEPT_TIME };
        self.world.sessions.wake_when_empty(self.waker.clone());
        self.phase = Phase::Draining { accepts_until, last };
        self.listeners.iter_mut().for_each(|l| l.pending = true);
        if last {
            self.close_silent();
            // A client that is slow to read its answer gets no more time than one that is slow to
            // close.
            for slot in self.clients.in_state(|s| s == ClientState::Answer) {
                self.clients.set_state(slot, ClientState::Answer, self.now + DISCARD_TIME);
            }
        }
    }

    /// When fived ends, closes clients who have not asked for anything, also those who had
    /// connected before and are accepted only now: one whose request has come is served first.
    fn close_silent(&mut self) {
        let last = match self.phase {
            Phase::Draining { last, .. } => last,
            Phase::ParentGone => true,
            Phase::Serving | Phase::Finished => false,
        };
        if last && !self.clients.is_empty() {
            let silent = self.clients.in_state(ClientState::is_first);
            silent.into_iter().for_each(|slot| self.close(slot));
        }
    }

    /// When draining, closes the listeners as soon as no client waits there, or the time is up.
    pub(super) fn close_listeners(&mut self) {
        let accepts_until = match self.phase {
            Phase::Serving => return,
            Phase::Draining { accepts_until, .. } => accepts_until,
            Phase::Finished | Phase::ParentGone => Duration::ZERO,
        };
        if self.listeners.is_empty()
            || self.now < accepts_until
                && (self.newest.is_some() || self.listeners.iter().any(|l| l.pending))
        {
            return;
        }
        for l in self.listeners.drain(..) {
            // The parent has the same socket open: the poll would otherwise still report it.
            let forgotten = self.poll.registry().deregister(&mut SourceFd(&l.socket.as_raw_fd()));
            debug_assert!(forgotten.is_ok());
        }
        self.send_order(&FromNet::ListenersClosed, None, &[]);
    }
}
