//! The sessions that make room for others where `max_sessions` stand: in which nobody has logged in
//! and no service runs, lost ones too.
//!
//! The source that has most of them loses its oldest, unless the newcomer's source has as many:
//! so nobody is shut out by somebody who holds more, and a session goes only for one
//! of a source with fewer.

use super::sources::{Serial, Sources};
use crate::policy::Source;
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

/// The number of a session in this process; an older one has a lower one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(Serial);

impl SessionNumber {
    /// That of the session that is counted after this one.
    pub fn next(self) -> SessionNumber {
        SessionNumber(self.0 + 1)
    }
}

/// See the module. `T`: what else the owner knows of each.
#[derive(Debug)]
pub struct IdleSessions<T> {
    sources: Sources<SessionNumber>,
    all: HashMap<SessionNumber, Idle<T>>,
}

/// By which socket an idle session notices that it has to go: its end is what it, or whoever waits
/// for it, sees.
#[derive(Debug, Clone, Copy)]
pub enum Noticed<'a> {
    /// Its client's connection.
    Connection(&'a Arc<Shared>),
    /// Its channel to the parent: it is lost. It can still say why it ends.
    Channel(&'a Arc<Shared>),
}

/// An idle session.
#[derive(Debug)]
pub struct Idle<T> {
    pub source: Source,
    pub what: T,
    socket: Weak<Shared>,
    end: fn(BorrowedFd) -> io::Result<()>,
}

impl<T> Default for IdleSessions<T> {
    fn default() -> Self {
        IdleSessions { sources: Sources::default(), all: HashMap::new() }
    }
}

impl<T> IdleSessions<T> {
    /// A session is idle.
    pub fn insert(&mut self, number: SessionNumber, source: Source, noticed: Noticed, what: T) {
        self.remove(number);
        self.sources.insert(source, number.0, number);
        let (socket, end): (_, fn(BorrowedFd) -> io::Result<()>) = match noticed {
            Noticed::Connection(socket) => (socket, socket::shutdown_both),
            Noticed::Channel(socket) => (socket, socket::shutdown_read),
        };
        self.all.insert(number, Idle { source, what, socket: Arc::downgrade(socket), end });
    }

    /// A session is not idle any more. None: it was not.
    pub fn remove(&mut self, number: SessionNumber) -> Option<Idle<T>> {
        let idle = self.all.remove(&number)?;
        self.sources.remove(idle.source, number.0, number);
        Some(idle)
    }

    /// The session that has to go for one of this source, which it [notices](Noticed). None: there
    /// is no such session.
    pub fn evict(&mut self, newcomer: Source) -> Option<(SessionNumber, Idle<T>)> {
        let number = self.sources.oldest_of_more_than(newcomer)?;
        let idle = self.remove(number)?;
        if let Some(socket) = idle.socket.upgrade() {
            // An error means that the other end has closed it.
            let _ = (idle.end)(socket.as_fd());
        }
        Some((number, idle))
    }
}
