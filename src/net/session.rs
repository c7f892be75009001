//! A session: one thread that reads requests and runs built-ins, until a service has the connection
//! or the session ends.
//!
//! The same code serves a connection of its own and a stream of a MULTIPLEX session that changes
//! its own facts. The thread owns everything it touches: no locks. A session on a connection of its
//! own gives its thread back while it waits for its next request, or its service is silent
//! (`parked`).

use super::builtins::multiplex::{self, Served, Streams};
use super::builtins::{self, Next, ssl};
use super::channel::{self, Channel};
use super::end::End;
use super::idle_sessions::Noticed;
use super::lost::Lost;
use super::request::{self, Decision, Refusal, Where};
use super::session_state::{Copying, First, Parked, Session, Start};
use super::{parked, threads};
use crate::link::{BoundedLine, Records};
use crate::policy::Reached;
use crate::sys::{clock, socket};
use crate::wire::builtins::Builtin;
use crate::wire::orders::{Answer, Ask};
use crate::wire::reply;
use crate::wire::request::NAME_MAX;
use crate::wire::run::Way;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long a session keeps its thread while its client sends nothing. Most clients send their next
/// request at once.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// Starts a session and its thread.
pub fn begin(start: Start) {
    // Prompts and answers are small, and a client that has sent its lines ahead sends nothing in
    // between: none must wait for an acknowledgement. (The socket pair of a stream has no such
    // delay.)
    let _ = socket::set_nodelay(start.connection.as_fd(), true);
    if start.place == Where::Connection {
        // All bytes are read by the session itself. This fails for Multipath TCP, which has no such
        // option and no urgent bytes.
        let _ = socket::set_urgent_inline(start.connection.as_fd(), true);
    }
    let first = start.first;
    Parked::of(start).thread(Some(first));
}

impl parked::Resume for Parked {
    fn waits_for(&self) -> parked::Waits<'_> {
        let (link, channel) = (self.link.socket(), Some((self.channel.as_fd(), true)));
        let Some(relay) = &self.state.relay else {
            return [Some((link, true)), channel, None, None];
        };
        match &relay.copying {
            Copying::Bytes(connection, state) => {
                let [peer, local] = state.reads();
                let link = (link, peer && !self.link.eof());
                [Some(link), Some((connection.as_fd(), local)), None, None]
            }
            Copying::Records(state) => {
                let (peer, local) = state.reads();
                let [main, errors] = local.map(|local| local.map(|fd| (fd, true)));
                let link = (link, peer && !self.link.eof());
                [Some(link), main, errors, channel.filter(|_| !self.state.parent_gone)]
            }
        }
    }

    fn connection(&self) -> BorrowedFd<'_> {
        self.link.socket()
    }

    fn deadline(&self) -> Duration {
        self.state.request_deadline()
    }

    fn resume(self: Box<Self>) {
        self.thread(None);
    }
}

impl Parked {
    /// If no thread can be started the session ends. A client that has just begun, and does not
    /// expect TLS, is told that the service is busy.
    fn thread(self, first: Option<First>) {
        let started = threads::run_with(Box::new((self, first)), |begun| {
            let (parked, first) = *begun;
            parked.hold(Channel::install).run_thread(first);
        });
        let Err(begun) = started else { return };
        let (mut parked, first) = *begun;
        if first.is_some_and(|f| !f.is_tls()) {
            // As much as the socket takes: there is no thread that could wait.
            let _ = socket::send(parked.link.socket(), reply::BUSY);
        }
        parked.link.finish();
        // If this cannot be sent, the parent notices that the channel is closed.
        let _ = parked.channel.try_send(&Ask::End(End::System.data()));
    }
}

/// What a session's thread has come to.
enum Done {
    Ended(End),
    /// The session waits for a request, or its service is silent, and it needs no thread for that.
    Idle,
    /// The connection of a resumable session is lost, for this reason.
    Lost(End, Box<Streams>),
}

impl Session {
    /// Runs until the session ends or is parked.
    fn run_thread(mut self, first: Option<First>) {
        let done = self.run(first);
        self.done(done);
    }

    /// The session is parked, or has ended.
    fn done(mut self, done: Done) {
        let world = self.state.world.clone();
        match (done, &world.parking) {
            (Done::Idle, Some(parking)) => parking.park(Box::new(self.hold(Channel::release))),
            (Done::Idle, None) => {}
            (Done::Lost(why, streams), Some(_)) if self.state.guard.stays() => {
                match self.link.take_records() {
                    Some(records) => self.lost(why, streams, records),
                    None => self.end(why),
                }
            }
            (Done::Lost(why, mut streams), _) => {
                streams.abort(&self.channel);
                self.end(why);
            }
            (Done::Ended(end), _) => self.end(end),
        }
    }

    /// It waits for another connection.
    fn lost(mut self, why: End, streams: Box<Streams>, records: Box<Records>) {
        // What is on its way there is sent again.
        socket::abort(self.link.socket());
        self.state.guard.is_lost(true);
        if streams.is_anonymous() && !streams.serves() {
            self.state.guard.may_go(Noticed::Channel(self.channel.shared_socket()));
        }
        let kept = self.kept(streams.is_anonymous());
        Lost::new(self.with_link(()), (streams, records), (why, kept), Session::resumed).go_on();
    }

    /// It has another connection.
    fn resumed(mut self, streams: Box<Streams>) {
        let done = self.serve(streams);
        self.done(done);
    }

    fn serve(&mut self, streams: Box<Streams>) -> Done {
        match multiplex::serve(self, *streams) {
            Served::Ended(end) => self.ended(end),
            Served::Lost(why, streams) => Done::Lost(why, streams),
        }
    }

    /// The parent is told why the session has ended.
    fn end(mut self, end: End) {
        let evicted = self.state.guard.is_evicted();
        match if evicted { End::Evicted } else { end } {
            // A client that expects TLS, and has not finished its handshake, cannot read it; at a
            // service's own port no client expects a line.
            End::Full if self.state.facts.reached != Reached::ByName => {}
            End::Full => {
                // If the client does not take the reply, nothing follows from that.
                let _ = self.close_with(reply::BUSY);
            }
            // This fails if the parent is gone, which changes nothing.
            end => drop(self.channel.send(&Ask::End(end.data()))),
        }
        // The channel is closed before the connection: a client that sees its connection end may
        // begin another session at once, and the parent must be able to know by then that this one
        // has ended.
        channel::uninstall();
    }

    /// What its thread is to do, until it ends or needs none.
    fn run(&mut self, first: Option<First>) -> Done {
        self.makes_room(self.state.relay.is_some());
        let mut next = match first {
            Some(First::Builtin(b)) => Some(b),
            None => None,
            Some(First::Tls) => {
                // The handshake is no request.
                self.state.first_request = Some(self.soon());
                match ssl::encrypt(self) {
                    Ok(()) => None,
                    Err(end) => return Done::Ended(end),
                }
            }
            Some(First::TlsPort(port)) => {
                match ssl::encrypt(self).and_then(|()| self.at_port(port)) {
                    Ok(None) => None,
                    Ok(Some(end)) | Err(end) => return Done::Ended(end),
                }
            }
        };
        loop {
            self.makes_room(self.state.relay.is_some());
            if self.state.relay.is_some() {
                return match self.resume_relay() {
                    Ok(Some(end)) | Err(end) => Done::Ended(end),
                    Ok(None) => Done::Idle,
                };
            }
            let done = match next.take() {
                Some(b) => builtins::run(self, b, begin),
                None => match self.is_idle() {
                    Ok(true) => return Done::Idle,
                    Ok(false) => self.request(&mut next).map(Next::of),
                    Err(end) => Err(end),
                },
            };
            match done {
                Ok(Next::Request) => {}
                Ok(Next::Streams(streams)) => return self.serve(streams),
                Ok(Next::Ended(end)) | Err(end) => return self.ended(end),
            }
        }
    }

    /// The session ends; what its client still gets.
    fn ended(&mut self, end: End) -> Done {
        if end == End::System && self.state.place == Where::Stream {
            // The parent had no descriptor for the channel, or is gone. If the client does not take
            // the reply, nothing follows from that.
            let _ = self.write(reply::BUSY);
        }
        if matches!(end, End::Timeout | End::Drained | End::System) {
            // The connection is closed in order, but there is no time to wait until the client has
            // read everything.
            self.link.finish();
        }
        if end == End::Closed {
            // Its client has said in order that it sends no more; inside TLS it gets the same.
            self.link.send_close_notify();
        }
        Done::Ended(end)
    }

    /// Between two requests: has the client sent nothing for a while, and has nothing come that a
    /// thread must handle?
    fn is_idle(&mut self) -> Result<bool, End> {
        let until = clock::monotonic() + PARK_AFTER;
        if self.state.world.parking.is_none()
            || self.state.place != Where::Connection
            || until >= self.state.request_deadline()
        {
            return Ok(false);
        }
        match self.link.await_more(&*self.channel, until) {
            Err(End::Timeout) => Ok(true),
            ready => ready.map(|()| false),
        }
    }

    /// One request: HELP, a refusal, a service, or the built-in that is next.
    fn request(&mut self, next: &mut Option<Builtin>) -> Result<Option<End>, End> {
        let until = self.state.request_deadline();
        let line = self.link.read_line(&*self.channel, NAME_MAX, until)?;
        self.state.first_request = None;
        self.state.facts.minute = clock::minute_of_day();
        let (decision, text) = match line {
            BoundedLine::Line(line) => (self.decide(&line, &Way::Plain)?, line),
            BoundedLine::TooLong(_) => (request::too_long(), Vec::new()),
        };
        match self.within_limits(decision) {
            Decision::Builtin(b) => *next = Some(b),
            Decision::Help(bytes) => {
                self.close_with(&bytes)?;
                return Ok(Some(End::Closed));
            }
            Decision::Refuse { bytes, why } => {
                self.report_refusal(why, &text)?;
                self.close_with(&bytes)?;
                return Ok(Some(End::Refused));
            }
            // The name has already been looked up.
            Decision::LookUp => return Err(End::System),
            Decision::Start(service) => return self.start(service, Way::Plain),
        }
        Ok(None)
    }

    /// Where all places are taken a session may resume another one, and hear what HELP says.
    fn within_limits(&self, decision: Decision) -> Decision {
        match (decision, self.spare()) {
            (resumes @ Decision::Builtin(Builtin::Resume), _) => resumes,
            (Decision::Builtin(_) | Decision::Start(_), Some(full)) => {
                request::no_session_left(full)
            }
            (decision, _) => decision,
        }
    }

    /// The name after RUN: a refusal, or a service.
    pub(super) fn run_service(&mut self, name: &[u8], way: Way) -> Result<Option<End>, End> {
        self.state.facts.minute = clock::minute_of_day();
        match self.decide(name, &way)? {
            Decision::Start(service) => self.start(service, way),
            Decision::Refuse { bytes, why } => {
                self.report_refusal(why, name)?;
                self.close_with(&bytes)?;
                Ok(Some(End::Refused))
            }
            // The name has already been looked up, and no built-in has a name here.
            Decision::LookUp | Decision::Builtin(_) | Decision::Help(_) => Err(End::System),
        }
    }

    /// Decides about a request line. Where that needs the name of the client's address, the parent
    /// is asked for it, and answers within seconds.
    fn decide(&mut self, line: &[u8], way: &Way) -> Result<Decision, End> {
        let decision =
            request::decide(&self.state.world, &self.state.facts, self.state.place, line, way);
        let Decision::LookUp = decision else { return Ok(decision) };
        self.look_up_name()?;
        Ok(request::decide(&self.state.world, &self.state.facts, self.state.place, line, way))
    }

    /// Asks the parent for the name of the client's address.
    fn look_up_name(&mut self) -> Result<(), End> {
        let Answer::Name(name) = self.channel.ask(&Ask::Name)? else {
            return Err(End::System);
        };
        self.state.facts.peer_name = request::named(name);
        Ok(())
    }

    /// After the handshake at a services' own port: the server name has chosen the host, and with
    /// it the service.
    fn at_port(&mut self, port: u32) -> Result<Option<End>, End> {
        let world = self.state.world.clone();
        let port = world.tls_ports.get(port as usize).ok_or(End::System)?;
        let (service, host) = port.choose(self.state.facts.host).ok_or(End::System)?;
        (self.state.facts.host, self.state.facts.minute) = (host, clock::minute_of_day());
        if world.table.service_asks_name(service, &self.state.facts) {
            self.look_up_name()?;
        }
        if let Err(denied) = world.table.usable(service, &self.state.facts)
            && !world.table.is_sensor_for(service, &self.state.facts)
        {
            let reason = request::Reason::Denied(denied);
            self.report_refusal(Some(Refusal { service: Some(service), reason }), b"")?;
            self.close_with(b"")?;
            return Ok(Some(End::Refused));
        }
        self.start(service, Way::Plain)
    }

    pub(super) fn report_refusal(&self, why: Option<Refusal>, name: &[u8]) -> Result<(), End> {
        if let Some(why) = why {
            self.channel.send(&Ask::Refused(request::refused(&self.state.facts, why, name)))?;
        }
        Ok(())
    }
}
