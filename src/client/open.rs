//! A new session: connection, SSL, login, MULTIPLEX and the first call's request.
//!
//! Everything is sent as early as it can be: the first key's login, MULTIPLEX and the request go
//! with TLS's last message, so that a service answers after the round trips of TCP, of TLS, and its
//! own. Input is not sent before a login has succeeded: if it failed, a service without a user
//! would read it. After a failed login the connection is dropped, and further keys or a password
//! are tried on a new one, with a round trip each.

use super::dial::Connect;
use super::error::Error;
use super::keys::{self, Key};
use super::messages;
use super::offer::{Offered, Origin};
use super::server::{self, Server};
use super::target::Target;
use crate::link::Link;
use crate::sys::clock;
use crate::wire::answer::Answer;
use crate::wire::builtins::{Builtin, HELP};
use crate::wire::pubkey::{self, Kind};
use crate::wire::run::{self, Way};
use crate::wire::yamux::{Mux, PIECE, StreamId};
use crate::wire::{reply, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Keys offered on one connection: the server ends it after `pubkey_tries` (10) that are not the
/// user's.
const KEYS_MAX: usize = 9;
/// How often a password is asked for, as in ssh(1); the server's `login_tries` is the same.
const PASSWORDS: usize = 3;
/// Lines that a server may send around its prompts.
const LINES_MAX: usize = 200;
/// A prompt is taken to be complete when nothing more comes for this long.
const PROMPT_SILENCE: Duration = Duration::from_millis(250);

/// What a call requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Empty: the session's host.
    pub host: String,
    /// None: HELP.
    pub service: Option<String>,
    /// How the service is requested.
    pub way: Way,
    /// The service is not used but offered.
    pub offered: Option<Offered>,
}

impl Request {
    /// The answer that is expected before the service's own bytes.
    pub fn answer(&self) -> Answer {
        let host = !self.host.is_empty();
        match (&self.offered, self.way.is_run()) {
            (Some(_), _) => Answer::offer(host),
            (None, true) => Answer::to_run(host),
            (None, false) => Answer::new(host, self.service.is_none()),
        }
    }

    /// The lines with which a stream begins.
    pub fn lines(&self) -> Vec<u8> {
        let host = match self.host.as_str() {
            "" => Vec::new(),
            host => [request::line(Builtin::Host.as_str()), request::line(host)].concat(),
        };
        let (before, name) = match (&self.offered, self.way.is_run()) {
            (Some(_), _) => (request::line(Builtin::Offer.as_str()), request::line(self.name())),
            (None, true) => {
                let name = run::line(self.name(), self.way.terminal());
                (request::line(Builtin::Run.as_str()), name)
            }
            (None, false) => (Vec::new(), request::line(self.name())),
        };
        [host, before, name].concat()
    }

    /// Who asked for the offer, if it is one.
    pub fn origin(&self) -> Option<Origin> {
        self.offered.as_ref().map(|o| o.origin)
    }

    /// The name that is requested.
    pub fn name(&self) -> &str {
        self.service.as_deref().unwrap_or(HELP)
    }
}

/// A session that has been made.
pub struct OpenSession {
    pub link: Link,
    pub mux: Mux,
    /// The stream on which the first request was sent.
    pub first: Option<(StreamId, Request)>,
    /// See [`Connection::gate`](super::dial::Connection::gate).
    pub gate: Option<OwnedFd>,
}

/// Opens a session, with the request of the first call if there is one.
pub fn open(t: &Target, connect: Connect, first: Option<&Request>) -> Result<OpenSession, Error> {
    let server = server::open(t, connect)?;
    let Some(user) = t.user.as_deref() else {
        return start_multiplex(t, server, Vec::new(), first).map(|(session, _)| session);
    };
    let keys = keys::of(t);
    let mut tried = Vec::new();
    let mut rest = keys.iter();
    for key in rest.by_ref() {
        match login_line(&server, user, key) {
            Err(why) => tried.push(format!("{}: {why}", key.name())),
            Ok(line) => {
                let (mut session, accepted) = start_multiplex(t, server, line, first)?;
                if accepted {
                    messages::step(&format!("logged in with {}", key.name()));
                    return Ok(session);
                }
                tried.push(format!("{}: not accepted", key.name()));
                // Nobody is logged in on this session: the first request on it does not count.
                session.link.send_close_notify();
                drop(session);
                let server = server::open(t, connect)?;
                return one_by_one(t, server, user, rest.as_slice(), tried, first);
            }
        }
    }
    one_by_one(t, server, user, &[], tried, first)
}

/// `PUBKEY` and its line. They are sent before the challenge has come, because both ends know it.
fn login_line(server: &Server, user: &str, key: &Key) -> Result<Vec<u8>, String> {
    let challenge = STANDARD.encode(server.challenge().map_err(|e| e.to_string())?);
    let signature = key.sign(&pubkey::text(Kind::Tls, user.as_bytes(), &challenge))?;
    let answer = request::line(&pubkey::answer(user, &signature));
    Ok([request::line(Builtin::Pubkey.as_str()), answer].concat())
}

/// Keys one after the other, then passwords.
fn one_by_one(
    t: &Target,
    mut server: Server,
    user: &str,
    keys: &[Key],
    mut tried: Vec<String>,
    first: Option<&Request>,
) -> Result<OpenSession, Error> {
    let mut logged_in = false;
    for key in keys.iter().take(KEYS_MAX) {
        match login_line(&server, user, key) {
            Err(why) => tried.push(format!("{}: {why}", key.name())),
            Ok(line) => {
                server.send(&line)?;
                logged_in = pubkey_accepted(t, &mut server)?;
                if logged_in {
                    messages::step(&format!("logged in with {}", key.name()));
                    break;
                }
                tried.push(format!("{}: not accepted", key.name()));
            }
        }
    }
    if !logged_in && keys.len() > KEYS_MAX {
        tried.push(format!(
            "{} more keys were not tried, -i names the right one",
            keys.len() - KEYS_MAX
        ));
    }
    if !logged_in && !by_password(t, &mut server, user, &mut tried)? {
        server.link.send_close_notify();
        let tried = if tried.is_empty() {
            "no key, and no terminal to ask for a password".into()
        } else {
            tried.join("; ")
        };
        return Err(Error::Login { who: t.who(), tried });
    }
    start_multiplex(t, server, Vec::new(), first).map(|(session, _)| session)
}

/// Sends at once everything that begins a session, then reads the answers. Also returns whether the
/// login was accepted (true without a login).
fn start_multiplex(
    t: &Target,
    mut server: Server,
    login: Vec<u8>,
    first: Option<&Request>,
) -> Result<(OpenSession, bool), Error> {
    let now = clock::monotonic();
    // The holder watches whether the server still answers.
    let mut mux = Mux::client(Duration::ZERO, now);
    let with_login = !login.is_empty();
    let mut out = login;
    out.extend_from_slice(&request::line(Builtin::Multiplex.as_str()));
    let first = first.and_then(|request| Some((mux.open(now)?, request.clone())));
    mux.take_control(&mut out);
    if let Some((id, request)) = &first {
        data(&mut mux, *id, &request.lines(), &mut out);
    }
    server.send(&out)?;
    let accepted = !with_login || pubkey_accepted(t, &mut server)?;
    if accepted {
        let reply = server.read_line()?;
        if !reply::is(reply.as_bytes(), reply::SUCCESS) {
            return Err(refused(t, Builtin::Multiplex.as_str(), &reply));
        }
    }
    Ok((OpenSession { link: server.link, mux, first, gate: server.gate }, accepted))
}

/// Makes data frames of bytes for which the window has space.
pub fn data(mux: &mut Mux, id: StreamId, bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(PIECE) {
        out.extend_from_slice(&mux.data(id, piece.len()));
        out.extend_from_slice(piece);
    }
}

/// The two lines that answer PUBKEY.
fn pubkey_accepted(t: &Target, server: &mut Server) -> Result<bool, Error> {
    let reply = server.read_line()?;
    let challenge = reply::read_challenge(&reply)
        .ok_or_else(|| refused(t, Builtin::Pubkey.as_str(), &reply))?;
    let ours = STANDARD.encode(server.challenge()?);
    if challenge != ours {
        let why = "its challenge is another connection's: somebody is in between".into();
        return Err(Error::Tls { place: t.place(), why });
    }
    is_success(t, &server.read_line()?)
}

fn is_success(t: &Target, reply: &str) -> Result<bool, Error> {
    reply::read_login(reply).ok_or_else(|| refused(t, "the login", reply))
}

fn refused(t: &Target, what: &'static str, reply: &str) -> Error {
    let reply = reply.trim_start_matches('-').trim_start().to_string();
    Error::Refused { place: t.place(), what, reply }
}

/// AUTH: the person answers the server's prompts. False: nobody can be asked, or all attempts
/// failed.
fn by_password(
    t: &Target,
    server: &mut Server,
    user: &str,
    tried: &mut Vec<String>,
) -> Result<bool, Error> {
    for _ in 0..PASSWORDS {
        server.send(&request::line(Builtin::Auth.as_str()))?;
        let reply = server.read_line()?;
        if !reply::is(reply.as_bytes(), reply::SUCCESS) {
            return Err(refused(t, Builtin::Auth.as_str(), &reply));
        }
        match dialogue(t, server, user)? {
            None => {
                tried.push("no terminal to ask for a password".into());
                return Ok(false);
            }
            Some(true) => {
                messages::step("logged in with a password");
                return Ok(true);
            }
            Some(false) => messages::info(&format!("{}: not accepted", t.who())),
        }
    }
    tried.push("password: not accepted".into());
    Ok(false)
}

/// One AUTH dialogue. None: nobody can be asked.
fn dialogue(t: &Target, server: &mut Server, user: &str) -> Result<Option<bool>, Error> {
    let mut named = false;
    for _ in 0..LINES_MAX {
        match server.prompt(PROMPT_SILENCE)? {
            (line, true) if line.starts_with('-') => return is_success(t, &line).map(Some),
            // After the answer to a prompt the server may end the prompt's line.
            (line, true) if line.is_empty() => {}
            (line, true) => match reply::find_login(&line) {
                Some(at) => return is_success(t, &line[at..]).map(Some),
                None => messages::info(&line),
            },
            (_, false) if !named => {
                named = true;
                server.send(&request::line(user))?;
            }
            (prompt, false) => {
                let Some(mut secret) = keys::secret(&format!("({}) {} ", t.who(), prompt.trim()))?
                else {
                    return Ok(None);
                };
                let mut line = [&secret[..], b"\r\n"].concat();
                let reply = server.send(&line);
                // No copy of the password stays in this process or in the holder forked from it.
                secret.fill(0);
                line.fill(0);
                std::hint::black_box((&secret, &line));
                reply?;
            }
        }
    }
    Err(refused(t, Builtin::Auth.as_str(), "it asks and tells without end"))
}
