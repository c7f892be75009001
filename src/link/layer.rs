//! What is on a link's socket: nothing, a buffer, or TLS. Nothing here ever waits.

use super::{Error, Received};
use crate::sys::socket;
use rustls::Connection;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// The most bytes that are read ahead of a plain connection.
const IN_MAX: usize = 128 * 1024;

/// What is on the socket.
#[derive(Debug)]
pub(super) enum Layer {
    /// Plain. Nothing is read before somebody asks for it.
    Plain,
    /// Plain. Whatever has come is read.
    Ahead(Box<Ahead>),
    /// `emptied`: the last read has taken all that the socket had.
    Tls { tls: Box<Connection>, emptied: bool },
}

/// What was read of a plain socket, and which part of it has not been consumed.
#[derive(Debug, Default)]
pub(super) struct Ahead {
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

/// A socket that is read once: did that take all that it had? A read that fills its buffer may have
/// left some.
struct OneRead<'fd> {
    socket: BorrowedFd<'fd>,
    emptied: bool,
}

impl Read for OneRead<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = socket::receive(self.socket, bytes);
        self.emptied = n.as_ref().is_ok_and(|n| *n < bytes.len());
        n
    }
}

impl Layer {
    pub fn has_buffers(&self) -> bool {
        matches!(self, Layer::Ahead(ahead) if !ahead.bytes.is_empty())
    }

    pub fn release_buffers(&mut self) {
        if let Layer::Ahead(ahead) = self
            && ahead.part.is_empty()
        {
            **ahead = Ahead::default();
        }
    }

    pub fn may_have_more(&mut self) -> bool {
        match self {
            Layer::Plain => false,
            Layer::Ahead(ahead) => !ahead.part.is_empty() || ahead.is_full(),
            // The end of TLS may have come with the last bytes, and poll(2) does not report it.
            Layer::Tls { tls, emptied } => {
                let first = tls.reader().into_first_chunk();
                !*emptied || !matches!(first, Err(e) if e.kind() == ErrorKind::WouldBlock)
            }
        }
    }

    /// Has the last read left something in the socket, as far as it can tell?
    pub fn has_left_some(&self) -> bool {
        match self {
            Layer::Plain => false,
            Layer::Ahead(ahead) => ahead.is_full(),
            Layer::Tls { emptied, .. } => !*emptied,
        }
    }

    /// `eof`: the other side has closed its sending direction in TCP.
    pub fn received(&mut self, eof: bool) -> Result<Received<'_>, Error> {
        match self {
            Layer::Plain => Ok(Received::Nothing),
            Layer::Ahead(ahead) if !ahead.part.is_empty() => {
                Ok(Received::Bytes(&ahead.bytes[ahead.part.clone()]))
            }
            Layer::Ahead(_) if eof => Ok(Received::End),
            Layer::Ahead(_) => Ok(Received::Nothing),
            Layer::Tls { tls, .. } => match tls.reader().into_first_chunk() {
                Ok([]) => Ok(Received::End),
                Ok(bytes) => Ok(Received::Bytes(bytes)),
                Err(e) if e.kind() == ErrorKind::WouldBlock && !eof => Ok(Received::Nothing),
                Err(_) => Err(Error::Truncated),
            },
        }
    }

    pub fn consume(&mut self, n: usize) {
        match self {
            Layer::Plain => {}
            Layer::Ahead(ahead) => ahead.part.start += n,
            Layer::Tls { tls, .. } => tls.reader().consume(n),
        }
    }

    /// One read. False: nothing had come. `eof` is set when the other side has closed its sending
    /// direction.
    pub fn receive(&mut self, socket: BorrowedFd, eof: &mut bool) -> Result<bool, Error> {
        match self {
            Layer::Plain => return Ok(false),
            Layer::Ahead(ahead) => return ahead.receive(socket, eof),
            Layer::Tls { tls, emptied } => {
                let mut from = OneRead { socket, emptied: true };
                let n = tls.read_tls(&mut from);
                *emptied = from.emptied;
                match n {
                    Ok(0) => *eof = true,
                    Ok(_) => self.decrypt(socket)?,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(Error::Broken(e)),
                }
            }
        }
        Ok(true)
    }

    pub fn decrypt(&mut self, socket: BorrowedFd) -> Result<(), Error> {
        let Layer::Tls { tls, .. } = self else { return Ok(()) };
        tls.process_new_packets().map(drop).map_err(|e| {
            // Send the alert. If the socket does not take it at once, the other side sees just the
            // end.
            let _ = self.send_queued(socket);
            Error::Tls(e)
        })
    }

    pub fn wants_write(&self) -> bool {
        matches!(self, Layer::Tls { tls, .. } if tls.wants_write())
    }

    pub fn send_queued(&mut self, socket: BorrowedFd) -> Result<bool, Error> {
        while let Layer::Tls { tls, .. } = self
            && tls.wants_write()
        {
            match tls.write_tls(&mut socket::Stream(socket)) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Error::Broken(e)),
            }
        }
        Ok(true)
    }

    pub fn send_parts(&mut self, socket: BorrowedFd, parts: &[IoSlice]) -> Result<usize, Error> {
        match self {
            Layer::Tls { tls, .. } => tls.writer().write_vectored(parts).map_err(Error::Broken),
            Layer::Plain | Layer::Ahead(_) => match socket::send_parts(socket, parts) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
                n => n.map_err(Error::Broken),
            },
        }
    }
}
