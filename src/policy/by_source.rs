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
mod tests;
