//! MULTIPLEX: many streams on one transport, plain or TLS. One thread polls the transport and the near end of each stream's
//! socket pair, never waits in a write, and owns all of it: no locks.
//!
//! A stream's request is read from its own bytes: who only waits costs no descriptor and no thread. A service gets the far
//! end of a socket pair at once, before the parent has answered: one round trip for a new stream. A stream that changes its own
//! facts (HOST, AUTH, PUBKEY) gets a thread with the dialogue of any connection.
//!
//! What a stalled stream cannot take is held for it, at most its window; the others go on.

use super::request::{self, Judged, Where};
use super::session::{self, First, Session};
use super::transport::{End, Transport};
use super::waiting;
use crate::policy::{Facts, ServiceId};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, socket};
use crate::wire::line::{Fed, Line};
use crate::wire::orders::{Answer, Ask};
use crate::wire::request::{Builtin, NAME_MAX};
use crate::wire::yamux::{CONTROL_MAX, Event, HEADER, Mux, PIECE, StreamId};
use rustls::ServerConnection;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes of frames that wait to be sent; above it no service is read.
const OUT_MAX: usize = 256 * 1024;
/// Bytes that are taken from the transport at once.
const TAKE: usize = 128 * 1024;
/// How long buffers are kept when nothing moves.
const LINGER: Duration = Duration::from_millis(50);
/// How long the last frames may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a stream is at.
enum Stage {
    /// It has yet to say its request.
    Asking { line: Line, deadline: Duration },
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
    service: ServiceId,
    to: u64,
    from: u64,
}

struct Multiplexer<'a> {
    session: &'a mut Session,
    mux: Mux,
    streams: BTreeMap<StreamId, Stream>,
    /// Whole frames, and how much of them was sent.
    out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
    tag: u32,
    now: Duration,
    /// The stream whose turn is first.
    turn: Option<StreamId>,
    leaving: bool,
}

/// Serves streams until the client goes, or the session was told to go and no stream is left.
pub fn run(session: &mut Session) -> End {
    let s = &session.world.table.settings;
    let most = if session.facts.login.is_some() { s.max_streams } else { s.max_streams_anonymous };
    let now = clock::monotonic();
    let mux = Mux::new(s.keepalive, most, now);
    if let Transport::Plain(fd) = &session.transport {
        // Frames are as large as they get; a branch's socket pair has no delay.
        let _ = socket::set_nodelay(fd.as_fd(), true);
    }
    let mut m = Multiplexer {
        session,
        mux,
        streams: BTreeMap::new(),
        out: Vec::new(),
        sent: 0,
        buffer: Vec::new(),
        tag: 0,
        now,
        turn: None,
        leaving: false,
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
            if self.leaving && self.mux.open_streams() == 0 && self.is_sent() {
                return End::Drained;
            }
            readable = match self.wait() {
                Ok(readable) => readable,
                Err(end) => return end,
            };
        }
    }

    fn is_sent(&self) -> bool {
        self.sent == self.out.len() && self.mux.control_queued() == 0
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
        self.give_out()
    }

    /// Waits until there is something to do. Does the client say something?
    fn wait(&mut self) -> Result<bool, End> {
        loop {
            let backlog = self.sent < self.out.len() || matches!(&self.session.transport, Transport::Tls(e) if e.tls.wants_write());
            // A client that asks without reading is no longer read.
            let read = self.mux.control_queued() <= CONTROL_MAX;
            let room = self.out.len() < OUT_MAX && !backlog;
            let mut ids = Vec::with_capacity(self.streams.len());
            let mut polls = Vec::with_capacity(self.streams.len() + 2);
            polls.push(Poll::new(self.session.transport.socket(), read, backlog));
            polls.push(Poll::new(self.session.channel.as_fd(), true, false));
            for (id, s) in &self.streams {
                let Stage::Connected { near } = &s.stage else { continue };
                let (from, to) = (!s.over && room && self.mux.send_window(*id) > 0, !s.held.is_empty());
                ids.push(*id);
                polls.push(if s.over && !to { Poll::hangup(near.as_fd()) } else { Poll::new(near.as_fd(), from, to) });
            }
            let warm = !self.buffer.is_empty() || self.out.capacity() > 0 && !backlog;
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
            let readable = polls[0].readable();
            let ready: Vec<(StreamId, bool, bool, bool)> =
                ids.iter().zip(&polls[2..]).map(|(id, p)| (*id, p.readable(), p.writable(), p.hung())).filter(|(_, r, w, h)| *r || *w || *h).collect();
            drop(polls);
            self.now = clock::monotonic();
            self.streams_ready(ready);
            return Ok(readable);
        }
    }

    /// Nothing moves: buffers are given back.
    fn cool(&mut self) {
        self.buffer = Vec::new();
        if self.sent == self.out.len() {
            self.out = Vec::new();
            self.sent = 0;
        }
    }

    fn next_deadline(&self) -> Duration {
        let asking = self.streams.values().filter_map(|s| match &s.stage {
            Stage::Asking { deadline, .. } => Some(*deadline),
            _ => None,
        });
        asking.fold(self.mux.next_deadline(), Duration::min)
    }

    // What services say, in turn: the stream behind the last one that had the room begins.

    fn streams_ready(&mut self, mut ready: Vec<(StreamId, bool, bool, bool)>) {
        let first = self.turn.and_then(|t| ready.iter().position(|(id, ..)| *id > t)).unwrap_or(0);
        ready.rotate_left(first);
        for (id, readable, writable, hung) in ready {
            if writable {
                self.to_service(id);
            }
            if readable {
                self.from_service(id);
            }
            let gone = hung && self.streams.get(&id).is_some_and(|s| s.over && s.held.is_empty());
            if gone {
                self.service_gone(id);
            }
        }
    }

    /// Takes as much of a service's bytes as there is window and room for, in pieces behind their headers.
    fn from_service(&mut self, id: StreamId) {
        let Some(Stream { stage: Stage::Connected { near }, over: false, from, .. }) = self.streams.get_mut(&id) else { return };
        let mut ended = false;
        while self.out.len() < OUT_MAX {
            let most = self.mux.send_window(id).min(PIECE);
            if most == 0 {
                break;
            }
            let at = self.out.len();
            self.out.resize(at + HEADER + most, 0);
            let got = socket::receive(near.as_fd(), &mut self.out[at + HEADER..]);
            let n = *got.as_ref().unwrap_or(&0);
            self.out.truncate(if n > 0 { at + HEADER + n } else { at });
            if n > 0 {
                let header = self.mux.data(id, n);
                self.out[at..at + HEADER].copy_from_slice(&header);
                *from += n as u64;
                self.turn = Some(id);
                if n < most {
                    break;
                }
                continue;
            }
            ended = !matches!(got, Err(e) if e.kind() == ErrorKind::WouldBlock);
            break;
        }
        if ended {
            // Data comes before the end: both are in one buffer, in their order.
            self.mux.finish(id);
            self.mux.take_control(&mut self.out);
            if let Some(s) = self.streams.get_mut(&id) {
                s.over = true;
            }
            self.forget_if_done(id);
        }
    }

    /// Gives a service what was held for it.
    fn to_service(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let Stage::Connected { near } = &s.stage else { return };
        let mut gone = false;
        while !s.held.is_empty() {
            match socket::send(near.as_fd(), s.held.as_slices().0) {
                Ok(n) => {
                    s.held.drain(..n);
                    s.to += n as u64;
                    self.mux.delivered(id, n, self.now);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        if s.held.is_empty() {
            s.held = VecDeque::new();
            if s.finished && !s.told {
                s.told = true;
                let _ = socket::shutdown_write(near.as_fd());
            }
        }
        if gone {
            self.deaf(id);
        }
        self.forget_if_done(id);
    }

    /// A service takes no more; what it has said is still to come.
    fn deaf(&mut self, id: StreamId) {
        while self.streams.get(&id).is_some_and(|s| !s.over) && self.mux.send_window(id) > 0 && self.out.len() < OUT_MAX {
            let before = self.out.len();
            self.from_service(id);
            if self.out.len() == before && self.streams.get(&id).is_some_and(|s| !s.over) {
                break;
            }
        }
        let Some(s) = self.streams.get_mut(&id) else { return };
        let n = s.held.len();
        s.held = VecDeque::new();
        self.mux.delivered(id, n, self.now);
        if s.over {
            self.service_gone(id);
        }
    }

    /// A service has ended both ways: what its client still sends is thrown away, for a while.
    fn service_gone(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| !s.finished) {
            self.mux.drain(id, self.now);
        }
        self.end_stream(id);
    }

    fn forget_if_done(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| s.over && s.told) {
            self.end_stream(id);
        }
    }

    /// A stream is over: its bytes are told.
    fn end_stream(&mut self, id: StreamId) {
        let Some(s) = self.streams.remove(&id) else { return };
        if s.tag != 0 {
            // A parent that is gone is noticed elsewhere.
            let _ = self.session.channel.tell(&Ask::Tally { tag: s.tag, to: s.to, from: s.from }, &[]);
        }
    }

    // What the client says.

    fn take_in(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = self.take_in_with(&mut buffer);
        self.buffer = buffer;
        done
    }

    fn take_in_with(&mut self, buffer: &mut [u8]) -> Result<(), End> {
        loop {
            let n = match &mut self.session.transport {
                Transport::Plain(fd) => match socket::receive(fd.as_fd(), buffer) {
                    Ok(0) => return Err(End::Closed),
                    Ok(n) => n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(_) => return Err(End::Broken),
                },
                Transport::Tls(e) => {
                    let n = plaintext(&mut e.tls, buffer, e.eof)?;
                    if n == 0 {
                        e.take_in()?;
                        if plaintext_waits(&mut e.tls) { continue } else if e.eof { return Err(End::Truncated) } else { return Ok(()) }
                    }
                    n
                }
            };
            self.frames(&buffer[..n])?;
            if n < buffer.len() && matches!(self.session.transport, Transport::Plain(_)) || self.mux.control_queued() > CONTROL_MAX {
                return Ok(());
            }
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        loop {
            let (taken, event) = self.mux.receive(bytes, self.now);
            let none = event.is_none();
            match event {
                None => {}
                Some(Event::Opened(id)) => self.opened(id),
                Some(Event::Data(id, data)) => self.data(id, data)?,
                Some(Event::Finished(id)) => self.finished(id),
                Some(Event::Reset(id)) => self.reset(id),
                Some(Event::GoAway(_)) => {}
                Some(Event::Broken(why)) => {
                    log::debug!("yamux: {why}");
                    return Err(End::Protocol);
                }
            }
            bytes = &bytes[taken..];
            if bytes.is_empty() && none {
                return Ok(());
            }
        }
    }

    fn opened(&mut self, id: StreamId) {
        let deadline = self.now + self.session.world.table.settings.request_timeout;
        let stage = Stage::Asking { line: Line::new(NAME_MAX), deadline };
        let stream = Stream { stage, held: VecDeque::new(), finished: false, told: false, over: false, tag: 0, service: ServiceId(0), to: 0, from: 0 };
        self.streams.insert(id, stream);
    }

    fn data(&mut self, id: StreamId, data: &[u8]) -> Result<(), End> {
        let Some(s) = self.streams.get_mut(&id) else { return Ok(()) };
        match &mut s.stage {
            Stage::Telling { .. } => self.mux.delivered(id, data.len(), self.now),
            Stage::Connected { near } => {
                let n = if s.held.is_empty() { socket::send(near.as_fd(), data) } else { Ok(0) };
                let n = match n {
                    Ok(n) => n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                    Err(_) => {
                        self.mux.delivered(id, data.len(), self.now);
                        self.deaf(id);
                        return Ok(());
                    }
                };
                s.to += n as u64;
                s.held.extend(&data[n..]);
                self.mux.delivered(id, n, self.now);
            }
            Stage::Asking { line, .. } => {
                let (judged, text, taken) = match line.feed(data) {
                    Fed::More => {
                        self.mux.delivered(id, data.len(), self.now);
                        return Ok(());
                    }
                    Fed::TooLong => (None, Vec::new(), 0),
                    Fed::Line { text, taken } => (Some(()), text.to_vec(), taken),
                };
                self.mux.delivered(id, taken, self.now);
                self.requested(id, judged.is_some(), &text)?;
                return self.data(id, &data[taken..]);
            }
        }
        Ok(())
    }

    /// A stream has said its request.
    fn requested(&mut self, id: StreamId, whole: bool, text: &[u8]) -> Result<(), End> {
        let s = &mut *self.session;
        s.facts.minute = clock::minute_of_day();
        let judged = if whole { request::judge(&s.world, &s.facts, Where::Stream, text) } else { request::too_long() };
        match judged {
            Judged::Help(bytes) => self.tell(id, bytes),
            Judged::Refuse { bytes, why } => {
                if let Some(why) = why {
                    s.channel.tell(&Ask::Refused(request::refused(&s.facts, s.peer, why, text)), &[])?;
                }
                self.tell(id, bytes);
            }
            Judged::Start(service) => self.start(id, service)?,
            Judged::Builtin(b) => self.branch(id, b)?,
        }
        Ok(())
    }

    fn start(&mut self, id: StreamId, service: ServiceId) -> Result<(), End> {
        let Ok((near, far)) = socket::pair() else {
            let busy = waiting::refusal(&self.session.world, service, crate::wire::orders::Why::Busy);
            self.tell(id, busy);
            return Ok(());
        };
        self.tag += 1;
        let ask = Ask::Start { service: service.0, host: self.session.facts.host.0, tag: self.tag };
        self.session.channel.tell(&ask, &[far.as_fd()])?;
        if let Some(s) = self.streams.get_mut(&id) {
            (s.tag, s.service, s.stage) = (self.tag, service, Stage::Connected { near });
        }
        Ok(())
    }

    /// A stream that changes its own facts: the dialogue of any connection, in a thread of its own.
    fn branch(&mut self, id: StreamId, b: Builtin) -> Result<(), End> {
        let Ok((near, far)) = socket::pair() else {
            self.mux.reset(id, self.now);
            self.end_stream(id);
            return Ok(());
        };
        let s = &*self.session;
        let channel = s.channel.branch(s.facts.host.0)?;
        let facts: Facts = s.facts.clone();
        session::begin(session::Start { world: s.world.clone(), connection: far, peer: s.peer, facts, channel, place: Where::Stream, first: First::Builtin(b) });
        if let Some(s) = self.streams.get_mut(&id) {
            s.stage = Stage::Connected { near };
        }
        Ok(())
    }

    fn finished(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.finished = true;
        match &s.stage {
            // It has asked for nothing.
            Stage::Asking { .. } => {
                self.mux.finish(id);
                self.end_stream(id);
            }
            Stage::Connected { .. } => self.to_service(id),
            Stage::Telling { .. } => {}
        }
    }

    fn reset(&mut self, id: StreamId) {
        if let Some(Stream { stage: Stage::Connected { near }, .. }) = self.streams.get(&id) {
            let _ = socket::shutdown_both(near.as_fd());
        }
        self.end_stream(id);
    }

    /// Tells a stream its last.
    fn tell(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.stage = Stage::Telling { bytes, done: 0 };
        }
    }

    /// What waits to be told to streams, as far as their windows go.
    fn telling(&mut self) {
        let mut over = Vec::new();
        for (id, s) in &mut self.streams {
            let Stage::Telling { bytes, done } = &mut s.stage else { continue };
            while *done < bytes.len() && self.out.len() < OUT_MAX {
                let n = (bytes.len() - *done).min(PIECE).min(self.mux.send_window(*id));
                if n == 0 {
                    break;
                }
                self.out.extend_from_slice(&self.mux.data(*id, n));
                self.out.extend_from_slice(&bytes[*done..*done + n]);
                *done += n;
            }
            if *done == bytes.len() {
                over.push(*id);
            }
        }
        for id in over {
            self.service_gone(id);
            self.mux.finish(id);
        }
    }

    fn expire(&mut self) {
        let late = |s: &Stream| matches!(s.stage, Stage::Asking { deadline, .. } if deadline <= self.now);
        let over: Vec<StreamId> = self.streams.iter().filter(|(_, s)| late(s)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.service_gone(id));
    }

    // What the parent says.

    fn answers(&mut self) -> Result<(), End> {
        while let Some(answer) = self.session.channel.try_answer()? {
            match answer {
                Answer::Started { .. } => {}
                Answer::Refused { tag, why, .. } => self.refused(tag, why),
                _ => return Err(End::System),
            }
        }
        if self.session.channel.go_away().is_some() && !self.leaving {
            self.leaving = true;
            self.mux.go_away();
        }
        Ok(())
    }

    fn refused(&mut self, tag: u32, why: crate::wire::orders::Why) {
        let Some((id, s)) = self.streams.iter_mut().find(|(_, s)| s.tag == tag) else { return };
        let (id, service) = (*id, s.service);
        let held = s.held.len();
        s.held = VecDeque::new();
        // Nothing runs that could be counted.
        s.tag = 0;
        self.mux.delivered(id, held, self.now);
        let bytes = waiting::refusal(&self.session.world, service, why);
        self.tell(id, bytes);
    }

    // What is sent.

    fn give_out(&mut self) -> Result<(), End> {
        loop {
            self.telling();
            self.mux.take_control(&mut self.out);
            let before = (self.out.len(), self.sent);
            self.send()?;
            if self.sent < self.out.len() || before.0 == before.1 {
                return Ok(());
            }
            self.out.clear();
            self.sent = 0;
        }
    }

    fn send(&mut self) -> Result<(), End> {
        match &mut self.session.transport {
            Transport::Plain(fd) => {
                while self.sent < self.out.len() {
                    match socket::send(fd.as_fd(), &self.out[self.sent..]) {
                        Ok(n) => self.sent += n,
                        Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                        Err(_) => return Err(End::Broken),
                    }
                }
            }
            Transport::Tls(e) => {
                // No plaintext is taken while the socket is full.
                if e.give_out()? && self.sent < self.out.len() {
                    e.tls.writer().write_all(&self.out[self.sent..]).map_err(|_| End::Broken)?;
                    self.sent = self.out.len();
                    e.give_out()?;
                }
            }
        }
        Ok(())
    }

    /// The session is over: its services are told, and the client why.
    fn close(&mut self, end: End) {
        for s in self.streams.values() {
            if let Stage::Connected { near } = &s.stage {
                let _ = socket::shutdown_both(near.as_fd());
            }
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end_stream(id));
        if matches!(end, End::Protocol | End::Drained) {
            self.mux.take_control(&mut self.out);
            let until = clock::monotonic() + LAST_WORDS;
            let rest = self.out.split_off(self.sent);
            if self.session.transport.write(&self.session.channel, &rest, until).is_ok() {
                self.session.transport.farewell();
            }
        }
    }
}

/// Plaintext that has come; 0: none yet.
fn plaintext(tls: &mut ServerConnection, buffer: &mut [u8], eof: bool) -> Result<usize, End> {
    let mut reader = tls.reader();
    match reader.fill_buf() {
        Ok([]) => Err(End::Closed),
        Ok(bytes) => {
            let n = bytes.len().min(buffer.len());
            buffer[..n].copy_from_slice(&bytes[..n]);
            reader.consume(n);
            Ok(n)
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock && !eof => Ok(0),
        Err(_) => Err(End::Truncated),
    }
}

/// Is there plaintext, or its end?
fn plaintext_waits(tls: &mut ServerConnection) -> bool {
    !matches!(tls.reader().fill_buf(), Err(e) if e.kind() == ErrorKind::WouldBlock)
}
