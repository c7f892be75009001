//! The net processes: started, given orders, replaced.
//!
//! One serves; after a reload, older ones finish what they have. One that ends unexpectedly is
//! replaced at once; where that happens again and again, only once a second, so that a fault of
//! fived does not become a fork bomb. The parent has the listeners too, so no client is refused
//! meanwhile.
//!
//! | file | noun |
//! |---|---|
//! | `net` | a net process |
//! | `end` | how it ends |
//! | `watchdog` | one that hangs |
//! | `clients` | clients' sockets that one is handed |
//! | `log_lines` | its lines for the log |
//! | `gauges` | what it counts |

mod clients;
mod end;
mod gauges;
mod log_lines;
pub mod net;
pub mod watchdog;

use super::addresses::Addresses;
use super::channel::{Broken, next, next_end};
use super::children::Role;
use super::context::{Context, Timer};
use super::descriptors::own;
use super::listeners::Listeners;
use super::start_limit::{PAUSE, STARTS, StartLimit};
use super::tokens::{NetToken, SessionToken};
use crate::log;
use crate::policy::{HostId, ServiceId};
use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::foreign;
use crate::sys::gauges::{Now, OtherCopy};
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use crate::wire::orders::{FromNet, ToNet};
use log_lines::NetLog;
use net::{CameTo, ListenerCopies, Net, NewClient, ProcessState, Request, State};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long a net process may take until it is ready. On a busy machine one that has a table of
/// tens of thousands of rows to read takes more than ten seconds.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The send buffer of a net process's channel: some 26 orders. Its clients take turns for what the
/// channel does not take.
const ORDERS_BUFFER: usize = 16 * 1024;

/// How much later than its clients' last deadline an order of a net process that drains may come.
const DRAIN_SLACK: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Nets {
    pub(super) all: HashMap<NetToken, Net>,
    pub log: NetLog,
    /// When they were replaced.
    replaced: StartLimit,
    /// How many could not be started, or ended unexpectedly.
    failures: usize,
    /// Has one ever been ready?
    ever_ready: bool,
    /// Why fived gives up, if it does: no net process can run here.
    gave_up: Option<String>,
    failed: Vec<(NetToken, Broken)>,
    /// None begins now, because files that earlier ones have sent are not closed.
    waits_for_files: bool,
    /// Those that hung, and were killed.
    pub(super) hung: Vec<NetToken>,
    /// What those that have ended had counted since they began.
    pub(super) ended: Now,
}

impl Nets {
    pub fn has(&self, token: NetToken) -> bool {
        self.all.contains_key(&token)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Net> {
        self.all.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&NetToken, &mut Net)> {
        self.all.iter_mut()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn tokens(&self) -> Vec<NetToken> {
        self.all.keys().copied().collect()
    }

    /// Why fived must end, if no net process can run here.
    pub fn gave_up(&mut self) -> Option<String> {
        self.gave_up.take()
    }

    /// Starts a net process that could not be started before.
    pub fn start_again(&mut self, cx: &mut Context) {
        if self.waits_for_files && foreign::is_full_of_files() {
            return cx.after(PAUSE, Timer::NetAgain);
        }
        self.waits_for_files = false;
        self.start(cx);
    }

    /// Starts a net process for the current table.
    pub fn start(&mut self, cx: &mut Context) {
        if cx.is_ending() {
            return;
        }
        if foreign::is_full_of_files() {
            // It could send as many more, and each takes a process.
            if !std::mem::replace(&mut self.waits_for_files, true) {
                log::warn("net: files that earlier ones sent cannot be closed: no new one begins");
                cx.after(PAUSE, Timer::NetAgain);
            }
            return;
        }
        if let Err(e) = self.try_start(cx) {
            log::warn(&format!("net: {e}"));
            if !self.gives_up(&e) {
                cx.after(PAUSE, Timer::NetAgain);
            }
        }
    }

    /// Counts a failure. True: so many have failed, and none has ever been ready, that fived gives
    /// up.
    pub(super) fn gives_up(&mut self, last: &str) -> bool {
        self.failures += 1;
        let gives_up = !self.ever_ready && self.failures >= STARTS;
        if gives_up {
            self.gave_up =
                Some(format!("no network process was ready in {STARTS} tries; the last: {last}"));
        }
        gives_up
    }

    fn try_start(&mut self, cx: &mut Context) -> Result<(), String> {
        let (ours, theirs) = own::channel().map_err(|e| format!("channel: {e}"))?;
        // A larger one is of no use but to let whoever asks for much be served before others.
        let _ = socket::set_send_buffer(theirs.as_fd(), ORDERS_BUFFER);
        let config = cx.config.clone();
        let (log, stderr) = self.log.add(cx).map_err(|e| format!("log socket: {e}"))?;
        // The child comes last, so that nothing can fail once it is there.
        let ours = Shared::from(ours).of(Whose::Anybody);
        let made = cx.channel(ours).map_err(|e| format!("poll: {e}")).and_then(|channel| {
            net::spawn(cx, &config, &theirs, &stderr).map(|child| (channel, child))
        });
        drop(stderr);
        let ((token, channel), child) = made.inspect_err(|_| self.log.finish(log))?;
        cx.children.add(child.pid, Role::Net(token));
        self.all.insert(token, Net::new(child, channel, config, log));
        self.begin_counting(cx, token);
        cx.after(READY_TIMEOUT, Timer::NetLate { net: token });
        Ok(())
    }

    /// The next order of a net process. None: there is none now.
    pub fn order(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: NetToken,
    ) -> Result<Option<Request>, Broken> {
        let Some(net) = self.all.get_mut(&token) else { return Ok(None) };
        let Some((order, mut fds)) = net.receive(cx)? else { return Ok(None) };
        let config = net.config.clone();
        cx.counters.orders += 1;
        ::log::trace!("net {}: {order:?}", net.child.pid);
        if fds.lost() {
            // The client's connection was closed with the descriptor that could not be received.
            cx.out_of_descriptors();
            if !matches!(order, FromNet::StartOnClient { .. }) {
                return Ok(Some(Request::Done));
            }
        }
        Ok(Some(match order {
            FromNet::Ready => self.is_ready(cx, listeners, token)?,
            // Only a session can choose a host.
            FromNet::Start { host, .. } if host != HostId::DEFAULT.0 => {
                return Err(Broken::Forbidden);
            }
            FromNet::Start { service, addresses: said, .. } => {
                let (service, client) = (ServiceId(service), next(&mut fds)?);
                Request::Start { config, service, client, said }
            }
            FromNet::Session { tls_port, addresses: said } => {
                let (socket, pair) = (next(&mut fds)?, next_end(&mut fds)?);
                Request::Session(NewClient { config, socket, pair, tls_port, said })
            }
            FromNet::StartOnClient { session, service, host } => {
                let session = SessionToken::of_number(session);
                let what = (ServiceId(service), HostId(host));
                Request::StartOnClient { session, what, client: fds.take() }
            }
            FromNet::AtPort { addresses: said } => {
                Request::AtPort { config, client: next(&mut fds)?, said }
            }
            FromNet::Refused(r) => Request::Refused(config, r),
            FromNet::Name { client, generation, addresses: said } => {
                Request::Name { config, client, generation, socket: next(&mut fds)?, said }
            }
            FromNet::Pong => Request::Done,
            FromNet::Close => {
                // A process beside this one closes it, when another takes its place.
                net.closing = fds.take();
                Request::Done
            }
            FromNet::ListenersClosed => self.closed_listeners(cx, listeners, token),
            FromNet::Unlogged { refusals } => {
                cx.counters.not_logged(refusals);
                log::warn(&format!("{refusals} refusals not logged: too many at once"));
                Request::Done
            }
        }))
    }

    /// As [`net::Net::copy`].
    pub fn copy(&self, token: NetToken, session: Option<SessionToken>) -> Option<OtherCopy> {
        self.all.get(&token)?.copy(session)
    }

    /// Makes the calls that take the locks of sockets that this net process has, too.
    pub fn calls(&mut self, token: NetToken) -> Option<&mut BoundedCalls> {
        self.all.get_mut(&token).map(|net| &mut net.calls)
    }

    /// Err: no client of this net process can be between these addresses, if it came there: only
    /// one that somebody else controls says so.
    pub fn admit(&self, token: NetToken, own: &Addresses, came_to: CameTo) -> Result<(), Broken> {
        let admits = self.all.get(&token).is_some_and(|net| net.admits(own, came_to));
        admits.then_some(()).ok_or(Broken::Forbidden)
    }

    /// A net process is ready. If it is the newest, it serves from now on.
    fn is_ready(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: NetToken,
    ) -> Result<Request, Broken> {
        let net = self.all.get_mut(&token).ok_or(Broken::Closed)?;
        if net.state != State::Starting {
            // The parent has ordered it to drain.
            return Ok(Request::Done);
        }
        if cx.is_ending() || !Rc::ptr_eq(&net.config, &cx.config) {
            // The table has changed again, and another net process is being started.
            net.state = State::Draining;
            net.channel.send(cx.registry(), &ToNet::Drain { last: cx.is_ending() }, &[])?;
            return Ok(Request::Done);
        }
        net.state = State::Serving;
        net.listeners = ListenerCopies::Given;
        self.ever_ready = true;
        let dead = listeners.revive(cx.config.table.settings.mptcp);
        dead.iter().for_each(|w| log::warn(w));
        net.give(cx, listeners)?;
        Ok(Request::Serves)
    }

    /// A net process has closed its listeners.
    fn closed_listeners(
        &mut self,
        cx: &Context,
        listeners: &mut Listeners,
        token: NetToken,
    ) -> Request {
        if let Some(net) = self.all.get_mut(&token) {
            net.listeners = ListenerCopies::Closed;
        }
        self.close_unused(cx, listeners);
        Request::Done
    }

    /// Has no net process of an older table listeners?
    fn none_older_listens(&self, cx: &Context) -> bool {
        let listens = |n: &Net| n.listeners == ListenerCopies::Given;
        self.all.values().all(|n| !listens(n) || Rc::ptr_eq(&n.config, &cx.config))
    }

    /// Does a net process serve the current table, while none of an older table has listeners?
    pub fn is_alone(&self, cx: &Context) -> bool {
        let serves = |n: &Net| n.state == State::Serving && Rc::ptr_eq(&n.config, &cx.config);
        self.all.values().any(serves) && self.none_older_listens(cx)
    }

    /// Closes the listeners that are not in the current table, as soon as no net process of an
    /// older table has them.
    pub(super) fn close_unused(&self, cx: &Context, listeners: &mut Listeners) {
        if self.none_older_listens(cx) {
            listeners.close_unused();
        }
    }

    /// Does it drain, that is, take no new clients and no new streams?
    pub fn drains(&self, token: NetToken) -> bool {
        self.all
            .get(&token)
            .is_some_and(|n| n.state != State::Starting && n.state != State::Serving)
    }

    /// Does it drain, and so long that none of its clients begins anything any more? Only one that
    /// somebody else controls asks then for a service of its table, which is in force no more.
    pub fn is_past(&self, token: NetToken, now: Duration) -> bool {
        self.all.get(&token).and_then(|n| n.begins_until).is_some_and(|until| until <= now)
    }

    /// The net processes that serve, except this one.
    pub fn serving_except(&self, token: NetToken) -> Vec<NetToken> {
        self.all
            .iter()
            .filter(|(t, n)| **t != token && n.state == State::Serving)
            .map(|(t, _)| *t)
            .collect()
    }

    /// The net process that serves.
    pub fn serving(&self) -> Option<NetToken> {
        self.all.iter().find(|(_, n)| n.state == State::Serving).map(|(token, _)| *token)
    }

    /// Is it there, and will it read what it is handed?
    pub fn takes_relays(&self, token: NetToken) -> bool {
        let over = |n: &Net| matches!(n.state, State::Released | State::Killed);
        self.all.get(&token).is_some_and(|n| n.process == ProcessState::Running && !over(n))
    }

    /// Orders a net process to drain.
    pub fn drain(&mut self, cx: &Context, token: NetToken, last: bool) {
        let Some(net) = self.all.get_mut(&token) else { return };
        if matches!(net.state, State::Starting | State::Serving) {
            net.state = State::Draining;
            let within = net.config.table.settings.begins_within();
            net.begins_until = Some(cx.now.saturating_add(within).saturating_add(DRAIN_SLACK));
        }
        self.tell(cx, token, &ToNet::Drain { last }, None);
    }

    /// Sends an order to one of them.
    pub fn tell(&mut self, cx: &Context, token: NetToken, what: &ToNet, with: Option<BorrowedFd>) {
        self.tell_with(cx, token, what, with.as_slice());
    }

    /// The same, with several descriptors.
    pub fn tell_with(&mut self, cx: &Context, token: NetToken, what: &ToNet, with: &[BorrowedFd]) {
        let Some(net) = self.all.get_mut(&token) else { return };
        net.unheard = true;
        if let Err(why) = net.channel.send(cx.registry(), what, with) {
            self.failed.push((token, why));
        }
    }

    /// Those to which an order could not be sent: their channels cannot be used any more.
    pub fn failed(&mut self) -> Vec<(NetToken, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// Sends a net process what its channel holds.
    pub fn flush(&mut self, cx: &Context, token: NetToken) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |n| n.channel.flush(cx.registry()))
    }

    /// Starts another one in place of one that failed.
    pub fn replace(&mut self, cx: &mut Context) {
        cx.counters.replaced += 1;
        self.replaced.add(cx.now);
        if self.replaced.too_many(cx.now) {
            cx.after(PAUSE, Timer::NetAgain);
        } else {
            self.start(cx);
        }
    }

    /// Kills all of them.
    pub fn end(&self) {
        self.all.values().for_each(Net::end);
    }
}
