//! A call: a stream of the session with a caller's descriptors at its near end.

use crate::client::open::Request;
use crate::link::pump::{Near, Tally};
use crate::wire::answer::{Answer, words};
use crate::wire::handover::OverWhen;
use std::time::Duration;

/// How far a call is.
pub enum Step {
    /// What the server has yet to say before the service's own bytes come.
    Asked(Answer),
    /// It was refused; why, as far as it was told.
    Refused(Vec<u8>),
    /// The service has it.
    Started,
}

/// Was the caller told that the network is down? It is told once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OutageNotice {
    NotSent,
    Sent,
}

pub struct Call {
    pub caller: u32,
    pub tag: u32,
    pub over: OverWhen,
    pub request: Request,
    pub step: Step,
    /// The caller's descriptors, while it has no stream.
    pub near: Near,
    /// Input that went ahead of the answer, while it has no stream: to be sent again, or given
    /// back.
    pub ahead: Vec<u8>,
    pub outage: OutageNotice,
    /// How often the server had no room for it.
    pub tries: u32,
    /// When its request was sent last.
    pub requested: Duration,
    pub began: Duration,
}

/// A call that the server had no room for.
pub struct Pending {
    pub call: Call,
    /// When it is tried (again); None: when there is something to do.
    pub again: Option<Duration>,
}

impl Call {
    /// What the server said, where it has refused: known from then on, whatever becomes of its
    /// stream.
    pub fn refused(&self) -> Option<String> {
        let Step::Refused(reply) = &self.step else { return None };
        let lines = reply.split(|b| *b == b'\n').map(words).filter(|l| !l.is_empty());
        Some(lines.collect::<Vec<_>>().join("\n"))
    }

    pub fn new(
        caller: u32,
        tag: u32,
        over: OverWhen,
        request: Request,
        near: Near,
        ahead: Vec<u8>,
        now: Duration,
    ) -> Call {
        let step = Step::Asked(request.answer());
        Call {
            caller,
            tag,
            over,
            request,
            step,
            near,
            ahead,
            outage: OutageNotice::NotSent,
            tries: 0,
            requested: now,
            began: now,
        }
    }

    /// Has the service said something?
    pub fn is_answered(&self) -> bool {
        matches!(self.step, Step::Started)
    }

    /// One line for `-O list`.
    pub fn state(&self, tally: Tally, now: Duration) -> String {
        let (service, host) = (self.request.name(), &self.request.host);
        let seconds = now.saturating_sub(self.began).as_secs();
        let (to, from) = (tally.said, tally.heard);
        format!("service={service} host={host} since={seconds} to={to} from={from}")
    }

    /// The same of one that has no stream.
    pub fn state_waiting(&self, now: Duration) -> String {
        self.state(Tally { said: self.ahead.len() as u64, heard: 0 }, now)
    }
}
