//! The TCP sockets of services that have ended before net had space for all of their output.
//!
//! A program that ends without having read all of its input resets its connection, and what it has
//! written and net has not received yet is lost (RFC 1122, 4.2.2.13), without a sign for a client
//! of RUN, who is told that the program ended well. So the parent keeps a copy of such a program's
//! socket while it runs, and closes it only when nothing waits in it any more. It reads nothing.

use super::context::{Context, Timer};
use crate::sys::poll;
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

/// How often they are looked at, while there are any.
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// How many are kept at most: the oldest of more is closed, and its output may be lost.
const MOST: usize = 256;

/// See the module. The oldest first.
#[derive(Default)]
pub struct Undelivered(VecDeque<Shared>);

impl Undelivered {
    /// A service has ended: its socket is closed when all of its output has been delivered.
    pub fn add(&mut self, cx: &mut Context, socket: Shared) {
        if !waits(&socket) {
            return;
        }
        if self.0.is_empty() {
            cx.after(LOOK_AFTER, Timer::Undelivered);
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(socket);
    }

    /// Closes those that nothing waits in any more.
    pub fn look(&mut self, cx: &mut Context) {
        self.0.retain(waits);
        if !self.0.is_empty() {
            cx.after(LOOK_AFTER, Timer::Undelivered);
        }
    }
}

/// Does something wait in it that net can still receive?
fn waits(socket: &Shared) -> bool {
    socket::unsent(socket.as_fd()).is_ok_and(|n| n > 0) && !poll::has_hung(socket.as_fd())
}
