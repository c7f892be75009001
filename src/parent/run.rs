//! The parent's loop: orders, signals and children, one after the other, in one thread. Nothing in
//! it waits.

use super::accepted::Accepted;
use super::accounts::Accounts;
use super::channel::{Broken, Held, Retries};
use super::children::{Children, Condemned, Role};
use super::config::Config;
use super::descriptors::Descriptors;
use super::listeners::Listeners;
use super::logins::Logins;
use super::names::Names;
use super::nets::Net;
use super::notices::Notices;
use super::options::Options;
use super::penalties::Penalties;
use super::queue::Queue;
use super::sessions::Session;
use super::signers::Signers;
use super::standing::Standing;
use super::start::Starting;
use super::state::Counters;
use super::watch;
use super::words::Words;
use crate::log;
use crate::policy::Limits;
use crate::sys::interrupt::Interrupt;
use crate::sys::outcome::Asker;
use crate::sys::signal::{Received, Signal, Signals};
use crate::sys::spawn::{Flight, Spawner};
use crate::sys::{clock, notify};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

const SIGNALS: Token = Token(0);
/// Nets and sessions have the tokens from here, each its own, never one again.
const FIRST: usize = 1;
/// Orders of one net process before the others have their turn: a start takes some 0.1 ms, and a
/// handshake waits for as many.
const NET_BATCH: usize = 16;
/// Orders of one session likewise. There may be thousands of sessions.
const SESSION_BATCH: usize = 4;
/// Orders that one turn of the loop serves at most, before it hears of signals, timers and other
/// channels again.
const TURN: usize = 64;
/// A log that took nothing is tried again so soon.
const LOG_RETRY: Duration = Duration::from_millis(100);
/// Between the signal that asks a service to end and the one that ends it.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// A service that could not be told to end for want of a descriptor is told so again.
const CONDEMN_AGAIN: Duration = Duration::from_secs(1);
/// Limits are relieved of what no longer matters this often.
const TIDY: Duration = Duration::from_secs(60);

/// What is to be done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// `server_timeout`: this child, if it still is the one that started then.
    Terminate {
        pid: i32,
        started: Duration,
    },
    Kill {
        pid: i32,
        started: Duration,
    },
    /// A look-up of a user or a group takes too long.
    AccountLate {
        pid: i32,
    },
    /// A net process that is not ready by now is none.
    NetLate {
        net: usize,
    },
    /// A net process is started again.
    NetAgain,
    /// A look-up that began then has no answer.
    NameLate {
        address: IpAddr,
        since: Duration,
    },
    /// Keys processes are started again, or looked after.
    SignersAgain,
    SignersLook,
    /// Look-ups are tried again that could not be started.
    NamesAgain,
    /// `shutdown_timeout`.
    Shutdown,
    Tidy,
    /// Is the net process alive?
    Watch,
}

/// The parent's whole state.
pub struct Parent {
    pub options: Options,
    pub config: Rc<Config>,
    pub poll: Poll,
    /// Services that were spawned and have yet to exec, the oldest first. They go before their
    /// spawner does.
    pub flights: Vec<Flight<Starting>>,
    pub spawner: Spawner,
    pub interrupt: Interrupt,
    pub listeners: Listeners,
    pub nets: HashMap<usize, Net>,
    pub net_starts: Vec<Duration>,
    /// Net processes that could not be started, or ended without being told to.
    pub net_failures: usize,
    /// No net process can be had here, and why.
    pub stillborn: Option<String>,
    pub signers: Signers,
    pub sessions: HashMap<usize, Session>,
    pub standing: Standing,
    pub words: Words,
    pub children: Children,
    pub limits: Limits,
    pub logins: Logins,
    pub accepted: Accepted,
    pub notices: Notices,
    pub names: Names,
    pub accounts: Accounts,
    pub penalties: Penalties,
    pub counters: Counters,
    pub now: Duration,
    pub minute: (Duration, u16),
    /// The last session's number.
    pub number: u64,
    token: usize,
    signals: Signals,
    /// By their time. One that has lost its reason goes: what has ended leaves nothing behind.
    timers: BTreeSet<(Duration, Timer)>,
    /// Channels that may have orders.
    ready: Queue,
    pub retries: Retries,
    /// Answers that sessions have yet to take.
    pub held: Held,
    /// Who is told when the table that was read last is served, and its warnings with that.
    pub askers: Vec<(Asker, Vec<String>)>,
    pub descriptors: Descriptors,
    pub stopping: bool,
    over: bool,
    /// Told to whoever waits for this process to be ready: once.
    pub announce: Option<Box<dyn FnOnce()>>,
}

impl Parent {
    pub fn new(
        options: Options,
        config: Config,
        listeners: Listeners,
        spawner: Spawner,
        signals: Signals,
    ) -> io::Result<Parent> {
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&signals.as_raw_fd()),
            SIGNALS,
            Interest::READABLE,
        )?;
        let now = clock::monotonic();
        let mut parent = Parent {
            options,
            config: Rc::new(config),
            poll,
            spawner,
            interrupt: Interrupt::new()?,
            flights: Vec::new(),
            listeners,
            nets: HashMap::new(),
            net_starts: Vec::new(),
            net_failures: 0,
            stillborn: None,
            signers: Signers::default(),
            sessions: HashMap::new(),
            standing: Standing::default(),
            words: Words::default(),
            children: Children::default(),
            limits: Limits::new(),
            logins: Logins::new(),
            accepted: Accepted::default(),
            notices: Notices::default(),
            names: Names::default(),
            accounts: Accounts::default(),
            penalties: Penalties::default(),
            counters: Counters::default(),
            now,
            minute: (now, clock::minute_of_day()),
            number: 0,
            token: FIRST,
            signals,
            timers: BTreeSet::new(),
            ready: Queue::default(),
            retries: Retries::default(),
            held: Held::default(),
            askers: Vec::new(),
            descriptors: Descriptors::new(),
            stopping: false,
            over: false,
            announce: None,
        };
        parent.at(now + TIDY, Timer::Tidy);
        parent.at(now + watch::LOOK, Timer::Watch);
        Ok(parent)
    }

    /// Serves until it is told to end. Errors: the poll fails.
    pub fn run(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        self.start_signer();
        self.start_net();
        loop {
            self.settle();
            self.leave_nets();
            if let Some(why) = self.stillborn.take() {
                return Err(why);
            }
            if self.over
                || self.stopping
                    && self.children.is_empty()
                    && self.flights.is_empty()
                    && self.nets.is_empty()
            {
                return Ok(());
            }
            match self.poll.poll(&mut events, self.patience()) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return Err(format!("poll: {e}"));
                }
                _ => {}
            }
            self.now = clock::monotonic();
            self.interrupt.rest();
            for event in &events {
                match event.token() {
                    SIGNALS => self.signals(),
                    Token(t) => {
                        if event.is_writable() {
                            self.flush(t);
                        }
                        self.ready.add(t);
                    }
                }
            }
            for t in self.retries.take() {
                self.flush(t);
                self.ready.add(t);
            }
            self.turn();
            self.relieve();
            self.start_logins();
            self.expire();
            log::flush();
        }
    }

    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self
            .timers
            .first()
            .map(|(at, _)| at.saturating_sub(self.now) + Duration::from_millis(1));
        let login =
            self.logins.deadline().map(|at| at.saturating_sub(self.now) + Duration::from_millis(1));
        let log = (!log::flush()).then_some(LOG_RETRY);
        let retry = (!self.retries.is_empty()).then_some(Retries::PAUSE);
        [timer, login, log, retry, self.settled_for()].into_iter().flatten().min()
    }

    /// A token that nobody had before.
    pub fn new_token(&mut self) -> usize {
        self.token += 1;
        self.token
    }

    pub fn at(&mut self, when: Duration, what: Timer) {
        self.timers.insert((when, what));
    }

    /// What was to be done then need not be done any more.
    fn not_at(&mut self, when: Duration, what: Timer) {
        self.timers.remove(&(when, what));
    }

    /// How many times something is to be done at.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    pub fn minute(&mut self) -> u16 {
        if self.now.saturating_sub(self.minute.0) >= Duration::from_secs(1) {
            self.minute = (self.now, clock::minute_of_day());
        }
        self.minute.1
    }

    /// Serves those that are ready, the one that has waited longest first.
    fn turn(&mut self) {
        let mut left = TURN;
        while let Some(token) = self.ready.next() {
            let batch = if self.sessions.contains_key(&token) { SESSION_BATCH } else { NET_BATCH }
                .min(left);
            left -= self.serve(token, batch);
            if left == 0 {
                return;
            }
        }
    }

    /// Serves a channel's orders, so many at most, and says how many.
    fn serve(&mut self, token: usize, batch: usize) -> usize {
        for served in 0..batch {
            // What runs must not keep its connection, nor its client wait for an answer, for as
            // long as orders take.
            self.land();
            let done = if self.nets.contains_key(&token) {
                self.net_order(token)
            } else if self.sessions.contains_key(&token) {
                self.session_order(token)
            } else if self.words.has(token) {
                self.words(token)
            } else {
                self.signer_order(token)
            };
            match done {
                Ok(true) => {}
                Ok(false) => return served,
                Err(broken) => {
                    self.broken(token, broken);
                    return served;
                }
            }
        }
        self.ready.add(token);
        batch
    }

    fn flush(&mut self, token: usize) {
        let registry = self.poll.registry();
        let done = match (self.nets.get_mut(&token), self.sessions.get_mut(&token)) {
            (Some(net), _) => net.channel.flush(registry),
            (_, Some(session)) => session.channel.flush(registry),
            _ => self.signers.channel(token).map_or(Ok(()), |c| c.flush(registry)),
        };
        if let Err(broken) = done {
            self.broken(token, broken);
        }
    }

    pub fn broken(&mut self, token: usize, why: Broken) {
        if self.nets.contains_key(&token) {
            self.net_broken(token, why);
        } else if self.signers.has(token) {
            self.signer_broken(token, &why);
        } else {
            self.session_over(token, why);
        }
    }

    fn signals(&mut self) {
        while let Some(Received { signal, asker, .. }) = self.signals.next() {
            match signal {
                Signal::Child => self.reap(),
                Signal::Hup => {
                    // Reading may take a while.
                    self.settle_all();
                    self.reload(asker);
                }
                Signal::Usr1 => self.tell_state(),
                Signal::Term if !self.stopping => self.stop(),
                Signal::Term | Signal::Int => self.over = true,
                _ => {}
            }
        }
    }

    /// Hears of all children that have ended.
    pub fn reap(&mut self) {
        self.end_stopped_nets();
        while let Some((pid, exit)) = self.children.next_end() {
            self.land_reaped(pid);
            match self.children.remove(pid) {
                Some(Role::Service(mut running)) => {
                    if let Some(ticket) = running.ticket.take() {
                        self.limits.release(ticket);
                    }
                    if let Some(until) = running.until {
                        self.not_at(until, Timer::Terminate { pid, started: running.started });
                    }
                    if let Some(socket) = running.lingers.take() {
                        self.linger(&socket);
                    }
                    self.children.end(running, exit, self.now);
                }
                Some(Role::Net(token)) => self.net_ended(token, exit),
                Some(Role::Login(number)) => self.login_child_ended(number, exit),
                Some(Role::Keys(token)) => self.signer_ended(token, exit),
                Some(Role::Name) => self.look_up_ended(pid, exit),
                Some(Role::Account) => self.account_ended(pid, exit),
                // Somebody else's orphan, which init would have had.
                None => {}
            }
        }
    }

    fn expire(&mut self) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            match timer {
                Timer::Terminate { pid, started } => match self.children.condemn(pid, started) {
                    Condemned::Told => self.at(self.now + KILL_AFTER, Timer::Kill { pid, started }),
                    Condemned::Later => {
                        self.out_of_descriptors();
                        self.at(self.now + CONDEMN_AGAIN, timer);
                    }
                    Condemned::Ended => {}
                },
                Timer::Kill { pid, started } => self.children.kill(pid, started),
                Timer::AccountLate { pid } => self.account_late(pid),
                Timer::NetLate { net } => self.net_late(net),
                Timer::NameLate { address, since } => self.name_late(address, since),
                Timer::NamesAgain => self.resume_look_ups(),
                Timer::NetAgain => self.start_net(),
                Timer::SignersAgain => self.signers_again(),
                Timer::SignersLook => self.look_after_signers(),
                Timer::Shutdown => self.over = true,
                Timer::Watch => self.watch_nets(),
                Timer::Tidy => {
                    self.limits.tidy(self.now);
                    self.at(self.now + TIDY, Timer::Tidy);
                }
            }
        }
    }

    /// Takes no new connections, and ends when what runs has ended, or time is up.
    fn stop(&mut self) {
        self.stopping = true;
        notify::stopping();
        log::say("stopping");
        self.listeners.close();
        self.drain(true);
        self.at(self.now + self.config.table.settings.shutdown_timeout, Timer::Shutdown);
    }

    /// Ends the nets; what has a client's own socket goes on.
    pub fn end(mut self) {
        self.settle_all();
        if let hang @ 1.. = self.flights.len() {
            log::warn(&format!("{hang} starts hang on their way to exec; they are ended"));
        }
        self.flights.drain(..).for_each(Flight::abandon);
        for net in self.nets.values() {
            net.end();
        }
        self.signers.end();
        log::finish(200);
    }
}
