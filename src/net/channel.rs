//! A session's channel to the parent: orders out, answers in. The thread that owns it waits for its
//! answers; the one message that comes unasked (go-away) is noted.

use crate::sys::message::Fds;
use crate::sys::shared::Shared;
use crate::sys::{gauges, memfd, message, poll, socket};
use crate::wire::orders::{Answer, Ask, FromNet, Message, ORDER, OfferClient, Resumption};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, OnceLock};

/// Why the channel can no longer be used.
#[derive(Debug)]
pub enum ChannelError {
    /// The parent has closed its end, or has sent something that is not an answer.
    Closed,
    /// The parent has refused this session: there are too many.
    Full,
}

/// Why the parent has told a session to take nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoAway {
    /// Another process serves a new table.
    NewTable,
    /// fived itself ends, when its services have.
    Exit,
    /// fived itself ends at once.
    Now,
}

/// `message::receive`, or the same that waits.
type Receive = fn(BorrowedFd, &mut [u8]) -> io::Result<(usize, Fds)>;

impl From<io::Error> for ChannelError {
    fn from(_: io::Error) -> ChannelError {
        ChannelError::Closed
    }
}

/// How the channel comes that the parent was asked for.
pub enum Asked {
    /// Through a pair, whose other end the parent was sent ([`Answer::Channel`]).
    Pair(OwnedFd),
    /// From the thread of the session whose stream it is ([`Answer::Branched`]).
    Session(Receiver<OwnedFd>),
}

pub struct Channel {
    asked: Cell<Option<Asked>>,
    /// The channel, from the first use on; while the parent has not sent it, that waits.
    fd: OnceCell<Arc<Shared>>,
    /// What the parent calls the session.
    session: Cell<u64>,
    /// There are too many sessions, so there is no channel.
    full: Cell<bool>,
    /// The parent has told the session to go away.
    go_away: Cell<Option<GoAway>>,
    /// Answers to orders that nobody waited for.
    answers: RefCell<VecDeque<Received>>,
    /// Connections on which the session may go on.
    new_connections: RefCell<VecDeque<NewConnection>>,
    /// The session is to end, if its connection is lost.
    forget: Cell<bool>,
}

/// A connection on which the session may go on.
pub struct NewConnection {
    pub resumption: Resumption,
    /// One end of a socket pair, if the connection is in another process.
    pub relay: Option<OwnedFd>,
    /// This process had no descriptor for that.
    pub lost: bool,
}

/// An answer, and what came with it.
pub struct Received {
    pub answer: Answer,
    /// Net's end of a connection that the parent has made.
    pub connection: Option<OwnedFd>,
    /// Net's end of the service's standard error, or what tells its terminal's process a size.
    pub second: Option<OwnedFd>,
    /// Bytes that the client of that connection gets first.
    pub greeting: Vec<u8>,
}

impl Received {
    fn new(answer: Answer, mut fds: Fds) -> io::Result<Received> {
        // There was no number for one of them: without all of it the connection is of no use.
        let lost = fds.lost();
        let connection = fds.take().filter(|_| !lost).map(Shared::our_own);
        let has_second = matches!(&answer,
            Answer::Started { extras, .. } if extras.errors || extras.terminal);
        let second = if has_second { fds.take().map(Shared::our_own) } else { None };
        let greeting = match (&answer, fds.take()) {
            (_, Some(file)) => memfd::read(file.as_fd())?,
            (Answer::Started { greeting, .. }, None) => greeting.bytes().to_vec(),
            _ => Vec::new(),
        };
        Ok(Received { answer, connection, second, greeting })
    }
}

thread_local! {
    /// The channel of this thread's session: the signer of a TLS handshake needs it.
    static OURS: RefCell<Option<Rc<Channel>>> = const { RefCell::new(None) };
}

/// This thread's channel.
pub fn ours() -> Option<Rc<Channel>> {
    OURS.with_borrow(Clone::clone)
}

/// This thread gives up its channel.
pub fn uninstall() {
    OURS.take();
}

/// Stands for a channel that there is none: its other end is closed.
static NONE: OnceLock<Arc<Shared>> = OnceLock::new();

/// What stands for a socket that there is none.
pub fn none() -> Arc<Shared> {
    NONE.get().expect("it was made before the first session").clone()
}

/// To be called before the first session.
pub fn prepare() -> io::Result<()> {
    let (end, _) = socket::seqpacket()?;
    NONE.get_or_init(|| Arc::new(end.into()));
    Ok(())
}

impl Channel {
    /// One that the parent was asked for.
    pub fn new(asked: Asked) -> Channel {
        Channel {
            asked: Cell::new(Some(asked)),
            fd: OnceCell::new(),
            session: Cell::default(),
            full: Cell::default(),
            go_away: Cell::default(),
            answers: RefCell::default(),
            new_connections: RefCell::default(),
            forget: Cell::default(),
        }
    }

    /// Its socket, for whoever may have to end a lost session.
    pub fn shared_socket(&self) -> &Arc<Shared> {
        self.fd.get_or_init(|| {
            let opened = match self.asked.take().expect("the channel is opened once") {
                Asked::Pair(pair) => self.opened(pair.as_fd()),
                Asked::Session(channel) => {
                    let opened = channel.recv().ok();
                    self.full.set(opened.is_none());
                    opened
                }
            };
            opened.map_or_else(none, |fd| Arc::new(fd.into()))
        })
    }

    /// The channel that the parent has opened through this pair, if it has. Nothing is sent there.
    fn opened(&self, pair: BorrowedFd) -> Option<OwnedFd> {
        let mut bytes = [0; ORDER];
        let (n, mut fds) = message::receive_waiting(pair, &mut bytes).ok()?;
        match Answer::accept(&bytes[..n], fds.count(), &()) {
            Some(Answer::Channel { session }) => self.session.set(session),
            answer => self.full.set(answer == Some(Answer::Full)),
        }
        fds.take().map(Shared::our_own)
    }

    /// Makes it the channel of this thread.
    pub fn install(self) -> Rc<Channel> {
        let channel = Rc::new(self);
        OURS.set(Some(channel.clone()));
        channel
    }

    /// Takes it away from this thread, so that another one can have it.
    pub fn release(self: Rc<Channel>) -> Channel {
        OURS.take();
        Rc::into_inner(self).expect("only a session and its thread hold its channel")
    }

    /// Sends an order. Waits while the channel is full.
    pub fn send(&self, ask: &Ask) -> Result<(), ChannelError> {
        message::send_waiting(self.as_fd(), &ask.encode(), &[]).map_err(|_| self.over())
    }

    /// Sends an order if the channel takes it at once.
    pub fn try_send(&self, ask: &Ask) -> Result<(), ChannelError> {
        if !self.is_open() {
            return Err(ChannelError::Closed);
        }
        message::send(self.as_fd(), &ask.encode(), &[]).map_err(|_| self.over())
    }

    /// Sends an order and waits for the answer.
    pub fn ask(&self, ask: &Ask) -> Result<Answer, ChannelError> {
        self.send(ask)?;
        self.answer()
    }

    /// Asks for a service (and its host) on the client's own socket, through this process's channel
    /// `net`. The answer comes when [`Channel::has_closed`] was told that it is closed here.
    pub fn start_on_client(
        &self,
        net: BorrowedFd,
        (service, host): (u32, u32),
        socket: BorrowedFd,
    ) -> Result<(), ChannelError> {
        // The name comes with the channel.
        self.shared_socket();
        let order = FromNet::StartOnClient { session: self.session.get(), service, host };
        if self.full.get() || message::send_waiting(net, &order.encode(), &[socket]).is_err() {
            return Err(self.over());
        }
        Ok(())
    }

    /// This process has closed the socket that it has handed over.
    pub fn has_closed(&self) {
        gauges::session_closed(self.session.get());
    }

    /// Waits for the next answer.
    pub fn answer(&self) -> Result<Answer, ChannelError> {
        self.answer_with().map(|received| received.answer)
    }

    /// Waits for the next answer, and what came with it.
    pub fn answer_with(&self) -> Result<Received, ChannelError> {
        loop {
            if let Some(answer) = self.answers.borrow_mut().pop_front() {
                return Ok(answer);
            }
            self.receive(message::receive_waiting)?;
        }
    }

    /// The next answer, if it has come.
    pub fn try_answer(&self) -> Result<Option<Answer>, ChannelError> {
        Ok(self.try_answer_with()?.map(|received| received.answer))
    }

    /// An answer that is here already, and what came with it.
    pub fn try_answer_with(&self) -> Result<Option<Received>, ChannelError> {
        loop {
            let next = self.answers.borrow_mut().pop_front();
            if next.is_some() || !self.receive(message::receive)? {
                return Ok(next);
            }
        }
    }

    /// Receives all messages that have come, and keeps them for whoever asks later.
    pub fn receive_pending(&self) -> Result<(), ChannelError> {
        while self.receive(message::receive)? {}
        Ok(())
    }

    /// Receives one message. False: there was none.
    fn receive(&self, receive: Receive) -> Result<bool, ChannelError> {
        let mut bytes = [0; ORDER];
        let (n, mut fds) = match receive(self.as_fd(), &mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            got => got.map_err(|_| self.over())?,
        };
        if self.full.get() {
            return Err(ChannelError::Full);
        }
        match Answer::accept(&bytes[..n], fds.count(), &()).ok_or(ChannelError::Closed)? {
            Answer::GoAway { last } => {
                self.told(if last { GoAway::Exit } else { GoAway::NewTable })
            }
            Answer::EndNow => self.told(GoAway::Now),
            Answer::Forget => self.forget.set(true),
            Answer::Resumption(resumption) => {
                let lost = fds.lost();
                let relay = fds.take().map(Shared::our_own);
                let new = NewConnection { resumption, relay, lost };
                self.new_connections.borrow_mut().push_back(new);
            }
            answer => self.answers.borrow_mut().push_back(Received::new(answer, fds)?),
        }
        Ok(true)
    }

    /// A connection on which the session may go on. It must be answered ([`Ask::Resumed`]).
    pub fn new_connection(&self) -> Option<NewConnection> {
        self.new_connections.borrow_mut().pop_front()
    }

    /// Is the session to end, if its connection is lost?
    pub fn take_forget(&self) -> bool {
        self.forget.take()
    }

    /// Takes the channels of streams out of the answers: their tags, and the channels, if there are
    /// any.
    pub fn take_branched(&self) -> Vec<(u32, Option<OwnedFd>)> {
        let mut answers = self.answers.borrow_mut();
        let mut all = Vec::new();
        answers.retain_mut(|r| {
            let Answer::Branched { tag } = r.answer else { return true };
            all.push((tag, r.connection.take()));
            false
        });
        all
    }

    /// Forgets the clients of offered services that have come and gone, while nobody asked for
    /// answers. The connections of those that wait are closed here: the parent sends them when they
    /// are taken.
    pub fn forget_cancelled(&self) {
        let mut answers = self.answers.borrow_mut();
        for r in answers.iter_mut() {
            if let Answer::OfferClient { what: OfferClient::Open { greeting, .. }, .. } =
                &mut r.answer
            {
                (*greeting, r.connection) = (None, None);
            }
        }
        let clients = |r: &Received| match r.answer {
            Answer::OfferClient { client, what: OfferClient::Open { .. } } => Some(client),
            _ => None,
        };
        let came: Vec<u32> = answers.iter().filter_map(clients).collect();
        let mut gone = Vec::new();
        answers.retain(|r| match r.answer {
            Answer::OfferClient { client, what: OfferClient::Cancel } if came.contains(&client) => {
                gone.push(client);
                false
            }
            _ => true,
        });
        answers.retain(|r| clients(r).is_none_or(|client| !gone.contains(&client)));
    }

    /// The last word counts, unless it was the stricter one before.
    fn told(&self, why: GoAway) {
        self.go_away.set(self.go_away().max(Some(why)));
    }

    /// Does fived itself end?
    pub fn exits(&self) -> bool {
        self.go_away() >= Some(GoAway::Exit)
    }

    /// Has the parent told the session to go away, and why?
    pub fn go_away(&self) -> Option<GoAway> {
        self.go_away.get()
    }

    /// Has the parent sent the channel? Until then its first use waits for that.
    fn is_open(&self) -> bool {
        let asked = self.asked.take();
        let came = match &asked {
            Some(Asked::Pair(pair)) => poll::is_readable(pair.as_fd()),
            Some(Asked::Session(channel)) => match channel.try_recv() {
                Ok(fd) => return self.fd.set(Arc::new(fd.into())).is_ok(),
                Err(e) => e == TryRecvError::Disconnected,
            },
            None => true,
        };
        self.asked.set(asked);
        came
    }

    /// Why it cannot be used.
    fn over(&self) -> ChannelError {
        if self.full.get() { ChannelError::Full } else { ChannelError::Closed }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared_socket().as_fd()
    }
}
