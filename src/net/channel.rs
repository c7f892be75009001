//! A session's channel to the parent: orders out, answers in. The thread that owns it waits for its
//! answers; what is told unasked (go-away) is kept aside.

use super::descriptors::Descriptors;
use crate::sys::message::Fds;
use crate::sys::shared::Shared;
use crate::sys::{memfd, message, socket};
use crate::wire::orders::{Answer, Ask, Message, ORDER};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// The channel is of no more use.
#[derive(Debug)]
pub enum Gone {
    /// The parent's end is gone, or says what is no answer.
    Gone,
    /// There is no place for this session.
    Full,
}

/// Why the parent has told a session to take nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAway {
    /// Another process serves a new table.
    NewTable,
    /// fived itself ends.
    Exit,
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Gone {
        Gone::Gone
    }
}

pub struct Channel {
    fd: OwnedFd,
    /// The parent has told the session to go away.
    go_away: Cell<Option<GoAway>>,
    /// Answers to orders that nobody waited for.
    answers: RefCell<VecDeque<Told>>,
}

/// An answer, and what came with it.
pub struct Told {
    pub answer: Answer,
    /// Net's end of a connection that the parent has made.
    pub near: Option<OwnedFd>,
    /// What the client of that is told first.
    pub said: Vec<u8>,
}

impl Told {
    fn new(answer: Answer, mut fds: Fds) -> io::Result<Told> {
        // There was no number for one of them: without all of it the connection is of no use.
        let lost = fds.lost();
        let near = fds.take().filter(|_| !lost).map(Shared::our_own);
        let said = match (&answer, fds.take()) {
            (_, Some(file)) => memfd::read(file.as_fd())?,
            (Answer::Started { said, .. }, None) => said.bytes().to_vec(),
            _ => Vec::new(),
        };
        Ok(Told { answer, near, said })
    }
}

thread_local! {
    /// The channel of this thread's session, for the handshake's signature.
    static OURS: RefCell<Option<Rc<Channel>>> = const { RefCell::new(None) };
}

/// This thread's channel.
pub fn ours() -> Option<Rc<Channel>> {
    OURS.with_borrow(Clone::clone)
}

/// The channel is this thread's no more.
pub fn forget() {
    OURS.take();
}

impl Channel {
    pub fn new(fd: OwnedFd) -> Channel {
        Channel { fd, go_away: Cell::new(None), answers: RefCell::default() }
    }

    /// The channel of this thread from now on.
    pub fn install(self) -> Rc<Channel> {
        let channel = Rc::new(self);
        OURS.set(Some(channel.clone()));
        channel
    }

    /// This thread's channel no more: another thread may have it.
    pub fn release(self: Rc<Channel>) -> Channel {
        OURS.take();
        Rc::into_inner(self)
            .expect("a session and its thread's place hold the channel, nobody else")
    }

    /// Gives an order. Waits while the parent lags.
    pub fn tell(&self, ask: &Ask, with: &[BorrowedFd]) -> Result<(), Gone> {
        Ok(message::send_message(self.fd.as_fd(), &ask.encode(), with, true)?)
    }

    /// Gives an order if the parent takes it at once.
    pub fn try_tell(&self, ask: &Ask) -> Result<(), Gone> {
        Ok(message::send_message(self.fd.as_fd(), &ask.encode(), &[], false)?)
    }

    /// Gives an order and waits for the answer.
    pub fn ask(&self, ask: &Ask, with: &[BorrowedFd]) -> Result<Answer, Gone> {
        self.tell(ask, with)?;
        self.answer()
    }

    /// Waits for the next answer.
    pub fn answer(&self) -> Result<Answer, Gone> {
        self.answer_with().map(|told| told.answer)
    }

    /// Waits for the next answer, and what came with it.
    pub fn answer_with(&self) -> Result<Told, Gone> {
        loop {
            if let Some(answer) = self.answers.borrow_mut().pop_front() {
                return Ok(answer);
            }
            self.receive(true)?;
        }
    }

    /// An answer that is here already.
    pub fn try_answer(&self) -> Result<Option<Answer>, Gone> {
        Ok(self.try_answer_with()?.map(|told| told.answer))
    }

    /// An answer that is here already, and what came with it.
    pub fn try_answer_with(&self) -> Result<Option<Told>, Gone> {
        self.keep_aside()?;
        Ok(self.answers.borrow_mut().pop_front())
    }

    /// Takes in what is here, for whoever asks later.
    pub fn keep_aside(&self) -> Result<(), Gone> {
        while self.receive(false)? {}
        Ok(())
    }

    /// Takes in one message. False: there was none.
    fn receive(&self, wait: bool) -> Result<bool, Gone> {
        let mut bytes = [0; ORDER];
        let (n, fds) = match message::receive_message(self.fd.as_fd(), &mut bytes, wait) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            got => got?,
        };
        match Answer::accept(&bytes[..n], fds.count(), &()).ok_or(Gone::Gone)? {
            Answer::GoAway { last } => {
                let exits = last || self.go_away() == Some(GoAway::Exit);
                self.go_away.set(Some(if exits { GoAway::Exit } else { GoAway::NewTable }))
            }
            Answer::Full => return Err(Gone::Full),
            answer => self.answers.borrow_mut().push_back(Told::new(answer, fds)?),
        }
        Ok(true)
    }

    /// Has the parent told the session to go away, and why?
    pub fn go_away(&self) -> Option<GoAway> {
        self.go_away.get()
    }

    /// A channel to the parent for a stream with facts of its own. None: the system has no room for
    /// one.
    pub fn branch(&self, host: u32, all: &Descriptors) -> Result<Option<OwnedFd>, Gone> {
        let Ok((near, far)) = all.but(socket::seqpacket()) else { return Ok(None) };
        self.tell(&Ask::Branch { host }, &[far.as_fd()])?;
        Ok(Some(near))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
