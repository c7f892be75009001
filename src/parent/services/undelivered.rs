//! The TCP sockets of services that have ended before net had space for all of their output.
//!
//! A program that ends without having read all of its input resets its connection, and what it has
//! written and net has not received yet is lost (RFC 1122, 4.2.2.13), without a sign for a client
//! of RUN. So the parent keeps a copy of such a program's socket while it runs, and closes it only
//! when nothing waits in it any more. It reads nothing. Net is told how the program ended when all
//! has been delivered, and never if it was not, so that no client takes a part for the whole.

use super::running::Output;
use crate::parent::arrival::{Record, StreamTag};
use crate::parent::context::{Context, Timer};
use crate::parent::sessions::resumables::SessionOwner;
use crate::sys::process::Exit;
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use crate::wire::run::Status;
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::time::Duration;

/// How soon they are looked at, and how long that takes at most after many looks in vain.
const LOOK_AFTER: Duration = Duration::from_millis(20);
const LOOK_AT_LEAST: Duration = Duration::from_millis(250);
/// How many are kept at most: of more, the oldest of the user or source that has the most of them
/// is closed, and its output may be lost.
const MOST: usize = 256;

/// A service that has ended.
struct Kept {
    /// Who asked for it.
    owner: SessionOwner,
    /// Whom its end is told.
    stream: StreamTag,
    status: Status,
    socket: Shared,
}

/// How services of RUN have ended, and the streams that are told so; None: output was lost.
pub type RunEnds = Vec<(StreamTag, Option<Status>)>;

/// Where a program begins: what is to become of its output when it ends. A client of RUN is told of
/// that end, and takes the output for whole.
pub fn output_of(cx: &Context, record: &Record, connection: &Shared, uid: u32) -> Output {
    match record.reports_to.is_some() && socket::unsent(connection.as_fd()).is_ok() {
        true => copy(cx, connection, uid).map_or(Output::Unknown, Output::Kept),
        false => Output::Safe,
    }
}

/// As the client of RUN is told it.
pub fn status(exit: Exit) -> Status {
    match exit {
        // wait(2) gives eight bits of it, and seven of a signal's number.
        Exit::Status(n) => Status::Exited(n as u8),
        Exit::Signal(n) => Status::Killed(n as u8),
    }
}

/// A copy of the socket of a service of this user.
pub fn copy(cx: &Context, connection: &Shared, uid: u32) -> Option<Shared> {
    let copy = cx.descriptors.copy(connection.as_fd(), Whose::User(uid));
    copy.inspect_err(|e| ::log::debug!("a copy of a service's socket: {e}")).ok()
}

/// See the module.
#[derive(Default)]
pub struct Undelivered {
    /// The oldest first.
    all: VecDeque<Kept>,
    pause: Duration,
}

impl Undelivered {
    /// A service has ended. If its end is told, that is done when all of its output has been
    /// delivered; then its socket is closed.
    pub fn ended(
        &mut self,
        cx: &mut Context,
        record: &Record,
        status: Status,
        output: Output,
        ends: &mut RunEnds,
    ) {
        let Some(stream) = record.reports_to else { return };
        match output {
            Output::Safe => ends.push((stream, Some(status))),
            Output::Unknown => ends.push((stream, None)),
            Output::Kept(socket) => {
                let owner = SessionOwner::of(record.user.as_deref(), record.peer);
                self.add(cx, Kept { owner, stream, status, socket }, ends);
            }
        }
    }

    fn add(&mut self, cx: &mut Context, kept: Kept, ends: &mut RunEnds) {
        if !kept.waits() {
            return ends.push((kept.stream, Some(kept.status)));
        }
        if self.all.is_empty() {
            cx.after(LOOK_AFTER, Timer::Undelivered);
        }
        self.pause = LOOK_AFTER;
        self.all.push_back(kept);
        if self.all.len() > MOST
            && let Some(lost) = first_of_most(self.all.iter().map(|kept| &kept.owner))
            && let Some(kept) = self.all.remove(lost)
        {
            ends.push((kept.stream, None));
        }
    }

    /// Closes those that nothing waits in any more.
    pub fn look(&mut self, cx: &mut Context, ends: &mut RunEnds) {
        let before = self.all.len();
        self.all.retain(|kept| {
            let waits = kept.waits();
            if !waits {
                ends.push((kept.stream, Some(kept.status)));
            }
            waits
        });
        if self.all.len() == before {
            self.pause = (2 * self.pause).min(LOOK_AT_LEAST);
        }
        if !self.all.is_empty() {
            cx.after(self.pause, Timer::Undelivered);
        }
    }
}

impl Kept {
    /// Does something wait in it that net can still receive?
    fn waits(&self) -> bool {
        let socket = self.socket.as_fd();
        socket::unsent(socket).is_ok_and(|n| n > 0) && socket::holds_output(socket)
    }
}

/// Where the first one is of the owner that has the most; of several, of the first.
fn first_of_most<'a>(owners: impl Iterator<Item = &'a SessionOwner> + Clone) -> Option<usize> {
    let mut counts = HashMap::<&SessionOwner, usize>::new();
    owners.clone().for_each(|owner| *counts.entry(owner).or_default() += 1);
    let most = counts.values().copied().max()?;
    owners.into_iter().position(|owner| counts.get(owner) == Some(&most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_loses_the_oldest() {
        let user = |name: &str| SessionOwner::User(name.into());
        let at = |owners: &[&str]| {
            let owners: Vec<_> = owners.iter().map(|name| user(name)).collect();
            first_of_most(owners.iter())
        };
        assert_eq!(at(&["a", "b", "c", "c", "b", "c"]), Some(2));
        assert_eq!(at(&["a", "b", "c", "c", "b"]), Some(1));
        assert_eq!(at(&["a"]), Some(0));
        assert_eq!(at(&[]), None);
    }
}
