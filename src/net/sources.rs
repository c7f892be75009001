//! Clients that wait, or idle sessions, by source: which source has most of them, and which of
//! those came first. Every operation is O(log n).

use crate::policy::{Source, SourceCounts};
use std::collections::BTreeSet;

/// The number of a client in [`Clients`](super::clients::Clients), where it is used again only
/// after all events of the current turn have been handled.
pub type Slot = usize;

/// The sequence number of a client or a session, over the life of the process.
pub type Serial = u64;

/// See the module. `T`: by what each is known.
#[derive(Debug, Default)]
pub struct Sources<T> {
    counts: SourceCounts,
    by_age: BTreeSet<(Source, Serial, T)>,
}

impl<T: Copy + Ord + Default> Sources<T> {
    pub fn insert(&mut self, source: Source, serial: Serial, of: T) {
        self.counts.add(source, 1);
        self.by_age.insert((source, serial, of));
    }

    pub fn remove(&mut self, source: Source, serial: Serial, of: T) {
        if self.by_age.remove(&(source, serial, of)) {
            self.counts.take(source, 1);
        }
    }

    /// The oldest one of the source that has most.
    pub fn oldest_of_most(&self) -> Option<T> {
        let (source, _) = self.counts.most()?;
        self.by_age.range((source, 0, T::default())..).next().map(|(_, _, of)| *of)
    }

    /// The oldest one of the source that has most. None also if this source has as many.
    pub fn oldest_of_more_than(&self, source: Source) -> Option<T> {
        let (_, most) = self.counts.most()?;
        self.oldest_of_most().filter(|_| self.counts.of(source) < most)
    }

    /// After a crowd has gone, its memory is freed too.
    pub fn shrink(&mut self) {
        self.counts.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_source_that_has_most_loses_its_oldest() {
        let (mut all, of) = (Sources::default(), |n: u8| Source::of([192, 0, 2, n].into()));
        assert_eq!(all.oldest_of_most(), None);
        // The honest client came first, and has the highest address.
        all.insert(of(9), 1, 70);
        for (serial, slot) in [(2, 5), (3, 1), (4, 3)] {
            all.insert(of(1), serial, slot);
        }
        all.remove(of(1), 9, 9);
        assert_eq!(all.oldest_of_more_than(of(1)), None);
        assert_eq!(all.oldest_of_more_than(of(9)), Some(5));
        assert_eq!(all.oldest_of_more_than(of(2)), Some(5));
        for (serial, slot) in [(2, 5), (3, 1)] {
            assert_eq!(all.oldest_of_most(), Some(slot));
            all.remove(of(1), serial, slot);
        }
        all.remove(of(9), 1, 70);
        assert_eq!(all.oldest_of_most(), Some(3));
        all.remove(of(1), 4, 3);
        assert!(all.counts.is_empty() && all.by_age.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_oldest_of_most_is_known(
            steps in proptest::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..60),
        ) {
            let (mut all, mut wanted) = (Sources::default(), Vec::<(u8, Serial)>::new());
            let of = |n: u8| Source::of([192, 0, 2, n].into());
            for (serial, (n, which)) in (1..).zip(steps) {
                if n == 0 && !wanted.is_empty() {
                    let (n, serial) = wanted.remove(which.index(wanted.len()));
                    all.remove(of(n), serial, serial as Slot);
                } else {
                    all.insert(of(n), serial, serial as Slot);
                    wanted.push((n, serial));
                }
                let count = |n: u8| wanted.iter().filter(|(m, _)| *m == n).count();
                let most = (0..5).map(count).max().unwrap_or(0);
                let oldest = |n: u8| wanted.iter().find(|(m, _)| *m == n).map(|(_, s)| *s as Slot);
                let mut of_most = (0..5).filter(|n| count(*n) == most).map(oldest);
                let found = all.oldest_of_most();
                prop_assert!(of_most.any(|slot| slot == found));
                for n in 0..5 {
                    let more = found.filter(|_| count(n) < most);
                    prop_assert_eq!(all.oldest_of_more_than(of(n)), more);
                }
            }
        }
    }
}
