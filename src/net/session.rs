//! A session: one thread, one dialogue, until a service has the connection or it ends.
//!
//! The same dialogue serves a connection of its own and a stream of a MULTIPLEX session that changes its own facts. It owns
//! all it touches: no locks.

use super::World;
use super::channel::Channel;
use super::multiplex;
use super::relay;
use super::request::{self, Judged, Refusal, Where};
use super::transport::{End, Said, Transport};
use crate::policy::{Facts, HostId, ServiceId};
use crate::sys::{clock, process, socket};
use crate::wire::orders::{Answer, Ask, Data};
use crate::wire::reply;
use crate::wire::request::{Builtin, DIALOGUE_MAX, NAME_MAX};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a session's stack: a handshake needs a tenth of it; what it does not touch costs nothing.
const STACK: usize = if cfg!(debug_assertions) { 1024 * 1024 } else { 256 * 1024 };

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Builtin(Builtin),
    /// A handshake, without the word SSL.
    Tls,
    /// Any request.
    Request,
}

/// What a new thread is given.
pub struct Start {
    pub world: Arc<World>,
    pub connection: OwnedFd,
    pub peer: SocketAddr,
    pub facts: Facts,
    pub channel: OwnedFd,
    pub place: Where,
    pub first: First,
    /// Set when somebody logs in: a stream's login lets its whole session have more streams.
    pub known: Arc<AtomicBool>,
}

/// One session more stands, for as long as this lives.
struct Standing(Arc<World>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Starts a session's thread. Where the system has none left, a client that can read is told that it is busy.
pub fn begin(start: Start) {
    let world = start.world.clone();
    world.sessions.fetch_add(1, Ordering::AcqRel);
    let standing = Standing(world);
    let given = Arc::new(Mutex::new(Some(start)));
    let taken = given.clone();
    let take = |g: &Mutex<Option<Start>>| g.lock().unwrap_or_else(PoisonError::into_inner).take();
    let thread = std::thread::Builder::new().name("session".into()).stack_size(STACK);
    let spawned = thread.spawn(move || {
        let _standing = standing;
        if let Some(start) = take(&taken) {
            Session::of(start);
        }
    });
    let Err(e) = spawned else { return };
    log::debug!("a session's thread: {e}");
    if let Some(start) = take(&given).filter(|s| s.first != First::Tls) {
        // As far as it goes: there is no room to wait in.
        let _ = socket::send(start.connection.as_fd(), reply::BUSY);
    }
}

/// A session's whole state.
pub struct Session {
    pub world: Arc<World>,
    pub channel: Rc<Channel>,
    pub transport: Transport,
    pub peer: SocketAddr,
    pub facts: Facts,
    pub place: Where,
    /// When it must have chosen.
    pub deadline: Duration,
    /// Tries that failed: by password, by key.
    pub tries: [u32; 2],
    pub known: Arc<AtomicBool>,
    tag: u32,
}

impl Session {
    fn of(start: Start) {
        let channel = Channel::install(start.channel);
        let deadline = clock::monotonic() + start.world.table.settings.login_timeout;
        let mut session = Session {
            world: start.world,
            channel: channel.clone(),
            transport: Transport::Plain(start.connection),
            peer: start.peer,
            facts: start.facts,
            place: start.place,
            deadline,
            tries: [0; 2],
            known: start.known,
            tag: 0,
        };
        // Prompts and answers are small, and a client that sent its lines ahead has nothing to say in between: none waits for an
        // acknowledgement. (A branch's socket pair has no such delay.)
        let _ = socket::set_nodelay(session.transport.socket(), true);
        let end = session.run(start.first);
        // A parent that is gone needs no word.
        let _ = channel.tell(&Ask::End(Data::cut(end.as_str().as_bytes())), &[]);
    }

    fn run(&mut self, first: First) -> End {
        let mut next = match first {
            First::Builtin(b) => Some(b),
            First::Request => None,
            First::Tls => match self.encrypt() {
                Ok(()) => None,
                Err(end) => return end,
            },
        };
        loop {
            let done = match next.take() {
                Some(b) => self.builtin(b),
                None => self.request(&mut next),
            };
            match done {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(end) => {
                    if matches!(end, End::Timeout | End::Drained) {
                        // Who waits in vain is let go in order.
                        let _ = socket::shutdown_write(self.transport.socket());
                    }
                    return end;
                }
            }
        }
    }

    /// A time by which what is written must be taken.
    pub fn soon(&self) -> Duration {
        clock::monotonic() + self.world.table.settings.request_timeout
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let soon = self.soon();
        self.transport.write(&self.channel, bytes, soon)
    }

    /// The next line of a dialogue. One that is too long ends the session.
    pub fn line(&mut self, max: usize) -> Result<Vec<u8>, End> {
        match self.transport.read_line(&self.channel, max, self.deadline)? {
            Said::Line(line) => Ok(line),
            Said::TooLong => {
                self.last_word(reply::TOO_LONG)?;
                Err(End::Refused)
            }
        }
    }

    /// Says something, and ends in order.
    pub fn last_word(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.write(bytes)?;
        self.transport.farewell();
        Ok(())
    }

    /// One request: HELP, a refusal, a service, or the built-in that is next.
    fn request(&mut self, next: &mut Option<Builtin>) -> Result<Option<End>, End> {
        let said = self.transport.read_line(&self.channel, NAME_MAX, self.deadline)?;
        self.facts.minute = clock::minute_of_day();
        let (judged, text) = match said {
            Said::Line(line) => (request::judge(&self.world, &self.facts, self.place, &line), line),
            Said::TooLong => (request::too_long(), Vec::new()),
        };
        match judged {
            Judged::Builtin(b) => *next = Some(b),
            Judged::Help(bytes) => {
                self.last_word(&bytes)?;
                return Ok(Some(End::Closed));
            }
            Judged::Refuse { bytes, why } => {
                self.note(why, &text)?;
                self.last_word(&bytes)?;
                return Ok(Some(End::Refused));
            }
            Judged::Start(service) => return self.start(service).map(Some),
        }
        Ok(None)
    }

    fn note(&self, why: Option<Refusal>, name: &[u8]) -> Result<(), End> {
        if let Some(why) = why {
            self.channel.tell(&Ask::Refused(request::refused(&self.facts, self.peer, why, name)), &[])?;
        }
        Ok(())
    }

    /// The service has the connection: the very descriptor where it is plain, a relay where it is not.
    fn start(&mut self, service: ServiceId) -> Result<End, End> {
        self.tag += 1;
        let ask = Ask::Start { service: service.0, host: self.facts.host.0, tag: self.tag };
        let near = match &self.transport {
            Transport::Plain(fd) => {
                // As any other connection's.
                let _ = socket::set_nodelay(fd.as_fd(), false);
                let answer = self.channel.ask(&ask, &[fd.as_fd()])?;
                return self.started(service, &answer).map(|_| End::Closed);
            }
            Transport::Tls(_) => {
                let (near, far) = socket::pair().map_err(|_| End::System)?;
                let answer = self.channel.ask(&ask, &[far.as_fd()])?;
                drop(far);
                if !self.started(service, &answer)? {
                    return Ok(End::Refused);
                }
                near
            }
        };
        let Transport::Tls(encrypted) = &mut self.transport else { return Err(End::System) };
        let (end, to, from) = relay::run(encrypted, &near);
        drop(near);
        if end == End::Closed {
            self.transport.farewell();
        }
        self.channel.tell(&Ask::Tally { tag: self.tag, to, from }, &[])?;
        Ok(end)
    }

    fn started(&mut self, service: ServiceId, answer: &Answer) -> Result<bool, End> {
        match answer {
            Answer::Started { .. } => Ok(true),
            Answer::Refused { why, .. } => {
                let bytes = request::not_started(&self.world, service, *why);
                self.last_word(&bytes)?;
                Ok(false)
            }
            _ => Err(End::System),
        }
    }

    // Built-ins.

    fn builtin(&mut self, b: Builtin) -> Result<Option<End>, End> {
        match b {
            Builtin::Host => self.host().map(|()| None),
            Builtin::Auth => self.auth().map(|()| None),
            Builtin::Pubkey => self.pubkey().map(|()| None),
            Builtin::Ssl => {
                self.write(reply::SUCCESS)?;
                self.encrypt().map(|()| None)
            }
            Builtin::Multiplex => {
                self.write(reply::SUCCESS)?;
                Ok(Some(multiplex::run(self)))
            }
        }
    }

    /// HOST: chooses a virtual host; an empty line goes back to the default.
    fn host(&mut self) -> Result<(), End> {
        self.write(reply::SUCCESS)?;
        self.write(reply::WHICH_HOST)?;
        let name = self.line(DIALOGUE_MAX)?;
        let found = if name.is_empty() { Some(HostId::DEFAULT) } else { self.world.table.host_named(&name) };
        let answer = match found.and_then(|id| Some((id, self.world.table.host(id)?))) {
            Some((id, host)) => {
                self.facts.host = id;
                reply::host_selected(&host.name)
            }
            None => reply::NO_SUCH_HOST.to_vec(),
        };
        self.write(&answer)
    }

    /// SSL, or a handshake from the first byte: afterwards the session is nobody's, in the host that the client named.
    fn encrypt(&mut self) -> Result<(), End> {
        let soon = self.soon();
        let world = self.world.clone();
        let tls = world.tls.as_ref().ok_or(End::Tls)?;
        let (a, b) = socket::pair().map_err(|_| End::System)?;
        drop(b);
        // A place holder, for as long as the handshake owns the connection.
        let plain = std::mem::replace(&mut self.transport, Transport::Plain(a));
        self.transport = plain.encrypt(tls, &self.channel, soon)?;
        let Transport::Tls(e) = &self.transport else { return Err(End::Tls) };
        let name = e.tls.server_name().unwrap_or("").to_string();
        let suite = e.tls.negotiated_cipher_suite().map_or(0, |s| u16::from(s.suite()));
        self.facts.encrypted = true;
        self.facts.login = None;
        self.facts.host = self.world.table.host_named(name.as_bytes()).unwrap_or(HostId::DEFAULT);
        self.channel.tell(&Ask::Encrypted { suite, name: Data::cut(name.as_bytes()) }, &[])?;
        process::release_unused_stack();
        Ok(())
    }
}
