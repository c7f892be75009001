//! How much each source has of something, and which source has most. Of sources with as much, which
//! one has most is a matter of chance: a stranger must not choose by the addresses that he uses.
//! Every operation is O(log n).

use super::source::Source;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

/// See the module.
#[derive(Debug, Default)]
pub struct SourceCounts {
    counts: HashMap<Source, usize>,
    by_count: BTreeSet<(usize, u64, Source)>,
    chance: RandomState,
}

impl SourceCounts {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How much this source has.
    pub fn of(&self, source: Source) -> usize {
        self.counts.get(&source).copied().unwrap_or(0)
    }

    /// The source that has most, and how much. None: no source has anything.
    pub fn most(&self) -> Option<(Source, usize)> {
        self.by_count.last().map(|(n, _, source)| (*source, *n))
    }

    /// A source has this much more.
    pub fn add(&mut self, source: Source, more: usize) {
        let before = self.of(source);
        self.set(source, before, before.saturating_add(more));
    }

    /// A source has this much less.
    pub fn take(&mut self, source: Source, less: usize) {
        let before = self.of(source);
        self.set(source, before, before.saturating_sub(less));
    }

    fn set(&mut self, source: Source, before: usize, now: usize) {
        let chance = self.chance.hash_one(source);
        self.by_count.remove(&(before, chance, source));
        if now == 0 {
            self.counts.remove(&source);
        } else {
            self.counts.insert(source, now);
            self.by_count.insert((now, chance, source));
        }
    }

    /// After a crowd has gone, its memory is freed too.
    pub fn shrink(&mut self) {
        self.counts.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    #[test]
    fn whoever_has_most_is_known() {
        let mut counts = SourceCounts::default();
        assert_eq!((counts.most(), counts.of(of(1))), (None, 0));
        counts.add(of(1), 3);
        counts.add(of(2), 1);
        counts.add(of(2), 4);
        assert_eq!((counts.most(), counts.of(of(1))), (Some((of(2), 5)), 3));
        counts.take(of(2), 3);
        assert_eq!(counts.most(), Some((of(1), 3)));
        counts.take(of(1), 3);
        counts.take(of(2), 9);
        assert!(counts.is_empty() && counts.by_count.is_empty());
    }

    #[test]
    fn the_highest_address_is_not_always_the_one() {
        let most = |_| {
            let mut counts = SourceCounts::default();
            (1..=9).for_each(|n| counts.add(of(n), 1));
            counts.most()
        };
        let most: BTreeSet<_> = (0..100).map(most).collect();
        assert!(most.len() > 1, "{most:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_each_count_is_right(
            steps in proptest::collection::vec((any::<bool>(), 0u8..6, 0usize..5), 0..60),
        ) {
            let (mut counts, mut wanted) = (SourceCounts::default(), HashMap::new());
            for (comes, n, how_much) in steps {
                let (source, of_it) = (of(n), wanted.entry(of(n)).or_insert(0usize));
                if comes {
                    counts.add(source, how_much);
                    *of_it += how_much;
                } else {
                    counts.take(source, how_much);
                    *of_it = of_it.saturating_sub(how_much);
                }
                wanted.retain(|_, n| *n > 0);
                prop_assert_eq!(&counts.counts, &wanted);
                prop_assert_eq!(counts.by_count.len(), wanted.len());
                let most = counts.most();
                prop_assert_eq!(most.map(|(_, n)| n), wanted.values().max().copied());
                prop_assert!(most.is_none_or(|(source, n)| counts.of(source) == n));
                prop_assert_eq!(counts.is_empty(), wanted.is_empty());
            }
        }
    }
}
