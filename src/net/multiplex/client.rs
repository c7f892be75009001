//! From the client to services: frames, the requests of streams, and what they are answered.

use super::{Multiplexer, OUT_MAX, Stage, Stream, TAKE};
use crate::net::request::{self, Judged, Where};
use crate::net::session::{self, First};
use crate::net::transport::{End, Transport};
use crate::policy::ServiceId;
use crate::sys::{clock, socket};
use crate::wire::builtins::Builtin;
use crate::wire::line::{Fed, Line};
use crate::wire::orders::{Ask, Named, Why};
use crate::wire::reply;
use crate::wire::request::NAME_MAX;
use crate::wire::yamux::{CONTROL_MAX, Event, PIECE, StreamId};
use rustls::ServerConnection;
use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;

impl Multiplexer<'_> {
    pub(super) fn take_in(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let done = self.take_in_with(&mut buffer);
        self.buffer = buffer;
        done
    }

    pub(super) fn take_in_with(&mut self, buffer: &mut [u8]) -> Result<(), End> {
        while !self.client_over {
            let n = match &mut self.session.transport {
                Transport::Plain(fd) => match socket::receive(fd.as_fd(), buffer) {
                    Ok(0) => {
                        self.client_over();
                        break;
                    }
                    Ok(n) => n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(_) => return Err(End::Broken),
                },
                Transport::Tls(e) => {
                    let Some(n) = plaintext(&mut e.tls, buffer, e.eof)? else {
                        self.client_over();
                        break;
                    };
                    if n == 0 {
                        e.take_in()?;
                        if plaintext_waits(&mut e.tls) {
                            continue;
                        } else if e.eof {
                            return Err(End::Truncated);
                        } else {
                            return Ok(());
                        }
                    }
                    n
                }
            };
            self.frames(&buffer[..n])?;
            if n < buffer.len() && matches!(self.session.transport, Transport::Plain(_))
                || self.mux.control_queued() > CONTROL_MAX
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The connection's half-close is that of every stream; who has not asked for anything asks no
    /// more.
    fn client_over(&mut self) {
        self.client_over = true;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finished(id));
    }

    pub(super) fn frames(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        loop {
            let (taken, event) = self.mux.receive(bytes, self.now);
            let none = event.is_none();
            match event {
                None => {}
                Some(Event::Opened(id)) => self.opened(id),
                Some(Event::Data(id, data)) => self.data(id, data)?,
                Some(Event::Finished(id)) => self.finished(id),
                Some(Event::Reset(id)) => self.reset(id),
                // The client opens no more, or ends it all.
                Some(Event::GoAway(0)) => {}
                Some(Event::GoAway(_)) => return Err(End::Closed),
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

    pub(super) fn opened(&mut self, id: StreamId) {
        let deadline = self.now + self.session.world.table.settings.request_timeout;
        let stage = Stage::Asking { line: Line::new(NAME_MAX), deadline };
        let stream = Stream {
            stage,
            held: VecDeque::new(),
            finished: false,
            told: false,
            over: false,
            tag: 0,
            unanswered: false,
            ended: false,
            service: ServiceId(0),
            to: 0,
            from: 0,
        };
        self.streams.insert(id, stream);
        if self.orphaned {
            self.turn_away(id);
        }
    }

    pub(super) fn data(&mut self, id: StreamId, data: &[u8]) -> Result<(), End> {
        let Some(s) = self.streams.get_mut(&id) else { return Ok(()) };
        match &mut s.stage {
            Stage::Telling { .. } => self.mux.delivered(id, data.len(), self.now),
            Stage::Naming { .. } | Stage::Starting => s.held.extend(data),
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
    pub(super) fn requested(&mut self, id: StreamId, whole: bool, text: &[u8]) -> Result<(), End> {
        let s = &mut *self.session;
        s.facts.minute = clock::minute_of_day();
        let judged = if whole {
            request::judge(&s.world, &s.facts, Where::Stream, text)
        } else {
            request::too_long()
        };
        match judged {
            Judged::Help(bytes) => self.tell(id, bytes),
            Judged::Refuse { bytes, why } => {
                if let Some(why) = why {
                    s.channel
                        .tell(&Ask::Refused(request::refused(&s.facts, s.peer, why, text)), &[])?;
                }
                self.tell(id, bytes);
            }
            Judged::LookUp => self.ask_name(id, text)?,
            Judged::Start(service) => self.start(id, service)?,
            Judged::Builtin(b) => self.branch(id, b)?,
        }
        Ok(())
    }

    /// The request waits for the name of the client's address. The other streams go on.
    fn ask_name(&mut self, id: StreamId, text: &[u8]) -> Result<(), End> {
        if !std::mem::replace(&mut self.asked_name, true) {
            self.session.channel.tell(&Ask::Name, &[])?;
        }
        if let Some(s) = self.streams.get_mut(&id) {
            s.stage = Stage::Naming { text: text.to_vec() };
        }
        Ok(())
    }

    /// The name has come, or the word that there is none: what waited for it goes on.
    pub(super) fn named(&mut self, name: Named) -> Result<(), End> {
        self.session.facts.peer_name = request::named(name);
        let waiting = |(id, s): (&StreamId, &mut Stream)| match &mut s.stage {
            Stage::Naming { text } => Some((*id, std::mem::take(text))),
            _ => None,
        };
        let all: Vec<(StreamId, Vec<u8>)> = self.streams.iter_mut().filter_map(waiting).collect();
        for (id, text) in all {
            self.requested(id, true, &text)?;
            let Some(s) = self.streams.get_mut(&id) else { continue };
            if matches!(s.stage, Stage::Connected { .. } | Stage::Starting) {
                self.feed_service(id);
            } else {
                let held = std::mem::take(&mut s.held).len();
                self.mux.delivered(id, held, self.now);
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, id: StreamId, service: ServiceId) -> Result<(), End> {
        let s = &self.session;
        let room = self.starts.len() < self.starts_max as usize;
        let Some(place) = room.then(|| s.world.descriptors.expect(s.channel.as_fd())).flatten()
        else {
            let busy = request::not_started(&self.session.world, service, Why::Busy);
            self.tell(id, busy);
            return Ok(());
        };
        self.tag += 1;
        self.starts.push(place);
        let ask = Ask::Start { service: service.0, host: self.session.facts.host.0, tag: self.tag };
        self.session.channel.tell(&ask, &[])?;
        if let Some(s) = self.streams.get_mut(&id) {
            (s.tag, s.unanswered, s.service, s.stage) = (self.tag, true, service, Stage::Starting);
        }
        Ok(())
    }

    /// A stream that changes its own facts: the dialogue of any connection, in a thread of its own.
    pub(super) fn branch(&mut self, id: StreamId, b: Builtin) -> Result<(), End> {
        let busy = |m: &mut Self| {
            m.tell(id, reply::BUSY.to_vec());
            Ok(())
        };
        let s = &*self.session;
        // Threads of streams that have gone may have yet to notice.
        if Arc::strong_count(&self.dialogues) > s.world.table.settings.dialogues() as usize {
            return busy(self);
        }
        let Ok((near, far)) = s.world.descriptors.but(socket::pair()) else { return busy(self) };
        let outer = s.exporter()?;
        let Some(channel) = s.channel.branch(s.facts.host.0, &s.world.descriptors)? else {
            return busy(self);
        };
        let facts = s.facts.clone();
        session::begin(session::Start {
            world: s.world.clone(),
            connection: far.into(),
            peer: s.peer,
            facts,
            channel,
            place: Where::Stream,
            first: First::Builtin(b),
            standing: s.world.sessions.dialogue(&self.dialogues),
            outer,
        });
        if let Some(s) = self.streams.get_mut(&id) {
            s.stage = Stage::Connected { near };
        }
        Ok(())
    }

    pub(super) fn finished(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.finished = true;
        match &s.stage {
            // It has asked for nothing.
            Stage::Asking { .. } => {
                self.mux.finish(id);
                self.end_stream(id);
            }
            Stage::Connected { .. } => self.feed_service(id),
            Stage::Naming { .. } | Stage::Starting | Stage::Telling { .. } => {}
        }
    }

    pub(super) fn reset(&mut self, id: StreamId) {
        if let Some(Stream { stage: Stage::Connected { near }, .. }) = self.streams.get(&id) {
            socket::cut(near.as_fd());
        }
        self.end_stream(id);
    }

    /// Tells a stream its last.
    pub(super) fn tell(&mut self, id: StreamId, bytes: Vec<u8>) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.stage = Stage::Telling { bytes, done: 0 };
        }
    }

    /// What waits to be told to streams, as far as their windows go.
    pub(super) fn telling(&mut self) {
        let mut over = Vec::new();
        for (id, s) in &mut self.streams {
            let Stage::Telling { bytes, done } = &mut s.stage else { continue };
            while *done < bytes.len() && self.out.taken() < OUT_MAX {
                let n = (bytes.len() - *done).min(PIECE).min(self.mux.send_window(*id));
                if n == 0 {
                    break;
                }
                let header = self.mux.data(*id, n);
                self.out.append(|out| out.extend(header.iter().chain(&bytes[*done..*done + n])));
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

    pub(super) fn expire(&mut self) {
        let late =
            |s: &Stream| matches!(s.stage, Stage::Asking { deadline, .. } if deadline <= self.now);
        let over: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| late(s)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.service_gone(id));
    }
}

/// Plaintext that has come; 0: none yet; None: its end.
fn plaintext(
    tls: &mut ServerConnection,
    buffer: &mut [u8],
    eof: bool,
) -> Result<Option<usize>, End> {
    let mut reader = tls.reader();
    match reader.fill_buf() {
        Ok([]) => Ok(None),
        Ok(bytes) => {
            let n = bytes.len().min(buffer.len());
            buffer[..n].copy_from_slice(&bytes[..n]);
            reader.consume(n);
            Ok(Some(n))
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock && !eof => Ok(Some(0)),
        Err(_) => Err(End::Truncated),
    }
}

/// Is there plaintext, or its end?
fn plaintext_waits(tls: &mut ServerConnection) -> bool {
    !matches!(tls.reader().fill_buf(), Err(e) if e.kind() == ErrorKind::WouldBlock)
}
