//! The search for a session that takes a client of an offered service: which of those that offer it
//! is asked next, and until when it may answer.
//!
//! Sessions are lost and resumed as often as their users like, and each time the clients that wait
//! go to those that are up. What this costs the parent grows with the number of clients, never with
//! its square, and no client waits the longer for it.

use super::offer_index::Index;
use super::offerers::{Name, Rank};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A client waits for so many times `connect_timeout` at most, however many sessions do not answer.
const TIMEOUTS: u32 = 3;

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
    /// Has it taken nobody of late?
    pub is_late: bool,
}

/// The offers of a user that can be asked yet.
pub struct OfUser {
    pub user: Rc<str>,
    pub offers: VecDeque<u32>,
    /// How often the client has waited for one of this user's.
    pub asked: u32,
}

/// A client that waits has asked for this service.
pub type Row = Rc<Name>;

/// See the module.
pub struct Search {
    pub row: Row,
    rest: Vec<OfUser>,
    /// When the client came, and how long a session may take to answer.
    since: Duration,
    timeout: Duration,
    /// The offers that were asked while their sessions were up, and until when each may answer:
    /// also when it is asked again.
    begun: Vec<(u32, Duration)>,
    /// The offer that was asked last, its user's place in `rest`, its session, by its token, when
    /// that was, and until when that may answer.
    pub offer: u32,
    user: usize,
    pub session: usize,
    pub asked_at: Duration,
    pub until: Duration,
    /// What those said that were asked.
    pub reasons: Vec<String>,
    /// Did all of them only lack room?
    pub busy: bool,
}

impl Search {
    /// Nobody was asked yet.
    pub fn new(row: Row, rest: Vec<OfUser>, since: Duration, timeout: Duration) -> Search {
        Search {
            row,
            rest,
            since,
            timeout,
            begun: Vec::new(),
            offer: 0,
            user: 0,
            session: 0,
            asked_at: since,
            until: since,
            reasons: Vec::new(),
            busy: true,
        }
    }

    /// Whose session was asked last.
    pub fn user(&self) -> &str {
        self.rest.get(self.user).map_or("", |of| &of.user)
    }

    /// The next offer takes its turn: one whose session is up and has room, else one whose session
    /// has room; of several, that of the user who was asked least for this client, and has the
    /// lowest rank. `about`: what is known of an offer; None: it stands no more. False: nobody is
    /// left, or no time.
    pub fn next(
        &mut self,
        asked: &Index,
        about: impl Fn(u32) -> Option<Candidate>,
        rank: impl Fn(&str) -> Rank,
        now: Duration,
    ) -> bool {
        if now >= self.end() {
            if self.rest.iter().any(|of| !of.offers.is_empty()) {
                self.reasons.push("no time is left for others".into());
                self.busy = false;
            }
            return false;
        }
        let up = |(user, of): (usize, &OfUser)| {
            let (at, c) = self.first_up(of, asked, &about, now)?;
            let rank = rank(&of.user);
            Some(((of.asked, c.is_late || rank.is_late, rank), user, at, c))
        };
        let first = self.rest.iter().enumerate().filter_map(up).min_by_key(|(key, ..)| *key);
        if let Some((_, user, at, c)) = first
            && let Some(offer) = self.rest[user].offers.remove(at)
        {
            self.ask((offer, user), &c, now);
            return true;
        }
        while let Some((offer, user)) = self.pop(&rank) {
            let Some(c) = about(offer) else { continue };
            let lacks = lacks(&c, asked);
            if lacks.is_none() && self.until(offer, &c, now) > now {
                self.ask((offer, user), &c, now);
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
        self.rest.iter().any(|of| self.first_up(of, asked, &about, now).is_some())
    }

    /// The one that was asked is lost: it can be asked again, after the others.
    pub fn leave(&mut self) {
        if let Some(of) = self.rest.get_mut(self.user) {
            of.offers.push_back(self.offer);
        }
    }

    fn first_up(
        &self,
        of: &OfUser,
        asked: &Index,
        about: &impl Fn(u32) -> Option<Candidate>,
        now: Duration,
    ) -> Option<(usize, Candidate)> {
        let up = |offer: u32| {
            about(offer)
                .filter(|c| c.is_up && lacks(c, asked).is_none() && self.until(offer, c, now) > now)
        };
        of.offers.iter().enumerate().find_map(|(at, offer)| Some((at, up(*offer)?)))
    }

    /// The next offer, whatever is known of it, and its user's place.
    fn pop(&mut self, rank: impl Fn(&str) -> Rank) -> Option<(u32, usize)> {
        let left = self.rest.iter().enumerate().filter(|(_, of)| !of.offers.is_empty());
        let (user, _) = left.min_by_key(|(_, of)| (of.asked, rank(&of.user)))?;
        Some((self.rest[user].offers.pop_front()?, user))
    }

    /// Until when it may answer if it is asked now. All that are lost have the same time together.
    fn until(&self, offer: u32, c: &Candidate, now: Duration) -> Duration {
        let begun = self.begun.iter().find(|(n, _)| *n == offer);
        let since = if c.is_up { now } else { self.since };
        begun.map_or(since + self.timeout, |(_, until)| *until).min(self.end())
    }

    /// Until when the client waits, whoever is asked.
    fn end(&self) -> Duration {
        self.since + TIMEOUTS * self.timeout
    }

    fn ask(&mut self, (offer, user): (u32, usize), c: &Candidate, now: Duration) {
        (self.offer, self.user, self.session) = (offer, user, c.session);
        (self.asked_at, self.until) = (now, self.until(offer, c, now));
        self.rest[user].asked += 1;
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
                is_late: false,
            })
        }
    }

    /// Each of these offers is another user's.
    fn search(rest: &[u32]) -> Search {
        of_users(&rest.iter().map(std::slice::from_ref).collect::<Vec<_>>())
    }

    /// The offers of some users, who are called a, b and so on.
    fn of_users(rest: &[&[u32]]) -> Search {
        let of_user = |(n, offers): (u8, &&[u32])| OfUser {
            user: char::from(b'a' + n).to_string().into(),
            offers: offers.iter().copied().collect(),
            asked: 0,
        };
        Search::new(Row::default(), (0..).zip(rest).map(of_user).collect(), at(0), TIMEOUT)
    }

    /// Their ranks, if nobody was asked before.
    fn rank(user: &str) -> Rank {
        Rank { turn: user.bytes().next().map_or(0, u64::from), ..Rank::default() }
    }

    #[test]
    fn those_that_are_up_and_have_room_are_asked_first() {
        let mut s = search(&[1, 2, 77, 3, 4]);
        let mut asked = Index::default();
        asked.add(2, 5);
        for wanted in [3, 4, 1] {
            assert!(s.next(&asked, about(&[2, 3, 4], 1), rank, at(1)));
            assert_eq!((s.offer, s.session), (wanted, wanted as usize));
        }
        assert!(s.busy && s.reasons.is_empty());
        assert!(!s.next(&asked, about(&[2, 3, 4], 1), rank, at(1)));
        assert_eq!(s.reasons, ["session 2: too many clients wait for it"]);
        assert!(s.busy);
    }

    /// However many sessions one of them has.
    #[test]
    fn each_user_is_asked_before_another_session_of_the_same() {
        let mut s = of_users(&[&[1, 2, 3, 4], &[5, 6], &[7]]);
        let asked = Index::default();
        let ranks = |user: &str| match user {
            "a" => Rank { is_late: true, ..rank(user) },
            "b" => Rank { waiting: 1, ..rank(user) },
            _ => rank(user),
        };
        for wanted in [7, 5, 1, 6, 2, 3] {
            assert!(s.next(&asked, about(&[1, 2, 3, 4, 5, 6, 7], 9), ranks, at(0)));
            assert_eq!(s.offer, wanted);
        }
        // A session that is up comes before any other user's that is lost.
        let mut s = of_users(&[&[1, 2], &[3]]);
        for wanted in [1, 2, 3] {
            assert!(s.next(&asked, about(&[1, 2], 9), rank, at(0)));
            assert_eq!(s.offer, wanted);
        }
    }

    #[test]
    fn a_client_waits_for_a_few_sessions_and_not_for_all() {
        let mut s = of_users(&[&[1, 2, 3, 4, 5]]);
        let (asked, up) = (Index::default(), [1, 2, 3, 4, 5]);
        for (now, until) in [(0, 5), (4, 9), (9, 14), (14, 15)] {
            assert!(s.next(&asked, about(&up, 9), rank, at(now)));
            assert_eq!(s.until, at(until));
        }
        assert!(!s.next(&asked, about(&up, 9), rank, at(15)));
        assert_eq!(s.reasons, ["no time is left for others"]);
        assert!(!s.busy);
    }

    /// Two sessions that are lost and resumed in turn do not make a client wait for ever.
    #[test]
    fn a_session_that_is_asked_again_has_no_more_time() {
        let mut s = search(&[1, 2]);
        let asked = Index::default();
        for (now, up, until) in [(0, 1, 5), (1, 2, 6), (2, 1, 5), (3, 2, 6), (4, 1, 5)] {
            assert!(s.next(&asked, about(&[up], 9), rank, at(now)));
            assert_eq!((s.offer, s.until), (up, at(until)));
            s.leave();
        }
        // The first has had its time, and the second has a second yet.
        assert!(!s.has_one_up(&asked, about(&[1], 9), at(5)));
        assert!(s.next(&asked, about(&[1, 2], 9), rank, at(5)));
        assert_eq!((s.offer, s.until), (2, at(6)));
        assert!(!s.next(&asked, about(&[1, 2], 9), rank, at(6)));
        assert_eq!(s.reasons, ["session 1: no answer in time"]);
        assert!(!s.busy);
    }

    /// Each that is up has its own time, and all that are lost have one together.
    #[test]
    fn those_that_are_lost_are_waited_for_once() {
        let mut s = search(&[1, 2, 3]);
        let asked = Index::default();
        assert!(s.next(&asked, about(&[], 9), rank, at(0)));
        assert_eq!((s.offer, s.until), (1, at(5)));
        s.leave();
        assert!(s.next(&asked, about(&[2], 9), rank, at(4)));
        assert_eq!((s.offer, s.until), (2, at(9)));
        // It was lost when it was asked first, which is not its own time.
        s.leave();
        assert!(s.next(&asked, about(&[1], 9), rank, at(6)));
        assert_eq!((s.offer, s.until), (1, at(11)));
        assert!(s.next(&asked, about(&[], 9), rank, at(7)), "2 has time yet");
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
                    assert!(s.next(&asked, counted, rank, at(turn)));
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
}
