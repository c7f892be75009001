//! The session's forwards, those of the configuration and those that -O has added: the holder
//! listens for them as long as its session takes calls, as the master of a shared ssh connection
//! does; those of -O then go to the next session's holder. Each application that connects is a call
//! without a caller: only the application itself sees what becomes of it.

use crate::client::forward::{Forward, Listener};
use crate::client::offer::Origin;
use crate::sys::poll::{self, Poll};
use crate::wire::word::word;
use std::os::fd::AsFd;
use std::time::Duration;

/// A forward that the holder has.
pub struct Held {
    /// With an absolute path.
    pub forward: Forward,
    /// The virtual host of its calls.
    pub host: String,
    pub origin: Origin,
    pub listeners: Vec<Listener>,
}

impl Held {
    /// One line for `-O list`.
    pub fn state(&self) -> String {
        let from = self.origin.as_str();
        let (at, service) = (word(&self.forward.name()), word(&self.forward.service));
        let host = word(&self.host);
        format!("forward={at} service={service} host={host} by={from}")
    }
}

pub struct Forwards {
    pub all: Vec<Held>,
    /// Until then no connection is accepted.
    pub paused: Duration,
}

impl Forwards {
    /// Those of the configuration; `host`: the virtual host of their calls.
    pub fn new(opened: Vec<(Forward, Vec<Listener>)>, host: &str) -> Forwards {
        let held = |(forward, listeners)| Held {
            forward,
            host: host.to_string(),
            origin: Origin::Configuration,
            listeners,
        };
        Forwards { all: opened.into_iter().map(held).collect(), paused: Duration::ZERO }
    }

    /// From now on the holder owns them, and removes their sockets in the file system when it ends.
    pub fn claim(&mut self) {
        self.all.iter_mut().flat_map(|held| &mut held.listeners).for_each(Listener::claim);
    }

    /// Stops listening.
    pub fn close(&mut self) {
        self.all.clear();
    }

    /// Stops listening for those of the configuration; the holder of the next session will.
    pub fn close_configured(&mut self) {
        self.all.retain(|held| held.origin == Origin::Order);
    }

    /// Another holder has this one now, and removes its socket in the file system.
    pub fn handed_on(&mut self, forward: &Forward) {
        let (its, rest) =
            std::mem::take(&mut self.all).into_iter().partition(|h| h.forward == *forward);
        self.all = rest;
        let its: Vec<Held> = its;
        its.into_iter().flat_map(|held| held.listeners).for_each(|mut l| l.disown());
    }

    /// Has an application connected that was not accepted yet?
    pub fn somebody_waits(&self) -> bool {
        let mut polls: Vec<Poll> = self.polls(true, Duration::MAX).collect();
        // If that cannot be told, nobody is waited for.
        poll::wait(&mut polls, Some(Duration::ZERO)).is_ok_and(|n| n > 0)
    }

    /// All listeners, each with the virtual host of its calls.
    pub fn listeners(&self) -> impl Iterator<Item = (&Listener, &str)> {
        self.all.iter().flat_map(|h| h.listeners.iter().map(|l| (l, h.host.as_str())))
    }

    /// Is there one that must be served until it is cancelled?
    pub fn keep_the_holder(&self) -> bool {
        self.all.iter().any(|held| held.origin == Origin::Order)
    }

    /// One for each listener, in order.
    pub fn polls(&self, room: bool, now: Duration) -> impl Iterator<Item = Poll<'_>> {
        let listen = room && now >= self.paused;
        self.listeners().map(move |(l, _)| {
            if listen { Poll::new(l.fd.as_fd(), true, false) } else { Poll::none() }
        })
    }

    /// When it accepts connections again, if it does not now.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        Some(self.paused).filter(|at| *at > now)
    }
}
