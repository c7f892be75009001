//! Answers that clients are slow to read. Together they have a bound; where it is reached, the
//! source that has most of them loses its oldest.

use super::sources::{Serial, Slot};
use crate::policy::{Source, SourceCounts};
use std::collections::{BTreeSet, HashMap};

/// The most bytes of answers, of all clients together.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// An answer that its socket did not take at once.
pub struct PendingAnswer {
    bytes: Vec<u8>,
    done: usize,
    source: Source,
    serial: Serial,
}

impl PendingAnswer {
    /// What is still to be sent.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    /// This many more bytes were sent. True: that was all.
    pub fn sent(&mut self, n: usize) -> bool {
        self.done += n;
        self.done == self.bytes.len()
    }
}

#[derive(Default)]
pub struct Answers {
    held: HashMap<Slot, PendingAnswer>,
    total: usize,
    /// Bytes.
    counts: SourceCounts,
    by_age: BTreeSet<(Source, Serial, Slot)>,
    serial: Serial,
}

impl Answers {
    pub fn insert(&mut self, slot: Slot, source: Source, bytes: Vec<u8>, done: usize) {
        self.remove(slot);
        self.serial += 1;
        self.total += bytes.len();
        self.counts.add(source, bytes.len());
        self.by_age.insert((source, self.serial, slot));
        self.held.insert(slot, PendingAnswer { bytes, done, source, serial: self.serial });
    }

    pub fn get(&mut self, slot: Slot) -> Option<&mut PendingAnswer> {
        self.held.get_mut(&slot)
    }

    pub fn remove(&mut self, slot: Slot) {
        let Some(held) = self.held.remove(&slot) else { return };
        self.by_age.remove(&(held.source, held.serial, slot));
        self.total -= held.bytes.len();
        self.counts.take(held.source, held.bytes.len());
    }

    /// Whose answer has to go: the oldest of the source that has most bytes. None: all of them fit.
    pub fn to_evict(&self) -> Option<Slot> {
        let (source, _) = self.counts.most().filter(|_| self.total > BYTES_MAX)?;
        self.by_age.range((source, 0, 0)..).next().map(|(_, _, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_that_has_most_loses_its_oldest() {
        let (mut all, of) = (Answers::default(), |n: u8| Source::of([192, 0, 2, n].into()));
        all.insert(9, of(9), vec![0; BYTES_MAX / 4], 0);
        all.insert(5, of(1), vec![0; BYTES_MAX / 4], 7);
        all.insert(1, of(1), vec![0; BYTES_MAX / 2], 0);
        assert_eq!(all.to_evict(), None);
        all.insert(7, of(3), vec![0; 1], 0);
        assert_eq!(all.to_evict(), Some(5));
        assert!(
            all.get(5)
                .is_some_and(|h| h.rest().len() == BYTES_MAX / 4 - 7 && h.sent(BYTES_MAX / 4 - 7))
        );
        all.remove(5);
        assert_eq!(all.to_evict(), None);
        [9, 1, 7, 7].into_iter().for_each(|slot| all.remove(slot));
        assert!(all.total == 0 && all.counts.is_empty() && all.by_age.is_empty());
    }
}
