//! Slots for tries to log in: which try may start, which waits, and which has taken too long.
//!
//! Each kind of work has its own slots and its own queue, so that a try that waits for a person
//! never delays a hash or a signature. A try that hashes a password gets its slot only when the
//! password has come, not while a person types. The next try to start is one of the source with the
//! fewest running tries; a full queue drops a try of the source that has most in it. Every wait has
//! a deadline.

use crate::policy::Source;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a try waits for a slot.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Tries of one kind that wait at a time.
const WAITING_MAX: usize = 1024;
/// Tries of one kind and one source that wait at a time.
const WAITING_PER_SOURCE_MAX: usize = 32;

/// What a try needs a slot for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// A hash of the password file.
    Hash,
    /// A signature, and files of keys.
    Key,
    /// A checkpassword program.
    Program,
    /// PAM, which asks people.
    Pam,
    /// PAM's account phase, which asks nobody.
    Account,
}

/// The bounds of one kind of work.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// How many slots there are; 0: as many as there are processors.
    slots: usize,
    /// How many of them one source may have.
    per_source: usize,
    /// How long a try may run; `login_timeout` where that is shorter.
    timeout: Duration,
    /// Does it wait for people? Then a new try that finds all slots taken ends the oldest try of
    /// the source that has most: nobody keeps a slot by saying nothing.
    waits_for_people: bool,
}

impl Work {
    const ALL: [Work; 5] = [Work::Hash, Work::Key, Work::Program, Work::Pam, Work::Account];

    fn bounds(self) -> Bounds {
        let b = |slots, per_source, seconds, waits_for_people| Bounds {
            slots,
            per_source,
            timeout: Duration::from_secs(seconds),
            waits_for_people,
        };
        match self {
            Work::Hash => b(0, usize::MAX, 30, false),
            Work::Key => b(64, 32, 30, false),
            // The child itself gives the program 60 s.
            Work::Program => b(64, 16, 65, false),
            // People look for their passwords: `login_timeout` alone decides.
            Work::Pam => b(128, 16, u64::MAX, true),
            Work::Account => b(64, 16, 30, false),
        }
    }
}

/// The number of a try that has lost its slot, or its turn in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evicted(pub u64);

#[derive(Debug, Clone, Copy)]
struct Entry {
    work: Work,
    source: Source,
    until: Duration,
    /// How long it may run.
    timeout: Duration,
}

/// How many tries wait, and how many run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    waiting: usize,
    running: usize,
}

/// All tries, by number; a lower number came earlier.
#[derive(Debug)]
pub struct Slots {
    processors: usize,
    next: u64,
    entries: HashMap<u64, Entry>,
    waiting: BTreeSet<(Work, u64)>,
    running: BTreeSet<(Work, u64)>,
    counts: HashMap<(Work, Source), Counts>,
    deadlines: BTreeSet<(Duration, u64)>,
}

impl Slots {
    pub fn new(processors: usize) -> Slots {
        Slots {
            processors,
            next: 0,
            entries: HashMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            counts: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// May one more try of this source wait?
    pub fn may_wait(&self, work: Work, source: Source) -> bool {
        self.counts(work, source).waiting < WAITING_PER_SOURCE_MAX
    }

    /// Queues a try. Returns its number, and a waiting try that a full queue dropped for it. None:
    /// too many tries of its source wait. `timeout`: how long it may run, if its kind allows that.
    pub fn add(
        &mut self,
        work: Work,
        source: Source,
        timeout: Duration,
        now: Duration,
    ) -> Option<(u64, Option<Evicted>)> {
        if !self.may_wait(work, source) {
            return None;
        }
        let full = of(&self.waiting, work).count() >= WAITING_MAX;
        let oldest = || self.oldest_of_largest(&self.waiting, work, |c| c.waiting);
        let evicted = full.then(oldest).flatten().map(Evicted);
        if let Some(Evicted(n)) = evicted {
            self.remove(n);
        }
        self.next += 1;
        let until = now + WAIT_TIMEOUT;
        let timeout = timeout.min(work.bounds().timeout);
        self.entries.insert(self.next, Entry { work, source, until, timeout });
        self.waiting.insert((work, self.next));
        self.counts.entry((work, source)).or_default().waiting += 1;
        self.deadlines.insert((until, self.next));
        Some((self.next, evicted))
    }

    /// The next try that may start now; it counts as running. Also a running try that must end for
    /// it. `may`: is there room for this one's user?
    pub fn next(
        &mut self,
        now: Duration,
        may: impl Fn(u64) -> bool,
    ) -> Option<(u64, Option<Evicted>)> {
        Work::ALL.into_iter().find_map(|work| self.next_of(work, now, &may))
    }

    fn next_of(
        &mut self,
        work: Work,
        now: Duration,
        may: impl Fn(u64) -> bool,
    ) -> Option<(u64, Option<Evicted>)> {
        let bounds = work.bounds();
        let slots = if bounds.slots == 0 { self.processors } else { bounds.slots };
        let running = |s: &Slots, n: u64| {
            s.entries.get(&n).map_or(usize::MAX, |e| s.counts(work, e.source).running)
        };
        let waiting = of(&self.waiting, work).filter(|&n| may(n));
        let number = waiting.min_by_key(|&n| (running(self, n), n))?;
        let Entry { source, timeout, .. } = *self.entries.get(&number)?;
        let of_source = self.counts(work, source).running;
        let mut evicted = None;
        if of_source >= bounds.per_source || of(&self.running, work).count() >= slots {
            if !bounds.waits_for_people {
                return None;
            }
            let oldest = match of_source >= bounds.per_source {
                true => of(&self.running, work)
                    .find(|n| self.entries.get(n).is_some_and(|e| e.source == source)),
                false => self.oldest_of_largest(&self.running, work, |c| c.running),
            };
            let n = oldest?;
            self.remove(n);
            evicted = Some(Evicted(n));
        }
        self.remove(number);
        let until = now + timeout;
        self.entries.insert(number, Entry { work, source, until, timeout });
        self.running.insert((work, number));
        self.counts.entry((work, source)).or_default().running += 1;
        self.deadlines.insert((until, number));
        Some((number, evicted))
    }

    /// The oldest try in `set` of the source that has most there.
    fn oldest_of_largest(
        &self,
        set: &BTreeSet<(Work, u64)>,
        work: Work,
        count: impl Fn(Counts) -> usize,
    ) -> Option<u64> {
        let of_source =
            |n: u64| self.entries.get(&n).map_or(0, |e| count(self.counts(work, e.source)));
        of(set, work).max_by_key(|&n| (of_source(n), std::cmp::Reverse(n)))
    }

    /// Removes a try that is over, or that nobody waits for.
    pub fn remove(&mut self, number: u64) {
        let Some(e) = self.entries.remove(&number) else { return };
        let waited = self.waiting.remove(&(e.work, number));
        self.running.remove(&(e.work, number));
        self.deadlines.remove(&(e.until, number));
        let key = (e.work, e.source);
        if let Some(counts) = self.counts.get_mut(&key) {
            *if waited { &mut counts.waiting } else { &mut counts.running } -= 1;
            if *counts == Counts::default() {
                self.counts.remove(&key);
            }
        }
    }

    /// When the next try will have taken too long.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Removes a try that has taken too long. None: no try has.
    pub fn late(&mut self, now: Duration) -> Option<Evicted> {
        let &(_, number) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.remove(number);
        Some(Evicted(number))
    }

    fn counts(&self, work: Work, source: Source) -> Counts {
        self.counts.get(&(work, source)).copied().unwrap_or_default()
    }
}

fn of(set: &BTreeSet<(Work, u64)>, work: Work) -> impl Iterator<Item = u64> {
    set.range((work, 0)..=(work, u64::MAX)).map(|(_, n)| *n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn from(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    fn add(s: &mut Slots, work: Work, source: u8) -> u64 {
        s.add(work, from(source), S(15), S(0)).expect("a slot").0
    }

    #[test]
    fn whose_source_has_fewest_is_next() {
        let mut s = Slots::new(2);
        let all: Vec<u64> = [1, 1, 1, 2].into_iter().map(|n| add(&mut s, Work::Hash, n)).collect();
        assert_eq!(
            (s.next(S(0), |_| true), s.next(S(0), |_| true), s.next(S(0), |_| true)),
            (Some((all[0], None)), Some((all[3], None)), None)
        );
        s.remove(all[0]);
        assert_eq!(s.next(S(0), |_| true), Some((all[1], None)));
        s.remove(all[2]);
        s.remove(all[1]);
        s.remove(all[3]);
        assert!(
            s.next(S(0), |_| true).is_none()
                && s.counts.is_empty()
                && s.deadlines.is_empty()
                && s.entries.is_empty()
        );
    }

    #[test]
    fn who_has_no_room_for_his_user_is_passed_over() {
        let mut s = Slots::new(1);
        let [first, second] = [1, 2].map(|n| add(&mut s, Work::Key, n));
        assert_eq!(s.next(S(0), |n| n != first), Some((second, None)));
        assert_eq!(s.next(S(0), |n| n != first), None);
        assert_eq!(s.next(S(0), |_| true), Some((first, None)));
    }

    #[test]
    fn who_waits_for_people_gives_way_and_keeps_nobody_else_waiting() {
        let mut s = Slots::new(1);
        let first = add(&mut s, Work::Pam, 1);
        assert_eq!(s.next(S(0), |_| true), Some((first, None)));
        for _ in 1..16 {
            add(&mut s, Work::Pam, 1);
            assert!(matches!(s.next(S(0), |_| true), Some((_, None))));
        }
        let more = add(&mut s, Work::Pam, 1);
        assert_eq!(s.next(S(0), |_| true), Some((more, Some(Evicted(first)))));
        let other = add(&mut s, Work::Pam, 2);
        assert_eq!(s.next(S(0), |_| true), Some((other, None)));
        let key = add(&mut s, Work::Key, 1);
        assert_eq!(s.next(S(0), |_| true), Some((key, None)));
        // All places: the source that has most loses its oldest.
        for source in 3..250 {
            add(&mut s, Work::Pam, source);
            while s.next(S(0), |_| true).is_some() {}
        }
        assert_eq!(of(&s.running, Work::Pam).count(), 128);
    }

    /// fived(8), LIMITS.
    #[test]
    fn each_kind_has_its_slots_and_a_source_its_share_and_each_try_its_time() {
        let bounds = Work::ALL.map(|work| {
            let mut s = Slots::new(3);
            let long = S(1_000_000);
            let mut most = 0;
            for n in 0..20 {
                for _ in 0..WAITING_PER_SOURCE_MAX {
                    s.add(work, from(n), long, S(0));
                }
                while s.next_of(work, S(0), |_| true).is_some() {}
                most = most.max(s.counts(work, from(n)).running);
            }
            let until = s.running.iter().map(|(_, n)| s.entries[n].until.as_secs()).max();
            (of(&s.running, work).count(), most, until.expect("one runs at least"))
        });
        assert_eq!(
            bounds,
            [(3, 3, 30), (64, 32, 30), (64, 16, 65), (128, 16, 1_000_000), (64, 16, 30)]
        );
    }

    #[test]
    fn a_queue_is_bounded_and_costs_whoever_fills_it() {
        let mut s = Slots::new(1);
        for _ in 0..WAITING_PER_SOURCE_MAX {
            add(&mut s, Work::Hash, 1);
        }
        assert!(s.add(Work::Hash, from(1), S(15), S(0)).is_none());
        let mut evicted = 0;
        for n in 0..WAITING_MAX as u32 {
            let source = Source::of((0x0a00_0000 + n).to_be_bytes().into());
            evicted +=
                usize::from(s.add(Work::Hash, source, S(15), S(0)).expect("a slot").1.is_some());
        }
        assert_eq!(
            (evicted, of(&s.waiting, Work::Hash).count()),
            (WAITING_PER_SOURCE_MAX, WAITING_MAX)
        );
        assert_eq!(s.counts(Work::Hash, from(1)).waiting, 0);
    }

    #[test]
    fn every_wait_has_an_end() {
        let mut s = Slots::new(1);
        let (a, b) = (add(&mut s, Work::Hash, 1), add(&mut s, Work::Hash, 1));
        // The first may run for 15 s, the second wait for 20.
        assert_eq!(s.next(S(5), |_| true), Some((a, None)));
        assert_eq!(
            (s.deadline(), s.late(S(19)), s.late(S(20)), s.late(S(20))),
            (Some(S(20)), None, Some(Evicted(a)), Some(Evicted(b)))
        );
        assert_eq!(s.deadline(), None);
    }
}
