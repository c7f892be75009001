//! The request of a client that waits: peeked at in its socket until the line is complete, and only
//! then read.

use super::Loop;
use super::urgent::{self, Buffer, TLS_HANDSHAKE, peek};
use crate::net::request::{self, Decision, Where};
use crate::net::session_state::First;
use crate::net::sources::Slot;
use crate::policy::Peer;
use crate::sys::{poll, socket};
use crate::wire::line::{Fed, Line};
use crate::wire::request::NAME_MAX;
use crate::wire::run::Way;
use mio::Interest;
use std::io::ErrorKind;
use std::os::fd::AsFd;

impl Loop {
    /// Handles the request, if it has come.
    pub(super) fn request(&mut self, slot: Slot) {
        let mut bytes: Buffer = [0; NAME_MAX + 3];
        let Some(client) = self.clients.get(slot) else { return };
        let (peer, closed) = (client.peer, client.closed);
        let n = match peek(client, &mut bytes) {
            Ok(0) => return self.asked_nothing(slot),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return self.watch(slot, Interest::READABLE);
            }
            Err(_) => return self.asked_nothing(slot),
        };
        // A Unix socket needs no TLS: its sessions count as encrypted.
        if bytes[0] == TLS_HANDSHAKE && !matches!(peer, Peer::User(_)) {
            return self.session(slot, First::Tls);
        }
        let mut line = Line::new(NAME_MAX);
        let Some(facts) = self.facts(slot) else { return };
        let (decision, text, taken) = match line.feed(&bytes[..n]) {
            Fed::More if closed => return self.asked_nothing(slot),
            Fed::More => return self.watch(slot, Interest::READABLE),
            Fed::TooLong => (request::too_long(), &[][..], 0),
            Fed::Line { text, taken } => (
                request::decide(&self.world, &facts, Where::Connection, text, &Way::Plain),
                text,
                taken,
            ),
        };
        match decision {
            Decision::Help(bytes) => self.answer_and_close(slot, bytes),
            Decision::Refuse { .. } if self.lacks_urgent(slot) => self.request(slot),
            Decision::Refuse { bytes, why } => {
                self.report_refusal(&facts, why, text);
                self.answer_and_close(slot, bytes);
            }
            Decision::Builtin(b) => {
                if self.take_line(slot, taken) {
                    self.session(slot, First::Builtin(b));
                }
            }
            Decision::LookUp => self.ask_name(slot),
            Decision::Start(service) => {
                if self.take_line(slot, taken) {
                    self.start(slot, service, facts.host);
                }
            }
        }
    }

    /// Handles the request that has come with a load balancer's header of this many bytes, which is
    /// still in the socket: one read takes both. False: the header has to be read alone first.
    pub(super) fn request_after_header(&mut self, slot: Slot, bytes: &[u8], header: usize) -> bool {
        let urgent = self.clients.get(slot).is_none_or(|client| client.urgent.is_some());
        let rest = &bytes[header..];
        if urgent || rest.first().is_none_or(|first| *first == TLS_HANDSHAKE) {
            return false;
        }
        let mut line = Line::new(NAME_MAX);
        let Fed::Line { text, taken } = line.feed(rest) else { return false };
        let Some(facts) = self.facts(slot) else { return false };
        match request::decide(&self.world, &facts, Where::Connection, text, &Way::Plain) {
            // What is discarded then begins with the header.
            Decision::Help(bytes) => self.answer_and_close(slot, bytes),
            Decision::Builtin(b) => {
                if self.take(slot, header + taken) {
                    self.session(slot, First::Builtin(b));
                }
            }
            Decision::Start(service) => {
                if self.take(slot, header + taken) {
                    self.start(slot, service, facts.host);
                }
            }
            Decision::LookUp | Decision::Refuse { .. } => return false,
        }
        true
    }

    /// Waits until a handshake begins, at the services' own port of this number. TLS itself answers
    /// whatever begins instead.
    pub(super) fn handshake(&mut self, slot: Slot, port: u32) {
        let Some(client) = self.clients.get(slot) else { return };
        match socket::peek(client.socket.as_fd(), &mut [0]) {
            Ok(1..) => self.session(slot, First::TlsPort(port)),
            Err(e) if e.kind() == ErrorKind::WouldBlock && !client.closed => {
                self.watch(slot, Interest::READABLE);
            }
            Ok(0) | Err(_) => self.asked_nothing(slot),
        }
    }

    /// Does the request perhaps lack an urgent byte, its first? True at most once for a client; the
    /// request is then peeked at again.
    fn lacks_urgent(&mut self, slot: Slot) -> bool {
        let Some(client) = self.clients.get(slot) else { return false };
        let lacks = client.urgent.is_none() && poll::is_urgent(client.socket.as_fd());
        if lacks {
            urgent::receive_inline(client);
        }
        lacks
    }

    /// Reads the line that was peeked at. False: the client is gone.
    fn take_line(&mut self, slot: Slot, taken: usize) -> bool {
        let held = self.clients.get(slot).and_then(|c| c.urgent.as_ref()).map_or(0, Vec::len);
        self.take(slot, taken - held)
    }

    /// Reads this many bytes that were peeked at: a header, a line, or both. False: the client is
    /// gone.
    pub(super) fn take(&mut self, slot: Slot, all: usize) -> bool {
        let mut bytes: Buffer = [0; NAME_MAX + 3];
        let took = self.clients.get(slot).is_some_and(|c| {
            match bytes.get_mut(..all) {
                Some(bytes) => socket::receive(c.socket.as_fd(), bytes),
                // A long header.
                None => socket::discard(c.socket.as_fd(), all),
            }
            .is_ok_and(|n| n == all)
        });
        if !took {
            self.close(slot);
        }
        took
    }
}
