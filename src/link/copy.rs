//! Copies both ways between a link and a local end, in one thread that never waits in a write:
//! `bytes` for most services, `records` for those that were asked for by RUN. Here is what both
//! share.

pub mod bytes;
pub mod records;

use super::{BUFFERS_KEPT, Error};
use crate::sys::poll::{self, Poll};
use std::time::Duration;

/// What a copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Both directions have ended, and the peer was told so.
    All,
    /// Nothing has moved for a while, and nothing is held here: it can go on later.
    Idle,
    /// The caller's own descriptor has something to read.
    Other,
}

/// State of the direction from the peer to the local end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FromPeer {
    Open,
    /// The local end takes nothing now.
    Blocked,
    /// The peer has finished, and the local end was told so.
    Done,
    /// The local end takes no more: what the peer sends is discarded.
    Discarding,
}

impl FromPeer {
    /// Is the peer read?
    fn reads(self) -> bool {
        matches!(self, FromPeer::Open | FromPeer::Discarding)
    }
}

/// What waiting came to.
enum Waited {
    /// A descriptor is ready.
    Ready,
    /// No descriptor is ready: buffers may be freed.
    Quiet,
    /// None was for as long as the caller stays.
    Idle,
}

/// Waits until a descriptor is ready: for `idle` at most where the buffers are freed already, else
/// only for as long as those are kept.
fn wait(polls: &mut [Poll], buffers_freed: bool, idle: Option<Duration>) -> Result<Waited, Error> {
    let timeout = if buffers_freed { idle } else { Some(BUFFERS_KEPT) };
    let ready = poll::wait(polls, timeout).map_err(Error::System)?;
    Ok(match (ready, buffers_freed && idle.is_some()) {
        (1.., _) => Waited::Ready,
        (0, true) => Waited::Idle,
        (0, false) => Waited::Quiet,
    })
}
