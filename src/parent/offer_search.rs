//! The search for a session that takes a client of an offered service: which of those that offer it
//! is asked next, and until when it may answer. And which clients wait for which session.
//!
//! Sessions are lost and resumed as often as their users like, and each time the clients that wait
//! go to those that are up. What this costs the parent grows with the number of clients, never with
//! its square, and no client waits the longer for it.

use super::arrival::{Arrival, From};
use crate::policy::{Permit, Source};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// What becomes of a client whose session was told that it waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next is asked. It did not answer in time.
    Another,
    /// It is gone.
    Gone,
}

/// What the session that was asked has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It gets the client's connection once it takes the client.
    Asked,
    /// The client's connection. When it takes the client it serves it at once, and nobody else may
    /// have the client before it has said that it does not.
    Handed,
    /// The same, and it was told that the client waits no more.
    Cancelled(Then),
}

/// A client that waits.
pub struct Waiting {
    pub permit: Permit,
    pub arrival: Arrival,
    pub step: Step,
    pub search: Search,
}

impl Waiting {
    /// Of which it is one more client.
    pub fn source(&self) -> Source {
        Source::of(self.arrival.who.facts.peer)
    }

    /// The session or net process that it came through, by its token.
    pub fn came_through(&self) -> Option<usize> {
        match self.arrival.who.from {
            From::Net(net) => Some(net),
            From::Session((session, _)) => Some(session),
            From::Port | From::Wait(_) => None,
        }
    }
}

/// An offer that stands.
pub struct Candidate {
    /// Its session, by its token, and that session's number.
    pub session: usize,
    pub number: u64,
    /// Clients that wait for the session at most: more it could not take anyway.
    pub most: usize,
    /// May the client's source have one more of its streams?
    pub has_share: bool,
    /// Does the session read what it is sent?
    pub is_up: bool,
}

/// See the module.
pub struct Search {
    /// The offers that can be asked yet.
    rest: VecDeque<u32>,
    /// When the client came, and how long a session may take to answer.
    since: Duration,
    timeout: Duration,
    /// The offers that were asked while their sessions were up, and until when each may answer:
    /// also when it is asked again.
    begun: Vec<(u32, Duration)>,
    /// The offer that was asked last, its session, by its token, and until when that may answer.
    pub offer: u32,
    pub session: usize,
    pub until: Duration,
    /// What those said that were asked.
    pub reasons: Vec<String>,
    /// Did all of them only lack room?
    pub busy: bool,
}

impl Search {
    /// Nobody was asked yet.
    pub fn new(rest: VecDeque<u32>, since: Duration, timeout: Duration) -> Search {
        Search {
            rest,
            since,
            timeout,
            begun: Vec::new(),
            offer: 0,
            session: 0,
            until: since,
            reasons: Vec::new(),
            busy: true,
        }
    }

    /// The next offer takes its turn: the first whose session is up and has room, else the first
    /// whose session has room. `about`: what is known of an offer; None: it stands no more. False:
    /// nobody is left.
    pub fn next(
        &mut self,
        asked: &Index,
        about: impl Fn(u32) -> Option<Candidate>,
        now: Duration,
    ) -> bool {
        if let Some((at, c)) = self.first_up(asked, &about, now)
            && let Some(offer) = self.rest.remove(at)
        {
            self.ask(offer, &c, now);
            return true;
        }
        while let Some(offer) = self.rest.pop_front() {
            let Some(c) = about(offer) else { continue };
            let lacks = lacks(&c, asked);
            if lacks.is_none() && self.until(offer, &c, now) > now {
                self.ask(offer, &c, now);
                return true;
            }
            self.busy &= lacks.is_some();
            let lost = if c.is_up { "no answer in time" } else { "its connection is lost" };
            let why = lacks.unwrap_or(lost);
            self.reasons.push(format!("session {}: {why}", c.number));
        }
        false
    }

    /// Could one that is up be asked now?
    pub fn has_one_up(
        &self,
        asked: &Index,
        about: impl Fn(u32) -> Option<Candidate>,
        now: Duration,
    ) -> bool {
        self.first_up(asked, &about, now).is_some()
    }

    /// The one that was asked is lost: it can be asked again, after the others.
    pub fn leave(&mut self) {
        self.rest.push_back(self.offer);
    }

    fn first_up(
        &self,
        asked: &Index,
        about: &impl Fn(u32) -> Option<Candidate>,
        now: Duration,
    ) -> Option<(usize, Candidate)> {
        let up = |offer: u32| {
            about(offer)
                .filter(|c| c.is_up && lacks(c, asked).is_none() && self.until(offer, c, now) > now)
        };
        self.rest.iter().enumerate().find_map(|(at, offer)| Some((at, up(*offer)?)))
    }

    /// Until when it may answer if it is asked now. All that are lost have the same time together.
    fn until(&self, offer: u32, c: &Candidate, now: Duration) -> Duration {
        let begun = self.begun.iter().find(|(n, _)| *n == offer);
        let since = if c.is_up { now } else { self.since };
        begun.map_or(since + self.timeout, |(_, until)| *until)
    }

    fn ask(&mut self, offer: u32, c: &Candidate, now: Duration) {
        (self.offer, self.session, self.until) = (offer, c.session, self.until(offer, c, now));
        if c.is_up && !self.begun.iter().any(|(n, _)| *n == offer) {
            self.begun.push((offer, self.until));
        }
    }
}

/// Why it has no room for the client, if it has none.
fn lacks(c: &Candidate, asked: &Index) -> Option<&'static str> {
    match (asked.count(c.session) < c.most, c.has_share) {
        (false, _) => Some("too many clients wait for it"),
        (true, false) => Some("too many of its clients are from this source"),
        (true, true) => None,
    }
}

/// Clients, by the token of a session or of a net process.
#[derive(Default)]
pub struct Index(HashMap<usize, BTreeSet<u32>>);

impl Index {
    pub fn add(&mut self, token: usize, client: u32) {
        self.0.entry(token).or_default().insert(client);
    }

    pub fn remove(&mut self, token: usize, client: u32) {
        if let Some(clients) = self.0.get_mut(&token) {
            clients.remove(&client);
            if clients.is_empty() {
                self.0.remove(&token);
            }
        }
    }

    pub fn count(&self, token: usize) -> usize {
        self.0.get(&token).map_or(0, BTreeSet::len)
    }

    /// Those of one, the oldest first.
    pub fn of(&self, token: usize) -> impl Iterator<Item = u32> {
        self.0.get(&token).into_iter().flatten().copied()
    }

    /// Those of all that are such.
    pub fn of_such(&self, such: impl Fn(usize) -> bool) -> impl Iterator<Item = u32> {
        self.0
            .iter()
            .filter(move |(token, _)| such(**token))
            .flat_map(|(_, clients)| clients)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Offers 1 to 9, each of the session of that number; those of `up` are up.
    fn about(up: &[u32], most: usize) -> impl Fn(u32) -> Option<Candidate> + use<> {
        let up = up.to_vec();
        move |n| {
            let (session, number) = (n as usize, n.into());
            (n < 10).then(|| Candidate {
                session,
                number,
                most,
                has_share: true,
                is_up: up.contains(&n),
            })
        }
    }

    fn search(rest: &[u32]) -> Search {
        Search::new(rest.iter().copied().collect(), at(0), TIMEOUT)
    }

    #[test]
    fn those_that_are_up_and_have_room_are_asked_first() {
        let mut s = search(&[1, 2, 77, 3, 4]);
        let mut asked = Index::default();
        asked.add(2, 5);
        for wanted in [3, 4, 1] {
            assert!(s.next(&asked, about(&[2, 3, 4], 1), at(1)));
            assert_eq!((s.offer, s.session), (wanted, wanted as usize));
        }
        assert!(s.busy && s.reasons.is_empty());
        assert!(!s.next(&asked, about(&[2, 3, 4], 1), at(1)));
        assert_eq!(s.reasons, ["session 2: too many clients wait for it"]);
        assert!(s.busy);
    }

    /// Two sessions that are lost and resumed in turn do not make a client wait for ever.
    #[test]
    fn a_session_that_is_asked_again_has_no_more_time() {
        let mut s = search(&[1, 2]);
        let asked = Index::default();
        for (now, up, until) in [(0, 1, 5), (1, 2, 6), (2, 1, 5), (3, 2, 6), (4, 1, 5)] {
            assert!(s.next(&asked, about(&[up], 9), at(now)));
            assert_eq!((s.offer, s.until), (up, at(until)));
            s.leave();
        }
        // The first has had its time, and the second has a second yet.
        assert!(!s.has_one_up(&asked, about(&[1], 9), at(5)));
        assert!(s.next(&asked, about(&[1, 2], 9), at(5)));
        assert_eq!((s.offer, s.until), (2, at(6)));
        assert!(!s.next(&asked, about(&[1, 2], 9), at(6)));
        assert_eq!(s.reasons, ["session 1: no answer in time"]);
        assert!(!s.busy);
    }

    /// Each that is up has its own time, and all that are lost have one together.
    #[test]
    fn those_that_are_lost_are_waited_for_once() {
        let mut s = search(&[1, 2, 3]);
        let asked = Index::default();
        assert!(s.next(&asked, about(&[], 9), at(0)));
        assert_eq!((s.offer, s.until), (1, at(5)));
        s.leave();
        assert!(s.next(&asked, about(&[2], 9), at(4)));
        assert_eq!((s.offer, s.until), (2, at(9)));
        // It was lost when it was asked first, which is not its own time.
        s.leave();
        assert!(s.next(&asked, about(&[1], 9), at(6)));
        assert_eq!((s.offer, s.until), (1, at(11)));
        assert!(s.next(&asked, about(&[], 9), at(7)), "2 has time yet");
        assert_eq!((s.offer, s.until), (2, at(9)));
    }

    /// What is looked at does not depend on how many wait.
    #[test]
    fn each_client_costs_the_same_however_many_wait() {
        let steps = |clients: u32| {
            let (mut asked, looks) = (Index::default(), Cell::new(0));
            let mut all: Vec<Search> = (0..clients).map(|_| search(&[1, 2])).collect();
            let mut up = 1;
            for turn in 0..4 {
                let about = about(&[up], clients as usize);
                let counted = |n| {
                    looks.set(looks.get() + 1);
                    about(n)
                };
                for (s, client) in all.iter_mut().zip(1..) {
                    if turn > 0 {
                        assert!(s.has_one_up(&asked, counted, at(turn)));
                        asked.remove(s.session, client);
                        s.leave();
                    }
                    assert!(s.next(&asked, counted, at(turn)));
                    asked.add(s.session, client);
                }
                let counts = [1, 2].map(|session| asked.count(session));
                assert_eq!(counts[up as usize - 1], clients as usize);
                assert_eq!(counts.iter().sum::<usize>(), clients as usize);
                up = 3 - up;
            }
            looks.get()
        };
        let one = steps(1);
        assert!(one > 0);
        assert_eq!(steps(1000), 1000 * one);
    }

    #[test]
    fn an_index_forgets_what_has_no_client() {
        let mut index = Index::default();
        for (token, client) in [(1, 7), (1, 3), (2, 5), (1, 7)] {
            index.add(token, client);
        }
        assert_eq!(index.of(1).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(index.of_such(|token| token != 1).collect::<Vec<_>>(), [5]);
        assert_eq!((index.count(1), index.count(2), index.count(3)), (2, 1, 0));
        for (token, client) in [(1, 3), (1, 7), (1, 9), (3, 5), (2, 5)] {
            index.remove(token, client);
        }
        assert!(index.0.is_empty());
    }
}
