//! A connection to a server that runs already: a row's upstreams are tried one after the other,
//! and nobody waits for them but the client that asked.
//!
//! TCP is connected without blocking and with a deadline (`pending`), a Unix socket by a child that
//! has become the row's user (`as_user`).

use super::as_user::AsUser;
use super::exec;
use super::pending::{PendingConnection, PendingConnections, WaitEnd};
use super::targets::{Failed, Target, targets};
use super::tried::{Connecting, Permitted, Tried};
use crate::parent::arrival::{Requester, StartError};
use crate::parent::config::catalog::Prepared;
use crate::parent::context::Context;
use crate::parent::tokens::{NetToken, SessionToken};
use crate::policy::{Service, Upstream};
use crate::sys::identity::effective_uid;
use crate::sys::{dial, socket};
use mio::Token;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What came of it.
pub enum Outcome {
    Connected(Box<Connecting>, Target, OwnedFd),
    Failed(Box<Connecting>, StartError),
}

/// See the module.
#[derive(Default)]
pub struct Connects {
    /// Dropped before the context, whose spawner its children use.
    as_user: AsUser,
    pending: PendingConnections<Box<Connecting>>,
    failed: Failed,
    outcomes: Vec<Outcome>,
}

impl Connects {
    /// What came of connections, since the last call.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    pub fn has(&self, token: Token) -> bool {
        self.pending.has(token)
    }

    /// Is a connection for a client of that net process pending?
    pub fn for_net(&self, net: NetToken) -> bool {
        self.all().any(|c| matches!(c.arrival.who.requester, Requester::Net(n) if n == net))
    }

    /// Is none pending?
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.as_user.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Connecting> {
        self.pending.iter().map(|(_, c)| &**c).chain(self.as_user.iter())
    }

    /// Begins. What comes of it is among the outcomes, perhaps at once.
    pub fn begin(
        &mut self,
        cx: &mut Context,
        Permitted { permit, arrival, left }: Permitted,
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
            Some(Err(error)) => Err(error),
        };
        let (identity, error) = match identity {
            Ok(identity) => (identity.filter(|_| effective_uid() == 0), None),
            Err(error) => (None, Some(error)),
        };
        let c =
            Box::new(Connecting { permit, arrival, identity, targets, timeout, left, failures });
        match error {
            Some(error) => self.outcomes.push(Outcome::Failed(c, error)),
            None => self.next(cx, c),
        }
    }

    /// Tries its targets until one takes it or has yet to answer.
    fn next(&mut self, cx: &mut Context, mut c: Box<Connecting>) {
        loop {
            let Some(target) = c.targets.pop_front() else {
                let error = StartError::from(c.failures.join("; "));
                return self.outcomes.push(Outcome::Failed(c, error));
            };
            let tried = match target {
                Target::Tcp(address) => self.tcp(cx, c, address),
                Target::Unix(path) => self.as_user.begin(cx, c, path),
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
            Tried::Scarce(c, error) => self.outcomes.push(Outcome::Failed(c, error)),
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
    pub fn ready(&mut self, cx: &mut Context, token: Token) {
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
        self.go_on(cx, tried);
    }

    /// A TCP connection was not accepted in time.
    pub fn late(&mut self, cx: &mut Context, token: Token) {
        let Some(PendingConnection { what: c, target, .. }) = self.pending.take(cx, token) else {
            return;
        };
        let why = format!("no answer within {} s", c.timeout.as_secs());
        self.go_on(cx, Tried::Refused { c, target, why, counts: true });
    }

    /// Goes on where a child has ended that was late, or one that waited has its turn.
    pub fn finish_late(&mut self, cx: &mut Context) {
        self.as_user.look_after();
        while let Some(tried) = self.as_user.next(cx) {
            self.go_on(cx, tried);
        }
    }

    /// How long the loop's poll may wait, for the sake of these.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.as_user.poll_timeout()
    }

    /// A child has ended: it may be one of these.
    pub fn child_ended(&mut self, cx: &mut Context, pid: i32) {
        if let Some(tried) = self.as_user.child_ended(cx, pid) {
            self.go_on(cx, tried);
            self.finish_late(cx);
        }
    }

    fn go_on(&mut self, cx: &mut Context, tried: Tried) {
        if let Some(c) = self.tried(cx.now, tried) {
            self.next(cx, c);
        }
    }

    /// A session is over: nobody waits for its connections any more.
    pub fn forget(&mut self, cx: &mut Context, session: SessionToken) {
        let its = |from| matches!(from, Requester::Session(stream) if stream.session == session);
        let of = |c: &Connecting| its(c.arrival.who.requester);
        let all: Vec<Token> =
            self.pending.iter().filter(|(_, c)| of(c)).map(|(token, _)| token).collect();
        let pending: Vec<_> =
            all.into_iter().filter_map(|token| self.pending.take(cx, token)).collect();
        let deferred = self.as_user.forget(of).into_iter().map(Box::new);
        for c in pending.into_iter().map(|w| w.what).chain(deferred) {
            self.outcomes.push(Outcome::Failed(c, StartError::gone()));
        }
    }

    /// Forgets what no longer counts.
    pub fn tidy(&mut self, now: Duration) {
        self.failed.tidy(now);
    }

    /// fived ends: none of those that wait for their turn will have it.
    pub fn refuse_deferred(&mut self) {
        for c in self.as_user.forget(|_| true) {
            let error = StartError::busy("processes", Some("fived ends".into()));
            self.outcomes.push(Outcome::Failed(Box::new(c), error));
        }
    }

    /// fived ends: children that are late are ended.
    pub fn abandon(&mut self) {
        self.as_user.abandon();
    }
}

/// How long each target of a row may take.
fn timeout(service: Option<&Service>) -> Duration {
    service.map_or(Duration::ZERO, |s| s.attributes.connect_timeout)
}
