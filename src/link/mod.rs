//! What net and five share, between bytes and their owners: a connection that never waits, plain or
//! with TLS on it, and what is done with one.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | [`Link`]: a socket, and TLS on it. Nothing here ever waits |
//! | `dialogue.rs` | lines said and heard, each wait with an absolute deadline; the lingering close |
//! | `queue.rs` | frames that wait to be sent: a frame of each stream in turn |
//! | `pump/` | yamux streams on a link, and the descriptors at their near ends |
//!
//! The contract:
//! - A link says what has come ([`Link::heard`]), takes what is to be sent ([`Link::send_parts`])
//!   and moves bytes between itself and its socket ([`Link::take_in`], [`Link::give_out`]), as far
//!   as that goes at once. Whoever owns it polls [`Link::socket`]: for reading when
//!   [`Link::heard`] has nothing, for writing while [`Link::wants_write`].
//! - Nothing is read of a plain socket but what somebody asked for: it may be handed to a service.
//! - Nothing here knows whose connection it is, and nothing here logs: every end is an [`Error`],
//!   which its owner puts into words.
//! - Memory: TLS holds one read of the socket, decrypted, and what was given to be sent: whoever
//!   gives more while [`Link::wants_write`] has no bound.

mod dialogue;
pub mod pump;
mod queue;

pub use dialogue::{Said, Wait};
pub use queue::SendQueue;

use crate::sys::shared::Shared;
use crate::sys::socket;
use rustls::Connection;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};

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
pub enum Heard<'a> {
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
    tls: Option<Box<Connection>>,
    socket: Shared,
    /// The other side's TCP has ended. TLS says whether that was in order.
    eof: bool,
}

impl Link {
    /// A connection as it is.
    pub fn plain(socket: impl Into<Shared>) -> Link {
        Link { tls: None, socket: socket.into(), eof: false }
    }

    /// Begins TLS on a plain connection. The handshake is yet to come ([`Link::shake_hands`]).
    pub fn encrypt(&mut self, connection: impl Into<Connection>) {
        let mut connection = connection.into();
        connection.set_buffer_limit(None);
        self.tls = Some(Box::new(connection));
    }

    /// The socket, for whoever polls it, or asks it for its addresses.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What TLS has agreed on. None: it is plain.
    pub fn tls(&self) -> Option<&Connection> {
        self.tls.as_deref()
    }

    /// What both sides know of this connection and nobody else does (RFC 8446, 7.5). None: it is
    /// plain.
    pub fn export(&self, label: &[u8]) -> Result<Option<[u8; 32]>, Error> {
        let Some(tls) = &self.tls else { return Ok(None) };
        tls.export_keying_material([0; 32], label, Some(&[])).map(Some).map_err(Error::Tls)
    }

    /// Has the other side's TCP ended?
    pub fn eof(&self) -> bool {
        self.eof
    }

    /// Has the other side ended TLS in order, and was all that it said before taken?
    pub fn is_over(&mut self) -> bool {
        matches!(self.heard(), Ok(Heard::End))
    }

    /// Is there anything that the socket would not tell of (again)?
    pub fn holds(&mut self) -> bool {
        self.tls.is_some() && (self.eof || !matches!(self.heard(), Ok(Heard::Nothing)))
    }

    // What is heard.

    /// What has come and is decrypted; of a plain connection that is nothing, ever. Errors:
    /// [`Error::Truncated`].
    pub fn heard(&mut self) -> Result<Heard<'_>, Error> {
        let eof = self.eof;
        let Some(tls) = &mut self.tls else { return Ok(Heard::Nothing) };
        match tls.reader().into_first_chunk() {
            Ok([]) => Ok(Heard::End),
            Ok(bytes) => Ok(Heard::Bytes(bytes)),
            Err(e) if e.kind() == ErrorKind::WouldBlock && !eof => Ok(Heard::Nothing),
            Err(_) => Err(Error::Truncated),
        }
    }

    /// So many of the bytes that were [heard](Link::heard) are done with.
    pub fn consume(&mut self, n: usize) {
        if let Some(tls) = &mut self.tls {
            tls.reader().consume(n);
        }
    }

    /// Takes in what the socket has: one read, decrypted. To be called when nothing that was
    /// [heard](Link::heard) is left. Of a plain connection nothing is taken.
    pub fn take_in(&mut self) -> Result<(), Error> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        match tls.read_tls(&mut socket::Stream(self.socket.as_fd())) {
            Ok(0) => self.eof = true,
            Ok(_) => return self.decrypt(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::Broken(e)),
        }
        Ok(())
    }

    /// TLS that somebody has read from the socket already.
    pub fn take_in_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(tls) = self.tls.as_mut().filter(|_| !bytes.is_empty()) {
            tls.read_tls(&mut bytes).map_err(Error::Broken)?;
            self.decrypt()?;
        }
        Ok(())
    }

    fn decrypt(&mut self) -> Result<(), Error> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.process_new_packets().map(drop).map_err(|e| {
            // The alert. What does not go at once is not waited for: the other side sees the end.
            let _ = self.give_out();
            Error::Tls(e)
        })
    }

    // What is said.

    /// Is there something that the socket has not taken?
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what is encrypted, as far as the socket takes it. True: all of it.
    pub fn give_out(&mut self) -> Result<bool, Error> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut socket::Stream(self.socket.as_fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Error::Broken(e)),
            }
        }
        Ok(true)
    }

    /// Takes what is to be sent; how many bytes. Plain: as many as the socket takes, maybe none.
    /// TLS takes all and encrypts it: to be called when [`Link::give_out`] has sent what was there
    /// before, and followed by it.
    pub fn send_parts(&mut self, parts: &[IoSlice]) -> Result<usize, Error> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_vectored(parts).map_err(Error::Broken),
            None => match socket::send_parts(self.socket.as_fd(), parts) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
                n => n.map_err(Error::Broken),
            },
        }
    }

    /// Says TLS's end, as far as that goes at once: without it the other side would see a
    /// truncation.
    pub fn say_end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // Whoever takes nothing has its end all the same.
            let _ = self.give_out();
        }
    }

    /// Ends our side in order, as far as that goes at once. False: the other side is gone.
    pub fn finish(&mut self) -> bool {
        self.say_end();
        socket::shutdown_write(self.socket()).is_ok()
    }
}
