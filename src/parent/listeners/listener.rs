//! A listening socket that net processes have, too.

use crate::sys::options::Options;
use crate::sys::socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module. `W`: what it was made for.
pub struct Listener<W> {
    pub wanted: W,
    pub address: SocketAddr,
    socket: OwnedFd,
    /// The socket's options, before any net process got it.
    options: Options,
}

impl<W> Listener<W> {
    pub fn new(wanted: W, address: SocketAddr, socket: OwnedFd) -> Listener<W> {
        Listener { wanted, address, options: Options::of(socket.as_fd()), socket }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has a process shut it down (shutdown(2))?
    pub fn is_dead(&self) -> bool {
        !socket::is_listening(self.socket())
    }

    /// Undoes what a net process that an attacker controlled can have done to it: takes `again` in
    /// place of a socket that is dead, and restores the options that net may set. (Others are not
    /// replaced, because clients that wait in the queue of a closed listener are lost.) Returns
    /// what was wrong or could not be undone, one line each.
    pub fn revive(&mut self, again: Option<io::Result<OwnedFd>>) -> Vec<String> {
        let address = self.address;
        let Some(again) = again else {
            let restored = self.options.put_back(self.socket());
            let failed = restored.err().map(|e| format!("{address}: its options: {e}"));
            return failed.into_iter().collect();
        };
        let dead = format!("{address}: a process shut this socket down; fived opens it again");
        match again {
            Ok(socket) => {
                (self.options, self.socket) = (Options::of(socket.as_fd()), socket);
                vec![dead]
            }
            Err(e) => vec![dead, format!("{address}: {e}")],
        }
    }
}
