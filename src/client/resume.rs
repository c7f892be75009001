//! How a session whose connection was lost goes on, on another one (RESUME): what must be known for
//! that, and one attempt to do it. An attempt waits for the network, so it has a thread of its own;
//! nobody is asked anything.

use super::channel;
use super::dial::{self, Connection};
use super::error::Error;
use super::gate;
use super::server::{self, Server};
use super::target::{Gate, Target};
use crate::link::Link;
use crate::sys::{process, retransmit, socket};
use crate::wire::builtins::Builtin;
use crate::wire::labels::RESUME_EXPORTER;
use crate::wire::resume::{self, Claim, Id, KEY, Made};
use crate::wire::{reply, request};
use ring::hmac;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long connecting may take, and each answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// What a session needs to be resumed.
pub struct Resumable {
    target: Target,
    id: Id,
    /// How long the server keeps it.
    pub kept: Duration,
    /// What proves that it is ours.
    key: [u8; KEY],
    server_key: String,
    /// Where the server was found. None: it is reached through a gate.
    server: Option<SocketAddr>,
}

/// A connection on which the session goes on.
pub struct Resumed {
    pub link: Link,
    /// See [`Connection::gate`].
    pub gate: Option<OwnedFd>,
    /// How many bytes of data the server has had.
    pub received: u64,
}

/// What came of an attempt.
pub enum Outcome {
    Resumed(Box<Resumed>),
    /// The server has the session no longer.
    Gone,
    /// It may succeed later; why it failed. `distrust`: what answers there is not the server that
    /// was meant.
    Failed {
        why: String,
        distrust: bool,
    },
}

impl Outcome {
    pub fn failed(why: &str) -> Outcome {
        Outcome::Failed { why: why.into(), distrust: false }
    }

    fn of(e: &Error) -> Outcome {
        Outcome::Failed { why: e.to_string(), distrust: e.is_distrust() }
    }
}

/// How far an attempt is. Only one may claim the session at a time: the server counts a claim that
/// is out of date as a false one.
#[derive(Debug, Default)]
pub struct AttemptState(AtomicU8);

const CONNECTING: u8 = 0;
const CLAIMING: u8 = 1;
const GIVEN_UP: u8 = 2;

impl AttemptState {
    fn leave_for(&self, to: u8) -> bool {
        let order = Ordering::SeqCst;
        self.0.compare_exchange(CONNECTING, to, order, order).is_ok()
    }

    /// Gives the attempt up, unless it claims the session already. True: it does nothing more.
    pub fn give_up(&self) -> bool {
        self.leave_for(GIVEN_UP)
    }
}

impl Resumable {
    /// Of a session that was made on this connection.
    pub fn new(t: &Target, server: &Server, made: Made) -> Result<Resumable, Error> {
        retransmit::often(server.link.socket());
        Ok(Resumable {
            target: t.clone(),
            id: made.id,
            kept: Duration::from_secs(made.seconds),
            key: server.exported(RESUME_EXPORTER)?,
            server_key: server.key.clone(),
            server: socket::peer(server.link.socket()).ok(),
        })
    }

    /// Tries to go on, on a new connection. `received`: how many bytes of data this side has had.
    /// `resolve`: if the server does not answer where it was found before, it is looked for.
    pub fn attempt(&self, received: u64, resolve: bool, state: &AttemptState) -> Outcome {
        let connect = || self.connect(resolve);
        match server::open_again(&self.target, &connect, ANSWER_TIMEOUT, &self.server_key) {
            Ok(_) if !state.leave_for(CLAIMING) => Outcome::failed("it was given up"),
            Ok(server) => self.claim(server, received).unwrap_or_else(|e| Outcome::of(&e)),
            Err(e) => Outcome::of(&e),
        }
    }

    fn connect(&self, resolve: bool) -> Result<Connection, Error> {
        let t = &self.target;
        let direct = |socket| Connection { socket, gate: None };
        match (&t.gate, self.server) {
            (Some(hop), _) => through(hop),
            (None, Some(known)) => {
                dial::connect_again(t, known, resolve, ANSWER_TIMEOUT).map(direct)
            }
            (None, None) => dial::connect(t).map(direct),
        }
    }

    /// The dialogue.
    fn claim(&self, mut server: Server, received: u64) -> Result<Outcome, Error> {
        let exporter = server.exported(RESUME_EXPORTER)?;
        let text = resume::proof_text(self.id, received, &exporter);
        let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.key), text.as_bytes());
        let proof = made.as_ref().try_into().expect("HMAC-SHA-256 is as long as a key");
        let claim = Claim { id: self.id, received, proof };
        let word = request::line(Builtin::Resume.as_str());
        server.send(&[&word[..], claim.line().as_bytes()].concat())?;
        let refused = |reply: String| Outcome::failed(&format!("the server says {reply:?}"));
        let elsewhere =
            self.server.is_some() && self.server != socket::peer(server.link.socket()).ok();
        let reply = server.read_line()?;
        if reply::is(reply.as_bytes(), reply::NOT_AVAILABLE) && !elsewhere {
            // It keeps no lost sessions any more.
            return Ok(Outcome::Gone);
        }
        if !reply::is(reply.as_bytes(), reply::SUCCESS) {
            return Ok(refused(reply));
        }
        let reply = server.read_line()?;
        Ok(match resume::read_resumed(reply.as_bytes()) {
            Some(received) => {
                let Server { link, gate, .. } = server;
                retransmit::often(link.socket());
                Outcome::Resumed(Box::new(Resumed { link, gate, received }))
            }
            // At another address of the same name there may be another server.
            None if reply::is(reply.as_bytes(), reply::NO_SUCH_SESSION) && !elsewhere => {
                Outcome::Gone
            }
            None => refused(reply),
        })
    }
}

/// Connects through a gate's session. If there is none any more, another five makes it.
fn through(hop: &Gate) -> Result<Connection, Error> {
    let (t, path) = (&hop.target, hop.target.socket()?);
    let request = gate::request(t, &hop.service);
    for made in [false, true] {
        if let Some(found) = channel::find(&path)?
            && let Some(connection) = gate::enter(t, found, &request)?
        {
            return Ok(connection);
        }
        if !made {
            make(t)?;
        }
    }
    Err(Error::NoSession { place: t.who() })
}

/// Runs a five that makes a session and leaves it to a holder. It has no terminal, and asks nobody.
pub fn make(t: &Target) -> Result<(), Error> {
    let mut five = Command::new(OsStr::from_bytes(process::own_link().to_bytes()));
    five.args(["-q", "-n", "-p", &t.port.to_string(), "-l", t.user.as_deref().unwrap_or("")]);
    match t.spelled_way() {
        way if way.is_empty() => five.args(["-J", "none"]),
        way => five.args(["-J", &way]),
    };
    // The holder has another working directory than the five in which they were typed.
    for file in t.identities.iter().filter(|file| file.is_absolute()) {
        five.arg("-i").arg(file);
    }
    five.arg(&t.typed).env("SSH_ASKPASS_REQUIRE", "never");
    five.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Whether it has succeeded is seen by whether there is a session.
    five.status().map(drop).map_err(Error::system("five"))
}
