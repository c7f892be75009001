//! The session that `five -N` keeps: when it has ended, or takes no more calls, another one is made
//! for the configuration's forwards and offers, for others' calls, and for the applications that
//! wait for it at the forwards of the command line.

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
    /// An application waits for one since the last attempt, which is made after so much more time.
    wanted: Option<Duration>,
}

impl Kept {
    /// Of a session that was made just now. From now on applications wait for the next one.
    pub fn of(caller: &mut Caller) -> Kept {
        caller.let_applications_wait();
        Kept { last: clock::monotonic(), pause: PAUSE, told: false, wanted: None }
    }

    /// How long to wait at most until another session is made.
    pub fn timeout(&self, caller: &Caller) -> Option<Duration> {
        let pause = match (self.wanted, self.told) {
            (None, _) => self.pause,
            // Of many that come, each would make an attempt that fails.
            (Some(_), true) => PAUSE,
            (Some(pause), false) => pause,
        };
        let due = self.last + pause;
        (!caller.has_session()).then(|| due.saturating_sub(clock::monotonic()))
    }

    /// Makes another session, if there is none and its time has come. Whatever is wrong then may be
    /// right later: a server that starts again may say anything.
    pub fn keep(&mut self, caller: &mut Caller) {
        self.wanted = caller.is_session_wanted().or(self.wanted);
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
        if self.wanted.take().is_none() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }
}
