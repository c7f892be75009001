//! From an order to a running service: decide, lay out, spawn, remember. There is no other way to a process.
//!
//! A service that was spawned is in the air for a moment (`sys::spawn::Flight`); meanwhile the next order is served. It is remembered, told
//! of and answered when it has landed.

use super::catalog::{Account, Prepared};
use super::children::{Role, Running, Stream};
use super::config::Config;
use super::environment::{self, Remote, Tls};
use super::run::{Parent, Timer};
use crate::log::Event;
use crate::policy::{Busy, Denied, Facts, Internal, Permit, Program, Refusal, Service, ServiceId, Ticket};
use crate::sys::identity::{Identity, effective_uid};
use crate::sys::spawn::{CList, Check, Child, FLIGHTS, Failure, Flight, LOOK_AFTER, Launch, Stage};
use crate::sys::{clock, memfd};
use crate::wire::orders::{Answer, SESSIONS, TOO_LONG, ToNet, Why};
use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Who wants it: the facts that the parent knows itself.
pub struct Who<'a> {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub facts: Facts,
    /// The session's number.
    pub number: u64,
    /// Who logged in: the account, if it is one of this computer, and how.
    pub account: Option<(Option<&'a Rc<Account>>, &'static str)>,
    pub tls: Option<&'a Tls>,
    pub from: From,
}

/// Where the order came from, and the answer goes.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// A net process, by its token: a plain connection, of which it hears no more unless it is refused.
    Net(usize),
    /// A session, by its token, and its tag for this connection.
    Session(Stream),
}

/// A service on its way: all that its start borrows, and what is told of it.
pub struct Starting {
    config: Rc<Config>,
    service: ServiceId,
    ticket: Ticket,
    plan: Plan,
    connection: OwnedFd,
    told: Told,
}

/// What a start needs, laid out.
struct Plan {
    prepared: Rc<Prepared>,
    needs: Option<Rc<[CString]>>,
    /// Whom it runs as, where that is who logged in.
    own: Option<Identity>,
    /// Are we to become somebody at all?
    becomes: bool,
    env: CList,
    home: Option<CString>,
    state: Option<OwnedFd>,
}

/// What the log tells of it.
struct Told {
    peer: SocketAddr,
    host: String,
    number: u64,
    user: Option<String>,
    from: From,
    at: Duration,
}

impl Parent {
    /// Starts a service on this connection, if the policy permits it. Whoever asked is told, and the log.
    pub fn start(&mut self, config: &Rc<Config>, service: ServiceId, who: &Who, connection: OwnedFd) {
        let mut permit = self.permit(config, service, who);
        if let Err(Refusal::Busy(Busy::Instances | Busy::PerSource)) = permit {
            // A client that saw the service end may be back before we have heard of that end.
            let running = self.children.services;
            self.reap();
            if self.children.services < running {
                permit = self.permit(config, service, who);
            }
        }
        let host = config.table.host(who.facts.host).map_or_else(String::new, |h| h.name.clone());
        let user = who.facts.login.as_ref().map(|l| l.name.clone());
        let told = Told { peer: who.peer, host, number: who.number, user, from: who.from, at: self.now };
        let no = match permit {
            Ok(permit) => return self.spawn(config, permit, who, told, connection),
            Err(Refusal::Denied(d)) => NoStart { told: Some(Why::NotAvailable), reason: d.as_str(), text: None },
            Err(Refusal::Busy(b)) => NoStart { told: Some(Why::Busy), reason: b.as_str(), text: None },
        };
        self.refuse(config, service, &told, no, &connection);
    }

    fn permit(&mut self, config: &Config, service: ServiceId, who: &Who) -> Result<Permit, Refusal> {
        self.limits.permit(&config.table, service, &who.facts, self.now, clock::load_average)
    }

    /// The one place where a service is started: a permit goes in by value.
    fn spawn(&mut self, config: &Rc<Config>, permit: Permit, who: &Who, told: Told, connection: OwnedFd) {
        let service = permit.service();
        let ticket = permit.into_ticket();
        let plan = match self.plan(config, service, who) {
            Ok(plan) => plan,
            Err(text) => {
                self.limits.release(ticket);
                let no = NoStart { told: Some(Why::Failed), reason: "failed", text: Some(text) };
                return self.refuse(config, service, &told, no, &connection);
            }
        };
        // There is one place for extras.
        let alone = plan.state.is_some();
        let starting = Starting { config: config.clone(), service, ticket, plan, connection, told };
        while self.flights.len() >= FLIGHTS {
            self.wait_for_one();
        }
        let flight = self.spawner.begin(Box::new(starting), Starting::launch);
        if alone { self.landed(flight, false) } else { self.flights.push(flight) }
    }

    fn plan(&mut self, config: &Config, id: ServiceId, who: &Who) -> Result<Plan, String> {
        let prepared = config.catalog.prepared(&config.table, id)?;
        let service = config.table.service(id).ok_or("no such service")?;
        let (account, own) = match (&prepared.owner, who.account) {
            (Some((account, _)), _) => (account, None),
            (None, Some((Some(account), _))) => (account, Some(prepared.identity_of(account))),
            (None, _) => return Err("who logged in is no user of this computer".into()),
        };
        let (us, becomes) = (effective_uid(), effective_uid() == 0);
        if !becomes && account.user.uid != us {
            return Err("fived was not started by root, so it cannot run as another user".into());
        }
        let needs = prepared.needs()?;
        let login = who.facts.login.as_ref().zip(who.account).map(|(l, (_, method))| (l.name.as_str(), method));
        let host = config.table.host(who.facts.host).map_or("", |h| h.name.as_str());
        let remote = Remote { peer: who.peer, local: who.local, host, session: who.number, login, tls: who.tls };
        let env = environment::of(service, &account.user, &remote).map_err(|_| "a zero byte in the environment")?;
        let state = match service.program {
            Program::Internal(Internal::Status) => Some(memfd::sealed(self.state().as_bytes()).map_err(|e| format!("memory file: {e}"))?),
            _ => None,
        };
        let home = match &prepared.directory {
            None if prepared.owner.is_none() => CString::new(account.user.home.as_str()).ok(),
            given => given.clone(),
        };
        Ok(Plan { needs, own, becomes, env, home, state, prepared })
    }

    /// Lands all that are over, and waits for one that is not; what was waited for in vain is looked after.
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
        while self.settled_for() == Some(Duration::ZERO) {
            self.settle();
        }
    }

    fn wait_for_one(&mut self) {
        let first = self.flights.iter().position(|f| !f.is_late()).unwrap_or(0);
        if let Some(f) = self.flights.get_mut(first) {
            f.wait();
        }
        self.land();
    }

    fn land(&mut self) {
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
    fn landed(&mut self, flight: Flight<Starting>, reaped: bool) {
        let (starting, result) = flight.land(&mut self.spawner, reaped);
        let no = result.map_err(|f| no_start(f, &starting.launch()));
        let Starting { config, service, ticket, connection, told, .. } = *starting;
        match no {
            Ok(child) => self.runs(config, service, ticket, told, child, &connection),
            Err(no) => {
                self.limits.release(ticket);
                self.refuse(&config, service, &told, no, &connection);
            }
        }
    }

    fn runs(&mut self, config: Rc<Config>, id: ServiceId, ticket: Ticket, told: Told, child: Child, connection: &OwnedFd) {
        self.counters.starts += 1;
        let (pid, started) = (child.pid, told.at);
        if let Some(service) = config.table.service(id) {
            note_start(service, pid, &told);
            if let Some(seconds) = service.attributes.server_timeout {
                self.at(started + Duration::from_secs(seconds.into()), Timer::Terminate { pid, started });
            }
        }
        let stream = match told.from {
            // A session that has ended meanwhile counts no bytes of it.
            From::Session(stream) => self.sessions.contains_key(&stream.0).then_some(stream),
            From::Net(_) => None,
        };
        self.answer(told.from, id, Ok(()), connection);
        let Told { host, peer, number: session, user, .. } = told;
        let ticket = Some(ticket);
        let running = Running { child, config, service: id, ticket, host, peer, session, user, stream, started, traffic: None };
        self.children.add(pid, Role::Service(Box::new(running)));
    }

    fn answer(&mut self, to: From, service: ServiceId, outcome: Result<(), Why>, connection: &OwnedFd) {
        let registry = self.poll.registry();
        let (token, sent) = match (to, outcome) {
            (From::Net(_), Ok(())) => return,
            (From::Net(token), Err(why)) => {
                let Some(net) = self.nets.get_mut(&token) else { return };
                let refusal = ToNet::Refuse { service: service.0, why };
                (token, net.channel.send(registry, &refusal, Some(connection.as_fd())))
            }
            (From::Session((token, tag)), outcome) => {
                let Some(session) = self.sessions.get_mut(&token) else { return };
                let answer = match outcome {
                    Ok(()) => Answer::Started { tag },
                    Err(why) => Answer::Refused { tag, service: service.0, why },
                };
                (token, session.channel.send(registry, &answer, None))
            }
        };
        if let Err(why) = sent {
            self.broken(token, why);
        }
    }

    /// Notes that nothing was started, and tells whoever asked.
    fn refuse(&mut self, config: &Config, id: ServiceId, told: &Told, no: NoStart, connection: &OwnedFd) {
        self.counters.refused += 1;
        if let Some(service) = config.table.service(id) {
            note_refusal(service, told, &no);
        }
        // Where nothing can be told any more the connection just ends.
        self.answer(told.from, id, no.told.map_or(Ok(()), Err), connection);
    }
}

impl Starting {
    fn launch(&self) -> Launch<'_> {
        let Plan { prepared: p, needs, own, becomes, env, home, state } = &self.plan;
        Launch {
            program: &p.program,
            argv: &p.argv,
            env,
            identity: own.as_ref().or(p.owner.as_ref().map(|o| &o.1)).filter(|_| *becomes),
            chroot: p.chroot.as_deref(),
            directory: home.as_deref().unwrap_or(c"/"),
            umask: p.umask,
            nice: p.nice,
            rlimits: &p.rlimits,
            no_new_privs: p.no_new_privs,
            stderr: p.stderr,
            check: needs.as_deref().map_or(Check::None, Check::Needs),
            greeting: &p.greeting,
            connection: self.connection.as_fd(),
            extra: state.as_ref().map(AsFd::as_fd),
            second: None,
            new_session: true,
        }
    }
}

/// Why nothing was started.
struct NoStart {
    /// What the client is told; None: nothing can be told any more.
    told: Option<Why>,
    reason: &'static str,
    text: Option<String>,
}

fn no_start(f: Failure, launch: &Launch) -> NoStart {
    let (why, reason) = match (f.is_scarcity(), f.stage) {
        (false, _) => (Why::Failed, "failed"),
        (true, Stage::Descriptors) => (Why::Busy, "descriptors"),
        (true, _) => (Why::Busy, "processes"),
    };
    let gone = f.greeted || f.is_peer_gone();
    let file = match f.stage {
        Stage::Chroot => launch.chroot,
        Stage::Directory => Some(launch.directory),
        Stage::Check | Stage::Exec => Some(launch.program),
        _ => None,
    };
    let text = file.map_or_else(|| f.to_string(), |file| format!("{}: {f}", file.to_string_lossy()));
    NoStart { told: (!gone).then_some(why), reason: if f.is_peer_gone() { "gone" } else { reason }, text: Some(text) }
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

/// The word for a reason of net's.
pub fn reason(number: u32) -> Option<&'static str> {
    match number {
        TOO_LONG => Some("too-long"),
        SESSIONS => Some("sessions"),
        n => Denied::from_number(n).map(Denied::as_str),
    }
}
