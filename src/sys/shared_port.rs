//! A port that several sockets of this process have, for all addresses or for one of them (`[::]:1`
//! and `127.0.0.1:1`). It is shared for the moment in which the next one is bound (SO_REUSEPORT,
//! socket(7)), and with no other process.

use super::bounded_calls::BoundedCalls;
use super::socket;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

const LOCKED: &str = "the system has not answered in time: a process may keep the lock of a socket at this port (a call of it does not return)";

/// To share a port takes the locks of all its sockets. By port, for those of which somebody else
/// has a socket: who keeps its lock holds up that port alone.
static CALLS: Mutex<BTreeMap<u16, BoundedCalls>> = Mutex::new(BTreeMap::new());

fn calls() -> MutexGuard<'static, BTreeMap<u16, BoundedCalls>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody gets one of this process's sockets at this port who could keep its lock.
pub fn guard(port: u16) {
    calls().entry(port).or_default().guard();
}

/// As [`socket::listen`], on a port that `own`, this process's sockets, have already. Processes
/// that read what strangers send have them, too.
pub fn listen(address: SocketAddr, mptcp: bool, own: &[BorrowedFd]) -> io::Result<OwnedFd> {
    guard(address.port());
    bind(address.port(), own, move || socket::listen_sharing(address, mptcp, true))
}

/// Makes a socket at this port that has SO_REUSEPORT while `own` have it, and takes the option from
/// all of them again. `TimedOut`: there is no answer in time.
pub(super) fn bind(
    port: u16,
    own: &[BorrowedFd],
    make: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
) -> io::Result<OwnedFd> {
    let mut all = calls();
    let mut unguarded = BoundedCalls::default();
    let calls = all.get_mut(&port).unwrap_or(&mut unguarded);
    let made = calls.make_socket(own, |own| {
        let share =
            |on: bool| own.iter().try_for_each(|fd| setsockopt(fd, sockopt::ReusePort, &on));
        share(true)?;
        let made = make();
        share(false)?;
        let made = made?;
        setsockopt(&made, sockopt::ReusePort, &false)?;
        Ok(made)
    });
    calls.rest();
    made.unwrap_or_else(|| Err(io::Error::new(ErrorKind::TimedOut, LOCKED)))
}
