//! MULTIPLEX: many streams on one transport, plain or TLS. One thread polls the transport and the
//! near end of each stream's socket pair, never waits in a write, and owns all of it: no locks.
//!
//! A stream's request is read from its own bytes: who only waits costs no descriptor and no thread.
//! A service gets the far end of a socket pair at once, before the parent has answered: one round
//! trip for a new stream. A stream that changes its own facts (HOST, AUTH, PUBKEY) gets a thread
//! with the dialogue of any connection.
//!
//! What a stalled stream cannot take is held for it, at most its window; the others go on.

mod client;
mod services;

use super::channel::Gone;
use super::descriptors::Coming;
use super::request;
use super::session::Session;
use super::transport::{End, Transport};
use crate::link::SendQueue as Room;
use crate::policy::ServiceId;
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, socket};
use crate::wire::line::Line;
use crate::wire::orders::{Answer, Why};
use crate::wire::yamux::{CONTROL_MAX, Event, Mux, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of frames that wait to be sent; above it no service is read.
const OUT_MAX: usize = 512 * 1024;
/// Bytes that are taken from the transport at once.
const TAKE: usize = 128 * 1024;
/// How long buffers are kept when nothing moves.
const LINGER: Duration = Duration::from_millis(50);
/// How long the last frames may take; and, where fived ends, what services that have ended had
/// said.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LAST_DATA: Duration = Duration::from_secs(5);

/// What a stream is at.
enum Stage {
    /// It has yet to say its request.
    Asking { line: Line, deadline: Duration },
    /// What its request gets depends on the name of the client's address, which the parent was
    /// asked for. What follows the request is held.
    Naming { text: Vec<u8> },
    /// A service was asked for. The parent's answer brings this end of its connection; until then
    /// what follows is held.
    Starting,
    /// It is told something, and then it ends.
    Telling { bytes: Vec<u8>, done: usize },
    /// A service, or a dialogue of its own, has the far end.
    Connected { near: OwnedFd },
}

struct Stream {
    stage: Stage,
    /// What its service has not taken yet.
    held: VecDeque<u8>,
    /// The client sends no more; the service was told so.
    finished: bool,
    told: bool,
    /// The service sends no more.
    over: bool,
    /// The service's number with the parent; 0: none.
    tag: u32,
    /// The parent has yet to say whether it runs, and its bytes have come to an end before that.
    unanswered: bool,
    ended: bool,
    service: ServiceId,
    to: u64,
    from: u64,
}

struct Multiplexer<'a> {
    session: &'a mut Session,
    mux: Mux,
    streams: BTreeMap<StreamId, Stream>,
    out: Room,
    buffer: Vec<u8>,
    tag: u32,
    /// Starts that the parent has yet to answer, of streams that have gone, too; and how many there
    /// may be.
    starts: Vec<Coming>,
    starts_max: u32,
    now: Duration,
    /// The stream whose turn is first.
    turn: Option<StreamId>,
    leaving: bool,
    /// The parent is gone.
    orphaned: bool,
    /// The name of the client's address was asked for.
    asked_name: bool,
    /// Held once by each dialogue of a stream, and here.
    dialogues: Arc<()>,
    /// The client has said its last byte: every stream's client has.
    client_over: bool,
    /// The transport did not take all that was to be sent.
    blocked: bool,
    /// Nobody had logged in before.
    anonymous: bool,
    /// An anonymous client has had no open stream since then.
    idle: Option<Duration>,
}

/// Serves streams until the client goes, or the session was told to go and no stream is left.
pub fn run(session: &mut Session) -> End {
    let s = &session.world.table.settings;
    let anonymous = session.facts.login.is_none();
    let most = if anonymous { s.max_streams_anonymous } else { s.max_streams };
    let starts_max = s.unanswered(most);
    let now = clock::monotonic();
    let mut mux = Mux::new(s.keepalive, most, now);
    if anonymous {
        mux.keep_windows();
    }
    let mut m = Multiplexer {
        session,
        mux,
        streams: BTreeMap::new(),
        out: Room::new(),
        buffer: Vec::new(),
        tag: 0,
        starts: Vec::new(),
        starts_max,
        now,
        turn: None,
        leaving: false,
        orphaned: false,
        asked_name: false,
        dialogues: Arc::default(),
        client_over: false,
        blocked: false,
        idle: anonymous.then_some(now),
        anonymous,
    };
    let end = m.serve();
    m.close(end);
    end
}

impl Multiplexer<'_> {
    fn serve(&mut self) -> End {
        // Frames may have come right behind the word.
        let mut readable = true;
        loop {
            if let Err(end) = self.turn(readable) {
                return end;
            }
            // Without the parent nothing can begin any more, whatever crosses go-away.
            let over = self.mux.is_over() || self.orphaned && self.mux.open_streams() == 0;
            if over && self.is_sent() {
                return if self.leaving { End::Drained } else { End::Closed };
            }
            if self.session.channel.go_away() == Some(true) && !self.serves() {
                return End::Drained;
            }
            if self.client_over && self.streams.is_empty() && self.is_sent() {
                return End::Closed;
            }
            readable = match self.wait() {
                Ok(readable) => readable,
                Err(end) => return end,
            };
        }
    }

    /// May there be a stream with a service? A dialogue ends by itself when fived does.
    fn serves(&self) -> bool {
        self.streams.values().any(|s| matches!(s.stage, Stage::Connected { .. } | Stage::Starting))
    }

    /// Did the transport not take all that was to be sent?
    fn backlog(&self) -> bool {
        !self.out.is_sent()
            || matches!(&self.session.transport, Transport::Tls(e) if e.tls.wants_write())
    }

    fn is_sent(&self) -> bool {
        !self.backlog() && self.mux.control_queued() == 0
    }

    /// One turn: what the client says, what services say, what is sent.
    fn turn(&mut self, readable: bool) -> Result<(), End> {
        self.now = clock::monotonic();
        if readable {
            self.take_in()?;
        }
        self.answers()?;
        if let Some(Event::Broken(_)) = self.mux.tick(self.now) {
            return Err(End::Timeout);
        }
        self.expire();
        if self.idle_too_long() {
            self.mux.go_away(self.now);
            return Err(End::Timeout);
        }
        self.give_out()
    }

    /// Waits until there is something to do. Does the client say something?
    fn wait(&mut self) -> Result<bool, End> {
        loop {
            let backlog = self.backlog();
            // A client that asks without reading is no longer read.
            let read = !self.client_over && self.mux.control_queued() <= CONTROL_MAX;
            let room = self.out.taken() < OUT_MAX && !backlog;
            let mut ids = Vec::with_capacity(self.streams.len());
            let mut polls = Vec::with_capacity(self.streams.len() + 2);
            let socket = self.session.transport.socket();
            // Who has said its last byte may still break the connection.
            polls.push(if self.client_over && !backlog {
                Poll::hangup(socket)
            } else {
                Poll::new(socket, read, backlog)
            });
            polls.push(Poll::new(self.session.channel.as_fd(), !self.orphaned, false));
            for (id, s) in &self.streams {
                let Stage::Connected { near } = &s.stage else { continue };
                let (from, to) = (
                    !s.over && !s.ended && room && self.mux.send_window(*id) > 0,
                    !s.held.is_empty(),
                );
                ids.push(*id);
                polls.push(if s.over && !to {
                    Poll::hangup(near.as_fd())
                } else {
                    Poll::new(near.as_fd(), from, to)
                });
            }
            let warm = !self.buffer.is_empty() || self.out.is_warm() && !backlog;
            let timeout = if warm { LINGER } else { self.next_deadline().saturating_sub(self.now) };
            if poll::wait(&mut polls, Some(timeout)).map_err(|_| End::System)? == 0 {
                drop(polls);
                if warm {
                    self.cool();
                    self.now = clock::monotonic();
                    if self.now < self.next_deadline() {
                        continue;
                    }
                }
                return Ok(false);
            }
            let (readable, broken) = (polls[0].readable(), self.client_over && polls[0].hung());
            let ready: Vec<(StreamId, bool, bool, bool)> = ids
                .iter()
                .zip(&polls[2..])
                .map(|(id, p)| (*id, p.readable(), p.writable(), p.hung()))
                .filter(|(_, r, w, h)| *r || *w || *h)
                .collect();
            drop(polls);
            self.now = clock::monotonic();
            if broken {
                return Err(End::Broken);
            }
            self.streams_ready(ready)?;
            return Ok(readable);
        }
    }

    /// Nothing moves: buffers are given back.
    fn cool(&mut self) {
        self.buffer = Vec::new();
        if self.out.is_sent() {
            self.out = Room::new();
        }
    }

    fn next_deadline(&self) -> Duration {
        let asking = self.streams.values().filter_map(|s| match &s.stage {
            Stage::Asking { deadline, .. } => Some(*deadline),
            _ => None,
        });
        asking.chain(self.idle_deadline()).fold(self.mux.next_deadline(), Duration::min)
    }

    /// A stranger who has no open stream has a place that others could have.
    fn idle_too_long(&mut self) -> bool {
        self.idle = match self.anonymous && self.mux.open_streams() == 0 {
            true => self.idle.or(Some(self.now)),
            false => None,
        };
        self.idle_deadline().is_some_and(|at| at <= self.now)
    }

    fn idle_deadline(&self) -> Option<Duration> {
        Some(self.idle? + self.session.world.table.settings.login_timeout)
    }

    // What the parent says.

    /// Takes in what the parent has said.
    fn answers(&mut self) -> Result<(), End> {
        while !self.orphaned {
            let answer = match self.session.channel.try_answer_with() {
                Ok(Some(answer)) => answer,
                Ok(None) => break,
                Err(Gone::Gone) => {
                    self.orphan();
                    return Ok(());
                }
                Err(gone) => return Err(gone.into()),
            };
            if matches!(answer.0, Answer::Started { .. } | Answer::Refused { .. }) {
                self.starts.pop();
            }
            match answer {
                (Answer::Started { tag }, near) => self.started(tag, near),
                (Answer::Refused { tag, why, .. }, _) => self.refused(tag, why),
                (Answer::Name(name), _) => self.named(name)?,
                _ => return Err(End::System),
            }
        }
        if self.session.channel.go_away().is_some() && !self.leaving {
            self.leaving = true;
            self.mux.go_away(self.now);
        }
        Ok(())
    }

    /// The parent is gone. What runs goes on to its end; who has no service yet can get none.
    fn orphan(&mut self) {
        (self.orphaned, self.leaving) = (true, true);
        self.mux.go_away(self.now);
        let asked: Vec<u32> =
            self.streams.values().filter(|s| s.unanswered).map(|s| s.tag).collect();
        asked.into_iter().for_each(|tag| self.refused(tag, Why::Busy));
        let asking = |(id, s): (&StreamId, &Stream)| {
            matches!(s.stage, Stage::Asking { .. } | Stage::Naming { .. }).then_some(*id)
        };
        let asking: Vec<StreamId> = self.streams.iter().filter_map(asking).collect();
        asking.into_iter().for_each(|id| self.turn_away(id));
    }

    /// Resets a stream that no service has.
    fn turn_away(&mut self, id: StreamId) {
        self.mux.reset(id, self.now);
        self.streams.remove(&id);
    }

    fn started(&mut self, tag: u32, near: Option<OwnedFd>) {
        let Some(near) = near else { return self.refused(tag, Why::Busy) };
        let Some((id, s)) = self.streams.iter_mut().find(|(_, s)| s.tag == tag) else {
            // Its client has given it up.
            return socket::cut(near.as_fd());
        };
        (s.unanswered, s.stage) = (false, Stage::Connected { near });
        let id = *id;
        self.feed_service(id);
    }

    fn refused(&mut self, tag: u32, why: Why) {
        let Some((id, s)) = self.streams.iter_mut().find(|(_, s)| s.tag == tag) else { return };
        let (id, service) = (*id, s.service);
        let held = s.held.len();
        s.held = VecDeque::new();
        // Nothing runs that could be counted.
        s.tag = 0;
        self.mux.delivered(id, held, self.now);
        let bytes = request::not_started(&self.session.world, service, why);
        self.tell(id, bytes);
    }

    // What is sent.

    fn give_out(&mut self) -> Result<(), End> {
        loop {
            // Left with the multiplexer they stop the reading of a client that asks without reading
            // (CVE-2024-32984).
            if self.out.taken() < OUT_MAX {
                self.out.append(|out| self.mux.take_control(out));
            }
            self.telling();
            if self.out.taken() < OUT_MAX {
                self.out.append(|out| self.mux.take_control(out));
            }
            if self.out.is_sent() {
                return self.send().map(|_| ());
            }
            let sent = self.send()?;
            let blocked = std::mem::replace(&mut self.blocked, !self.out.is_sent());
            if blocked && sent > 0 {
                // A client that takes again what it did not take is alive, however long it was not
                // read.
                self.mux.heard(self.now);
            }
            if !self.out.is_sent() {
                return Ok(());
            }
            self.out.empty();
        }
    }

    /// Sends what the transport takes. The bytes of frames that it took.
    fn send(&mut self) -> Result<usize, End> {
        let mut sent = 0;
        if let Transport::Tls(e) = &mut self.session.transport
            // No plaintext is taken while the socket is full.
            && !e.give_out()?
        {
            return Ok(0);
        }
        while !self.out.is_sent() {
            let parts = self.out.unsent();
            let n = match &mut self.session.transport {
                Transport::Plain(fd) => match socket::send_parts(fd.as_fd(), &parts) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    n => n.map_err(|_| End::Broken)?,
                },
                Transport::Tls(e) => {
                    e.tls.writer().write_vectored(&parts).map_err(|_| End::Broken)?
                }
            };
            self.out.sent(n);
            sent += n;
        }
        if let Transport::Tls(e) = &mut self.session.transport {
            e.give_out()?;
        }
        Ok(sent)
    }

    /// The session is over: its services are told, and the client why.
    fn close(&mut self, end: End) {
        for s in self.streams.values() {
            if let Stage::Connected { near } = &s.stage {
                socket::cut(near.as_fd());
            }
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end_stream(id));
        if matches!(end, End::Protocol | End::Drained | End::Closed)
            || end == End::Timeout && self.mux.leaving()
        {
            self.out.append(|out| self.mux.take_control(out));
            let until =
                clock::monotonic() + if end == End::Drained { LAST_DATA } else { LAST_WORDS };
            if self.send_all(until) {
                self.session.transport.farewell();
            }
        }
    }

    /// Sends what is left, until then at most, whether fived ends or not. Did the client take it?
    fn send_all(&mut self, until: Duration) -> bool {
        while self.send().is_ok() {
            let left = until.saturating_sub(clock::monotonic());
            if !self.backlog() || left.is_zero() {
                return !self.backlog();
            }
            if poll::wait(
                &mut [Poll::new(self.session.transport.socket(), false, true)],
                Some(left),
            )
            .is_err()
            {
                return false;
            }
        }
        false
    }
}
