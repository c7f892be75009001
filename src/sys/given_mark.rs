//! The mark of the clients' sockets that a service has got. Such a one is given to no other: who
//! has it already can keep its lock, and then the next service's process would wait for that with
//! its greeting. Only a network process that somebody else controls hands a client over twice.
//!
//! It is an option (SO_LOCK_FILTER, socket(7)) that nobody can take back, and that is asked for
//! without the lock. Setting it takes the lock, so the process that becomes the service does that.
//! Multipath TCP has no such option.

use super::socket;
use std::os::fd::BorrowedFd;

/// The option, of SOL_SOCKET: an int.
pub(super) const OPTION: libc::c_int = libc::SO_LOCK_FILTER;

/// Has a service got it?
pub fn is_set(client: BorrowedFd) -> bool {
    socket::option::<libc::c_int>(client, OPTION).is_some_and(|on| on != 0)
}
