//! An arrival that is being connected, and how the try of one of its targets went.

use super::pending::Awaited;
use super::targets::Target;
use crate::parent::arrival::{Arrival, StartError};
use crate::policy::Permit;
use crate::sys::identity::Identity;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use std::{fmt, io};

/// An arrival with its permit.
pub struct Permitted {
    pub permit: Permit,
    pub arrival: Arrival,
    /// As in [`Connecting`].
    pub left: usize,
}

/// See the module.
pub struct Connecting {
    pub permit: Permit,
    pub arrival: Arrival,
    /// The user as whom Unix sockets are connected. None: fived's own.
    pub identity: Option<Identity>,
    pub targets: VecDeque<Target>,
    pub timeout: Duration,
    /// How many more services might run when this one was permitted.
    pub left: usize,
    /// Why the targets that were tried have not taken it, one line each.
    pub failures: Vec<String>,
}

impl Awaited for Box<Connecting> {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        self.arrival.client.as_ref().map(AsFd::as_fd)
    }
}

/// How the try of one target went.
pub enum Tried {
    /// It has yet to answer.
    Begun,
    Connected(Box<Connecting>, Target, OwnedFd),
    /// It refused. `counts`: it would probably refuse others too, so that it is tried last.
    Refused {
        c: Box<Connecting>,
        target: Target,
        why: String,
        counts: bool,
    },
    /// fived has no descriptor or process left, which says nothing about the target.
    Scarce(Box<Connecting>, StartError),
}

impl Tried {
    pub fn refused(c: Box<Connecting>, target: Target, e: &io::Error) -> Tried {
        // Others may be allowed to connect where this user is not.
        let counts = e.kind() != io::ErrorKind::PermissionDenied;
        let why = match e.kind() {
            io::ErrorKind::WouldBlock => "its queue of connections is full".into(),
            _ => e.to_string(),
        };
        Tried::Refused { c, target, why, counts }
    }

    pub fn scarce(c: Box<Connecting>, reason: &'static str, e: &dyn fmt::Display) -> Tried {
        Tried::Scarce(c, StartError::busy(reason, Some(e.to_string())))
    }
}
