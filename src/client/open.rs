//! A new session: connection, SSL, login, RESUME or MULTIPLEX, and the first call's request.
//!
//! Everything is sent as early as it can be: the first key's login, RESUME and the request go
//! with TLS's last message, so that a service answers after the round trips of TCP, of TLS, and its
//! own; with a virtual host there is one more (`Request::first_lines`). Input is not sent before a
//! login has succeeded: if it failed, a service without a user would read it. After a failed login
//! the connection is dropped, and further keys or a password are tried on a new one, with a round
//! trip each. A server that refuses the word RESUME closes: then MULTIPLEX is used on a new
//! connection, with the login that has succeeded.
//!
//! On a Unix socket of this computer there is neither TLS nor a login, because the kernel tells the
//! server who has connected, and no RESUME, because such a connection is never lost.

use super::dial::Connect;
use super::error::Error;
use super::keys::{self, NOT_ACCEPTED, Tried};
use super::login::{self, Known, refused};
use super::messages;
use super::options::is_path;
use super::request::Request;
use super::resume::Resumable;
use super::server::{self, Server};
use super::target::Target;
use crate::link::Link;
use crate::sys::clock;
use crate::wire::builtins::Builtin;
use crate::wire::resume::{self, Made};
use crate::wire::yamux::{Mux, PIECE, StreamId};
use crate::wire::{reply, request};
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is told where a lost session cannot be resumed.
pub const KEEPS_NONE: &str = "the server keeps no sessions that lose their connection";

/// A session that has been made.
pub struct OpenSession {
    pub link: Link,
    pub mux: Mux,
    /// The stream on which the first request was sent.
    pub first: Option<(StreamId, Request)>,
    /// See [`Connection::gate`](super::dial::Connection::gate).
    pub gate: Option<OwnedFd>,
    /// How it goes on when its connection is lost. None: the server keeps no lost sessions.
    pub resumable: Option<Resumable>,
}

impl OpenSession {
    /// Ends it, because nobody can have it.
    pub fn abandon(&mut self) {
        let first = self.first.as_ref().map(|(id, _)| *id);
        abandon(&mut self.link, &mut self.mux, first);
        self.link.linger();
    }
}

/// Opens a session, with the request of the first call if there is one.
pub fn open(t: &Target, connect: Connect, first: Option<&Request>) -> Result<OpenSession, Error> {
    let mut opening = Opening { t, connect, first, known: Known::Nothing };
    if is_path(&t.host) {
        return opening.open_here();
    }
    if let Some(session) = opening.open(Builtin::Resume)? {
        return Ok(session);
    }
    messages::step(KEEPS_NONE);
    let refused = || {
        let reply = reply::refusal(reply::NOT_AVAILABLE);
        refused(t, Builtin::Multiplex.as_str(), reply)
    };
    opening.open(Builtin::Multiplex)?.ok_or_else(refused)
}

/// How a session is opened.
struct Opening<'a> {
    t: &'a Target,
    connect: Connect<'a>,
    first: Option<&'a Request>,
    /// How the login has succeeded on a connection before.
    known: Known,
}

/// What came of the messages that begin a session.
enum Begun {
    Session(Box<OpenSession>),
    /// The login that was sent with them was refused. Nobody is logged in there, so the session and
    /// the first request do not count: both were ended.
    NotLoggedIn(Server),
    /// The server does not know the word.
    NoSuchWord,
}

impl Opening<'_> {
    /// On a socket of this computer.
    fn open_here(&self) -> Result<OpenSession, Error> {
        let server = server::open_here(self.t, self.connect)?;
        match self.start(server, Vec::new(), Builtin::Multiplex) {
            Ok(begun) => {
                begun.session().ok_or_else(|| Error::NoMultiplex { place: self.t.place() })
            }
            Err(Error::Lost { what: place, .. }) => {
                Err(Error::NotFived { place, reply: String::new() })
            }
            Err(e) => Err(e),
        }
    }

    /// One connection, or two if the first key is refused. None: the server does not know the word.
    fn open(&mut self, word: Builtin) -> Result<Option<OpenSession>, Error> {
        let mut server = server::open(self.t, self.connect)?;
        let Some(user) = self.t.user.as_deref() else {
            return Ok(self.start(server, Vec::new(), word)?.session());
        };
        let mut tried = Tried::default();
        let mut keys = match &self.known {
            Known::Answers(_) => Vec::new(),
            Known::Nothing | Known::Key(_) => keys::of(self.t, &mut tried),
        };
        if let Known::Key(name) = &self.known {
            keys.retain(|key| key.name() == *name);
        }
        let mut rest = keys.iter();
        for key in rest.by_ref() {
            match login::key_line(self.t, &mut server, user, key)? {
                Err(why) => {
                    tried.failed(&key.name(), &why);
                    login::without_key(self.t, &mut server, self.connect)?;
                }
                Ok(line) => match self.start(server, line, word)? {
                    Begun::NotLoggedIn(mut refused) => {
                        tried.failed(&key.name(), NOT_ACCEPTED);
                        let server = server::open(self.t, self.connect)?;
                        // What was started there may hold the service's only place.
                        refused.link.linger();
                        return self.one_by_one(server, user, rest.as_slice(), tried, word);
                    }
                    begun => {
                        messages::step(&format!("logged in with {}", key.name()));
                        self.known = Known::Key(key.name());
                        return Ok(begun.session());
                    }
                },
            }
        }
        self.one_by_one(server, user, &[], tried, word)
    }

    fn one_by_one(
        &mut self,
        mut server: Server,
        user: &str,
        keys: &[keys::Key],
        tried: Tried,
        word: Builtin,
    ) -> Result<Option<OpenSession>, Error> {
        self.known =
            login::one_by_one((self.t, self.connect), &mut server, user, keys, tried, &self.known)?;
        Ok(self.start(server, Vec::new(), word)?.session())
    }

    /// Sends at once everything that begins a session, then reads the answers.
    fn start(&self, mut server: Server, login: Vec<u8>, word: Builtin) -> Result<Begun, Error> {
        let (t, now) = (self.t, clock::monotonic());
        // The holder watches whether the server still answers.
        let mut mux = Mux::client(Duration::ZERO, now);
        let with_login = !login.is_empty();
        let first = self.first.and_then(|request| Some((mux.open(now)?, request.clone())));
        let mut frames = Vec::new();
        mux.take_control(&mut frames);
        if let Some((id, request)) = &first {
            data(&mut mux, *id, &request.first_lines(), &mut frames);
        }
        let mut out = login;
        out.extend_from_slice(&request::line(word.as_str()));
        if word == Builtin::Resume {
            out.extend_from_slice(&request::line(resume::NEW));
            if !frames.is_empty() {
                out.extend_from_slice(&resume::data(frames.len()));
            }
        }
        out.extend_from_slice(&frames);
        server.send(&out)?;
        if with_login && !login::key_accepted(t, &mut server)? {
            if word == Builtin::Resume {
                server.link.begin_records_after(&frames);
            }
            abandon(&mut server.link, &mut mux, first.map(|(id, _)| id));
            return Ok(Begun::NotLoggedIn(server));
        }
        let reply = match server.read_line() {
            // It may close before its answer has arrived.
            Err(Error::Lost { .. }) if word == Builtin::Resume => return Ok(Begun::NoSuchWord),
            reply => reply?,
        };
        if reply::is(reply.as_bytes(), reply::NOT_AVAILABLE) {
            return Ok(Begun::NoSuchWord);
        }
        if !reply::is(reply.as_bytes(), reply::SUCCESS) {
            return Err(match reply.starts_with('-') {
                true => refused(t, word.as_str(), &reply),
                false => Error::NotFived { place: t.place(), reply },
            });
        }
        let mut resumable = None;
        if word == Builtin::Resume {
            let line = server.read_line()?;
            if reply::is(line.as_bytes(), reply::NOT_AVAILABLE) {
                // Only sessions that stand already can be resumed.
                return Ok(Begun::NoSuchWord);
            }
            let made = Made::read(line.as_bytes());
            let made = made.ok_or_else(|| refused(t, word.as_str(), &line))?;
            resumable = Some(Resumable::new(t, &server, made)?);
            server.link.begin_records_after(&frames);
        }
        let Server { mut link, gate, .. } = server;
        link.read_ahead();
        Ok(Begun::Session(Box::new(OpenSession { link, mux, first, gate, resumable })))
    }
}

impl Begun {
    fn session(self) -> Option<OpenSession> {
        match self {
            Begun::Session(session) => Some(*session),
            Begun::NotLoggedIn(_) | Begun::NoSuchWord => None,
        }
    }
}

/// Ends a session that is not wanted, with its first stream: the service would go on without a
/// caller, and a session that only loses its connection is kept.
fn abandon(link: &mut Link, mux: &mut Mux, first: Option<StreamId>) {
    let mut reset = Vec::new();
    if let Some(id) = first {
        mux.reset_at_once(id);
        mux.take_control(&mut reset);
    }
    // If the connection is broken, there is nobody to be told.
    let _ = link.send_parts(&[IoSlice::new(&reset)]);
    link.finish();
}

/// Makes data frames of bytes for which the window has space.
pub fn data(mux: &mut Mux, id: StreamId, bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(PIECE) {
        out.extend_from_slice(&mux.data(id, piece.len()));
        out.extend_from_slice(piece);
    }
}
