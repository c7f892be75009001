//! What net and five share: a connection, plain or with TLS on it, whose operations never wait, and
//! what is done with one.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | [`Link`]: a socket, TLS on it, and records on that. Nothing here ever waits |
//! | `layer` | what is on the socket: nothing, a buffer, or TLS |
//! | `records` `replay` | a link that outlives its connection, and what it would send again |
//! | `dialogue` | reading and writing lines, each wait with an absolute deadline; the lingering close |
//! | `error` | why a link can no longer be used |
//! | `breaks` | what the peer sees if a local end breaks |
//! | `copy` `tally` | two-way copy of a link and a service, of bytes or of records (RUN); counts |
//! | `queue` | the frames that wait to be sent, and their order: one of each stream in turn |
//! | `pump` | yamux streams on a link, and the local descriptors that they are copied from and to |
//!
//! The contract:
//! - A link hands out the bytes that it has received ([`Link::received`]), takes bytes to be sent
//!   ([`Link::send_parts`]) and moves bytes between itself and its socket ([`Link::receive`],
//!   [`Link::send_queued`]), as many as the socket takes or has at once. The owner of the link
//!   polls [`Link::socket`]: for reading when [`Link::received`] has nothing, for writing while
//!   [`Link::wants_write`].
//! - Of a plain socket, nothing is read that nobody asked for: the socket may be handed to a
//!   service. An owner that keeps the socket for good says so ([`Link::read_ahead`]).
//! - A link does not know whose connection it is, and logs nothing: it returns an [`Error`], and
//!   the owner writes the message.
//! - Memory: a plain link that is read ahead holds 128 KiB, until [`Link::release_buffers`]. TLS
//!   holds one read of the socket, decrypted, and all bytes that were given to be sent. An owner
//!   that gives more while [`Link::wants_write`] makes that grow without a bound. A resumable link
//!   keeps what the other side has not said that it has had, at most 4 MiB, and takes no more; what
//!   it has no use for it frees when the connection is idle or lost.

mod breaks;
pub mod copy;
mod dialogue;
mod error;
mod layer;
pub mod pump;
mod queue;
mod records;
mod replay;
mod tally;
#[cfg(test)]
mod tests;

pub use breaks::Breaks;
pub use dialogue::{BoundedLine, Interest, LINGER_BYTES, LINGER_TIME, Wait};
pub use error::Error;
pub use queue::SendQueue;
pub use records::Records;
pub use tally::Tally;

use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::yamux::FRAME;
use layer::Layer;
use rustls::Connection;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long empty buffers are kept while nothing is copied.
const BUFFERS_KEPT: Duration = Duration::from_millis(50);

/// What has been received and not yet consumed.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// At least one byte. [`Link::consume`] takes them.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// The other side sends no more; with TLS, its close_notify has come.
    End,
}

/// A connection: a socket, or TLS on it; and perhaps records on that.
#[derive(Debug)]
pub struct Link {
    /// Of a resumable link.
    records: Option<Box<Records>>,
    // Declared before the socket, so that it is dropped first.
    layer: Layer,
    socket: Arc<Shared>,
    /// The other side has closed its sending direction in TCP. Whether that was in order, TLS
    /// knows.
    eof: bool,
}

impl Link {
    /// A plain connection.
    pub fn plain(socket: impl Into<Shared>) -> Link {
        Link { records: None, layer: Layer::Plain, socket: Arc::new(socket.into()), eof: false }
    }

    /// Begins TLS on a plain connection. The handshake itself is [`Link::handshake`].
    pub fn encrypt(&mut self, connection: impl Into<Connection>) {
        let mut connection = connection.into();
        connection.set_buffer_limit(None);
        self.layer = Layer::Tls { tls: Box::new(connection), emptied: false };
    }

    /// From now on whatever comes on a plain connection is read at once: the socket will not be
    /// handed on.
    pub fn read_ahead(&mut self) {
        if let Layer::Plain = self.layer {
            self.layer = Layer::Ahead(Box::default());
        }
    }

    /// Does it hold buffers that [`Link::release_buffers`] would free?
    pub fn has_buffers(&self) -> bool {
        self.layer.has_buffers() || self.records.as_ref().is_some_and(|r| r.has_spare())
    }

    /// Frees the buffers, if they are empty. To be called when the connection is idle.
    pub fn release_buffers(&mut self) {
        self.layer.release_buffers();
        if let Some(records) = &mut self.records {
            records.release();
        }
    }

    /// The socket, to be polled, or asked for its addresses.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket, for whoever may have to end it.
    pub fn shared_socket(&self) -> &Arc<Shared> {
        &self.socket
    }

    /// Puts another socket in its place, and gives up the one that it has had.
    pub fn replace_socket(&mut self, with: Arc<Shared>) -> Arc<Shared> {
        std::mem::replace(&mut self.socket, with)
    }

    /// The state of TLS. None: the connection is plain.
    pub fn tls(&self) -> Option<&Connection> {
        match &self.layer {
            Layer::Tls { tls, .. } => Some(tls),
            Layer::Plain | Layer::Ahead(_) => None,
        }
    }

    fn tls_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.layer {
            Layer::Tls { tls, .. } => Some(tls),
            Layer::Plain | Layer::Ahead(_) => None,
        }
    }

    /// Keying material that only the two ends of this connection can derive (RFC 8446, 7.5). None:
    /// the connection is plain.
    pub fn export(&self, label: &[u8]) -> Result<Option<[u8; 32]>, Error> {
        let Some(tls) = self.tls() else { return Ok(None) };
        tls.export_keying_material([0; 32], label, Some(&[])).map(Some).map_err(Error::Tls)
    }

    /// Has the other side closed its sending direction in TCP?
    pub fn eof(&self) -> bool {
        self.eof
    }

    /// Has the other side finished in order, and has all that it sent been consumed?
    pub fn is_over(&mut self) -> bool {
        matches!(self.received(), Ok(Received::End))
    }

    /// Is there something to be handled that poll(2) would not report?
    pub fn holds(&mut self) -> bool {
        !matches!(self.received(), Ok(Received::Nothing))
    }

    /// Can there be more than was [received](Link::received) and consumed? Not if the last read has
    /// emptied the socket.
    pub fn may_have_more(&mut self) -> bool {
        self.layer.may_have_more()
    }

    /// Does more follow what was [received](Link::received) at once, as far as is known?
    pub(super) fn has_more_at_once(&self) -> bool {
        self.layer.has_left_some()
    }

    // Receiving.

    /// What has come, decrypted. Of a plain connection always nothing, unless it is [read
    /// ahead](Link::read_ahead). Errors: [`Error::Truncated`].
    pub fn received(&mut self) -> Result<Received<'_>, Error> {
        let Some(records) = &mut self.records else { return self.layer.received(self.eof) };
        let data = loop {
            if records.is_over() {
                return Ok(Received::End);
            }
            let (taken, data) = match self.layer.received(self.eof)? {
                Received::Bytes(bytes) => records.decode(bytes)?,
                Received::Nothing => return Ok(Received::Nothing),
                // Only a record ends a session.
                Received::End => return Err(Error::Closed),
            };
            self.layer.consume(taken);
            if data > 0 {
                break data;
            }
        };
        match self.layer.received(self.eof)? {
            Received::Bytes(bytes) => Ok(Received::Bytes(&bytes[..data.min(bytes.len())])),
            other => Ok(other),
        }
    }

    /// Takes this many of the bytes that were [received](Link::received).
    pub fn consume(&mut self, n: usize) {
        self.layer.consume(n);
        if let Some(records) = &mut self.records {
            records.consumed(n);
        }
    }

    /// Reads the socket once, and decrypts. To be called when all that was
    /// [received](Link::received) has been consumed. False: nothing had come, not even the end.
    pub fn receive(&mut self) -> Result<bool, Error> {
        self.layer.receive(self.socket.as_fd(), &mut self.eof)
    }

    /// Takes TLS records that the caller has already read from the socket.
    pub fn receive_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(tls) = self.tls_mut().filter(|_| !bytes.is_empty()) {
            tls.read_tls(&mut bytes).map_err(Error::Broken)?;
            self.layer.decrypt(self.socket.as_fd())?;
        }
        Ok(())
    }

    // Sending.

    /// Does TLS, or a resumable link, hold bytes that the socket has not taken?
    pub fn wants_write(&self) -> bool {
        self.layer.wants_write() || self.records.as_ref().is_some_and(|r| r.wants_write())
    }

    /// Sends what is queued, as far as the socket takes it. True: all of it was sent.
    pub fn send_queued(&mut self) -> Result<bool, Error> {
        match &mut self.records {
            Some(records) => records.send(&mut self.layer, self.socket.as_fd()),
            None => self.layer.send_queued(self.socket.as_fd()),
        }
    }

    /// Takes bytes to be sent; returns how many. Plain: as many as the socket takes, perhaps none.
    /// TLS takes and encrypts all of them: call it only after [`Link::send_queued`] has sent
    /// everything before, and call that again afterwards. A resumable link takes what it has room
    /// for, perhaps none ([`Link::is_full`]), and is called in the same way.
    pub fn send_parts(&mut self, parts: &[IoSlice]) -> Result<usize, Error> {
        match &mut self.records {
            Some(records) => Ok(records.take(parts)),
            None => self.layer.send_parts(self.socket.as_fd(), parts),
        }
    }

    /// The same with what waits in a queue.
    pub fn send_queue<Id: PartialEq>(&mut self, queue: &mut SendQueue<Id>) -> Result<usize, Error> {
        if let Some(records) = &mut self.records {
            return Ok(records.take_queue(queue));
        }
        // So each frame of the full length has a record of TLS, until a shorter one is sent.
        let most = if self.tls().is_some() { FRAME } else { usize::MAX };
        let n = self.layer.send_parts(self.socket.as_fd(), &queue.unsent(most))?;
        queue.sent(n);
        Ok(n)
    }

    /// Sends TLS's close_notify, if the socket takes it at once. Without it the other side would
    /// report a truncation.
    pub fn send_close_notify(&mut self) {
        if let Some(tls) = self.tls_mut() {
            tls.send_close_notify();
            // If the socket does not take it, the connection is closed all the same.
            let _ = self.send_queued();
        }
    }

    /// Closes the sending direction and leaves the receiving one open: TLS sends its close_notify
    /// and the TCP connection stays open, a plain connection is shut down for writing.
    pub fn half_close(&mut self) {
        match &self.layer {
            Layer::Tls { .. } => self.send_close_notify(),
            // This fails if the other side is gone, which is noticed when reading.
            Layer::Plain | Layer::Ahead(_) => drop(socket::shutdown_write(self.socket())),
        }
    }

    /// Closes our sending direction in order, as far as that goes at once; that ends the session of
    /// a resumable link. False: the other side is gone.
    pub fn finish(&mut self) -> bool {
        if let Some(records) = &mut self.records {
            records.end();
            // As with TLS's own end.
            let _ = self.send_queued();
        }
        self.send_close_notify();
        socket::shutdown_write(self.socket()).is_ok()
    }

    // A resumable link (RESUME). Only a record ends its session: the end of TLS, or of TCP, is an
    // error.

    /// A new session begins: from now on everything is records, and [kept](Records) until the other
    /// side says that it has had it.
    pub fn begin_records(&mut self) {
        self.records = Some(Box::default());
    }

    /// The same after these bytes of data were sent as one record, with the dialogue.
    pub fn begin_records_after(&mut self, sent: &[u8]) {
        let mut records = Box::<Records>::default();
        records.sent_before(sent);
        self.records = Some(records);
    }

    /// This connection is lost, or another one takes its place: what it is to go on with.
    pub fn take_records(&mut self) -> Option<Box<Records>> {
        let mut records = self.records.take()?;
        records.release();
        Some(records)
    }

    /// The session goes on, on this connection, whose dialogue is over. The other side has had this
    /// many bytes of data. Err: it cannot have had so many ([`Records::accepts`]).
    pub fn resume(&mut self, mut records: Box<Records>, received: u64) -> Result<(), Box<Records>> {
        if !records.resume(received) {
            return Err(records);
        }
        self.records = Some(records);
        Ok(())
    }

    /// The records, if it is resumable.
    pub fn records(&self) -> Option<&Records> {
        self.records.as_deref()
    }

    /// Has the other side ended the session of this resumable link?
    pub fn is_ended(&self) -> bool {
        self.records.as_ref().is_some_and(|r| r.is_over())
    }

    /// Does it take nothing before the other side has said how much it has had? The socket is then
    /// not polled for writing.
    pub fn is_full(&self) -> bool {
        self.records.as_ref().is_some_and(|r| r.is_full()) && !self.layer.wants_write()
    }

    /// How many bytes a resumable link keeps because the other side has not said that it has had
    /// them.
    pub fn unacknowledged(&self) -> usize {
        self.records.as_ref().map_or(0, |r| r.unacknowledged())
    }

    /// Has so much been received that the other side must be told at once?
    pub fn owes_acknowledgement(&self) -> bool {
        self.records.as_ref().is_some_and(|r| r.owes())
    }

    /// Queues an acknowledgement, if it is time. To be called in each turn, before what is queued
    /// is sent.
    pub fn acknowledge(&mut self, now: Duration) {
        if let Some(records) = &mut self.records {
            records.acknowledge(now);
        }
    }

    /// When [`Link::acknowledge`] must be called next.
    pub fn next_acknowledgement(&self) -> Duration {
        let due = self.records.as_ref().and_then(|r| r.next_acknowledgement());
        due.unwrap_or(Duration::MAX)
    }
}
