//! The parent's end of a channel: orders in, answers out, never waiting for the other end.
//!
//! An answer is never dropped while its receiver lives. It is delivered, or it is held until the
//! other end reads or the system has memory for it ([`Retries`]); and a receiver to which it cannot
//! be delivered at all is ended ([`Broken::Stuck`]).

use super::descriptors::own;
use crate::sys::message::{self, Failed, Fds};
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{Message, ORDER};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Answers that are held for the other end, at most, unless [`Channel::holding`] gives another
/// number. A process that gives more orders without reading the answers is ended.
const HELD_MAX: usize = 4096;

/// Why a channel cannot be used any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other end has gone.
    Closed,
    /// It sent something that is not an order, or not one that it may give now.
    Forbidden,
    /// An answer cannot be delivered to it.
    Stuck,
}

/// The channels that could not send or receive because the system lacked something, mostly memory.
/// No event says when it has that again, so they are tried again every [`Retries::PAUSE`].
#[derive(Clone, Default)]
pub struct Retries(Rc<RefCell<BTreeSet<usize>>>);

impl Retries {
    pub const PAUSE: Duration = Duration::from_millis(10);

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Has this channel tried again.
    pub fn add(&self, token: usize) {
        self.0.borrow_mut().insert(token);
    }

    /// All of them, by token. One that fails again is added again.
    pub fn take(&self) -> BTreeSet<usize> {
        self.0.take()
    }
}

/// How many answers are held, of all channels that share this.
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
    fd: OwnedFd,
    token: Token,
    retries: Retries,
    held: VecDeque<([u8; ORDER], Option<Shared>)>,
    most: usize,
    all: Held,
}

impl Channel {
    pub fn new(
        fd: OwnedFd,
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
            most: HELD_MAX,
            all: Held::default(),
        })
    }

    /// The same, which holds so many answers at most, and counts them with others.
    pub fn holding(mut self, most: usize, all: &Held) -> Channel {
        (self.most, self.all) = (most, all.clone());
        self
    }

    /// Answers that it holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The next order, which must be one that may be given in this phase. None: no order waits.
    pub fn receive<M: Message>(&self, phase: &M::Phase) -> Result<Option<(M, Fds)>, Broken> {
        let mut bytes = [0; ORDER];
        match message::receive_message(self.fd.as_fd(), &mut bytes, false) {
            Ok((0, _)) => Err(Broken::Closed),
            Ok((n, fds)) => M::accept(&bytes[..n], fds.count(), phase)
                .map(|m| Some((m, fds)))
                .ok_or(Broken::Forbidden),
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

    /// Are answers held, because the other end does not read them?
    pub fn is_behind(&self) -> bool {
        !self.held.is_empty()
    }

    /// Has this channel tried again in a moment.
    pub fn try_again(&self) {
        self.retries.add(self.token.0);
    }

    /// Sends an answer, now or as soon as the other end reads. `Stuck`: too many are held already,
    /// or this one cannot be held.
    pub fn send(
        &mut self,
        registry: &Registry,
        answer: &impl Message,
        with: Option<BorrowedFd>,
    ) -> Result<(), Broken> {
        let bytes = answer.encode();
        if self.held.is_empty() {
            match message::send_message(self.fd.as_fd(), &bytes, with.as_slice(), false) {
                Ok(()) => return Ok(()),
                Err(e) if self.gone_or_later(registry, &e)? => return Ok(()),
                Err(_) => {}
            }
        }
        if self.held.len() >= self.most {
            return Err(Broken::Stuck);
        }
        let with = with.map(own::copy).transpose().map_err(|_| Broken::Stuck)?;
        self.held.push_back((bytes, with));
        self.all.change(1, 0);
        Ok(())
    }

    /// Closes this direction: the other end sees the end after the last answer. False: answers are
    /// still held, and it is not closed yet.
    pub fn finish(&self) -> bool {
        if self.held.is_empty() {
            // An error means that the other end has closed.
            let _ = socket::shutdown_write(self.fd.as_fd());
        }
        self.held.is_empty()
    }

    /// Sends what is held, as far as the other end takes it.
    pub fn flush(&mut self, registry: &Registry) -> Result<(), Broken> {
        if self.held.is_empty() {
            return Ok(());
        }
        while let Some((bytes, with)) = self.held.front() {
            match message::send_message(
                self.fd.as_fd(),
                bytes,
                with.as_ref().map(AsFd::as_fd).as_slice(),
                false,
            ) {
                Ok(()) => {
                    self.held.pop_front();
                    self.all.change(0, 1);
                }
                Err(e) if self.gone_or_later(registry, &e)? => self.drop_held(),
                Err(_) => return Ok(()),
            }
        }
        self.watch(registry, false);
        Ok(())
    }

    /// After a failed send. True: the receiver has gone; its last orders are still to be read.
    /// False: it will be tried again.
    fn gone_or_later(&self, registry: &Registry, e: &io::Error) -> Result<bool, Broken> {
        match Failed::of(e) {
            Failed::Full => self.watch(registry, true),
            Failed::Scarce => self.try_again(),
            Failed::Gone => return Ok(true),
            Failed::Broken => return Err(Broken::Stuck),
        }
        Ok(false)
    }

    fn drop_held(&mut self) {
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

/// The next descriptor of an order. It is there, or the order would not have been accepted.
pub fn next(fds: &mut Fds) -> Result<Shared, Broken> {
    fds.take().ok_or(Broken::Forbidden)
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
