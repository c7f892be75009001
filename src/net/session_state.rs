//! A session's state, and its dialogue: what it says to its client, and the lines that it hears.
//!
//! The built-ins are written on this. What a session does with it from its first request to its
//! end is in [`session`](super::session).

use super::channel::Channel;
use super::end::End;
use super::handover::Handover;
use super::request::Where;
use super::standing::Place;
use super::world::World;
use crate::link::{BoundedLine, Link};
use crate::policy::Facts;
use crate::sys::clock;
use crate::sys::shared::Shared;
use crate::wire::builtins::Builtin;
use crate::wire::pubkey::CHALLENGE;
use crate::wire::reply;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Builtin(Builtin),
    /// A handshake, without the word SSL.
    Tls,
    /// Any request.
    Request,
}

/// What a new thread is given.
pub struct Start {
    pub world: Arc<World>,
    pub connection: Shared,
    pub peer: SocketAddr,
    pub facts: Facts,
    pub channel: OwnedFd,
    pub place: Where,
    pub first: First,
    /// Its place among those that stand.
    pub standing: Place,
    /// Of a stream: the exporter of its connection, where that is TLS.
    pub outer: Option<[u8; CHALLENGE]>,
    /// Of a stream: where its service goes.
    pub handover: Option<Arc<Handover>>,
}

/// What starts a session and its thread: handed to MULTIPLEX, whose streams begin sessions too.
pub type Begin = fn(Start);

/// A session's whole state, and its channel to the parent as whoever has it holds it.
pub struct Session<C = Rc<Channel>> {
    pub world: Arc<World>,
    // Before the connection: it goes in this order.
    pub channel: C,
    pub link: Link,
    pub peer: SocketAddr,
    pub facts: Facts,
    pub place: Where,
    /// When it must have chosen.
    pub deadline: Duration,
    /// Tries that failed: by password, by key.
    pub tries: [u32; 2],
    /// As in [`Start`].
    pub outer: Option<[u8; CHALLENGE]>,
    pub(super) handover: Option<Arc<Handover>>,
    // Last: it stands until its connection is closed.
    pub(super) standing: Place,
}

/// A session that no thread has.
pub type Parked = Session<Channel>;

impl<C> Session<C> {
    /// The same session, its channel held otherwise.
    pub(super) fn hold<D>(self, how: impl FnOnce(C) -> D) -> Session<D> {
        let Session {
            world,
            channel,
            link,
            peer,
            facts,
            place,
            deadline,
            tries,
            outer,
            handover,
            standing,
        } = self;
        Session {
            world,
            channel: how(channel),
            link,
            peer,
            facts,
            place,
            deadline,
            tries,
            outer,
            handover,
            standing,
        }
    }
}

impl Parked {
    /// A session that has not begun.
    pub(super) fn of(start: Start) -> Parked {
        Session {
            deadline: clock::monotonic() + start.world.table.settings.login_timeout,
            standing: start.standing,
            world: start.world,
            channel: Channel::new(start.channel),
            link: Link::plain(start.connection),
            peer: start.peer,
            facts: start.facts,
            place: start.place,
            tries: [0; 2],
            outer: start.outer,
            handover: start.handover,
        }
    }
}

impl Session {
    /// A time by which what is written must be taken.
    pub fn soon(&self) -> Duration {
        clock::monotonic() + self.world.table.settings.request_timeout
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let soon = self.soon();
        self.link.write_all(&*self.channel, bytes, soon)
    }

    /// The next line of a dialogue. One that is too long ends the session.
    pub fn line(&mut self, max: usize) -> Result<Vec<u8>, End> {
        match self.link.read_line(&*self.channel, max, self.deadline)? {
            BoundedLine::Line(line) => Ok(line),
            BoundedLine::TooLong(_) => {
                self.close_with(reply::TOO_LONG)?;
                Err(End::Refused)
            }
        }
    }

    /// Says something, and ends in order.
    pub fn close_with(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.write(bytes)?;
        self.link.linger();
        Ok(())
    }
}
