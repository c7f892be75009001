//! A listening socket.

use std::os::fd::OwnedFd;

/// The poll reports it only when another client arrives.
pub(super) struct Listener {
    pub socket: OwnedFd,
    /// Clients may be waiting in its backlog.
    pub pending: bool,
}
