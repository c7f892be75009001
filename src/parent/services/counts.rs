//! The bytes of relayed services: which relay counts whose, and the lines about services' ends that
//! wait for these counts. A relay may end before its service is known to run, and long after the
//! service has ended.

use crate::parent::arrival::StreamTag;
use crate::parent::tokens::SessionToken;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes to a service and from it.
pub type Traffic = (u64, u64);

/// What is known of a stream's service.
enum State<T> {
    /// Its relay has ended before the service was known to run.
    Early(Traffic),
    /// It runs, with this process id.
    Runs(i32),
    /// It has ended, and its line waits.
    Ended { at: Duration, line: T },
}

/// See the module.
pub struct Counts<T>(BTreeMap<StreamTag, State<T>>);

/// Whose counts have come.
#[derive(Debug, PartialEq, Eq)]
pub enum CountsOf<T> {
    /// Of the service with this process id.
    Runs(i32),
    /// Of one that has ended: its line.
    Ended(T),
}

impl<T> Default for Counts<T> {
    fn default() -> Counts<T> {
        Counts(BTreeMap::new())
    }
}

impl<T> Counts<T> {
    /// A stream's service runs. Some: its relay has ended already.
    pub fn runs(&mut self, stream: StreamTag, pid: i32) -> Option<Traffic> {
        match self.0.remove(&stream) {
            Some(State::Early(traffic)) => Some(traffic),
            _ => {
                self.0.insert(stream, State::Runs(pid));
                None
            }
        }
    }

    /// A relay has ended before its service was known to run.
    pub fn early(&mut self, stream: StreamTag, traffic: Traffic) {
        self.0.insert(stream, State::Early(traffic));
    }

    /// The service of that relay was not started.
    pub fn forget_early(&mut self, stream: StreamTag) {
        if matches!(self.0.get(&stream), Some(State::Early(_))) {
            self.0.remove(&stream);
        }
    }

    /// Has this stream a service, or one whose line waits?
    pub fn has(&self, stream: StreamTag) -> bool {
        self.0.contains_key(&stream)
    }

    /// A relay has ended. None: nobody wants to know.
    pub fn come(&mut self, stream: StreamTag) -> Option<CountsOf<T>> {
        match self.0.remove(&stream)? {
            State::Runs(pid) => Some(CountsOf::Runs(pid)),
            State::Ended { line, .. } => Some(CountsOf::Ended(line)),
            State::Early(_) => None,
        }
    }

    /// A stream's service has ended. False: no counts of it will come.
    pub fn ended(&mut self, stream: StreamTag, pid: i32) -> bool {
        let is_its = matches!(self.0.get(&stream), Some(State::Runs(p)) if *p == pid);
        if is_its {
            self.0.remove(&stream);
        }
        is_its
    }

    /// The line of such a service waits for its counts. A session has a relay for each of these.
    /// One that does not tell of their ends has no more than `most` of them: that of the oldest is
    /// returned.
    pub fn wait(&mut self, stream: StreamTag, most: usize, at: Duration, line: T) -> Option<T> {
        let ended = self.0.range(of_session(stream.session)).filter_map(|(s, state)| match state {
            State::Ended { at, .. } => Some((*at, *s)),
            State::Early(_) | State::Runs(_) => None,
        });
        let oldest = if ended.clone().count() >= most { ended.min() } else { None };
        let too_many = match oldest.and_then(|(_, stream)| self.0.remove(&stream)) {
            Some(State::Ended { line, .. }) => Some(line),
            _ => None,
        };
        self.0.insert(stream, State::Ended { at, line });
        too_many
    }

    /// A session is over: there will be no more counts for its services. The lines that wait.
    pub fn forget(&mut self, session: SessionToken) -> Vec<T> {
        let over: Vec<StreamTag> = self.0.range(of_session(session)).map(|(s, _)| *s).collect();
        let line = |stream| match self.come(stream)? {
            CountsOf::Ended(line) => Some(line),
            CountsOf::Runs(_) => None,
        };
        over.into_iter().filter_map(line).collect()
    }
}

/// All streams of a session.
fn of_session(session: SessionToken) -> std::ops::RangeInclusive<StreamTag> {
    StreamTag { session, tag: 0 }..=StreamTag { session, tag: u32::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: StreamTag = StreamTag { session: SessionToken::of_number(1), tag: 7 };

    /// Its process id may be another service's by then.
    #[test]
    fn counts_of_a_service_that_has_ended_are_nobody_else_s() {
        let (mut counts, other) = (Counts::default(), StreamTag { tag: 8, ..S });
        assert_eq!(counts.runs(S, 100), None);
        assert!(counts.ended(S, 100));
        assert_eq!(counts.wait(S, 2, Duration::ZERO, "its line"), None);
        assert_eq!(counts.runs(other, 100), None);
        assert_eq!(counts.come(S), Some(CountsOf::Ended("its line")));
        assert_eq!(counts.come(other), Some(CountsOf::Runs(100)));
        assert_eq!((counts.come(S), counts.0.len()), (None, 0));
    }

    /// As a net process may use tags that was taken over.
    #[test]
    fn a_tag_that_is_used_again_is_the_newer_service_s() {
        let mut counts = Counts::<()>::default();
        assert_eq!(counts.runs(S, 100), None);
        assert_eq!(counts.come(S), Some(CountsOf::Runs(100)));
        assert_eq!(counts.runs(S, 101), None);
        assert!(!counts.ended(S, 100));
        assert_eq!(counts.come(S), Some(CountsOf::Runs(101)));
    }

    #[test]
    fn a_relay_may_end_first() {
        let mut counts = Counts::<()>::default();
        counts.early(S, (1, 2));
        assert!(counts.has(S));
        assert_eq!((counts.runs(S, 100), counts.ended(S, 100)), (Some((1, 2)), false));
        counts.early(S, (1, 2));
        counts.forget_early(S);
        assert_eq!(counts.runs(S, 100), None);
        counts.forget_early(S);
        assert!(counts.ended(S, 100) && counts.0.is_empty());
    }

    const MOST: usize = 3;

    proptest! {
        /// Each service that has ended has one line, and of those that wait there is a bound.
        #[test]
        fn no_line_is_lost_or_written_twice(
            steps in proptest::collection::vec((0u8..6, 0u64..2, 0u32..6), 0..100),
        ) {
            let (mut counts, mut waits) = (Counts::default(), Vec::<(StreamTag, u64)>::new());
            let of = |session| move |(s, _): &(StreamTag, u64)| s.session == session;
            for (at, (what, session, tag)) in (0u64..).zip(steps) {
                let session = SessionToken::of_number(session);
                let stream = StreamTag { session, tag };
                let line = waits.iter().position(|(s, _)| *s == stream);
                match what {
                    0 | 1 if !counts.has(stream) => {
                        prop_assert_eq!(counts.runs(stream, tag as i32), None);
                    }
                    0..=3 if counts.ended(stream, tag as i32) => {
                        prop_assert!(line.is_none() && !counts.has(stream));
                        let all = waits.iter().filter(|w| of(session)(w)).count();
                        let oldest = waits.iter().position(of(session)).filter(|_| all == MOST);
                        let lost = counts.wait(stream, MOST, Duration::from_secs(at), at);
                        prop_assert_eq!(lost, oldest.map(|n| waits.remove(n).1));
                        waits.push((stream, at));
                    }
                    0..=3 => prop_assert_eq!(counts.has(stream), line.is_some()),
                    4 => {
                        let line = line.map(|n| CountsOf::Ended(waits.remove(n).1));
                        let runs = counts.has(stream).then_some(CountsOf::Runs(tag as i32));
                        prop_assert_eq!(counts.come(stream), line.or(runs));
                    }
                    _ => {
                        let mut lines = counts.forget(session);
                        lines.sort_unstable();
                        let wanted = waits.extract_if(.., |w| of(session)(w)).map(|(_, n)| n);
                        prop_assert_eq!(lines, wanted.collect::<Vec<_>>());
                        let is_there = |tag| counts.has(StreamTag { session, tag });
                        prop_assert!(!(0..6).any(is_there));
                    }
                }
            }
        }
    }
}
