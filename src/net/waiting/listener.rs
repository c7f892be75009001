//! A socket on which clients come.

use std::os::fd::OwnedFd;

/// The poll tells of it only when somebody comes.
pub(super) struct Listener {
    pub socket: OwnedFd,
    /// Somebody may be waiting there.
    pub pending: bool,
}
