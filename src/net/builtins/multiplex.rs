//! MULTIPLEX: many streams on one link, plain or TLS. One thread polls the link and the local end
//! of each stream, never waits in a write, and owns all of it: no locks. The pump copies; this
//! module knows what each stream is for.
//!
//! A stream's request is read by this thread: a stream that only waits costs no descriptor and no
//! thread. A service is asked for at once, whatever else is open. A stream that changes its own
//! facts (HOST, AUTH, PUBKEY), or offers a service (OFFER), gets a thread with a session of its
//! own, until it has a service or offers one ([`Handover`]).
//!
//! What a stalled stream does not take is held for it, at most its window; the others go on. RESUME
//! has the same streams, on a link that outlives its connection. Where that is lost, the thread
//! ends, and the streams wait without it (`lost`) for the next connection.
//!
//! | file | noun |
//! |---|---|
//! | `requests` | the requests of streams |
//! | `messages` | what the parent sends |
//! | `branching` | the channels of those that change their own facts |
//! | `services` | the services that they get |
//! | `offers` | services that the client offers |
//! | `client_here` | the connection of a client of one |
//! | `ending` | how the session ends |
//! | `over` | why the loop ends |
//! | `lost` | what becomes of streams while their connection is lost |

mod branching;
mod client_here;
mod ending;
mod lost;
mod messages;
mod offers;
mod over;
mod requests;
mod services;

use crate::link::Tally;
use crate::link::pump::{Event, LocalEnd, Pump};
use crate::net::counted::Counted;
use crate::net::descriptors::Reservation;
use crate::net::end::End;
use crate::net::handover::Handover;
use crate::net::request;
use crate::net::session_state::{Begin, Session};
use crate::policy::ServiceId;
use crate::sys::clock;
use crate::sys::flow::Flow;
use crate::sys::gauges::Multiplexed;
use crate::sys::poll::Poll;
use crate::sys::process;
use crate::wire::line::Line;
use crate::wire::orders::Why;
use crate::wire::reply;
use crate::wire::run::Way;
use crate::wire::yamux::{Mux, StreamId};
use branching::Branching;
use client_here::ClientHere;
use over::Over;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// What a stream is doing.
enum StreamState {
    /// Its request has not come completely.
    Requesting { line: Line, deadline: Duration, way: Way },
    /// What its request gets depends on the name of the client's address, which the parent was
    /// asked for. What follows the request is held.
    LookingUpName { text: Vec<u8>, way: Way },
    /// A service was asked for. The parent's answer brings our end of its connection; until then
    /// what follows is held.
    /// `run`: by RUN; does it write its own reply line?
    Starting { tag: u32, service: ServiceId, run: Option<bool> },
    /// A service has it. Not counted: a program that a thread of the stream got.
    Running { tag: u32, counted: Option<Counted> },
    /// A thread of its own serves it, and may get it a service.
    Branch { tag: u32, handover: Arc<Handover> },
    /// As long as it is open, its client offers a service, under this number.
    Offering(u32),
    /// It was opened for a client of a service that this session's client offers, and waits for
    /// the peer, and then for that client's connection, unless that is `here`.
    Asking { client: u32, here: Option<ClientHere>, _place: Reservation },
    /// It ends as soon as its answer is sent.
    Closing,
}

impl StreamState {
    /// By when its request must have come, if that is what it waits for.
    fn deadline(&self) -> Option<Duration> {
        match self {
            StreamState::Requesting { deadline, .. } => Some(*deadline),
            StreamState::LookingUpName { .. }
            | StreamState::Starting { .. }
            | StreamState::Running { .. }
            | StreamState::Branch { .. }
            | StreamState::Offering(_)
            | StreamState::Asking { .. }
            | StreamState::Closing => None,
        }
    }
}

/// How far the session is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The parent has told the session to go away: the client was told to open no new streams.
    GoingAway,
    /// The parent is gone: the same, and no stream can get a service any more.
    ParentGone,
}

/// The streams of a session.
pub struct Streams {
    /// Starts a session for a stream.
    begin: Begin,
    pump: Pump<StreamState>,
    tag: u32,
    /// Starts without an answer, also of streams that are gone; and how many there may be.
    starts: Vec<[Option<Reservation>; 2]>,
    starts_max: u32,
    /// The channel to the parent may have a message.
    channel_readable: bool,
    phase: Phase,
    /// The parent was asked for the name of the client's address.
    name_requested: bool,
    /// Cloned once for each stream with a thread of its own.
    branches: Arc<()>,
    /// The channels of such streams that the parent was asked for.
    branching: HashMap<u32, Branching>,
    /// The client had not logged in before MULTIPLEX.
    anonymous: bool,
    /// Since when an anonymous client has had no open stream.
    idle: Option<Duration>,
    _counted: Multiplexed,
}

/// Why streams are not served any more.
pub enum Served {
    /// The session has ended.
    Ended(End),
    /// The connection of a resumable session is lost, for this reason; its streams wait.
    Lost(End, Box<Streams>),
}

/// Streams, and the session whose they are, as long as that has a thread.
struct Multiplexer<'a> {
    session: &'a mut Session,
    streams: Streams,
}

/// The word MULTIPLEX: a reply, then frames. Err: the client did not take the reply.
pub fn run(session: &mut Session, begin: Begin) -> Result<Box<Streams>, End> {
    session.write(reply::SUCCESS)?;
    Ok(streams(session, begin))
}

/// New streams for a session.
pub fn streams(session: &mut Session, begin: Begin) -> Box<Streams> {
    session.link.read_ahead();
    let s = &session.state.world.table.settings;
    let anonymous = session.state.facts.login.is_none();
    let most = if anonymous { s.max_streams_anonymous } else { s.max_streams };
    let starts_max = s.unanswered(most);
    let now = clock::monotonic();
    let mut mux = Mux::new(s.keepalive, most, now);
    if anonymous {
        mux.keep_windows();
    }
    let mut pump = Pump::new(mux);
    // Frames may have come right after the request.
    pump.start_reading();
    Box::new(Streams {
        begin,
        pump,
        tag: 0,
        starts: Vec::new(),
        starts_max,
        channel_readable: true,
        phase: Phase::Serving,
        name_requested: false,
        branches: Arc::default(),
        branching: HashMap::new(),
        idle: anonymous.then_some(now),
        anonymous,
        _counted: Multiplexed::begin(),
    })
}

/// Serves streams until the client closes the link, or the session was told to go away and no
/// stream is left; or until the connection of a resumable session is lost.
pub fn serve(session: &mut Session, streams: Streams) -> Served {
    // This session keeps its thread, and has had a handshake.
    process::release_unused_stack();
    let mut m = Multiplexer { session, streams };
    let end = match m.serve() {
        Over::Lost(why) if m.outlives_its_connection() => return m.lost(why),
        Over::Lost(_) if m.session.link.is_ended() => End::Closed,
        Over::Lost(end) | Over::End(end) => end,
    };
    m.close(end);
    // The client now expects frames: no line can be sent, as would be for Full.
    Served::Ended(if end == End::Full { End::System } else { end })
}

impl Multiplexer<'_> {
    fn serve(&mut self) -> Over {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(end)) => return Over::End(end),
                Err(over) => return over,
            }
            if let Err(over) = self.wait() {
                return over;
            }
        }
    }

    /// One turn: handle what the client and the parent have sent, and what is due; then send.
    fn turn(&mut self) -> Result<Option<End>, Over> {
        self.streams.pump.begin_turn();
        while let Some(event) = self.streams.pump.event(&mut self.session.link)? {
            self.handle(event)?;
        }
        self.receive_answers()?;
        self.take_over();
        if !self.streams.pump.tick() {
            return Err(Over::Lost(End::Timeout));
        }
        self.expire();
        if self.idle_too_long() {
            self.streams.pump.go_away();
            return Ok(Some(End::Timeout));
        }
        self.streams.pump.send_queued(&mut self.session.link)?;
        if self.streams.anonymous {
            self.session.makes_room(self.streams.serves());
            if self.session.state.guard.is_evicted() {
                return Ok(Some(End::Evicted));
            }
        }
        Ok(self.its_end())
    }

    fn wait(&mut self) -> Result<(), Over> {
        let due = self.next_deadline();
        let mut polls = [Poll::new(
            self.session.channel.as_fd(),
            self.streams.phase != Phase::ParentGone,
            false,
        )];
        self.streams.pump.wait(&mut self.session.link, &mut polls, due)?;
        self.streams.channel_readable |= polls[0].readable();
        self.streams.pump.serve(&mut self.session.link);
        Ok(())
    }

    fn handle(&mut self, event: Event<StreamState>) -> Result<(), Over> {
        match event {
            Event::Opened(id) => self.opened(id)?,
            Event::Accepted(id) => self.accepted(id),
            Event::Received(id) => self.received(id)?,
            Event::Finished(id) => self.finished(id),
            Event::Closed(stream) => Streams::report(&self.session.channel, &stream),
            Event::Reset(stream) => Streams::break_off(&self.session.channel, &stream),
            Event::LocalFinished(id) => self.branch_finished(id),
            Event::GoAway(_) => return Err(End::Closed.into()),
            Event::ProtocolError(why) => {
                log::debug!("yamux: {why}");
                return Err(End::Protocol.into());
            }
            // The link's end is reported again for each stream. That a service takes no more is
            // handled by the pump. The others concern descriptors that no service has.
            Event::LinkFinished
            | Event::OutputFailed(..)
            | Event::InputFailed(..)
            | Event::Terminal(_)
            | Event::OutputHungUp { .. } => {}
        }
        Ok(())
    }

    fn next_deadline(&self) -> Duration {
        let requests = self.streams.pump.streams().filter_map(|(_, s)| s.owner.deadline());
        requests.chain(self.idle_deadline()).min().unwrap_or(Duration::MAX)
    }

    /// An anonymous client without an open stream occupies a place that others could use.
    fn idle_too_long(&mut self) -> bool {
        self.streams.idle =
            match self.streams.anonymous && self.streams.pump.mux().open_streams() == 0 {
                true => self.streams.idle.or(Some(self.streams.pump.now())),
                false => None,
            };
        self.idle_deadline().is_some_and(|at| at <= self.streams.pump.now())
    }

    fn idle_deadline(&self) -> Option<Duration> {
        Some(self.streams.idle? + self.session.state.world.table.settings.login_timeout)
    }

    /// Reports the byte counts of a service's connection to the parent.
    fn send_tally(&mut self, counted: Counted, tally: Tally) {
        // This fails if the parent is gone, which is noticed elsewhere.
        let _ = self.session.channel.send(&counted.tally(tally));
    }

    /// From now on the stream is copied to and from this connection.
    fn connect(&mut self, id: StreamId, connection: Flow) {
        self.streams.pump.attach(id, LocalEnd::Socket(connection));
        self.streams.pump.release(id);
    }

    fn refused(&mut self, tag: u32, why: Why) {
        let Some((id, StreamState::Starting { service, .. })) = self.starting(tag) else { return };
        let service = *service;
        let bytes = request::not_started(&self.session.state.world, service, why);
        self.close_with(id, bytes);
    }

    /// Sends a stream its answer, then ends it.
    fn close_with(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(state) = self.streams.pump.owner(id) {
            *state = StreamState::Closing;
            self.streams.pump.close_with(id, bytes);
        }
    }
}
