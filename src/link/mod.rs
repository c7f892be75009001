//! What net and five share: a connection, plain or with TLS on it, whose operations never wait, and
//! what is done with one.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | [`Link`]: a socket, and TLS on it. Nothing here ever waits |
//! | `dialogue` | reading and writing lines, each wait with an absolute deadline; the lingering close |
//! | `breaks` | what the peer sees if a local end breaks |
//! | `copy` | two-way copy between a link and a socket |
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
//!   that gives more while [`Link::wants_write`] makes that grow without a bound.

mod breaks;
pub mod copy;
mod dialogue;
pub mod pump;
mod queue;
#[cfg(test)]
mod tests;

pub use breaks::Breaks;
pub use dialogue::{BoundedLine, LINGER_BYTES, LINGER_TIME, Wait};
pub use queue::SendQueue;

use crate::sys::shared::Shared;
use crate::sys::socket;
use rustls::Connection;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// The most bytes that are read ahead of a plain connection.
const IN_MAX: usize = 128 * 1024;

/// Why a link can no longer be used.
#[derive(Debug)]
pub enum Error {
    /// The other side has closed the connection.
    Closed,
    /// The connection ended without TLS's close_notify: data may be missing.
    Truncated,
    /// Reading or writing the connection failed.
    Broken(io::Error),
    /// The other side does not speak TLS, or breaks its rules. The alert was sent, as far as the
    /// socket took it at once.
    Tls(rustls::Error),
    /// A deadline has passed.
    Timeout,
    /// poll(2) failed.
    System(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Closed => f.write_str("the other side ended the connection"),
            Error::Truncated => f.write_str("the connection ended without the end of TLS"),
            Error::Broken(e) => write!(f, "the connection broke: {e}"),
            Error::Tls(e) => write!(f, "TLS: {e}"),
            Error::Timeout => f.write_str("no answer in time"),
            Error::System(e) => write!(f, "poll: {e}"),
        }
    }
}

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

/// A connection: a socket, or TLS on it.
#[derive(Debug)]
pub struct Link {
    // Declared before the socket, so that it is dropped first.
    layer: Layer,
    socket: Shared,
    /// The other side has closed its sending direction in TCP. Whether that was in order, TLS
    /// knows.
    eof: bool,
}

/// What is on the socket.
#[derive(Debug)]
enum Layer {
    /// Plain. Nothing is read before somebody asks for it.
    Plain,
    /// Plain. Whatever has come is read.
    Ahead(Box<Ahead>),
    Tls(Box<Connection>),
}

/// What was read of a plain socket, and which part of it has not been consumed.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Vec<u8>,
    part: Range<usize>,
}

impl Ahead {
    /// One read. False: there was nothing.
    fn receive(&mut self, socket: BorrowedFd, eof: &mut bool) -> Result<bool, Error> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; IN_MAX];
        }
        match socket::receive(socket, &mut self.bytes) {
            Ok(n) => {
                self.part = 0..n;
                *eof = n == 0;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(Error::Broken(e)),
        }
    }

    fn is_full(&self) -> bool {
        self.part.end == self.bytes.len()
    }
}

impl Link {
    /// A plain connection.
    pub fn plain(socket: impl Into<Shared>) -> Link {
        Link { layer: Layer::Plain, socket: socket.into(), eof: false }
    }

    /// Begins TLS on a plain connection. The handshake itself is [`Link::handshake`].
    pub fn encrypt(&mut self, connection: impl Into<Connection>) {
        let mut connection = connection.into();
        connection.set_buffer_limit(None);
        self.layer = Layer::Tls(Box::new(connection));
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
        matches!(&self.layer, Layer::Ahead(ahead) if !ahead.bytes.is_empty())
    }

    /// Frees the buffers, if they are empty. To be called when the connection is idle.
    pub fn release_buffers(&mut self) {
        if let Layer::Ahead(ahead) = &mut self.layer
            && ahead.part.is_empty()
        {
            **ahead = Ahead::default();
        }
    }

    /// The socket, to be polled, or asked for its addresses.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The state of TLS. None: the connection is plain.
    pub fn tls(&self) -> Option<&Connection> {
        match &self.layer {
            Layer::Tls(tls) => Some(tls),
            Layer::Plain | Layer::Ahead(_) => None,
        }
    }

    fn tls_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.layer {
            Layer::Tls(tls) => Some(tls),
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
    pub fn may_have_more(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Ahead(ahead) => !ahead.part.is_empty() || ahead.is_full(),
            Layer::Tls(_) => true,
        }
    }

    // Receiving.

    /// What has come, decrypted. Of a plain connection always nothing, unless it is [read
    /// ahead](Link::read_ahead). Errors: [`Error::Truncated`].
    pub fn received(&mut self) -> Result<Received<'_>, Error> {
        match &mut self.layer {
            Layer::Plain => Ok(Received::Nothing),
            Layer::Ahead(ahead) if !ahead.part.is_empty() => {
                Ok(Received::Bytes(&ahead.bytes[ahead.part.clone()]))
            }
            Layer::Ahead(_) if self.eof => Ok(Received::End),
            Layer::Ahead(_) => Ok(Received::Nothing),
            Layer::Tls(tls) => match tls.reader().into_first_chunk() {
                Ok([]) => Ok(Received::End),
                Ok(bytes) => Ok(Received::Bytes(bytes)),
                Err(e) if e.kind() == ErrorKind::WouldBlock && !self.eof => Ok(Received::Nothing),
                Err(_) => Err(Error::Truncated),
            },
        }
    }

    /// Takes so many of the bytes that were [received](Link::received).
    pub fn consume(&mut self, n: usize) {
        match &mut self.layer {
            Layer::Plain => {}
            Layer::Ahead(ahead) => ahead.part.start += n,
            Layer::Tls(tls) => tls.reader().consume(n),
        }
    }

    /// Reads the socket once, and decrypts. To be called when all that was
    /// [received](Link::received) has been consumed. False: nothing had come, not even the end.
    pub fn receive(&mut self) -> Result<bool, Error> {
        let socket = self.socket.as_fd();
        match &mut self.layer {
            Layer::Plain => return Ok(false),
            Layer::Ahead(ahead) => return ahead.receive(socket, &mut self.eof),
            Layer::Tls(tls) => match tls.read_tls(&mut socket::Stream(socket)) {
                Ok(0) => self.eof = true,
                Ok(_) => self.decrypt()?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Error::Broken(e)),
            },
        }
        Ok(true)
    }

    /// Takes TLS records that the caller has already read from the socket.
    pub fn receive_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(tls) = self.tls_mut().filter(|_| !bytes.is_empty()) {
            tls.read_tls(&mut bytes).map_err(Error::Broken)?;
            self.decrypt()?;
        }
        Ok(())
    }

    fn decrypt(&mut self) -> Result<(), Error> {
        let Some(tls) = self.tls_mut() else { return Ok(()) };
        tls.process_new_packets().map(drop).map_err(|e| {
            // Send the alert. If the socket does not take it at once, the other side sees just the
            // end.
            let _ = self.send_queued();
            Error::Tls(e)
        })
    }

    // Sending.

    /// Does TLS hold bytes that the socket has not taken?
    pub fn wants_write(&self) -> bool {
        self.tls().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what is encrypted, as far as the socket takes it. True: all of it was sent.
    pub fn send_queued(&mut self) -> Result<bool, Error> {
        while let Layer::Tls(tls) = &mut self.layer
            && tls.wants_write()
        {
            match tls.write_tls(&mut socket::Stream(self.socket.as_fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Error::Broken(e)),
            }
        }
        Ok(true)
    }

    /// Takes bytes to be sent; returns how many. Plain: as many as the socket takes, perhaps none.
    /// TLS takes and encrypts all of them: call it only after [`Link::send_queued`] has sent
    /// everything before, and call that again afterwards.
    pub fn send_parts(&mut self, parts: &[IoSlice]) -> Result<usize, Error> {
        match &mut self.layer {
            Layer::Tls(tls) => tls.writer().write_vectored(parts).map_err(Error::Broken),
            Layer::Plain | Layer::Ahead(_) => {
                match socket::send_parts(self.socket.as_fd(), parts) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
                    n => n.map_err(Error::Broken),
                }
            }
        }
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
            Layer::Tls(_) => self.send_close_notify(),
            // This fails if the other side is gone, which is noticed when reading.
            Layer::Plain | Layer::Ahead(_) => drop(socket::shutdown_write(self.socket())),
        }
    }

    /// Closes our sending direction in order, as far as that goes at once. False: the other side is
    /// gone.
    pub fn finish(&mut self) -> bool {
        self.send_close_notify();
        socket::shutdown_write(self.socket()).is_ok()
    }
}
