//! The header with which a load balancer says who its client is: peeked at until it is complete,
//! and only then read: with the request, if that has come with it.

use super::Loop;
use super::parent::peer_of;
use crate::net::clients::{AfterHeader, ClientState};
use crate::net::request;
use crate::net::sources::Slot;
use crate::policy::Proxies;
use crate::sys::shared::Shared;
use crate::sys::{gauges, socket};
use crate::wire::orders::FromNet;
use crate::wire::proxy::{self, READ_MAX, Read};
use mio::Interest;
use std::io::ErrorKind;
use std::os::fd::AsFd;

impl Loop {
    /// What a client waits for after the header, or without one.
    pub(super) fn begin(&mut self, slot: Slot, then: AfterHeader) {
        // Most clients send their request at once: it is often here already.
        match then {
            AfterHeader::Request => self.request(slot),
            AfterHeader::Handshake { port } => self.handshake(slot, port),
            AfterHeader::Parent => self.hand_back(slot),
        }
    }

    /// The state of a client for which this comes next. For the parent's own ports there is none:
    /// it is handed back at once.
    pub(super) fn state_of(then: AfterHeader) -> ClientState {
        match then {
            AfterHeader::Request | AfterHeader::Parent => ClientState::Request,
            AfterHeader::Handshake { port } => ClientState::Handshake { port },
        }
    }

    /// The parent has accepted a load balancer's connection at a service's own port.
    pub(super) fn read_header(&mut self, socket: Shared) {
        let Some(peer) = peer_of(socket.as_fd()) else { return gauges::asked_nothing() };
        let (then, deadline) =
            (AfterHeader::Parent, self.now + self.world.table.settings.request_timeout);
        let slot = self.admit(socket, peer, ClientState::Header { then }, deadline);
        self.header(slot, then);
    }

    /// Reads the header, if it has come.
    pub(super) fn header(&mut self, slot: Slot, then: AfterHeader) {
        let mut bytes = [0; READ_MAX];
        let Some(client) = self.clients.get(slot) else { return };
        let (peer, closed) = (client.peer, client.closed);
        let n = match socket::peek(client.socket.as_fd(), &mut bytes) {
            Ok(n @ 1..) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return self.watch(slot, Interest::READABLE);
            }
            // It was only looked whether somebody listens here.
            Ok(_) | Err(_) => return self.asked_nothing(slot),
        };
        let (addresses, length) = match proxy::read(&bytes[..n]) {
            Read::More if !closed => return self.watch(slot, Interest::READABLE),
            Read::More | Read::Wrong => return self.no_header(slot),
            Read::Header { addresses, length } => (addresses, length),
        };
        let proxied = addresses.filter(|proxied| !Proxies::gives_itself(peer, proxied));
        self.clients.identify(slot, proxied, Loop::state_of(then));
        let whole =
            then == AfterHeader::Request && self.request_after_header(slot, &bytes[..n], length);
        if !whole && self.take(slot, length) {
            self.begin(slot, then);
        }
    }

    /// The client has ended its connection before it asked for anything, as health checks do.
    pub(super) fn asked_nothing(&mut self, slot: Slot) {
        gauges::asked_nothing();
        self.close(slot);
    }

    /// There is no header, or a wrong one, or not in time.
    pub(super) fn no_header(&mut self, slot: Slot) {
        if let Some(facts) = self.facts(slot) {
            self.report_refusal(&facts, Some(request::NO_HEADER), b"");
        }
        self.close(slot);
    }

    fn hand_back(&mut self, slot: Slot) {
        let Some(of) = self.clients.get(slot).map(|client| client.peer) else { return };
        let Some((socket, addresses)) = self.detach(slot) else { return };
        self.order_queue.request(&FromNet::AtPort { addresses }, of, socket);
    }
}
