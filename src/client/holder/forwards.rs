//! The forwards of the configuration: the holder listens for them as long as its session takes
//! calls, as the master of a shared ssh connection does. Each application that connects is a call
//! without a caller: only the application itself sees what becomes of it.

use crate::client::forward::Listener;
use crate::sys::poll::Poll;
use std::os::fd::AsFd;
use std::time::Duration;

/// Listeners, and the virtual host of their calls.
pub struct Forwards {
    pub all: Vec<Listener>,
    pub host: String,
    /// Until then no connection is accepted.
    pub paused: Duration,
}

impl Forwards {
    pub fn new(all: Vec<Listener>, host: String) -> Forwards {
        Forwards { all, host, paused: Duration::ZERO }
    }

    /// From now on the holder owns them, and removes their sockets in the file system when it ends.
    pub fn claim(&mut self) {
        self.all.iter_mut().for_each(Listener::claim);
    }

    /// Stops listening; the holder of the next session will.
    pub fn close(&mut self) {
        self.all.clear();
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// One for each listener, in order.
    pub fn polls(&self, room: bool, now: Duration) -> impl Iterator<Item = Poll<'_>> {
        let listen = room && now >= self.paused;
        self.all
            .iter()
            .map(move |l| if listen { Poll::new(l.fd.as_fd(), true, false) } else { Poll::none() })
    }

    /// When it accepts connections again, if it does not now.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        Some(self.paused).filter(|at| *at > now)
    }
}
