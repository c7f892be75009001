//! The connections of this process that wait for a session which has lost its own (`resume`).

use crate::link::Link;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module. Each has a thread that waits until it is taken or refused.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    links: HashMap<u64, Link>,
}

impl Connections {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection waits; returns its number.
    pub fn put(&self, link: Link) -> u64 {
        let mut waiting = self.waiting();
        waiting.last += 1;
        let number = waiting.last;
        waiting.links.insert(number, link);
        number
    }

    /// Takes it. None: it was taken already.
    pub fn take(&self, number: u64) -> Option<Link> {
        self.waiting().links.remove(&number)
    }
}
