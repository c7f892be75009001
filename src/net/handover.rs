//! How a stream with facts of its own gets its service: the dialogue's thread has a socket pair
//! with its session's multiplexer, the service has a connection that the parent made, and the
//! multiplexer is to copy that one itself.
//!
//! The thread puts net's end of the connection here, with its own end of the pair, and then says no
//! more on the pair ([`Handover::give`]). The multiplexer has by then sent on all that the thread
//! said. It alone writes to the pair: so what it finds in the thread's end is all that the client
//! has said after the request and that the service has yet to hear ([`Given::unheard`]).

use crate::sys::shared::Shared;
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Default)]
pub struct Handover(Mutex<Option<Given>>);

/// The connection's end of a service that runs; unless it is taken the service sees it break.
pub struct Given {
    near: Option<OwnedFd>,
    pair: Shared,
}

impl Handover {
    fn given(&self) -> MutexGuard<'_, Option<Given>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the service's connection, and a copy of the thread's end of the pair, on which nothing
    /// more is said.
    pub fn give(&self, near: OwnedFd, pair: Shared) {
        // The multiplexer hears of the end at once, and waits for the lock.
        let mut given = self.given();
        let given = given.insert(Given { near: Some(near), pair });
        // Where the multiplexer has gone nobody takes it.
        let _ = socket::shutdown_write(given.pair.as_fd());
    }

    /// What was given, if the thread has got a service.
    pub fn take(&self) -> Option<Given> {
        self.given().take()
    }
}

impl Given {
    /// What the client has said and the thread has left: no more than the pair holds.
    pub fn unheard(&self) -> Vec<u8> {
        rest(self.pair.as_fd())
    }

    /// Net's end of the service's connection.
    pub fn near(mut self) -> Option<OwnedFd> {
        self.near.take()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(near) = &self.near {
            socket::cut(near.as_fd());
        }
    }
}

/// All that is there.
fn rest(pair: BorrowedFd) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match socket::receive(pair, &mut bytes) {
            Ok(n @ 1..) => all.extend_from_slice(&bytes[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;

    #[test]
    fn what_was_left_in_the_pair_goes_with_it() {
        let (ours, theirs) = socket::pair().expect("a pair");
        let (near, service) = socket::pair().expect("a pair");
        let handover = Handover::default();
        assert!(handover.take().is_none());
        let long = vec![7; 40_000];
        socket::send(ours.as_fd(), &long).expect("room");
        handover.give(near, theirs.into());
        // Its end is seen, and the other direction is as it was.
        assert_eq!(socket::receive(ours.as_fd(), &mut [0; 1]).expect("an end"), 0);
        socket::send(ours.as_fd(), b"more").expect("room");
        let given = handover.take().expect("a service");
        assert_eq!(given.unheard(), [&long[..], b"more"].concat());
        let near = given.near().expect("an end");
        assert!(!poll::is_readable(service.as_fd()));
        socket::send(near.as_fd(), b"x").expect("room");
        assert_eq!(socket::receive(service.as_fd(), &mut [0; 9]).expect("a byte"), 1);
    }

    #[test]
    fn what_nobody_takes_breaks() {
        let (_ours, theirs) = socket::pair().expect("a pair");
        let (near, service) = socket::pair().expect("a pair");
        let handover = Handover::default();
        handover.give(near, theirs.into());
        drop(handover);
        assert_eq!(socket::receive(service.as_fd(), &mut [0; 1]).expect("an end"), 0);
    }
}
