//! The TCP sockets of services that have ended before net had space for all of their output.
//!
//! A program that ends without having read all of its input resets its connection, and what it has
//! written and net has not received yet is lost (RFC 1122, 4.2.2.13), without a sign for a client
//! of RUN, who is told that the program ended well. So the parent keeps a copy of such a program's
//! socket while it runs, and closes it only when nothing waits in it any more. It reads nothing.

use super::arrival::StreamTag;
use super::context::{Context, Timer};
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::time::Duration;

/// How soon they are looked at, and how long that takes at most after many looks in vain.
const LOOK_AFTER: Duration = Duration::from_millis(20);
const LOOK_AT_LEAST: Duration = Duration::from_millis(250);
/// How many are kept at most: of more, the oldest of the session that has the most of them is
/// closed, and its output may be lost.
const MOST: usize = 256;

/// See the module.
#[derive(Default)]
pub struct Undelivered {
    /// The oldest first, each with the session that asked for the service.
    all: VecDeque<(usize, Shared)>,
    pause: Duration,
}

impl Undelivered {
    /// A service of this stream has ended: its socket is closed when all of its output has been
    /// delivered.
    pub fn add(&mut self, cx: &mut Context, stream: StreamTag, socket: Shared) {
        if !waits(&socket) {
            return;
        }
        if self.all.is_empty() {
            cx.after(LOOK_AFTER, Timer::Undelivered);
        }
        self.pause = LOOK_AFTER;
        if self.all.len() == MOST {
            self.make_room();
        }
        self.all.push_back((stream.0, socket));
    }

    fn make_room(&mut self) {
        let mut counts = HashMap::<usize, usize>::new();
        self.all.iter().for_each(|(session, _)| *counts.entry(*session).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, n)| *n).map(|(session, _)| session);
        if let Some(at) = self.all.iter().position(|(session, _)| Some(*session) == most) {
            self.all.remove(at);
        }
    }

    /// Closes those that nothing waits in any more.
    pub fn look(&mut self, cx: &mut Context) {
        let before = self.all.len();
        self.all.retain(|(_, socket)| waits(socket));
        if self.all.len() == before {
            self.pause = (2 * self.pause).min(LOOK_AT_LEAST);
        }
        if !self.all.is_empty() {
            cx.after(self.pause, Timer::Undelivered);
        }
    }
}

/// Does something wait in it that net can still receive?
fn waits(socket: &Shared) -> bool {
    let socket = socket.as_fd();
    socket::unsent(socket).is_ok_and(|n| n > 0) && !socket::is_closed(socket)
}
