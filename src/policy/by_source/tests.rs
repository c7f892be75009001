//! Whose turn it is, and that nothing is lost, whatever comes and goes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

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

/// As fived's own port has it beside a stranger with a network of addresses. Miri, to which each
/// step takes a thousand times as long, has a tenth of them.
#[test]
fn thousands_of_sources_are_looked_at_a_few_times_and_not_for_each_that_comes() {
    const MOST: usize = if cfg!(miri) { 200 } else { 2000 };
    let (mut all, mut looked_at, mut lost) = (BySource::default(), 0, 0);
    let source = |n: u32| Source::of((0x0a00_0000 + n).to_be_bytes().into());
    for n in 0..10 * MOST as u32 {
        let before = all.forget_at;
        let from = source(n % (7 * MOST as u32 / 2));
        lost += usize::from(all.add_within(MOST, from, n).is_some());
        looked_at += if all.forget_at == before { 0 } else { all.forget_at };
        if n % 2 == 0 {
            assert!(all.take_next().is_some());
        }
    }
    assert!(looked_at < 50 * MOST, "{looked_at}");
    assert_eq!((all.waiting, all.iter().count(), lost), (MOST, MOST, 4 * MOST));
    assert!(all.all.len() < 10 * MOST, "{}", all.all.len());
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

/// What happens to a queue; sources have numbers.
#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    AddFirst(u8),
    AddWithin(usize, u8),
    TakeNext,
    /// All whose number has this rest.
    TakeIf(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let source = || 0u8..7;
    let one = prop_oneof![
        4 => source().prop_map(Step::Add),
        1 => source().prop_map(Step::AddFirst),
        3 => (0usize..12, source()).prop_map(|(most, n)| Step::AddWithin(most, n)),
        5 => Just(Step::TakeNext),
        1 => (0u32..REST).prop_map(Step::TakeIf),
    ];
    proptest::collection::vec(one, 0..200)
}

const REST: u32 = 9;

/// What waits of a source.
#[derive(Default)]
struct Waits {
    all: VecDeque<u32>,
    /// Others that were served since it waits for its turn.
    others: usize,
    /// Sources that waited when it began to, this one included.
    sources: usize,
}

/// A queue, and what is to be in it.
#[derive(Default)]
struct Checked {
    queue: BySource<u32>,
    wanted: HashMap<Source, Waits>,
}

impl Checked {
    fn len(&self) -> usize {
        self.wanted.values().map(|w| w.all.len()).sum()
    }

    fn waits(&mut self, source: Source) -> &mut VecDeque<u32> {
        let sources = self.wanted.len() + 1;
        let new = || Waits { sources, ..Waits::default() };
        &mut self.wanted.entry(source).or_insert_with(new).all
    }

    fn add_within(&mut self, most: usize, source: Source, what: u32) {
        let len = |of: &Waits| of.all.len();
        let longest = self.wanted.values().map(len).max().unwrap_or(0);
        let own = self.wanted.get(&source).map_or(0, len);
        let is_full = self.len() >= most;
        let lost = self.queue.add_within(most, source, what);
        assert_eq!(lost.is_some(), is_full);
        assert_eq!(lost == Some(what), is_full && longest <= own + 1);
        self.waits(source).push_back(what);
        if let Some(lost) = lost {
            let all = &mut self.of(lost).all;
            assert!(lost == what || all.len() == longest, "of a source with most");
            assert_eq!(all.pop_back(), Some(lost), "the newest");
        }
    }

    /// What waits of the source for which this waits.
    fn of(&mut self, what: u32) -> &mut Waits {
        self.wanted.values_mut().find(|w| w.all.contains(&what)).expect("it waits")
    }

    fn take_next(&mut self) {
        let Some(next) = self.queue.take_next() else { return assert_eq!(self.len(), 0) };
        self.wanted.values_mut().for_each(|w| w.others += 1);
        let sources = self.wanted.len();
        let of = self.of(next);
        assert_eq!(of.all.pop_front(), Some(next), "the first of its source");
        (of.others, of.sources) = (0, sources);
    }

    fn step(&mut self, step: Step, what: u32) {
        match step {
            Step::Add(n) => {
                self.queue.add(source(n), what);
                self.waits(source(n)).push_back(what);
            }
            Step::AddFirst(n) => {
                self.queue.add_first(source(n), what);
                self.waits(source(n)).push_front(what);
            }
            Step::AddWithin(most, n) => self.add_within(most, source(n), what),
            Step::TakeNext => self.take_next(),
            Step::TakeIf(rest) => {
                let is_over = |what: &u32| what % REST == rest;
                let over = self.queue.take_if(is_over);
                let all = self.wanted.values().flat_map(|w| &w.all).copied();
                let wanted: BTreeSet<u32> = all.filter(is_over).collect();
                assert_eq!(over.len(), wanted.len());
                assert_eq!(over.into_iter().collect::<BTreeSet<_>>(), wanted);
                self.wanted.values_mut().for_each(|w| w.all.retain(|what| !is_over(what)));
            }
        }
        self.wanted.retain(|_, w| !w.all.is_empty());
    }

    fn check(&self) {
        let (queue, len) = (&self.queue, self.len());
        assert_eq!((queue.waiting, queue.is_empty()), (len, len == 0));
        assert_eq!(queue.iter().count(), len);
        let turns: BTreeSet<Source> = queue.before.iter().chain(&queue.turns).copied().collect();
        assert_eq!(turns.len(), queue.sources(), "each that waits has one turn");
        assert_eq!(turns, self.wanted.keys().copied().collect());
        for (source, waits) in &self.wanted {
            assert_eq!(queue.counts.of(*source), waits.all.len());
            assert!(waits.others <= (IN_A_ROW + 1) * waits.sources, "it has waited for too many");
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_each_source_has_its_turn(steps in steps()) {
        let mut checked = Checked::default();
        for (what, step) in (0..).zip(steps) {
            checked.step(step, what);
            checked.check();
        }
    }
}
