//! A listening socket, and the client that was accepted last.

use crate::net::sources::Slot;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The poll reports it only when another client arrives.
pub(super) struct Listener {
    pub socket: OwnedFd,
    /// The number of the services' own port; None: clients name a service.
    pub tls_port: Option<u32>,
    /// Clients may be waiting in its backlog.
    pub pending: bool,
}

/// The client that was accepted last, of which nothing was read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    pub slot: Slot,
    pub generation: u32,
    /// Where it was accepted. It is not known yet whether another one waits there.
    pub listener: usize,
    pub until: Duration,
}
