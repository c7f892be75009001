//! Sends a client its answer, closes the connection, and discards what the client still sends.

use super::{DISCARD_BYTES, DISCARD_TIME, Loop};
use crate::net::clients::ClientState;
use crate::net::sources::Slot;
use crate::policy::Source;
use crate::sys::socket;
use mio::Interest;
use std::io::ErrorKind;
use std::os::fd::AsFd;

impl Loop {
    /// Sends an answer, then reads and discards what still comes.
    pub(super) fn answer_and_close(&mut self, slot: Slot, bytes: Vec<u8>) {
        let Some(client) = self.clients.get(slot) else { return };
        if bytes.is_empty() {
            // The sending direction may be closed already: sending nothing would be an error.
            return self.start_discard(slot);
        }
        match socket::send(client.socket.as_fd(), &bytes) {
            Ok(n) if n == bytes.len() => self.start_discard(slot),
            Err(e) if e.kind() != ErrorKind::WouldBlock => self.close(slot),
            sent => {
                self.answers.insert(slot, Source::of(client.peer), bytes, sent.unwrap_or(0));
                self.clients.set_state(
                    slot,
                    ClientState::Answer,
                    self.now + self.world.table.settings.request_timeout,
                );
                self.watch(slot, Interest::READABLE | Interest::WRITABLE);
                while let Some(slot) = self.answers.to_evict() {
                    self.close(slot);
                }
            }
        }
    }

    /// Sends more of an answer that the socket did not take at once.
    pub(super) fn continue_answer(&mut self, slot: Slot) {
        let (Some(client), Some(held)) = (self.clients.get(slot), self.answers.get(slot)) else {
            return;
        };
        match socket::send(client.socket.as_fd(), held.rest()) {
            Ok(n) if held.sent(n) => {
                self.answers.remove(slot);
                self.start_discard(slot);
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.close(slot),
        }
    }

    /// Closes the sending direction after the last byte, then reads and discards what the client
    /// still sends, for a while: a reset in answer to unread data could destroy the answer.
    pub(super) fn start_discard(&mut self, slot: Slot) {
        let Some(client) = self.clients.get(slot) else { return };
        if socket::shutdown_write(client.socket.as_fd()).is_err() {
            return self.close(slot);
        }
        let (seen, state) = (client.closed, ClientState::Discard { left: DISCARD_BYTES });
        self.clients.set_state(slot, state, self.now + DISCARD_TIME);
        self.watch(slot, Interest::READABLE);
        if seen {
            // The poll has already reported its end, and will not do so again.
            self.discard_rest(slot, DISCARD_BYTES);
        }
    }

    pub(super) fn discard_rest(&mut self, slot: Slot, mut left: u32) {
        let Some(client) = self.clients.get(slot) else { return };
        let over = loop {
            match client.discard(left as usize) {
                Ok(0) => break true,
                Ok(n) => {
                    let all = n < left as usize;
                    left = left.saturating_sub(n as u32);
                    // The client had finished before this read: what was there is all there is,
                    // unless the read stopped at an urgent byte.
                    if left == 0 || client.closed && all && client.urgent.is_none() {
                        break true;
                    }
                }
                Err(e) => break e.kind() != ErrorKind::WouldBlock,
            }
        };
        client.state = ClientState::Discard { left };
        if over {
            self.close(slot);
        }
    }
}
