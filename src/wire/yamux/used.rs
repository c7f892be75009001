//! Which stream numbers were used, in a fixed amount of memory.
//!
//! Clients do not open streams in the order of their numbers: Go's takes a number before it sends
//! the frame, the yamux crate sends SYN with the first byte that is written. So the most recent
//! numbers are remembered one by one, as IPsec does for packets (RFC 4303, 3.4.3), and all below
//! them count as used.

const WORDS: usize = 32;
/// How many of one side's stream numbers, up to the highest, are remembered.
pub(super) const REMEMBERED: u32 = WORDS as u32 * 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Number {
    New,
    Used,
    /// Too far below the highest to be remembered.
    Old,
}

/// The numbers of streams that were opened: odd ones by the client, even ones by the server.
#[derive(Debug, Default)]
pub(super) struct UsedNumbers {
    odd: Used,
    /// None: there was no stream with an even number, as in most sessions.
    even: Option<Box<Used>>,
}

impl UsedNumbers {
    /// What is known of a number, which is not 0.
    pub fn look(&self, stream: u32) -> Number {
        self.of(stream).map_or(Number::New, |used| used.look(stream))
    }

    /// Remembers a number that is not `Old`.
    pub fn mark(&mut self, stream: u32) {
        match stream.is_multiple_of(2) {
            false => self.odd.mark(stream),
            true => self.even.get_or_insert_default().mark(stream),
        }
    }

    /// FIN has come on a stream that was opened.
    pub fn finish(&mut self, stream: u32) {
        match (stream.is_multiple_of(2), &mut self.even) {
            (false, _) => self.odd.finish(stream),
            (true, Some(even)) => even.finish(stream),
            (true, None) => {}
        }
    }

    /// Has FIN come on it before? False if it is not `Used`.
    pub fn finished(&self, stream: u32) -> bool {
        self.of(stream).is_some_and(|used| used.finished(stream))
    }

    fn of(&self, stream: u32) -> Option<&Used> {
        if stream.is_multiple_of(2) { self.even.as_deref() } else { Some(&self.odd) }
    }
}

/// The numbers of one side's streams: all of them odd, or all of them even.
#[derive(Debug, Default)]
struct Used {
    /// One more than the highest index; an index is half of a number.
    end: u32,
    bits: [u64; WORDS],
    /// Those of them on which the client has sent FIN.
    ended: [u64; WORDS],
}

impl Used {
    /// What is known of a stream number.
    pub fn look(&self, stream: u32) -> Number {
        let index = stream / 2;
        if index >= self.end {
            Number::New
        } else if self.end - index > REMEMBERED {
            Number::Old
        } else if self.bits[word(index)] & bit(index) != 0 {
            Number::Used
        } else {
            Number::New
        }
    }

    /// Remembers a stream number that is not `Old`.
    pub fn mark(&mut self, stream: u32) {
        let index = stream / 2;
        if index >= self.end {
            // These bits belonged to numbers that are too old now.
            if index - self.end >= REMEMBERED {
                (self.bits, self.ended) = ([0; WORDS], [0; WORDS]);
            } else {
                for i in self.end..=index {
                    self.bits[word(i)] &= !bit(i);
                    self.ended[word(i)] &= !bit(i);
                }
            }
            self.end = index + 1;
        }
        self.bits[word(index)] |= bit(index);
    }

    /// FIN has come on a stream that was opened.
    pub fn finish(&mut self, stream: u32) {
        if self.look(stream) == Number::Used {
            self.ended[word(stream / 2)] |= bit(stream / 2);
        }
    }

    /// Has FIN come on it before? False if it is not `Used`.
    pub fn finished(&self, stream: u32) -> bool {
        self.look(stream) == Number::Used && self.ended[word(stream / 2)] & bit(stream / 2) != 0
    }
}

fn word(index: u32) -> usize {
    (index % REMEMBERED / 64) as usize
}

fn bit(index: u32) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_side_has_numbers_of_its_own() {
        let mut used = UsedNumbers::default();
        used.finish(2);
        assert!(used.look(2) == Number::New && !used.finished(2) && used.even.is_none());
        used.mark(3);
        assert!(used.look(3) == Number::Used && used.look(2) == Number::New);
        used.mark(2);
        used.finish(2);
        assert!(used.look(2) == Number::Used && used.finished(2) && !used.finished(3));
        assert_eq!(used.look(4), Number::New);
    }

    #[test]
    fn the_ends_of_the_range() {
        let mut used = Used::default();
        assert_eq!(used.look(1), Number::New);
        used.finish(u32::MAX);
        used.mark(u32::MAX);
        assert_eq!(used.look(u32::MAX), Number::Used);
        assert!(!used.finished(u32::MAX));
        used.finish(u32::MAX);
        assert!(used.finished(u32::MAX) && !used.finished(u32::MAX - 2));
        assert_eq!(used.look(1), Number::Old);
        assert_eq!(used.look(u32::MAX - 2 * REMEMBERED + 2), Number::New);
        assert_eq!(used.look(u32::MAX - 2 * REMEMBERED), Number::Old);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(
            steps in proptest::collection::vec((0u32..3 * REMEMBERED, 0u32..4), 1..60),
        ) {
            let (mut used, mut set) = (Used::default(), BTreeSet::new());
            for (number, jump) in steps {
                let stream = (number + jump * REMEMBERED) * 2 + 1;
                let highest = set.last().copied().unwrap_or(0);
                let known = if stream < highest && (highest - stream) / 2 >= REMEMBERED {
                    Number::Old
                } else if set.contains(&stream) {
                    Number::Used
                } else {
                    Number::New
                };
                prop_assert!(used.look(stream) == known, "{} is {:?}", stream, known);
                if known == Number::New {
                    used.mark(stream);
                    set.insert(stream);
                }
            }
        }
    }
}
