//! What becomes of a start: it is waited for, remembered or refused, told of and answered.
//!
//! Nothing waits long. A start that is late (stopped, or with a file system that hangs in its way)
//! is looked after now and then, while everything goes on; killed, it did not start.

use super::children::{Role, Running};
use super::config::Config;
use super::nets;
use super::run::{Parent, Timer};
use super::start::{From, Starting, Told};
use crate::log::Event;
use crate::policy::{Service, ServiceId, Ticket};
use crate::sys::shared::Shared;
use crate::sys::spawn::{Child, Failure, Flight, LOOK_AFTER, Launch, Stage};
use crate::wire::orders::{Answer, ToNet, Why};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

impl Parent {
    /// Lands all that are over, and waits for one that is not; what was waited for in vain is
    /// looked after.
    pub fn settle(&mut self) {
        self.land();
        self.flights.iter_mut().filter(|f| f.is_late()).for_each(Flight::look_after);
        if self.flights.iter().any(|f| !f.is_late()) {
            self.wait_for_one();
        }
    }

    /// How long the loop may wait for something else.
    pub fn settled_for(&self) -> Option<Duration> {
        let late = self.flights.iter().all(Flight::is_late);
        (!self.flights.is_empty()).then_some(if late { LOOK_AFTER } else { Duration::ZERO })
    }

    /// What is in the air lands, or proves to be late.
    pub fn settle_all(&mut self) {
        self.land();
        while self.settled_for() == Some(Duration::ZERO) {
            self.settle();
        }
    }

    pub fn wait_for_one(&mut self) {
        let first = self.flights.iter().position(|f| !f.is_late()).unwrap_or(0);
        if let Some(f) = self.flights.get_mut(first) {
            f.wait();
        }
        self.land();
    }

    /// Lands all that are over.
    pub fn land(&mut self) {
        while let Some(n) = self.flights.iter().position(Flight::is_over) {
            let flight = self.flights.remove(n);
            self.landed(flight, false);
        }
    }

    /// The child whose end was just heard of may be one of which we did not know yet that it ran.
    pub fn land_reaped(&mut self, pid: i32) {
        if let Some(n) = self.flights.iter().position(|f| f.pid() == Some(pid)) {
            let flight = self.flights.remove(n);
            self.landed(flight, true);
        }
    }

    /// It runs, or it does not.
    pub fn landed(&mut self, flight: Flight<Starting>, reaped: bool) {
        // The service's socket is closed below.
        self.interrupt.want();
        let (starting, result) = flight.land(&mut self.spawner, reaped);
        let no = result.map_err(|f| no_start(f, &starting.launch()));
        let Starting { config, service, ticket, connection, told, .. } = *starting;
        match no {
            Ok(child) => self.runs(config, service, ticket, told, child, &connection),
            Err(no) => {
                self.limits.release(ticket);
                if let From::Session(stream) = told.from {
                    self.children.early.remove(&stream);
                }
                self.refuse(&config, service, &told, no, &connection);
            }
        }
    }

    fn runs(
        &mut self,
        config: Rc<Config>,
        id: ServiceId,
        ticket: Ticket,
        told: Told,
        child: Child,
        connection: &Shared,
    ) {
        self.counters.starts += 1;
        let (pid, started) = (child.pid, told.at);
        ::log::debug!(
            "pid {pid} runs {:?} after it was asked for",
            self.now.saturating_sub(started)
        );
        if let Some(service) = config.table.service(id) {
            note_start(service, pid, &told);
        }
        let seconds = config.table.service(id).and_then(|s| s.attributes.server_timeout);
        let until = seconds.map(|s| started + Duration::from_secs(s.into()));
        if let Some(until) = until {
            self.at(until, Timer::Terminate { pid, started });
        }
        let (stream, traffic) = match told.from {
            // A session that has ended meanwhile counts no bytes of it any more.
            From::Session(s) => (
                Some(s).filter(|s| self.sessions.contains_key(&s.0)),
                self.children.early.remove(&s),
            ),
            From::Net(_) => (None, None),
        };
        let lingers = matches!(told.from, From::Net(_))
            && config.table.service(id).is_some_and(|s| s.attributes.lingering_close);
        // Without a descriptor for it the client's end is the service's, as it is without the
        // attribute.
        let lingers = if lingers {
            Shared::copy(connection.as_fd())
                .inspect_err(|e| ::log::debug!("lingering_close: {e}"))
                .ok()
        } else {
            None
        };
        let Told { host, peer, number: session, user, from, .. } = told;
        let ticket = Some(ticket);
        let running = Running {
            child,
            config,
            service: id,
            ticket,
            host,
            peer,
            session,
            user,
            stream,
            started,
            until,
            traffic,
            lingers,
            condemned: false,
        };
        self.children.add(pid, Role::Service(Box::new(running)));
        self.answer(from, id, Ok(()), connection);
    }

    /// A service has ended whose client is to be heard out: a net process does that. Where none
    /// serves now the connection just ends.
    pub fn linger(&mut self, socket: &Shared) {
        let Some(token) = self.serving() else { return };
        let Some(net) = self.nets.get_mut(&token) else { return };
        if let Err(why) =
            net.channel.send(self.poll.registry(), &ToNet::Linger, Some(socket.as_fd()))
        {
            self.broken(token, why);
        }
    }

    fn answer(
        &mut self,
        to: From,
        service: ServiceId,
        outcome: Result<(), Why>,
        connection: &Shared,
    ) {
        let (token, sent) = match (to, outcome) {
            (From::Net(_), Ok(())) => return,
            (From::Net(token), Err(why)) => {
                // One that drains does not wait for what it gave away. Another has another table,
                // which does not know this service.
                let (token, service) = match self.nets.get(&token) {
                    Some(_) => (token, service.0),
                    None => (self.serving().unwrap_or(token), u32::MAX),
                };
                let Some(net) = self.nets.get_mut(&token) else { return };
                let refusal = ToNet::Refuse { service, why };
                (token, net.channel.send(self.poll.registry(), &refusal, Some(connection.as_fd())))
            }
            (From::Session((token, tag)), outcome) => {
                let Some(session) = self.sessions.get_mut(&token) else { return };
                let answer = match outcome {
                    Ok(()) => Answer::Started { tag },
                    Err(why) => Answer::Refused { tag, service: service.0, why },
                };
                (token, session.channel.send(self.poll.registry(), &answer, None))
            }
        };
        if let Err(why) = sent {
            self.broken(token, why);
        }
    }

    fn serving(&self) -> Option<usize> {
        self.nets.iter().find(|(_, n)| n.stage == nets::Stage::Serving).map(|(token, _)| *token)
    }

    /// Notes that nothing was started, and tells whoever asked.
    pub fn refuse(
        &mut self,
        config: &Config,
        id: ServiceId,
        told: &Told,
        no: NoStart,
        connection: &Shared,
    ) {
        self.counters.refused += 1;
        if let Some(service) = config.table.service(id) {
            note_refusal(service, told, &no);
        }
        // Where nothing can be told any more the connection just ends.
        self.answer(told.from, id, no.told.map_or(Ok(()), Err), connection);
    }
}

/// Why nothing was started.
pub struct NoStart {
    /// What the client is told; None: nothing can be told any more.
    pub told: Option<Why>,
    pub reason: &'static str,
    pub text: Option<String>,
}

impl std::convert::From<String> for NoStart {
    /// What it is for is missing, or is not to be.
    fn from(text: String) -> NoStart {
        NoStart { told: Some(Why::Failed), reason: "failed", text: Some(text) }
    }
}

impl std::convert::From<&str> for NoStart {
    fn from(text: &str) -> NoStart {
        text.to_string().into()
    }
}

fn no_start(f: Failure, launch: &Launch) -> NoStart {
    let (why, reason) = match f.is_scarcity() {
        false => (Why::Failed, "failed"),
        true if f.lacks_descriptors() => (Why::Busy, "descriptors"),
        true => (Why::Busy, "processes"),
    };
    let gone = f.greeted || f.is_peer_gone();
    let file = match f.stage {
        Stage::Chroot => launch.chroot,
        Stage::Directory => Some(launch.directory),
        Stage::Check | Stage::Interpreter | Stage::Exec => Some(launch.program),
        _ => None,
    };
    let text =
        file.map_or_else(|| f.to_string(), |file| format!("{}: {f}", file.to_string_lossy()));
    NoStart {
        told: (!gone).then_some(why),
        reason: if f.is_peer_gone() { "gone" } else { reason },
        text: Some(text),
    }
}

/// `START service= host= pid= from= session=`
fn note_start(service: &Service, pid: i32, told: &Told) {
    let what = &service.attributes.log_on_success;
    if !what.any() {
        return;
    }
    let mut line = Event::new("START").word("service", &service.name).word("host", &told.host);
    if what.pid {
        line = line.number("pid", pid);
    }
    if what.host {
        line = line.address("from", told.peer.ip());
    }
    line = line.number("session", told.number);
    match &told.user {
        Some(name) => line.word("user", name).put(),
        None => line.put(),
    }
}

/// `REFUSE service= host= from= reason= session= text`
fn note_refusal(service: &Service, told: &Told, no: &NoStart) {
    let what = &service.attributes.log_on_failure;
    let mut line = Event::new("REFUSE").word("service", &service.name).word("host", &told.host);
    if what.host {
        line = line.address("from", told.peer.ip());
    }
    line = line.word("reason", no.reason);
    if let (true, Some(name)) = (what.userid, &told.user) {
        line = line.word("user", name);
    }
    line = line.number("session", told.number);
    match &no.text {
        Some(t) => line.text(t).put(),
        None => line.put(),
    }
}
