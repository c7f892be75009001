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

    /// The same. None also if this source has as many.
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
}
