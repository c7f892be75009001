//! The service that a session becomes: it is asked for, and then has the client's own connection,
//! or one that the parent has made and that is copied here.

use super::channel;
use super::counted::Counted;
use super::end::End;
use super::handover::{Got, Service};
use super::request::{self, Where};
use super::session_counts::Full;
use super::session_state::{Copying, ServiceRelay, Session};
use crate::link::Tally;
use crate::link::copy::{self, Copied};
use crate::policy::{Reached, ServiceId};
use crate::sys::shared::Shared;
use crate::sys::{clock, socket};
use crate::wire::orders::{Answer, Ask, OWN_CONNECTION, Why};
use crate::wire::run::Way;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// When a session with an idle relay goes on although nothing has come.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// How long a session keeps its thread while nothing is copied.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// The tag of the one connection that a stream with a thread of its own may ask for.
const BRANCH: u32 = OWN_CONNECTION + 1;

impl Session {
    /// Gives the connection to the service: the client's own descriptor where that is plain and the
    /// client wants the service's bytes alone, else a connection that the parent makes and this
    /// thread copies.
    pub(super) fn start(&mut self, service: ServiceId, way: Way) -> Result<Option<End>, End> {
        let handover = self.state.handover.clone();
        // First, so that the session of a stream knows that it serves.
        handover.iter().for_each(|h| h.ask());
        if !self.state.guard.stays() {
            return Err(End::Evicted);
        }
        let tag = if handover.is_some() { BRANCH } else { OWN_CONNECTION };
        let run = way.is_run();
        let ask = Ask::Start { service: service.0, host: self.state.facts.host.0, tag, way };
        if handover.is_none() && self.link.tls().is_none() && !run {
            // The options that any other service's connection has. A Unix socket has none of them.
            let _ = socket::set_nodelay(self.link.socket(), false);
            if self.state.place == Where::Connection {
                let _ = socket::set_urgent_inline(self.link.socket(), false);
            }
            let what = (service.0, self.state.facts.host.0);
            let net = self.state.world.channel.as_fd();
            self.channel.start_on_client(net, what, self.link.socket())?;
            self.let_go();
            return match self.channel.answer()? {
                Answer::Started { .. } => Ok(Some(End::Closed)),
                // The loop has got the client back, and answers it.
                Answer::Refused { .. } => Ok(Some(End::Refused)),
                _ => Err(End::System),
            };
        }
        // Three descriptors must be free: for our ends of the connection and of standard error, and
        // for a copy of the pair's.
        let places = [(); 3].map(|()| self.reserve());
        if places.iter().any(Option::is_none) {
            self.report_refusal(Some(request::full(Some(service), Full::Descriptors)), b"")?;
            return self.busy(service).map(Some);
        }
        self.channel.send(&ask)?;
        let received = self.channel.answer_with()?;
        if !self.started(service, &received.answer)? {
            return Ok(Some(End::Refused));
        }
        let counted = Counted::of(&received.answer, tag);
        let replies = run && self.state.world.table.answers_itself(service);
        let Some(service_of) = Service::of(received, counted, run.then_some(replies)) else {
            // There was no descriptor for it.
            self.channel.send(&counted.tally(Tally::default()))?;
            return self.busy(service).map(Some);
        };
        let Some(handover) = handover else { return self.relay(service_of) };
        let given = match Shared::copy(self.link.socket()) {
            Ok(pair) => handover.give(Got::Service(service_of), pair),
            Err(_) => Err(Got::Service(service_of)),
        };
        given.map(|()| Some(End::Closed)).map_err(|got| {
            if let Got::Service(service) = got {
                // This fails if the parent is gone, which changes nothing.
                let _ = self.channel.send(&service.discard().tally(Tally::default()));
            }
            End::System
        })
    }

    /// The parent has the client's socket: this process has it no more, and says so.
    fn let_go(&mut self) {
        let mut socket = self.link.replace_socket(channel::none());
        // Nobody keeps it, but who looked for an idle session may have it for a moment.
        while let Err(shared) = Arc::try_unwrap(socket) {
            std::thread::yield_now();
            socket = shared;
        }
        self.channel.has_closed();
    }

    /// Sends the client the greeting. The session's loop then copies between it and its service.
    fn relay(&mut self, service: Service) -> Result<Option<End>, End> {
        let Service { connection, counted, tally, greeting, run, breaks } = service;
        let copying = match run {
            None => Copying::Bytes(connection.into_fd(), copy::bytes::State::new(breaks, tally)),
            Some(run) => Copying::Records(copy::records::State::new(connection, run, breaks)),
        };
        self.state.relay = Some(ServiceRelay { counted: Some(counted), copying });
        match if greeting.is_empty() { Ok(()) } else { self.write(&greeting) } {
            Ok(()) => Ok(None),
            Err(end) => self.end_relay(Err(end)).map(Some),
        }
    }

    /// Copies between the client and its service. None: nothing moves, and the session needs no
    /// thread for that.
    pub(super) fn resume_relay(&mut self) -> Result<Option<End>, End> {
        let idle = self.state.world.parking.as_ref().map(|_| PARK_AFTER);
        loop {
            let Some(relay) = &mut self.state.relay else { return Err(End::System) };
            let copied = match &mut relay.copying {
                Copying::Bytes(connection, state) => {
                    copy::bytes::copy(&mut self.link, connection.as_fd(), state, idle)
                }
                Copying::Records(state) => {
                    let channel = (!self.state.parent_gone).then(|| self.channel.as_fd());
                    copy::records::copy(&mut self.link, state, channel, idle)
                }
            };
            match copied {
                Ok(Copied::Other) => self.receive_end(),
                Ok(Copied::Idle) => {
                    let deadline = relay.deadline();
                    self.state.deadline = deadline.unwrap_or_else(|| clock::monotonic() + NEVER);
                    return Ok(None);
                }
                Ok(Copied::All) => return self.end_relay(Ok(())).map(Some),
                Err(e) => return self.end_relay(Err(e.into())).map(Some),
            }
        }
    }

    /// The parent has sent something: it may be how the service ended. If the parent is gone nobody
    /// will know that.
    fn receive_end(&mut self) {
        let run = match self.state.relay.as_mut().map(|relay| &mut relay.copying) {
            Some(Copying::Records(state)) => state.run_mut(),
            Some(Copying::Bytes(..)) | None => None,
        };
        match (self.channel.try_answer(), run) {
            (Ok(Some(Answer::Ended { status, .. })), Some(run)) => run.ended(status),
            (Ok(_), _) => {}
            (Err(_), run) => {
                self.state.parent_gone = true;
                run.into_iter().for_each(|run| run.ended(None));
            }
        }
    }

    /// The relay is over: the parent is told how many bytes were copied.
    fn end_relay(&mut self, copied: Result<(), End>) -> Result<End, End> {
        let Some(ServiceRelay { counted, copying }) = self.state.relay.take() else {
            return Err(End::System);
        };
        let tally = match &copying {
            Copying::Bytes(connection, state) => {
                if copied.is_err() {
                    socket::abort(connection.as_fd());
                }
                state.tally()
            }
            Copying::Records(state) => {
                if copied.is_err() {
                    state.abort();
                }
                state.tally()
            }
        };
        drop(copying);
        let end = copied.err().unwrap_or(End::Closed);
        // The service has ended, however long its client takes to close.
        let told = counted.map_or(Ok(()), |counted| self.channel.send(&counted.tally(tally)));
        if end == End::Closed {
            self.link.linger();
        }
        told?;
        Ok(end)
    }

    fn busy(&mut self, service: ServiceId) -> Result<End, End> {
        self.close_with(&self.refusal(service, Why::Busy))?;
        Ok(End::Refused)
    }

    fn started(&mut self, service: ServiceId, answer: &Answer) -> Result<bool, End> {
        match answer {
            Answer::Started { .. } => Ok(true),
            Answer::Refused { why, .. } => {
                self.close_with(&self.refusal(service, *why))?;
                Ok(false)
            }
            _ => Err(End::System),
        }
    }

    /// What a client is told whose service was not started: at a port of the service's own no line,
    /// and the banners alone.
    fn refusal(&self, service: ServiceId, why: Why) -> Vec<u8> {
        match (self.state.facts.reached, why) {
            (Reached::ByName, _) => request::not_started(&self.state.world, service, why),
            (_, Why::NotAvailable) => Vec::new(),
            (_, Why::Busy | Why::Failed) => self
                .state
                .world
                .table
                .service(service)
                .map_or_else(Vec::new, |s| s.attributes.tail()),
        }
    }
}
