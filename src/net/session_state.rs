//! A session's state, and the lines that it exchanges with its client.
//!
//! The built-ins use this. What a session does from its first request to its end is in
//! [`session`](super::session).

use super::channel::{Asked, Channel};
use super::counted::Counted;
use super::descriptors::Reservation;
use super::end::End;
use super::handover::Handover;
use super::idle_sessions::Noticed;
use super::request::Where;
use super::session_counts::{CountGuard, Full};
use super::world::World;
use crate::link::{BoundedLine, Link, copy};
use crate::policy::{Facts, Peer, PeerName, Source};
use crate::sys::clock;
use crate::sys::shared::Shared;
use crate::wire::builtins::Builtin;
use crate::wire::pubkey::CHALLENGE;
use crate::wire::reply;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Builtin(Builtin),
    /// A TLS handshake, without the word SSL before it.
    Tls,
    /// A TLS handshake at a services' own port of this number: a service follows, and no request.
    TlsPort(u32),
}

impl First {
    /// Does TLS begin at once? Its client cannot read a line before that.
    pub fn is_tls(self) -> bool {
        matches!(self, First::Tls | First::TlsPort(_))
    }

    /// May RESUME follow?
    pub fn leads_to_resume(self) -> bool {
        matches!(self, First::Tls | First::Builtin(Builtin::Ssl))
    }

    /// The number of the services' own port; None: a listener of fived's own.
    pub fn tls_port(self) -> Option<u32> {
        match self {
            First::TlsPort(n) => Some(n),
            First::Builtin(_) | First::Tls => None,
        }
    }
}

/// What the thread of a new session is given.
pub struct Start {
    pub world: Arc<World>,
    pub connection: Shared,
    pub facts: Facts,
    pub channel: Asked,
    pub place: Where,
    pub first: First,
    /// Counts it among the sessions.
    pub guard: CountGuard,
    /// Of a stream: the exporter of its connection, if that is TLS.
    pub outer: Option<[u8; CHALLENGE]>,
    /// Of a stream: where its service is put.
    pub handover: Option<Arc<Handover>>,
}

/// Starts a session and its thread. MULTIPLEX gets it as an argument, because streams start
/// sessions too.
pub type Begin = fn(Start);

/// A session. `C`: its channel to the parent, held by a thread or not. `L`: its connection, or
/// none.
pub struct Session<C = Rc<Channel>, L = Link> {
    // Declared before the connection, so that it is closed first.
    pub channel: C,
    pub link: L,
    // Last: the session is counted until its connection is closed.
    pub state: State,
}

/// A session's state, whatever holds its channel and its connection.
pub struct State {
    pub world: Arc<World>,
    pub facts: Facts,
    pub place: Where,
    /// By when the client must have chosen a service.
    pub deadline: Duration,
    /// By when its first request must have come. None: it has come.
    pub first_request: Option<Duration>,
    /// How many tries to log in have failed: by password, by key.
    pub tries: [u32; 2],
    /// As in [`Start`]; or of a connection that another process has.
    pub outer: Option<[u8; CHALLENGE]>,
    pub(super) handover: Option<Arc<Handover>>,
    /// The relay to its service, if it has one.
    pub(super) relay: Option<ServiceRelay>,
    /// The channel to the parent has ended.
    pub(super) parent_gone: bool,
    pub(super) guard: CountGuard,
}

/// The relay between a session's connection and its service.
pub struct ServiceRelay {
    /// None: another process has the session, and counts.
    pub counted: Option<Counted>,
    pub copying: Copying,
}

impl ServiceRelay {
    /// When it must go on even if nothing has come.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.copying {
            Copying::Bytes(..) => None,
            Copying::Records(state) => state.deadline(),
        }
    }
}

/// What is copied between a session's connection and its service.
pub enum Copying {
    /// Bytes, and the end of the service's connection that is here.
    Bytes(OwnedFd, copy::bytes::State),
    /// Records.
    Records(copy::records::State),
}

/// A session without a thread.
pub type Parked = Session<Channel>;

impl<C, L> Session<C, L> {
    /// The same session, with its channel held in another way.
    pub(super) fn hold<D>(self, how: impl FnOnce(C) -> D) -> Session<D, L> {
        Session { channel: how(self.channel), link: self.link, state: self.state }
    }

    /// The same session, on this connection.
    pub(super) fn with_link<M>(self, link: M) -> Session<C, M> {
        Session { channel: self.channel, link, state: self.state }
    }

    /// By when the client must have taken what is written now.
    pub fn soon(&self) -> Duration {
        clock::monotonic() + self.state.world.table.settings.request_timeout
    }

    /// For how long a resumable session is kept when its connection is lost.
    pub fn kept(&self, anonymous: bool) -> Duration {
        let s = &self.state.world.table.settings;
        if anonymous { s.resume_timeout_anonymous } else { s.resume_timeout }
    }

    /// The limit because of which it may only resume another session; None: it may do all.
    pub fn spare(&self) -> Option<Full> {
        self.state.guard.spare()
    }

    /// Its client has another address; and there may be another challenge for PUBKEY.
    pub fn moved(&mut self, peer: Peer, challenge: [u8; CHALLENGE]) {
        (self.state.facts.peer, self.state.outer) = (peer, Some(challenge));
        self.state.facts.peer_name = PeerName::default();
        self.state.guard.is_lost(false);
        self.state.guard.moves(peer);
    }
}

impl<C> Session<C> {
    /// Where nobody has logged in and no service runs, the session makes room for others.
    pub(super) fn makes_room(&mut self, serves: bool) {
        if serves || self.state.facts.login.is_some() {
            self.state.guard.stays();
        } else {
            self.state.guard.may_go(Noticed::Connection(self.link.shared_socket()));
        }
    }
}

impl Parked {
    /// A session that has not begun.
    pub(super) fn of(start: Start) -> Parked {
        Session {
            channel: Channel::new(start.channel),
            link: Link::plain(start.connection),
            state: State {
                deadline: clock::monotonic() + start.world.table.settings.login_timeout,
                first_request: None,
                guard: start.guard,
                world: start.world,
                facts: start.facts,
                place: start.place,
                tries: [0; 2],
                outer: start.outer,
                handover: start.handover,
                relay: None,
                parent_gone: false,
            },
        }
    }
}

impl State {
    /// By when the next request must have come.
    pub fn request_deadline(&self) -> Duration {
        self.first_request.map_or(self.deadline, |first| first.min(self.deadline))
    }
}

impl Session {
    /// Sets a place aside for a descriptor that the parent will be asked for. None: there is none.
    pub fn reserve(&self) -> Option<Reservation> {
        let source = Source::of(self.state.facts.peer);
        self.state.world.descriptors.reserve(source, self.channel.as_fd())
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let soon = self.soon();
        self.link.write_all(&*self.channel, bytes, soon)
    }

    /// Reads the next line. One that is too long ends the session.
    pub fn line(&mut self, max: usize) -> Result<Vec<u8>, End> {
        match self.link.read_line(&*self.channel, max, self.state.deadline)? {
            BoundedLine::Line(line) => Ok(line),
            BoundedLine::TooLong(_) => {
                self.close_with(reply::TOO_LONG)?;
                Err(End::Refused)
            }
        }
    }

    /// Writes these bytes, then closes the connection in order.
    pub fn close_with(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.write(bytes)?;
        self.link.linger();
        Ok(())
    }
}
