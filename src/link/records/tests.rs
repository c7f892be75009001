//! Two ends over a connection that is cut at any byte, any number of times.

use super::*;
use crate::link::{Link, Received};
use crate::sys::socket;
use crate::wire::resume::UNACKNOWLEDGED_MAX;
use crate::wire::yamux;
use proptest::prelude::*;
use std::os::fd::{AsFd, OwnedFd};

/// What happens to two ends, the first or the second.
#[derive(Debug, Clone)]
enum Step {
    /// An end is given this many bytes to send.
    Give(usize, usize),
    /// The same in a queue, in bursts of two streams whose frames are sent in turn.
    GiveQueue(usize, usize),
    /// An end takes what has come, at most this many bytes at once.
    Take(usize, usize),
    /// This many bytes at most travel from this end to the other.
    Travel(usize, usize),
    /// The connection is lost, with what travels; there is a new one.
    Cut,
    /// This many milliseconds pass.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || {
        prop_oneof![
            8 => 1usize..40,
            8 => 1usize..5000,
            4 => 1usize..200_000,
            1 => 1usize..3_000_000
        ]
    };
    let side = || 0usize..2;
    let step = prop_oneof![
        3 => (side(), size()).prop_map(|(s, n)| Step::Give(s, n)),
        2 => (side(), size()).prop_map(|(s, n)| Step::GiveQueue(s, n)),
        3 => (side(), size()).prop_map(|(s, n)| Step::Take(s, n)),
        4 => (side(), size()).prop_map(|(s, n)| Step::Travel(s, n)),
        2 => Just(Step::Cut),
        1 => (0u64..80).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The byte at this place of what a side sends.
fn byte(side: usize, at: usize) -> u8 {
    (at.wrapping_mul(7) ^ (at >> 8) ^ (at >> 16) ^ (side * 85)) as u8
}

struct Both {
    ends: [Link; 2],
    /// Between them: the other ends of their sockets, and what was taken from each and not yet
    /// given to the other.
    between: [OwnedFd; 2],
    travels: [Vec<u8>; 2],
    given: [usize; 2],
    got: [usize; 2],
    now: Duration,
}

fn connection() -> ([Link; 2], [OwnedFd; 2]) {
    let pairs = [(); 2].map(|()| socket::pair().expect("pair"));
    let [(a, c), (b, d)] = pairs;
    let mut ends = [a, b].map(Link::plain);
    ends.iter_mut().for_each(Link::read_ahead);
    (ends, [c, d])
}

impl Both {
    fn new() -> Both {
        let (mut ends, between) = connection();
        ends.iter_mut().for_each(Link::begin_records);
        Both {
            ends,
            between,
            travels: Default::default(),
            given: [0; 2],
            got: [0; 2],
            now: Duration::ZERO,
        }
    }

    fn give(&mut self, side: usize, n: usize) {
        let from = self.given[side];
        let bytes: Vec<u8> = (from..from + n).map(|at| byte(side, at)).collect();
        let (a, b) = bytes.split_at(n / 3);
        let parts = [IoSlice::new(a), IoSlice::new(b)];
        self.given[side] += self.ends[side].send_parts(&parts).expect("records take bytes");
    }

    fn give_queue(&mut self, side: usize, n: usize) {
        let from = self.given[side];
        let bytes: Vec<u8> = (from..from + n).map(|at| byte(side, at)).collect();
        let frames = || bytes.chunks(yamux::FRAME);
        let mut queue = SendQueue::new();
        for stream in 0..2 {
            let its: Vec<u8> = frames().skip(stream).step_by(2).flatten().copied().collect();
            queue.burst(stream, |to| to.extend(its)).1.for_each(drop);
        }
        while !queue.is_sent() {
            match self.ends[side].send_queue(&mut queue).expect("records take bytes") {
                0 => break,
                n => self.given[side] += n,
            }
        }
    }

    fn send(&mut self, side: usize) {
        self.ends[side].acknowledge(self.now);
        self.ends[side].send_queued().expect("a whole connection");
    }

    fn take(&mut self, side: usize, most: usize) {
        self.ends[side].receive().expect("a whole connection");
        while let Received::Bytes(bytes) = self.ends[side].received().expect("records") {
            let n = bytes.len().min(most);
            for b in &bytes[..n] {
                assert_eq!(*b, byte(1 - side, self.got[side]));
                self.got[side] += 1;
            }
            self.ends[side].consume(n);
        }
        self.send(side);
    }

    fn travel(&mut self, side: usize, most: usize) {
        self.send(side);
        let mut bytes = vec![0; most.min(300_000)];
        if self.travels[side].is_empty()
            && let Ok(n) = socket::receive(self.between[side].as_fd(), &mut bytes)
        {
            self.travels[side].extend(&bytes[..n]);
        }
        if let Ok(n) = socket::send(self.between[1 - side].as_fd(), &self.travels[side]) {
            self.travels[side].drain(..n);
        }
    }

    fn cut(&mut self) {
        let (new, between) = connection();
        let old = std::mem::replace(&mut self.ends, new);
        (self.between, self.travels) = (between, Default::default());
        let records = old.map(|mut link| link.take_records().expect("it is resumable"));
        let had = [records[1].received(), records[0].received()];
        for ((link, records), had) in self.ends.iter_mut().zip(records).zip(had) {
            assert!(records.accepts(had) && !records.accepts(u64::MAX));
            link.resume(records, had).expect("it can have had that");
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Give(side, n) => self.give(side, n),
            Step::GiveQueue(side, n) => self.give_queue(side, n),
            Step::Take(side, most) => self.take(side, most),
            Step::Travel(side, most) => self.travel(side, most),
            Step::Cut => self.cut(),
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
        for end in &self.ends {
            let held = end.records().expect("it is resumable").replay.len();
            assert!(held <= UNACKNOWLEDGED_MAX);
        }
    }

    /// Lets everything travel.
    fn finish(&mut self) {
        for _ in 0..1000 {
            for side in [0, 1] {
                self.travel(side, usize::MAX);
                self.take(1 - side, usize::MAX);
            }
            self.now += ACKNOWLEDGE_AFTER;
            let held = |l: &Link| l.records().map_or(0, |r| r.replay.len());
            if self.ends.iter().all(|l| held(l) == 0) {
                return;
            }
        }
        panic!("{:?} of {:?} bytes have come", self.got, self.given);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn no_byte_is_lost_or_doubled(steps in steps()) {
        let mut both = Both::new();
        steps.iter().for_each(|s| both.step(s));
        both.finish();
        prop_assert_eq!(both.got, [both.given[1], both.given[0]]);
        for end in &mut both.ends {
            prop_assert!(!end.wants_write() && !end.is_full());
            prop_assert!(end.next_acknowledgement() == Duration::MAX);
            end.release_buffers();
            prop_assert!(!end.has_buffers());
            let replay = &end.records().expect("it is resumable").replay;
            prop_assert!(replay.is_empty_and_small());
        }
    }
}

#[test]
fn what_is_full_takes_nothing_and_goes_on_later() {
    let mut both = Both::new();
    both.give(0, 3 * 1024 * 1024);
    both.give(0, 3 * 1024 * 1024);
    assert_eq!(both.given[0], UNACKNOWLEDGED_MAX);
    assert!(!both.ends[0].is_full(), "it has something to send");
    for _ in 0..1000 {
        both.travel(0, usize::MAX);
        // The other end takes it, and its acknowledgements do not travel.
        both.take(1, usize::MAX);
    }
    assert_eq!(both.got[1], UNACKNOWLEDGED_MAX);
    assert!(both.ends[0].is_full());
    both.give(0, 1);
    assert_eq!(both.given[0], UNACKNOWLEDGED_MAX);
    both.finish();
    assert!(!both.ends[0].is_full());
    both.give(0, 1);
    assert_eq!(both.given[0], UNACKNOWLEDGED_MAX + 1);
}

#[test]
fn the_other_side_hears_in_time_and_often() {
    let mut both = Both::new();
    both.give(0, 1);
    both.travel(0, 100);
    both.take(1, 100);
    let due = both.ends[1].next_acknowledgement();
    assert!(due > both.now && due <= both.now + Duration::from_millis(100));
    assert!(!both.ends[1].wants_write());
    both.now = due;
    both.ends[1].acknowledge(due);
    assert!(both.ends[1].wants_write() && both.ends[1].next_acknowledgement() == Duration::MAX);
    both.finish();
    // Data takes an acknowledgement with it.
    both.give(0, 1);
    both.travel(0, 100);
    both.take(1, 100);
    both.give(1, 1);
    both.travel(1, 100);
    both.take(0, 100);
    assert_eq!(both.ends[0].records().expect("it is resumable").replay.len(), 0);
    // It does not wait when much has come.
    both.give(0, 300_000);
    let mut had = 0;
    while both.got[1] < both.given[0] {
        both.travel(0, 65_536);
        both.ends[1].receive().expect("a whole connection");
        while let Received::Bytes(bytes) = both.ends[1].received().expect("records") {
            let n = bytes.len();
            both.ends[1].consume(n);
            (both.got[1], had) = (both.got[1] + n, had + n);
            if both.ends[1].owes_acknowledgement() {
                assert!(had <= ACKNOWLEDGE_EVERY as usize);
                both.send(1);
                had = 0;
            }
        }
    }
    assert!(had < 300_000);
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let mut both = Both::new();
    both.give(0, 10);
    let mut records = both.ends[0].take_records().expect("it is resumable");
    // They were taken, and never sent.
    assert!(records.accepts(0) && !records.accepts(1));
    let (mut ends, _between) = connection();
    records = ends[0].resume(records, 1).expect_err("it cannot have had it");
    ends[0].resume(records, 0).expect("it has had nothing");
    ends[0].send_queued().expect("a whole connection");
    let refused = |records: &mut Records, count: u64| {
        records.decode(&resume::acknowledgement(count)).is_err()
    };
    let mut records = ends[0].take_records().expect("it is resumable");
    assert!(records.accepts(10) && !records.accepts(11));
    assert!(!refused(&mut records, 4) && refused(&mut records, 3) && refused(&mut records, 11));
}

#[test]
fn only_its_record_ends_a_session() {
    let [(a, b), (c, d)] = [(); 2].map(|()| socket::pair().expect("pair"));
    let [mut a, mut b, mut c, d] = [a, b, c, d].map(Link::plain);
    for link in [&mut a, &mut b, &mut c] {
        link.read_ahead();
        link.begin_records();
    }
    a.send_parts(&[IoSlice::new(b"last")]).expect("taken");
    assert!(a.finish());
    b.receive().expect("records");
    assert_eq!(b.received().expect("data"), Received::Bytes(b"last"));
    b.consume(4);
    assert_eq!(b.received().expect("an end"), Received::End);
    drop(d);
    c.receive().expect("an end");
    assert!(matches!(c.received(), Err(Error::Closed)));
}

#[test]
fn nobody_has_had_what_was_not_sent() {
    let mut replay = Replay::default();
    assert_eq!(replay.take(&[IoSlice::new(&[0; 10])]), 10);
    replay.sent(4);
    assert!(!replay.acknowledge(5) && replay.acknowledge(4) && !replay.acknowledge(3));
    assert!(!replay.can_resume(5));
}
