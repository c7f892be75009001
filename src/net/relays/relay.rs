//! One relay: two sockets, and two directions between them. Nothing here ever waits, and nothing is
//! held but what an end has not taken of one read.

use crate::sys::shared::Shared;
use crate::sys::socket;
use mio::event::Event;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// The ends, and the directions that lead from them: what the client sends, what the server sends.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// One direction.
#[derive(Default)]
struct Direction {
    /// The end that it comes from may have something.
    readable: bool,
    /// The end that it comes from has finished: it is read to its end, whatever a read brings.
    finished: bool,
    /// The end that it goes to may take something.
    writable: bool,
    state: State,
    /// What that end has not taken of the last read, from there on.
    held: (Vec<u8>, usize),
    moved: u64,
}

impl Direction {
    /// The end that it goes to takes nothing more: what still arrives is discarded.
    fn discard(&mut self, e: &io::Error, target: &mut Broken) {
        (self.state, self.held) = (State::Discarding, Default::default());
        if e.kind() == ErrorKind::ConnectionReset && *target == Broken::No {
            *target = Broken::Writing;
        }
    }
}

/// How far a direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Open,
    /// Nobody takes it any more: what comes is thrown away.
    Discarding,
    /// It has ended, and so has the other end's input.
    Over,
}

/// Whether an end has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Broken {
    #[default]
    No,
    /// A write has failed. What it sent before may still be read.
    Writing,
    /// All that it sent was read. The other end is to see a reset too.
    Reset,
}

/// What is left of a relay that is over: its bytes to the server and from it, and the client's
/// socket, where what the client still sends is to be discarded for a while.
pub struct Finished {
    pub to: u64,
    pub from: u64,
    pub client: Option<Shared>,
}

/// See the module.
pub struct Relay {
    ends: [Shared; 2],
    directions: [Direction; 2],
    /// It is among those that have something to do.
    queued: bool,
    /// What each end has come to.
    broken: [Broken; 2],
}

impl Relay {
    pub fn new(ends: [Shared; 2]) -> Relay {
        // Small writes go at once: they are as large as they will get. The server's socket is so
        // already, where it is TCP.
        let _ = socket::set_nodelay(ends[CLIENT].as_fd(), true);
        Relay { ends, directions: Default::default(), queued: false, broken: Default::default() }
    }

    /// The poll has an event of an end. Does the relay have something to do only now?
    pub fn happened(&mut self, end: usize, event: &Event) -> bool {
        let broken = event.is_error() || event.is_write_closed();
        let from = &mut self.directions[end];
        from.readable |= event.is_readable() || event.is_read_closed() || broken;
        from.finished |= event.is_read_closed() || broken;
        let to = &mut self.directions[1 - end];
        to.writable |= event.is_writable() || broken;
        if event.is_write_closed() && to.state == State::Open {
            (to.state, to.held) = (State::Discarding, Default::default());
        }
        !std::mem::replace(&mut self.queued, true)
    }

    /// Copies as far as that goes at once, so many bytes each direction at most, in pieces of the
    /// buffer. True: there is more to do.
    pub fn copy(&mut self, buffer: &mut [u8], most: usize) -> bool {
        let more = [CLIENT, SERVER].map(|from| self.go(from, buffer, most));
        self.queued = !self.is_over() && more.contains(&true);
        self.queued
    }

    /// Is nothing left to be copied?
    pub fn is_over(&self) -> bool {
        let server = self.directions[SERVER].state;
        // A server that has finished and takes nothing more has ended the relay.
        self.is_reset() || server != State::Open && self.directions[CLIENT].state != State::Open
    }

    fn is_reset(&self) -> bool {
        self.broken.contains(&Broken::Reset)
    }

    /// It is over.
    pub fn end(self) -> Finished {
        if self.is_reset() {
            return self.abort();
        }
        let discarding = self.directions[CLIENT].state == State::Discarding
            && self.directions[SERVER].state == State::Over;
        let [to, from] = self.directions.map(|w| w.moved);
        let [client, _] = self.ends;
        Finished { to, from, client: discarding.then_some(client) }
    }

    /// It breaks: both ends see that this was no end in order.
    pub fn abort(self) -> Finished {
        self.ends.iter().for_each(|end| socket::abort(end.as_fd()));
        let [to, from] = self.directions.map(|w| w.moved);
        Finished { to, from, client: None }
    }

    /// Copies from one end to the other. True: there is more than `most`.
    fn go(&mut self, from: usize, buffer: &mut [u8], most: usize) -> bool {
        let mut left = most;
        loop {
            if !self.give_held(from) {
                return false;
            }
            let direction = &self.directions[from];
            if direction.state == State::Over || !direction.readable {
                return false;
            }
            if left == 0 {
                return true;
            }
            match self.take(from, buffer) {
                Some(n) => left = left.saturating_sub(n),
                None => return false,
            }
        }
    }

    /// Gives the end what it has not taken of an earlier read. False: it takes no more now.
    fn give_held(&mut self, from: usize) -> bool {
        let direction = &mut self.directions[from];
        while !direction.held.0.is_empty() {
            if !direction.writable {
                return false;
            }
            let (held, start) = &mut direction.held;
            match socket::send(self.ends[1 - from].as_fd(), &held[*start..]) {
                Ok(n) => {
                    *start += n;
                    direction.moved += n as u64;
                    if *start == held.len() {
                        direction.held = Default::default();
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => direction.writable = false,
                Err(e) => direction.discard(&e, &mut self.broken[1 - from]),
            }
        }
        true
    }

    /// One read, and what comes of it: given, held or thrown away. How many bytes; None: no more
    /// can be read now.
    fn take(&mut self, from: usize, buffer: &mut [u8]) -> Option<usize> {
        let (source, target) = (self.ends[from].as_fd(), self.ends[1 - from].as_fd());
        let direction = &mut self.directions[from];
        let n = match socket::receive(source, buffer) {
            Ok(n @ 1..) => n,
            Ok(_) if self.broken[from] == Broken::No => {
                direction.state = State::Over;
                // It may be gone already.
                let _ = socket::shutdown_write(target);
                return None;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                direction.readable = false;
                return None;
            }
            Ok(_) | Err(_) => {
                self.broken[from] = Broken::Reset;
                return None;
            }
        };
        // Less than there was room for: it has no more now, unless it has finished.
        direction.readable = n == buffer.len() || direction.finished;
        if direction.state == State::Discarding {
            return Some(n);
        }
        let sent = match socket::send(target, &buffer[..n]) {
            Ok(sent) => sent,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => {
                direction.discard(&e, &mut self.broken[1 - from]);
                return Some(n);
            }
        };
        direction.moved += sent as u64;
        if sent < n {
            (direction.writable, direction.held) = (false, (buffer[sent..n].to_vec(), 0));
        }
        Some(n)
    }
}
