//! How a stream that changed its own facts gets its service. Its thread talks to the client through
//! a socket pair, whose other end the session's multiplexer copies. The parent makes a connection
//! to the service, and the multiplexer is to copy that one instead.
//!
//! The thread puts net's end of the connection here, with its own end of the pair, and then closes
//! its sending direction of the pair ([`Handover::give`]). By the time the multiplexer sees that
//! end, it has sent on all that the thread has written. Only the multiplexer writes to the pair:
//! whatever is unread in the thread's end is what the client has sent after its request, and the
//! service must get it first ([`Given::unread`]).

use super::channel::Received;
use super::counted::Counted;
use crate::link::pump::{Run, Terminal};
use crate::link::{Breaks, Tally};
use crate::sys::flow::Flow;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::Answer;
use crate::wire::run::Status;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Default)]
pub struct Handover(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    state: State,
    /// The thread has asked for a service.
    asked: bool,
    /// How the service ended, if that was told before the stream had it.
    ended: Option<Told>,
}

/// How a service ended; None: nobody will know it.
type Told = Option<Status>;

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    Given(Given),
    /// The stream has gone: nobody will take anything.
    Closed,
}

/// What a stream has got.
pub enum Got {
    Service(Service),
    /// It offers a service, under this number: it stays open without one.
    Offer(u32),
}

/// A service that a stream has got.
pub struct Service {
    /// Net's end of its connection.
    pub connection: Flow,
    pub counted: Counted,
    pub tally: Tally,
    /// Bytes that the client gets first.
    pub greeting: Vec<u8>,
    /// The client gets records.
    pub run: Option<Box<Run>>,
    /// What the client sees where the service's end breaks.
    pub breaks: Breaks,
}

impl Service {
    /// What the parent has started. `run`: it was asked for by RUN; does it write its own reply
    /// line? None: there was no descriptor for its connection.
    pub fn of(received: Received, counted: Counted, run: Option<bool>) -> Option<Service> {
        let Answer::Started { extras, .. } = received.answer else { return None };
        let connection = Flow::of_socket(received.connection?);
        let run = run.map(|replies| {
            let (terminal, errors) = match (extras.terminal, received.second.map(Flow::of_socket)) {
                (true, Some(sizes)) => (Terminal::OfService(sizes), None),
                (_, errors) => (Terminal::None, errors),
            };
            let mut run = Run::of_service(errors, terminal, replies);
            if !extras.tells_end {
                run.ends_with_connection(extras.ends_at);
            }
            run
        });
        let tally = Tally::of_service(extras.greeting);
        let breaks = match counted.is_relay() || extras.server {
            true => Breaks::Reset,
            false => Breaks::End,
        };
        Some(Service { connection, counted, tally, greeting: received.greeting, run, breaks })
    }

    /// Nobody will use the service: its connection breaks, so that it ends.
    pub fn discard(self) -> Counted {
        socket::abort(self.connection.as_fd());
        self.counted
    }
}

/// What a stream has got; a service that nobody takes sees its connection break.
pub struct Given {
    got: Option<Got>,
    pair: Shared,
}

impl Handover {
    fn state(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread asks for a service now; if it gets none, it ends.
    pub fn ask(&self) {
        self.state().asked = true;
    }

    /// Has the thread a service, or will it have one?
    pub fn serves(&self) -> bool {
        self.state().asked
    }

    /// Gives what the stream has got, and a copy of the thread's end of the pair, on which nothing
    /// more is sent. Err: the stream is gone.
    pub fn give(&self, got: Got, pair: Shared) -> Result<(), Got> {
        // The multiplexer sees the end at once, and then waits for this lock.
        let mut inside = self.state();
        if let State::Closed = inside.state {
            return Err(got);
        }
        // An error means that the multiplexer is ending.
        let _ = socket::shutdown_write(pair.as_fd());
        inside.state = State::Given(Given { got: Some(got), pair });
        Ok(())
    }

    /// The service has ended, which the parent tells the session and not the stream's thread.
    pub fn ended(&self, status: Told) {
        self.state().ended = Some(status);
    }

    /// What was given, if the thread has got something.
    pub fn take(&self) -> Option<Given> {
        let mut inside = self.state();
        match std::mem::take(&mut inside.state) {
            State::Given(given) => Some(given.with(inside.ended)),
            State::Nothing | State::Closed => None,
        }
    }

    /// As [`Handover::take`]; nobody will take anything after this.
    pub fn close(&self) -> Option<Given> {
        match std::mem::replace(&mut self.state().state, State::Closed) {
            State::Given(given) => Some(given),
            State::Nothing | State::Closed => None,
        }
    }
}

impl Given {
    /// What is known of a service's end goes with it.
    fn with(mut self, ended: Option<Told>) -> Given {
        if let Some(Got::Service(Service { run: Some(run), .. })) = &mut self.got
            && let Some(status) = ended
        {
            run.ended(status);
        }
        self
    }

    /// What the client has sent and the thread has not read: at most what the pair holds.
    pub fn unread(&self) -> Vec<u8> {
        rest(self.pair.as_fd())
    }

    /// What it has got.
    pub fn got(mut self) -> Option<Got> {
        self.got.take()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(Got::Service(service)) = &self.got {
            socket::abort(service.connection.as_fd());
        }
    }
}

/// Reads all that is there.
fn rest(pair: BorrowedFd) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match socket::receive(pair, &mut bytes) {
            Ok(n @ 1..) => all.extend_from_slice(&bytes[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use std::os::fd::OwnedFd;

    fn service(connection: OwnedFd) -> Got {
        let connection = Flow::of_socket(connection);
        let (counted, tally, greeting) = (Counted::Tag(1), Tally::default(), Vec::new());
        let breaks = Breaks::End;
        Got::Service(Service { connection, counted, tally, greeting, run: None, breaks })
    }

    #[test]
    fn what_was_left_in_the_pair_goes_with_it() {
        let (ours, theirs) = socket::pair().expect("a pair");
        let (connection, server) = socket::pair().expect("a pair");
        let handover = Handover::default();
        assert!(handover.take().is_none());
        let long = vec![7; 40_000];
        socket::send(ours.as_fd(), &long).expect("room");
        assert!(handover.give(service(connection), theirs.into()).is_ok());
        // Its end is seen, and the other direction is as it was.
        assert_eq!(socket::receive(ours.as_fd(), &mut [0; 1]).expect("an end"), 0);
        socket::send(ours.as_fd(), b"more").expect("room");
        let given = handover.take().expect("a service");
        assert_eq!(given.unread(), [&long[..], b"more"].concat());
        let Some(Got::Service(Service { connection, .. })) = given.got() else { panic!() };
        assert!(!poll::is_readable(server.as_fd()));
        socket::send(connection.as_fd(), b"x").expect("room");
        assert_eq!(socket::receive(server.as_fd(), &mut [0; 9]).expect("a byte"), 1);
    }

    #[test]
    fn what_nobody_takes_breaks() {
        let (_ours, theirs) = socket::pair().expect("a pair");
        let (connection, server) = socket::pair().expect("a pair");
        let handover = Handover::default();
        assert!(handover.give(service(connection), theirs.into()).is_ok());
        drop(handover);
        assert_eq!(socket::receive(server.as_fd(), &mut [0; 1]).expect("an end"), 0);
    }

    #[test]
    fn what_comes_too_late_is_given_back() {
        let handover = Handover::default();
        assert!(handover.close().is_none());
        let [(_ours, theirs), (connection, _)] = [(); 2].map(|()| socket::pair().expect("a pair"));
        assert!(handover.give(service(connection), theirs.into()).is_err());
        assert!(handover.take().is_none());
    }
}
