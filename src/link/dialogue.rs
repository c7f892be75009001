//! A dialogue on a link: reading and writing lines, the handshake, and the lingering close. Every
//! wait has an absolute deadline, and the owner decides what else ends it ([`Wait`]).
//!
//! Of a plain connection exactly the lines are read, never a byte after them: a service may get
//! this very descriptor later.

use super::{Error, Link, Received};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, socket};
use crate::wire::line::{Fed, Line};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How many bytes, and for how long, a peer may still send after we have sent our last byte.
pub const LINGER_BYTES: usize = 64 * 1024;
/// See [`LINGER_BYTES`].
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How many bytes of a line that is too long are returned, for the caller's message.
const TOO_LONG: usize = 512;

/// What a dialogue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or its end.
    Read,
    /// Room for something to write.
    Write,
}

impl Interest {
    /// As poll(2) has it.
    pub fn of(self, socket: BorrowedFd) -> Poll {
        Poll::new(socket, self == Interest::Read, self == Interest::Write)
    }
}

/// How a dialogue waits for its socket.
pub trait Wait {
    /// Why a dialogue ends.
    type End: From<Error>;

    /// Waits until the socket is ready, or until that time. Err: the deadline has passed
    /// ([`Error::Timeout`]), or something else ends the dialogue.
    fn wait(
        &self,
        socket: BorrowedFd,
        interest: Interest,
        until: Duration,
    ) -> Result<(), Self::End>;
}

/// A line, or the news that it exceeds its bound.
#[derive(Debug, PartialEq, Eq)]
pub enum BoundedLine {
    /// Without its line end.
    Line(Vec<u8>),
    /// The bytes that were received last.
    TooLong(Vec<u8>),
}

/// What a socket or TLS had for a line.
enum Part {
    Whole(BoundedLine),
    /// A part of a line; the rest is still to come.
    More,
    Nothing,
}

impl Part {
    /// What the parser made of these bytes, and how many of them belong to the line.
    fn of(fed: Fed, bytes: &[u8]) -> (Part, usize) {
        match fed {
            Fed::More => (Part::More, bytes.len()),
            Fed::TooLong => {
                (Part::Whole(BoundedLine::TooLong(bytes[..bytes.len().min(TOO_LONG)].to_vec())), 0)
            }
            Fed::Line { text, taken } => (Part::Whole(BoundedLine::Line(text.to_vec())), taken),
        }
    }
}

/// Reads from a socket what belongs to the line, and nothing after it.
fn feed_plain(fd: BorrowedFd, line: &mut Line) -> Result<Part, Error> {
    let mut bytes = [0; 1024];
    let n = match socket::peek(fd, &mut bytes) {
        Ok(0) => return Err(Error::Closed),
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Part::Nothing),
        Err(e) => return Err(Error::Broken(e)),
    };
    let (part, taken) = Part::of(line.feed(&bytes[..n]), &bytes[..n]);
    if taken > 0 {
        match socket::receive(fd, &mut bytes[..taken]) {
            Ok(t) if t == taken => {}
            Ok(_) => return Err(Error::Broken(ErrorKind::UnexpectedEof.into())),
            Err(e) => return Err(Error::Broken(e)),
        }
    }
    Ok(part)
}

impl Link {
    /// Waits until there is something for [`Link::read_line`]; returns at once if it is here
    /// already. Err: the wait ended otherwise; also when the deadline has passed.
    pub fn await_more<W: Wait>(&mut self, by: &W, until: Duration) -> Result<(), W::End> {
        if self.holds() { Ok(()) } else { by.wait(self.socket(), Interest::Read, until) }
    }

    /// Reads the next line, of at most `max` bytes.
    pub fn read_line<W: Wait>(
        &mut self,
        by: &W,
        max: usize,
        until: Duration,
    ) -> Result<BoundedLine, W::End> {
        let mut line = Line::new(max);
        loop {
            match self.feed(&mut line)? {
                Part::Whole(line) => return Ok(line),
                Part::More => {}
                Part::Nothing => {
                    by.wait(self.socket(), Interest::Read, until)?;
                    self.receive()?;
                    self.flush(by, until)?;
                }
            }
        }
    }

    /// Gives the parser what has come, and takes what belongs to the line.
    fn feed(&mut self, line: &mut Line) -> Result<Part, Error> {
        if self.tls().is_none() {
            return feed_plain(self.socket(), line);
        }
        let (part, taken) = match self.received()? {
            Received::Bytes(bytes) => Part::of(line.feed(bytes), bytes),
            Received::Nothing => return Ok(Part::Nothing),
            Received::End => return Err(Error::Closed),
        };
        self.consume(taken);
        Ok(part)
    }

    /// Writes all of the bytes.
    pub fn write_all<W: Wait>(
        &mut self,
        by: &W,
        mut bytes: &[u8],
        until: Duration,
    ) -> Result<(), W::End> {
        while !bytes.is_empty() {
            match self.send_parts(&[IoSlice::new(bytes)])? {
                0 => by.wait(self.socket(), Interest::Write, until)?,
                n => bytes = &bytes[n..],
            }
        }
        self.flush(by, until)
    }

    /// Sends all that TLS has encrypted.
    pub fn flush<W: Wait>(&mut self, by: &W, until: Duration) -> Result<(), W::End> {
        while !self.send_queued()? {
            by.wait(self.socket(), Interest::Write, until)?;
        }
        Ok(())
    }

    /// The handshake, after [`Link::encrypt`]. Its last message may stay queued, to be sent with
    /// the first data.
    pub fn handshake<W: Wait>(&mut self, by: &W, until: Duration) -> Result<(), W::End> {
        while self.tls().is_some_and(|tls| tls.is_handshaking()) {
            self.flush(by, until)?;
            if self.eof() {
                return Err(Error::Closed.into());
            }
            by.wait(self.socket(), Interest::Read, until)?;
            self.receive()?;
        }
        Ok(())
    }

    /// Closes the sending direction after the last byte, then reads and discards what the peer
    /// still sends, for a while: a reset in answer to unread data could destroy what the peer has
    /// not read yet.
    pub fn linger(&mut self) {
        if !self.finish() {
            return;
        }
        let (until, mut left, mut bytes) =
            (clock::monotonic() + LINGER_TIME, LINGER_BYTES, [0; 4096]);
        while left > 0 {
            match socket::receive(self.socket(), &mut bytes) {
                Ok(0) => return,
                Ok(n) => left = left.saturating_sub(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let wait = until.saturating_sub(clock::monotonic());
                    let mut polls = [Poll::new(self.socket(), true, false)];
                    if wait.is_zero() || poll::wait(&mut polls, Some(wait)).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}
