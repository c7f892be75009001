//! What net and five share, between bytes and their owners: a connection that never waits, plain or
//! with TLS on it, and what is done with one.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | [`Link`]: a socket, and TLS on it. Nothing here ever waits |
//! | `dialogue` | lines said and heard, each wait with an absolute deadline; the lingering close |
//! | `copy` | two-way copy between a link and a socket |
//! | `queue` | frames that wait to be sent: a frame of each stream in turn |
//! | `pump` | yamux streams on a link, and the descriptors at their local ends |
//!
//! The contract:
//! - A link says what has come ([`Link::received`]), takes what is to be sent ([`Link::send_parts`])
//!   and moves bytes between itself and its socket ([`Link::receive`], [`Link::send_queued`]), as far
//!   as that goes at once. Whoever owns it polls [`Link::socket`]: for reading when
//!   [`Link::received`] has nothing, for writing while [`Link::wants_write`].
//! - Nothing is read of a plain socket but what somebody asked for: it may be handed to a service.
//!   Whoever keeps it for good says so ([`Link::read_ahead`]).
//! - Nothing here knows whose connection it is, and nothing here logs: every end is an [`Error`],
//!   which its owner puts into words.
//! - Memory: a plain link that is read ahead holds 128 KiB, until [`Link::release_buffers`]. TLS holds one
//!   read of the socket, decrypted, and what was given to be sent: whoever gives more while
//!   [`Link::wants_write`] has no bound.

pub mod copy;
mod dialogue;
pub mod pump;
mod queue;
#[cfg(test)]
mod tests;

pub use dialogue::{BoundedLine, LINGER_BYTES, LINGER_TIME, Wait};
pub use queue::SendQueue;

use crate::sys::shared::Shared;
use crate::sys::socket;
use rustls::Connection;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that are read ahead of a plain connection at most.
const IN_MAX: usize = 128 * 1024;

/// Why a link is of no more use.
#[derive(Debug)]
pub enum Error {
    /// The other side has ended it.
    Closed,
    /// The connection ended without TLS's end: something may be missing.
    Truncated,
    /// The connection broke.
    Broken(io::Error),
    /// The other side speaks no TLS, or not as it must. The alert was sent, as far as that went at
    /// once.
    Tls(rustls::Error),
    /// A deadline has passed.
    Timeout,
    /// This system could not wait.
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

/// What has come of the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Never none. To be taken with [`Link::consume`].
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// The other side says no more: TLS told so in order.
    End,
}

/// A connection: a socket, or TLS on it.
#[derive(Debug)]
pub struct Link {
    // Before the socket: it goes in this order.
    layer: Layer,
    socket: Shared,
    /// The other side's TCP has ended. TLS says whether that was in order.
    eof: bool,
}

/// What is on the socket.
#[derive(Debug)]
enum Layer {
    /// Nothing, and nothing is taken of it that nobody asked for.
    Plain,
    /// Nothing; what it has is taken as it comes.
    Ahead(Box<Ahead>),
    Tls(Box<Connection>),
}

/// What a plain socket had, and which part of it is yet to be looked at.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Vec<u8>,
    part: Range<usize>,
}

impl Ahead {
    /// One read. Was there anything?
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
    /// A connection as it is.
    pub fn plain(socket: impl Into<Shared>) -> Link {
        Link { layer: Layer::Plain, socket: socket.into(), eof: false }
    }

    /// Begins TLS on a plain connection. The handshake is yet to come ([`Link::handshake`]).
    pub fn encrypt(&mut self, connection: impl Into<Connection>) {
        let mut connection = connection.into();
        connection.set_buffer_limit(None);
        self.layer = Layer::Tls(Box::new(connection));
    }

    /// What comes on a plain connection is taken as it comes, from now on: nobody else gets it.
    pub fn read_ahead(&mut self) {
        if let Layer::Plain = self.layer {
            self.layer = Layer::Ahead(Box::default());
        }
    }

    /// Has it buffers to be given back?
    pub fn has_buffers(&self) -> bool {
        matches!(&self.layer, Layer::Ahead(ahead) if !ahead.bytes.is_empty())
    }

    /// Nothing moves: buffers are given back.
    pub fn release_buffers(&mut self) {
        if let Layer::Ahead(ahead) = &mut self.layer
            && ahead.part.is_empty()
        {
            **ahead = Ahead::default();
        }
    }

    /// The socket, for whoever polls it, or asks it for its addresses.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What TLS has agreed on. None: it is plain.
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

    /// What both sides know of this connection and nobody else does (RFC 8446, 7.5). None: it is
    /// plain.
    pub fn export(&self, label: &[u8]) -> Result<Option<[u8; 32]>, Error> {
        let Some(tls) = self.tls() else { return Ok(None) };
        tls.export_keying_material([0; 32], label, Some(&[])).map(Some).map_err(Error::Tls)
    }

    /// Has the other side's TCP ended?
    pub fn eof(&self) -> bool {
        self.eof
    }

    /// Has the other side finished in order, and was all that it said before taken?
    pub fn is_over(&mut self) -> bool {
        matches!(self.received(), Ok(Received::End))
    }

    /// Is there anything that the socket would not tell of (again)?
    pub fn holds(&mut self) -> bool {
        !matches!(self.received(), Ok(Received::Nothing))
    }

    /// May there be more than was [received](Link::received) and consumed? Not where the last read has
    /// emptied the socket.
    pub fn may_have_more(&self) -> bool {
        match &self.layer {
            Layer::Plain => false,
            Layer::Ahead(ahead) => !ahead.part.is_empty() || ahead.is_full(),
            Layer::Tls(_) => true,
        }
    }

    // What is heard.

    /// What has come and is decrypted; of a plain connection that is nothing, ever, unless it is
    /// [read ahead](Link::read_ahead). Errors: [`Error::Truncated`].
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

    /// So many of the bytes that were [received](Link::received) are done with.
    pub fn consume(&mut self, n: usize) {
        match &mut self.layer {
            Layer::Plain => {}
            Layer::Ahead(ahead) => ahead.part.start += n,
            Layer::Tls(tls) => tls.reader().consume(n),
        }
    }

    /// Takes in what the socket has: one read, decrypted. To be called when nothing that was
    /// [received](Link::received) is left. Was there anything, or its end?
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

    /// TLS that somebody has read from the socket already.
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
            // The alert. What does not go at once is not waited for: the other side sees the end.
            let _ = self.send_queued();
            Error::Tls(e)
        })
    }

    // What is said.

    /// Is there something that the socket has not taken?
    pub fn wants_write(&self) -> bool {
        self.tls().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what is encrypted, as far as the socket takes it. True: all of it.
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

    /// Takes what is to be sent; how many bytes. Plain: as many as the socket takes, maybe none.
    /// TLS takes all and encrypts it: to be called when [`Link::send_queued`] has sent what was there
    /// before, and followed by it.
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

    /// Says TLS's end, as far as that goes at once: without it the other side would see a
    /// truncation.
    pub fn send_close_notify(&mut self) {
        if let Some(tls) = self.tls_mut() {
            tls.send_close_notify();
            // Whoever takes nothing has its end all the same.
            let _ = self.send_queued();
        }
    }

    /// Says that nothing more will be said, and goes on hearing: in TLS on a connection that stays,
    /// else of the connection itself.
    pub fn half_close(&mut self) {
        match &self.layer {
            Layer::Tls(_) => self.send_close_notify(),
            // The other side may be gone already.
            Layer::Plain | Layer::Ahead(_) => drop(socket::shutdown_write(self.socket())),
        }
    }

    /// Ends our side in order, as far as that goes at once. False: the other side is gone.
    pub fn finish(&mut self) -> bool {
        self.send_close_notify();
        socket::shutdown_write(self.socket()).is_ok()
    }
}
