//! The newest client. Most clients send their request as soon as they are connected: it is looked
//! for at once, then again when the next client has been accepted. Between the two the newest one
//! is waited for with poll(2), together with the others: a client that is served within this moment
//! is never added to the loop's own poll (epoll(7)), nor removed from it.

use super::Loop;
use super::listener::Newest;
use crate::net::clients::Client;
use crate::net::sources::Slot;
use crate::sys::clock;
use crate::sys::poll::{self, Poll};
use mio::{Events, Interest};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the newest client is waited for in this way.
const FIRST_WAIT: Duration = Duration::from_millis(1);

impl Loop {
    /// A client was accepted from this listener: serves it if its request has come already.
    pub(super) fn serve_newest(&mut self, slot: Slot, listener: usize) {
        let Some(generation) = self.clients.get(slot).map(|c| c.generation) else { return };
        self.arriving = Some(slot);
        self.ready(slot, false, false);
        self.arriving = None;
        let waits = |c: &&mut Client| c.generation == generation && !c.polled;
        let Some(client) = self.clients.get(slot).filter(waits) else { return };
        if !client.state.is_first() {
            return self.watch(slot, Interest::READABLE);
        }
        let until = self.now + FIRST_WAIT;
        let newest = Newest { slot, generation, listener, until };
        if let Some(former) = self.newest.replace(newest) {
            self.may_have_clients(former.listener);
            self.serve(former);
        }
    }

    /// Waits until something is to be done: for what the loop's own poll reports, which `events`
    /// then holds, and for the newest client, which is served here.
    pub(super) fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let mut timeout = self.poll_timeout();
        if let Some(newest) = self.newest {
            events.clear();
            let rest = newest.until.saturating_sub(self.now);
            if !self.wait_for_newest(newest, timeout.map_or(rest, |t| t.min(rest)))? {
                return Ok(());
            }
            timeout = Some(Duration::ZERO);
        }
        match self.poll.poll(events, timeout) {
            Err(e) if e.kind() != ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }

    /// Returned: has the loop's own poll something to report?
    fn wait_for_newest(&mut self, former: Newest, timeout: Duration) -> io::Result<bool> {
        let Newest { slot, generation, listener, until } = former;
        // Removed meanwhile, or already watched.
        let client = self.clients.get(slot).filter(|c| c.generation == generation && !c.polled);
        let Some(client) = client else {
            self.newest = None;
            self.may_have_clients(listener);
            return Ok(true);
        };
        let mut entries = [
            Poll::readable_of(&self.poll),
            Poll::new(client.socket.as_fd(), true, false),
            self.listeners
                .get(listener)
                .map_or(Poll::none(), |l| Poll::new(l.socket.as_fd(), true, false)),
        ];
        poll::wait(&mut entries, Some(timeout))?;
        let [others, newest, more] = entries.map(|e| e.readable());
        self.listeners.get_mut(listener).into_iter().for_each(|l| l.pending = more);
        self.now = clock::monotonic();
        if newest || self.now >= until {
            self.newest = None;
            self.serve(former);
        }
        Ok(others)
    }

    /// Serves a client that is the newest no longer. If its request has not come, it is waited for
    /// as all others are.
    fn serve(&mut self, Newest { slot, generation, .. }: Newest) {
        if self.clients.get(slot).is_some_and(|c| c.generation == generation && !c.polled) {
            self.ready(slot, false, false);
        }
    }
}
