//! The requests of streams, and what they get.

use super::{Multiplexer, Phase, StreamState};
use crate::net::builtins::pubkey::exporter;
use crate::net::end::End;
use crate::net::handover::Handover;
use crate::net::request::{self, Decision, Where};
use crate::net::session_state::{First, Start};
use crate::policy::ServiceId;
use crate::sys::{clock, socket};
use crate::wire::builtins::Builtin;
use crate::wire::line::{Fed, Line};
use crate::wire::orders::{Ask, Named, Why};
use crate::wire::reply;
use crate::wire::request::NAME_MAX;
use crate::wire::yamux::StreamId;
use std::os::fd::AsFd;
use std::sync::Arc;

impl Multiplexer<'_> {
    pub(super) fn opened(&mut self, id: StreamId) {
        if self.phase == Phase::ParentGone {
            drop(self.pump.reset(id));
            return;
        }
        let deadline = self.pump.now() + self.session.world.table.settings.request_timeout;
        self.pump.adopt(id, StreamState::Requesting { line: Line::new(NAME_MAX), deadline });
    }

    /// Bytes have come on a stream without a service: a request, or what follows it.
    pub(super) fn received(&mut self, id: StreamId) -> Result<(), End> {
        let (line, bytes) = match self.pump.held(id) {
            Some((StreamState::Requesting { line, .. }, bytes)) => (line, bytes),
            Some((StreamState::Offering(_), bytes)) => {
                // Nobody reads what comes on such a stream.
                let n = bytes.len();
                self.pump.take(id, n);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (text, taken) = match line.feed(bytes) {
            Fed::More => {
                let n = bytes.len();
                self.pump.take(id, n);
                return Ok(());
            }
            Fed::TooLong => (None, 0),
            Fed::Line { text, taken } => (Some(text.to_vec()), taken),
        };
        self.pump.take(id, taken);
        self.requested(id, text.as_deref())
    }

    /// A stream's request is complete; None: it is too long.
    fn requested(&mut self, id: StreamId, text: Option<&[u8]>) -> Result<(), End> {
        let s = &mut *self.session;
        s.facts.minute = clock::minute_of_day();
        let decision = match text {
            Some(text) => request::decide(&s.world, &s.facts, Where::Stream, text),
            None => request::too_long(),
        };
        let text = text.unwrap_or_default();
        match decision {
            Decision::Help(bytes) => self.close_with(id, bytes),
            Decision::Refuse { bytes, why } => {
                if let Some(why) = why {
                    s.channel
                        .send(&Ask::Refused(request::refused(&s.facts, s.peer, why, text)), &[])?;
                }
                self.close_with(id, bytes);
            }
            Decision::LookUp => self.ask_name(id, text)?,
            Decision::Start(service) => self.start(id, service)?,
            Decision::Builtin(b) => self.branch(id, b)?,
        }
        Ok(())
    }

    /// The request waits for the name of the client's address. The other streams go on.
    fn ask_name(&mut self, id: StreamId, text: &[u8]) -> Result<(), End> {
        if !std::mem::replace(&mut self.name_requested, true) {
            self.session.channel.send(&Ask::Name, &[])?;
        }
        if let Some(state) = self.pump.owner(id) {
            *state = StreamState::LookingUpName { text: text.to_vec() };
        }
        Ok(())
    }

    /// The parent has answered: the name, or that there is none. Requests that waited for it go on.
    pub(super) fn named(&mut self, name: Named) -> Result<(), End> {
        self.session.facts.peer_name = request::named(name);
        let waiting = |(id, state): (StreamId, &mut StreamState)| match state {
            StreamState::LookingUpName { text } => Some((id, std::mem::take(text))),
            _ => None,
        };
        let all: Vec<(StreamId, Vec<u8>)> = self.pump.owners().filter_map(waiting).collect();
        for (id, text) in all {
            self.requested(id, Some(&text))?;
        }
        Ok(())
    }

    fn start(&mut self, id: StreamId, service: ServiceId) -> Result<(), End> {
        let s = &self.session;
        let room = self.starts.len() < self.starts_max as usize;
        let Some(place) = room.then(|| s.world.descriptors.reserve(s.channel.as_fd())).flatten()
        else {
            let busy = request::not_started(&self.session.world, service, Why::Busy);
            self.close_with(id, busy);
            return Ok(());
        };
        self.tag += 1;
        self.starts.push(place);
        let tag = self.tag;
        let ask = Ask::Start { service: service.0, host: self.session.facts.host.0, tag };
        self.session.channel.send(&ask, &[])?;
        if let Some(state) = self.pump.owner(id) {
            *state = StreamState::Starting { tag, service };
        }
        Ok(())
    }

    /// Gives a stream that changes its own facts a session in a thread of its own.
    fn branch(&mut self, id: StreamId, b: Builtin) -> Result<(), End> {
        let busy = |m: &mut Self| {
            m.close_with(id, reply::BUSY.to_vec());
            Ok(())
        };
        let s = &*self.session;
        // Threads of streams that are gone may not have noticed yet.
        if Arc::strong_count(&self.branches) > s.world.table.settings.dialogues() as usize {
            return busy(self);
        }
        let Ok((ours, theirs)) = s.world.descriptors.unless_reserved(socket::pair()) else {
            return busy(self);
        };
        let outer = exporter(s)?;
        let Some(channel) = s.channel.branch(s.facts.host.0, &s.world.descriptors)? else {
            return busy(self);
        };
        let handover = Arc::<Handover>::default();
        (self.begin)(Start {
            world: s.world.clone(),
            connection: theirs.into(),
            peer: s.peer,
            facts: s.facts.clone(),
            channel,
            place: Where::Stream,
            first: First::Builtin(b),
            guard: s.world.sessions.branch(&self.branches),
            outer,
            handover: Some(handover.clone()),
        });
        if let Some(state) = self.pump.owner(id) {
            *state = StreamState::Branch(handover);
            self.connect(id, ours);
            self.pump.ask_at_end(id);
        }
        Ok(())
    }

    /// The client has finished sending on a stream.
    pub(super) fn finished(&mut self, id: StreamId) {
        // Without a complete request there is nothing to do. Other streams see the end after all of
        // their data.
        match self.pump.owner(id) {
            Some(StreamState::Requesting { .. }) => drop(self.pump.close(id)),
            Some(StreamState::Offering(_)) => self.offer_finished(id),
            Some(StreamState::Asking { .. }) => self.asked_in_vain(id),
            _ => {}
        }
    }

    /// Ends the streams whose request has not come in time.
    pub(super) fn expire(&mut self) {
        let now = self.pump.now();
        let late = |s: &StreamState| match s {
            StreamState::Requesting { deadline, .. } => *deadline <= now,
            StreamState::LookingUpName { .. }
            | StreamState::Starting { .. }
            | StreamState::Running(_)
            | StreamState::Branch(_)
            | StreamState::Offering(_)
            | StreamState::Asking { .. }
            | StreamState::Closing => false,
        };
        let all: Vec<StreamId> =
            self.pump.streams().filter(|(_, s)| late(&s.owner)).map(|s| s.0).collect();
        all.into_iter().for_each(|id| drop(self.pump.close(id)));
    }
}
