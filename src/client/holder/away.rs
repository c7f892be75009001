//! A session without a connection: since when, and when it is tried to resume it.

use super::attempt::Attempt;
use crate::client::resume::Resumable;
use crate::link::Records;
use crate::sys::poll::{self, Poll};
use crate::wire::yamux::StreamId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The pause before the first attempt, unless something calls for it earlier.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The pause before each attempt grows to this.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Callers that wait for an answer are told so after this time: usually it is resumed before.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// There are never more attempts than one in this time, whatever calls for them.
const BETWEEN: Duration = Duration::from_millis(50);
/// Attempts that were given up and may still wait for an answer, at most.
const GIVEN_UP_MAX: usize = 1;
/// In one of so many attempts the server's name is asked for other addresses.
const RESOLVE_EVERY: u32 = 3;

/// A session without a connection.
pub struct Away {
    pub resumable: Arc<Resumable>,
    /// What the next connection begins with.
    pub records: Box<Records>,
    pub since: Duration,
    /// Why the connection was lost, or the last attempt failed.
    pub why: String,
    /// That was because what answers there is not the server that was meant.
    pub distrust: bool,
    pub attempt: Option<Attempt>,
    given_up: Vec<Attempt>,
    tries: u32,
    /// When the next attempt is due, and the pause after it.
    pub next: Duration,
    pause: Duration,
    /// Applications whose writing was noticed already.
    noticed: BTreeSet<StreamId>,
    /// Callers that are told what comes of the next attempt (`-O resume`).
    pub asking: Vec<u32>,
}

impl Away {
    /// Of a connection that is lost now. `last`: when an attempt was made last.
    pub fn new(
        resumable: Arc<Resumable>,
        records: Box<Records>,
        why: String,
        last: Duration,
        now: Duration,
    ) -> Away {
        Away {
            resumable,
            records,
            since: now,
            why,
            distrust: false,
            attempt: None,
            given_up: Vec::new(),
            tries: 0,
            next: (now + PAUSE_MIN).max(last + BETWEEN),
            pause: PAUSE_MIN,
            noticed: BTreeSet::new(),
            asking: Vec::new(),
        }
    }

    /// When the server gives the session up.
    pub fn end(&self) -> Duration {
        self.since.saturating_add(self.resumable.kept)
    }

    /// Are callers to be told that they wait for the network?
    pub fn is_told(&self, now: Duration) -> bool {
        now >= self.since + TELL_AFTER
    }

    /// When something is due.
    pub fn deadline(&self, now: Duration) -> Duration {
        let next = if self.attempt.is_some() { self.end() } else { self.end().min(self.next) };
        if self.is_told(now) { next } else { next.min(self.since + TELL_AFTER) }
    }

    /// The next attempt is made at once.
    pub fn hurry(&mut self, now: Duration) {
        self.next = self.next.min(now);
    }

    /// The network has changed: an attempt that began before may wait in vain.
    pub fn network_changed(&mut self, now: Duration) {
        self.given_up.retain(|attempt| !is_over(attempt));
        if self.given_up.len() < GIVEN_UP_MAX {
            let given_up = self.attempt.take_if(|attempt| attempt.give_up());
            self.given_up.extend(given_up);
        }
        (self.pause, self.tries) = (PAUSE_MIN, 0);
        self.hurry(now);
    }

    /// These streams have input to be read.
    pub fn written(&mut self, streams: Vec<StreamId>, now: Duration) {
        let before = self.noticed.len();
        self.noticed.extend(streams);
        if self.noticed.len() > before {
            self.hurry(now);
        }
    }

    /// What is waited for: the end of the attempt.
    pub fn poll(&self) -> Poll<'_> {
        self.attempt.as_ref().map_or(Poll::none(), Attempt::poll)
    }

    /// Is this application's writing still to be noticed?
    pub fn watches(&self, id: StreamId) -> bool {
        self.attempt.is_none() && !self.noticed.contains(&id)
    }

    /// Makes an attempt.
    pub fn start(&mut self, now: Duration) {
        let resolve = self.tries % RESOLVE_EVERY == RESOLVE_EVERY - 1;
        self.tries += 1;
        match Attempt::start(&self.resumable, self.records.received(), resolve) {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(e) => self.failed(e.to_string(), false, now),
        }
    }

    /// It has failed; the next one is made after a pause.
    pub fn failed(&mut self, why: String, distrust: bool, now: Duration) {
        (self.why, self.distrust) = (why, distrust);
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

fn is_over(attempt: &Attempt) -> bool {
    let mut polls = [attempt.poll()];
    poll::wait(&mut polls, Some(Duration::ZERO)).is_ok_and(|n| n > 0)
}
