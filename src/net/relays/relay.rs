//! One relay: two sockets, and two directions between them. Nothing here ever waits, and nothing is
//! held but what an end has not taken of one read.
//!
//! Each read is followed by one write, until a read fills the whole buffer: from then on bytes go
//! through a pipe and are not copied, as long as they come in large pieces. For that both sockets
//! must be ones that do not block; the parent has made them so.

use super::pipes::{self, CountedPipe, Pipes};
use crate::sys::gauges;
use crate::sys::pipe::never_waits;
use crate::sys::shared::Shared;
use crate::sys::{passed_rights, socket};
use mio::event::Event;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

/// The ends, and the directions that lead from them: what the client sends, what the server sends.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Bytes that are taken at once by copying, and that are then held at most.
const TAKE: usize = 64 * 1024;
/// Less than this at once is copied: two system calls instead of four.
const LARGE: usize = 32 * 1024;

/// What a thread copies with.
pub struct Means {
    /// What was taken at once.
    pub buffer: Vec<u8>,
    pub pipes: Pipes,
}

impl Means {
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.pipes.is_empty()
    }

    /// Frees them: nothing moves.
    pub fn release(&mut self) {
        self.buffer = Vec::new();
        self.pipes.release();
    }
}

/// What an end has not taken yet.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    /// The rest of a read, from there on.
    Bytes(Vec<u8>, usize),
    /// What is in the pipe.
    Pipe(CountedPipe),
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// The end that it comes from may have something.
    readable: bool,
    /// The end that it comes from has finished: it is read to its end, whatever a read brings.
    finished: bool,
    /// A read of that end may stop before all that has come: at an urgent byte.
    in_parts: bool,
    /// Descriptors may come with what that end sends.
    rights: bool,
    /// The end that it goes to may take something.
    writable: bool,
    state: State,
    /// What that end has not taken.
    held: Held,
    /// Its bytes come in large pieces.
    large: bool,
    /// How often it was written to the end that it goes to.
    writes: Writes,
    /// The last of it waits there for the end of the direction, to go with that.
    waits: bool,
    moved: u64,
    /// It goes to the service.
    to_service: bool,
}

/// Whether small writes wait there until the other side has acknowledged the one before (Nagle's
/// algorithm). They must not, because they are as large as they will get; but the first one has
/// none before it, and many connections have no second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Writes {
    #[default]
    None,
    One,
    AtOnce,
}

impl Direction {
    /// Something is going to be written there.
    fn writes(&mut self, target: BorrowedFd) {
        self.writes = match self.writes {
            Writes::None => Writes::One,
            Writes::One => {
                // It fails on a Unix socket, where nothing waits.
                let _ = socket::set_nodelay(target, true);
                Writes::AtOnce
            }
            Writes::AtOnce => Writes::AtOnce,
        };
    }

    /// What waits there for the end goes now: the end is not next.
    fn push(&mut self, target: BorrowedFd) {
        if std::mem::take(&mut self.waits) {
            // An error means that nothing can go any more.
            let _ = socket::set_nodelay(target, true);
            self.writes = Writes::AtOnce;
        }
    }

    /// The end that it goes to has taken this many bytes of what is held.
    fn given(&mut self, n: usize, pipes: &mut Pipes) {
        self.move_on(n);
        match std::mem::take(&mut self.held) {
            Held::Bytes(bytes, start) if start + n < bytes.len() => {
                self.held = Held::Bytes(bytes, start + n);
            }
            Held::Pipe(pipe) if pipe.holds() > 0 => self.held = Held::Pipe(pipe),
            Held::Pipe(pipe) => pipes.give_back(pipe),
            Held::Bytes(..) | Held::Nothing => {}
        }
    }

    fn move_on(&mut self, n: usize) {
        self.moved += n as u64;
        if self.to_service { gauges::relayed(n, 0) } else { gauges::relayed(0, n) }
    }

    /// The end that it goes to takes nothing more: what still arrives is discarded.
    fn discard(&mut self, e: &io::Error, target: &mut Broken) {
        (self.state, self.held) = (State::Discarding, Held::Nothing);
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
#[derive(Default)]
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
    /// `rights`: the ends that can send descriptors. Their urgent bytes come in line.
    pub fn new(ends: [Shared; 2], rights: [bool; 2]) -> Relay {
        let mut directions = rights.map(|rights| Direction { rights, ..Direction::default() });
        directions[CLIENT].to_service = true;
        Relay { ends, directions, queued: false, broken: Default::default() }
    }

    /// The poll has an event of an end. Does the relay have something to do only now?
    pub fn happened(&mut self, end: usize, event: &Event) -> bool {
        let broken = event.is_error() || event.is_write_closed();
        let from = &mut self.directions[end];
        from.readable |= event.is_readable() || event.is_read_closed() || broken;
        from.finished |= event.is_read_closed() || broken;
        from.in_parts |= event.is_priority();
        let to = &mut self.directions[1 - end];
        to.writable |= event.is_writable() || broken;
        if event.is_write_closed() && to.state == State::Open {
            (to.state, to.held) = (State::Discarding, Held::Nothing);
        }
        !std::mem::replace(&mut self.queued, true)
    }

    /// Copies as far as that goes at once, this many bytes each direction at most. True: there is
    /// more to do.
    pub fn copy(&mut self, means: &mut Means, most: usize) -> bool {
        let more = [CLIENT, SERVER].map(|from| self.go(from, means, most));
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
        for ((end, broken), direction) in self.ends.iter().zip(self.broken).zip(&self.directions) {
            // One that was reset itself sees no other; one that has sent descriptors is not.
            if broken != Broken::Reset || direction.rights {
                socket::abort(end.as_fd());
            }
        }
        let [to, from] = self.directions.map(|w| w.moved);
        Finished { to, from, client: None }
    }

    /// Copies from one end to the other. True: there is more than `most`.
    fn go(&mut self, from: usize, means: &mut Means, most: usize) -> bool {
        let mut left = most;
        loop {
            if !self.give_held(from, &mut means.pipes) {
                return false;
            }
            let direction = &self.directions[from];
            if direction.state == State::Over || !direction.readable {
                return false;
            }
            if left == 0 {
                return true;
            }
            let taken = self.fill(from, &mut means.pipes);
            match taken.or_else(|| self.take(from, &mut means.buffer)) {
                Some(n) => left = left.saturating_sub(n),
                None => return false,
            }
        }
    }

    /// Gives the end what it has not taken of an earlier read. False: it takes no more now.
    fn give_held(&mut self, from: usize, pipes: &mut Pipes) -> bool {
        let target = self.ends[1 - from].as_fd();
        let direction = &mut self.directions[from];
        loop {
            if matches!(direction.held, Held::Nothing) {
                return true;
            }
            if !direction.writable {
                return false;
            }
            direction.writes(target);
            let given = match &mut direction.held {
                Held::Nothing => return true,
                Held::Bytes(bytes, start) => socket::send(target, &bytes[*start..]),
                Held::Pipe(pipe) => pipe.drain(target),
            };
            match given {
                Ok(n) => direction.given(n, pipes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => direction.writable = false,
                Err(e) => direction.discard(&e, &mut self.broken[1 - from]),
            }
        }
    }

    /// Takes what has come into a pipe, where it comes in large pieces. How many bytes; None: it is
    /// to be read. That also tells why nothing has come: at its end, and before an urgent byte, a
    /// pipe gets nothing either.
    fn fill(&mut self, from: usize, pipes: &mut Pipes) -> Option<usize> {
        let direction = &mut self.directions[from];
        if !direction.large || direction.state != State::Open {
            return None;
        }
        let mut pipe = pipes.take()?;
        match pipe.fill(self.ends[from].as_fd(), pipes::HOLDS) {
            Ok(n @ 1..) => {
                direction.large = n >= LARGE;
                direction.held = Held::Pipe(pipe);
                Some(n)
            }
            Ok(_) => {
                pipes.give_back(pipe);
                None
            }
            Err(e) if is_of_pipe(&e) => {
                direction.large = e.kind() == ErrorKind::WouldBlock;
                pipes.give_back(pipe);
                None
            }
            Err(_) => {
                // The system tells of it once, and has done so now.
                self.broken[from] = Broken::Reset;
                None
            }
        }
    }

    /// One read, and what comes of it: given, held or thrown away. How many bytes; None: no more
    /// can be read now.
    fn take(&mut self, from: usize, buffer: &mut Vec<u8>) -> Option<usize> {
        let (source, target) = (self.ends[from].as_fd(), self.ends[1 - from].as_fd());
        let direction = &mut self.directions[from];
        if buffer.is_empty() {
            *buffer = vec![0; TAKE];
        }
        let receive = if direction.rights { passed_rights::receive } else { socket::receive };
        let n = match receive(source, buffer) {
            Ok(n @ 1..) => n,
            Ok(_) if self.broken[from] == Broken::No => {
                direction.state = State::Over;
                // It may be gone already.
                let _ = socket::shutdown_write(target);
                return None;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                direction.readable = false;
                direction.push(target);
                return None;
            }
            Ok(_) | Err(_) => {
                direction.push(target);
                self.broken[from] = Broken::Reset;
                return None;
            }
        };
        let full = n == buffer.len();
        // Less than there was room for: it has no more now, but where that says nothing.
        direction.readable = full || direction.finished || direction.in_parts;
        if full && !direction.large {
            direction.large = !direction.rights && never_waits(source) && never_waits(target);
        }
        if direction.state == State::Discarding {
            return Some(n);
        }
        direction.writes(target);
        // Where its end has come and these are the last bytes before it, both go at once.
        direction.waits = direction.finished && !full;
        let sent = match direction.waits {
            true => socket::send_with_more(target, &buffer[..n]),
            false => socket::send(target, &buffer[..n]),
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => {
                direction.discard(&e, &mut self.broken[1 - from]);
                return Some(n);
            }
        };
        direction.move_on(sent);
        if sent < n {
            let rest = buffer[sent..n].to_vec();
            (direction.writable, direction.held) = (false, Held::Bytes(rest, 0));
        }
        Some(n)
    }
}

/// Does this error of filling a pipe say nothing of the socket but that it has nothing now, or that
/// it cannot be used so?
fn is_of_pipe(e: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, OutOfMemory, PermissionDenied, Unsupported, WouldBlock};
    matches!(e.kind(), WouldBlock | InvalidInput | OutOfMemory | PermissionDenied | Unsupported)
}
