//! What every part of the parent uses: the clock, timers, tokens, the poll, the spawner and the
//! table of children. It knows none of the parts.

use super::channel::{Channel, Retries};
use super::children::Children;
use super::config::Config;
use super::descriptors::{Descriptors, NotStarted};
use super::options::Options;
use crate::log;
use crate::sys::clock;
use crate::sys::spawn::Spawner;
use mio::{Poll, Registry, Token};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// The poll's token of signals.
pub const SIGNALS: Token = Token(0);

/// What is to be done when a timer runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// `server_timeout`: SIGTERM for this child, if it is still the one that started then.
    Terminate { pid: i32, started: Duration },
    /// SIGKILL for a child that had SIGTERM before.
    Kill { pid: i32, started: Duration },
    /// A look-up of a user or a group takes too long.
    AccountLate { pid: i32 },
    /// A port's program may be started again.
    PortAgain { token: usize },
    /// The rules of hosts_access(5) take too long.
    WrapLate { pid: i32 },
    /// An upstream takes too long to accept.
    ConnectLate { token: usize },
    /// `server_timeout` of a relay is over.
    RelayLate { relay: u32 },
    /// The names of upstreams are to be looked up.
    Hosts,
    /// A net process that is not ready now never will be.
    NetLate { net: usize },
    /// Another net process is to be started.
    NetAgain,
    /// A look-up of a name that began then still has no answer.
    NameLate { address: IpAddr, since: Duration },
    /// Keys processes are to be started again.
    SignersAgain,
    /// Do the keys processes answer?
    SignersLook,
    /// Look-ups of names that could not be started are tried again.
    NamesAgain,
    /// `shutdown_timeout` is over.
    Shutdown,
    /// Entries that no longer matter are removed.
    Tidy,
    /// Does the net process answer?
    Watch,
}

/// Counts since the start, for the service `status`.
#[derive(Debug, Default)]
pub struct Counters {
    pub orders: u64,
    pub sessions: u64,
    pub starts: u64,
    pub refused: u64,
    pub reloads: u64,
    pub replaced: u64,
    /// Bytes to services and from them, through relays that have ended.
    pub bytes: (u64, u64),
}

impl Counters {
    /// Counts the bytes of a relay that has ended.
    pub fn add(&mut self, to: u64, from: u64) {
        self.bytes.0 = self.bytes.0.saturating_add(to);
        self.bytes.1 = self.bytes.1.saturating_add(from);
    }
}

/// See the module.
pub struct Context {
    pub options: Options,
    /// The configuration that is served now.
    pub config: Rc<Config>,
    pub poll: Poll,
    pub spawner: Spawner,
    pub children: Children,
    pub counters: Counters,
    /// The time of this turn of the loop (monotonic).
    pub now: Duration,
    pub retries: Retries,
    /// fived is being ended.
    pub stopping: bool,
    /// Makes descriptors, and knows when few are left.
    pub descriptors: Descriptors,
    /// When the minute of the day was read, and that minute.
    minute: (Duration, u16),
    /// The last session's number.
    number: u64,
    token: usize,
    /// By their time. A timer that is not needed any more is removed, so that nothing that has
    /// ended leaves one.
    timers: BTreeSet<(Duration, Timer)>,
}

impl Context {
    pub fn new(options: Options, config: Config, spawner: Spawner) -> io::Result<Context> {
        let now = clock::monotonic();
        Ok(Context {
            options,
            config: Rc::new(config),
            poll: Poll::new()?,
            spawner,
            children: Children::default(),
            counters: Counters::default(),
            now,
            retries: Retries::default(),
            stopping: false,
            descriptors: Descriptors::new(),
            minute: (now, clock::minute_of_day()),
            number: 0,
            token: SIGNALS.0,
            timers: BTreeSet::new(),
        })
    }

    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// A token that was never used before.
    pub fn new_token(&mut self) -> usize {
        self.token += 1;
        self.token
    }

    /// The parent's end of a channel, watched for orders: its token, and the channel.
    pub fn channel(&mut self, fd: OwnedFd) -> io::Result<(usize, Channel)> {
        let token = self.new_token();
        let channel = Channel::new(fd, Token(token), self.poll.registry(), &self.retries)?;
        Ok((token, channel))
    }

    /// The next session's number, or the next plain connection's.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The minute of the day, local time: for `access_times`.
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

    /// As [`Context::at`], so long after now.
    pub fn after(&mut self, pause: Duration, what: Timer) {
        self.at(self.now + pause, what);
    }

    /// Removes a timer.
    pub fn not_at(&mut self, when: Duration, what: Timer) {
        self.timers.remove(&(when, what));
    }

    /// The next timer that has run out.
    pub fn due(&mut self) -> Option<Timer> {
        let &(at, timer) = self.timers.first()?;
        if at > self.now {
            return None;
        }
        self.timers.pop_first();
        Some(timer)
    }

    /// When the next timer runs out.
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

    /// Is this one of the last descriptors? Then the request that it belongs to is to be refused.
    pub fn is_scarce(&mut self, fd: impl AsFd) -> bool {
        self.descriptors.is_scarce(fd, self.now)
    }

    /// Notes that there was no descriptor left.
    pub fn out_of_descriptors(&mut self) {
        self.descriptors.ran_out(self.now);
    }

    /// Warns of a child that could not be started; where descriptors were missing, no more often
    /// than other warnings about that.
    pub fn note_not_started(&mut self, what: &str, e: &NotStarted) {
        match e.lacks_descriptors() {
            true => self.out_of_descriptors(),
            false => log::warn(&format!("{what}: {e}")),
        }
    }
}
