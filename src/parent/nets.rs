//! The net processes: started, told, replaced.
//!
//! One serves; after a reload older ones finish what they have. One that dies is replaced at once;
//! one that keeps dying is started again only once a second, so that a mistake of ours is no fork
//! bomb. The listeners are ours: no client is refused meanwhile.

use super::channel::{Broken, next};
use super::children::Role;
use super::config::Config;
use super::context::{Context, Timer};
use super::descriptors::own;
use super::listeners::Listeners;
use super::net::{self, Asked, Net, State};
use super::starts::{PAUSE, STARTS, Starts};
use super::words::Words;
use crate::log;
use crate::policy::{HostId, ServiceId};
use crate::sys::process::Exit;
use crate::sys::shared::Shared;
use crate::wire::orders::{FromNet, Refused, ToNet, Why};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long one may take until it is ready.
const READY: Duration = Duration::from_secs(10);

/// What a net process has said that is somebody else's business.
pub enum Request {
    /// Nothing: the order was for this part alone.
    Done,
    /// A plain connection wants a service.
    Start { config: Rc<Config>, service: ServiceId, client: Shared },
    /// A client asked for a built-in, or for TLS.
    Session { config: Rc<Config>, client: Shared, channel: OwnedFd },
    /// It refused a request itself.
    Refused(Rc<Config>, Refused),
    /// A rule asks for the name of this client's address.
    Name { client: u32, round: u32, socket: Shared },
    /// It serves from now on.
    Serves,
}

/// See the module.
#[derive(Default)]
pub struct Nets {
    all: HashMap<usize, Net>,
    pub words: Words,
    starts: Starts,
    /// Those that could not be started, or ended without being told to.
    failures: usize,
    /// Was one ever ready?
    ready: bool,
    /// None can be had here, and why.
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

    /// Why none can be had, if so. Whoever started fived is told.
    pub fn hopeless(&mut self) -> Option<String> {
        self.hopeless.take()
    }

    /// Starts a net process under the table of now.
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

    /// Have so many been tried since the start, and none was ever ready? Then none will be.
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
        cx.after(READY, Timer::NetLate { net: token });
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
            // Who does not take its answers is asked nothing more: clients' sockets are among them.
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
            // Whom it was about is gone with its descriptor; nobody is to blame for that.
            cx.out_of_descriptors();
            return Ok(Some(Request::Done));
        }
        Ok(Some(match order {
            FromNet::Ready => self.is_ready(cx, listeners, token)?,
            // A connection that no session has is on the default host.
            FromNet::Start { host, .. } if host != HostId::DEFAULT.0 => {
                return Err(Broken::Nonsense);
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

    /// The table's newest net process serves from now on.
    fn is_ready(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: usize,
    ) -> Result<Request, Broken> {
        let net = self.all.get_mut(&token).ok_or(Broken::Closed)?;
        if net.state != State::Starting {
            // It was told to drain before it could say so.
            return Ok(Request::Done);
        }
        if cx.stopping || !Rc::ptr_eq(&net.config, &cx.config) {
            // The table changed again meanwhile: another is on its way.
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

    /// It accepts no more from any listener.
    fn left(&mut self, cx: &Context, listeners: &mut Listeners, token: usize) -> Request {
        if let Some(net) = self.all.get_mut(&token) {
            net.listens = false;
        }
        self.let_go(cx, listeners);
        Request::Done
    }

    fn nobody_is_older(&self, cx: &Context) -> bool {
        self.all.values().all(|n| !n.listens || Rc::ptr_eq(&n.config, &cx.config))
    }

    /// Does one serve the table of now, and nobody an older one?
    pub fn is_alone(&self, cx: &Context) -> bool {
        let serves = |n: &Net| n.state == State::Serving && Rc::ptr_eq(&n.config, &cx.config);
        self.all.values().any(serves) && self.nobody_is_older(cx)
    }

    /// What a table has given up is free as soon as no net process of an older one has it.
    fn let_go(&self, cx: &Context, listeners: &mut Listeners) {
        if self.nobody_is_older(cx) {
            listeners.let_go();
        }
    }

    /// Does it take nobody any more, and no stream?
    pub fn drains(&self, token: usize) -> bool {
        self.all
            .get(&token)
            .is_some_and(|n| n.state != State::Starting && n.state != State::Serving)
    }

    /// Those that serve beside this one.
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

    /// It takes nobody any more.
    pub fn drain(&mut self, cx: &Context, token: usize, last: bool) {
        let Some(net) = self.all.get_mut(&token) else { return };
        if matches!(net.state, State::Starting | State::Serving) {
            net.state = State::Draining;
        }
        self.tell(cx, token, &ToNet::Drain { last }, None);
    }

    /// Tells one of them something.
    pub fn tell(&mut self, cx: &Context, token: usize, what: &ToNet, with: Option<BorrowedFd>) {
        if let Some(net) = self.all.get_mut(&token)
            && let Err(why) = net.channel.send(cx.registry(), what, with)
        {
            self.failed.push((token, why));
        }
    }

    /// Those that could not be told something: their channels are of no use.
    pub fn failed(&mut self) -> Vec<(usize, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// A plain connection's service was refused: net tells the client.
    pub fn refuse(
        &mut self,
        cx: &Context,
        token: usize,
        (service, why): (ServiceId, Why),
        client: Option<&Shared>,
    ) {
        // One that drains does not wait for what it gave away. Another has another table, which
        // does not know this service.
        let (token, service) = match self.has(token) {
            true => (token, service.0),
            false => (self.serving().unwrap_or(token), u32::MAX),
        };
        self.tell(cx, token, &ToNet::Refuse { service, why }, client.map(AsFd::as_fd));
    }

    /// A service has ended whose client is to be heard out: a net process does that. Where none
    /// serves now the connection just ends.
    pub fn close_lingering(&mut self, cx: &Context, socket: &Shared) {
        if let Some(token) = self.serving() {
            self.tell(cx, token, &ToNet::Linger, Some(socket.as_fd()));
        }
    }

    /// Says what was held for it.
    pub fn flush(&mut self, cx: &Context, token: usize) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |n| n.channel.flush(cx.registry()))
    }

    /// Its channel is of no use: it has died, or it must.
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
            Broken::Nonsense => Some("a forbidden order"),
            Broken::Stuck => Some("an order to it cannot be delivered"),
        };
        if let Some(what) = what {
            log::warn(&format!("net: pid {}: {what}; fived ends it", net.child.pid));
        }
        net.end();
        // Reaped, it is replaced; its channel says nothing more.
    }

    /// Those that drain and have said their last go, once all that they asked for has begun or was
    /// refused.
    pub fn leave(&mut self, waited_for: impl Fn(usize) -> bool) {
        for (token, net) in self.all.iter_mut().filter(|(_, n)| n.state == State::Leaving) {
            if !waited_for(*token) && net.channel.finish() {
                net.state = State::Left;
            }
        }
    }

    /// It should be ready by now.
    pub fn late(&mut self, token: usize) {
        if let Some(net) = self.all.get(&token).filter(|n| n.state == State::Starting) {
            log::warn(&format!(
                "net: pid {}: not ready after {} s; fived ends it",
                net.child.pid,
                READY.as_secs()
            ));
            net.end();
        }
    }

    /// It has ended: it takes nothing any more, and no answer that is held is in the way of what it
    /// said before.
    pub fn ends(&mut self, cx: &Context, token: usize) {
        if let Some(net) = self.all.get_mut(&token) {
            net.ended = true;
            let _ = net.channel.flush(cx.registry());
        }
    }

    /// It has ended, and all that it said before was heard. One that served is replaced.
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

    /// Starts another in the place of one that died.
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
