//! The parent's end of a channel: orders in, answers out, never waiting for the other end.
//!
//! An answer is never dropped while its receiver lives. It is sent at once, or held until the other
//! end reads or the system has memory for it ([`Retries`]). A receiver that an answer cannot reach
//! at all is ended ([`Broken::Stuck`]).

use super::descriptors::own;
use super::tokens::SessionToken;
use crate::sys::foreign;
use crate::sys::message::{self, Failed, Fds};
use crate::sys::poll::{self, Poll};
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use crate::wire::orders::{Answer, Message, ORDER};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

/// Answers held for the other end at most, unless [`Channel::holding`] sets another number. A
/// process that gives more orders than that without reading the answers is ended.
const HELD_MAX: usize = 4096;

/// Why a channel cannot be used any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other end is closed.
    Closed,
    /// It sent something that is not an order, or not one that it may give now.
    Forbidden,
    /// An answer cannot be delivered to it.
    Stuck,
    /// It keeps a copy of a client's socket that it has handed over, so that no service can have
    /// that.
    KeepsCopy,
}

/// The channels that could not send or receive because the system lacked something, usually memory.
/// No event says when it is there again, so these channels try again every [`Retries::PAUSE`].
#[derive(Clone, Default)]
pub struct Retries(Rc<RefCell<BTreeSet<Token>>>);

impl Retries {
    pub const PAUSE: Duration = Duration::from_millis(10);

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Makes this channel try again.
    pub fn add(&self, token: Token) {
        self.0.borrow_mut().insert(token);
    }

    /// Takes the tokens of all of them. A channel that fails again must be added again.
    pub fn take(&self) -> BTreeSet<Token> {
        self.0.take()
    }
}

/// How many answers all channels that share this hold.
#[derive(Clone, Default)]
pub struct Held(Rc<Cell<usize>>);

impl Held {
    pub fn count(&self) -> usize {
        self.0.get()
    }

    fn change(&self, more: usize, fewer: usize) {
        self.0.set(self.0.get() + more - fewer);
    }
}

pub struct Channel {
    fd: Shared,
    token: Token,
    retries: Retries,
    held: VecDeque<([u8; ORDER], Vec<Shared>)>,
    held_max: usize,
    all: Held,
}

impl Channel {
    pub fn new(
        fd: Shared,
        token: Token,
        registry: &Registry,
        retries: &Retries,
    ) -> io::Result<Channel> {
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Channel {
            fd,
            token,
            retries: retries.clone(),
            held: VecDeque::new(),
            held_max: HELD_MAX,
            all: Held::default(),
        })
    }

    /// It holds `held_max` answers at most from now on, and counts them in `all`.
    pub fn holding(mut self, held_max: usize, all: &Held) -> Channel {
        (self.held_max, self.all) = (held_max, all.clone());
        self
    }

    /// How many answers it holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The next order, which must be one that this phase allows. None: no order waits.
    pub fn receive<M: Message>(&self, phase: &M::Phase) -> Result<Option<(M, Fds)>, Broken> {
        let mut bytes = [0; ORDER];
        match message::receive(self.fd.as_fd(), &mut bytes) {
            Ok((n, fds)) => {
                if n == 0 {
                    return Err(Broken::Closed);
                }
                let fds = fds.of(Whose::Channel(self.token.0));
                // No order comes with anything else.
                let usual = fds.iter().all(|fd| socket::is_usual(fd.as_fd()));
                let order = usual.then(|| M::accept(&bytes[..n], fds.count(), phase)).flatten();
                order.map(|m| Some((m, fds))).ok_or(Broken::Forbidden)
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(Broken::Forbidden),
            Err(e) => match Failed::of(&e) {
                Failed::Full => Ok(None),
                Failed::Scarce => {
                    self.try_again();
                    Ok(None)
                }
                Failed::Gone => Err(Broken::Closed),
                Failed::Broken => Err(Broken::Stuck),
            },
        }
    }

    /// Is what came through it not closed, because somebody keeps that from going on?
    pub fn is_held_up(&self) -> bool {
        foreign::is_held_up(Whose::Channel(self.token.0))
    }

    /// Does it hold answers that the other end has not read in time?
    pub fn is_behind(&self) -> bool {
        !self.held.is_empty()
    }

    /// Is the other end still open?
    pub fn is_open(&self) -> bool {
        let mut entry = [Poll::hangup(self.fd.as_fd())];
        poll::wait(&mut entry, Some(Duration::ZERO)).is_ok() && !entry[0].hung()
    }

    /// Makes this channel try again in a moment.
    pub fn try_again(&self) {
        self.retries.add(self.token);
    }

    /// Sends an answer, now or as soon as the other end reads. `Stuck`: the channel holds too many
    /// already, or cannot hold this one.
    pub fn send(
        &mut self,
        registry: &Registry,
        answer: &impl Message,
        with: &[BorrowedFd],
    ) -> Result<(), Broken> {
        let bytes = answer.encode();
        if self.held.is_empty() {
            match message::send(self.fd.as_fd(), &bytes, with) {
                Ok(()) => return Ok(()),
                Err(e) if self.is_closed(registry, &e)? => return Ok(()),
                Err(_) => {}
            }
        }
        if self.held.len() >= self.held_max {
            return Err(Broken::Stuck);
        }
        let copies = with
            .iter()
            .map(|fd| own::copy(*fd).map(|copy| copy.of(Whose::Anybody)))
            .collect::<io::Result<Vec<Shared>>>();
        let with = copies.map_err(|_| Broken::Stuck)?;
        self.held.push_back((bytes, with));
        self.all.change(1, 0);
        Ok(())
    }

    /// Closes this direction after the last answer. False: the channel still holds answers, and is
    /// not closed yet.
    pub fn finish(&self) -> bool {
        if self.held.is_empty() {
            // This fails only where the other end has closed.
            let _ = socket::shutdown_write(self.fd.as_fd());
        }
        self.held.is_empty()
    }

    /// Sends the answers that are held, as many as the other end takes.
    pub fn flush(&mut self, registry: &Registry) -> Result<(), Broken> {
        if self.held.is_empty() {
            return Ok(());
        }
        while let Some((bytes, with)) = self.held.front() {
            let with: Vec<BorrowedFd> = with.iter().map(AsFd::as_fd).collect();
            match message::send(self.fd.as_fd(), bytes, &with) {
                Ok(()) => {
                    self.held.pop_front();
                    self.all.change(0, 1);
                }
                Err(e) if self.is_closed(registry, &e)? => self.drop_held(),
                Err(_) => return Ok(()),
            }
        }
        self.watch(registry, false);
        Ok(())
    }

    /// Decides about a failed send. True: the other end is closed, and only its last orders are
    /// still to be read. False: the channel will try again.
    fn is_closed(&self, registry: &Registry, e: &io::Error) -> Result<bool, Broken> {
        match Failed::of(e) {
            Failed::Full => self.watch(registry, true),
            Failed::Scarce => self.try_again(),
            Failed::Gone => return Ok(true),
            Failed::Broken => return Err(Broken::Stuck),
        }
        Ok(false)
    }

    /// Drops the answers that are held.
    pub fn drop_held(&mut self) {
        self.all.change(0, self.held.len());
        self.held.clear();
    }

    fn watch(&self, registry: &Registry, writable: bool) {
        let interest =
            if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        if registry.reregister(&mut SourceFd(&self.fd.as_raw_fd()), self.token, interest).is_err()
            && writable
        {
            // Without the registration no event will say when the other end reads again.
            self.try_again();
        }
    }
}

/// The next descriptor of an order. An order without its descriptors is not accepted, so there is
/// one.
pub fn next(fds: &mut Fds) -> Result<Shared, Broken> {
    fds.take().ok_or(Broken::Forbidden)
}

/// The next descriptor of an order, which must be an end of a pair of Unix sockets, as a net
/// process makes them. Anything else may be a stranger's connection, or may wait where such a pair
/// does not.
pub fn next_end(fds: &mut Fds) -> Result<Shared, Broken> {
    let fd = next(fds)?;
    if socket::is_end_of_pair(fd.as_fd()) { Ok(fd) } else { Err(Broken::Forbidden) }
}

/// Sends the other end of the channel of this session to whoever holds the other end of that pair,
/// from which the parent never receives anything: others may have it too.
pub fn send_end(pair: BorrowedFd, session: SessionToken, end: BorrowedFd) -> io::Result<()> {
    let answer = Answer::Channel { session: session.number() };
    message::send(pair, &answer.encode(), &[end])
}

/// There is none: too many stand. If this cannot be said, whoever waits sees the pair close.
pub fn open_none(pair: BorrowedFd) {
    let _ = message::send(pair, &Answer::Full.encode(), &[]);
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.drop_held();
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
