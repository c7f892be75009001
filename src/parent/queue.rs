//! The channels that may have orders. Each is queued once, however many events it has, and is
//! served after those that were queued before it. So a turn of the loop serves as many orders as
//! its constants say, however many channels have some.

use std::collections::{HashSet, VecDeque};

#[derive(Default)]
pub struct Queue {
    line: VecDeque<usize>,
    queued: HashSet<usize>,
}

impl Queue {
    /// Puts a channel at the end; one that is queued keeps its place.
    pub fn add(&mut self, token: usize) {
        if self.queued.insert(token) {
            self.line.push_back(token);
        }
    }

    /// Takes the one that has waited longest.
    pub fn next(&mut self) -> Option<usize> {
        let token = self.line.pop_front()?;
        self.queued.remove(&token);
        Some(token)
    }

    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_nobody_is_overtaken() {
        let mut queue = Queue::default();
        for token in [1, 2, 1, 1, 3] {
            queue.add(token);
        }
        assert_eq!(queue.next(), Some(1));
        // It has more to say: after those who have waited.
        queue.add(1);
        queue.add(2);
        let rest: Vec<usize> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(rest, [2, 3, 1]);
        assert!(queue.is_empty());
    }
}
