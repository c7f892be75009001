//! The records of a resumable link (RESUME, `wire::resume`): below yamux, above TLS.
//!
//! What is to be sent is kept until the other side says that it has had it ([`Replay`]). What was
//! received is counted as the owner takes it. So when the connection is lost, each side tells the
//! other how much it has had, and on a new connection both go on from there: no byte is lost or
//! doubled, wherever the connection broke.
//!
//! How much was received is said with the next data that is sent, 50 ms after the first byte that
//! was not acknowledged, or before 256 KiB have come: whatever comes first.

use super::Error;
use super::layer::Layer;
use super::queue::{SendQueue, WHOLE};
use super::replay::Replay;
use crate::wire::resume::{self, ACKNOWLEDGE_EVERY, Decoder, HEADER, NoRecord, Part};
use crate::wire::yamux::FRAME;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Bytes of data in a record at most: one frame of the full length. With its head it fills a record
/// of TLS.
const RECORD: usize = FRAME;
/// This many bytes are encrypted before they are sent: all of a full queue.
const BATCH: usize = WHOLE;
/// How long an acknowledgement waits for data that it could go with. The protocol allows 100 ms.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(50);
/// After this many bytes it does not wait any more. At once, no more is taken than a record of TLS
/// holds.
const ACKNOWLEDGE_AT: u64 = ACKNOWLEDGE_EVERY - 16 * 1024;
/// How many parts of a record are sent at once.
const PARTS: usize = 16;

/// The state of a session's records; it outlives connections.
#[derive(Debug, Default)]
pub struct Records {
    replay: Replay,
    /// How many bytes of data the owner has taken, and how many the other side knows of.
    received: u64,
    acknowledged: u64,
    /// When it must be told.
    due: Option<Duration>,
    /// This side, and the other side, end the session.
    ends: bool,
    over: bool,
    on: Connection,
}

/// What holds for one connection only.
#[derive(Debug, Default)]
struct Connection {
    decoder: Decoder,
    /// The rest of a record other than data.
    control: Vec<u8>,
    /// The head of the record that is being sent, how much of it was sent, and how many bytes of
    /// its data were not.
    head: [u8; HEADER],
    head_sent: usize,
    left: usize,
    /// The record that ends the session is on its way.
    end_sent: bool,
}

impl Records {
    /// These bytes were sent already, as one record, before it was known whether there are records.
    pub(super) fn sent_before(&mut self, bytes: &[u8]) {
        let taken = self.replay.take(&[IoSlice::new(bytes)]);
        self.replay.sent(taken);
    }

    /// How many bytes of data were received in all connections: what a new one begins with.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Can the other side have had this many bytes of data?
    pub fn accepts(&self, peer_received: u64) -> bool {
        self.replay.can_resume(peer_received)
    }

    /// Has the other side ended the session?
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// There is a new connection, and both sides have said how much they have had. False: the other
    /// side cannot have had this much.
    pub(super) fn resume(&mut self, peer_received: u64) -> bool {
        let can = self.replay.resume(peer_received);
        if can {
            (self.on, self.acknowledged, self.due) = (Connection::default(), self.received, None);
        }
        can
    }

    /// Frees what is not needed while nothing moves.
    pub(super) fn release(&mut self) {
        self.replay.release();
        self.on.control = Vec::new();
    }

    pub(super) fn has_spare(&self) -> bool {
        self.replay.has_spare()
    }

    // Receiving.

    /// Reads records up to data. Returns how many bytes are done with, and how many bytes of data
    /// follow; 0: none, or the session [is over](Records::is_over).
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<(usize, usize), Error> {
        let mut at = 0;
        loop {
            let (taken, part) = self.on.decoder.decode(&bytes[at..])?;
            at += taken;
            match part {
                Part::More => return Ok((at, 0)),
                Part::Data(n) => return Ok((at, n)),
                Part::Acknowledged(count) if self.replay.acknowledge(count) => {}
                Part::Acknowledged(_) => {
                    return Err(NoRecord("an acknowledgement of what was not sent").into());
                }
                Part::End => {
                    self.over = true;
                    return Ok((at, 0));
                }
            }
        }
    }

    /// The owner has taken this many bytes of data.
    pub(super) fn consumed(&mut self, n: usize) {
        self.on.decoder.consumed(n);
        self.received += n as u64;
    }

    // Sending.

    /// Takes bytes to be sent, as many as there is room for; returns how many.
    pub(super) fn take(&mut self, parts: &[IoSlice]) -> usize {
        let taken = self.replay.take(parts);
        self.tell_with(taken)
    }

    /// The same with what waits in a queue.
    pub(super) fn take_queue<Id: PartialEq>(&mut self, queue: &mut SendQueue<Id>) -> usize {
        let taken = self.replay.take_queue(queue);
        self.tell_with(taken)
    }

    /// An acknowledgement goes with data.
    fn tell_with(&mut self, taken: usize) -> usize {
        if taken > 0 {
            self.tell();
        }
        taken
    }

    /// It takes nothing before the other side has said that it has had more, and all was sent.
    pub(super) fn is_full(&self) -> bool {
        self.replay.is_full() && !self.wants_write()
    }

    /// How many bytes the other side has not said that it has had.
    pub(super) fn unacknowledged(&self) -> usize {
        self.replay.len()
    }

    pub(super) fn wants_write(&self) -> bool {
        let on = &self.on;
        self.replay.unsent() > 0 || !on.control.is_empty() || self.ends && !on.end_sent
    }

    /// The session ends after what was taken already.
    pub(super) fn end(&mut self) {
        self.ends = true;
    }

    /// Must the other side be told at once how much was received?
    pub(super) fn owes(&self) -> bool {
        self.received - self.acknowledged >= ACKNOWLEDGE_AT && self.on.control.is_empty()
    }

    /// Tells the other side how much was received, if it is time. Called in each turn.
    pub(super) fn acknowledge(&mut self, now: Duration) {
        if self.received == self.acknowledged {
            self.due = None;
        } else if self.owes() || self.due.is_some_and(|at| at <= now) {
            self.tell();
        } else if self.due.is_none() {
            self.due = Some(now + ACKNOWLEDGE_AFTER);
        }
    }

    /// When [`Records::acknowledge`] has something to do.
    pub(super) fn next_acknowledgement(&self) -> Option<Duration> {
        self.due
    }

    fn tell(&mut self) {
        self.due = None;
        // If one could not be sent yet, the next one follows it.
        if self.received > self.acknowledged && self.on.control.is_empty() {
            self.on.control.extend(resume::acknowledgement(self.received));
            self.acknowledged = self.received;
        }
    }

    /// Sends as much as the connection takes. True: all of it was sent.
    pub(super) fn send(&mut self, layer: &mut Layer, socket: BorrowedFd) -> Result<bool, Error> {
        loop {
            if !layer.send_queued(socket)? {
                return Ok(false);
            }
            let mut given = 0;
            while given < BATCH {
                match self.give(layer, socket)? {
                    0 => break,
                    n => given += n,
                }
            }
            if given == 0 {
                return Ok(!self.wants_write());
            }
        }
    }

    /// Gives the connection a record, or what is left of one, and before it an acknowledgement that
    /// waits: both in one record of TLS, if they fit. Returns how many bytes it took.
    fn give(&mut self, layer: &mut Layer, socket: BorrowedFd) -> Result<usize, Error> {
        let (on, unsent) = (&mut self.on, self.replay.unsent());
        let mut control = 0;
        if on.head_sent == 0 {
            if on.control.is_empty() && unsent == 0 && self.ends && !on.end_sent {
                on.control.extend(resume::END);
                on.end_sent = true;
            }
            on.left = unsent.min(RECORD);
            control = on.control.len();
            match on.left {
                0 if control == 0 => return Ok(0),
                0 => {}
                n => on.head = resume::data(n),
            }
        }
        let mut parts = [IoSlice::new(&[]); PARTS];
        parts[0] = IoSlice::new(&on.control[..control]);
        let mut used = 1;
        if on.left > 0 {
            parts[1] = IoSlice::new(&on.head[on.head_sent..]);
            used = 2 + self.replay.next(on.left, &mut parts[2..]).1;
        }
        let n = layer.send_parts(socket, &parts[..used])?;
        let of_control = n.min(control);
        on.control.drain(..of_control);
        let of_head = (n - of_control).min(HEADER - on.head_sent);
        let of_data = n - of_control - of_head;
        on.head_sent += of_head;
        on.left -= of_data;
        self.replay.sent(of_data);
        if on.left == 0 && on.head_sent == HEADER {
            on.head_sent = 0;
        }
        Ok(n)
    }
}

impl From<NoRecord> for Error {
    fn from(NoRecord(why): NoRecord) -> Error {
        Error::NoRecord(why)
    }
}
