//! The forwards of the configuration: the holder listens for them as long as its session takes
//! calls, as the master of a shared ssh connection does. Each application that connects is a call
//! that has no caller: nobody is told what becomes of it but the application itself.

use super::Holder;
use super::calls::Call;
use crate::client::forward::{ACCEPT_PAUSE, Accepted, Listener};
use crate::client::open::Request;
use crate::link::pump::Near;
use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The number of a caller that there never is.
const NOBODY: u32 = u32::MAX;
/// Applications that one listener's turn takes at most.
const BATCH: usize = 16;

/// Listeners, and the virtual host of what is called for them.
pub struct Forwards {
    all: Vec<Listener>,
    host: String,
    /// Until then nobody is accepted.
    paused: Duration,
}

impl Forwards {
    pub fn new(all: Vec<Listener>, host: String) -> Forwards {
        Forwards { all, host, paused: Duration::ZERO }
    }

    /// The holder has them from now on: their sockets in the file system go with it.
    pub fn claim(&mut self) {
        self.all.iter_mut().for_each(Listener::claim);
    }

    /// Whoever makes the next session listens.
    pub fn close(&mut self) {
        self.all.clear();
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// One for each, in the order of [`Forwards::get`].
    pub fn polls(&self, room: bool, now: Duration) -> impl Iterator<Item = Poll<'_>> {
        let listen = room && now >= self.paused;
        self.all
            .iter()
            .map(move |l| if listen { Poll::new(l.fd.as_fd(), true, false) } else { Poll::none() })
    }

    /// When it accepts again, if it does not now.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        Some(self.paused).filter(|at| *at > now)
    }
}

impl Holder {
    /// Somebody is at these listeners, by their places.
    pub(super) fn take_applications(&mut self, ready: &[bool]) {
        for n in ready.iter().enumerate().filter(|(_, ready)| **ready).map(|(n, _)| n) {
            for _ in 0..BATCH {
                if !self.has_room_for_applications() {
                    return;
                }
                let Some(listener) = self.forwards.all.get(n) else { break };
                let service = listener.service.clone();
                match listener.accept() {
                    Accepted::Application(fd) => self.application(service, fd),
                    Accepted::Nobody => break,
                    Accepted::NoRoom => {
                        self.forwards.paused = self.now + ACCEPT_PAUSE;
                        return;
                    }
                }
            }
        }
    }

    fn application(&mut self, service: String, fd: OwnedFd) {
        let Ok(copy) = fd.try_clone() else { return };
        // Where its flags cannot be set it is closed, and sees that.
        let (Ok(input), Ok(output)) = (Flow::new(fd), Flow::new(copy)) else { return };
        let request = Request { host: self.forwards.host.clone(), service: Some(service) };
        let near = Near::Flows { input: Some(input), output: Some(output) };
        self.called(Call::new(NOBODY, 0, true, request, near, Vec::new(), self.now));
    }
}
