//! From an order to a running service: decide, lay out, spawn, remember. There is no other way to a
//! process.
//!
//! A service that was spawned is in the air for a moment (`sys::spawn::Flight`); meanwhile the next
//! order is served. It is remembered, told of and answered when it has landed.

use super::accounts::Then;
use super::catalog::{Account, Missing, Prepared, Unprepared};
use super::children::Stream;
use super::config::Config;
use super::environment::{self, Remote, Tls};
use super::landing::NoStart;
use super::run::Parent;
use crate::policy::{Busy, Denied, Facts, Internal, Permit, Program, Refusal, ServiceId, Ticket};
use crate::sys::identity::{Identity, effective_uid};
use crate::sys::shared::Shared;
use crate::sys::spawn::{CList, Flight, Launch};
use crate::sys::{clock, memfd};
use crate::wire::orders::{CONNECTIONS, DESCRIPTORS, SESSIONS, SOURCE_SESSIONS, TOO_LONG, Why};
use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Starts in the air at a time, at most, late ones among them, where descriptors are not scarce.
/// One more waits, and is refused where all hang.
pub const FLIGHTS: usize = 32;
/// Of these that are waited for. More than processors that could take a child's way to exec gain
/// nothing.
const AWAITED: usize = 4;
/// Starts of one user in the air at a time, who may be why they do not come down. One more
/// likewise.
const OF_ONE: usize = 12;
/// Older ones hang; until then a slow system may just be slow.
const HELD_UP: Duration = Duration::from_millis(100);

/// Who wants it: the facts that the parent knows itself.
pub struct Who {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub facts: Facts,
    /// The session's number.
    pub number: u64,
    /// Who logged in: the account, if it is one of this computer, and how.
    pub account: Option<(Option<Rc<Account>>, &'static str)>,
    pub tls: Option<Rc<Tls>>,
    pub from: From,
}

/// Where the order came from, and the answer goes.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// A net process, by its token: a plain connection, of which it hears no more unless it is
    /// refused.
    Net(usize),
    /// A session, by its token, and its tag for this connection.
    Session(Stream),
}

/// A service on its way: all that its start borrows, and what is told of it.
pub struct Starting {
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub ticket: Ticket,
    plan: Plan,
    pub connection: Shared,
    pub told: Told,
}

/// What a start needs, laid out.
struct Plan {
    /// Whom it runs as.
    uid: u32,
    prepared: Rc<Prepared>,
    /// The identity, where it is of who logged in.
    own: Option<Identity>,
    /// Are we to become somebody at all?
    becomes: bool,
    env: CList,
    home: Option<CString>,
    state: Option<OwnedFd>,
}

/// What the log tells of it.
pub struct Told {
    pub peer: SocketAddr,
    pub host: String,
    /// The session's number.
    pub number: u64,
    pub user: Option<String>,
    pub from: From,
    pub at: Duration,
}

impl Parent {
    /// Starts a service on this connection, if the policy permits it. Whoever asked is told, and
    /// the log.
    pub fn start(&mut self, config: &Rc<Config>, service: ServiceId, who: Who, connection: Shared) {
        self.try_start(config, service, who, connection, None);
    }

    /// Goes on with a start after this name was looked up.
    pub fn start_again(
        &mut self,
        config: &Rc<Config>,
        service: ServiceId,
        who: Who,
        connection: Shared,
        asked: &Missing,
    ) {
        self.try_start(config, service, who, connection, Some(asked));
    }

    fn try_start(
        &mut self,
        config: &Rc<Config>,
        service: ServiceId,
        who: Who,
        connection: Shared,
        asked: Option<&Missing>,
    ) {
        let mut permit = self.permit(config, service, &who);
        if let Err(Refusal::Busy(
            Busy::Instances | Busy::PerSource | Busy::Services | Busy::SourceServices,
        )) = permit
        {
            // A client that saw the service end may be back before we have heard of that end.
            self.land();
            self.reap();
            permit = self.permit(config, service, &who);
        }
        let host = config.table.host(who.facts.host).map_or_else(String::new, |h| h.name.clone());
        let user = who.facts.login.as_ref().map(|l| l.name.clone());
        let told =
            Told { peer: who.peer, host, number: who.number, user, from: who.from, at: self.now };
        let no = match permit {
            Ok(permit) if self.is_scarce(&connection) => {
                self.limits.release(permit.into_ticket());
                NoStart { told: Some(Why::Busy), reason: "descriptors", text: None }
            }
            Ok(permit) => return self.spawn(config, permit, who, told, connection, asked),
            Err(Refusal::Denied(d)) => {
                NoStart { told: Some(Why::NotAvailable), reason: d.as_str(), text: None }
            }
            Err(Refusal::Busy(b)) => {
                NoStart { told: Some(Why::Busy), reason: b.as_str(), text: None }
            }
        };
        self.refuse(config, service, &told, no, &connection);
    }

    fn permit(
        &mut self,
        config: &Config,
        service: ServiceId,
        who: &Who,
    ) -> Result<Permit, Refusal> {
        self.limits.permit(&config.table, service, &who.facts, self.now, clock::load_average)
    }

    /// The one place where a service is started: a permit goes in by value.
    fn spawn(
        &mut self,
        config: &Rc<Config>,
        permit: Permit,
        who: Who,
        told: Told,
        connection: Shared,
        asked: Option<&Missing>,
    ) {
        let service = permit.service();
        let ticket = permit.into_ticket();
        let plan = config
            .catalog
            .prepared(&config.table, service)
            .map(|p| self.plan(config, service, &who, p));
        let no = match plan {
            Ok(Ok(plan)) => return self.depart(config, service, ticket, plan, told, connection),
            Err(Unprepared::Missing(name)) if asked != Some(&name) => {
                self.limits.release(ticket);
                let no = NoStart::from(name.to_string());
                let then = Then::Start { service, who: Box::new(who), connection };
                if let Err(Then::Start { connection, .. }) =
                    self.look_up_account(name, config, then)
                {
                    self.refuse(config, service, &told, no, &connection);
                }
                return;
            }
            Ok(Err(no)) => no,
            Err(why) => why.to_string().into(),
        };
        self.limits.release(ticket);
        self.refuse(config, service, &told, no, &connection);
    }

    /// All is laid out: its child is made.
    fn depart(
        &mut self,
        config: &Rc<Config>,
        service: ServiceId,
        ticket: Ticket,
        plan: Plan,
        told: Told,
        connection: Shared,
    ) {
        if !self.room_in_the_air(plan.uid) {
            self.limits.release(ticket);
            let text = Some("too many starts are held up on their way to exec".into());
            let no = NoStart { told: Some(Why::Busy), reason: "processes", text };
            return self.refuse(config, service, &told, no, &connection);
        }
        // There is one place for extras.
        let alone = plan.state.is_some();
        let starting = Starting { config: config.clone(), service, ticket, plan, connection, told };
        let flight = self.spawner.begin(Box::new(starting), Starting::launch);
        if alone { self.landed(flight, false) } else { self.flights.push(flight) }
    }

    /// Waits until one more of this user may begin. False: what is in the way hangs.
    fn room_in_the_air(&mut self, uid: u32) -> bool {
        loop {
            let of_one = |f: &&Flight<Starting>| f.cargo().plan.uid == uid;
            let all_full = self.flights.len() >= self.spawner.flights();
            if all_full || self.flights.iter().filter(of_one).count() >= OF_ONE {
                let in_the_way = |f: &&Flight<Starting>| all_full || of_one(f);
                if self.flights.iter().filter(in_the_way).all(|f| f.age() > HELD_UP) {
                    return false;
                }
            } else if self.flights.iter().filter(|f| !f.is_late()).count() < AWAITED {
                return true;
            }
            self.wait_for_one();
        }
    }

    fn plan(
        &mut self,
        config: &Config,
        id: ServiceId,
        who: &Who,
        prepared: Rc<Prepared>,
    ) -> Result<Plan, NoStart> {
        let service = config.table.service(id).ok_or("no such service")?;
        let (account, own) = match (&prepared.owner, &who.account) {
            (Some((account, _)), _) => (account, None),
            (None, Some((Some(account), _))) => (account, Some(prepared.identity_of(account))),
            (None, _) => return Err("who logged in is no user of this computer".into()),
        };
        let (us, becomes) = (effective_uid(), effective_uid() == 0);
        if config.own_users.is_some_and(|o| o.has(account.user.uid)) {
            return Err("that user is fived's own, and no service may run as it".into());
        }
        if !becomes && account.user.uid != us {
            return Err("fived was not started by root, so it cannot run as another user".into());
        }
        let login = who
            .facts
            .login
            .as_ref()
            .zip(who.account.as_ref())
            .map(|(l, (_, method))| (l.name.as_str(), *method));
        let host = config.table.host(who.facts.host).map_or("", |h| h.name.as_str());
        let remote = Remote {
            peer: who.peer,
            local: who.local,
            host,
            session: who.number,
            login,
            tls: who.tls.as_deref(),
        };
        let env = environment::of(service, &account.user, &remote)
            .map_err(|e| format!("the environment: {e}"))?;
        let state = match service.program {
            Program::Internal(Internal::Status) => {
                let file = memfd::sealed(self.state().as_bytes());
                Some(file.map_err(|e| NoStart {
                    told: Some(Why::Busy),
                    reason: "descriptors",
                    text: Some(format!("memory file: {e}")),
                })?)
            }
            _ => None,
        };
        let home = match &prepared.directory {
            // One of our own opens no file, and nobody's directory is to be in its way.
            _ if matches!(service.program, Program::Internal(_)) => None,
            None if prepared.owner.is_none() => CString::new(account.user.home.as_str()).ok(),
            given => given.clone(),
        };
        let uid = account.user.uid;
        Ok(Plan { uid, own, becomes, env, home, state, prepared })
    }
}

impl Starting {
    pub fn is_of(&self, stream: Stream) -> bool {
        matches!(self.told.from, From::Session(s) if s == stream)
    }

    /// Did that net process ask for it, by its token, on a plain connection?
    pub fn is_of_net(&self, net: usize) -> bool {
        matches!(self.told.from, From::Net(n) if n == net)
    }

    /// Does it belong to that session, by its token?
    pub fn is_in(&self, session: usize) -> bool {
        matches!(self.told.from, From::Session(s) if s.0 == session)
    }

    pub fn launch(&self) -> Launch<'_> {
        let Plan { prepared: p, own, becomes, env, home, state, .. } = &self.plan;
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
            check: p.foreign,
            greeting: &p.greeting,
            connection: self.connection.as_fd(),
            extra: state.as_ref().map(AsFd::as_fd),
            second: None,
            new_session: true,
        }
    }
}

/// The word for a reason of net's.
pub fn reason(number: u32) -> Option<&'static str> {
    match number {
        TOO_LONG => Some("too-long"),
        CONNECTIONS => Some("connections"),
        DESCRIPTORS => Some("descriptors"),
        SESSIONS => Some("sessions"),
        SOURCE_SESSIONS => Some("sessions_per_source"),
        n => Denied::from_number(n).map(Denied::as_str),
    }
}
