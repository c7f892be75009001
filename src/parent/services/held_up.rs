//! Users whose processes were held up on their way to exec or connect lately: they were stopped, or
//! a file system did not answer. fived's loop waits for a child as long as most take; for another
//! one of such a user it does not wait at all. So whoever holds up his own starts costs all others
//! one such wait in [`LASTS`].

use std::collections::HashMap;
use std::time::Duration;

/// How long it counts.
const LASTS: Duration = Duration::from_secs(10);

/// Until when, by user id.
#[derive(Debug, Default)]
pub struct HeldUp(HashMap<u32, Duration>);

impl HeldUp {
    /// A child of this user is held up.
    pub fn note(&mut self, uid: u32, now: Duration) {
        self.0.insert(uid, now + LASTS);
    }

    /// Was one held up lately?
    pub fn has(&self, uid: u32, now: Duration) -> bool {
        self.0.get(&uid).is_some_and(|until| *until > now)
    }

    /// Forgets those that no longer count.
    pub fn tidy(&mut self, now: Duration) {
        self.0.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_remembered_for_a_while() {
        let (mut held_up, s) = (HeldUp::default(), Duration::from_secs);
        held_up.note(1, s(100));
        assert!(held_up.has(1, s(109)) && !held_up.has(1, s(110)) && !held_up.has(2, s(100)));
        held_up.note(1, s(105));
        held_up.tidy(s(114));
        assert!(held_up.has(1, s(114)));
        held_up.tidy(s(115));
        assert!(held_up.0.is_empty());
    }
}
