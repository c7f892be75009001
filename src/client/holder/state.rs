//! The holder's state, and how many descriptors it may use.

use super::away::Away;
use super::call::{Call, Pending};
use super::callers::Callers;
use super::forwards::Forwards;
use super::liveness::{Liveness, Unanswered};
use super::session_socket::SessionSocket;
use super::successor::{Left, Successor};
use crate::client::offer::Attempt;
use crate::client::open::OpenSession;
use crate::client::options::is_path;
use crate::client::request::Request;
use crate::client::resume::Resumable;
use crate::client::target::Target;
use crate::link::Link;
use crate::link::pump::Pump;
use crate::sys::network::NetworkChanges;
use crate::sys::{clock, process};
use crate::wire::yamux::{Mux, StreamId};
use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Descriptors of the holder itself: session, socket, signals, a probe, attempts to resume the
/// session, and some spare ones.
const OWN: usize = 14;
/// Descriptors of a call, at most.
const OF_A_CALL: usize = 3;
/// One in so many descriptors is for calls alone, however many applications connect to the
/// forwards.
const CALLS_SHARE: usize = 4;

/// What the holder does at the end of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It goes on until nobody needs the session.
    Holding,
    /// The session has ended. It hands its forwards on.
    Outliving,
    /// It ends: `-O exit` or a signal asked for that.
    Ending,
}

/// The process that has a session.
pub struct Holder {
    pub(super) link: Link,
    pub(super) pump: Pump<Call>,
    /// The stream on which the session's first request was sent, until its call comes.
    pub(super) first: Option<(StreamId, Request)>,
    /// The virtual hosts that the server has, as far as calls have asked for them: a session's are
    /// the same to its end.
    pub(super) hosts: HashSet<String>,
    /// The channel by which the session's connection is held open, if it leads through a gate.
    pub(super) gate: Option<OwnedFd>,
    /// How the session goes on on another connection. None: it cannot.
    pub(super) resumable: Option<Arc<Resumable>>,
    /// While it has none.
    pub(super) away: Option<Box<Away>>,
    pub(super) last_attempt: Duration,
    /// None: there is nothing to be resumed, or the kernel does not tell.
    pub(super) network: Option<NetworkChanges>,
    /// Whose session it is, for -O and for the next one.
    pub(super) target: Target,
    /// None: the session is its one caller's alone, or takes no new callers any more.
    pub(super) socket: Option<SessionSocket>,
    /// When it was checked last whether callers find that.
    pub(super) found: Duration,
    pub(super) forwards: Forwards,
    /// Applications that the next session serves, in the order in which they came.
    pub(super) left: Vec<Left>,
    /// Hands them on, once the session takes no more calls.
    pub(super) successor: Option<Successor>,
    /// Connections to what serves offers that have yet to be accepted, by their clients' streams.
    pub(super) connecting: Vec<(StreamId, Attempt)>,
    /// How long the session is kept after its last call. Zero where its one caller has it alone.
    pub(super) persist: Duration,
    /// How many descriptors this process may have.
    pub(super) descriptors: usize,
    pub(super) callers: Callers,
    /// Calls for which the server has no room now.
    pub(super) waiting: VecDeque<Pending>,
    pub(super) liveness: Liveness,
    pub(super) now: Duration,
    pub(super) began: Duration,
    /// When the last call ended.
    pub(super) idle: Duration,
    pub(super) phase: Phase,
    /// Does the server know RUN? Until it says no.
    pub(super) knows_run: bool,
}

impl Holder {
    /// A holder of `session`, whose first caller is at the other end of `first`.
    pub fn new(
        session: OpenSession,
        target: Target,
        mut socket: Option<SessionSocket>,
        mut forwards: Forwards,
        first: OwnedFd,
    ) -> Holder {
        forwards.claim();
        socket.iter_mut().for_each(SessionSocket::claim);
        let now = clock::monotonic();
        let answers = match (&session.resumable, is_path(&target.host)) {
            (Some(_), _) => Unanswered::Resume,
            (None, false) => Unanswered::Probe,
            (None, true) => Unanswered::Wait,
        };
        let liveness = Liveness::new(session.link.socket(), answers, now);
        let mut pump = Pump::new(session.mux);
        if session.first.is_none() {
            pump.start_reading();
        }
        Holder {
            link: session.link,
            pump,
            first: session.first,
            hosts: HashSet::new(),
            gate: session.gate,
            network: session.resumable.as_ref().and_then(|_| NetworkChanges::new().ok()),
            resumable: session.resumable.map(Arc::new),
            away: None,
            last_attempt: Duration::ZERO,
            persist: if socket.is_some() { target.persist } else { Duration::ZERO },
            target,
            socket,
            found: now,
            forwards,
            left: Vec::new(),
            successor: None,
            connecting: Vec::new(),
            descriptors: process::raise_nofile()
                .map_or(256, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            callers: Callers::new(first),
            waiting: VecDeque::new(),
            liveness,
            now,
            began: now,
            idle: now,
            phase: Phase::Holding,
            knows_run: true,
        }
    }

    /// How many descriptors a holder with so many forwards and offers needs at least: those for its
    /// first call too, two listeners for each forward, and a stream for each offer.
    pub fn descriptors_needed(forwards: usize, offers: usize) -> u64 {
        (OWN + 1 + OF_A_CALL * (1 + offers) + 2 * forwards) as u64
    }

    /// No stream, and no call that waits for one; offers do not count.
    pub(super) fn has_nothing_open(&self) -> bool {
        let calls = self.pump.streams().map(|(_, s)| &s.owner);
        calls.chain(self.waiting.iter().map(|p| &p.call)).all(|call| call.offers().is_some())
    }

    pub(super) fn mux(&self) -> &Mux {
        self.pump.mux()
    }

    /// Is there something that the next session's holder is to have?
    pub(super) fn has_something_to_hand_on(&self) -> bool {
        self.forwards.keep_the_holder() || !self.left.is_empty()
    }

    /// Are there `more` descriptors? If not, callers wait.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let used = OWN
            + self.callers.all.len()
            + self.forwards.listeners().count()
            + OF_A_CALL * (self.pump.len() + self.waiting.len());
        used + more <= self.descriptors
    }

    /// May another application's connection be taken? A share of the descriptors is for calls
    /// alone.
    pub(super) fn has_room_for_applications(&self) -> bool {
        self.has_room(OF_A_CALL + self.descriptors / CALLS_SHARE)
    }

    /// May a connection to a forward be taken? If not, the next session may serve it.
    pub(super) fn serves_forwards(&self) -> bool {
        !self.mux().is_going_away() && self.has_room_for_applications()
    }

    /// May another call be taken?
    pub(super) fn has_room_for_calls(&self) -> bool {
        self.has_room(OF_A_CALL)
    }

    /// May another caller be accepted, with its call?
    pub(super) fn has_room_for_callers(&self) -> bool {
        self.has_room(OF_A_CALL + 1)
    }
}
