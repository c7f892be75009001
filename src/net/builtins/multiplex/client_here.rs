//! The connection of a client of an offered service that came before anybody has taken the client.

use crate::sys::socket;
use crate::wire::orders::Data;
use std::os::fd::{AsFd, OwnedFd};

/// See the module. Nothing is read from it or written to it before the client is taken: until then
/// the parent may have to send the client to somebody else.
pub(super) struct ClientHere {
    connection: OwnedFd,
    /// What the client gets first.
    greeting: Data,
}

impl ClientHere {
    pub fn new(connection: OwnedFd, greeting: Data) -> ClientHere {
        ClientHere { connection, greeting }
    }

    /// The client is taken, and is told so. None: it has gone. One that takes no greeting on a new
    /// connection has.
    pub fn greet(self) -> Option<OwnedFd> {
        let ClientHere { connection, greeting } = self;
        let sent = match greeting.bytes() {
            [] => Ok(0),
            bytes => socket::send(connection.as_fd(), bytes),
        };
        sent.is_ok_and(|n| n == greeting.bytes().len()).then_some(connection)
    }
}
