//! The way of each request for a service:
//!
//! `Arrival` (an order of net's or of a session's, or a client at a service's own port) → `permit`
//! (`policy` decides) → `deliver` (a backend lays out, `services` starts) → `answer`. Its end is in
//! `ended`: the child is reaped, its place is free again, the log has its line.

use super::addresses::Addresses;
use super::arrival::{Arrival, Given, NetEnds, Requester, StartError, StreamTag, Who};
use super::backend::exec::Plan;
use super::config::Config;
use super::config::catalog::{Missing, Unprepared};
use super::lookups::accounts::LookedUp;
use super::lookups::hosts_access::{Checked, Verdict};
use super::run::{AwaitsAccount, Parent};
use super::services::deferred::DeferredStart;
use super::services::turns::Turn;
use super::sessions::session::local_user;
use super::tokens::NetToken;
use crate::policy::{
    Backend, Busy, Facts, HostId, Peer, Permit, Reached, Refusal, Service, ServiceId,
};
use crate::sys::gauges::OtherCopy;
use crate::sys::given_mark;
use crate::sys::shared::{Shared, Whose};
use crate::sys::spawn::{Passed, Stderr};
use crate::wire::orders::Why;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

impl Parent {
    /// A plain connection, and between which addresses it is.
    pub fn plain(
        &mut self,
        net: NetToken,
        config: Rc<Config>,
        service: ServiceId,
        client: Shared,
        addresses: Addresses,
    ) -> Arrival {
        let peer = addresses.peer();
        let user = local_user(&config, peer);
        let facts = Facts {
            peer,
            host: HostId::DEFAULT,
            encrypted: matches!(peer, Peer::User(_)),
            login: user.as_ref().map(|u| u.login.clone()),
            minute: self.cx.minute(),
            peer_name: self.names.known(self.cx.now, peer),
            reached: Reached::ByName,
        };
        let (number, requester) = (self.cx.next_number(), Requester::Net(net));
        let who = Who {
            addresses,
            facts,
            number,
            account: user.map(|u| (u.account, u.method)),
            tls: None,
            requester,
        };
        Arrival { config, service, who, client: Some(client), passed_libwrap: false, run: None }
    }

    /// A client asks for a service: it is decided here whether the client gets it.
    /// `asked`: this name was looked up for it already.
    pub fn arrive(&mut self, a: Arrival, asked: Option<&Missing>) {
        // What decides may have taken a moment, and its session may be over.
        if self.is_gone(&a) {
            return self.refuse(a, StartError::gone());
        }
        let net = match a.who.requester {
            Requester::Session(stream) => self.sessions.net_of(stream.session),
            Requester::Net(net) => Some(net),
            Requester::Port(_) | Requester::Wait(_) => None,
        };
        if net.is_some_and(|net| self.nets.is_past(net, self.cx.now)) {
            let (reply, reason) = (Some(Why::NotAvailable), "drained");
            return self.refuse(a, StartError { reply, reason, text: None });
        }
        if let Some(error) = self.sensors.refuse(&a, self.cx.now) {
            return self.refuse(a, error);
        }
        let Some(a) = self.ask_libwrap(a) else { return };
        let mut permit = self.services.permit(&self.cx, &a);
        if let Err(Refusal::Busy(
            Busy::Instances | Busy::PerSource | Busy::Services | Busy::SourceServices,
        )) = permit
        {
            // A client that saw the service end may be back before we have heard of that end.
            self.services.finish_starts(&mut self.cx);
            self.reap_all();
            permit = self.services.permit(&self.cx, &a);
        }
        let error = match permit {
            Ok(permit) if a.client.as_ref().is_some_and(|c| self.cx.is_scarce(c)) => {
                self.services.release(permit);
                StartError::busy("descriptors", None)
            }
            Ok(permit) => return self.deliver(permit, a, asked),
            Err(Refusal::Denied(d)) => {
                StartError { reply: Some(Why::NotAvailable), reason: d.as_str(), text: None }
            }
            Err(Refusal::Busy(b)) => StartError::busy(b.as_str(), None),
        };
        self.refuse(a, error);
    }

    /// Is nobody left who waits for a service?
    fn is_gone(&self, a: &Arrival) -> bool {
        match a.who.requester {
            // Of a stream that has a service already a second one would take that one's line in
            // the log: only a net process that somebody else controls asks for it. Where net has
            // closed the channel, the service's connection would break at once: the clients of a
            // few hundred sessions can leave tens of thousands of requests.
            Requester::Session(stream) => {
                self.sessions.root(stream.session).is_none()
                    || self.services.has(stream)
                    || a.client.is_none() && self.sessions.has_hung_up(stream.session)
            }
            // Its program would keep the port from the fived that comes next.
            Requester::Wait(_) => self.cx.is_ending(),
            Requester::Net(_) | Requester::Port(_) => false,
        }
    }

    /// Returned: a request whose rules in hosts_access(5) need not be asked (any more). Who may not
    /// use the service anyway is refused without them.
    fn ask_libwrap(&mut self, a: Arrival) -> Option<Arrival> {
        let table = &a.config.table;
        let daemon = table.service(a.service).and_then(Service::libwrap_daemon);
        let Some(daemon) = daemon.filter(|_| !a.passed_libwrap) else { return Some(a) };
        if table.usable(a.service, &a.who.facts).is_err() || !self.hosts_access.has_rules() {
            return Some(a);
        }
        let daemon = daemon.to_string();
        let max_wait = self.max_wait(&a);
        let known = self.hosts_access.check(&mut self.cx, daemon, Box::new(a), max_wait);
        self.libwrap_checked(known);
        None
    }

    /// How long a datagram may wait for what decides about it. None: it is a connection, which
    /// waits alone.
    pub fn max_wait(&mut self, a: &Arrival) -> Option<Duration> {
        match a.who.requester {
            Requester::Wait(port) => self.ports.max_wait(port, self.cx.now),
            Requester::Net(_) | Requester::Session(_) | Requester::Port(_) => None,
        }
    }

    /// A datagram has waited long enough, and nobody knows yet whether its sender may use the
    /// service: it is dropped. What decides is known when the sender tries again.
    pub fn waited_in_vain(&mut self, waited: Option<(Arrival, StartError)>) {
        let Some((a, error)) = waited else { return };
        if let Requester::Wait(port) = a.who.requester {
            self.ports.waited_in_vain(port);
        }
        self.refuse(a, error);
    }

    /// The rules of hosts_access(5) have decided on a request.
    pub fn libwrap_checked(&mut self, checked: Option<Checked>) {
        match checked {
            None => {}
            Some((a, Verdict::Allowed)) => {
                self.arrive(Arrival { passed_libwrap: true, ..*a }, None);
            }
            Some((a, Verdict::Refused(error))) => self.refuse(*a, error),
            Some((a, Verdict::Again)) => self.arrive(*a, None),
        }
    }

    /// What was permitted is laid out and started: a permit goes in by value.
    fn deliver(&mut self, permit: Permit, a: Arrival, asked: Option<&Missing>) {
        let config = a.config.clone();
        let prepared = config.catalog.prepared(&config.table, permit.service());
        match (&prepared, config.table.service(a.service).map(|s| &s.backend)) {
            (Ok(prepared), Some(Backend::Redirect(_))) => {
                return self.redirect(permit, a, prepared);
            }
            (Ok(_), Some(Backend::Offer)) => return self.offered(permit, a),
            _ => self.cx.spawner.expect_start(),
        }
        let report = config.table.service(a.service).map_or(Ok(None), |s| self.state_report(s));
        let report = report.map_err(StartError::no_descriptor);
        let plan =
            prepared.map(|prepared| report.and_then(|report| Plan::new(&a, prepared, report)));
        let error = match plan {
            Ok(Ok(plan)) => {
                return self.start_in_turn(Box::new(DeferredStart { permit, plan, arrival: a }));
            }
            Err(Unprepared::Missing(name)) if asked != Some(&name) => {
                self.services.release(permit);
                let then = AwaitsAccount::Start(Box::new(a));
                return self.look_up_account(name, &config, then);
            }
            Ok(Err(error)) => error,
            Err(why) => why.to_string().into(),
        };
        self.services.release(permit);
        self.refuse(a, error);
    }

    /// Starts it, or lets it wait for its turn.
    fn start_in_turn(&mut self, start: Box<DeferredStart>) {
        let uid = start.plan.uid;
        let turn = match self.deferred.has(uid) {
            true => Turn::Later,
            false => self.services.turn_of(&mut self.cx, uid),
        };
        match turn {
            Turn::Now => self.start_now(*start),
            Turn::Later => {
                let left = self.services.limits.left(&start.arrival.config.table.settings);
                if let Some(lost) = self.deferred.add(uid, left, start) {
                    self.refuse_start(lost);
                }
            }
            Turn::Never => self.refuse_start(start),
        }
    }

    /// Goes on with those whose turn it is.
    pub fn resume_deferred(&mut self) {
        for uid in self.deferred.users() {
            while self.deferred.has(uid) {
                let turn = self.services.turn_of(&mut self.cx, uid);
                if turn == Turn::Later {
                    break;
                }
                let Some(start) = self.deferred.next(uid) else { break };
                if turn == Turn::Never {
                    self.refuse_start(start);
                } else if self.is_gone(&start.arrival) {
                    self.services.release(start.permit);
                    self.refuse(start.arrival, StartError::gone());
                } else {
                    self.start_now(*start);
                }
            }
        }
    }

    /// fived ends: none of them will have its turn.
    pub fn refuse_deferred(&mut self) {
        self.deferred.take().into_iter().for_each(|start| self.refuse_start(start));
        self.connects.refuse_deferred();
    }

    fn refuse_start(&mut self, start: Box<DeferredStart>) {
        self.services.release(start.permit);
        let text = "too many starts are held up on their way to exec".to_string();
        self.refuse(start.arrival, StartError::busy("processes", Some(text)));
    }

    fn start_now(&mut self, DeferredStart { permit, mut plan, arrival: mut a }: DeferredStart) {
        plan.must_be_closed(self.copy_of_net(&a));
        match self.connection(&mut a, &plan) {
            Ok(given) => {
                if let Requester::Wait(port) = a.who.requester {
                    self.ports.listeners.given_to(port, plan.uid);
                }
                let (config, record) = (a.config.clone(), a.record());
                self.services.start(&mut self.cx, permit, plan, config, record, given);
            }
            Err(error) => {
                self.services.release(permit);
                self.refuse(a, error);
            }
        }
    }

    /// What tells whether net has closed its copy of the client's own socket.
    fn copy_of_net(&self, a: &Arrival) -> Option<OtherCopy> {
        a.client.as_ref()?;
        match a.who.requester {
            Requester::Net(net) | Requester::Port(Some(net)) => self.nets.copy(net, None),
            Requester::Session(StreamTag { session, .. }) => {
                self.nets.copy(self.sessions.net_of(session)?, Some(session))
            }
            Requester::Port(None) | Requester::Wait(_) => None,
        }
    }

    /// What the service is to have: the client's own socket, a terminal, or one end of a pair; and
    /// net's ends.
    fn connection(&mut self, a: &mut Arrival, plan: &Plan) -> Result<Given, StartError> {
        let whose = Whose::User(plan.uid);
        let (Requester::Session(stream), None) = (a.who.requester, a.client.as_ref()) else {
            let connection = a.client.take().ok_or("no connection")?.of(whose);
            if given_mark::is_set(connection.as_fd()) {
                return Err(StartError::gone());
            }
            let passed = Passed { connection, errors: None };
            return Ok(Given { passed, net_ends: NetEnds::default() });
        };
        let scarce = StartError::no_descriptor;
        if let Some(size) = plan.terminal() {
            let running = &mut self.services.running;
            let made = running.terminals.start(&mut self.cx, plan.uid, stream, size)?;
            let (connection, second) = (Some(made.connection.into()), Some(made.sizes));
            let net_ends = NetEnds { connection, second, terminal: true, ..NetEnds::default() };
            let connection = Shared::from(made.service_end).of(whose);
            let passed = Passed { connection, errors: None };
            return Ok(Given { passed, net_ends });
        }
        let errors = match a.run.is_some() && plan.stderr() == Stderr::Connection {
            true => Some(self.cx.descriptors.pair().map_err(scarce)?),
            false => None,
        };
        let service = a.config.table.service(a.service).ok_or("no such service")?;
        let between = a.who.addresses.internet();
        let (net_end, service_end) = self
            .pairs
            .make(&self.cx.descriptors, &service.attributes, between, stream.tag)
            .map_err(scarce)?;
        if self.cx.is_scarce(&service_end) {
            return Err(StartError::busy("descriptors", None));
        }
        let (net_errors, service_errors) = errors.unzip();
        let (connection, server) = (Some(net_end.into()), plan.hands_over());
        let second = net_errors;
        let net_ends = NetEnds { connection, second, server, ..NetEnds::default() };
        let errors = service_errors.map(|errors| Shared::from(errors).of(whose));
        Ok(Given { passed: Passed { connection: service_end.of(whose), errors }, net_ends })
    }

    pub fn refuse(&mut self, a: Arrival, error: StartError) {
        let record = a.record();
        self.services.refuse(&mut self.cx, a, record, error);
    }

    /// Has a user or a group looked up, for what goes on after that. If nobody can be asked now, a
    /// client of a Unix socket whose user was known is as before, and all others are refused.
    pub fn look_up_account(&mut self, name: Missing, config: &Rc<Config>, then: AwaitsAccount) {
        let user = match name {
            Missing::Uid(uid) => config.catalog.account_of(uid),
            Missing::User(_) | Missing::Group(_) => None,
        };
        let looked_up = self.accounts.look_up(&mut self.cx, name, config, then);
        let Err((then, error)) = looked_up else { return };
        match then {
            AwaitsAccount::Identify(a) if user.is_some() => self.arrive(a.identified(), None),
            AwaitsAccount::LocalClient(client) if user.is_some() => self.local_client(client),
            AwaitsAccount::Start(a) | AwaitsAccount::Identify(a) => self.refuse(*a, error),
            AwaitsAccount::LocalClient(client) => self.refuse_nameless(client.peer, error.reason),
            AwaitsAccount::Login(proved) => {
                self.logins.not_looked_up(&self.cx, &mut self.sessions, &proved);
            }
        }
    }

    /// A user or a group was looked up: what waited for it goes on.
    pub fn account_known(&mut self, ended: Option<LookedUp<AwaitsAccount>>) {
        let Some(looked_up) = ended else { return };
        for then in looked_up.waiting {
            match then {
                AwaitsAccount::Start(a) => self.arrive(*a, Some(&looked_up.name)),
                AwaitsAccount::Identify(a) => self.arrive(a.identified(), None),
                AwaitsAccount::LocalClient(client) => self.local_client(client),
                AwaitsAccount::Login(proved) => {
                    let user = &looked_up.user;
                    self.logins.looked_up(&self.cx, &mut self.sessions, &proved, user);
                }
            }
        }
    }
}
