//! The streams of calls: answers, and how they end.

use super::call::{Call, OutageNotice, Pending, Step};
use super::state::Holder;
use crate::client::error::reason;
use crate::link::pump::{LocalEnd, Run, Stream};
use crate::sys::socket;
use crate::wire::answer::Outcome;
use crate::wire::handover::{Notice, OverWhen};
use crate::wire::run::Size;
use crate::wire::yamux::StreamId;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

/// Bytes that are passed on, at most, of what follows the first line of a refusal (a banner).
const REFUSAL_MAX: usize = 4096;
/// When a stream for which the server had no room is tried again, if no other stream ends earlier.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often it is tried while no other stream is open.
const TRIES_MAX: u32 = 30;

impl Holder {
    /// Reports once to each caller that waits for an answer that there is no connection, and why.
    pub(super) fn report_outage(&mut self, distrust: bool, text: &str) {
        let what = if distrust { OutageNotice::Distrust } else { OutageNotice::Outage };
        for (_, call) in self.pump.owners() {
            if !call.is_answered() && call.outage < what {
                call.outage = what;
                let notice = Notice::Away { tag: call.tag, distrust, text: text.into() };
                self.callers.send(call.caller, &notice);
            }
        }
    }

    // From the callers.

    /// The input failed. If it is an application's connection, its output is lost, too. If it is
    /// the standard input of a call, the service must not take what came for all of it.
    pub(super) fn input_failed(&mut self, id: StreamId, e: &io::Error) {
        match self.pump.owner(id) {
            Some(call) if call.over == OverWhen::BothEnd => self.output_failed(id, None),
            Some(_) if is_gone(e) => self.pump.finish(id),
            Some(call) => {
                let text = format!("standard input: {}", reason(e));
                self.callers.send(call.caller, &Notice::Lost { tag: call.tag, text });
                self.give_up(id);
            }
            None => {}
        }
    }

    /// Nobody reads the output any more, or writing it failed: the service's connection ends.
    pub(super) fn output_failed(&mut self, id: StreamId, e: Option<io::Error>) {
        // What serves an offer may still be sending.
        let Some(call) = self.pump.owner(id).filter(|call| !call.is_client()) else { return };
        let report = match e.filter(|e| call.over == OverWhen::ServiceEnds && !is_gone(e)) {
            Some(e) => {
                Notice::Lost { tag: call.tag, text: format!("standard output: {}", reason(&e)) }
            }
            None => Notice::OutputClosed { tag: call.tag },
        };
        self.callers.send(call.caller, &report);
        self.give_up(id);
    }

    /// The output's other end was closed. What an application sent before it closed is still
    /// delivered: its stream breaks, as its own connection would, when the service sends something
    /// that cannot be delivered.
    pub(super) fn output_closed(&mut self, id: StreamId) {
        match self.pump.held(id) {
            Some((call, [])) if call.over == OverWhen::BothEnd => self.pump.drop_output(id),
            _ => self.output_failed(id, None),
        }
    }

    // From the server.

    /// A part of the server's answer came, which precedes the service's own bytes.
    pub(super) fn answer_received(&mut self, id: StreamId) {
        let Some((call, bytes)) = self.pump.held(id) else { return };
        let offer = call.offers().is_some();
        let (taken, answer) = match &mut call.step {
            Step::Choosing(expected) | Step::Asked(expected) => expected.feed(bytes),
            Step::Refused(text) => {
                let space = REFUSAL_MAX.saturating_sub(text.len());
                text.extend_from_slice(&bytes[..bytes.len().min(space)]);
                (bytes.len(), Outcome::More)
            }
            Step::Naming(_) => return self.client_named(id),
            Step::Started | Step::Connecting | Step::Serving => return,
        };
        let chosen = call.is_choosing() && answer == Outcome::Accepted;
        match &answer {
            Outcome::Accepted if chosen => {}
            Outcome::Accepted => call.step = Step::Started,
            Outcome::Refused(why) => call.step = Step::Refused(format!("{why}\n").into_bytes()),
            _ => {}
        }
        let (caller, tag, host) = (call.caller, call.tag, call.request.host.clone());
        self.pump.take(id, taken);
        match answer {
            Outcome::More => {}
            Outcome::Accepted if chosen => self.host_chosen(id),
            Outcome::Accepted if offer => self.offer_stands(id),
            // The server waits for another request.
            Outcome::Refused(why) if offer => self.refuse(id, &why),
            Outcome::Accepted => {
                self.callers.send(caller, &Notice::Started { tag });
                self.pump.release(id);
            }
            Outcome::Refused(_) => {
                // A refusal takes no input.
                self.pump.pause(id);
                self.answer_received(id);
            }
            Outcome::NoRun => self.without_run(id),
            Outcome::NoHost => self.refuse(id, &format!("no virtual host {host} there")),
            Outcome::Unexpected(line) => {
                self.refuse(id, &format!("no tcpmux service: it says {line:?}"));
            }
        }
    }

    /// The service has a terminal. The caller has the message before the service's output.
    pub(super) fn terminal_given(&mut self, id: StreamId) {
        let banner = self.pump.stream(id).and_then(Stream::run).map_or(0, Run::banner);
        if let Some(call) = self.pump.owner(id) {
            self.callers.send(call.caller, &Notice::Terminal { tag: call.tag, banner });
        }
        self.pump.pass_rest(id);
    }

    /// A caller's terminal has another size.
    pub(super) fn resized(&mut self, caller: u32, tag: u32, size: Size) {
        let its = |s: &Stream<Call>| s.owner.caller == caller && s.owner.tag == tag;
        let Some(id) = self.pump.streams().find(|(_, s)| its(s)).map(|(id, _)| id) else { return };
        match self.pump.owner(id) {
            // Its terminal has yet to be asked for.
            Some(Call { step: Step::Choosing(_), request, .. }) => {
                request.way.terminal_mut().into_iter().for_each(|t| t.size = size);
            }
            _ => self.pump.note(id, |run| run.resized(size)),
        }
    }

    /// The server has sent its last byte, and it was written to the output.
    pub(super) fn output_finished(&mut self, id: StreamId) {
        let run = self.pump.stream(id).and_then(Stream::run);
        let (run, status) = (run.is_some(), run.and_then(Run::status));
        let Some(call) = self.pump.owner(id) else { return };
        match (&call.step, call.offers()) {
            (Step::Naming(_), _) => return self.give_up(id),
            // The pump passes the end on.
            (Step::Connecting | Step::Serving, _) => return,
            (Step::Started, Some(_)) => return self.offer_ended(id),
            _ => {}
        }
        if let Some(text) = call.refused() {
            return self.refuse(id, &text);
        }
        // The server has not waited for the request, which goes out in this turn: a session without
        // a connection may have kept the answer about the host for long.
        let late =
            call.is_choosing() || matches!(call.step, Step::Asked(_)) && call.requested == self.now;
        let chosen = !call.request.host.is_empty() && call.offers().is_none();
        if late && chosen && call.tries == 0 {
            call.tries = 1;
            if let Some(stream) = self.pump.reset_at_once(id) {
                self.start(Call::of_ended(*stream));
            }
            return;
        }
        if call.is_answered() {
            if run && status.is_none() {
                self.callers.send(call.caller, &without_status(call.tag));
                return self.give_up(id);
            }
            if call.over == OverWhen::ServiceEnds
                && let Some(stream) = self.pump.close(id)
            {
                self.ended(&stream);
            }
        } else if call.request.service.is_some() || call.is_choosing() {
            self.refuse(id, "the server closed the stream without an answer");
        } else {
            // An empty list is an answer to HELP.
            call.step = Step::Started;
            self.pump.release(id);
        }
    }

    /// The server has reset a stream.
    pub(super) fn reset(&mut self, stream: Stream<Call>) {
        if stream.owner.is_client() {
            // What serves it must not mistake that for an orderly end.
            if let LocalEnd::Socket(connection) = stream.local() {
                socket::abort(connection.as_fd());
            }
            return self.stream_ended();
        }
        if stream.is_done() {
            // It was over: only input was left, which nobody wanted.
            return self.ended(&stream);
        }
        let mut call = Call::of_ended(stream);
        let tag = call.tag;
        if let Some(text) = call.refused() {
            self.callers.send(call.caller, &Notice::Refused { tag, text });
            self.stream_ended();
        } else if call.is_answered() {
            let text = "the server reset the stream".into();
            self.callers.send(call.caller, &Notice::Lost { tag, text });
            self.stream_ended();
        } else if self.pump.is_empty() && call.tries >= TRIES_MAX {
            let text =
                "the server takes no more streams: try again later, or -x for a session of its own"
                    .into();
            self.callers.send(call.caller, &Notice::Refused { tag, text });
            self.stream_ended();
        } else {
            if call.tries == 0 {
                self.callers.send(call.caller, &Notice::Waiting { tag });
            }
            // As long as other streams are open, it waits for one of them to end.
            call.tries = if self.pump.is_empty() { call.tries + 1 } else { 1 };
            self.waiting.push_front(Pending { call, again: Some(self.now + RETRY_AFTER) });
        }
    }

    // Ends.

    /// The call is over, and all its output is written.
    pub(super) fn ended(&mut self, stream: &Stream<Call>) {
        let tag = stream.owner.tag;
        let notice = match stream.run().map(Run::status) {
            Some(None) => without_status(tag),
            Some(status) => Notice::Ended { tag, status },
            None => Notice::Ended { tag, status: None },
        };
        self.callers.send(stream.owner.caller, &notice);
        self.stream_ended();
    }

    pub(super) fn refuse(&mut self, id: StreamId, text: &str) {
        if let Some(call) = self.pump.owner(id) {
            let (caller, tag, text) = (call.caller, call.tag, text.to_string());
            match call.request.offered.clone() {
                Some(offered) => self.offer_refused(caller, tag, &offered, text),
                None => self.callers.send(caller, &Notice::Refused { tag, text }),
            }
        }
        self.give_up(id);
    }

    /// Resets a stream that nobody wants any more, even after the input has ended: otherwise the
    /// service would not notice.
    pub(super) fn give_up(&mut self, id: StreamId) {
        self.pump.reset_at_once(id);
        self.stream_ended();
    }

    /// A stream has ended, so there may be room for another.
    fn stream_ended(&mut self) {
        self.idle = self.now;
        if let Some(p) = self.waiting.front_mut() {
            p.again = Some(self.now);
        }
    }

    /// The session is over. Unless `ended`, a call for which the server has hardly started anything
    /// is made again on another session: if nothing was received since its request (a network that
    /// loses what the server sends loses more, nearly always), or if the server ended the session
    /// properly without having acknowledged the stream, which it does before anything else. Not one
    /// whose stream had asked for the virtual host before, for then no silence says so.
    pub(super) fn end_all(&mut self, why: &str, ended: bool) {
        let last_received = self.liveness.last_received();
        let in_order = self.away.is_none() && self.link.is_over();
        let mut calls = Vec::new();
        for id in self.pump.ids() {
            // Its service has ended before.
            if !ended && self.pump.stream(id).is_some_and(has_rest) {
                continue;
            }
            let acknowledged = self.mux().is_acknowledged(id);
            let Some(stream) = self.pump.remove(id) else { continue };
            let call = Call::of_ended(*stream);
            let undone = call.is_choosing()
                || !(call.is_answered() || call.chose)
                    && (last_received <= call.requested || in_order && !acknowledged);
            calls.push((undone, call));
        }
        calls.extend(std::mem::take(&mut self.waiting).into_iter().map(|p| (true, p.call)));
        for (undone, call) in calls {
            let (caller, tag) = (call.caller, call.tag);
            if let Some(text) = call.refused() {
                self.callers.send(caller, &Notice::Refused { tag, text });
            } else if undone && !ended && call.is_application() {
                self.leave_application(call);
            } else if undone && !ended {
                self.callers.return_input(caller, tag, &call.ahead);
                self.callers.send(caller, &Notice::Gone { tag });
            } else {
                self.callers.send(caller, &Notice::Lost { tag, text: why.into() });
            }
        }
    }
}

/// Is it a call whose service has ended, and whose output is still being written?
pub(super) fn has_rest(stream: &Stream<Call>) -> bool {
    let call = &stream.owner;
    stream.has_rest() && call.is_answered() && !call.is_client() && call.offers().is_none()
}

/// The end of a service that was called with RUN and did not come whole: that is no success.
fn without_status(tag: u32) -> Notice {
    let text = "the server ended the service's stream without its exit status".into();
    Notice::Lost { tag, text }
}

/// Did that happen because whoever has the other end is gone?
fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
