//! A service that was spawned and has not reached exec: everything that its start borrows, and what
//! the log needs.

use super::running::Output;
use super::undelivered;
use crate::parent::arrival::{NetEnds, Record, Requester, StartError};
use crate::parent::backend::exec::Plan;
use crate::parent::config::Config;
use crate::parent::context::Context;
use crate::parent::tokens::SessionToken;
use crate::policy::{Service, ServiceId, Ticket};
use crate::sys::shared::Shared;
use crate::sys::spawn::{Failure, Launch, Passed, Stage};
use std::rc::Rc;

/// See the module.
pub struct Starting {
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub ticket: Ticket,
    pub plan: Plan,
    pub net_ends: NetEnds,
    pub record: Record,
    pub copies: Copies,
}

/// Copies of a service's connection that the parent keeps while it runs.
pub struct Copies {
    /// See [`Running`](super::running::Running).
    pub lingering_close: Option<(Shared, u32)>,
    pub output: Output,
}

impl Copies {
    pub fn make(
        cx: &Context,
        service: Option<&Service>,
        record: &Record,
        plan: &Plan,
        connection: &Shared,
    ) -> Copies {
        if plan.hands_over() {
            return Copies { lingering_close: None, output: Output::Safe };
        }
        let lingers = matches!(record.requester, Requester::Net(_) | Requester::Port(_))
            && service.is_some_and(|s| s.attributes.lingering_close);
        let copy = lingers.then(|| undelivered::copy(cx, connection, plan.uid)).flatten();
        Copies {
            lingering_close: copy.map(|copy| (copy, plan.uid)),
            output: undelivered::output_of(cx, record, connection, plan.uid),
        }
    }
}

impl Starting {
    pub fn launch<'a>(&'a self, passed: &'a Passed) -> Launch<'a> {
        self.plan.launch(Some(passed))
    }

    /// Its session's token. None: it has the client's own socket.
    pub fn session(&self) -> Option<SessionToken> {
        match self.record.requester {
            Requester::Session(stream) => Some(stream.session),
            Requester::Net(_) | Requester::Port(_) | Requester::Wait(_) => None,
        }
    }
}

/// Why a service was not started, for the client and the log.
pub fn not_started(f: Failure, launch: &Launch) -> StartError {
    if f.is_full() {
        let text = format!("{}: it does not accept", launch.program.to_string_lossy());
        return StartError::busy("backlog", Some(text));
    }
    if f.stage == Stage::OtherCopy {
        let text = "the network process keeps a copy of the client's socket";
        return StartError::busy("net", Some(text.into()));
    }
    let busy = f.is_scarcity();
    let file = match f.stage {
        Stage::Chroot => launch.chroot,
        Stage::Directory => Some(launch.directory),
        Stage::Check | Stage::Interpreter | Stage::Exec | Stage::Connect | Stage::Handover => {
            Some(launch.program)
        }
        _ => None,
    };
    let text =
        file.map_or_else(|| f.to_string(), |file| format!("{}: {f}", file.to_string_lossy()));
    let mut error = match busy {
        false => StartError::from(text),
        true if f.lacks_descriptors() => StartError::busy("descriptors", Some(text)),
        true => StartError::busy("processes", Some(text)),
    };
    if f.is_peer_gone() {
        error.reason = "gone";
    }
    if f.greeted || f.is_peer_gone() {
        error.reply = None;
    }
    error
}
