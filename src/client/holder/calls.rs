//! A call: a stream of the session with a caller's descriptors at its near end.

use super::callers::AHEAD_MAX;
use super::{Holder, OUT_MAX};
use crate::client::open::{self, Request};
use crate::client::trouble::reason;
use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use crate::wire::answer::{Answer, Said, words};
use crate::wire::handover::Tell;
use crate::wire::yamux::{HEADER, PIECE, StreamId};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

/// What a refusal says behind its line (a banner) is told up to here, in bytes.
const REFUSAL_MAX: usize = 4096;
/// When a stream that the server had no room for is tried again, if none ends before.
const AGAIN: Duration = Duration::from_secs(1);
/// How often that is done while no other stream is open.
const TRIES_MAX: u32 = 30;

pub struct Call {
    pub caller: u32,
    tag: u32,
    /// The call goes on when the service has said its last, until the input ends too.
    both_ends: bool,
    request: Request,
    input: Option<Flow>,
    output: Option<Flow>,
    /// What the server has yet to say before the service's own bytes come. None: it has said it.
    answer: Option<Answer>,
    /// It was refused; why, as far as it was told.
    refusal: Option<Vec<u8>>,
    /// Input that went ahead of the answer: to be sent again, or given back.
    ahead: Vec<u8>,
    /// What the output has not taken yet.
    held: VecDeque<u8>,
    server_done: bool,
    /// Its caller knows that the network is away.
    waits_for_network: bool,
    /// How often the server had no room for it.
    tries: u32,
    asked: Duration,
    began: Duration,
    to: u64,
    from: u64,
}

/// A call that the server had no room for.
pub struct Pending {
    pub call: Call,
    /// When it is tried (again); None: when there is something to do.
    pub again: Option<Duration>,
}

/// What poll(2) said of a call's ends.
pub struct Ready {
    id: StreamId,
    input: bool,
    output: bool,
    hung: bool,
    broken: bool,
}

impl Ready {
    pub fn of(id: StreamId, input: Poll, output: Poll) -> Option<Ready> {
        let ready = Ready {
            id,
            input: input.readable(),
            output: output.writable(),
            hung: output.hung(),
            broken: output.broken(),
        };
        (ready.input || ready.output || ready.hung).then_some(ready)
    }
}

impl Call {
    /// What the server said, where it has refused: known from then on, whatever becomes of its
    /// stream.
    fn refused(&mut self) -> Option<String> {
        let said = self.refusal.take()?;
        Some(
            said.split(|b| *b == b'\n')
                .map(words)
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }

    #[expect(clippy::too_many_arguments, reason = "one for each thing that a caller says")]
    pub fn new(
        caller: u32,
        tag: u32,
        both_ends: bool,
        request: Request,
        input: Flow,
        output: Flow,
        ahead: Vec<u8>,
        now: Duration,
    ) -> Call {
        Call {
            caller,
            tag,
            both_ends,
            request,
            input: Some(input),
            output: Some(output),
            answer: None,
            refusal: None,
            ahead,
            held: VecDeque::new(),
            server_done: false,
            waits_for_network: false,
            tries: 0,
            asked: now,
            began: now,
            to: 0,
            from: 0,
        }
    }

    /// Has the service said something?
    pub fn is_answered(&self) -> bool {
        self.answer.is_none()
    }

    /// Bytes of input that may be taken now, beside what the window says.
    fn room(&self) -> usize {
        match (&self.input, &self.answer) {
            (None, _) => 0,
            (_, None) => PIECE,
            // A refusal takes none.
            (_, Some(_)) if self.refusal.is_some() => 0,
            (_, Some(_)) => AHEAD_MAX.saturating_sub(self.ahead.len()),
        }
    }

    /// Input, output. `window`: the session takes more.
    pub fn polls(&self, window: bool) -> [Poll<'_>; 2] {
        let input = self.input.as_ref().filter(|_| window && self.room() > 0);
        let output = self.output.as_ref().map(|o| match self.held.is_empty() {
            true => Poll::hangup(o.as_fd()),
            false => Poll::new(o.as_fd(), false, true),
        });
        [
            input.map_or(Poll::none(), |i| Poll::new(i.as_fd(), true, false)),
            output.unwrap_or(Poll::none()),
        ]
    }

    /// One line for `-O list`.
    pub fn state(&self, now: Duration) -> String {
        let (service, host) =
            (self.request.service.as_deref().unwrap_or("HELP"), &self.request.host);
        let seconds = now.saturating_sub(self.began).as_secs();
        format!("service={service} host={host} since={seconds} to={} from={}", self.to, self.from)
    }
}

impl Holder {
    /// A caller asks for a stream.
    pub(super) fn called(&mut self, call: Call) {
        if self.waiting.is_empty() {
            self.start(call);
        } else {
            self.callers.tell(call.caller, &Tell::Waiting { tag: call.tag });
            self.waiting.push_back(Pending { call, again: None });
        }
    }

    /// Sends a call's request, unless that is the one which went with the session's beginning, and
    /// what input there is.
    fn start(&mut self, mut call: Call) {
        let sent =
            self.session.first.take_if(|(_, request)| *request == call.request).map(|(id, _)| id);
        self.claimed |= sent.is_some();
        let Some(id) = sent.or_else(|| self.session.mux.open(self.now)) else {
            // The server goes: a new session can do it.
            self.callers.give_back(call.caller, call.tag, &call.ahead);
            return self.callers.tell(call.caller, &Tell::Gone { tag: call.tag });
        };
        call.asked = self.now;
        call.answer =
            Some(Answer::new(!call.request.host.is_empty(), call.request.service.is_none()));
        let lines = if sent.is_some() { Vec::new() } else { call.request.lines() };
        self.session.mux.take_control(&mut self.out);
        open::data(&mut self.session.mux, id, &[&lines[..], &call.ahead].concat(), &mut self.out);
        call.to = call.ahead.len() as u64;
        if call.input.is_none() {
            self.session.mux.finish(id);
        }
        self.calls.insert(id, call);
    }

    /// Calls that wait for their turn.
    pub(super) fn next_in_line(&mut self) {
        while self.waiting.front().is_some_and(|p| p.again.is_none_or(|at| at <= self.now)) {
            if let Some(p) = self.waiting.pop_front() {
                self.start(p.call);
            }
            // Whether there was room the server has yet to say.
            if let Some(p) = self.waiting.front_mut() {
                p.again.get_or_insert(self.now + AGAIN);
            }
        }
    }

    /// Whoever waits for an answer is told once why there is none.
    pub(super) fn tell_of_outage(&mut self) {
        for call in self.calls.values_mut().filter(|c| c.answer.is_some() && !c.waits_for_network) {
            call.waits_for_network = true;
            self.callers.tell(call.caller, &Tell::Away { tag: call.tag });
        }
    }

    // From the callers.

    /// In turn: the call behind the last one that had the room begins.
    pub(super) fn calls_ready(&mut self, mut ready: Vec<Ready>) {
        let first = self.turn.and_then(|t| ready.iter().position(|r| r.id > t)).unwrap_or(0);
        ready.rotate_left(first);
        for r in ready {
            if r.output {
                self.feed_output(r.id);
            }
            if r.input {
                self.hear_input(r.id);
            }
            if r.broken {
                self.output_broke(r.id, None);
            } else if r.hung {
                self.output_gone(r.id);
            }
        }
    }

    fn hear_input(&mut self, id: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (mut ended, mut broke) = (false, false);
        while let Some(input) = call.input.as_ref().filter(|_| self.out.len() < OUT_MAX) {
            let most = self.session.mux.send_window(id).min(PIECE).min(call.room());
            if most == 0 {
                break;
            }
            let at = self.out.len();
            self.out.resize(at + HEADER + most, 0);
            let got = input.read(&mut self.out[at + HEADER..]);
            let n = *got.as_ref().unwrap_or(&0);
            self.out.truncate(if n > 0 { at + HEADER + n } else { at });
            if n == 0 {
                ended = !matches!(&got, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted));
                broke = ended && call.both_ends && got.is_err();
                break;
            }
            let header = self.session.mux.data(id, n);
            self.out[at..at + HEADER].copy_from_slice(&header);
            if call.answer.is_some() {
                call.ahead.extend_from_slice(&self.out[at + HEADER..]);
            }
            call.to += n as u64;
            self.turn = Some(id);
            if n < most {
                break;
            }
        }
        if broke {
            self.output_broke(id, None);
        } else if ended {
            call.input = None;
            self.session.mux.finish(id);
            // Data comes before the end: both are in one buffer, in their order.
            self.session.mux.take_control(&mut self.out);
            self.end_if_done(id);
        }
    }

    fn feed_output(&mut self, id: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        while let (Some(output), false) = (&call.output, call.held.is_empty()) {
            match output.write(call.held.as_slices().0) {
                Ok(n) => {
                    call.held.drain(..n);
                    call.from += n as u64;
                    self.session.mux.delivered(id, n, self.now);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return;
                }
                Err(e) => return self.output_broke(id, Some(e)),
            }
        }
        call.held = VecDeque::new();
        self.end_if_done(id);
    }

    /// Nobody reads the output any more, or it takes no more: the service sees its connection end.
    fn output_broke(&mut self, id: StreamId, e: Option<io::Error>) {
        let Some(call) = self.calls.get(&id) else { return };
        let gone =
            |e: &io::Error| matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        let tell = match e.filter(|e| !call.both_ends && !gone(e)) {
            Some(e) => {
                Tell::Lost { tag: call.tag, text: format!("standard output: {}", reason(&e)) }
            }
            None => Tell::Unread { tag: call.tag },
        };
        self.callers.tell(call.caller, &tell);
        self.give_up(id);
    }

    /// The output's other end was closed. What an application said before it closed still counts:
    /// its stream breaks as its own connection would, when the service says something that it does
    /// not hear.
    fn output_gone(&mut self, id: StreamId) {
        match self.calls.get_mut(&id) {
            Some(call) if call.both_ends && call.held.is_empty() => call.output = None,
            _ => self.output_broke(id, None),
        }
    }

    // From the server.

    pub(super) fn data(&mut self, id: StreamId, mut bytes: &[u8]) {
        let Some(call) = self.calls.get_mut(&id) else {
            return self.session.mux.delivered(id, bytes.len(), self.now);
        };
        if let Some(refusal) = &mut call.refusal {
            let room = REFUSAL_MAX.saturating_sub(refusal.len());
            refusal.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return self.session.mux.delivered(id, bytes.len(), self.now);
        }
        if let Some(answer) = &mut call.answer {
            let (taken, said) = answer.feed(bytes);
            self.session.mux.delivered(id, taken, self.now);
            bytes = &bytes[taken..];
            match said {
                Said::More => return,
                Said::Go => {
                    (call.answer, call.ahead) = (None, Vec::new());
                    self.callers.tell(call.caller, &Tell::Started { tag: call.tag });
                }
                Said::Refused(why) => {
                    call.refusal = Some(format!("{why}\n").into_bytes());
                    return self.data(id, bytes);
                }
                Said::NoHost => return self.refuse(id, "no such virtual host there"),
                Said::Strange(line) => {
                    return self.refuse(id, &format!("no tcpmux service: it says {line:?}"));
                }
            }
        }
        if !bytes.is_empty() {
            self.output(id, bytes);
        }
    }

    fn output(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let written = match &call.output {
            None => Err(ErrorKind::BrokenPipe.into()),
            Some(output) if call.held.is_empty() => output.write(bytes),
            Some(_) => Ok(0),
        };
        let n = match written {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(e) => {
                self.session.mux.delivered(id, bytes.len(), self.now);
                return self.output_broke(id, Some(e));
            }
        };
        call.from += n as u64;
        call.held.extend(&bytes[n..]);
        self.session.mux.delivered(id, n, self.now);
        // The rest of what one write took only in part may fit by now.
        if n > 0 && n < bytes.len() {
            self.feed_output(id);
        }
    }

    pub(super) fn finished(&mut self, id: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Some(text) = call.refused() {
            return self.refuse(id, &text);
        }
        // HELP of nothing is an answer.
        if call.answer.take().is_some() && call.request.service.is_some() {
            return self.refuse(id, "the server closed the stream without an answer");
        }
        call.server_done = true;
        self.end_if_done(id);
    }

    /// The server has reset a stream.
    pub(super) fn reset(&mut self, id: StreamId) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let Some(text) = call.refused() {
            self.callers.tell(call.caller, &Tell::Refused { tag: call.tag, text });
            self.is_idle();
        } else if call.server_done && call.held.is_empty() {
            // It was over: only input that nobody wanted was left.
            self.ended(&call);
        } else if call.answer.is_none() {
            self.callers.tell(
                call.caller,
                &Tell::Lost { tag: call.tag, text: "the server reset the stream".into() },
            );
            self.is_idle();
        } else if self.calls.is_empty() && call.tries >= TRIES_MAX {
            self.callers.tell(
                call.caller,
                &Tell::Refused {
                    tag: call.tag,
                    text: "the server takes no more streams: try again later, or -x for a session of its own".into(),
                },
            );
            self.is_idle();
        } else {
            if call.tries == 0 {
                self.callers.tell(call.caller, &Tell::Waiting { tag: call.tag });
            }
            // As long as others have the room it waits for theirs.
            call.tries = if self.calls.is_empty() { call.tries + 1 } else { 1 };
            self.waiting.push_front(Pending { call, again: Some(self.now + AGAIN) });
        }
    }

    // Ends.

    /// Does the call end here? The service has said its last, and the output has it all.
    fn end_if_done(&mut self, id: StreamId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !call.server_done || !call.held.is_empty() {
            return;
        }
        if let Some(output) = call.output.take() {
            output.finish();
        }
        if call.both_ends && call.input.is_some() {
            return;
        }
        self.session.mux.finish(id);
        if let Some(call) = self.calls.remove(&id) {
            self.ended(&call);
        }
    }

    fn ended(&mut self, call: &Call) {
        self.callers.tell(call.caller, &Tell::Ended { tag: call.tag });
        self.is_idle();
    }

    fn refuse(&mut self, id: StreamId, text: &str) {
        if let Some(call) = self.calls.get(&id) {
            self.callers.tell(call.caller, &Tell::Refused { tag: call.tag, text: text.into() });
        }
        self.give_up(id);
    }

    /// A stream that nobody wants any more. It is cut also behind the input's end: nothing else
    /// would tell the service.
    pub(super) fn give_up(&mut self, id: StreamId) {
        self.session.mux.cut(id);
        self.calls.remove(&id);
        self.is_idle();
    }

    /// A stream has ended: there may be room for another.
    fn is_idle(&mut self) {
        self.idle = self.now;
        if let Some(p) = self.waiting.front_mut() {
            p.again = Some(self.now);
        }
    }

    /// The session is no more. A call for which nothing can have been started is made elsewhere,
    /// unless `ended`: nothing was heard since it was asked for, or the server, which acknowledges
    /// each stream before it does anything for it, ended the session in order without that.
    pub(super) fn lose_all(&mut self, why: &str, ended: bool) {
        let (heard, in_order) = (self.pulse.last(), self.session.link.is_over());
        let calls: Vec<_> = std::mem::take(&mut self.calls).into_iter().collect();
        let untouched = |id: StreamId, c: &Call| {
            c.answer.is_some()
                && (heard <= c.asked || in_order && !self.session.mux.is_acknowledged(id))
        };
        let calls = calls.into_iter().map(|(id, c)| (untouched(id, &c), c)).collect::<Vec<_>>();
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|p| (true, p.call));
        for (untouched, mut call) in calls.into_iter().chain(waiting).collect::<Vec<_>>() {
            if let Some(text) = call.refused() {
                self.callers.tell(call.caller, &Tell::Refused { tag: call.tag, text });
            } else if untouched && !ended {
                self.callers.give_back(call.caller, call.tag, &call.ahead);
                self.callers.tell(call.caller, &Tell::Gone { tag: call.tag });
            } else {
                self.callers.tell(call.caller, &Tell::Lost { tag: call.tag, text: why.into() });
            }
        }
    }
}
