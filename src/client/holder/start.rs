//! How a call gets a stream, and its request is sent.

use super::call::{Call, Pending, Step};
use super::state::Holder;
use super::streams::RETRY_AFTER;
use crate::link::pump::{LocalEnd, Run};
use crate::wire::answer::AnswerReader;
use crate::wire::handover::Notice;
use crate::wire::run::{self, Data, Way};
use crate::wire::yamux::StreamId;

impl Holder {
    /// A caller makes a call.
    pub(super) fn take_call(&mut self, call: Call) {
        if self.waiting.is_empty() {
            self.start(call);
        } else {
            self.callers.send(call.caller, &Notice::Waiting { tag: call.tag });
            self.waiting.push_back(Pending { call, again: None });
        }
    }

    /// Gives a call a stream, and sends its request, unless that was sent when the session was
    /// opened. The first call to a virtual host asks for the host alone, and for the service when
    /// the server has said that it has the host: otherwise the session's host would start what it
    /// has of that name.
    pub(super) fn start(&mut self, mut call: Call) {
        if !self.knows_run {
            call.request.way = Way::Plain;
        }
        let opened = self.first.take_if(|(_, request)| *request == call.request).map(|(id, _)| id);
        let host = call.request.host_lines();
        let chooses =
            !host.is_empty() && (opened.is_some() || !self.hosts.contains(&call.request.host));
        (call.requested, call.chose) = (self.now, false);
        call.step = match chooses {
            true => Step::Choosing(AnswerReader::to_host()),
            false => Step::Asked(call.request.answer(!host.is_empty())),
        };
        let lines = match (opened, chooses) {
            (Some(_), _) => Vec::new(),
            (None, true) => host,
            (None, false) => [host, call.request.service_lines()].concat(),
        };
        let id = match opened {
            Some(id) => {
                self.pump.start_reading();
                self.pump.adopt(id, call);
                id
            }
            None => match self.pump.open(call) {
                Ok(id) => id,
                Err(call) if call.is_application() => return self.leave_application(call),
                Err(call) => {
                    // The server takes no new streams: the call can be made on a new session.
                    self.callers.return_input(call.caller, call.tag, &call.ahead);
                    return self.callers.send(call.caller, &Notice::Gone { tag: call.tag });
                }
            },
        };
        match chooses {
            true => self.pump.send_data(id, &lines),
            false => self.send_request(id, lines),
        }
    }

    /// The server has the virtual host: the service is requested there.
    pub(super) fn host_chosen(&mut self, id: StreamId) {
        let now = self.now;
        let Some(call) = self.pump.owner(id) else { return };
        (call.requested, call.chose) = (now, true);
        call.step = Step::Asked(call.request.answer(false));
        let (host, lines) = (call.request.host.clone(), call.request.service_lines());
        self.hosts.insert(host);
        self.send_request(id, lines);
    }

    /// Sends the rest of a call's request, these lines, and the input that there is.
    fn send_request(&mut self, id: StreamId, mut first: Vec<u8>) {
        let Some(call) = self.pump.owner(id) else { return };
        let local = std::mem::replace(&mut call.local, LocalEnd::None);
        let ahead = std::mem::take(&mut call.ahead);
        let run = call.request.way.is_run().then(|| {
            let terminal = call.request.way.terminal().is_some();
            Run::of_caller(call.errors.take(), terminal)
        });
        if run.is_some() && !ahead.is_empty() {
            first.extend_from_slice(&run::head(Data::Main, ahead.len()));
        }
        first.extend_from_slice(&ahead);
        self.pump.send_data(id, &first);
        self.pump.keep(id, ahead);
        if let Some(run) = run {
            self.pump.run(id, run);
        }
        self.pump.attach(id, local);
    }

    /// Starts calls that wait, if it is time. On a session that takes no more streams nobody waits
    /// for one: they go to the next session.
    pub(super) fn start_waiting(&mut self) {
        let none = self.mux().is_going_away();
        let due = |p: &Pending, now| none || p.again.is_none_or(|at| at <= now);
        while self.waiting.front().is_some_and(|p| due(p, self.now)) {
            if let Some(p) = self.waiting.pop_front() {
                self.start(p.call);
            }
            // The server has not answered yet whether it has room.
            if let Some(p) = self.waiting.front_mut() {
                p.again.get_or_insert(self.now + RETRY_AFTER);
            }
        }
    }

    /// The server does not know RUN: the call is made by the name alone, in another stream, and so
    /// are all others of this session.
    pub(super) fn without_run(&mut self, id: StreamId) {
        self.knows_run = false;
        if let Some(stream) = self.pump.reset_at_once(id) {
            self.start(Call::of_ended(*stream));
        }
    }
}
