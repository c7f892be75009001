//! Unix sockets that are connected as a user: each by a child that has become that user and does
//! nothing else (`sys::spawn`), so that the rights of the socket's file hold, and its server sees
//! that user. That user can stop the child, and a busy machine can delay it: it is looked after as
//! any start, and what is more than may be late at a time waits for its turn.

use super::targets::Target;
use super::tried::{Connecting, Tried};
use crate::parent::arrival::{StartError, Who};
use crate::parent::config::catalog;
use crate::parent::context::Context;
use crate::parent::services::deferred::{Deferrable, Deferred};
use crate::parent::services::turns::{self, Turn};
use crate::sys::local::{self, Address};
use crate::sys::socket;
use crate::sys::spawn::{CList, Failure, Instead, LOOK_AFTER, Launch, PendingStart, Stage};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Children that are late, at most: each keeps one of the places of starts. A user never has as
/// many of them as are left for all others.
const LATE: usize = 8;

/// A child that connects a Unix socket, and all that it reads.
struct Trial {
    connecting: Box<Connecting>,
    target: Target,
    socket: OwnedFd,
    address: Address,
    no_words: CList,
}

/// A socket, to be connected as this user as soon as another one of that user is not late any more.
struct DeferredConnect {
    connecting: Box<Connecting>,
    path: String,
}

impl Deferrable for DeferredConnect {
    fn who(&self) -> &Who {
        &self.connecting.arrival.who
    }
}

/// See the module.
#[derive(Default)]
pub struct AsUser {
    /// Dropped before the context, whose spawner they use.
    late: Vec<PendingStart<Trial>>,
    deferred: Deferred<DeferredConnect>,
    /// Those that have lost their place among the deferred ones.
    refused: Vec<Connecting>,
}

impl AsUser {
    pub fn is_empty(&self) -> bool {
        self.late.is_empty() && self.deferred.is_empty() && self.refused.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Connecting> {
        let deferred = self.deferred.iter().map(|d| &*d.connecting);
        self.late.iter().map(|l| &*l.payload().connecting).chain(deferred).chain(&self.refused)
    }

    /// Connects it, or lets it wait for its turn.
    pub fn begin(&mut self, cx: &mut Context, c: Box<Connecting>, path: String) -> Tried {
        let Some(uid) = c.identity.as_ref().map(|i| i.uid) else {
            return now(cx, c, path);
        };
        let turn = if self.deferred.has(uid) { Turn::Later } else { self.turn_of(uid) };
        match turn {
            Turn::Now => self.connect(cx, uid, c, path),
            Turn::Never => held_up(c),
            Turn::Later => {
                let left = c.left;
                let deferred = Box::new(DeferredConnect { connecting: c, path });
                let lost = self.deferred.add(uid, left, deferred);
                self.refused.extend(lost.map(|lost| *lost.connecting));
                Tried::Begun
            }
        }
    }

    fn turn_of(&self, uid: u32) -> Turn {
        let of_user = |l: &&PendingStart<Trial>| l.payload().uid() == Some(uid);
        let left = LATE.saturating_sub(self.late.len());
        if self.late.iter().filter(of_user).count() < left {
            return Turn::Now;
        }
        let mut in_the_way = self.late.iter().filter(|l| left == 0 || of_user(l));
        match in_the_way.all(turns::hangs) {
            true => Turn::Never,
            false => Turn::Later,
        }
    }

    fn connect(&mut self, cx: &mut Context, uid: u32, c: Box<Connecting>, path: String) -> Tried {
        let (target, (socket, address)) = match made(cx, path) {
            (target, Ok(made)) => (target, made),
            (target, Err(e)) => return not_made(c, target, &e),
        };
        let no_words = no_words();
        let trial = Trial { connecting: c, target, socket, address, no_words };
        let mut start = cx.spawner.begin(Box::new(trial), Trial::launch);
        if cx.held_up.has(uid, cx.now) {
            start.expect_late(true);
        } else {
            start.wait();
        }
        if !start.is_over() {
            cx.held_up.note(uid, cx.now);
            self.late.push(start);
            return Tried::Begun;
        }
        finished(cx, start)
    }

    /// Looks after children that are late.
    pub fn look_after(&mut self) {
        self.late.iter_mut().for_each(PendingStart::look_after);
    }

    /// The next one that is not late any more, or has its turn, or does not wait any more. None:
    /// there is none now.
    pub fn next(&mut self, cx: &mut Context) -> Option<Tried> {
        if let Some(lost) = self.refused.pop() {
            return Some(held_up(Box::new(lost)));
        }
        if let Some(n) = self.late.iter().position(PendingStart::is_over) {
            return Some(finished(cx, self.late.remove(n)));
        }
        for uid in self.deferred.users() {
            let turn = self.turn_of(uid);
            if turn != Turn::Later
                && let Some(DeferredConnect { connecting, path }) =
                    self.deferred.next(uid).map(|d| *d)
            {
                return Some(match turn {
                    Turn::Never => held_up(connecting),
                    Turn::Now | Turn::Later => self.connect(cx, uid, connecting, path),
                });
            }
        }
        None
    }

    /// A child has ended: it may be one of these.
    pub fn child_ended(&mut self, cx: &mut Context, pid: i32) -> Option<Tried> {
        let n = self.late.iter().position(|l| l.pid() == Some(pid))?;
        Some(finished(cx, self.late.remove(n)))
    }

    /// How long the loop's poll may wait, for the sake of these.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match (self.refused.is_empty(), self.is_empty()) {
            (false, _) => Some(Duration::ZERO),
            (true, false) => Some(LOOK_AFTER),
            (true, true) => None,
        }
    }

    /// Nobody waits for these any more.
    pub fn forget(&mut self, is_over: impl Fn(&Connecting) -> bool) -> Vec<Connecting> {
        let over = self.deferred.take_if(|d| is_over(&d.connecting));
        let refused = self.refused.extract_if(.., |c| is_over(c));
        over.into_iter().map(|d| *d.connecting).chain(refused).collect()
    }

    /// fived ends: children that are late are ended.
    pub fn abandon(&mut self) {
        self.late.drain(..).for_each(PendingStart::abandon);
    }
}

impl Trial {
    fn uid(&self) -> Option<u32> {
        self.connecting.identity.as_ref().map(|i| i.uid)
    }

    fn launch(&self) -> Launch<'_> {
        Launch {
            identity: self.connecting.identity.as_ref(),
            connection: Some(self.socket.as_fd()),
            instead: Some(Instead::Connect(&self.address)),
            ..catalog::role(&self.no_words, &self.no_words)
        }
    }
}

/// As fived's own user, by fived itself.
fn now(cx: &mut Context, c: Box<Connecting>, path: String) -> Tried {
    match made(cx, path) {
        (target, Ok((socket, address))) => match local::connect_now(socket.as_fd(), &address) {
            Ok(()) => Tried::Connected(c, target, socket),
            Err(e) => Tried::refused(c, target, &e),
        },
        (target, Err(e)) => not_made(c, target, &e),
    }
}

/// A socket, and what it is to be connected to.
fn made(cx: &mut Context, path: String) -> (Target, io::Result<(OwnedFd, Address)>) {
    let made = cx.descriptors.unix().and_then(|s| Ok((s, Address::of(Path::new(&path))?)));
    (Target::Unix(path), made)
}

fn not_made(c: Box<Connecting>, target: Target, e: &io::Error) -> Tried {
    match socket::is_scarcity(e) {
        true => Tried::scarce(c, "descriptors", e),
        false => Tried::refused(c, target, e),
    }
}

fn held_up(c: Box<Connecting>) -> Tried {
    Tried::Scarce(c, StartError::busy("processes", Some("too many connections are held up".into())))
}

/// How the try of a child that has ended went.
fn finished(cx: &mut Context, start: PendingStart<Trial>) -> Tried {
    let (trial, result, _) = cx.spawner.finish(start);
    let Trial { connecting: c, target, socket, .. } = *trial;
    match result {
        Ok(_) => Tried::Connected(c, target, socket),
        Err(Failure { stage: Stage::Connect, errno, .. }) => {
            Tried::refused(c, target, &io::Error::from_raw_os_error(errno))
        }
        Err(f) if f.is_scarcity() => Tried::scarce(c, "processes", &f),
        // What else fails in the child, such as becoming the user, concerns that user alone.
        Err(f) => Tried::Refused { c, target, why: f.to_string(), counts: false },
    }
}

/// The child runs no program: it needs neither arguments nor an environment.
fn no_words() -> CList {
    CList::new([""; 0]).expect("no word is a bad one")
}
