//! The signatures that were accepted, the last [`MOST`] of them: what was signed in one session
//! logs nobody in in another.
//!
//! What is remembered is the text that was signed, not the signature: of one ECDSA signature
//! anybody can make a second one. A text has a challenge in it, which no two honest sessions share;
//! only a net process that is no longer fived's own could show one twice.

use crate::wire::login::HASH;
use std::collections::{HashMap, VecDeque};

/// Texts remembered at most; about 6 MiB.
const MOST: usize = 65_536;

/// By SHA-256 of the text, the number of the session that it was accepted in.
#[derive(Debug, Default)]
pub struct Accepted {
    sessions: HashMap<[u8; HASH], u64>,
    oldest_first: VecDeque<[u8; HASH]>,
}

impl Accepted {
    /// Accepts a signature of this text in that session. False: it was accepted in another one. In
    /// the same session it may come again: all streams of a TLS connection have one challenge.
    pub fn accept(&mut self, text: [u8; HASH], session: u64) -> bool {
        if let Some(&before) = self.sessions.get(&text) {
            return before == session;
        }
        if self.oldest_first.len() >= MOST
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        self.sessions.insert(text, session);
        self.oldest_first.push_back(text);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: u32) -> [u8; HASH] {
        let mut text = [0; HASH];
        text[..4].copy_from_slice(&n.to_be_bytes());
        text
    }

    #[test]
    fn once_a_session() {
        let mut a = Accepted::default();
        assert!(
            a.accept(text(1), 7)
                && a.accept(text(1), 7)
                && !a.accept(text(1), 8)
                && a.accept(text(2), 8)
        );
        assert!(a.accept(text(1), 7));
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut a = Accepted::default();
        (0..=MOST as u32).for_each(|n| assert!(a.accept(text(n), 1)));
        assert_eq!((a.sessions.len(), a.oldest_first.len()), (MOST, MOST));
        assert!(!a.accept(text(MOST as u32), 2) && !a.accept(text(1), 2) && a.accept(text(0), 2));
    }
}
