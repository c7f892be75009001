//! Arrivals that may have their service, and wait because as many starts of its user as may be
//! pending are held up (`turns`). Nobody waits with them but the clients that asked.

use crate::parent::arrival::{Arrival, Requester};
use crate::parent::backend::exec::Plan;
use crate::policy::Permit;
use std::collections::{BTreeMap, VecDeque};

/// Of one user, at most; one more is refused. All of them count as services that run (the settings
/// `max_services` and `max_services_per_source`).
const PER_USER_MAX: usize = 256;

/// One of them, with all that its start needs.
pub struct DeferredStart {
    pub permit: Permit,
    pub plan: Plan,
    pub arrival: Arrival,
}

/// See the module. By the user's id; no queue is empty.
#[derive(Default)]
pub struct Deferred(BTreeMap<u32, VecDeque<Box<DeferredStart>>>);

impl Deferred {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does one wait that is to run as this user?
    pub fn has(&self, uid: u32) -> bool {
        self.0.contains_key(&uid)
    }

    pub fn users(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// All of them, which are no longer here.
    pub fn take(&mut self) -> impl Iterator<Item = Box<DeferredStart>> + use<> {
        std::mem::take(&mut self.0).into_values().flatten()
    }

    /// Does a client of that net process wait?
    pub fn for_net(&self, net: usize) -> bool {
        let is_of = |from: Requester| matches!(from, Requester::Net(n) if n == net);
        self.0.values().flatten().any(|d| is_of(d.arrival.who.from))
    }

    /// Err: too many wait already.
    pub fn add(&mut self, start: Box<DeferredStart>) -> Result<(), Box<DeferredStart>> {
        let queue = self.0.entry(start.plan.uid).or_default();
        if queue.len() >= PER_USER_MAX {
            return Err(start);
        }
        queue.push_back(start);
        Ok(())
    }

    /// Takes the one of this user that has waited longest.
    pub fn next(&mut self, uid: u32) -> Option<Box<DeferredStart>> {
        let queue = self.0.get_mut(&uid)?;
        let start = queue.pop_front();
        if queue.is_empty() {
            self.0.remove(&uid);
        }
        start
    }
}
