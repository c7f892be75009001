//! A connection to a server that runs already: a row's upstreams are tried one after the other,
//! and nobody waits for them but the client that asked.
//!
//! TCP is connected without blocking and with a deadline (`pending`). A Unix socket is
//! connected by a child that has become the row's user and does nothing else (`sys::spawn`): the
//! rights of its file hold, and its server sees that user. That user can stop the child, and holds
//! up nobody else by that: it is looked after as any start.

use super::exec;
use super::pending::{Awaited, PendingConnection, PendingConnections, WaitEnd};
use super::targets::{Failed, Target, targets};
use crate::parent::arrival::{Arrival, Requester, StartError};
use crate::parent::config::catalog::{self, Prepared};
use crate::parent::context::Context;
use crate::policy::{Permit, Service, Upstream};
use crate::sys::identity::{Identity, effective_uid};
use crate::sys::local::{self, Address};
use crate::sys::spawn::{CList, Failure, Instead, LOOK_AFTER, Launch, PendingStart, Stage};
use crate::sys::{dial, socket};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

/// Children that are late, at most: in all, and of one user.
const LATE: usize = 8;
const LATE_OF_ONE: usize = 2;

/// An arrival that is being connected.
pub struct Connecting {
    pub permit: Permit,
    pub arrival: Arrival,
    /// The user as whom Unix sockets are connected. None: fived's own.
    identity: Option<Identity>,
    targets: VecDeque<Target>,
    timeout: Duration,
    /// Why the targets that were tried have not taken it, one line each.
    failures: Vec<String>,
}

/// What came of it.
pub enum Outcome {
    Connected(Box<Connecting>, Target, OwnedFd),
    Failed(Box<Connecting>, StartError),
}

impl Awaited for Box<Connecting> {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        self.arrival.client.as_ref().map(AsFd::as_fd)
    }
}

/// A child that connects a Unix socket, and all that it reads.
struct Trial {
    connecting: Box<Connecting>,
    target: Target,
    socket: OwnedFd,
    address: Address,
    no_words: CList,
}

/// How the try of one target went.
enum Tried {
    /// It has yet to answer.
    Begun,
    Connected(Box<Connecting>, Target, OwnedFd),
    /// It refused. `counts`: it would probably refuse others too, so that it is tried last.
    Refused {
        c: Box<Connecting>,
        target: Target,
        why: String,
        counts: bool,
    },
    /// fived has no descriptor or process left, which says nothing about the target.
    Scarce(Box<Connecting>, StartError),
}

impl Tried {
    fn refused(c: Box<Connecting>, target: Target, e: &io::Error) -> Tried {
        // Others may be allowed to connect where this user is not.
        let counts = e.kind() != io::ErrorKind::PermissionDenied;
        let why = match e.kind() {
            io::ErrorKind::WouldBlock => "its queue of connections is full".into(),
            _ => e.to_string(),
        };
        Tried::Refused { c, target, why, counts }
    }

    fn scarce(c: Box<Connecting>, reason: &'static str, e: &dyn fmt::Display) -> Tried {
        Tried::Scarce(c, StartError::busy(reason, Some(e.to_string())))
    }
}

/// See the module.
#[derive(Default)]
pub struct Connects {
    /// Dropped before the context, whose spawner they use.
    late: Vec<PendingStart<Trial>>,
    pending: PendingConnections<Box<Connecting>>,
    failed: Failed,
    outcomes: Vec<Outcome>,
}

impl Connects {
    /// What came of connections, since the last call.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    pub fn has(&self, token: usize) -> bool {
        self.pending.has(token)
    }

    /// Is a connection for a client of that net process pending?
    pub fn for_net(&self, net: usize) -> bool {
        self.all().any(|c| matches!(c.arrival.who.from, Requester::Net(n) if n == net))
    }

    /// Is none pending?
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.late.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Connecting> {
        let late = self.late.iter().map(|l| &*l.payload().connecting);
        self.pending.iter().map(|(_, c)| &**c).chain(late)
    }

    /// Begins. What comes of it is among the outcomes, perhaps at once.
    pub fn begin(
        &mut self,
        cx: &mut Context,
        permit: Permit,
        arrival: Arrival,
        prepared: &Prepared,
        upstreams: &[Upstream],
        addresses: impl Fn(&str) -> Vec<IpAddr>,
    ) {
        let turn = prepared.turn.replace(prepared.turn.get().wrapping_add(1));
        let (targets, unknown) = targets(upstreams, turn, addresses, &self.failed, cx.now);
        let failures = unknown.iter().map(|n| format!("{n}: its address is not known")).collect();
        let timeout = timeout(arrival.config.table.service(arrival.service));
        let unix = targets.iter().any(|t| matches!(t, Target::Unix(_)));
        let identity = match unix.then(|| exec::owner(&arrival, prepared)) {
            None => Ok(None),
            Some(Ok((_, own))) => Ok(own.or_else(|| prepared.owner.as_ref().map(|o| o.1.clone()))),
            Some(Err(no)) => Err(no),
        };
        let (identity, no) = match identity {
            Ok(identity) => (identity.filter(|_| effective_uid() == 0), None),
            Err(no) => (None, Some(no)),
        };
        let c = Box::new(Connecting { permit, arrival, identity, targets, timeout, failures });
        match no {
            Some(no) => self.outcomes.push(Outcome::Failed(c, no)),
            None => self.next(cx, c),
        }
    }

    /// Tries its targets until one takes it or has yet to answer.
    fn next(&mut self, cx: &mut Context, mut c: Box<Connecting>) {
        loop {
            let Some(target) = c.targets.pop_front() else {
                let no = StartError::from(c.failures.join("; "));
                return self.outcomes.push(Outcome::Failed(c, no));
            };
            let tried = match target {
                Target::Tcp(address) => self.tcp(cx, c, address),
                Target::Unix(path) => self.unix(cx, c, path),
                // Only upstreams are connected here.
                Target::Offer(_) => continue,
            };
            match self.tried(cx.now, tried) {
                Some(again) => c = again,
                None => return,
            }
        }
    }

    /// After a try: the outcome, or what goes on with the next target.
    fn tried(&mut self, now: Duration, tried: Tried) -> Option<Box<Connecting>> {
        match tried {
            Tried::Begun => {}
            Tried::Connected(c, target, socket) => {
                self.failed.remove(&target);
                self.outcomes.push(Outcome::Connected(c, target, socket));
            }
            Tried::Scarce(c, no) => self.outcomes.push(Outcome::Failed(c, no)),
            Tried::Refused { mut c, target, why, counts } => {
                c.failures.push(format!("{target}: {why}"));
                if counts {
                    self.failed.add(target, now);
                }
                return Some(c);
            }
        }
        None
    }

    fn tcp(&mut self, cx: &mut Context, c: Box<Connecting>, address: SocketAddr) -> Tried {
        let target = Target::Tcp(address);
        let socket = match cx.descriptors.dial(address) {
            Ok(socket) => socket,
            Err(e) if socket::is_scarcity(&e) => return Tried::scarce(c, "descriptors", &e),
            Err(e) => return Tried::refused(c, target, &e),
        };
        match dial::look(socket.as_fd()) {
            Ok(true) => return Tried::Connected(c, target, socket),
            Ok(false) => {}
            Err(e) => return Tried::refused(c, target, &e),
        }
        let timeout = c.timeout;
        match self.pending.add(cx, c, target, socket, timeout) {
            Ok(()) => Tried::Begun,
            Err((c, e)) => Tried::scarce(c, "descriptors", &e),
        }
    }

    /// The poll says something of a TCP connection, or of the client that waits for it.
    pub fn ready(&mut self, cx: &mut Context, token: usize) {
        let Some((PendingConnection { what: c, target, socket, .. }, news)) =
            self.pending.ready(cx, token)
        else {
            return;
        };
        let tried = match news {
            WaitEnd::Connected => Tried::Connected(c, target, socket),
            WaitEnd::Refused(e) => Tried::refused(c, target, &e),
            WaitEnd::ClientGone => {
                return self.outcomes.push(Outcome::Failed(c, StartError::gone()));
            }
        };
        if let Some(c) = self.tried(cx.now, tried) {
            self.next(cx, c);
        }
    }

    /// A TCP connection was not accepted in time.
    pub fn late(&mut self, cx: &mut Context, token: usize) {
        let Some(PendingConnection { what: c, target, .. }) = self.pending.take(cx, token) else {
            return;
        };
        let why = format!("no answer within {} s", c.timeout.as_secs());
        if let Some(c) = self.tried(cx.now, Tried::Refused { c, target, why, counts: true }) {
            self.next(cx, c);
        }
    }

    fn unix(&mut self, cx: &mut Context, c: Box<Connecting>, path: String) -> Tried {
        let made = cx.descriptors.unix().and_then(|s| Ok((s, Address::of(Path::new(&path))?)));
        let target = Target::Unix(path);
        let (socket, address) = match made {
            Ok(made) => made,
            Err(e) if socket::is_scarcity(&e) => return Tried::scarce(c, "descriptors", &e),
            Err(e) => return Tried::refused(c, target, &e),
        };
        let Some(identity) = &c.identity else {
            return match local::connect_now(socket.as_fd(), &address) {
                Ok(()) => Tried::Connected(c, target, socket),
                Err(e) => Tried::refused(c, target, &e),
            };
        };
        let uid = identity.uid;
        let of_one = |l: &&PendingStart<Trial>| {
            l.payload().connecting.identity.as_ref().is_some_and(|i| i.uid == uid)
        };
        if self.late.len() >= LATE || self.late.iter().filter(of_one).count() >= LATE_OF_ONE {
            return Tried::scarce(c, "processes", &"too many connections are held up");
        }
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
        finished(cx, start, false)
    }

    /// Looks after children that are late, and goes on where one has ended.
    pub fn finish_late(&mut self, cx: &mut Context) {
        self.late.iter_mut().for_each(PendingStart::look_after);
        while let Some(n) = self.late.iter().position(PendingStart::is_over) {
            let start = self.late.remove(n);
            self.finish(cx, start, false);
        }
    }

    /// How long the loop's poll may wait, for the sake of such children.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.late.is_empty()).then_some(LOOK_AFTER)
    }

    /// A child was reaped: it may be one of these.
    pub fn reaped(&mut self, cx: &mut Context, pid: i32) {
        if let Some(n) = self.late.iter().position(|l| l.pid() == Some(pid)) {
            let start = self.late.remove(n);
            self.finish(cx, start, true);
        }
    }

    fn finish(&mut self, cx: &mut Context, start: PendingStart<Trial>, reaped: bool) {
        let tried = finished(cx, start, reaped);
        if let Some(c) = self.tried(cx.now, tried) {
            self.next(cx, c);
        }
    }

    /// A session is over: nobody waits for its connections any more.
    pub fn forget(&mut self, cx: &mut Context, session: usize) {
        let of =
            |c: &Connecting| matches!(c.arrival.who.from, Requester::Session(s) if s.0 == session);
        let all: Vec<usize> =
            self.pending.iter().filter(|(_, c)| of(c)).map(|(token, _)| token).collect();
        for token in all {
            if let Some(w) = self.pending.take(cx, token) {
                self.outcomes.push(Outcome::Failed(w.what, StartError::gone()));
            }
        }
    }

    /// Forgets what no longer counts.
    pub fn tidy(&mut self, now: Duration) {
        self.failed.tidy(now);
    }

    /// fived ends: children that are late are ended.
    pub fn abandon(&mut self) {
        self.late.drain(..).for_each(PendingStart::abandon);
    }
}

impl Trial {
    fn launch(&self) -> Launch<'_> {
        Launch {
            identity: self.connecting.identity.as_ref(),
            connection: Some(self.socket.as_fd()),
            instead: Some(Instead::Connect(&self.address)),
            ..catalog::role(&self.no_words, &self.no_words)
        }
    }
}

/// How the try of a child that has ended went.
fn finished(cx: &mut Context, start: PendingStart<Trial>, reaped: bool) -> Tried {
    let (trial, result) = cx.spawner.finish(start, reaped);
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

/// How long each target of a row may take.
fn timeout(service: Option<&Service>) -> Duration {
    service.map_or(Duration::ZERO, |s| s.attributes.connect_timeout)
}
