//! A port whose program gets the socket itself (`wait`): when it is watched, and how soon a program
//! that has ended is started again.
//!
//! fived looks at what is first in the queue and never reads it. While a program has the socket,
//! the port is not watched. A program that ends and leaves what it was started for is started again
//! at once, then after 1 s, then after twice as long each time, up to [`PAUSE_MAX`], for as long as
//! it does so. The pause grows likewise, and apart from that, where no program can be started at
//! all; where a limit is reached it is [`BUSY_PAUSE`], and another start is tried then.

use super::questions::Questions;
use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::queue_head::{self, Datagram};
use crate::sys::unix_queue;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The longest pause before a program is started again.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How soon another start is tried where a limit was reached.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How long a datagram waits for what decides about it (a name, rules of hosts_access(5)), while
/// all that came after it wait for it. Each one that waited in vain halves that for the port, until
/// [`MAX_WAIT_AGAIN`] after the first of them: it is closed for that for twice this time at most.
const MAX_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT_AGAIN: Duration = Duration::from_secs(5);
/// How soon it is tried again to look at what a program has left.
const EXAMINE_AGAIN: Duration = Duration::from_secs(1);
/// That it cannot be looked at is said when it could not for this long: a busy computer may not
/// answer in time once. A call that has not returned for that long waits for somebody.
const WARN_AFTER: Duration = Duration::from_secs(3);
const HELD_UP: Duration = Duration::from_secs(1);
const LOCKED: &str = "a process keeps the lock of this socket (a call of it does not return)";
const SLOW: &str = "the system has not answered in time";
/// Between two warnings about one port.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What was in the queue when a program was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queue {
    /// The first datagram.
    Datagram(Datagram),
    /// This many connections. Where as many wait at the end, the program may have accepted some.
    Count(u32),
    /// These connections: asked for where the last program may have accepted none.
    Connections(BTreeSet<SocketAddr>),
    /// Connections to a Unix socket, by the inodes of the clients' sockets.
    Unix(BTreeSet<u32>),
}

/// What is done with the port now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is watched.
    Watched,
    /// Something waits there, seen when the last program ended: another is started without watching
    /// it first.
    Ready,
    /// A program has the socket, or is about to get it.
    Taken,
    /// A program will be started again after a pause.
    Paused,
}

/// See the module.
#[derive(Debug)]
pub struct Wait {
    pub state: State,
    queue: Option<Queue>,
    /// The datagram that was first when the last program ended.
    seen: Option<Datagram>,
    /// Programs in a row that have left what they were started for.
    left: u32,
    /// Starts in a row that have failed, since a program ran.
    failed: u32,
    /// Datagrams that waited in vain, and since when they are counted.
    in_vain: (u32, Duration),
    warned: Option<Duration>,
    /// Since when it cannot be looked at.
    unexamined_since: Option<Duration>,
    /// The last look at the socket failed.
    pub look_failed: bool,
    /// The program is an internal service, which ends where a reload changes its row.
    pub is_internal: bool,
    questions: Questions,
}

/// Why no program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// The client may not use the service.
    Denied,
    /// A limit is reached.
    Busy,
    /// It cannot be started as it is configured, or its socket cannot be looked at.
    Failed,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    /// None: the port is watched again at once, or another program started ([`State`]).
    pub pause: Option<Duration>,
    /// This many programs in a row have left what they were started for: a warning is due.
    pub warn: Option<u32>,
}

impl Wait {
    pub fn new() -> Wait {
        Wait {
            state: State::Watched,
            queue: None,
            seen: None,
            left: 0,
            failed: 0,
            in_vain: Default::default(),
            warned: None,
            unexamined_since: None,
            look_failed: false,
            is_internal: false,
            questions: Questions::default(),
        }
    }

    /// The sender of the first datagram, which is noted. None: there is none.
    pub fn datagram(
        &mut self,
        socket: BorrowedFd,
        calls: &mut BoundedCalls,
    ) -> io::Result<Option<SocketAddr>> {
        let head = match self.seen.take() {
            None => look(socket, calls, queue_head::datagram)??,
            seen => seen,
        };
        self.unexamined_since = None;
        self.queue = head.map(Queue::Datagram);
        Ok(head.map(|d| d.from))
    }

    /// Does a connection wait to be accepted? The queue is noted. `port`: the local port.
    pub fn connections(
        &mut self,
        socket: BorrowedFd,
        port: u16,
        calls: &mut BoundedCalls,
    ) -> io::Result<bool> {
        let count = look(socket, calls, queue_head::connections)??;
        self.unexamined_since = None;
        // Where the system does not tell which ones wait, they are only counted.
        let known = if self.left > 0 { self.questions.clients(port) } else { None };
        self.queue = Some(known.map_or(Queue::Count(count), Queue::Connections));
        Ok(count > 0)
    }

    /// Does a connection wait at a Unix socket? The queue is noted.
    pub fn unix_connections(&mut self, socket: BorrowedFd) -> bool {
        // Where the system does not tell which ones wait, a program counts as one that has left
        // none.
        self.queue = self.questions.unix_clients(socket).map(Queue::Unix);
        unix_queue::any(socket)
    }

    /// Of connections that were known when the program was started: do all of them still wait?
    pub fn all_wait(&mut self, socket: BorrowedFd, port: u16) -> bool {
        match self.queue.clone() {
            Some(Queue::Unix(before)) if !before.is_empty() => {
                self.questions.unix_clients(socket).is_some_and(|now| before.is_subset(&now))
            }
            Some(Queue::Connections(before)) if !before.is_empty() => {
                self.questions.clients(port).is_some_and(|now| before.is_subset(&now))
            }
            _ => false,
        }
    }

    /// What was in the queue when the program was started.
    pub fn queue(&self) -> Option<Queue> {
        self.queue.clone()
    }

    /// Another socket is bound in place of this one: what was seen there is gone.
    pub fn socket_replaced(&mut self) {
        self.seen = None;
        if self.state == State::Ready {
            self.state = State::Watched;
        }
    }

    /// How long a datagram may wait for what decides about it.
    pub fn max_wait(&mut self, now: Duration) -> Duration {
        if self.in_vain.1 + MAX_WAIT_AGAIN <= now {
            self.in_vain = (0, now);
        }
        MAX_WAIT.checked_div(1u32.checked_shl(self.in_vain.0).unwrap_or(0)).unwrap_or_default()
    }

    /// A datagram has waited that long.
    pub fn waited_in_vain(&mut self) {
        self.in_vain.0 = self.in_vain.0.saturating_add(1);
    }

    /// The program has ended, and this was found at its socket.
    pub fn ended(&mut self, found: Found, now: Duration) -> Next {
        self.unexamined_since = None;
        self.seen = found.seen;
        self.after(found.left, now)
    }

    /// It cannot be looked at now. When it is tried again; and is a warning due?
    pub fn unexamined(&mut self, now: Duration) -> (Duration, bool) {
        self.state = State::Paused;
        let since = *self.unexamined_since.get_or_insert(now);
        (EXAMINE_AGAIN, since + WARN_AFTER <= now && self.warns(now))
    }

    /// A program has ended. `left`: what it was started for is still there.
    fn after(&mut self, left: bool, now: Duration) -> Next {
        self.failed = 0;
        self.left = if left { self.left.saturating_add(1) } else { 0 };
        let pause = self.pause(pause(self.left));
        let warn = (pause.is_some() && self.warns(now)).then_some(self.left);
        Next { pause, warn }
    }

    /// Is a warning due? Then it is given.
    fn warns(&mut self, now: Duration) -> bool {
        let due = self.warned.is_none_or(|at| at + WARN_EVERY <= now);
        if due {
            self.warned = Some(now);
        }
        due
    }

    /// No program was started; what waits is still there, unless it was `dropped`. The log says
    /// why, so that no warning is due.
    pub fn not_started(&mut self, why: NotStarted, dropped: bool) -> Next {
        let pause = match why {
            _ if dropped => None,
            NotStarted::Busy => Some(BUSY_PAUSE),
            NotStarted::Denied | NotStarted::Failed => {
                self.failed = self.failed.saturating_add(1);
                pause(self.failed)
            }
        };
        Next { pause: self.pause(pause), warn: None }
    }

    fn pause(&mut self, pause: Option<Duration>) -> Option<Duration> {
        self.state = match (pause, &self.seen) {
            (Some(_), _) => State::Paused,
            (None, Some(_)) => State::Ready,
            (None, None) => State::Watched,
        };
        pause
    }
}

/// What is found at a socket whose program has ended.
#[derive(Debug)]
pub struct Found {
    /// Is there still all that was there when the program was started?
    left: bool,
    /// The first datagram.
    seen: Option<Datagram>,
}

impl Found {
    /// `queue`: what was there when the program was started; `all_wait`: as [`Wait::all_wait`] has
    /// it. Makes calls that a process which has the socket can make wait.
    pub fn at(socket: BorrowedFd, queue: Option<&Queue>, all_wait: bool) -> Found {
        let mut seen = None;
        let left = match queue {
            None => false,
            Some(Queue::Datagram(first)) => {
                // Where it cannot be seen, the program counts as one that has taken it.
                seen = queue_head::datagram(socket).unwrap_or_default();
                seen == Some(*first)
            }
            Some(Queue::Count(before)) => {
                queue_head::connections(socket).is_ok_and(|now| now >= (*before).max(1))
            }
            Some(Queue::Unix(_) | Queue::Connections(_)) => all_wait,
        };
        Found { left, seen }
    }
}

/// Looks at a socket that a program may have. Errors: there is no answer in time.
pub fn look<T: Send + 'static>(
    socket: BorrowedFd,
    calls: &mut BoundedCalls,
    at: impl FnOnce(BorrowedFd) -> T + Send + 'static,
) -> io::Result<T> {
    calls.make(&[socket], move |with| at(with[0])).ok_or_else(|| not_answered(calls))
}

/// What is said of a call that was not answered in time.
fn not_answered(calls: &BoundedCalls) -> io::Error {
    let locked = calls.held_up_for() >= HELD_UP;
    io::Error::new(ErrorKind::TimedOut, if locked { LOCKED } else { SLOW })
}

/// How long to wait after this many programs in a row that left what they were started for, or
/// this many starts in a row that failed.
fn pause(left: u32) -> Option<Duration> {
    let doublings = left.checked_sub(2)?;
    let seconds = 1u64.checked_shl(doublings).filter(|_| doublings < 6).unwrap_or(u64::MAX);
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_leaves_the_next_no_time() {
        let (mut w, ms) = (Wait::new(), Duration::from_millis);
        let mut all = Duration::ZERO;
        for n in 0..100 {
            all += w.max_wait(ms(6000 + n));
            w.waited_in_vain();
        }
        assert!(all > ms(350) && all <= 2 * MAX_WAIT, "{all:?}");
        assert_eq!(w.max_wait(ms(11_000)), MAX_WAIT);
    }

    #[test]
    fn that_it_cannot_be_looked_at_is_said_when_it_could_not_for_a_while() {
        let (mut w, s) = (Wait::new(), Duration::from_secs);
        let found = || Found { left: false, seen: None };
        // A busy computer.
        for at in [0, 10, 20] {
            assert_eq!(w.unexamined(s(at)), (EXAMINE_AGAIN, false));
            w.ended(found(), s(at + 1));
        }
        let warned = (30..100).filter(|at| w.unexamined(s(*at)).1).collect::<Vec<_>>();
        assert_eq!(warned, [33, 93]);
    }

    #[test]
    fn the_pause_grows_and_one_good_run_ends_it() {
        let (mut w, s) = (Wait::new(), Duration::from_secs);
        let mut pauses = Vec::new();
        let mut warned = 0;
        for n in 0..10 {
            let next = w.after(true, s(n));
            pauses.push(next.pause.map_or(0, |p| p.as_secs()));
            warned += u32::from(next.warn.is_some());
        }
        assert_eq!((pauses, warned), (vec![0, 1, 2, 4, 8, 16, 32, 60, 60, 60], 1));
        assert_eq!(w.after(true, s(61)).warn, Some(11));
        assert_eq!(w.after(false, s(200)), Next { pause: None, warn: None });
        assert_eq!(w.after(true, s(201)).pause, None);
        // What was not started is no program that left anything.
        let pauses: Vec<_> = [NotStarted::Busy, NotStarted::Failed, NotStarted::Failed]
            .map(|why| w.not_started(why, false).pause)
            .into();
        assert_eq!(pauses, [Some(s(1)), None, Some(s(1))]);
        assert_eq!(w.not_started(NotStarted::Denied, true).pause, None);
        assert_eq!(w.after(true, s(202)).pause, Some(s(1)), "the second in a row");
    }
}
