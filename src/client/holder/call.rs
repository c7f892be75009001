//! A call: a stream of the session, and the caller's descriptors that it is copied from and to.

use super::callers::NOBODY;
use crate::client::offer::Offer;
use crate::client::request::Request;
use crate::link::pump::{LocalEnd, Run, Stream};
use crate::sys::flow::Flow;
use crate::wire::answer::{AnswerReader, words};
use crate::wire::handover::OverWhen;
use crate::wire::line::Line;
use crate::wire::run::{Decoder, Part, Sender};
use crate::wire::word::word;
use std::time::Duration;

/// The state of a call.
pub enum Step {
    /// Only the virtual host was asked for; what the server answers is still to come.
    Choosing(AnswerReader),
    /// The request was sent; the rest of the server's answer is still to come.
    Asked(AnswerReader),
    /// It was refused; the part of the reason that has come.
    Refused(Vec<u8>),
    /// The service has been started, or the offer stands.
    Started,
    /// The server has opened it for a client of an offered service: the line that says of which one
    /// is being read.
    Naming(Line),
    /// It is a client of an offered service; what serves it has yet to accept the connection.
    Connecting,
    /// The client is being served.
    Serving,
}

/// What the caller was told of why there is no connection; each is told once, and not after the
/// later ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutageNotice {
    Nothing,
    /// That the network, or the server, is down.
    Outage,
    /// That what answers is not the server that was meant.
    Distrust,
}

pub struct Call {
    pub caller: u32,
    pub tag: u32,
    pub over: OverWhen,
    pub request: Request,
    pub step: Step,
    /// The caller's descriptors, while the call has no stream, or its host is not chosen yet.
    pub local: LocalEnd,
    /// Its standard error, likewise, with RUN.
    pub errors: Option<Flow>,
    /// Input that came before the answer, likewise: it is sent again, or returned to the caller.
    pub ahead: Vec<u8>,
    pub outage: OutageNotice,
    /// How often the server had no room for its stream.
    pub tries: u32,
    /// When its request was sent last.
    pub requested: Duration,
    /// Its stream had asked for the virtual host before: the server, which acknowledges a stream
    /// before it does anything, says nothing more before it begins with the service.
    pub chose: bool,
    /// Of an offer: its caller was told that nothing takes its clients, and none was taken since.
    pub fails: bool,
    pub began: Duration,
}

/// A call that the server had no room for.
pub struct Pending {
    pub call: Call,
    /// When it is tried again. None: as soon as it is its turn.
    pub again: Option<Duration>,
}

impl Call {
    /// The server's reason, if it has refused the call. It stays valid whatever becomes of the
    /// stream.
    pub fn refused(&self) -> Option<String> {
        let Step::Refused(reply) = &self.step else { return None };
        let line = reply.iter().position(|b| *b == b'\n').map_or(reply.len(), |at| at + 1);
        let rest = explanation(&reply[line..], self.request.way.is_run());
        let reply = [&reply[..line], &rest].concat();
        let lines = reply.split(|b| *b == b'\n').map(words).filter(|l| !l.is_empty());
        Some(lines.collect::<Vec<_>>().join("\n"))
    }

    pub fn new(
        caller: u32,
        tag: u32,
        over: OverWhen,
        request: Request,
        (local, errors): (LocalEnd, Option<Flow>),
        ahead: Vec<u8>,
        now: Duration,
    ) -> Call {
        let step = Step::Choosing(AnswerReader::to_host());
        Call {
            caller,
            tag,
            over,
            request,
            step,
            local,
            errors,
            ahead,
            outage: OutageNotice::Nothing,
            tries: 0,
            requested: now,
            chose: false,
            fails: false,
            began: now,
        }
    }

    /// The call of a stream that is no more, with what the stream had of it.
    pub fn of_ended(mut stream: Stream<Call>) -> Call {
        let errors = stream.run_mut().and_then(Run::take_errors);
        let (mut call, local, ahead) = stream.into_parts();
        if !call.is_choosing() {
            (call.local, call.errors, call.ahead) = (local, errors, ahead);
        }
        call
    }

    /// Has nothing been requested yet but the virtual host?
    pub fn is_choosing(&self) -> bool {
        matches!(self.step, Step::Choosing(_))
    }

    /// Has the service been started?
    pub fn is_answered(&self) -> bool {
        matches!(self.step, Step::Started | Step::Serving)
    }

    /// Is it a stream for a client of an offered service?
    pub fn is_client(&self) -> bool {
        matches!(self.step, Step::Serving) || self.is_unconnected()
    }

    /// The same, of a client that is not served yet?
    pub fn is_unconnected(&self) -> bool {
        matches!(self.step, Step::Naming(_) | Step::Connecting)
    }

    /// Is it of an application that has connected to a forward?
    pub fn is_application(&self) -> bool {
        self.caller == NOBODY && self.offers().is_none() && !self.is_client()
    }

    /// What it offers, if it is an offer.
    pub fn offers(&self) -> Option<&Offer> {
        self.request.offered.as_ref().map(|o| &o.offer)
    }

    /// One line for `-O list`; with what has come from the peer, and what went to it.
    pub fn state(&self, [received, sent]: [u64; 2], now: Duration) -> String {
        let (service, host) = (word(self.request.name()), word(&self.request.host));
        let seconds = now.saturating_sub(self.began).as_secs();
        if let Some(offered) = &self.request.offered {
            let (at, by) = (word(&offered.offer.target()), offered.origin.as_str());
            return format!("offer={service} at={at} host={host} by={by} since={seconds}");
        }
        let (to, from) = match self.is_client() {
            true => (received, sent),
            false => (sent, received),
        };
        format!("service={service} host={host} since={seconds} to={to} from={from}")
    }

    /// One line for `-O list` of a call that has no stream.
    pub fn state_waiting(&self, now: Duration) -> String {
        self.state([0, self.ahead.len() as u64], now)
    }
}

/// What follows the line of a refusal. A service that was requested by RUN and refuses by itself
/// says it in records.
fn explanation(bytes: &[u8], run: bool) -> Vec<u8> {
    if !run {
        return bytes.to_vec();
    }
    let (mut decoder, mut text, mut at) = (Decoder::new(Sender::Server), Vec::new(), 0);
    loop {
        let (taken, part) = decoder.next(&bytes[at..]);
        at += taken;
        match part {
            Part::Banner(data) | Part::Data(_, data) => {
                text.extend_from_slice(data);
                decoder.took(data.len());
                at += data.len();
            }
            Part::End | Part::Terminal | Part::Status(_) | Part::Size(_) => {}
            Part::More | Part::Broken => return text,
        }
    }
}
