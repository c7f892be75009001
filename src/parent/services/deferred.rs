//! What may have its service, and waits because as many children of its user as may be under way
//! are held up on their way to exec or connect (`turns`). Nobody waits with it but the client that
//! asked, and the sources of clients take turns.

use crate::parent::arrival::{Arrival, Requester, Who};
use crate::parent::backend::exec::Plan;
use crate::parent::tokens::NetToken;
use crate::policy::{BySource, Permit, Source};
use std::collections::BTreeMap;

/// Something that waits so, for a client.
pub trait Deferrable {
    fn who(&self) -> &Who;
}

/// A start, with all that it needs.
pub struct DeferredStart {
    pub permit: Permit,
    pub plan: Plan,
    pub arrival: Arrival,
}

impl Deferrable for DeferredStart {
    fn who(&self) -> &Who {
        &self.arrival.who
    }
}

/// See the module. By the user's id; no queue is empty.
pub struct Deferred<T> {
    users: BTreeMap<u32, BySource<Box<T>>>,
    /// The user whose was taken last.
    last: u32,
}

impl<T> Default for Deferred<T> {
    fn default() -> Deferred<T> {
        Deferred { users: BTreeMap::new(), last: 0 }
    }
}

impl<T: Deferrable> Deferred<T> {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.users.values().flat_map(BySource::iter).map(|what| &**what)
    }

    /// Does one wait that is to run as this user?
    pub fn has(&self, uid: u32) -> bool {
        self.users.contains_key(&uid)
    }

    /// The users, in turn.
    pub fn users(&self) -> Vec<u32> {
        let after = self.users.range(self.last.saturating_add(1)..);
        after.chain(self.users.range(..=self.last)).map(|(uid, _)| *uid).collect()
    }

    /// All of them, which are no longer here.
    pub fn take(&mut self) -> Vec<Box<T>> {
        self.take_if(|_| true)
    }

    /// Those that do not wait any more.
    pub fn take_if(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<Box<T>> {
        let taken = self.users.values_mut().flat_map(|of| of.take_if(|t| is_over(t))).collect();
        self.users.retain(|_, of| !of.is_empty());
        taken
    }

    /// Does a client of that net process wait?
    pub fn for_net(&self, net: NetToken) -> bool {
        let is_of = |from: Requester| matches!(from, Requester::Net(n) if n == net);
        self.iter().any(|d| is_of(d.who().requester))
    }

    /// One more of this user waits, for its turn among those of other sources. `left`: how many
    /// more services may run; if as many of this user wait, one of the source with most waits no
    /// longer, and is returned. So a user never has as many as are left for all others.
    pub fn add(&mut self, uid: u32, left: usize, what: Box<T>) -> Option<Box<T>> {
        let source = Source::of(what.who().addresses.peer());
        let of = self.users.entry(uid).or_default();
        let lost = of.add_within(left, source, what);
        if of.is_empty() {
            self.users.remove(&uid);
        }
        lost
    }

    /// Takes the next one of this user.
    pub fn next(&mut self, uid: u32) -> Option<Box<T>> {
        let of = self.users.get_mut(&uid)?;
        let next = of.take_next();
        if of.is_empty() {
            self.users.remove(&uid);
        }
        self.last = uid;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::addresses::Addresses;
    use crate::policy::{Facts, HostId, PeerName, Reached};
    use proptest::prelude::*;

    struct Waits(u32, Who);

    impl Deferrable for Waits {
        fn who(&self) -> &Who {
            &self.1
        }
    }

    fn token(net: u8) -> NetToken {
        mio::Token(net.into()).into()
    }

    /// Number `what`, of a client of this source, and of the net process of the same number.
    fn waits(what: u32, n: u8) -> Box<Waits> {
        let peer = ([192, 0, 2, n], 1).into();
        let addresses = Addresses::Internet { peer, local: ([127, 0, 0, 1], 1).into() };
        let facts = Facts {
            peer: addresses.peer(),
            host: HostId(0),
            encrypted: false,
            login: None,
            minute: 0,
            peer_name: PeerName::NotAsked,
            reached: Reached::AtPort,
        };
        let requester = Requester::Net(token(n));
        let who = Who { addresses, facts, number: 0, account: None, tls: None, requester };
        Box::new(Waits(what, who))
    }

    const LEFT: usize = 5;

    proptest! {
        /// Whose turn it is among a user's is tested with [`BySource`].
        #[test]
        fn users_take_turns_and_none_has_more_than_is_left(
            steps in proptest::collection::vec((0u8..8, 1u32..5, 0u8..3), 0..100),
        ) {
            let mut all = Deferred::default();
            let (mut wanted, mut last) = (Vec::<(u32, u32, u8)>::new(), 0);
            for (what, (kind, uid, n)) in (0..).zip(steps) {
                match kind {
                    0..=3 => {
                        let count = wanted.iter().filter(|(u, ..)| *u == uid).count();
                        wanted.push((uid, what, n));
                        let lost = all.add(uid, LEFT, waits(what, n)).map(|lost| lost.0);
                        prop_assert_eq!(lost.is_some(), count == LEFT);
                        wanted.retain(|(_, what, _)| Some(*what) != lost);
                    }
                    4..=6 => {
                        let mut users = all.users();
                        if let Some(next) = users.first().copied() {
                            let taken = all.next(next).expect("one waits").0;
                            let at = wanted.iter().position(|(u, w, _)| (*u, *w) == (next, taken));
                            wanted.remove(at.expect("it waits"));
                            // Nobody between this user and the one before.
                            users.sort_unstable_by_key(|u| (*u <= last, *u));
                            prop_assert_eq!(users[0], next);
                            last = next;
                        }
                    }
                    _ => {
                        let mut over: Vec<u32> =
                            all.take_if(|w| w.0 % 7 == 0).into_iter().map(|w| w.0).collect();
                        over.sort_unstable();
                        let gone = wanted.extract_if(.., |(_, w, _)| *w % 7 == 0);
                        prop_assert_eq!(over, gone.map(|(_, w, _)| w).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(all.iter().count(), wanted.len());
                prop_assert_eq!(all.is_empty(), wanted.is_empty());
                for uid in 0..6 {
                    let waits = wanted.iter().any(|(u, ..)| *u == uid);
                    prop_assert_eq!((all.has(uid), all.users().contains(&uid)), (waits, waits));
                }
                for net in 0..3 {
                    let waits = wanted.iter().any(|(_, _, n)| *n == net);
                    prop_assert_eq!(all.for_net(token(net)), waits);
                }
            }
            prop_assert_eq!(all.take().len(), wanted.len());
            prop_assert!(all.is_empty());
        }
    }
}
