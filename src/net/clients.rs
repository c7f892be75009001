//! The clients that wait: a slab, with their deadlines in order.
//!
//! A client costs one [`Client`] here and its socket in the kernel: no buffer (its bytes stay in
//! the socket until its line is complete), no thread, no process.

use super::sources::{Serial, Slot, Sources};
use crate::policy::{Login, Peer, PeerName, Source};
use crate::sys::shared::Shared;
use crate::sys::{local, passed_rights, socket};
use crate::wire::orders::{AddressPair, ClientAddresses};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

const NONE: u32 = u32::MAX;

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    /// Its load balancer has not said who it is.
    Header { then: AfterHeader },
    /// It has not sent its whole request.
    Request,
    /// It has not begun its TLS handshake, at the services' own port of this number.
    Handshake { port: u32 },
    /// It has not read all of its answer.
    Answer,
    /// It has its answer. What it still sends is read and discarded, this many bytes more.
    Discard { left: u32 },
}

/// What comes after the header of a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterHeader {
    Request,
    /// As in [`ClientState::Handshake`].
    Handshake {
        port: u32,
    },
    /// The client came to a service's own port: the parent has it back.
    Parent,
}

impl ClientState {
    /// Does it wait for the client to begin, so that there is nothing to answer?
    pub fn is_first(self) -> bool {
        use ClientState::{Handshake, Header, Request};
        matches!(self, Header { .. } | Request | Handshake { .. })
    }
}

/// State of the look-up of the name of a client's address.
#[derive(Debug)]
pub enum NameLookup {
    /// No rule has needed it so far.
    NotAsked,
    /// The parent has been asked, and has not answered.
    Asked,
    Answered(PeerName),
}

impl NameLookup {
    /// The name, as the rules are given it.
    pub fn name(&self) -> PeerName {
        match self {
            NameLookup::NotAsked | NameLookup::Asked => PeerName::NotAsked,
            NameLookup::Answered(name) => name.clone(),
        }
    }
}

/// A client that waits.
#[derive(Debug)]
pub struct Client {
    pub socket: Shared,
    /// Who it is; while its load balancer has not said so, who that is.
    pub peer: Peer,
    /// What its load balancer has said.
    pub proxied: Option<Box<AddressPair>>,
    pub state: ClientState,
    /// Is its socket registered with the poll?
    pub polled: bool,
    /// Distinguishes it from earlier clients in the same slot.
    pub generation: u32,
    source: Source,
    serial: Serial,
    pub name: NameLookup,
    /// The user who is logged in from the beginning, at a Unix socket.
    pub login: Option<Box<Login>>,
    /// What was read from its socket of a request that one peek may not show (`waiting::urgent`).
    /// None: nothing was read.
    pub urgent: Option<Vec<u8>>,
    /// Has it closed its sending direction? Nothing more will come than what is in its socket.
    pub closed: bool,
    deadline: Duration,
    previous: u32,
    next: u32,
}

impl Client {
    /// What the parent is told of its connection.
    pub fn addresses(&self) -> ClientAddresses {
        let (client, local) =
            (socket::peer(self.socket.as_fd()), socket::local(self.socket.as_fd()));
        let own = client.ok().zip(local.ok()).map(|(client, local)| AddressPair { client, local });
        ClientAddresses { own, proxied: self.proxied.as_deref().copied() }
    }

    /// Can it send descriptors?
    pub fn sends_rights(&self) -> bool {
        matches!(self.peer, Peer::User(_)) && !local::can_refuse_rights()
    }

    /// Throws away what it has sent, at most so many bytes. Errors: also that descriptors have come
    /// with it.
    pub fn discard(&self, most: usize) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        if self.sends_rights() {
            passed_rights::discard(fd, most)
        } else {
            socket::discard(fd, most)
        }
    }
}

/// A list of clients in the order of their deadlines: all clients of one list wait for the same
/// time, so a new one goes to its end.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
}

#[derive(Debug)]
pub struct Clients {
    slots: Vec<Option<Client>>,
    free: Vec<u32>,
    freed: Vec<u32>,
    requests: Chain,
    discarding: Chain,
    sources: Sources<Slot>,
    count: usize,
    serial: Serial,
}

impl Default for Clients {
    fn default() -> Self {
        let empty = Chain { first: NONE, last: NONE };
        let (slots, sources) = (Vec::new(), Sources::default());
        Clients {
            slots,
            free: Vec::new(),
            freed: Vec::new(),
            requests: empty,
            discarding: empty,
            sources,
            count: 0,
            serial: 0,
        }
    }
}

impl Clients {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn get(&mut self, slot: Slot) -> Option<&mut Client> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub fn insert(
        &mut self,
        socket: Shared,
        peer: Peer,
        state: ClientState,
        deadline: Duration,
    ) -> Slot {
        self.serial += 1;
        let (source, serial) = (Source::of(peer), self.serial);
        let client = Client {
            socket,
            peer,
            proxied: None,
            state,
            polled: false,
            // The low 32 bits are enough to tell apart the clients that wait at the same time.
            generation: serial as u32,
            source,
            serial,
            name: NameLookup::NotAsked,
            login: None,
            urgent: None,
            closed: false,
            deadline,
            previous: NONE,
            next: NONE,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[at as usize] = Some(client);
        self.count += 1;
        self.sources.insert(source, serial, at as usize);
        self.append(at);
        at as usize
    }

    /// Removes a client, whatever it waits for.
    pub fn remove(&mut self, slot: Slot) -> Option<Client> {
        let client = self.get(slot)?;
        let (source, serial) = (client.source, client.serial);
        self.sources.remove(source, serial, slot);
        self.unlink(slot as u32);
        self.freed.push(slot as u32);
        self.count -= 1;
        self.slots[slot].take()
    }

    /// Its load balancer has said who it is. It counts for its own source from now on, and its time
    /// goes on.
    pub fn identify(&mut self, slot: Slot, proxied: Option<AddressPair>, state: ClientState) {
        let Some(client) = self.get(slot) else { return };
        client.state = state;
        let Some(proxied) = proxied else { return };
        let (old, serial, new) = (client.source, client.serial, Source::of(proxied.client.into()));
        (client.peer, client.source) = (proxied.client.into(), new);
        client.proxied = Some(Box::new(proxied));
        self.sources.remove(old, serial, slot);
        self.sources.insert(new, serial, slot);
    }

    /// From now on the client waits for something else.
    pub fn set_state(&mut self, slot: Slot, state: ClientState, deadline: Duration) {
        if self.get(slot).is_none() {
            return;
        }
        self.unlink(slot as u32);
        if let Some(c) = self.get(slot) {
            (c.state, c.deadline) = (state, deadline);
        }
        self.append(slot as u32);
    }

    /// The client that has to go when one more comes than may wait: the oldest of the source that
    /// has most.
    pub fn to_evict(&self) -> Option<Slot> {
        self.sources.oldest_of_most()
    }

    /// The earliest deadline of all clients.
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.requests, self.discarding]
            .iter()
            .filter_map(|c| Some(self.slots.get(c.first as usize)?.as_ref()?.deadline))
            .min()
    }

    /// A client whose deadline has passed.
    pub fn overdue(&self, now: Duration) -> Option<Slot> {
        let due = |c: &Chain| {
            self.slots
                .get(c.first as usize)?
                .as_ref()
                .filter(|c| c.deadline <= now)
                .map(|_| c.first as Slot)
        };
        due(&self.requests).or_else(|| due(&self.discarding))
    }

    /// All clients at such a state.
    pub fn in_state(&self, is: impl Fn(ClientState) -> bool) -> Vec<Slot> {
        let asks = |c: &Client| is(c.state);
        (0..self.slots.len()).filter(|&i| self.slots[i].as_ref().is_some_and(asks)).collect()
    }

    /// The events of this turn are handled: slots that were freed in it may be used again.
    pub fn free_slots(&mut self) {
        self.free.append(&mut self.freed);
        if self.count == 0 && self.slots.len() > 64 {
            // After a crowd has gone, its memory is freed too.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.sources.shrink();
        }
    }

    fn chain(&mut self, state: ClientState) -> &mut Chain {
        match state {
            ClientState::Header { .. }
            | ClientState::Request
            | ClientState::Handshake { .. }
            | ClientState::Answer => &mut self.requests,
            ClientState::Discard { .. } => &mut self.discarding,
        }
    }

    fn at(&mut self, n: u32) -> &mut Client {
        self.slots[n as usize].as_mut().expect("a chain holds only clients that are there")
    }

    fn append(&mut self, n: u32) {
        let state = self.at(n).state;
        let last = std::mem::replace(&mut self.chain(state).last, n);
        if last == NONE {
            self.chain(state).first = n;
        } else {
            self.at(last).next = n;
        }
        let c = self.at(n);
        (c.previous, c.next) = (last, NONE);
    }

    fn unlink(&mut self, n: u32) {
        let c = self.at(n);
        let (state, previous, next) = (c.state, c.previous, c.next);
        if previous == NONE {
            self.chain(state).first = next;
        } else {
            self.at(previous).next = next;
        }
        if next == NONE {
            self.chain(state).last = previous;
        } else {
            self.at(next).previous = previous;
        }
    }
}

#[cfg(test)]
mod tests;
