//! What the rules of hosts_access(5) have said about senders of datagrams, for a while: the
//! datagram that they were asked for may be gone by then, and its sender sends another.

use crate::policy::Peer;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How long a decision holds.
pub const HOLDS: Duration = Duration::from_secs(60);
/// Decisions that are kept. One more takes the place of the oldest.
const DECISIONS_MAX: usize = 1024;

/// What a decision depends on: the daemon's name, and the addresses of client and server.
pub type Question = (String, Peer, Option<IpAddr>);

/// See the module.
#[derive(Default)]
pub struct Decisions {
    allowed: HashMap<Question, bool>,
    /// When each of them was made, the oldest first.
    made: VecDeque<(Duration, Question)>,
}

impl Decisions {
    /// May the client use the daemon? None: it must be asked.
    pub fn get(&mut self, question: &Question, now: Duration) -> Option<bool> {
        while self.made.front().is_some_and(|(at, _)| *at + HOLDS <= now) {
            self.forget_oldest();
        }
        self.allowed.get(question).copied()
    }

    pub fn add(&mut self, question: Question, allowed: bool, now: Duration) {
        if self.allowed.contains_key(&question) {
            return;
        }
        if self.made.len() >= DECISIONS_MAX {
            self.forget_oldest();
        }
        self.allowed.insert(question.clone(), allowed);
        self.made.push_back((now, question));
    }

    /// The rules have changed.
    pub fn clear(&mut self) {
        *self = Decisions::default();
    }

    fn forget_oldest(&mut self) {
        if let Some((_, question)) = self.made.pop_front() {
            self.allowed.remove(&question);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_holds_for_a_while_and_only_so_many_are_kept() {
        let (mut d, s) = (Decisions::default(), Duration::from_secs);
        let of = |n: u32| ("d".to_string(), Peer::from(n.to_be_bytes()), None);
        d.add(of(0), true, s(1));
        d.add(of(1), false, s(2));
        assert_eq!((d.get(&of(0), s(3)), d.get(&of(1), s(3))), (Some(true), Some(false)));
        assert_eq!((d.get(&of(0), s(61)), d.get(&of(1), s(61))), (None, Some(false)));
        for n in 2..2 + DECISIONS_MAX as u32 {
            d.add(of(n), true, s(5));
        }
        assert_eq!((d.get(&of(1), s(5)), d.made.len()), (None, DECISIONS_MAX));
        d.clear();
        assert_eq!(d.get(&of(2), s(5)), None);
    }
}
