//! What a session's dialogue speaks over: a socket, or TLS on it. Every wait ends at a deadline,
//! and when fived ends.
//!
//! On a plain socket exactly the lines are taken out, never a byte behind them: a service gets this
//! very descriptor later.

use super::channel::Channel;
use super::tls::Tls;
use crate::sys::poll::{self, Poll};
use crate::sys::shared::Shared;
use crate::sys::{clock, socket};
use crate::wire::line::{Fed, Line};
use rustls::ServerConnection;
use std::io::{BufRead, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What a client that was told its last may still send, and how long.
const FAREWELL_BYTES: usize = 64 * 1024;
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Why a session ends; the log's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client went, or its service has ended.
    Closed,
    /// The connection broke.
    Broken,
    /// TLS without its end.
    Truncated,
    Timeout,
    /// fived itself ends, or a new table stands.
    Drained,
    /// Not TLS, or no handshake.
    Tls,
    /// A frame that breaks the protocol.
    Protocol,
    /// Too many tries to log in.
    Tries,
    /// It was refused something that ends it.
    Refused,
    /// The system has no room, or the parent is gone.
    System,
    /// Too many sessions stand; the parent has refused this one.
    Full,
}

impl End {
    pub fn as_str(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Broken => "broken",
            End::Truncated => "truncated",
            End::Timeout => "timeout",
            End::Drained => "drained",
            End::Tls => "tls",
            End::Protocol => "protocol",
            End::Tries => "tries",
            End::Refused | End::Full => "refused",
            End::System => "system",
        }
    }
}

impl From<super::channel::Gone> for End {
    fn from(gone: super::channel::Gone) -> End {
        match gone {
            super::channel::Gone::Gone => End::System,
            super::channel::Gone::Full => End::Full,
        }
    }
}

/// A line, or that there was more than a line's bound.
pub enum Said {
    Line(Vec<u8>),
    TooLong,
}

/// TLS on a socket.
pub struct Encrypted {
    pub tls: Box<ServerConnection>,
    pub socket: Shared,
    /// The client's TCP has ended.
    pub eof: bool,
}

pub enum Transport {
    Plain(Shared),
    Tls(Encrypted),
}

impl Transport {
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Transport::Plain(fd) => fd.as_fd(),
            Transport::Tls(e) => e.socket.as_fd(),
        }
    }

    /// Waits until the socket is ready. Err: the deadline, or the end of fived.
    fn wait(
        &self,
        channel: &Channel,
        read: bool,
        write: bool,
        deadline: Duration,
    ) -> Result<(), End> {
        loop {
            if channel.go_away() == Some(true) {
                return Err(End::Drained);
            }
            let left = deadline.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Err(End::Timeout);
            }
            let mut polls =
                [Poll::new(self.socket(), read, write), Poll::new(channel.as_fd(), true, false)];
            poll::wait(&mut polls, Some(left)).map_err(|_| End::System)?;
            let [ready, told] = polls;
            if told.readable() {
                // Nothing was asked: what comes is kept aside.
                channel.keep_aside()?;
            }
            if ready.readable() || ready.writable() {
                return Ok(());
            }
        }
    }

    /// Is there anything that [`Transport::read_line`] must look at, or does it come by then?
    pub fn heard(&mut self, channel: &Channel, until: Duration) -> Result<bool, End> {
        if let Transport::Tls(e) = self
            && e.holds()
        {
            return Ok(true);
        }
        match self.wait(channel, true, false, until) {
            Err(End::Timeout) => Ok(false),
            waited => waited.map(|()| true),
        }
    }

    /// The next line, without its end.
    pub fn read_line(
        &mut self,
        channel: &Channel,
        max: usize,
        deadline: Duration,
    ) -> Result<Said, End> {
        let mut line = Line::new(max);
        loop {
            let (said, taken) = match self {
                Transport::Plain(fd) => plain_line(fd.as_fd(), &mut line)?,
                Transport::Tls(e) => e.line(&mut line)?,
            };
            match said {
                Some(said) => return Ok(said),
                None if taken => {}
                None => {
                    self.wait(channel, true, false, deadline)?;
                    if let Transport::Tls(e) = self {
                        e.take_in()?;
                        self.flush(channel, deadline)?;
                    }
                }
            }
        }
    }

    /// Writes all of it.
    pub fn write(
        &mut self,
        channel: &Channel,
        mut bytes: &[u8],
        deadline: Duration,
    ) -> Result<(), End> {
        if let Transport::Tls(e) = self {
            e.tls.writer().write_all(bytes).map_err(|_| End::Broken)?;
            return self.flush(channel, deadline);
        }
        while !bytes.is_empty() {
            match socket::send(self.socket(), bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.wait(channel, false, true, deadline)?
                }
                Err(_) => return Err(End::Broken),
            }
        }
        Ok(())
    }

    /// Sends what TLS has ready.
    pub fn flush(&mut self, channel: &Channel, deadline: Duration) -> Result<(), End> {
        while let Transport::Tls(e) = self
            && !e.give_out()?
        {
            self.wait(channel, false, true, deadline)?;
        }
        Ok(())
    }

    /// Shakes hands on a plain connection, which becomes TLS. On failure the alert is sent, and the
    /// connection is of no more use.
    pub fn encrypt(
        self,
        tls: &Tls,
        channel: &Channel,
        deadline: Duration,
    ) -> Result<Transport, End> {
        let Transport::Plain(socket) = self else { return Err(End::Tls) };
        let mut conn = ServerConnection::new(tls.config.clone()).map_err(|_| End::Tls)?;
        conn.set_buffer_limit(None);
        let mut this = Transport::Tls(Encrypted { tls: Box::new(conn), socket, eof: false });
        loop {
            this.flush(channel, deadline)?;
            let Transport::Tls(e) = &mut this else { return Err(End::Tls) };
            if !e.tls.is_handshaking() {
                return Ok(this);
            }
            if e.eof {
                return Err(End::Closed);
            }
            this.wait(channel, true, false, deadline)?;
            if let Transport::Tls(e) = &mut this
                && let Err(end) = e.take_in()
            {
                this.farewell();
                return Err(end);
            }
        }
    }

    /// Ends our side in order, as far as that goes at once; inside TLS without it the client would
    /// see a truncation. False: the client is gone.
    pub fn finish(&mut self) -> bool {
        if let Transport::Tls(e) = self {
            e.tls.send_close_notify();
            // Whoever takes nothing has its end all the same.
            let _ = e.give_out();
        }
        socket::shutdown_write(self.socket()).is_ok()
    }

    /// The last word was said: tells the client so and hears it out for a while, so that no reset
    /// overtakes it.
    pub fn farewell(&mut self) {
        if !self.finish() {
            return;
        }
        let (until, mut left, mut bytes) =
            (clock::monotonic() + FAREWELL_TIME, FAREWELL_BYTES, [0; 4096]);
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

/// Takes what belongs to the line out of the socket. The second: was anything there?
fn plain_line(fd: BorrowedFd, line: &mut Line) -> Result<(Option<Said>, bool), End> {
    let mut bytes = [0; 1024];
    let n = match socket::peek(fd, &mut bytes) {
        Ok(0) => return Err(End::Closed),
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok((None, false)),
        Err(_) => return Err(End::Broken),
    };
    let (said, taken) = fed(line.feed(&bytes[..n]), n);
    if taken > 0 && !socket::receive(fd, &mut bytes[..taken]).is_ok_and(|t| t == taken) {
        return Err(End::Broken);
    }
    Ok((said, true))
}

fn fed(fed: Fed, n: usize) -> (Option<Said>, usize) {
    match fed {
        Fed::More => (None, n),
        Fed::TooLong => (Some(Said::TooLong), 0),
        Fed::Line { text, taken } => (Some(Said::Line(text.to_vec())), taken),
    }
}

impl Encrypted {
    /// Plaintext that has come already.
    fn line(&mut self, line: &mut Line) -> Result<(Option<Said>, bool), End> {
        let mut reader = self.tls.reader();
        let (said, taken) = match reader.fill_buf() {
            Ok([]) => return Err(End::Closed),
            Ok(bytes) => fed(line.feed(bytes), bytes.len()),
            Err(e) if e.kind() == ErrorKind::WouldBlock && !self.eof => return Ok((None, false)),
            Err(_) => return Err(End::Truncated),
        };
        reader.consume(taken);
        Ok((said, true))
    }

    /// Has plaintext come already, or its end? The socket tells of neither again.
    fn holds(&mut self) -> bool {
        let waits =
            matches!(self.tls.reader().fill_buf(), Err(e) if e.kind() == ErrorKind::WouldBlock);
        self.eof || !waits
    }

    /// Takes in what the socket has: one read, decrypted.
    pub fn take_in(&mut self) -> Result<(), End> {
        match self.tls.read_tls(&mut socket::Stream(self.socket.as_fd())) {
            Ok(0) => self.eof = true,
            Ok(_) => {
                if self.tls.process_new_packets().is_err() {
                    // The alert, as far as it goes at once.
                    let _ = self.give_out();
                    return Err(End::Tls);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(End::Broken),
        }
        Ok(())
    }

    /// Sends what is encrypted, as far as the socket takes it. True: all of it.
    pub fn give_out(&mut self) -> Result<bool, End> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut socket::Stream(self.socket.as_fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(End::Broken),
            }
        }
        Ok(true)
    }
}
