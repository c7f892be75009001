//! An attempt to resume the session, in a thread of its own: the holder goes on meanwhile.

use crate::client::resume::{AttemptState, Outcome, Resumable};
use crate::sys::poll::Poll;
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A running attempt.
pub struct Attempt {
    /// Its other end is closed when the attempt is over.
    over: OwnedFd,
    outcome: Receiver<Outcome>,
    state: Arc<AttemptState>,
}

impl Attempt {
    /// See [`Resumable::attempt`].
    pub fn start(with: &Arc<Resumable>, received: u64, resolve: bool) -> io::Result<Attempt> {
        let (over, end) = socket::pair()?;
        let (to, outcome) = channel();
        let (with, state) = (with.clone(), Arc::new(AttemptState::default()));
        let its = state.clone();
        thread::Builder::new().name("resume".into()).spawn(move || {
            // Nobody waits for an attempt that was given up.
            let _ = to.send(with.attempt(received, resolve, &its));
            drop(end);
        })?;
        Ok(Attempt { over, outcome, state })
    }

    /// Readable when it is over.
    pub fn poll(&self) -> Poll<'_> {
        Poll::new(self.over.as_fd(), true, false)
    }

    /// What came of it, once it is over.
    pub fn outcome(&self) -> Outcome {
        self.outcome.try_recv().unwrap_or_else(|_| Outcome::failed("it was broken off"))
    }

    /// Gives it up. False: it goes on, because it claims the session already.
    pub fn give_up(&self) -> bool {
        self.state.give_up()
    }
}
