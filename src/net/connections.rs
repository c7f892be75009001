//! The connections of this process that are offered to sessions which have lost theirs (`resume`).

use crate::link::Link;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module. Each has a thread that waits until it is taken or refused.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Offered>);

#[derive(Debug, Default)]
struct Offered {
    last: u64,
    links: HashMap<u64, Link>,
}

impl Connections {
    fn offered(&self) -> MutexGuard<'_, Offered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers a connection; returns its number.
    pub fn put(&self, link: Link) -> u64 {
        let mut offered = self.offered();
        offered.last += 1;
        let number = offered.last;
        offered.links.insert(number, link);
        number
    }

    /// Takes it. None: it was taken already.
    pub fn take(&self, number: u64) -> Option<Link> {
        self.offered().links.remove(&number)
    }
}
