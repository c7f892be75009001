//! Copies both ways between a link and a local socket. When one side has finished, the other is
//! told so.

use super::{Copied, FromPeer, Waited, wait};
use crate::link::{Breaks, Error, Link, Received, Tally};
use crate::sys::poll::{self, Poll};
use crate::sys::socket;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How many bytes are read from the local end at once, at most.
const TAKE: usize = 128 * 1024;
/// How many bytes the first reads take: most services have little to say.
const TAKE_FIRST: usize = 16 * 1024;
/// How often the link is read before the local end is read again; of TLS, that is a record each.
const READS: usize = 8;

/// State of the direction from the local end to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToPeer {
    Open,
    Finished,
}

/// How far a copy is, for whoever goes on with it.
#[derive(Debug)]
pub struct State {
    from_peer: FromPeer,
    to_peer: ToPeer,
    tally: Tally,
    breaks: Breaks,
}

impl State {
    /// Nothing was copied yet.
    pub fn new(breaks: Breaks, tally: Tally) -> State {
        let (from_peer, to_peer) = (FromPeer::Open, ToPeer::Open);
        State { from_peer, to_peer, tally, breaks }
    }

    /// How many bytes were copied.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Is the peer still read, and the local end?
    pub fn reads(&self) -> [bool; 2] {
        [self.from_peer.reads(), self.to_peer == ToPeer::Open]
    }
}

struct ByteCopy<'a> {
    link: &'a mut Link,
    local: BorrowedFd<'a>,
    state: &'a mut State,
    buffer: Vec<u8>,
    /// The part of the buffer that the link has not taken.
    unsent: Range<usize>,
    /// The local end was told that more follows at once.
    more: bool,
}

/// Copies until both sides have finished, or one is gone; or until nothing has moved for `idle`. On
/// an error the local end is made to see a reset rather than an orderly end; the caller then closes
/// it.
pub fn copy(
    link: &mut Link,
    local: BorrowedFd,
    state: &mut State,
    idle: Option<Duration>,
) -> Result<Copied, Error> {
    link.read_ahead();
    let done =
        ByteCopy { link, local, state, buffer: Vec::new(), unsent: 0..0, more: false }.run(idle);
    if done.is_err() {
        // What has come before the error goes before the reset.
        let _ = socket::push(local);
        socket::abort(local);
    }
    done
}

impl ByteCopy<'_> {
    fn run(&mut self, idle: Option<Duration>) -> Result<Copied, Error> {
        // What was received before may be all that ever comes.
        self.deliver()?;
        loop {
            self.push();
            let sent = self.send()?;
            if self.state.to_peer == ToPeer::Finished
                && sent
                && matches!(self.state.from_peer, FromPeer::Done | FromPeer::Discarding)
            {
                return Ok(Copied::All);
            }
            let reads = self.state.from_peer.reads() && !self.link.eof();
            let (writes, reads_local) = (
                self.state.from_peer == FromPeer::Blocked,
                self.state.to_peer == ToPeer::Open && sent,
            );
            let local = match (self.state.to_peer, self.state.from_peer) {
                // A local end that has finished and is then closed for good is noticed by POLLHUP
                // alone.
                (ToPeer::Finished, FromPeer::Open) => Poll::hangup(self.local),
                _ => Poll::new(self.local, reads_local, writes),
            };
            let mut polls = [Poll::new(self.link.socket(), reads, !sent), local];
            match wait(&mut polls, self.buffer.is_empty(), idle)? {
                Waited::Ready => {}
                Waited::Idle if sent && !writes => return Ok(Copied::Idle),
                Waited::Idle | Waited::Quiet => {
                    self.release_buffers();
                    continue;
                }
            }
            let [peer, local] = polls;
            let (peer_readable, writable, readable, hung_up) =
                (peer.readable(), local.writable(), local.readable(), local.hung());
            let ended = local.ended();
            if peer_readable {
                self.receive_peer()?;
            } else if writable {
                self.state.from_peer = FromPeer::Open;
                self.deliver()?;
            }
            if readable {
                self.receive_local()?;
                // Its last bytes and TLS's close_notify go at once.
                if ended && self.encrypt()? {
                    self.receive_local()?;
                }
            }
            if self.state.to_peer == ToPeer::Finished
                && hung_up
                && self.state.from_peer == FromPeer::Open
            {
                self.state.from_peer = FromPeer::Discarding;
            }
        }
    }

    /// Frees the buffers: the connection is idle.
    fn release_buffers(&mut self) {
        if self.unsent.is_empty() {
            self.buffer = Vec::new();
        }
        self.link.release_buffers();
    }

    /// Has TLS encrypt what was read, which is not sent yet. False: not all of it.
    fn encrypt(&mut self) -> Result<bool, Error> {
        if self.unsent.is_empty() || self.link.tls().is_none() {
            return Ok(false);
        }
        let n = self.link.send_parts(&[IoSlice::new(&self.buffer[self.unsent.clone()])])?;
        self.unsent.start += n;
        Ok(self.unsent.is_empty())
    }

    /// Sends what waits. True: all of it was sent.
    fn send(&mut self) -> Result<bool, Error> {
        if self.link.wants_write() && !self.link.send_queued()? {
            return Ok(false);
        }
        while !self.unsent.is_empty() {
            let n = self.link.send_parts(&[IoSlice::new(&self.buffer[self.unsent.clone()])])?;
            if n == 0 {
                return Ok(false);
            }
            self.unsent.start += n;
        }
        self.link.send_queued()
    }

    /// Writes to the local end what has come from the peer.
    fn receive_peer(&mut self) -> Result<(), Error> {
        for _ in 0..READS {
            self.link.receive()?;
            self.deliver()?;
            if !self.link.has_more_at_once() || self.state.from_peer == FromPeer::Blocked {
                break;
            }
        }
        Ok(())
    }

    /// Nothing more follows in this turn: the local end sends what it has kept back.
    fn push(&mut self) {
        if std::mem::take(&mut self.more) {
            // What is no TCP socket has kept nothing back.
            let _ = socket::push(self.local);
        }
    }

    /// Writes to the local end what has been received from the peer.
    fn deliver(&mut self) -> Result<(), Error> {
        while self.state.from_peer.reads() {
            let sent = self.unsent.is_empty() && !self.link.wants_write();
            let more = self.link.has_more_at_once();
            let bytes = match self.link.received() {
                Ok(Received::Bytes(bytes)) => bytes,
                Ok(Received::Nothing) => return Ok(()),
                // The local end may still read, even if it has finished sending: its input is cut.
                Err(e @ Error::Truncated) if !poll::has_hung(self.local) => return Err(e),
                Err(_) if self.state.to_peer == ToPeer::Finished && sent => {
                    // The peer has all that the local end sent, and went away. That is no
                    // truncation of what it received; but a local end that still reads must see
                    // that the peer did not finish in order.
                    self.state.from_peer = FromPeer::Discarding;
                    socket::abort(self.local);
                    return Ok(());
                }
                Err(e) => return Err(e),
                Ok(Received::End) => {
                    if self.state.from_peer == FromPeer::Open {
                        self.state.from_peer = FromPeer::Done;
                    }
                    // This fails if the local end is gone already.
                    let _ = socket::shutdown_write(self.local);
                    return Ok(());
                }
            };
            let given = match self.state.from_peer {
                FromPeer::Discarding => Ok(bytes.len()),
                _ if more => socket::send_with_more(self.local, bytes),
                _ => socket::send(self.local, bytes),
            };
            self.more |= more;
            let n = match given {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.state.from_peer = FromPeer::Blocked;
                    return Ok(());
                }
                Err(e) => {
                    // The local end is closed for reading: the rest is discarded.
                    self.state.breaks.note(&e);
                    self.state.from_peer = FromPeer::Discarding;
                    bytes.len()
                }
            };
            self.link.consume(n);
            if self.state.from_peer != FromPeer::Discarding {
                self.state.tally.receive(n);
            }
        }
        Ok(())
    }

    /// Reads what the local end has sent.
    fn receive_local(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE_FIRST];
        } else if self.unsent.end == self.buffer.len() && self.buffer.len() < TAKE {
            // The last read has filled it.
            self.buffer = vec![0; TAKE];
        }
        let read = socket::receive(self.local, &mut self.buffer);
        if self.state.breaks.is_break(&read) {
            // What came before goes before.
            let _ = self.link.send_queued();
            socket::abort(self.link.socket());
            let reset = || ErrorKind::ConnectionReset.into();
            return Err(Error::Broken(read.err().unwrap_or_else(reset)));
        }
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        if n == 0 {
            self.state.to_peer = ToPeer::Finished;
            // What is no TCP socket has nothing to acknowledge.
            let _ = socket::acknowledge(self.local);
            self.link.half_close();
            return Ok(());
        }
        self.state.tally.send(n);
        self.unsent = 0..n;
        Ok(())
    }
}
