//! Ports of services' own: bound here, and accepted from here. No byte that comes there is read:
//! the system says who has connected, and which service is meant is known by the port.
//!
//! | file | noun |
//! |---|---|
//! | `accept` `clients` | who comes there, and how clients arrive |
//! | `port_listener` | a socket of one |
//! | `port_listeners` | all of them |
//! | `waits` `questions` | a port whose program gets the socket itself; which clients wait there |
//! | `claims` | which listener each port of a new table goes on with |
//! | `systemd_sockets` | Unix sockets that the service manager has bound |
//! | `bind_again` | ports of inetd.conf and xinetd.conf that could not be bound, until they can be |

pub mod accept;
pub mod bind_again;
mod claims;
mod clients;
mod port_listener;
pub mod port_listeners;
mod questions;
pub mod systemd_sockets;
pub mod waits;

use super::arrival::{Arrival, StartError};
use super::context::{Context, Timer};
use super::services::running::Runs;
use super::tokens::PortToken;
use crate::log;
use crate::policy::{Denied, PeerName, Service, ServiceId, Source};
use crate::sys::{poll, queue_head};
use crate::wire::orders::Why;
use port_listener::Condition;
use port_listeners::PortListeners;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use waits::{Next, NotStarted, State};

/// Clients that wait for the name of their address at a time. A source has one more only while it
/// has fewer than are left.
const NAMING: usize = 256;

/// What follows where a socket that the service manager has bound is of no use any more.
const GIVEN: &str = "it is the service manager's, which alone can open it again: restart its socket unit, and fived";

/// See the module.
#[derive(Default)]
pub struct Ports {
    pub listeners: PortListeners,
    /// When those that could not be bound are tried again.
    pub again_at: Option<Duration>,
    /// The pause before that.
    again_after: Duration,
    naming: BTreeMap<u64, Arrival>,
    next: u64,
}

impl Ports {
    /// Nobody comes any more.
    pub fn close(&mut self) {
        self.listeners.close();
        self.naming.clear();
    }

    /// Is it a port where fived accepts clients of a service, from other computers too?
    pub fn is_internet_stream(&mut self, token: PortToken) -> bool {
        let l = self.listeners.get_mut(token);
        l.is_some_and(|l| l.port.service.is_some() && l.wait.is_none() && l.real.is_some())
    }

    /// Is it bound to an address of the internet?
    pub fn has_address(&mut self, token: PortToken) -> bool {
        self.listeners.get_mut(token).is_some_and(|l| l.real.is_some())
    }

    /// Is it a port where clients may be told something before their connections are closed?
    pub fn may_linger(&mut self, cx: &Context, token: PortToken) -> bool {
        self.accepts_for(cx, token).is_some_and(|s| s.attributes.may_linger())
    }

    /// Is it a port whose clients are relayed to a server that runs already?
    pub fn is_relayed(&mut self, cx: &Context, token: PortToken) -> bool {
        self.accepts_for(cx, token).is_some_and(|s| s.backend.is_relayed())
    }

    /// The service of a port where fived itself accepts.
    fn accepts_for<'a>(&mut self, cx: &'a Context, token: PortToken) -> Option<&'a Service> {
        let l = self.listeners.get_mut(token).filter(|l| l.wait.is_none());
        l.and_then(|l| cx.config.table.service(l.port.service?))
    }

    /// The service whose clients connect to this address.
    pub fn service_at(&self, real: SocketAddr) -> Option<ServiceId> {
        self.listeners.at(real)?.port.service
    }

    /// A program that has had the socket itself has ended. What it has left on the socket is
    /// undone, or another socket is bound in place of that one. Returned: something waits there
    /// already.
    pub fn program_ended(&mut self, cx: &mut Context, token: PortToken) -> bool {
        let Some(l) = self.listeners.get_mut(token) else {
            self.listeners.forget_kept(token);
            self.again_now(cx);
            return false;
        };
        if l.has_datagrams() && poll::is_readable(l.socket.as_fd()) {
            // Another program will be wanted, unless this one has left what it was started for.
            cx.spawner.expect_start();
        }
        let examined = l.examine();
        l.condition = if examined.is_err() { Condition::Unexamined } else { Condition::Good };
        let (found, undone) = match examined {
            Ok(examined) => examined,
            Err(e) => {
                l.look_again(cx, &e);
                return false;
            }
        };
        let Some(wait) = l.wait.as_mut() else { return false };
        let next = wait.ended(found, cx.now);
        if let Err(what) = undone
            && !self.replace(cx, token, what)
        {
            return false;
        }
        self.go_on(cx, token, next);
        let wait = self.listeners.get_mut(token).and_then(|l| l.wait.as_ref());
        wait.is_some_and(|w| w.state == State::Ready)
    }

    /// Binds another socket in place of one that is of no use any more. False: that must wait.
    fn replace(&mut self, cx: &mut Context, token: PortToken, what: &str) -> bool {
        let Some(l) = self.listeners.get_mut(token) else { return false };
        let given = l.is_given();
        let Some(wait) = l.wait.as_mut() else { return false };
        l.condition = Condition::Useless;
        wait.socket_replaced();
        if given {
            wait.state = State::Paused;
            log::warn(&format!("{}: port: {}: {what}; {GIVEN}", l.port.place, l.name()));
            return false;
        }
        log::warn(&format!("{}: port: {}: {what}; fived opens it again", l.port.place, l.name()));
        if let Err(e) = self.listeners.bind_again(token) {
            log::warn(&format!("{e}; fived tries again every second"));
            self.not_started(cx, token, NotStarted::Busy);
            return false;
        }
        true
    }

    /// A program that was to get the socket itself was not started. A datagram whose sender may
    /// not use the service is thrown away.
    pub fn not_started(&mut self, cx: &mut Context, token: PortToken, why: NotStarted) {
        let Some(l) = self.listeners.get_mut(token) else {
            self.listeners.forget_kept(token);
            return self.again_now(cx);
        };
        let gone = why == NotStarted::Denied && l.has_datagrams();
        if gone && let Err(e) = queue_head::drop_datagram(l.socket.as_fd()) {
            ::log::debug!("{}: {e}", l.name());
        }
        let Some(wait) = l.wait.as_mut() else { return };
        let next = wait.not_started(why, gone);
        self.go_on(cx, token, next);
    }

    /// Watches the port again, at once or after a pause, unless something waits there already.
    fn go_on(&mut self, cx: &mut Context, token: PortToken, Next { pause, warn }: Next) {
        let Some(l) = self.listeners.get_mut(token) else { return };
        if let (Some(n), Some(pause)) = (warn, pause) {
            let s = l.port.service.and_then(|id| cx.config.table.service(id));
            let (name, pause) = (s.map_or("", |s| s.name.as_str()), pause.as_secs());
            log::warn(&format!(
                "{}: {name}: its program ended {n} times in a row without taking what it was started for; it is started again after {pause} s",
                l.port.place
            ));
        }
        match pause {
            Some(pause) => cx.after(pause, Timer::PortAgain { token }),
            None if l.wait.as_ref().is_some_and(|w| w.state == State::Ready) => {}
            None => l.watch_again(cx),
        }
    }

    /// The pause before a program is started again is over. Returned: something waits there
    /// already.
    pub fn again(&mut self, cx: &mut Context, token: PortToken) -> bool {
        match self.listeners.get_mut(token).map(|l| l.condition) {
            Some(Condition::Unexamined) => return self.program_ended(cx, token),
            Some(Condition::Useless) if self.listeners.bind_again(token).is_err() => {
                self.not_started(cx, token, NotStarted::Busy);
                return false;
            }
            Some(Condition::Useless | Condition::Good) | None => {}
        }
        let Some(l) = self.listeners.get_mut(token) else { return false };
        let paused = l.wait.as_mut().filter(|w| w.state == State::Paused);
        if let Some(wait) = paused {
            wait.state = State::Watched;
            l.watch_again(cx);
        } else if l.wait.is_none() && l.is_unwatched() {
            l.watch_again(cx);
        }
        false
    }

    /// A client whose service depends on the name of its address: its number, until that is known.
    /// Err: too many wait.
    pub fn name(&mut self, a: Arrival) -> Result<u64, Box<Arrival>> {
        let source = Source::of(a.who.facts.peer);
        let all = self.naming.values().map(|waiting| Source::of(waiting.who.facts.peer));
        if all.filter(|of| *of == source).count() >= NAMING - self.naming.len() {
            return Err(Box::new(a));
        }
        self.next += 1;
        self.naming.insert(self.next, a);
        Ok(self.next)
    }

    /// A reload has made another table. The internal services that have a port's socket itself end
    /// where their row is not the same any more: the next datagram is served as the new table has
    /// it, or by nobody. What has arrived stays in the queue.
    pub fn end_changed(&mut self, cx: &Context, runs: &Runs) {
        for (token, r) in runs.internal_waits() {
            let now = self.listeners.get_mut(token).and_then(|l| l.port.service);
            if !now.is_some_and(|id| r.is_still(&cx.config.table, id)) {
                r.ask_to_end();
            }
        }
    }

    /// How long a datagram at this port may wait for what decides about it. None: no datagrams
    /// come there.
    pub fn max_wait(&mut self, token: PortToken, now: Duration) -> Option<Duration> {
        let l = self.listeners.get_mut(token).filter(|l| l.has_datagrams())?;
        l.wait.as_mut().map(|w| w.max_wait(now))
    }

    /// A datagram at this port has waited that long.
    pub fn waited_in_vain(&mut self, token: PortToken) {
        if let Some(wait) = self.listeners.get_mut(token).and_then(|l| l.wait.as_mut()) {
            wait.waited_in_vain();
        }
    }

    /// A datagram that has waited long enough for the name of its sender.
    pub fn name_slow(&mut self, number: u64) -> Option<(Arrival, StartError)> {
        Some((self.naming.remove(&number)?, name_unknown()))
    }

    /// The name is known, or is known to be none.
    pub fn named(&mut self, number: u64, name: PeerName) -> Option<Arrival> {
        let mut a = self.naming.remove(&number)?;
        a.who.facts.peer_name = name;
        Some(a)
    }
}

/// A datagram is dropped, because its sender's name is not known in time.
pub fn name_unknown() -> StartError {
    let text = "the name of its sender is not known yet; this datagram is dropped";
    let (reply, reason) = (Some(Why::NotAvailable), Denied::Address.as_str());
    StartError { reply, reason, text: Some(text.into()) }
}
