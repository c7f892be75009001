//! A service that was spawned and has not reached exec: everything that its start borrows, and what
//! the log needs.

use crate::parent::arrival::{Given, Record, Requester, StartError};
use crate::parent::backend::exec::Plan;
use crate::parent::config::Config;
use crate::parent::tokens::SessionToken;
use crate::policy::{ServiceId, Ticket};
use crate::sys::spawn::{Failure, Launch, Stage};
use std::rc::Rc;

/// See the module.
pub struct Starting {
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub ticket: Ticket,
    pub plan: Plan,
    pub given: Given,
    pub record: Record,
}

impl Starting {
    pub fn launch(&self) -> Launch<'_> {
        self.plan.launch(&self.given)
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
