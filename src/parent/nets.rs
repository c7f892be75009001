//! The net processes: started, given orders, replaced.
//!
//! One serves; after a reload, older ones finish what they have. One that ends unexpectedly is
//! replaced at once, but where that happens again and again only once a second, so that a fault of
//! fived does not become a fork bomb. The parent has the listeners too, so no client is refused
//! meanwhile.

use super::channel::{Broken, next};
use super::children::Role;
use super::context::{Context, Timer};
use super::descriptors::own;
use super::listeners::Listeners;
use super::net::{self, Asked, Net, Request, State};
use super::starts::{PAUSE, STARTS, Starts};
use super::words::Words;
use crate::log;
use crate::policy::{HostId, ServiceId};
use crate::sys::process::Exit;
use crate::sys::shared::Shared;
use crate::wire::orders::{FromNet, ToNet, Why};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long a net process may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Nets {
    all: HashMap<usize, Net>,
    pub words: Words,
    starts: Starts,
    /// How many could not be started, or ended unexpectedly.
    failures: usize,
    /// Was one ever ready?
    ready: bool,
    /// Why no net process can run here, if none can.
    hopeless: Option<String>,
    failed: Vec<(usize, Broken)>,
}

impl Nets {
    pub fn has(&self, token: usize) -> bool {
        self.all.contains_key(&token)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Net> {
        self.all.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&usize, &mut Net)> {
        self.all.iter_mut()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn tokens(&self) -> Vec<usize> {
        self.all.keys().copied().collect()
    }

    /// Why no net process can run here, if none can: the reason to end fived.
    pub fn hopeless(&mut self) -> Option<String> {
        self.hopeless.take()
    }

    /// Starts a net process for the current table.
    pub fn start(&mut self, cx: &mut Context) {
        if cx.stopping {
            return;
        }
        self.starts.add(cx.now);
        if let Err(e) = self.try_start(cx) {
            log::warn(&format!("net: {e}"));
            if !self.is_hopeless(&e) {
                cx.after(PAUSE, Timer::NetAgain);
            }
        }
    }

    /// Notes a failure. True: so many have failed since the start, while none was ever ready, that
    /// none will be.
    fn is_hopeless(&mut self, last: &str) -> bool {
        self.failures += 1;
        let hopeless = !self.ready && self.failures >= STARTS;
        if hopeless {
            self.hopeless =
                Some(format!("no network process was ready in {STARTS} tries; the last: {last}"));
        }
        hopeless
    }

    fn try_start(&mut self, cx: &mut Context) -> Result<(), String> {
        let (ours, theirs) = own::channel().map_err(|e| format!("channel: {e}"))?;
        let config = cx.config.clone();
        let (words, said) = self.words.add(cx).map_err(|e| format!("words: {e}"))?;
        let child = net::spawn(cx, &config, &theirs, &said);
        drop(said);
        let child = child.inspect_err(|_| self.words.last(words))?;
        let (token, channel) = cx.channel(ours).map_err(|e| format!("poll: {e}"))?;
        cx.children.add(child.pid, Role::Net(token));
        let (state, asked) = (State::Starting, Asked::default());
        self.all.insert(
            token,
            Net { child, channel, config, state, asked, words, listens: false, ended: false },
        );
        cx.after(READY_TIMEOUT, Timer::NetLate { net: token });
        Ok(())
    }

    /// One order of a net process. None: there is none now.
    pub fn order(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: usize,
    ) -> Result<Option<Request>, Broken> {
        let Some(net) = self.all.get_mut(&token) else { return Ok(None) };
        if net.channel.is_behind() {
            // While it does not take its answers, no order of it is read: with these come clients'
            // sockets.
            return Ok(None);
        }
        if !cx.can_receive(&net.channel) {
            net.channel.try_again();
            return Ok(None);
        }
        let Some((order, mut fds)) = net.channel.receive::<FromNet>(&net.phase())? else {
            return Ok(None);
        };
        net.asked.heard();
        let config = net.config.clone();
        cx.counters.orders += 1;
        ::log::trace!("net {token}: {order:?}");
        if fds.lost() {
            // The client that it was about has gone with its descriptor.
            cx.out_of_descriptors();
            return Ok(Some(Request::Done));
        }
        Ok(Some(match order {
            FromNet::Ready => self.is_ready(cx, listeners, token)?,
            // A connection that no session has is on the default host.
            FromNet::Start { host, .. } if host != HostId::DEFAULT.0 => {
                return Err(Broken::Forbidden);
            }
            FromNet::Start { service, .. } => {
                Request::Start { config, service: ServiceId(service), client: next(&mut fds)? }
            }
            FromNet::Session => {
                let (client, channel) = (next(&mut fds)?, next(&mut fds)?.our_own());
                Request::Session { config, client, channel }
            }
            FromNet::Refused(r) => Request::Refused(config, r),
            FromNet::Name { client, round } => {
                Request::Name { client, round, socket: next(&mut fds)? }
            }
            FromNet::Pong => Request::Done,
            FromNet::Left => self.left(cx, listeners, token),
            FromNet::Warn(text) => {
                log::warn(&String::from_utf8_lossy(text.bytes()));
                Request::Done
            }
        }))
    }

    /// The newest net process says that it is ready, and serves from now on.
    fn is_ready(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: usize,
    ) -> Result<Request, Broken> {
        let net = self.all.get_mut(&token).ok_or(Broken::Closed)?;
        if net.state != State::Starting {
            // The parent ordered it to drain before.
            return Ok(Request::Done);
        }
        if cx.stopping || !Rc::ptr_eq(&net.config, &cx.config) {
            // The table has changed again: another net process is being started.
            net.state = State::Draining;
            net.channel.send(cx.registry(), &ToNet::Drain { last: cx.stopping }, None)?;
            return Ok(Request::Done);
        }
        net.state = State::Serving;
        net.listens = true;
        self.ready = true;
        let dead = listeners.revive(cx.config.table.settings.mptcp);
        dead.iter().for_each(|w| log::warn(w));
        for socket in listeners.sockets() {
            net.channel.send(cx.registry(), &ToNet::Listener, Some(socket))?;
        }
        Ok(Request::Serves)
    }

    /// It has closed its listeners.
    fn left(&mut self, cx: &Context, listeners: &mut Listeners, token: usize) -> Request {
        if let Some(net) = self.all.get_mut(&token) {
            net.listens = false;
        }
        self.let_go(cx, listeners);
        Request::Done
    }

    /// Do no net processes of older tables have listeners?
    fn nobody_is_older(&self, cx: &Context) -> bool {
        self.all.values().all(|n| !n.listens || Rc::ptr_eq(&n.config, &cx.config))
    }

    /// Does a net process serve the current table, and none an older one?
    pub fn is_alone(&self, cx: &Context) -> bool {
        let serves = |n: &Net| n.state == State::Serving && Rc::ptr_eq(&n.config, &cx.config);
        self.all.values().any(serves) && self.nobody_is_older(cx)
    }

    /// Closes the listeners that the current table does not have, as soon as no net process of an
    /// older table has them.
    fn let_go(&self, cx: &Context, listeners: &mut Listeners) {
        if self.nobody_is_older(cx) {
            listeners.let_go();
        }
    }

    /// Does it drain: no new clients, no new streams?
    pub fn drains(&self, token: usize) -> bool {
        self.all
            .get(&token)
            .is_some_and(|n| n.state != State::Starting && n.state != State::Serving)
    }

    /// The net processes that serve, but for this one.
    pub fn serving_but(&self, token: usize) -> Vec<usize> {
        self.all
            .iter()
            .filter(|(t, n)| **t != token && n.state == State::Serving)
            .map(|(t, _)| *t)
            .collect()
    }

    /// The one that serves.
    pub fn serving(&self) -> Option<usize> {
        self.all.iter().find(|(_, n)| n.state == State::Serving).map(|(token, _)| *token)
    }

    /// Orders it to drain.
    pub fn drain(&mut self, cx: &Context, token: usize, last: bool) {
        let Some(net) = self.all.get_mut(&token) else { return };
        if matches!(net.state, State::Starting | State::Serving) {
            net.state = State::Draining;
        }
        self.tell(cx, token, &ToNet::Drain { last }, None);
    }

    /// Sends an order to one of them.
    pub fn tell(&mut self, cx: &Context, token: usize, what: &ToNet, with: Option<BorrowedFd>) {
        if let Some(net) = self.all.get_mut(&token)
            && let Err(why) = net.channel.send(cx.registry(), what, with)
        {
            self.failed.push((token, why));
        }
    }

    /// Those to which something could not be sent, so that their channels cannot be used.
    pub fn failed(&mut self) -> Vec<(usize, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// A plain connection's service was refused: net answers the client.
    pub fn refuse(
        &mut self,
        cx: &Context,
        token: usize,
        (service, why): (ServiceId, Why),
        client: Option<&Shared>,
    ) {
        // A net process that drains may end before the answers to its orders. Another one has
        // another table, in which this service's number means nothing.
        let (token, service) = match self.has(token) {
            true => (token, service.0),
            false => (self.serving().unwrap_or(token), u32::MAX),
        };
        self.tell(cx, token, &ToNet::Refuse { service, why }, client.map(AsFd::as_fd));
    }

    /// Has a net process do the lingering close of a client's socket, after its service has ended.
    /// Where no net process serves now, the connection just ends.
    pub fn close_lingering(&mut self, cx: &Context, socket: &Shared) {
        if let Some(token) = self.serving() {
            self.tell(cx, token, &ToNet::Linger, Some(socket.as_fd()));
        }
    }

    /// Sends it what was held.
    pub fn flush(&mut self, cx: &Context, token: usize) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |n| n.channel.flush(cx.registry()))
    }

    /// Its channel cannot be used: it has ended, or is ended now.
    pub fn broken(&mut self, token: usize, why: &Broken) {
        let Some(net) = self.all.get_mut(&token) else { return };
        if *why == Broken::Closed
            && matches!(net.state, State::Draining | State::Leaving | State::Left)
        {
            // It ends by itself.
            if net.state == State::Draining {
                net.state = State::Leaving;
            }
            return;
        }
        if std::mem::replace(&mut net.ended, true) {
            return;
        }
        let what = match why {
            Broken::Closed => None,
            Broken::Forbidden => Some("a forbidden order"),
            Broken::Stuck => Some("an order to it cannot be delivered"),
        };
        if let Some(what) = what {
            log::warn(&format!("net: pid {}: {what}; fived ends it", net.child.pid));
        }
        net.end();
    }

    /// Lets those that drain and have said their last order end, once every service that they asked
    /// for runs or was refused.
    pub fn leave(&mut self, waited_for: impl Fn(usize) -> bool) {
        for (token, net) in self.all.iter_mut().filter(|(_, n)| n.state == State::Leaving) {
            if !waited_for(*token) && net.channel.finish() {
                net.state = State::Left;
            }
        }
    }

    /// Ends it, if it is not ready yet.
    pub fn late(&mut self, token: usize) {
        if let Some(net) = self.all.get(&token).filter(|n| n.state == State::Starting) {
            log::warn(&format!(
                "net: pid {}: not ready after {} s; fived ends it",
                net.child.pid,
                READY_TIMEOUT.as_secs()
            ));
            net.end();
        }
    }

    /// It has ended. Answers that are held for it are dropped, so that the orders that it sent
    /// before its end are read.
    pub fn ends(&mut self, cx: &Context, token: usize) {
        if let Some(net) = self.all.get_mut(&token) {
            net.ended = true;
            let _ = net.channel.flush(cx.registry());
        }
    }

    /// It has ended, and the orders that it sent before were read. One that served is replaced.
    pub fn ended(&mut self, cx: &mut Context, listeners: &mut Listeners, token: usize, exit: Exit) {
        let Some(net) = self.all.remove(&token) else { return };
        self.words.last(net.words);
        let drained = matches!(net.state, State::Draining | State::Leaving | State::Left);
        self.let_go(cx, listeners);
        let expected = drained && exit == Exit::Status(0);
        if !expected {
            log::warn(&format!("net: pid {} ended ({exit:?})", net.child.pid));
        }
        let current = !drained && net.state != State::Killed && Rc::ptr_eq(&net.config, &cx.config);
        if !cx.stopping && current && !self.is_hopeless(&format!("{exit:?}")) {
            self.replace(cx);
        }
    }

    /// Starts another in its place.
    pub fn replace(&mut self, cx: &mut Context) {
        cx.counters.replaced += 1;
        if self.starts.too_many(cx.now) {
            cx.after(PAUSE, Timer::NetAgain);
        } else {
            self.start(cx);
        }
    }

    /// Ends all of them.
    pub fn end(&self) {
        self.all.values().for_each(Net::end);
    }
}
