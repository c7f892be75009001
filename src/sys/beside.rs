//! A port that several sockets of this process have, for all addresses or for one of them (`[::]:1`
//! and `127.0.0.1:1`). It is shared for the moment in which the next one is bound (SO_REUSEPORT,
//! socket(7)), and with no other process.

use super::bounded_calls::BoundedCalls;
use super::socket;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

const LOCKED: &str = "the system has not answered in time: a process may keep the lock of a socket at this port (a call of it does not return)";

/// To share a port takes the locks of all its sockets.
static CALLS: LazyLock<Mutex<BoundedCalls>> = LazyLock::new(Mutex::default);

fn calls() -> MutexGuard<'static, BoundedCalls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody gets one of this process's sockets who could keep its lock.
pub fn guard() {
    calls().guard();
}

/// As [`socket::listen`], on a port that `own`, this process's sockets, have already.
pub fn listen(address: SocketAddr, mptcp: bool, own: &[BorrowedFd]) -> io::Result<OwnedFd> {
    bind(own, move || socket::listen_sharing(address, mptcp, true))
}

/// Makes a socket that has SO_REUSEPORT while `own` have it, and takes the option from all of
/// them again. `TimedOut`: there is no answer in time.
pub(super) fn bind(
    own: &[BorrowedFd],
    make: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
) -> io::Result<OwnedFd> {
    let made = calls().make_socket(own, |own| {
        let share =
            |on: bool| own.iter().try_for_each(|fd| setsockopt(fd, sockopt::ReusePort, &on));
        share(true)?;
        let made = make();
        share(false)?;
        let made = made?;
        setsockopt(&made, sockopt::ReusePort, &false)?;
        Ok(made)
    });
    made.unwrap_or_else(|| Err(io::Error::new(ErrorKind::TimedOut, LOCKED)))
}
