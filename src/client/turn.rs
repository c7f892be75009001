//! Calls that wait for their turn, because the server takes no more streams of the session.

use super::messages;
use crate::sys::clock;
use std::time::Duration;

/// How long a person waits without hearing why.
const SILENCE: Duration = Duration::from_secs(2);

/// Whether somebody has heard why calls wait: once for all that wait while none of them begins.
#[derive(Default)]
pub struct Turn {
    /// When to say it. None: no call waits, or it was said.
    due: Option<Duration>,
    said: bool,
}

impl Turn {
    /// A call waits.
    pub fn waits(&mut self) {
        if messages::steps() {
            messages::step("the server takes no more streams: waiting for one to end");
        } else if !self.said {
            self.due.get_or_insert(clock::monotonic() + SILENCE);
        }
    }

    /// A call has begun.
    pub fn comes(&mut self) {
        *self = Turn::default();
    }

    /// When [`Turn::tell`] has something to say.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Says why calls to this place wait, if it is time.
    pub fn tell(&mut self, place: &str) {
        if self.due.is_some_and(|due| due <= clock::monotonic()) {
            *self = Turn { due: None, said: true };
            messages::info(&format!(
                "{place}: the server takes no more streams: waiting for one to end (-O list shows them)"
            ));
        }
    }
}
