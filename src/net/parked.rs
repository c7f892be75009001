//! Parked sessions: they wait for their next request, and none of them has a thread.
//!
//! One thread waits for all of them. A session goes on in a thread of its own again as soon as its
//! client or the parent says anything, or its time is over: what that was, only its own thread
//! looks at. Nothing is missed in between: the poll tells of what is there already when a
//! descriptor becomes known to it.

use crate::sys::clock;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Somebody is to be parked. Sessions have the number of their connection's descriptor: nobody
/// else's while it is open.
const ARRIVAL: Token = Token(usize::MAX);
/// What the thread needs of a stack: it starts threads, and waits.
const STACK: usize = 128 * 1024;

/// A session that no thread has.
pub trait Resume: Send {
    /// What is waited for: its client's connection, and its channel to the parent.
    fn sockets(&self) -> [BorrowedFd<'_>; 2];
    /// When it goes on although nothing came.
    fn deadline(&self) -> Duration;
    /// Goes on in a thread of its own.
    fn resume(self: Box<Self>);
}

/// Where sessions are brought.
pub struct Parking {
    arrivals: Sender<Box<dyn Resume>>,
    waker: Waker,
}

/// The waiting thread's state.
struct ParkedLoop {
    poll: Poll,
    arrivals: Receiver<Box<dyn Resume>>,
    sessions: HashMap<RawFd, Box<dyn Resume>>,
    deadlines: BTreeSet<(Duration, RawFd)>,
}

impl Parking {
    /// Starts the thread that waits. It ends with the process, and the process with it.
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

    /// Takes a session of which no other thread has anything.
    pub fn park(&self, session: Box<dyn Resume>) {
        // The thread takes for as long as the process lives.
        let told = self.arrivals.send(session).is_ok().then(|| self.waker.wake());
        if let Some(Err(e)) = told {
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
                // Of two that name one session the second finds nobody: who arrives is taken in
                // below.
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
        let [fd, channel] = session.sockets().map(|s| s.as_raw_fd());
        let registry = self.poll.registry();
        let watch =
            |fd: RawFd, token| registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        let token = Token(fd as usize);
        let watched = watch(fd, token).and_then(|()| watch(channel, token));
        self.deadlines.insert((session.deadline(), fd));
        self.sessions.insert(fd, session);
        if let Err(e) = watched {
            // It waits in its own thread then.
            log::debug!("a parked session: {e}");
            self.resume(fd);
        }
    }

    /// The session goes on in a thread of its own. The poll must not know its descriptors then: a
    /// service may have them for long.
    fn resume(&mut self, fd: RawFd) {
        let Some(session) = self.sessions.remove(&fd) else { return };
        self.deadlines.remove(&(session.deadline(), fd));
        for fd in session.sockets().map(|s| s.as_raw_fd()) {
            if let Err(e) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
                log::debug!("a parked session: {e}");
            }
        }
        session.resume();
    }
}
