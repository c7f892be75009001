//! Copies both ways between a link and a local socket, in one thread that never waits in a write.
//! When one side has finished, the other is told so.

use super::pump::Tally;
use super::{Error, Link, Received};
use crate::sys::poll::{self, Poll};
use crate::sys::socket;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How many bytes are read from the local end at once.
const TAKE: usize = 128 * 1024;
/// How long empty buffers are kept while nothing is copied.
const BUFFERS_KEPT: Duration = Duration::from_millis(50);

/// State of the direction from the peer to the local end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FromPeer {
    Open,
    /// The local end takes nothing now.
    Blocked,
    /// The peer has finished, and the local end was shut down for writing.
    Done,
    /// The local end takes no more: what the peer sends is discarded.
    Discarding,
}

/// State of the direction from the local end to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToPeer {
    Open,
    Finished,
}

struct Copy<'a> {
    link: &'a mut Link,
    local: BorrowedFd<'a>,
    from_peer: FromPeer,
    to_peer: ToPeer,
    buffer: Vec<u8>,
    /// The part of the buffer that the link has not taken.
    unsent: Range<usize>,
    tally: Tally,
    /// See [`run`].
    resets: bool,
}

/// Copies until both sides have finished, or one is gone; returns how many bytes. On an error the
/// local end is made to see a reset rather than an orderly end; the caller then closes it.
/// `resets`: an error of the local end is passed on to the peer as a reset; else it counts as an
/// end.
pub fn run(link: &mut Link, local: BorrowedFd, resets: bool) -> (Result<(), Error>, Tally) {
    link.read_ahead();
    let mut copy = Copy {
        link,
        local,
        from_peer: FromPeer::Open,
        to_peer: ToPeer::Open,
        buffer: Vec::new(),
        unsent: 0..0,
        tally: Tally::default(),
        resets,
    };
    let done = copy.run();
    if done.is_err() {
        socket::cut(local);
    }
    (done, copy.tally)
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), Error> {
        // What was received before may be all that ever comes.
        self.deliver()?;
        loop {
            let sent = self.send()?;
            if self.to_peer == ToPeer::Finished
                && sent
                && matches!(self.from_peer, FromPeer::Done | FromPeer::Discarding)
            {
                return Ok(());
            }
            let reads =
                matches!(self.from_peer, FromPeer::Open | FromPeer::Discarding) && !self.link.eof();
            let (writes, reads_local) =
                (self.from_peer == FromPeer::Blocked, self.to_peer == ToPeer::Open && sent);
            let local = match (self.to_peer, self.from_peer) {
                // A local end that has finished and is then closed for good is noticed by POLLHUP
                // alone.
                (ToPeer::Finished, FromPeer::Open) => Poll::hangup(self.local),
                _ => Poll::new(self.local, reads_local, writes),
            };
            let mut polls = [Poll::new(self.link.socket(), reads, !sent), local];
            let timeout = (!self.buffer.is_empty()).then_some(BUFFERS_KEPT);
            if poll::wait(&mut polls, timeout).map_err(Error::System)? == 0 {
                self.release_buffers();
                continue;
            }
            let [peer, local] = polls;
            let (peer_readable, writable, readable, hung_up) =
                (peer.readable(), local.writable(), local.readable(), local.hung());
            if peer_readable {
                self.link.receive()?;
                self.deliver()?;
            } else if writable {
                self.from_peer = FromPeer::Open;
                self.deliver()?;
            }
            if readable {
                self.receive_local()?;
            }
            if self.to_peer == ToPeer::Finished && hung_up && self.from_peer == FromPeer::Open {
                self.from_peer = FromPeer::Discarding;
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

    /// Sends what waits. True: all of it was sent.
    fn send(&mut self) -> Result<bool, Error> {
        while !self.unsent.is_empty() {
            let n = self.link.send_parts(&[IoSlice::new(&self.buffer[self.unsent.clone()])])?;
            if n == 0 {
                return Ok(false);
            }
            self.unsent.start += n;
        }
        self.link.send_queued()
    }

    /// Writes to the local end what has been received from the peer.
    fn deliver(&mut self) -> Result<(), Error> {
        while matches!(self.from_peer, FromPeer::Open | FromPeer::Discarding) {
            let sent = self.unsent.is_empty() && !self.link.wants_write();
            let bytes = match self.link.received() {
                Ok(Received::Bytes(bytes)) => bytes,
                Ok(Received::Nothing) => return Ok(()),
                Err(_) if self.to_peer == ToPeer::Finished && sent => {
                    // The peer has all that the local end sent, and went away. That is no
                    // truncation of what it received; but a local end that still reads must see
                    // that the peer did not finish in order.
                    self.from_peer = FromPeer::Discarding;
                    socket::cut(self.local);
                    return Ok(());
                }
                Err(e) => return Err(e),
                Ok(Received::End) => {
                    if self.from_peer == FromPeer::Open {
                        self.from_peer = FromPeer::Done;
                    }
                    // This fails if the local end is gone already.
                    let _ = socket::shutdown_write(self.local);
                    return Ok(());
                }
            };
            let given = match self.from_peer {
                FromPeer::Discarding => Ok(bytes.len()),
                _ => socket::send(self.local, bytes),
            };
            let n = match given {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.from_peer = FromPeer::Blocked;
                    return Ok(());
                }
                Err(_) => {
                    // The local end is closed for reading: the rest is discarded.
                    self.from_peer = FromPeer::Discarding;
                    bytes.len()
                }
            };
            self.link.consume(n);
            self.tally.received +=
                if self.from_peer == FromPeer::Discarding { 0 } else { n as u64 };
        }
        Ok(())
    }

    /// Reads what the local end has sent.
    fn receive_local(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let n = match socket::receive(self.local, &mut self.buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if self.resets => {
                socket::cut(self.link.socket());
                return Err(Error::Broken(e));
            }
            Err(_) => 0,
        };
        if n == 0 {
            self.to_peer = ToPeer::Finished;
            // What is no TCP socket has nothing to acknowledge.
            let _ = socket::acknowledge(self.local);
            self.link.half_close();
            return Ok(());
        }
        self.tally.sent += n as u64;
        self.unsent = 0..n;
        Ok(())
    }
}
