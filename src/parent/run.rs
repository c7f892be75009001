//! The parent's loop: orders, signals and children, one after the other, in one thread that waits
//! only in its poll, and for a moment where others may have a socket (`sys::bounded_calls`).
//! Requests of the parent's parts to each other go through `dispatch` and `pipeline`.

use super::arrival::{Arrival, LocalClient};
use super::backend::connect::Connects;
use super::backend::socket_pairs::SocketPairs;
use super::channel::{Broken, Retries};
use super::context::{Context, SIGNALS};
use super::listeners::Listeners;
use super::logins::{Logins, Proved};
use super::lookups::accounts::Accounts;
use super::lookups::hosts::Hosts;
use super::lookups::hosts_access::HostsAccess;
use super::lookups::names::Names;
use super::nets::Nets;
use super::nets::watchdog::{self, Watchdog};
use super::offers::Offers;
use super::ports::Ports;
use super::ready::Ready;
use super::relays::Relays;
use super::relays::threads::RelayThreads;
use super::reload::reloads::Reloads;
use super::reports::Reports;
use super::sensors::Sensors;
use super::services::Services;
use super::services::deferred::{Deferred, DeferredStart};
use super::services::lingering::Lingering;
use super::sessions::Sessions;
use super::signers::Signers;
use super::tokens::Watched;
use crate::log;
use crate::sys::notify::StandIn;
use crate::sys::signal::Signals;
use crate::sys::{clock, foreign, reaper};
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Orders of one net process that are served before those of others. A start takes some 0.1 ms, and
/// a TLS handshake waits for 16 starts at most.
const NET_BATCH: usize = 16;
/// Orders of one session that are served before those of others; there may be thousands of
/// sessions.
const SESSION_BATCH: usize = 4;
/// Orders that one turn of the loop serves at most, before it checks signals, timers and other
/// channels again.
const TURN: usize = 64;
/// After this time the parent tries again to write to a log that it could not write to.
const LOG_RETRY: Duration = Duration::from_millis(100);

/// A request that waits until a user or a group has been looked up.
pub enum AwaitsAccount {
    Start(Box<Arrival>),
    Login(Proved),
    /// A client at a row's Unix socket, of a user who was not known.
    Identify(Box<Arrival>),
    /// A client at a Unix socket of fived's own, of a user who was not known.
    LocalClient(LocalClient),
}

/// The parent: its parts, none of which knows another.
pub struct Parent {
    /// Dropped before the context, whose spawner the starts that are under way use.
    pub services: Services,
    pub deferred: Deferred<DeferredStart>,
    /// Likewise.
    pub connects: Connects,
    pub lingering: Lingering,
    pub cx: Context,
    pub listeners: Listeners,
    pub pairs: SocketPairs,
    pub relays: Relays,
    pub offers: Offers,
    pub relay_threads: RelayThreads,
    pub hosts: Hosts,
    pub ports: Ports,
    pub nets: Nets,
    pub sessions: Sessions,
    pub logins: Logins,
    pub signers: Signers,
    pub names: Names,
    pub accounts: Accounts<AwaitsAccount>,
    pub hosts_access: HostsAccess,
    pub sensors: Sensors,
    /// What fived is telling about itself.
    pub reports: Reports,
    pub reloads: Reloads,
    /// Tells whoever started fived that it is ready. Called once.
    pub announce: Option<Box<dyn FnOnce()>>,
    pub signals: Signals,
    /// Signals may have come that were not received yet.
    pub signalled: bool,
    /// When it is asked again which child has ended, whoever started it: to find that took long.
    pub next_at: Option<Duration>,
    /// When each of many children may be asked again whether it has ended.
    pub own_at: Option<Duration>,
    /// When the loop looks again for children that have ended, where it could not ask for all.
    pub reap_again_at: Option<Duration>,
    pub watchdog: Watchdog,
    /// Channels that may have orders.
    pub ready: Ready,
    /// The service manager's main process meanwhile.
    pub stand_in: Option<StandIn>,
}

impl Parent {
    pub fn new(cx: Context, listeners: Listeners, signals: Signals) -> io::Result<Parent> {
        cx.registry().register(&mut SourceFd(&signals.as_raw_fd()), SIGNALS, Interest::READABLE)?;
        Ok(Parent {
            services: Services::new()?,
            deferred: Deferred::default(),
            connects: Connects::default(),
            lingering: Lingering::default(),
            cx,
            listeners,
            pairs: SocketPairs::default(),
            relays: Relays::default(),
            offers: Offers::default(),
            relay_threads: RelayThreads::new(),
            hosts: Hosts::default(),
            ports: Ports::default(),
            nets: Nets::default(),
            sessions: Sessions::default(),
            logins: Logins::new(),
            signers: Signers::new(),
            names: Names::default(),
            accounts: Accounts::new(),
            hosts_access: HostsAccess::default(),
            sensors: Sensors::default(),
            reports: Reports::default(),
            reloads: Reloads::default(),
            announce: None,
            signals,
            signalled: false,
            next_at: None,
            own_at: None,
            // Those that ended before there were signals.
            reap_again_at: Some(Duration::ZERO),
            watchdog: Watchdog::default(),
            ready: Ready::default(),
            stand_in: None,
        })
    }

    /// Serves until a signal ends it. Errors: the poll fails, or no net process can be started.
    pub fn run(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        self.signers.start(&mut self.cx);
        self.nets.start(&mut self.cx);
        self.hosts.look_up(&mut self.cx);
        loop {
            self.make_ahead();
            self.services.settle(&mut self.cx);
            self.resume_deferred();
            self.route();
            self.relay_threads.settle(&self.cx, true);
            self.release_nets();
            if let Some(why) = self.nets.gave_up() {
                return Err(why);
            }
            let idle = self.services.is_empty()
                && self.deferred.is_empty()
                && self.connects.is_empty()
                && self.offers.is_idle()
                && self.nets.is_empty();
            if self.is_over() || self.cx.is_ending() && idle {
                return Ok(());
            }
            self.poll(&mut events)?;
            if !events.is_empty() {
                self.watchdog.wake(&mut self.cx, &self.listeners);
            }
            for event in &events {
                match event.token() {
                    SIGNALS => self.signalled = true,
                    watchdog::LISTENERS => {}
                    token => {
                        if event.is_writable() {
                            self.flush(token);
                        }
                        if event.is_read_closed() && event.is_write_closed() {
                            self.sessions.hung_up(token.into());
                        }
                        self.may_have_orders(token);
                    }
                }
            }
            if self.receive_signals() {
                continue;
            }
            for token in self.cx.retries.take() {
                self.flush(token);
                self.may_have_orders(token);
            }
            self.turn();
            self.settle_offers();
            self.report();
            self.connects.finish_late(&mut self.cx);
            self.relieve();
            self.logins.start(&mut self.cx, &mut self.sessions);
            self.expire();
            self.route();
        }
    }

    /// Writes the log, then waits until something is to be done, or the timer of the interrupt ends
    /// the wait.
    fn poll(&mut self, events: &mut Events) -> Result<(), String> {
        // In every turn: while there are orders all the time, no turn waits.
        let logged = log::flush();
        foreign::settle();
        let polled = self.cx.poll.poll(events, self.poll_timeout(logged));
        self.cx.now = clock::monotonic();
        self.services.rest_interrupt();
        match polled {
            // Where nothing else happens, the timer ends.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("poll: {e}")),
            // Anything may close what a net process has sent.
            Ok(()) => self.services.want_interrupt(),
        }
        Ok(())
    }

    /// Lets the net processes end that have finished, and that nothing here needs any more.
    fn release_nets(&mut self) {
        let (services, connects, offers) = (&self.services, &self.connects, &self.offers);
        let (relays, deferred) = (&self.relay_threads, &self.deferred);
        let waits = |net| {
            connects.for_net(net)
                || offers.for_net(net)
                || relays.for_net(net)
                || deferred.for_net(net)
        };
        self.nets.release(|net| services.starts_for_net(net) || waits(net));
    }

    /// While starts are pending, or before the loop waits, makes a socket pair and a process that
    /// will be wanted. Answers that can be sent already go first, and a start that is the only one:
    /// nobody else waits meanwhile.
    fn make_ahead(&mut self) {
        if self.ready.is_empty() {
            self.services.settle_single(&mut self.cx);
            self.route();
            // Its client may wait for the end of the connection.
            foreign::settle();
            self.pairs.make_ahead(&self.cx.descriptors, self.cx.now);
            if !self.cx.is_ending() {
                self.cx.spawner.make_ahead(self.cx.now);
            }
            if self.cx.spawner.has_started() {
                // What was started runs: this process has nothing else to do meanwhile.
                reaper::go_on_with_many();
            }
        }
    }

    /// How long the poll may wait. `logged`: all lines of the log are written.
    fn poll_timeout(&self, logged: bool) -> Option<Duration> {
        let retry = (!self.cx.retries.is_empty()).then_some(Retries::PAUSE);
        let log = (!logged).then_some(LOG_RETRY);
        let busy = self.signalled || self.reloads.gathered || !self.ready.is_empty();
        if busy || !self.reports.is_empty() || !self.offers.is_settled() {
            return Some(Duration::ZERO);
        }
        let until = |at: Duration| at.saturating_sub(self.cx.now) + Duration::from_millis(1);
        let timer = self.cx.next_due().map(until);
        let login = self.logins.deadline().map(until);
        let reap = self.next_at.into_iter().chain(self.reap_again_at).min().map(until);
        let (connect, start) = (self.connects.poll_timeout(), self.services.poll_timeout());
        let deferred = (!self.deferred.is_empty()).then_some(super::services::turns::LOOK_SOON);
        [timer, login, reap, log, retry, connect, start, deferred].into_iter().flatten().min()
    }

    /// Serves the channels that may have orders, in turn.
    fn turn(&mut self) {
        let mut left = TURN;
        while let Some(token) = self.ready.next() {
            let Some(watched) = self.watched(token) else { continue };
            let is_session = matches!(watched, Watched::Session(_));
            let batch = if is_session { SESSION_BATCH } else { NET_BATCH }.min(left);
            left -= self.serve(token, watched, batch);
            if left == 0 {
                return;
            }
        }
    }

    /// What the poll knows by this token. None: it is over.
    fn watched(&mut self, token: Token) -> Option<Watched> {
        Some(if self.nets.has(token.into()) {
            Watched::Net(token.into())
        } else if self.sessions.has(token.into()) {
            Watched::Session(token.into())
        } else if self.connects.has(token) {
            Watched::Connect(token)
        } else if self.relay_threads.has(token.into()) {
            Watched::RelayThread(token.into())
        } else if self.ports.listeners.has(token.into()) {
            Watched::Port(token.into())
        } else if self.nets.log.has(token.into()) {
            Watched::NetLog(token.into())
        } else if self.signers.has(token.into()) {
            Watched::Keys(token.into())
        } else {
            return None;
        })
    }

    /// Serves at most `batch` orders of a channel. Returns how many it served.
    fn serve(&mut self, token: Token, watched: Watched, batch: usize) -> usize {
        for served in 0..batch {
            // Between two orders too, so that a start that is over is answered at once, and the
            // parent closes its copy of the connection.
            self.services.finish_starts(&mut self.cx);
            let done = match watched {
                Watched::Net(net) => self.net_order(net),
                Watched::Session(session) => self.session_order(session),
                Watched::RelayThread(thread) => self.relays_order(thread),
                Watched::Port(port) => Ok(self.port_client(port)),
                Watched::NetLog(log) => Ok(self.nets.log.read(log)),
                Watched::Keys(keys) => self.signers.order(&mut self.cx, keys),
                Watched::Connect(token) => {
                    self.connects.ready(&mut self.cx, token);
                    Ok(false)
                }
            };
            self.route();
            match done {
                Ok(true) => {}
                Ok(false) => return served,
                Err(broken) => {
                    self.broken(watched, &broken);
                    return served;
                }
            }
        }
        self.may_have_orders(token);
        batch
    }

    /// This channel is served when it has its turn.
    pub fn may_have_orders(&mut self, token: Token) {
        self.ready.add(token, self.sessions.source_of(token.into()));
    }

    /// Sends what the channel of this token holds.
    pub fn flush(&mut self, token: Token) {
        let Some(watched) = self.watched(token) else { return };
        let cx = &self.cx;
        let done = match watched {
            Watched::Net(net) => self.nets.flush(cx, net),
            Watched::Session(session) => {
                let read = self.sessions.reads(session);
                let done = self.sessions.flush(cx, session);
                if !read && self.sessions.reads(session) {
                    self.offers_back(session);
                }
                done
            }
            Watched::RelayThread(thread) => self.relay_threads.flush(cx, thread),
            Watched::Keys(keys) => self.signers.flush(cx, keys),
            Watched::Port(_) | Watched::NetLog(_) | Watched::Connect(_) => Ok(()),
        };
        if let Err(broken) = done {
            self.broken(watched, &broken);
        }
    }

    /// A channel cannot be used any more.
    pub fn broken(&mut self, watched: Watched, why: &Broken) {
        match watched {
            Watched::Net(net) => self.net_broken(net, why),
            Watched::RelayThread(thread) => self.relay_thread_over(thread, why),
            Watched::Keys(keys) => self.signers.broken(keys, why),
            Watched::Session(session) => self.session_over(session, why),
            // These have no channel that could break.
            Watched::Port(_) | Watched::NetLog(_) | Watched::Connect(_) => {}
        }
    }
}
