//! The session that `five -N` keeps: when it has ended, or takes no more calls, another one is made
//! for the configuration's forwards and offers, and for others' calls.

use super::caller::Caller;
use super::messages;
use crate::sys::clock;
use std::time::Duration;

/// The pause before another session is made again; it doubles each time, up to the second.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub struct Kept {
    /// When one was made last, or could not be made.
    last: Duration,
    /// The next one is not made before this much more time.
    pause: Duration,
    /// It was printed why there is none now.
    told: bool,
}

impl Kept {
    /// Of a session that was made just now.
    pub fn new() -> Kept {
        Kept { last: clock::monotonic(), pause: PAUSE, told: false }
    }

    /// How long to wait at most until another session is made.
    pub fn timeout(&self, caller: &Caller) -> Option<Duration> {
        let due = self.last + self.pause;
        (!caller.has_session()).then(|| due.saturating_sub(clock::monotonic()))
    }

    /// Makes another session, if there is none and its time has come. Whatever is wrong then may be
    /// right later: a server that starts again may say anything.
    pub fn keep(&mut self, caller: &mut Caller) {
        if self.timeout(caller).is_none_or(|left| !left.is_zero()) {
            return;
        }
        // The last one has stood for long.
        if clock::monotonic() > self.last + 2 * PAUSE_MAX {
            self.pause = PAUSE;
        }
        let made = caller.connect();
        let told = std::mem::replace(&mut self.told, made.is_err());
        match made {
            Ok(()) => messages::step("there is another session now"),
            Err(error) if told => messages::step(&error.to_string()),
            Err(error) => {
                messages::error("there is no session now, and it is tried again: ", &error);
            }
        }
        self.last = clock::monotonic();
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
