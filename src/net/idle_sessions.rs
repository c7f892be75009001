//! The sessions that make room for others where `max_sessions` stand: in which nobody has logged in
//! and no service runs.
//!
//! The source that has most of them loses its oldest, unless the newcomer's source has as many:
//! so nobody is shut out by somebody who holds more than he does, and a session goes only for one
//! of a source with fewer.

use super::sources::{Serial, Slot, Sources};
use crate::policy::Source;
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Weak;

/// See the module. `T`: what else the owner knows of each.
#[derive(Debug)]
pub struct IdleSessions<T> {
    sources: Sources,
    all: HashMap<Slot, Idle<T>>,
}

/// An idle session.
#[derive(Debug)]
pub struct Idle<T> {
    pub source: Source,
    pub connection: Weak<Shared>,
    pub of: T,
}

impl<T> Default for IdleSessions<T> {
    fn default() -> Self {
        IdleSessions { sources: Sources::default(), all: HashMap::new() }
    }
}

impl<T> IdleSessions<T> {
    /// A session is idle. `number`: an older session has a lower one.
    pub fn insert(&mut self, number: Slot, source: Source, connection: Weak<Shared>, of: T) {
        self.remove(number);
        self.sources.insert(source, number as Serial, number);
        self.all.insert(number, Idle { source, connection, of });
    }

    /// A session is not idle any more. None: it was not.
    pub fn remove(&mut self, number: Slot) -> Option<Idle<T>> {
        let idle = self.all.remove(&number)?;
        self.sources.remove(idle.source, number as Serial, number);
        Some(idle)
    }

    /// The session that has to go for one of this source. Its connection is shut down, which wakes
    /// whoever waits for its client. None: there is no such session.
    pub fn evict(&mut self, newcomer: Source) -> Option<(Slot, Idle<T>)> {
        let number = self.sources.oldest_of_more_than(newcomer)?;
        let idle = self.remove(number)?;
        if let Some(connection) = idle.connection.upgrade() {
            // An error means that the client has closed it.
            let _ = socket::shutdown_both(connection.as_fd());
        }
        Some((number, idle))
    }
}
