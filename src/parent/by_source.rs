//! What waits to be served, and was asked for by clients: their sources take turns. So whoever asks
//! for a thousand things waits for them alone, and others wait for one of them each time.

use crate::policy::Source;
use std::collections::{HashMap, VecDeque};

/// See the module.
pub struct BySource<T> {
    /// Of each source at least one; the first is the next.
    all: HashMap<Source, VecDeque<T>>,
    /// The sources, the next one first.
    turns: VecDeque<Source>,
}

impl<T> Default for BySource<T> {
    fn default() -> Self {
        BySource { all: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> BySource<T> {
    /// Waits after all others of its source.
    pub fn add(&mut self, source: Source, what: T) {
        self.of(source).push_back(what);
    }

    /// Waits before all others of its source.
    pub fn add_first(&mut self, source: Source, what: T) {
        self.of(source).push_front(what);
    }

    fn of(&mut self, source: Source) -> &mut VecDeque<T> {
        let of = self.all.entry(source).or_default();
        if of.is_empty() {
            self.turns.push_back(source);
        }
        of
    }

    /// Takes the first of the source whose turn it is.
    pub fn next(&mut self) -> Option<T> {
        let source = self.turns.pop_front()?;
        let of = self.all.get_mut(&source)?;
        let what = of.pop_front();
        match of.is_empty() {
            true => drop(self.all.remove(&source)),
            false => self.turns.push_back(source),
        }
        what
    }

    /// Takes those that do not wait any more.
    pub fn take_if(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        self.all.retain(|_, of| {
            let (over, left) = std::mem::take(of).into_iter().partition(&is_over);
            *of = left;
            taken.extend::<VecDeque<T>>(over);
            !of.is_empty()
        });
        self.turns.retain(|source| self.all.contains_key(source));
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    #[test]
    fn whoever_asks_for_much_keeps_nobody_waiting() {
        let mut all = BySource::default();
        (0..100).for_each(|n| all.add(source(1), (1, n)));
        (0..2).for_each(|n| all.add(source(2), (2, n)));
        all.add_first(source(2), (2, 9));
        all.add(source(3), (3, 0));
        let first: Vec<(u8, i32)> = (0..8).filter_map(|_| all.next()).collect();
        let wanted = [(1, 0), (2, 9), (3, 0), (1, 1), (2, 0), (1, 2), (2, 1), (1, 3)];
        assert_eq!(first, wanted);
        // It has had its turns: it comes after those who wait.
        all.add(source(2), (2, 2));
        assert_eq!(
            [all.next(), all.next(), all.next()],
            [Some((1, 4)), Some((2, 2)), Some((1, 5))]
        );
        let over = all.take_if(|(_, n)| *n < 98);
        assert_eq!((over.len(), all.is_empty()), (92, false));
        all.add(source(4), (4, 0));
        let rest: Vec<_> = std::iter::from_fn(|| all.next()).collect();
        assert_eq!(rest, [(1, 98), (4, 0), (1, 99)]);
        assert!(all.is_empty() && all.all.is_empty() && all.take_if(|_| true).is_empty());
    }
}
