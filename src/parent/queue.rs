//! A queue in which each thing stands once, however often it is added: what there is to be done for
//! it is done when its turn comes, after what was queued before it.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// See the module.
pub struct Queue<T> {
    line: VecDeque<T>,
    queued: HashSet<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { line: VecDeque::new(), queued: HashSet::new() }
    }
}

impl<T: Copy + Eq + Hash> Queue<T> {
    /// Puts it at the end; what is queued keeps its place.
    pub fn add(&mut self, what: T) {
        if self.queued.insert(what) {
            self.line.push_back(what);
        }
    }

    /// Takes the one that has waited longest.
    pub fn next(&mut self) -> Option<T> {
        let what = self.line.pop_front()?;
        self.queued.remove(&what);
        Some(what)
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
