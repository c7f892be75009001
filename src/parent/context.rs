//! What every part of the parent uses: the clock, timers, tokens, the poll, the spawner and the
//! table of children. It knows none of the parts.

use super::channel::{Channel, Retries};
use super::children::Children;
use super::config::Config;
use super::descriptors::{ChildError, Descriptors};
use super::options::Options;
use super::pidfile::Pidfile;
use super::reports::tallies::{Counted, Tallies};
use super::services::held_up::HeldUp;
use super::tokens::{NetToken, PortToken, SessionToken};
use crate::log;
use crate::sys::shared::Shared;
use crate::sys::spawn::Spawner;
use crate::sys::{clock, local, socket};
use mio::{Poll, Registry, Token};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// The poll's token of signals.
pub const SIGNALS: Token = Token(0);

/// What to do when a timer expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// `server_timeout`: SIGTERM for this child, if it is still the one that started then.
    Terminate { pid: i32, started: Duration },
    /// SIGKILL for a child that was sent SIGTERM before.
    Kill { pid: i32, started: Duration },
    /// A look-up of a user or a group takes too long.
    AccountLate { pid: i32 },
    /// Bind the ports that could not be bound before.
    BindAgain,
    /// A port's program may be started again.
    PortAgain { token: PortToken },
    /// The rules of hosts_access(5) take too long.
    HostsAccessLate { pid: i32 },
    /// The rules have not answered yet: the datagram that they were asked for waits no longer.
    HostsAccessSlow { pid: i32 },
    /// The name of a datagram's sender has not come yet: the datagram of this number (`ports`)
    /// waits no longer.
    NameSlow { number: u64 },
    /// An upstream takes too long to accept.
    ConnectLate { token: Token },
    /// A session that was asked to take a client of an offered service takes too long.
    OfferLate { client: u32 },
    /// `server_timeout` of a relay is over.
    RelayLate { relay: u32 },
    /// The names of upstreams are to be looked up.
    Hosts,
    /// A net process takes too long to be ready.
    NetLate { net: NetToken },
    /// Start another net process.
    NetAgain,
    /// A look-up of a name that began then takes too long.
    NameLate { address: IpAddr, since: Duration },
    /// Start keys processes again.
    SignersAgain,
    /// Check whether the keys processes answer.
    SignersCheck,
    /// Start the look-ups of names again that could not be started.
    NamesAgain,
    /// Those who ask for a reload soon after another have had time to say so.
    Reload,
    /// `shutdown_timeout` is over.
    Shutdown,
    /// The time is over that sessions have to end in order after `shutdown_timeout`.
    SessionsLate,
    /// A fived that leaves looks whether the programs of `wait` have ended, which may take until
    /// then.
    WaitsEnded { until: Duration },
    /// Remove entries that no longer matter.
    Tidy,
    /// Check whether the net process answers.
    Watchdog,
    /// The service manager wants a sign of life.
    SignOfLife,
    /// Log how many lines about refused datagrams were left out.
    RefusalsOver,
    /// Look whether the output of services that have ended was delivered.
    Undelivered,
}

/// Counts since the start, for the services `status` and `metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    pub orders: u64,
    pub sessions: u64,
    pub starts: u64,
    pub refused: u64,
    pub reloads: u64,
    pub tallies: Tallies,
    pub replaced: u64,
}

impl Counters {
    /// Counts a service that has started, or a relay that has begun. It counts as one that runs
    /// until what is returned is dropped.
    pub fn started(&mut self, service: &str, host: &str) -> Counted {
        self.starts += 1;
        self.tallies.started(service, host)
    }

    /// Counts a refusal. `service`: its name and the host's; None: the request named none.
    pub fn refuse(&mut self, service: Option<(&str, &str)>, reason: &'static str) {
        self.refused += 1;
        self.tallies.refused(service, reason);
    }

    /// Counts so many refusals of which a net process could tell no more than that.
    pub fn not_logged(&mut self, refusals: u64) {
        self.refused = self.refused.saturating_add(refusals);
        self.tallies.not_logged(refusals);
    }
}

/// How far fived is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// It has made room for another fived, and finishes what it has (`shutdown`).
    Leaving,
    /// It ends with its last service, or after `shutdown_timeout`.
    Stopping,
    /// It ends with its last session that outlives connections, or a moment later.
    EndingSessions,
    /// It ends with this turn of the loop.
    Over,
}

/// See the module.
pub struct Context {
    pub options: Options,
    pub pidfile: Option<Pidfile>,
    /// The configuration that is served now.
    pub config: Rc<Config>,
    pub poll: Poll,
    pub spawner: Spawner,
    pub children: Children,
    pub held_up: HeldUp,
    pub counters: Counters,
    /// The time of this turn of the loop (monotonic).
    pub now: Duration,
    pub retries: Retries,
    pub phase: Phase,
    /// Makes descriptors, and knows when few are left.
    pub descriptors: Descriptors,
    /// When the minute of the day was read, and that minute.
    minute: (Duration, u16),
    /// The last session's number.
    number: u64,
    last_token: Token,
    /// By the time when they expire. A timer that is not needed any more is removed, so that
    /// nothing that has ended leaves one.
    timers: BTreeSet<(Duration, Timer)>,
}

impl Context {
    pub fn new(options: Options, config: Config, spawner: Spawner) -> io::Result<Context> {
        let now = clock::monotonic();
        Ok(Context {
            options,
            pidfile: None,
            config: Rc::new(config),
            poll: Poll::new()?,
            spawner,
            children: Children::default(),
            held_up: HeldUp::default(),
            counters: Counters::default(),
            now,
            retries: Retries::default(),
            phase: Phase::Serving,
            descriptors: Descriptors::new(),
            minute: (now, clock::minute_of_day()),
            number: 0,
            last_token: SIGNALS,
            timers: BTreeSet::new(),
        })
    }

    /// Has fived been asked to end? It accepts nobody any more.
    pub fn is_ending(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Has fived been asked to end, and not to make room for another fived? Sessions end when they
    /// have no service.
    pub fn is_stopping(&self) -> bool {
        self.is_ending() && self.phase != Phase::Leaving
    }

    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// A token that was never used before.
    pub fn new_token(&mut self) -> Token {
        self.last_token.0 += 1;
        self.last_token
    }

    /// Makes a channel of the parent's end, and polls it. Returns its token too.
    pub fn channel<T: From<Token>>(&mut self, fd: Shared) -> io::Result<(T, Channel)> {
        let token = self.new_token();
        let channel = Channel::new(fd, token, self.poll.registry(), &self.retries)?;
        Ok((token.into(), channel))
    }

    /// Makes a new channel, through which no descriptors come, and polls it. Returns its other end
    /// too.
    pub fn new_channel(&mut self) -> io::Result<((SessionToken, Channel), OwnedFd)> {
        match self.descriptors.channel_to_send() {
            Ok((ours, theirs)) => Ok((self.channel(local::without_rights(ours))?, theirs)),
            Err(e) => {
                if socket::is_out_of_descriptors(&e) {
                    self.out_of_descriptors();
                }
                Err(e)
            }
        }
    }

    /// The next session's number, or the next plain connection's.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The minute of the day in local time, for `access_times`.
    pub fn minute(&mut self) -> u16 {
        if self.now.saturating_sub(self.minute.0) >= Duration::from_secs(1) {
            self.minute = (self.now, clock::minute_of_day());
        }
        self.minute.1
    }

    /// Sets a timer.
    pub fn at(&mut self, when: Duration, what: Timer) {
        self.timers.insert((when, what));
    }

    /// Sets a timer that expires this long from now: this turn may have begun long before.
    pub fn after(&mut self, pause: Duration, what: Timer) {
        self.expires_after(pause, what);
    }

    /// Sets such a timer. Returned: when it expires, for `cancel`.
    pub fn expires_after(&mut self, pause: Duration, what: Timer) -> Duration {
        let when = clock::monotonic() + pause;
        self.at(when, what);
        when
    }

    /// Removes a timer.
    pub fn cancel(&mut self, when: Duration, what: Timer) {
        self.timers.remove(&(when, what));
    }

    /// Takes the next timer that has expired.
    pub fn due(&mut self) -> Option<Timer> {
        let &(at, timer) = self.timers.first()?;
        if at > self.now {
            return None;
        }
        self.timers.pop_first();
        Some(timer)
    }

    /// When the next timer expires.
    pub fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many timers are set.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Can an order be received from this channel with all its descriptors?
    pub fn can_receive(&mut self, channel: &Channel) -> bool {
        self.descriptors.can_receive(channel.as_fd())
    }

    /// Is this descriptor from the reserve? Then its request must be refused.
    pub fn is_scarce(&mut self, fd: impl AsFd) -> bool {
        self.descriptors.is_scarce(fd, self.now)
    }

    /// Notes that no descriptor was free.
    pub fn out_of_descriptors(&mut self) {
        self.descriptors.ran_out(self.now);
    }

    /// Warns that a child could not be started. A lack of descriptors is logged only as often as
    /// the other warnings about that.
    pub fn note_not_started(&mut self, what: &str, e: &ChildError) {
        match e.lacks_descriptors() {
            true => self.out_of_descriptors(),
            false => log::warn(&format!("{what}: {e}")),
        }
    }
}
