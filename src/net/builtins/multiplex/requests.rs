//! The requests of streams, and what they get.

use super::branching::Branching;
use super::over::Over;
use super::{Multiplexer, Phase, StreamState};
use crate::link::Tally;
use crate::net::builtins::pubkey::exporter;
use crate::net::channel::Asked;
use crate::net::end::End;
use crate::net::handover::Handover;
use crate::net::request::{self, Decision, Where};
use crate::net::session_counts::Full;
use crate::net::session_state::{First, Start};
use crate::policy::ServiceId;
use crate::sys::flow::Flow;
use crate::sys::{clock, socket};
use crate::wire::builtins::Builtin;
use crate::wire::line::{Fed, Line};
use crate::wire::orders::{Ask, Named, Why};
use crate::wire::reply;
use crate::wire::request::{DIALOGUE_MAX, NAME_MAX};
use crate::wire::run::{self, Way};
use crate::wire::yamux::StreamId;
use std::sync::Arc;

impl Multiplexer<'_> {
    /// The client has opened a stream. That is acknowledged before anything is started for it: if
    /// this process ends, a client without the acknowledgement makes its request again elsewhere.
    pub(super) fn opened(&mut self, id: StreamId) -> Result<(), Over> {
        if self.streams.phase == Phase::ParentGone {
            drop(self.streams.pump.reset(id));
            return Ok(());
        }
        let deadline =
            self.streams.pump.now() + self.session.state.world.table.settings.request_timeout;
        let (line, way) = (Line::new(NAME_MAX), Way::Plain);
        self.streams.pump.adopt(id, StreamState::Requesting { line, deadline, way });
        Ok(self.streams.pump.send_queued(&mut self.session.link)?)
    }

    /// Bytes have come on a stream without a service: a request, or what follows it.
    pub(super) fn received(&mut self, id: StreamId) -> Result<(), End> {
        if let Some((StreamState::Offering(_), bytes)) = self.streams.pump.held(id) {
            // Nobody reads what comes on such a stream.
            let n = bytes.len();
            self.streams.pump.take(id, n);
            return Ok(());
        }
        // After RUN the name may have come already.
        while let Some((StreamState::Requesting { line, way, .. }, bytes)) =
            self.streams.pump.held(id)
            && !bytes.is_empty()
        {
            let (text, taken) = match line.feed(bytes) {
                Fed::More => (Vec::new(), None),
                Fed::TooLong => (Vec::new(), Some(0)),
                Fed::Line { text, taken } => (text.to_vec(), Some(taken)),
            };
            let Some(taken) = taken else {
                let n = bytes.len();
                self.streams.pump.take(id, n);
                return Ok(());
            };
            let (name, way) = match way {
                Way::Plain => (&text[..], Way::Plain),
                Way::Run | Way::Terminal(_) => {
                    let (name, terminal) = run::read_line(&text);
                    (name, Way::run(terminal))
                }
            };
            self.streams.pump.take(id, taken);
            self.requested(id, (taken > 0).then_some(name), way)?;
        }
        Ok(())
    }

    /// A stream's request is complete; None: it is too long.
    fn requested(&mut self, id: StreamId, text: Option<&[u8]>, way: Way) -> Result<(), End> {
        let s = &mut *self.session;
        s.state.facts.minute = clock::minute_of_day();
        let decision = match text {
            Some(text) => {
                request::decide(&s.state.world, &s.state.facts, Where::Stream, text, &way)
            }
            None => request::too_long(),
        };
        let text = text.unwrap_or_default();
        match decision {
            Decision::Help(bytes) => self.close_with(id, bytes),
            Decision::Refuse { bytes, why } => {
                s.report_refusal(why, text)?;
                self.close_with(id, bytes);
            }
            Decision::LookUp => self.ask_name(id, text, way)?,
            Decision::Start(service) => self.start(id, service, way)?,
            Decision::Builtin(Builtin::Run) => self.asked_for_run(id),
            Decision::Builtin(b) => self.branch(id, b)?,
        }
        Ok(())
    }

    /// The name of the service follows. That needs no thread of its own.
    fn asked_for_run(&mut self, id: StreamId) {
        self.streams.pump.send_data(id, reply::SUCCESS);
        if let Some(StreamState::Requesting { line, way, .. }) = self.streams.pump.owner(id) {
            (*line, *way) = (Line::new(DIALOGUE_MAX), Way::Run);
        }
    }

    /// The request waits for the name of the client's address. The other streams go on.
    fn ask_name(&mut self, id: StreamId, text: &[u8], way: Way) -> Result<(), End> {
        if !std::mem::replace(&mut self.streams.name_requested, true) {
            self.session.channel.send(&Ask::Name)?;
        }
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::LookingUpName { text: text.to_vec(), way };
        }
        Ok(())
    }

    /// The parent has answered: the name, or that there is none. Requests that waited for it go on.
    pub(super) fn named(&mut self, name: Named) -> Result<(), End> {
        self.session.state.facts.peer_name = request::named(name);
        let waiting = |(id, stage): (StreamId, &mut StreamState)| match stage {
            StreamState::LookingUpName { text, way } => {
                Some((id, std::mem::take(text), std::mem::take(way)))
            }
            _ => None,
        };
        let all: Vec<(StreamId, Vec<u8>, Way)> =
            self.streams.pump.owners().filter_map(waiting).collect();
        for (id, text, way) in all {
            self.requested(id, Some(&text), way)?;
        }
        Ok(())
    }

    fn start(&mut self, id: StreamId, service: ServiceId, way: Way) -> Result<(), End> {
        if !self.session.state.guard.stays() {
            return Err(End::Evicted);
        }
        let s = &self.session;
        let room = self.streams.starts.len() < self.streams.starts_max as usize;
        let reserve = || s.reserve();
        // Of RUN standard error has a descriptor, too.
        let places = match (room, way.is_run()) {
            (false, _) => return self.full(id, Some(service), Full::Starts),
            (true, false) => reserve().map(|place| [Some(place), None]),
            (true, true) => reserve().zip(reserve()).map(|(a, b)| [Some(a), Some(b)]),
        };
        let Some(places) = places else {
            return self.full(id, Some(service), Full::Descriptors);
        };
        self.streams.tag += 1;
        self.streams.starts.push(places);
        let tag = self.streams.tag;
        let run = way.is_run().then(|| s.state.world.table.answers_itself(service));
        let ask = Ask::Start { service: service.0, host: s.state.facts.host.0, tag, way };
        self.session.channel.send(&ask)?;
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::Starting { tag, service, run };
        }
        Ok(())
    }

    /// Gives a stream that changes its own facts a session in a thread of its own.
    fn branch(&mut self, id: StreamId, b: Builtin) -> Result<(), End> {
        let s = &*self.session;
        // Threads of streams that are gone may not have noticed yet.
        if Arc::strong_count(&self.streams.branches)
            > s.state.world.table.settings.dialogues() as usize
        {
            return self.full(id, None, Full::Dialogues);
        }
        let Some(guard) = s.state.world.sessions.branch(&self.streams.branches, &s.state.guard)
        else {
            return self.full(id, None, Full::Dialogues);
        };
        let Ok((ours, theirs)) = s.state.world.descriptors.unless_reserved(socket::pair()) else {
            return self.full(id, None, Full::Descriptors);
        };
        let Some(place) = s.reserve() else {
            return self.full(id, None, Full::Descriptors);
        };
        let outer = exporter(s)?;
        self.streams.tag += 1;
        let (tag, s) = (self.streams.tag, &*self.session);
        s.channel.send(&Ask::Branch { host: s.state.facts.host.0, tag })?;
        let (branching, asked) = Branching::new(place);
        self.streams.branching.insert(tag, branching);
        let handover = Arc::<Handover>::default();
        (self.streams.begin)(Start {
            world: s.state.world.clone(),
            connection: theirs.into(),
            facts: s.state.facts.clone(),
            channel: Asked::Session(asked),
            place: Where::Stream,
            first: First::Builtin(b),
            guard,
            outer,
            handover: Some(handover.clone()),
        });
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::Branch { tag, handover };
            self.streams.pump.count(id, Tally::of_no_service());
            self.connect(id, Flow::of_socket(ours));
            self.streams.pump.ask_at_end(id);
        }
        Ok(())
    }

    /// The administrator must know what the client lacks, or this computer.
    fn full(&mut self, id: StreamId, service: Option<ServiceId>, limit: Full) -> Result<(), End> {
        self.session.report_refusal(Some(request::full(service, limit)), b"")?;
        let world = &self.session.state.world;
        let bytes = service.map_or_else(
            || reply::BUSY.to_vec(),
            |service| request::not_started(world, service, Why::Busy),
        );
        self.close_with(id, bytes);
        Ok(())
    }

    /// The client has finished sending on a stream.
    pub(super) fn finished(&mut self, id: StreamId) {
        // Without a complete request there is nothing to do. Other streams see the end after all of
        // their data.
        match self.streams.pump.owner(id) {
            Some(StreamState::Requesting { .. }) => drop(self.streams.pump.close(id)),
            Some(StreamState::Offering(_)) => self.offer_finished(id),
            Some(StreamState::Asking { .. }) => self.asked_in_vain(id),
            Some(
                StreamState::LookingUpName { .. }
                | StreamState::Starting { .. }
                | StreamState::Running { .. }
                | StreamState::Branch { .. }
                | StreamState::Closing,
            )
            | None => {}
        }
    }

    /// Ends the streams whose request has not come in time.
    pub(super) fn expire(&mut self) {
        let now = self.streams.pump.now();
        let late = |s: &StreamState| s.deadline().is_some_and(|deadline| deadline <= now);
        let all: Vec<StreamId> =
            self.streams.pump.streams().filter(|(_, s)| late(&s.owner)).map(|s| s.0).collect();
        all.into_iter().for_each(|id| drop(self.streams.pump.close(id)));
    }
}
