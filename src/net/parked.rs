//! Parked sessions: they wait for their next request, or their service is silent, and they have no
//! thread.
//!
//! One thread waits for all of them. As soon as a session's client or the parent sends anything, or
//! its deadline passes, the session gets a thread of its own again; only that thread reads what has
//! come. Nothing is lost in between: a descriptor that is readable when it is registered with the
//! poll is reported.

use crate::sys::clock;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// The waker's token: a session is to be parked. A session's token is the number of its first
/// descriptor, which nothing else has while it is open.
const ARRIVAL: Token = Token(usize::MAX);
/// Bytes of the thread's stack: it only starts threads, and waits.
const STACK: usize = 128 * 1024;

/// What a parked session waits for: each a descriptor, and whether something to read there counts,
/// or only that it breaks.
pub type Waits<'a> = [Option<(BorrowedFd<'a>, bool)>; 4];

/// A session without a thread.
pub trait Resume: Send {
    /// What to wait for. It is the same for as long as the session is parked.
    fn waits_for(&self) -> Waits<'_>;
    /// One of them, by which it is known: the client's connection, if there is one.
    fn connection(&self) -> BorrowedFd<'_>;
    /// When it goes on although nothing has come.
    fn deadline(&self) -> Duration;
    /// Starts a thread of its own for it.
    fn resume(self: Box<Self>);
}

/// Hands sessions to the thread that waits.
pub struct Parking {
    arrivals: Sender<Box<dyn Resume>>,
    waker: Waker,
}

/// The state of the thread that waits.
struct ParkedLoop {
    poll: Poll,
    arrivals: Receiver<Box<dyn Resume>>,
    sessions: HashMap<RawFd, Box<dyn Resume>>,
    deadlines: BTreeSet<(Duration, RawFd)>,
}

impl Parking {
    /// Starts the thread that waits. If it fails, it ends the process.
    pub fn open() -> io::Result<Parking> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), ARRIVAL)?;
        let (sender, arrivals) = mpsc::channel();
        let parked =
            ParkedLoop { poll, arrivals, sessions: HashMap::new(), deadlines: BTreeSet::new() };
        std::thread::Builder::new().name("parked".into()).stack_size(STACK).spawn(move || {
            let Err(e) = parked.run();
            crate::log::warn(&format!("net: parked sessions: {e}"));
            crate::log::finish(100);
            std::process::exit(111);
        })?;
        Ok(Parking { arrivals: sender, waker })
    }

    /// Parks a session. No other thread may hold anything of it.
    pub fn park(&self, session: Box<dyn Resume>) {
        // The thread receives for as long as the process lives.
        let sent = self.arrivals.send(session).is_ok().then(|| self.waker.wake());
        if let Some(Err(e)) = sent {
            crate::log::warn(&format!("net: parked sessions: {e}"));
        }
    }
}

impl ParkedLoop {
    fn run(mut self) -> io::Result<std::convert::Infallible> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            for event in &events {
                // If two events name the same session, the second finds none: new sessions are
                // added only below.
                if event.token() != ARRIVAL {
                    self.resume(event.token().0 as RawFd);
                }
            }
            while let Ok(session) = self.arrivals.try_recv() {
                self.add(session);
            }
            let now = clock::monotonic();
            while let Some(&(_, fd)) =
                self.deadlines.first().filter(|(deadline, _)| *deadline <= now)
            {
                self.resume(fd);
            }
        }
    }

    /// How long the poll may wait. It counts milliseconds: rounded up, so that it never wakes just
    /// before a deadline.
    fn poll_timeout(&self) -> Option<Duration> {
        let (deadline, _) = self.deadlines.first()?;
        Some(deadline.saturating_sub(clock::monotonic()) + Duration::from_millis(1))
    }

    fn add(&mut self, session: Box<dyn Resume>) {
        let all = session.waits_for();
        let mut all = all.iter().flatten().map(|(s, reads)| (s.as_raw_fd(), *reads));
        let fd = session.connection().as_raw_fd();
        let watched = all.try_for_each(|(s, reads)| {
            // That it breaks is always reported.
            let interest = if reads { Interest::READABLE } else { Interest::PRIORITY };
            self.poll.registry().register(&mut SourceFd(&s), Token(fd as usize), interest)
        });
        self.deadlines.insert((session.deadline(), fd));
        self.sessions.insert(fd, session);
        if let Err(e) = watched {
            // It waits in a thread of its own instead.
            log::debug!("polling a parked session: {e}");
            self.resume(fd);
        }
    }

    /// Resumes the session in a thread of its own. Its descriptors are first removed from the poll:
    /// a service may keep them open for long.
    fn resume(&mut self, fd: RawFd) {
        let Some(session) = self.sessions.remove(&fd) else { return };
        self.deadlines.remove(&(session.deadline(), fd));
        for fd in session.waits_for().iter().flatten().map(|(s, _)| s.as_raw_fd()) {
            if let Err(e) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
                log::debug!("polling a parked session: {e}");
            }
        }
        session.resume();
    }
}
