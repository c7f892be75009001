//! What may have its service, and waits because as many children of its user as may be under way
//! are held up on their way to exec or connect (`turns`). Nobody waits with it but the client that
//! asked, and the sources of clients take turns.

use crate::parent::arrival::{Arrival, Requester};
use crate::parent::backend::exec::Plan;
use crate::parent::tokens::NetToken;
use crate::policy::{BySource, Permit, Source};
use std::collections::BTreeMap;

/// Something that waits so, for a client.
pub trait Deferrable {
    fn arrival(&self) -> &Arrival;
}

/// A start, with all that it needs.
pub struct DeferredStart {
    pub permit: Permit,
    pub plan: Plan,
    pub arrival: Arrival,
}

impl Deferrable for DeferredStart {
    fn arrival(&self) -> &Arrival {
        &self.arrival
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
        self.iter().any(|d| is_of(d.arrival().who.requester))
    }

    /// One more of this user waits, for its turn among those of other sources. `left`: how many
    /// more services may run; if as many of this user wait, one of the source with most waits no
    /// longer, and is returned. So a user never has as many as are left for all others.
    pub fn add(&mut self, uid: u32, left: usize, what: Box<T>) -> Option<Box<T>> {
        let source = Source::of(what.arrival().who.addresses.peer());
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
