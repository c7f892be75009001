//! Places for tries to log in: which try may start, which waits, and which has taken too long.
//!
//! Each kind of work has places and a queue of its own, so that a try that waits for a person never
//! keeps a hash or a signature waiting. A try to hash a password gets its place only when the
//! password is there, not while a person types. The next try is one of the source with the fewest
//! tries under way; a full queue loses a try of the source that has most. Every wait has a
//! deadline.

use crate::policy::Source;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a try waits for a place.
const WAIT: Duration = Duration::from_secs(20);
/// Tries of one kind that wait, at most.
const WAITING: usize = 1024;
/// Of one source.
const WAITING_PER_SOURCE: usize = 32;

/// What a try needs a place for.
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

/// The bounds of a kind.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Places; 0: as many as there are processors.
    places: usize,
    /// Places of one source at most.
    per_source: usize,
    /// How long one may take at most; `login_timeout` where that is shorter.
    time: Duration,
    /// Does it wait for people? Then whoever comes when all places are taken ends the oldest try of
    /// the source that has most: nobody keeps a place by saying nothing.
    people: bool,
}

impl Work {
    const ALL: [Work; 5] = [Work::Hash, Work::Key, Work::Program, Work::Pam, Work::Account];

    fn bounds(self) -> Bounds {
        let b = |places, per_source, seconds, people| Bounds {
            places,
            per_source,
            time: Duration::from_secs(seconds),
            people,
        };
        match self {
            Work::Hash => b(0, usize::MAX, 30, false),
            Work::Key => b(64, 32, 30, false),
            // The child gives the program 60 s itself.
            Work::Program => b(64, 16, 65, false),
            // People look for their passwords: `login_timeout` alone decides.
            Work::Pam => b(128, 16, u64::MAX, true),
            Work::Account => b(64, 16, 30, false),
        }
    }
}

/// What becomes of a try that wants a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(pub u64);

#[derive(Debug, Clone, Copy)]
struct Entry {
    work: Work,
    source: Source,
    until: Duration,
    /// How long it may run.
    time: Duration,
}

/// Tries by number; the lower came earlier.
#[derive(Debug)]
pub struct Places {
    processors: usize,
    next: u64,
    entries: HashMap<u64, Entry>,
    waiting: BTreeSet<(Work, u64)>,
    running: BTreeSet<(Work, u64)>,
    /// How many wait and run.
    counts: HashMap<(Work, Source), [usize; 2]>,
    deadlines: BTreeSet<(Duration, u64)>,
}

impl Places {
    pub fn new(processors: usize) -> Places {
        Places {
            processors,
            next: 0,
            entries: HashMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            counts: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// May one more of this source wait?
    pub fn has_place(&self, work: Work, source: Source) -> bool {
        self.counts(work, source)[0] < WAITING_PER_SOURCE
    }

    /// A try begins to wait: its number, and a waiting one that is turned away for it. None: too
    /// many of its source wait. `timeout`: how long whoever logs in has.
    pub fn add(
        &mut self,
        work: Work,
        source: Source,
        timeout: Duration,
        now: Duration,
    ) -> Option<(u64, Option<Ended>)> {
        if !self.has_place(work, source) {
            return None;
        }
        let full = of(&self.waiting, work).count() >= WAITING;
        let away = full.then(|| self.of_the_largest(&self.waiting, work, 0)).flatten().map(Ended);
        if let Some(Ended(n)) = away {
            self.remove(n);
        }
        self.next += 1;
        let until = now + WAIT;
        self.entries.insert(
            self.next,
            Entry { work, source, until, time: timeout.min(work.bounds().time) },
        );
        self.waiting.insert((work, self.next));
        self.counts.entry((work, source)).or_default()[0] += 1;
        self.deadlines.insert((until, self.next));
        Some((self.next, away))
    }

    /// The next try that may start now: it counts as running. With one that runs and must end for
    /// it.
    pub fn next(&mut self, now: Duration) -> Option<(u64, Option<Ended>)> {
        Work::ALL.into_iter().find_map(|work| self.next_of(work, now))
    }

    fn next_of(&mut self, work: Work, now: Duration) -> Option<(u64, Option<Ended>)> {
        let bounds = work.bounds();
        let places = if bounds.places == 0 { self.processors } else { bounds.places };
        let running = |p: &Places, n: u64| {
            p.entries.get(&n).map_or(usize::MAX, |e| p.counts(work, e.source)[1])
        };
        let number = of(&self.waiting, work).min_by_key(|&n| (running(self, n), n))?;
        let Entry { source, time, .. } = *self.entries.get(&number)?;
        let here = self.counts(work, source)[1];
        let mut ended = None;
        if here >= bounds.per_source || of(&self.running, work).count() >= places {
            if !bounds.people {
                return None;
            }
            let oldest = match here >= bounds.per_source {
                true => of(&self.running, work)
                    .find(|n| self.entries.get(n).is_some_and(|e| e.source == source)),
                false => self.of_the_largest(&self.running, work, 1),
            };
            let n = oldest?;
            self.remove(n);
            ended = Some(Ended(n));
        }
        self.remove(number);
        let until = now + time;
        self.entries.insert(number, Entry { work, source, until, time });
        self.running.insert((work, number));
        self.counts.entry((work, source)).or_default()[1] += 1;
        self.deadlines.insert((until, number));
        Some((number, ended))
    }

    /// The oldest of the source that has most, of those that wait (0) or run (1).
    fn of_the_largest(&self, set: &BTreeSet<(Work, u64)>, work: Work, which: usize) -> Option<u64> {
        let count = |n: u64| self.entries.get(&n).map_or(0, |e| self.counts(work, e.source)[which]);
        of(set, work).max_by_key(|&n| (count(n), std::cmp::Reverse(n)))
    }

    /// A try is over, or nobody waits for it.
    pub fn remove(&mut self, number: u64) {
        let Some(e) = self.entries.remove(&number) else { return };
        let which = usize::from(!self.waiting.remove(&(e.work, number)));
        self.running.remove(&(e.work, number));
        self.deadlines.remove(&(e.until, number));
        let key = (e.work, e.source);
        if let Some(counts) = self.counts.get_mut(&key) {
            counts[which] -= 1;
            if *counts == [0; 2] {
                self.counts.remove(&key);
            }
        }
    }

    /// When the next try has taken too long.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// One that has taken too long; it is over.
    pub fn late(&mut self, now: Duration) -> Option<Ended> {
        let &(_, number) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.remove(number);
        Some(Ended(number))
    }

    fn counts(&self, work: Work, source: Source) -> [usize; 2] {
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

    fn add(p: &mut Places, work: Work, source: u8) -> u64 {
        p.add(work, from(source), S(15), S(0)).expect("a place").0
    }

    #[test]
    fn whose_source_has_fewest_is_next() {
        let mut p = Places::new(2);
        let all: Vec<u64> = [1, 1, 1, 2].into_iter().map(|s| add(&mut p, Work::Hash, s)).collect();
        assert_eq!(
            (p.next(S(0)), p.next(S(0)), p.next(S(0))),
            (Some((all[0], None)), Some((all[3], None)), None)
        );
        p.remove(all[0]);
        assert_eq!(p.next(S(0)), Some((all[1], None)));
        p.remove(all[2]);
        p.remove(all[1]);
        p.remove(all[3]);
        assert!(
            p.next(S(0)).is_none()
                && p.counts.is_empty()
                && p.deadlines.is_empty()
                && p.entries.is_empty()
        );
    }

    #[test]
    fn who_waits_for_people_makes_room_and_keeps_nobody_else_waiting() {
        let mut p = Places::new(1);
        let first = add(&mut p, Work::Pam, 1);
        assert_eq!(p.next(S(0)), Some((first, None)));
        for _ in 1..16 {
            add(&mut p, Work::Pam, 1);
            assert!(matches!(p.next(S(0)), Some((_, None))));
        }
        let more = add(&mut p, Work::Pam, 1);
        assert_eq!(p.next(S(0)), Some((more, Some(Ended(first)))));
        let other = add(&mut p, Work::Pam, 2);
        assert_eq!(p.next(S(0)), Some((other, None)));
        let key = add(&mut p, Work::Key, 1);
        assert_eq!(p.next(S(0)), Some((key, None)));
        // All places: the source that has most loses its oldest.
        for source in 3..250 {
            add(&mut p, Work::Pam, source);
            while p.next(S(0)).is_some() {}
        }
        assert_eq!(of(&p.running, Work::Pam).count(), 128);
    }

    #[test]
    fn a_queue_is_bounded_and_costs_whoever_fills_it() {
        let mut p = Places::new(1);
        for _ in 0..WAITING_PER_SOURCE {
            add(&mut p, Work::Hash, 1);
        }
        assert!(p.add(Work::Hash, from(1), S(15), S(0)).is_none());
        let mut away = 0;
        for n in 0..WAITING as u32 {
            let source = Source::of((0x0a00_0000 + n).to_be_bytes().into());
            away +=
                usize::from(p.add(Work::Hash, source, S(15), S(0)).expect("a place").1.is_some());
        }
        assert_eq!((away, of(&p.waiting, Work::Hash).count()), (WAITING_PER_SOURCE, WAITING));
        assert_eq!(p.counts(Work::Hash, from(1))[0], 0);
    }

    #[test]
    fn every_wait_has_an_end() {
        let mut p = Places::new(1);
        let (a, b) = (add(&mut p, Work::Hash, 1), add(&mut p, Work::Hash, 1));
        // The first may run for 15 s, the second wait for 20.
        assert_eq!(p.next(S(5)), Some((a, None)));
        assert_eq!(
            (p.deadline(), p.late(S(19)), p.late(S(20)), p.late(S(20))),
            (Some(S(20)), None, Some(Ended(a)), Some(Ended(b)))
        );
        assert_eq!(p.deadline(), None);
    }
}
