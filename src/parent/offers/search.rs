//! The search for a session that takes a client of an offered service: which of those that offer it
//! is asked next, and until when it may answer.
//!
//! Sessions are lost and resumed as often as their users like, and each time the clients that wait
//! go to those that are up. What this costs the parent grows with the number of clients, never with
//! its square, and no client waits the longer for it.

use super::index::Index;
use super::offerers::{Name, Rank};
use crate::parent::tokens::SessionToken;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// How many times `connect_timeout` a client waits at most, however many sessions do not answer.
const TIMEOUTS: u32 = 3;

/// An offer that stands.
pub struct Candidate {
    /// Its session, and that session's number.
    pub session: SessionToken,
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
    /// All offers that began before are in `rest`, or were.
    known_until: Duration,
    /// The offers that were asked while their sessions were up, and until when each may answer:
    /// also when it is asked again.
    begun: Vec<(u32, Duration)>,
    /// The offer that was asked last, its user's place in `rest`, its session, when that was, and
    /// until when that may answer.
    pub offer: u32,
    user: usize,
    pub session: SessionToken,
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
            known_until: since,
            begun: Vec::new(),
            offer: 0,
            user: 0,
            session: SessionToken::of_number(0),
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
        asked: &Index<SessionToken>,
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

    /// Of these offers those that have begun since can be asked, too. `began`: when an offer did.
    /// False: none has.
    pub fn learn(
        &mut self,
        all: Vec<OfUser>,
        began: impl Fn(u32) -> Option<Duration>,
        now: Duration,
    ) -> bool {
        let mut any = false;
        for mut of in all {
            let is_new = |n: &u32| began(*n).is_some_and(|at| at >= self.known_until);
            of.offers.retain(|n| is_new(n) && !self.begun.iter().any(|(asked, _)| asked == n));
            any |= !of.offers.is_empty();
            match self.rest.iter_mut().find(|known| known.user == of.user) {
                Some(known) => known.offers.extend(of.offers),
                None => self.rest.push(of),
            }
        }
        self.known_until = now;
        any
    }

    /// Could one that is up be asked now?
    pub fn has_one_up(
        &self,
        asked: &Index<SessionToken>,
        about: impl Fn(u32) -> Option<Candidate>,
        now: Duration,
    ) -> bool {
        self.rest.iter().any(|of| self.first_up(of, asked, &about, now).is_some())
    }

    /// The one that was asked is lost: it can be asked again, after the others.
    pub fn put_back(&mut self) {
        if let Some(of) = self.rest.get_mut(self.user) {
            of.offers.push_back(self.offer);
        }
    }

    fn first_up(
        &self,
        of: &OfUser,
        asked: &Index<SessionToken>,
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
fn lacks(c: &Candidate, asked: &Index<SessionToken>) -> Option<&'static str> {
    match (asked.count(c.session) < c.most, c.has_share) {
        (false, _) => Some("too many clients wait for it"),
        (true, false) => Some("too many of its clients are from this source"),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests;
