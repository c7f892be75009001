//! What waits to be served, and was asked for by clients: their sources take turns. So whoever asks
//! for a thousand things waits for them alone. A source that has asked for little lately is served
//! before the turns: a login takes a few steps, and must not wait for a whole round at each. What
//! one of thousands of sources costs does not depend on how many there are (but for a logarithm).

use super::source::Source;
use super::source_counts::SourceCounts;
use std::collections::{HashMap, VecDeque};

/// So many are served of a source beyond its share, before it has to wait for its turn. With each
/// round of turns in which it asks for nothing it gets one back.
const AHEAD_MAX: u64 = 8;
/// So many are served before the turns; then it is somebody's turn.
const IN_A_ROW: usize = 4;
/// So many sources that wait for nothing are kept, at least.
const IDLE: usize = 64;

#[derive(Debug)]
struct Of<T> {
    /// The first is the next.
    waiting: VecDeque<T>,
    /// How many were served beyond its share.
    ahead: u64,
    /// How many of all sources had been served when it was last served.
    served: u64,
}

/// See the module.
#[derive(Debug)]
pub struct BySource<T> {
    all: HashMap<Source, Of<T>>,
    /// How many wait.
    counts: SourceCounts,
    /// When there are more sources than this, those are forgotten that need not be kept.
    forget_at: usize,
    /// Those that are served before the turns, the next one first. Whoever waits is either here or
    /// among `turns`.
    before: VecDeque<Source>,
    turns: VecDeque<Source>,
    /// How many were served before the turns since it was somebody's turn.
    in_a_row: usize,
    served: u64,
    waiting: usize,
}

impl<T> Default for BySource<T> {
    fn default() -> Self {
        BySource {
            all: HashMap::new(),
            counts: SourceCounts::default(),
            forget_at: IDLE,
            before: VecDeque::new(),
            turns: VecDeque::new(),
            in_a_row: 0,
            served: 0,
            waiting: 0,
        }
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

    /// Waits after all others of its source. If that makes more than `most`, the source with most
    /// loses its newest, which is returned: perhaps this one.
    pub fn add_within(&mut self, most: usize, source: Source, what: T) -> Option<T> {
        let mut lost = None;
        if self.waiting >= most {
            let more = |n: usize| n > self.counts.of(source) + 1;
            let Some((longest, _)) = self.counts.most().filter(|(_, n)| more(*n)) else {
                return Some(what);
            };
            lost = self.take_newest(longest);
        }
        self.add(source, what);
        lost
    }

    /// Of a source with several, so that it still waits.
    fn take_newest(&mut self, source: Source) -> Option<T> {
        let newest = self.all.get_mut(&source)?.waiting.pop_back()?;
        self.less(source, 1);
        Some(newest)
    }

    fn less(&mut self, source: Source, n: usize) {
        self.waiting -= n;
        self.counts.take(source, n);
    }

    fn of(&mut self, source: Source) -> &mut VecDeque<T> {
        self.forget();
        let (served, sources) = (self.served, self.sources().max(1) as u64);
        let new = || Of { waiting: VecDeque::new(), ahead: 0, served };
        let of = self.all.entry(source).or_insert_with(new);
        self.waiting += 1;
        self.counts.add(source, 1);
        if of.waiting.is_empty() {
            of.ahead = of.ahead.saturating_sub((served - of.served) / sources);
            of.served = served;
            let list = if of.ahead < AHEAD_MAX { &mut self.before } else { &mut self.turns };
            list.push_back(source);
        }
        &mut of.waiting
    }

    /// How many sources wait.
    fn sources(&self) -> usize {
        self.before.len() + self.turns.len()
    }

    /// Sources that wait for nothing are forgotten when they have had their share, and all of them
    /// when nobody waits. They are not looked at again before as many have come as are left now.
    fn forget(&mut self) {
        if self.all.len() > self.forget_at {
            let (served, each) = (self.served, self.sources().max(1) as u64);
            self.all
                .retain(|_, of| !of.waiting.is_empty() || of.ahead > (served - of.served) / each);
            self.forget_at = 2 * self.all.len() + IDLE;
        }
    }

    /// Takes the first of the source whose turn it is.
    pub fn take_next(&mut self) -> Option<T> {
        let before = self.turns.is_empty() || self.in_a_row < IN_A_ROW;
        let before = before.then(|| self.before.pop_front()).flatten();
        let is_ahead = before.is_some();
        self.in_a_row = if is_ahead { self.in_a_row + 1 } else { 0 };
        let source = before.or_else(|| self.turns.pop_front())?;
        let of = self.all.get_mut(&source)?;
        let what = of.waiting.pop_front()?;
        self.served += 1;
        of.served = self.served;
        of.ahead += u64::from(is_ahead);
        if !of.waiting.is_empty() {
            let list = if of.ahead < AHEAD_MAX { &mut self.before } else { &mut self.turns };
            list.push_back(source);
        }
        self.less(source, 1);
        if self.waiting == 0 {
            self.all.clear();
            self.forget_at = IDLE;
        }
        Some(what)
    }

    /// Takes those that do not wait any more.
    pub fn take_if(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (source, of) in &mut self.all {
            if of.waiting.iter().any(&is_over) {
                let all = std::mem::take(&mut of.waiting);
                let (over, left): (VecDeque<T>, _) = all.into_iter().partition(&is_over);
                of.waiting = left;
                self.counts.take(*source, over.len());
                taken.extend(over);
            }
        }
        if !taken.is_empty() {
            self.waiting -= taken.len();
            let waits = |s: &Source| self.all.get(s).is_some_and(|of| !of.waiting.is_empty());
            self.before.retain(waits);
            self.turns.retain(waits);
        }
        taken
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.values().flat_map(|of| &of.waiting)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    fn next(all: &mut BySource<(u8, i32)>, n: usize) -> Vec<(u8, i32)> {
        (0..n).filter_map(|_| all.take_next()).collect()
    }

    #[test]
    fn whoever_asks_for_much_keeps_nobody_waiting() {
        let mut all = BySource::default();
        (0..100).for_each(|n| all.add(source(1), (1, n)));
        (0..2).for_each(|n| all.add(source(2), (2, n)));
        all.add_first(source(2), (2, 9));
        all.add(source(3), (3, 0));
        let wanted = [(1, 0), (2, 9), (3, 0), (1, 1), (2, 0), (1, 2), (2, 1), (1, 3)];
        assert_eq!(next(&mut all, 8), wanted);
        assert_eq!(next(&mut all, 4), [(1, 4), (1, 5), (1, 6), (1, 7)]);
        // Both ask for much: they take turns.
        (10..30).for_each(|n| all.add(source(2), (2, n)));
        let twos = next(&mut all, 40).iter().filter(|(of, _)| *of == 2).count();
        assert_eq!(twos, 20);
        let over = all.take_if(|(_, n)| *n < 98);
        assert_eq!((over.len(), all.is_empty()), (70, false));
        all.add(source(4), (4, 0));
        assert_eq!(next(&mut all, 9), [(4, 0), (1, 98), (1, 99)]);
        assert!(all.is_empty() && all.all.is_empty() && all.take_if(|_| true).is_empty());
        assert!(all.counts.is_empty());
    }

    /// Each of a hundred sources has always something waiting.
    fn storm() -> BySource<(u8, i32)> {
        let mut all = BySource::default();
        (0..100).for_each(|s| (0..40).for_each(|n| all.add(source(s), (s, n))));
        (0..1600).for_each(|_| assert!(all.take_next().is_some()));
        all
    }

    #[test]
    fn whoever_asks_seldom_does_not_wait_for_a_round_at_each_step() {
        let mut all = storm();
        for step in 0..AHEAD_MAX as i32 {
            all.add(source(200), (200, step));
            assert!(next(&mut all, 2).contains(&(200, step)), "{step}");
        }
        // It has asked for much meanwhile.
        all.add(source(200), (200, 9));
        assert!(!next(&mut all, 90).contains(&(200, 9)));
        assert!(next(&mut all, 20).contains(&(200, 9)));
        // Some rounds later it has not.
        next(&mut all, 300);
        all.add(source(200), (200, 10));
        assert!(next(&mut all, 2).contains(&(200, 10)));
    }

    #[test]
    fn new_sources_without_end_leave_turns_to_the_others() {
        let mut all = BySource::default();
        (0..200).for_each(|n| all.add(source(1), (1, n)));
        next(&mut all, 8);
        let mut ones = 0;
        for n in 0..500u32 {
            let new = Source::of((0x0a00_0000 + n).to_be_bytes().into());
            all.add(new, (9, 0));
            all.add(new, (9, 1));
            ones += usize::from(all.take_next().is_some_and(|(of, _)| of == 1));
        }
        assert_eq!(ones, 500 / (IN_A_ROW + 1));
        assert!(all.all.len() <= 8 * all.sources() + IDLE);
    }

    /// As fived's own port has it beside a stranger with a network of addresses.
    #[test]
    fn thousands_of_sources_are_looked_at_a_few_times_and_not_for_each_that_comes() {
        let (mut all, mut looked_at, mut lost) = (BySource::default(), 0, 0);
        let source = |n: u32| Source::of((0x0a00_0000 + n).to_be_bytes().into());
        for n in 0..20_000u32 {
            let before = all.forget_at;
            lost += usize::from(all.add_within(2000, source(n % 7000), n).is_some());
            looked_at += if all.forget_at == before { 0 } else { all.forget_at };
            if n % 2 == 0 {
                assert!(all.take_next().is_some());
            }
        }
        assert!(looked_at < 100_000, "{looked_at}");
        assert_eq!((all.waiting, all.iter().count(), lost), (2000, 2000, 8000));
        assert!(all.all.len() < 10 * 2000, "{}", all.all.len());
        while all.take_next().is_some() {}
        assert!(all.all.is_empty() && all.counts.is_empty());
    }

    #[test]
    fn where_too_many_wait_the_source_with_most_loses_its_newest() {
        let mut all = BySource::default();
        (0..3).for_each(|n| assert_eq!(all.add_within(4, source(1), (1, n)), None));
        assert_eq!(all.add_within(4, source(2), (2, 0)), None);
        assert_eq!(all.add_within(4, source(2), (2, 1)), Some((1, 2)));
        assert_eq!(all.add_within(4, source(2), (2, 2)), Some((2, 2)));
        assert_eq!(all.add_within(4, source(1), (1, 3)), Some((1, 3)));
        assert_eq!(all.add_within(0, source(1), (1, 4)), Some((1, 4)));
        assert_eq!(all.iter().count(), 4);
    }
}
