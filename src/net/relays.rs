//! Relays: connections of plain clients to servers that were running already. The parent has made
//! the connection to the server; here the bytes are copied, both ways and untouched.
//!
//! A few threads have all of them ([`THREADS`]), each with a poll of its own: one that is silent
//! costs two descriptors and no thread. A relay that always has more waits for its next turn after
//! [`TURN`] bytes, so that the others of its thread go on. The threads begin with the first relays,
//! so where no row has any they do not exist.

mod relay;

use crate::sys::shared::Shared;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use relay::{Finished, Relay};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Threads at most; no more than processors.
const THREADS: usize = 4;
/// Bytes that a relay copies before the others of its thread have their turn.
const TURN: usize = 512 * 1024;
/// Bytes that are taken at once, and that a relay holds each way at most.
const TAKE: usize = 64 * 1024;
/// What a thread needs of a stack.
const STACK: usize = 128 * 1024;

/// A relay has been brought to the thread. Relays have the tokens of [`token`].
const ARRIVAL: Token = Token(usize::MAX);

/// The token of one end of a relay, whose number is never used again: events of
/// one that is over reaches nobody.
fn token(relay: u32, end: usize) -> Token {
    Token((relay as usize) << 1 | end)
}

/// A relay that is over.
pub struct Ended {
    pub relay: u32,
    /// Bytes to the server, and from it.
    pub to: u64,
    pub from: u64,
    /// The client's socket, where the client was still sending to a server that has gone: what it
    /// sends is to be discarded for a while, so that no reset overtakes what was sent to it.
    pub client: Option<Shared>,
}

/// A relay's number, the client's socket and the server's.
type Arrival = (u32, [Shared; 2]);

/// A thread that has relays.
struct Thread {
    arrivals: Sender<Arrival>,
    waker: Waker,
}

/// Where relays are brought; see the module.
pub struct Relays {
    threads: Vec<Thread>,
    most: usize,
    /// Which thread gets the next one.
    turn: usize,
    ended: Receiver<Ended>,
    /// For the threads.
    ends: Sender<Ended>,
    /// Wakes the loop when a relay has ended.
    waker: Arc<Waker>,
    /// How many have not been returned by [`Relays::ended`].
    count: usize,
}

impl Relays {
    /// None yet. `waker` wakes whoever calls [`Relays::ended`].
    pub fn new(waker: Waker) -> Relays {
        let (ends, ended) = mpsc::channel();
        let most = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS);
        Relays { threads: Vec::new(), most, turn: 0, ended, ends, waker: waker.into(), count: 0 }
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Begins one. Errors: the system has no thread for it; both connections are closed.
    pub fn begin(&mut self, relay: u32, client: Shared, server: Shared) -> io::Result<()> {
        if self.threads.len() < self.most {
            match Thread::start(self.ends.clone(), self.waker.clone()) {
                Ok(thread) => self.threads.push(thread),
                Err(e) if self.threads.is_empty() => return Err(e),
                // The others have it.
                Err(_) => {}
            }
        }
        self.turn = (self.turn + 1) % self.threads.len();
        let thread = &self.threads[self.turn];
        // The thread takes for as long as the process lives.
        if thread.arrivals.send((relay, [client, server])).is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.count += 1;
        if let Err(e) = thread.waker.wake() {
            // It comes with the next one.
            log::debug!("a relay's thread: {e}");
        }
        Ok(())
    }

    /// The next that has ended since the last call.
    pub fn ended(&mut self) -> Option<Ended> {
        let ended = self.ended.try_recv().ok()?;
        self.count -= 1;
        Some(ended)
    }
}

impl Thread {
    /// It ends with the process, and the process with it.
    fn start(ends: Sender<Ended>, owner: Arc<Waker>) -> io::Result<Thread> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), ARRIVAL)?;
        let (sender, arrivals) = mpsc::channel();
        let all = All {
            poll,
            arrivals,
            relays: HashMap::new(),
            ready: VecDeque::new(),
            buffer: Vec::new(),
            ends,
            owner,
            news: false,
        };
        std::thread::Builder::new().name("relays".into()).stack_size(STACK).spawn(move || {
            let Err(e) = all.run();
            crate::log::warn(&format!("net: relays: {e}"));
            crate::log::finish(100);
            std::process::exit(111);
        })?;
        Ok(Thread { arrivals: sender, waker })
    }
}

/// A thread's relays.
struct All {
    poll: Poll,
    arrivals: Receiver<Arrival>,
    relays: HashMap<u32, Relay>,
    /// Those that have something to do, each once.
    ready: VecDeque<u32>,
    /// What was taken at once; none while nothing moves.
    buffer: Vec<u8>,
    ends: Sender<Ended>,
    owner: Arc<Waker>,
    /// Some have ended in this turn.
    news: bool,
}

/// How long the buffer is kept when nothing moves.
const COOL: Duration = Duration::from_millis(50);

impl All {
    fn run(mut self) -> io::Result<Infallible> {
        let mut events = Events::with_capacity(256);
        loop {
            let wait = match () {
                () if !self.ready.is_empty() => Some(Duration::ZERO),
                () if !self.buffer.is_empty() => Some(COOL),
                () => None,
            };
            match self.poll.poll(&mut events, wait) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            if events.is_empty() && self.ready.is_empty() {
                self.buffer = Vec::new();
            }
            for event in &events {
                if event.token() != ARRIVAL {
                    self.happened(event);
                }
            }
            while let Ok((number, ends)) = self.arrivals.try_recv() {
                self.arrive(number, ends);
            }
            for _ in 0..self.ready.len() {
                self.serve_next();
            }
            if std::mem::take(&mut self.news) {
                self.owner.wake()?;
            }
        }
    }

    fn arrive(&mut self, number: u32, ends: [Shared; 2]) {
        let both = Interest::READABLE | Interest::WRITABLE;
        let fds = [0, 1].map(|end| ends[end].as_raw_fd());
        let relay = Relay::new(ends);
        let watched = fds.into_iter().enumerate().try_for_each(|(end, fd)| {
            self.poll.registry().register(&mut SourceFd(&fd), token(number, end), both)
        });
        match watched {
            Ok(()) => drop(self.relays.insert(number, relay)),
            Err(e) => {
                log::debug!("a relay: {e}");
                self.over(number, relay.abort());
            }
        }
    }

    fn happened(&mut self, event: &mio::event::Event) {
        let (number, end) = ((event.token().0 >> 1) as u32, event.token().0 & 1);
        let Some(relay) = self.relays.get_mut(&number) else { return };
        if relay.happened(end, event) {
            self.ready.push_back(number);
        }
    }

    fn serve_next(&mut self) {
        let Some(number) = self.ready.pop_front() else { return };
        let Some(relay) = self.relays.get_mut(&number) else { return };
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        if relay.copy(&mut self.buffer, TURN) {
            self.ready.push_back(number);
        } else if relay.is_over()
            && let Some(relay) = self.relays.remove(&number)
        {
            self.over(number, relay.end());
        }
    }

    fn over(&mut self, relay: u32, Finished { to, from, client }: Finished) {
        self.news = true;
        // The receiver lives as long as the process.
        let _ = self.ends.send(Ended { relay, to, from, client });
    }
}
