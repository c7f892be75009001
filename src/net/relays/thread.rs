//! A thread that has relays: the parent hands it both ends of each, and it tells the parent of
//! those that are over, of all of one turn together. A relay that always has more waits for its
//! next turn after [`TURN`] bytes, so that the others of its thread go on.

use super::common::Common;
use super::pipes::Pipes;
use super::relay::{Finished, Means, Relay};
use crate::sys::local;
use crate::sys::message::{self, FDS_MAX, Failed, Fds};
use crate::sys::process;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{ENDS_MAX, FromRelays, Message, ORDER, RelayEnd, ToRelays};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Bytes that a relay copies before the others of its thread have their turn.
const TURN: usize = 512 * 1024;
/// Relays that begin before the others have their turn.
const ARRIVALS: usize = 32;
/// What a thread needs of a stack.
const STACK: usize = 128 * 1024;
/// How long the means of copying are kept when nothing moves.
const MEANS_KEPT: Duration = Duration::from_millis(50);
/// When the parent's next message is tried again, for which there was no descriptor or memory.
const RETRY: Duration = Duration::from_millis(10);

/// The parent's channel. Relays have the tokens of [`token`].
const CHANNEL: Token = Token(usize::MAX);

/// The token of one end of a relay, whose number is never used again: an event of one that is over
/// reaches nobody.
fn token(relay: u32, end: usize) -> Token {
    Token((relay as usize) << 1 | end)
}

/// Whether the parent may have sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inbox {
    Empty,
    Unread,
    /// The system had no descriptor or memory for it.
    Scarce,
    /// The parent is gone.
    Closed,
}

struct Thread {
    channel: OwnedFd,
    inbox: Inbox,
    poll: Poll,
    relays: HashMap<u32, Relay>,
    /// Those that have something to do, each once.
    ready: VecDeque<u32>,
    /// Nothing while nothing moves.
    means: Means,
    /// Those that are over, and the parent was not told.
    over: Vec<RelayEnd>,
    /// Does the channel take no more now?
    blocked: bool,
    common: Arc<Common>,
    discards: Sender<Shared>,
}

/// Begins one. It ends with the process, and the process with it.
pub fn begin(
    channel: OwnedFd,
    common: Arc<Common>,
    pipes: Pipes,
    discards: Sender<Shared>,
) -> io::Result<()> {
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&channel.as_raw_fd()), CHANNEL, Interest::READABLE)?;
    let thread = Thread {
        channel,
        inbox: Inbox::Unread,
        poll,
        relays: HashMap::new(),
        ready: VecDeque::new(),
        means: Means { buffer: Vec::new(), pipes },
        over: Vec::new(),
        blocked: false,
        common,
        discards,
    };
    std::thread::Builder::new().name("relays".into()).stack_size(STACK).spawn(move || {
        // Each connection would interrupt its client, its upstream and the parent several times.
        process::give_way();
        let Err(e) = thread.run();
        crate::log::warn(&format!("net: relays: {e}"));
        crate::log::finish(100);
        std::process::exit(111);
    })?;
    Ok(())
}

impl Thread {
    fn run(mut self) -> io::Result<Infallible> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            if events.is_empty() && self.ready.is_empty() {
                self.means.release();
            }
            if self.inbox == Inbox::Scarce {
                self.inbox = Inbox::Unread;
            }
            for event in &events {
                match event.token() {
                    CHANNEL => {
                        if self.blocked && event.is_writable() {
                            self.block(false)?;
                        }
                        if self.inbox == Inbox::Empty {
                            self.inbox = Inbox::Unread;
                        }
                    }
                    Token(t) => self.happened((t >> 1) as u32, t & 1, event),
                }
            }
            self.receive()?;
            for _ in 0..self.ready.len() {
                self.serve_next();
            }
            self.tell()?;
        }
    }

    fn timeout(&self) -> Option<Duration> {
        match self.inbox {
            _ if !self.ready.is_empty() => Some(Duration::ZERO),
            Inbox::Unread => Some(Duration::ZERO),
            Inbox::Scarce => Some(RETRY),
            _ if !self.means.is_empty() => Some(MEANS_KEPT),
            Inbox::Empty | Inbox::Closed => None,
        }
    }

    /// Begins relays that the parent has handed over.
    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; ORDER];
        for _ in 0..ARRIVALS {
            if self.inbox != Inbox::Unread {
                break;
            }
            if !self.common.descriptors.can_receive(self.channel.as_fd(), FDS_MAX) {
                // The loop has clients that wait, and one of them has to go.
                self.inbox = Inbox::Scarce;
                self.common.full.store(true, Ordering::Relaxed);
                return self.common.waker.wake();
            }
            match message::receive(self.channel.as_fd(), &mut bytes) {
                Ok((0, _)) => self.closed()?,
                Ok((n, mut fds)) => match ToRelays::accept(&bytes[..n], fds.count(), &()) {
                    Some(ToRelays::Begin { relay }) => self.arrive(relay, &mut fds),
                    Some(ToRelays::BeginTwo { relays }) => {
                        relays.into_iter().for_each(|relay| self.arrive(relay, &mut fds));
                    }
                    None => return Err(ErrorKind::InvalidData.into()),
                },
                Err(e) => match Failed::of(&e) {
                    Failed::Full => self.inbox = Inbox::Empty,
                    Failed::Scarce => self.inbox = Inbox::Scarce,
                    Failed::Gone => self.closed()?,
                    Failed::Broken => return Err(e),
                },
            }
        }
        Ok(())
    }

    fn closed(&mut self) -> io::Result<()> {
        (self.inbox, self.blocked) = (Inbox::Closed, false);
        self.poll.registry().deregister(&mut SourceFd(&self.channel.as_raw_fd()))
    }

    /// The channel takes no more now, or takes more again. Only meanwhile the poll tells so: else
    /// it would tell whenever the parent has read something.
    fn block(&mut self, blocked: bool) -> io::Result<()> {
        self.blocked = blocked;
        let interest = match blocked {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let fd = self.channel.as_raw_fd();
        self.poll.registry().reregister(&mut SourceFd(&fd), CHANNEL, interest)
    }

    fn arrive(&mut self, number: u32, fds: &mut Fds) {
        self.common.relays.fetch_add(1, Ordering::AcqRel);
        let ends = [fds.take(), fds.take()];
        let [Some(client), Some(server)] = ends else {
            // No descriptor was left for one of them: the other sees a reset.
            ends.iter().flatten().for_each(|fd| socket::abort(fd.as_fd()));
            return self.is_over(number, Finished::default());
        };
        let ends = [client, server];
        ends.iter().for_each(|fd| self.common.descriptors.note(fd));
        let is_unix = |fd: &Shared| socket::local(fd.as_fd()).is_err();
        let rights = ends.each_ref().map(|fd| !local::can_refuse_rights() && is_unix(fd));
        let mut which = rights.into_iter();
        let ends = ends.map(|fd| match which.next() {
            Some(true) => {
                // So that none comes unseen with an urgent byte.
                let _ = socket::set_urgent_inline(fd.as_fd(), true);
                fd
            }
            _ => Shared::from(fd.our_own()).for_no_service(),
        });
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let fds = [0, 1].map(|end| ends[end].as_raw_fd());
        let relay = Relay::new(ends, rights);
        let watched = fds.into_iter().enumerate().try_for_each(|(end, fd)| {
            self.poll.registry().register(&mut SourceFd(&fd), token(number, end), all)
        });
        match watched {
            Ok(()) => drop(self.relays.insert(number, relay)),
            Err(e) => {
                log::debug!("a relay: {e}");
                self.is_over(number, relay.abort());
            }
        }
    }

    fn happened(&mut self, number: u32, end: usize, event: &mio::event::Event) {
        let Some(relay) = self.relays.get_mut(&number) else { return };
        if relay.happened(end, event) {
            self.ready.push_back(number);
        }
    }

    fn serve_next(&mut self) {
        let Some(number) = self.ready.pop_front() else { return };
        let Some(relay) = self.relays.get_mut(&number) else { return };
        if relay.copy(&mut self.means, TURN) {
            self.ready.push_back(number);
        } else if relay.is_over()
            && let Some(relay) = self.relays.remove(&number)
        {
            self.is_over(number, relay.end());
        }
    }

    fn is_over(&mut self, relay: u32, Finished { to, from, client }: Finished) {
        self.over.push(RelayEnd { relay, to, from });
        // The receiver lives as long as the process.
        if client.is_some_and(|client| self.discards.send(client).is_ok())
            && let Err(e) = self.common.waker.wake()
        {
            // It comes with the next one.
            log::debug!("a relay's client: {e}");
        }
    }

    /// Tells the parent of those that are over. None may be lost, because the parent still counts
    /// it among those that run.
    fn tell(&mut self) -> io::Result<()> {
        while !self.over.is_empty() && !self.blocked {
            let n = self.over.len().min(ENDS_MAX);
            let order = FromRelays::Ended(self.over[..n].to_vec());
            if let Err(e) = message::send(self.channel.as_fd(), &order.encode(), &[]) {
                match Failed::of(&e) {
                    Failed::Full => {
                        return self.block(true);
                    }
                    Failed::Scarce => {
                        self.inbox = match self.inbox {
                            Inbox::Closed => Inbox::Closed,
                            _ => Inbox::Scarce,
                        };
                        return Ok(());
                    }
                    Failed::Gone => {}
                    Failed::Broken => return Err(e),
                }
            }
            self.over.drain(..n);
            self.common.relays.fetch_sub(n, Ordering::AcqRel);
        }
        Ok(())
    }
}
