//! The session takes no new calls any more, or it has ended: the forwards that -O has added go to
//! the holder of the next session, and with them the applications whose services this one has not
//! started. If nobody else makes that session, another five does. Until then no connection is
//! accepted from the listeners, so applications wait. An attempt may wait for the network, so it
//! has a thread of its own.

use crate::client::error::Error;
use crate::client::forward::Forward;
use crate::client::target::Target;
use crate::client::{channel, order, resume};
use crate::sys::poll::{self, Poll};
use crate::sys::{message, socket};
use crate::wire::handover::{Ask, INPUT_MAX};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel as results};
use std::thread;
use std::time::Duration;

/// The first pause before the next session is looked for again, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause before a five is run again to make the session, and the same while an
/// application waits. A server may count each as a failed login.
const MAKE_MAX: Duration = Duration::from_secs(600);
const MAKE_MAX_WAITED: Duration = Duration::from_secs(30);

/// A forward that is to be handed on: copies of its listeners.
pub struct LeftForward {
    pub forward: Forward,
    pub host: String,
    pub listeners: Vec<OwnedFd>,
}

/// An application that is left to the next session.
pub struct Left {
    pub host: String,
    pub service: String,
    pub fd: OwnedFd,
    /// What was read of it already.
    pub ahead: Vec<u8>,
}

/// All that is to be handed on.
pub struct ToHandOn {
    pub forwards: Vec<LeftForward>,
    pub applications: Vec<Left>,
}

/// What the next session's holder has taken.
#[derive(Default)]
pub struct Taken {
    pub forwards: Vec<Forward>,
    /// How many, from the first on.
    pub applications: usize,
}

/// Hands it on.
pub struct Successor {
    /// When the next attempt is due.
    next: Duration,
    pause: Duration,
    /// When a five was last run, and the pause before that is done again.
    made: Option<Duration>,
    make_pause: Duration,
    running: Option<Attempt>,
}

struct Attempt {
    /// Its other end is closed when the attempt is over.
    over: OwnedFd,
    taken: Receiver<Taken>,
}

impl Successor {
    pub fn new(now: Duration) -> Successor {
        Successor { next: now, pause: PAUSE_MIN, made: None, make_pause: PAUSE_MIN, running: None }
    }

    /// Readable when an attempt is over.
    pub fn poll(&self) -> Poll<'_> {
        self.running.as_ref().map_or(Poll::none(), |a| Poll::new(a.over.as_fd(), true, false))
    }

    /// When something is due. None: the end of the attempt is waited for.
    pub fn deadline(&self) -> Option<Duration> {
        self.running.is_none().then_some(self.next)
    }

    /// What an attempt that is over has handed on.
    pub fn finished(&mut self) -> Option<Taken> {
        let mut polls = [self.running.as_ref()?.over.as_fd()].map(|fd| Poll::new(fd, true, false));
        if !poll::wait(&mut polls, Some(Duration::ZERO)).is_ok_and(|n| n > 0) {
            return None;
        }
        let taken = self.running.take()?.taken.try_recv();
        Some(taken.unwrap_or_default())
    }

    /// Is it time for an attempt?
    pub fn is_due(&self, now: Duration) -> bool {
        self.running.is_none() && now >= self.next
    }

    /// Makes one. `waited`: an application waits.
    pub fn start(&mut self, t: &Target, all: ToHandOn, waited: bool, now: Duration) {
        (self.next, self.pause) = (now + self.pause, (self.pause * 2).min(PAUSE_MAX));
        let longest = if waited { MAKE_MAX_WAITED } else { MAKE_MAX };
        let makes = self.made.is_none_or(|at| at + self.make_pause.min(longest) <= now);
        if makes {
            self.make_pause = if self.made.is_some() { self.make_pause * 2 } else { PAUSE_MIN };
            (self.make_pause, self.made) = (self.make_pause.min(MAKE_MAX), Some(now));
        }
        // If the system has no room for a thread, it is tried again.
        self.running = Attempt::start(t.clone(), all, makes).ok();
    }
}

impl Attempt {
    fn start(t: Target, all: ToHandOn, makes: bool) -> io::Result<Attempt> {
        let (over, end) = socket::pair()?;
        let (to, taken) = results();
        thread::Builder::new().name("successor".into()).spawn(move || {
            // Nobody waits for it when the holder was asked to end.
            let _ = to.send(hand_on(&t, all, makes).unwrap_or_default());
            drop(end);
        })?;
        Ok(Attempt { over, taken })
    }
}

/// Hands all to the holder of the session that takes calls; returns what that has taken. `makes`:
/// if there is no such session, a five is run to make it.
fn hand_on(t: &Target, all: ToHandOn, makes: bool) -> Result<Taken, Error> {
    let path = t.socket()?;
    let mut holder = channel::find(&path)?;
    if holder.is_none() && makes {
        resume::make(t)?;
        holder = channel::find(&path)?;
    }
    let mut taken = Taken::default();
    let Some(holder) = holder else { return Ok(taken) };
    for LeftForward { forward, host, listeners } in all.forwards {
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let ask = Ask::Forward { host, forward: forward.text() };
        match order::send(t, &holder, &ask, &fds) {
            Ok(true) => taken.forwards.push(forward),
            // That session takes none any more either, or its holder does not answer.
            Ok(false) | Err(_) => return Ok(taken),
        }
    }
    for Left { host, service, fd, ahead } in all.applications {
        for bytes in ahead.chunks(INPUT_MAX) {
            let ask = Ask::Input { tag: 0, bytes: bytes.to_vec() }.encode();
            if message::send_waiting(holder.fd.as_fd(), &ask, &[]).is_err() {
                return Ok(taken);
            }
        }
        match order::send(t, &holder, &Ask::Adopt { host, service }, &[fd.as_fd()]) {
            Ok(true) => taken.applications += 1,
            Ok(false) | Err(_) => break,
        }
    }
    Ok(taken)
}
