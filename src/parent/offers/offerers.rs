//! Those who offer a service: whose turn it is. Users take turns, and then the sessions of a user:
//! by more sessions nobody gets more clients, or holds up more of them.

use crate::policy::{HostScope, Service, Table};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

/// Most sessions answer sooner: a user whom a client has waited for this long is asked for no more
/// while there are others who do not let clients wait.
const SLOW: Duration = Duration::from_millis(100);

/// A service, by its host's name (`*`: every host's) and its own in lower case.
pub type Name = (String, String);

/// See the module.
#[derive(Default)]
pub struct Offerers {
    users: HashMap<Rc<str>, OfUser>,
    /// Of the turns so far, the last.
    turn: u64,
}

#[derive(Default)]
struct OfUser {
    /// The oldest first, and whose turn was last.
    offers: Vec<u32>,
    last: u32,
    /// The user's last turn.
    turn: u64,
    /// Clients for which a session of this user was asked and has not answered, and since when.
    waiting: BTreeSet<(Duration, u32)>,
    /// Until then the user is asked last, because a session did not answer.
    late_until: Duration,
}

/// Whoever has the lowest is asked first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub is_late: bool,
    /// A client has waited for [`SLOW`] already.
    pub is_slow: bool,
    pub waiting: usize,
    pub turn: u64,
}

impl Offerers {
    /// One more offer of this user's. Who is new has the last turn.
    pub fn add(&mut self, user: &str, offer: u32) {
        if !self.users.contains_key(user) {
            self.turn += 1;
            let new = OfUser { turn: self.turn, ..OfUser::default() };
            self.users.insert(user.into(), new);
        }
        if let Some(of) = self.users.get_mut(user) {
            of.offers.push(offer);
        }
    }

    /// One has ended. True: it was the last of all.
    pub fn remove(&mut self, user: &str, offer: u32) -> bool {
        if let Some(of) = self.users.get_mut(user) {
            of.offers.retain(|n| *n != offer);
            if of.offers.is_empty() {
                self.users.remove(user);
            }
        }
        self.users.is_empty()
    }

    /// The offers of each user, the next in turn first.
    pub fn offers(&self) -> impl Iterator<Item = (&Rc<str>, Vec<u32>)> {
        self.users.iter().map(|(user, of)| {
            let (before, after) = of.offers.split_at(of.offers.partition_point(|n| *n <= of.last));
            (user, [after, before].concat())
        })
    }

    pub fn rank(&self, user: &str, now: Duration) -> Rank {
        self.users.get(user).map_or(Rank::default(), |of| Rank {
            is_late: of.late_until > now,
            is_slow: of.waiting.first().is_some_and(|(since, _)| *since + SLOW <= now),
            waiting: of.waiting.len(),
            turn: of.turn,
        })
    }

    /// It is this offer's turn: this client waits for its session.
    pub fn asked(&mut self, user: &str, offer: u32, (since, client): (Duration, u32)) {
        self.turn += 1;
        if let Some(of) = self.users.get_mut(user) {
            of.waiting.insert((since, client));
            (of.last, of.turn) = (offer, self.turn);
        }
    }

    /// That client waits no more for a session of this user.
    pub fn answered(&mut self, user: &str, client: (Duration, u32)) {
        if let Some(of) = self.users.get_mut(user) {
            of.waiting.remove(&client);
        }
    }

    /// A session of this user has not answered in time.
    pub fn late(&mut self, user: &str, until: Duration) {
        if let Some(of) = self.users.get_mut(user) {
            of.late_until = until;
        }
    }
}

/// The name of this service.
pub fn name(table: &Table, service: &Service) -> Name {
    let host = match service.host {
        HostScope::All => "*",
        HostScope::Host(id) => table.host(id).map_or("", |h| h.name.as_str()),
    };
    (host.to_ascii_lowercase(), service.name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(9);

    /// Who is asked next.
    fn next(row: &Offerers) -> (String, u32) {
        let all = row.offers().map(|(user, offers)| (row.rank(user, NOW), user, offers));
        let (_, user, offers) = all.min().expect("somebody");
        (user.to_string(), offers[0])
    }

    #[test]
    fn users_take_turns_and_then_their_sessions() {
        let mut row = Offerers::default();
        for (user, offer) in [("bob", 1), ("bob", 2), ("alice", 3), ("bob", 4)] {
            row.add(user, offer);
        }
        let served = |row: &mut Offerers| {
            let (user, offer) = next(row);
            row.asked(&user, offer, (NOW, 7));
            row.answered(&user, (NOW, 7));
            offer
        };
        let turns: Vec<u32> = (0..7).map(|_| served(&mut row)).collect();
        assert_eq!(turns, [1, 3, 2, 3, 4, 3, 1]);
        // Who offers it anew gets no turn by that.
        assert!(!row.remove("alice", 3));
        row.add("alice", 5);
        row.add("carol", 6);
        let turns: Vec<u32> = (0..4).map(|_| served(&mut row)).collect();
        assert_eq!(turns, [2, 5, 6, 4]);
        for (user, offer) in [("bob", 1), ("bob", 2), ("alice", 5), ("bob", 4)] {
            assert!(!row.remove(user, offer));
        }
        assert!(row.remove("carol", 6));
    }

    #[test]
    fn who_does_not_answer_is_asked_last() {
        let mut row = Offerers::default();
        (1..5).for_each(|offer| row.add("bob", offer));
        row.add("alice", 5);
        let before = NOW - SLOW;
        row.asked("bob", 1, (before, 1));
        for client in 2..5 {
            assert_eq!(next(&row), ("alice".into(), 5));
            row.asked("alice", 5, (NOW, client));
        }
        row.answered("bob", (before, 1));
        assert_eq!(next(&row), ("bob".into(), 2));
        // Who has the fewest, where all answer soon.
        row.asked("bob", 2, (NOW, 1));
        assert_eq!(next(&row), ("bob".into(), 3));
        (2..5).for_each(|client| row.answered("alice", (NOW, client)));
        assert_eq!(next(&row), ("alice".into(), 5));
        row.answered("bob", (NOW, 1));
        row.asked("alice", 5, (NOW, 2));
        row.answered("alice", (NOW, 2));
        row.late("bob", NOW + Duration::from_secs(1));
        assert_eq!(next(&row), ("alice".into(), 5));
        row.late("bob", NOW);
        assert_eq!(next(&row), ("bob".into(), 3));
    }
}
