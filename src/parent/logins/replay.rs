//! The replay cache: the last [`TEXTS_MAX`] texts whose signatures logged somebody in, so that a
//! signature made in one session logs nobody in to another.
//!
//! The cache has the texts that were signed, not the signatures, because anybody can turn one valid
//! ECDSA signature into another. Each text contains a challenge, which no two honest sessions
//! share. Only a net process that an attacker controls could send one twice. So that the attacker
//! cannot have it forgotten by logging in again and again, the user who has most texts loses one.

use crate::wire::login::HASH;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// Texts kept at most; about 6 MiB.
const TEXTS_MAX: usize = 65_536;

type Text = [u8; HASH];

/// By SHA-256 of the text, the number of the session in which its signature was accepted.
#[derive(Debug, Default)]
pub struct ReplayCache {
    sessions: HashMap<Text, u64>,
    /// The texts of each user, the oldest first.
    users: HashMap<Rc<str>, VecDeque<Text>>,
    /// The users, by how many texts they have.
    by_count: BTreeSet<(usize, Rc<str>)>,
}

impl ReplayCache {
    /// Accepts this user's signature of this text in that session. False: one was accepted in
    /// another session before. In the same session the text may come again: all streams of a TLS
    /// connection have one challenge.
    pub fn accept(&mut self, text: Text, user: &str, session: u64) -> bool {
        if let Some(&before) = self.sessions.get(&text) {
            return before == session;
        }
        if self.sessions.len() >= TEXTS_MAX {
            self.forget_one();
        }
        self.sessions.insert(text, session);
        self.change(user, |texts| texts.push_back(text));
        true
    }

    fn forget_one(&mut self) {
        let Some((_, user)) = self.by_count.last().cloned() else { return };
        let mut oldest = None;
        self.change(&user, |texts| oldest = texts.pop_front());
        if let Some(oldest) = oldest {
            self.sessions.remove(&oldest);
        }
    }

    /// Changes a user's texts.
    fn change(&mut self, user: &str, how: impl FnOnce(&mut VecDeque<Text>)) {
        let (name, mut texts) =
            self.users.remove_entry(user).unwrap_or_else(|| (user.into(), VecDeque::new()));
        self.by_count.remove(&(texts.len(), name.clone()));
        how(&mut texts);
        if !texts.is_empty() {
            self.by_count.insert((texts.len(), name.clone()));
            self.users.insert(name, texts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: u32) -> Text {
        let mut text = [0; HASH];
        text[..4].copy_from_slice(&n.to_be_bytes());
        text
    }

    #[test]
    fn once_a_session() {
        let mut all = ReplayCache::default();
        let mut a = |n, session| all.accept(text(n), "a", session);
        assert!(a(1, 7) && a(1, 7) && !a(1, 8) && a(2, 8) && a(1, 7));
        assert!(!all.accept(text(1), "b", 8));
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut all = ReplayCache::default();
        let mut a = |n, session| all.accept(text(n), "a", session);
        assert!((0..=TEXTS_MAX as u32).all(|n| a(n, 1)));
        assert!(!a(TEXTS_MAX as u32, 2) && !a(1, 2) && a(0, 2));
        assert_eq!((all.sessions.len(), all.by_count.len()), (TEXTS_MAX, 1));
        assert_eq!(all.users.values().map(VecDeque::len).sum::<usize>(), TEXTS_MAX);
    }

    #[test]
    fn one_user_s_logins_make_no_other_s_forgotten() {
        let mut all = ReplayCache::default();
        assert!(all.accept(text(u32::MAX), "other", 1));
        assert!((0..3 * TEXTS_MAX as u32).all(|n| all.accept(text(n), "a", 1)));
        assert!(!all.accept(text(u32::MAX), "other", 2));
        assert_eq!(all.sessions.len(), TEXTS_MAX);
    }
}
