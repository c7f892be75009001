//! The lingering close of clients' sockets whose services have ended: what the client still sends
//! is read and discarded for a while, so that no reset overtakes what the service has sent.
//!
//! A process that the service has left may have the socket too, and keep its lock for as long as it
//! likes (`sys::bounded_calls`): so each has a thread of its own, and the loop makes no call on it.

use super::threads;
use crate::link::{LINGER_BYTES, LINGER_TIME};
use crate::sys::clock;
use crate::sys::poll::{self, Poll};
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// At a time. One more is closed at once.
const MOST: usize = 256;

/// Until when each may take. One that is held up stays here.
static ALL: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<Duration>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins one.
pub fn close(socket: Shared, now: Duration) {
    let until = now + LINGER_TIME;
    {
        let mut all = all();
        if all.len() >= MOST {
            return;
        }
        all.push(until);
    }
    let started = threads::run(move || {
        discard(&socket, until);
        drop(socket);
        over(until);
    });
    if let Err(e) = started {
        log::debug!("a thread for a lingering close: {e}");
        over(until);
    }
}

/// Is one under way that is not held up?
pub fn any(now: Duration) -> bool {
    all().iter().any(|until| *until > now)
}

fn over(until: Duration) {
    let mut all = all();
    if let Some(at) = all.iter().position(|other| *other == until) {
        all.swap_remove(at);
    }
}

fn discard(socket: &Shared, until: Duration) {
    let (socket, mut left) = (socket.as_fd(), LINGER_BYTES);
    if socket::shutdown_write(socket).is_err() {
        return;
    }
    while left > 0 {
        match socket::discard(socket, left) {
            Ok(0) => return,
            Ok(n) => left = left.saturating_sub(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let rest = until.saturating_sub(clock::monotonic());
                let mut more = [Poll::new(socket, true, false)];
                if rest.is_zero() || poll::wait(&mut more, Some(rest)).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
