//! A client of an offered service, from its permit until a session has taken it.

use super::search::Search;
use crate::parent::arrival::{Arrival, Requester};
use crate::parent::tokens::{NetToken, SessionToken};
use crate::policy::{Permit, Source};

/// A process or a session that has brought a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CameThrough {
    Net(NetToken),
    Session(SessionToken),
}

/// What becomes of a client whose session was told that it waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCancel {
    /// The next is asked. It did not answer in time.
    AskAnother,
    /// It is gone.
    Gone,
}

/// What the session that was asked has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It gets the client's connection once it takes the client.
    Asked,
    /// The client's connection. When it takes the client it serves it at once, and nobody else may
    /// have the client before it has said that it does not.
    Handed,
    /// It was handed the connection, and then told that the client waits no more.
    Cancelled(AfterCancel),
}

/// A client that waits.
pub struct Waiting {
    pub permit: Permit,
    pub arrival: Arrival,
    pub step: Step,
    pub search: Search,
}

impl Waiting {
    /// Of which it is one more client.
    pub fn source(&self) -> Source {
        Source::of(self.arrival.who.facts.peer)
    }

    /// The session or net process that it came through.
    pub fn came_through(&self) -> Option<CameThrough> {
        match self.arrival.who.requester {
            Requester::Net(net) => Some(CameThrough::Net(net)),
            Requester::Session(stream) => Some(CameThrough::Session(stream.session)),
            Requester::Port(_) | Requester::Wait(_) => None,
        }
    }
}

/// Why a session that was asked does not take the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    NoRoom,
    Refused,
    /// It has not answered in time.
    Late,
    SessionEnded,
}

impl Declined {
    pub fn as_str(self) -> &'static str {
        match self {
            Declined::NoRoom => "it has no room for a stream",
            Declined::Refused => "refused",
            Declined::Late => "no answer in time",
            Declined::SessionEnded => "its session has ended",
        }
    }
}
