//! A listening socket.

use std::os::fd::OwnedFd;

/// The poll reports it only when another client arrives.
pub(super) struct Listener {
    pub socket: OwnedFd,
    /// The number of the services' own port; None: clients name a service.
    pub tls_port: Option<u32>,
    /// Clients may be waiting in its backlog.
    pub pending: bool,
}
