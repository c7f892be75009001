//! The forwards of the configuration: the holder listens for them as long as its session takes
//! calls, as the master of a shared ssh connection does. Each application that connects is a call
//! that has no caller: nobody is told what becomes of it but the application itself.

use crate::client::forward::Listener;
use crate::sys::poll::Poll;
use std::os::fd::AsFd;
use std::time::Duration;

/// Listeners, and the virtual host of what is called for them.
pub struct Forwards {
    pub all: Vec<Listener>,
    pub host: String,
    /// Until then nobody is accepted.
    pub paused: Duration,
}

impl Forwards {
    pub fn new(all: Vec<Listener>, host: String) -> Forwards {
        Forwards { all, host, paused: Duration::ZERO }
    }

    /// The holder has them from now on: their sockets in the file system go with it.
    pub fn claim(&mut self) {
        self.all.iter_mut().for_each(Listener::claim);
    }

    /// Stops listening: the holder of the next session does.
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
