//! A link on one side, a socket on the other: one thread copies both ways, tells each side of the
//! other's end, and never waits in a write.

use super::pump::Tally;
use super::{Error, Heard, Link};
use crate::sys::poll::{self, Poll};
use crate::sys::socket;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Bytes that are taken from the near end at once.
const TAKE: usize = 128 * 1024;
/// How long buffers are kept when nothing moves.
const LINGER: Duration = Duration::from_millis(50);

/// How far the direction from the peer to the near end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inward {
    Open,
    /// The near end takes nothing now.
    Full,
    /// The peer has finished, and the near end was told so.
    Done,
    /// The near end takes no more: what comes is thrown away.
    Deaf,
}

/// How far the direction from the near end to the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outward {
    Open,
    Over,
}

struct Copy<'a> {
    link: &'a mut Link,
    near: BorrowedFd<'a>,
    inward: Inward,
    outward: Outward,
    buffer: Vec<u8>,
    /// What a plain link has not taken of it.
    unsent: Range<usize>,
    tally: Tally,
    /// See [`run`].
    resets: bool,
}

/// Copies until both have finished, or one is gone, and how much. What was cut off does not look
/// like an end to the near end, which is to be closed then. `resets`: nor does a near end that
/// breaks look like an end to the peer; else it is one.
pub fn run(link: &mut Link, near: BorrowedFd, resets: bool) -> (Result<(), Error>, Tally) {
    link.read_ahead();
    let mut copy = Copy {
        link,
        near,
        inward: Inward::Open,
        outward: Outward::Open,
        buffer: Vec::new(),
        unsent: 0..0,
        tally: Tally::default(),
        resets,
    };
    let done = copy.run();
    if done.is_err() {
        socket::cut(near);
    }
    (done, copy.tally)
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), Error> {
        // What came before may be all there is.
        self.feed()?;
        loop {
            let sent = self.send()?;
            if self.outward == Outward::Over
                && sent
                && matches!(self.inward, Inward::Done | Inward::Deaf)
            {
                return Ok(());
            }
            let reads = matches!(self.inward, Inward::Open | Inward::Deaf) && !self.link.eof();
            let (full, hears) =
                (self.inward == Inward::Full, self.outward == Outward::Open && sent);
            let near = match (self.outward, self.inward) {
                // One that has finished and then goes for good is noticed by its hanging up.
                (Outward::Over, Inward::Open) => Poll::hangup(self.near),
                _ => Poll::new(self.near, hears, full),
            };
            let mut polls = [Poll::new(self.link.socket(), reads, !sent), near];
            let linger = (!self.buffer.is_empty()).then_some(LINGER);
            if poll::wait(&mut polls, linger).map_err(Error::System)? == 0 {
                self.cool();
                continue;
            }
            let [peer, near] = polls;
            let (speaks, takes, says, gone) =
                (peer.readable(), near.writable(), near.readable(), near.hung());
            if speaks {
                self.link.take_in()?;
                self.feed()?;
            } else if takes {
                self.inward = Inward::Open;
                self.feed()?;
            }
            if says {
                self.hear()?;
            }
            if self.outward == Outward::Over && gone && self.inward == Inward::Open {
                self.inward = Inward::Deaf;
            }
        }
    }

    /// Nothing moves: buffers are given back.
    fn cool(&mut self) {
        if self.unsent.is_empty() {
            self.buffer = Vec::new();
        }
        self.link.cool();
    }

    /// Sends what waits. True: all of it.
    fn send(&mut self) -> Result<bool, Error> {
        while !self.unsent.is_empty() {
            let n = self.link.send_parts(&[IoSlice::new(&self.buffer[self.unsent.clone()])])?;
            if n == 0 {
                return Ok(false);
            }
            self.unsent.start += n;
        }
        self.link.give_out()
    }

    /// Gives the near end what the peer has said.
    fn feed(&mut self) -> Result<(), Error> {
        while matches!(self.inward, Inward::Open | Inward::Deaf) {
            let sent = self.unsent.is_empty() && !self.link.wants_write();
            let bytes = match self.link.heard() {
                Ok(Heard::Bytes(bytes)) => bytes,
                Ok(Heard::Nothing) => return Ok(()),
                Err(_) if self.outward == Outward::Over && sent => {
                    // The peer has all that the near end had to say, and went. That is no
                    // truncation; a near end that still reads is told all the same that this was no
                    // end in order.
                    self.inward = Inward::Deaf;
                    socket::cut(self.near);
                    return Ok(());
                }
                Err(e) => return Err(e),
                Ok(Heard::End) => {
                    if self.inward == Inward::Open {
                        self.inward = Inward::Done;
                    }
                    // It may be gone already.
                    let _ = socket::shutdown_write(self.near);
                    return Ok(());
                }
            };
            let given = match self.inward {
                Inward::Deaf => Ok(bytes.len()),
                _ => socket::send(self.near, bytes),
            };
            let n = match given {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.inward = Inward::Full;
                    return Ok(());
                }
                Err(_) => {
                    // Nobody reads any more: the rest is thrown away.
                    self.inward = Inward::Deaf;
                    bytes.len()
                }
            };
            self.link.consume(n);
            self.tally.heard += if self.inward == Inward::Deaf { 0 } else { n as u64 };
        }
        Ok(())
    }

    /// Takes what the near end has said.
    fn hear(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let n = match socket::receive(self.near, &mut self.buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if self.resets => {
                socket::cut(self.link.socket());
                return Err(Error::Broken(e));
            }
            Err(_) => 0,
        };
        if n == 0 {
            self.outward = Outward::Over;
            // What is no TCP socket has nothing to acknowledge.
            let _ = socket::acknowledge(self.near);
            self.link.half_close();
            return Ok(());
        }
        self.tally.said += n as u64;
        self.unsent = 0..n;
        Ok(())
    }
}
