//! The replay cache: the last [`TEXTS_MAX`] texts whose signatures logged somebody in, so that a
//! signature made in one session logs nobody in to another.
//!
//! The cache has the texts that were signed, not the signatures, because anybody can turn one valid
//! ECDSA signature into another. Each text contains a challenge, which no two honest sessions
//! share. Only a net process that an attacker controls could send one twice.

use crate::wire::login::HASH;
use std::collections::{HashMap, VecDeque};

/// Texts kept at most; about 6 MiB.
const TEXTS_MAX: usize = 65_536;

/// By SHA-256 of the text, the number of the session in which its signature was accepted.
#[derive(Debug, Default)]
pub struct ReplayCache {
    sessions: HashMap<[u8; HASH], u64>,
    oldest_first: VecDeque<[u8; HASH]>,
}

impl ReplayCache {
    /// Accepts a signature of this text in that session. False: one was accepted in another session
    /// before. In the same session the text may come again: all streams of a TLS connection have
    /// one challenge.
    pub fn accept(&mut self, text: [u8; HASH], session: u64) -> bool {
        if let Some(&before) = self.sessions.get(&text) {
            return before == session;
        }
        if self.oldest_first.len() >= TEXTS_MAX
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
        let mut a = ReplayCache::default();
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
        let mut a = ReplayCache::default();
        (0..=TEXTS_MAX as u32).for_each(|n| assert!(a.accept(text(n), 1)));
        assert_eq!((a.sessions.len(), a.oldest_first.len()), (TEXTS_MAX, TEXTS_MAX));
        assert!(
            !a.accept(text(TEXTS_MAX as u32), 2) && !a.accept(text(1), 2) && a.accept(text(0), 2)
        );
    }
}
