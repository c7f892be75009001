//! The way of each request for a service:
//!
//! `Arrival` (an order of net's or of a session's, or a client at a service's own port) → `permit`
//! (`policy` decides) → `deliver` (a backend lays out, `services` starts) → `answer`. Its end is in
//! `ended`: the child is reaped, its place is free again, the log has its line.

use super::accounts::LookedUp;
use super::addresses::Addresses;
use super::arrival::{Answer, Arrival, From, Given, NetEnds, StartError, StreamTag, Who};
use super::backend::exec::Plan;
use super::catalog::{Missing, Unprepared};
use super::config::Config;
use super::descriptors::own;
use super::run::{Parent, Then};
use super::session::local_user;
use super::waits::NotStarted;
use super::wrap::{Checked, Verdict};
use crate::policy::{
    Backend, Busy, Facts, HostId, Peer, Permit, Reached, Refusal, Service, ServiceId,
};
use crate::sys::shared::Shared;
use crate::sys::spawn::Stderr;
use crate::sys::{local, socket};
use crate::wire::orders::{self, DATA_MAX, Data, Extras, Why};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

impl Parent {
    /// A plain connection, and between which addresses it is.
    pub fn plain(
        &mut self,
        net: usize,
        config: Rc<Config>,
        service: ServiceId,
        (client, addresses): (Shared, Addresses),
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
        let (number, from) = (self.cx.next_number(), From::Net(net));
        let who = Who {
            addresses,
            facts,
            number,
            account: user.map(|u| (u.account, u.method)),
            tls: None,
            from,
        };
        Arrival { config, service, who, client: Some(client), passed_libwrap: false, run: None }
    }

    /// A client asks for a service: it is decided here whether the client gets it.
    /// `asked`: this name was looked up for it already.
    pub fn arrive(&mut self, a: Arrival, asked: Option<&Missing>) {
        // What decides may have taken a moment, and its session may be over.
        let gone = match a.who.from {
            // Of a stream that has a service already a second one would take that one's line in
            // the log: only a net process that somebody else controls asks for it.
            From::Session(stream) => {
                self.sessions.root(stream.0).is_none() || self.services.has(stream)
            }
            From::Net(_) | From::Port | From::Wait(_) => false,
        };
        if gone {
            return self.refuse(a, StartError { reply: None, reason: "gone", text: None });
        }
        let net = match a.who.from {
            From::Session(stream) => self.sessions.net_of(stream.0),
            From::Net(net) => Some(net),
            From::Port | From::Wait(_) => None,
        };
        if net.is_some_and(|net| self.nets.is_past(net, self.cx.now)) {
            let (reply, reason) = (Some(Why::NotAvailable), "drained");
            return self.refuse(a, StartError { reply, reason, text: None });
        }
        if let Some(no) = self.sensors.refuse(&a, self.cx.now) {
            return self.refuse(a, no);
        }
        let Some(a) = self.ask_libwrap(a) else { return };
        let mut permit = self.services.permit(&self.cx, &a);
        if let Err(Refusal::Busy(
            Busy::Instances | Busy::PerSource | Busy::Services | Busy::SourceServices,
        )) = permit
        {
            // A client that saw the service end may be back before we have heard of that end.
            self.services.look(&mut self.cx);
            self.reap();
            permit = self.services.permit(&self.cx, &a);
        }
        let no = match permit {
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
        self.refuse(a, no);
    }

    /// Returned: a request whose rules in hosts_access(5) need not be asked (any more). Who may not
    /// use the service anyway is refused without them.
    fn ask_libwrap(&mut self, a: Arrival) -> Option<Arrival> {
        let table = &a.config.table;
        let daemon = table.service(a.service).and_then(Service::libwrap_daemon);
        let Some(daemon) = daemon.filter(|_| !a.passed_libwrap) else { return Some(a) };
        if table.usable(a.service, &a.who.facts).is_err() || !self.wrap.has_rules() {
            return Some(a);
        }
        let daemon = daemon.to_string();
        let max_wait = self.max_wait(&a);
        let known = self.wrap.check(&mut self.cx, daemon, Box::new(a), max_wait);
        self.libwrap_checked(known);
        None
    }

    /// How long a datagram may wait for what decides about it. None: it is a connection, which
    /// waits alone.
    pub fn max_wait(&mut self, a: &Arrival) -> Option<Duration> {
        match a.who.from {
            From::Wait(port) => self.ports.max_wait(port, self.cx.now),
            From::Net(_) | From::Session(_) | From::Port => None,
        }
    }

    /// A datagram has waited long enough, and nobody knows yet whether its sender may use the
    /// service: it is dropped. What decides is known when the sender tries again.
    pub fn waited_in_vain(&mut self, waited: Option<(Arrival, StartError)>) {
        let Some((a, no)) = waited else { return };
        if let From::Wait(port) = a.who.from {
            self.ports.waited_in_vain(port);
        }
        self.refuse(a, no);
    }

    /// The rules of hosts_access(5) have decided on a request.
    pub fn libwrap_checked(&mut self, checked: Option<Checked>) {
        match checked {
            None => {}
            Some((a, Verdict::Allowed)) => {
                self.arrive(Arrival { passed_libwrap: true, ..*a }, None);
            }
            Some((a, Verdict::Refused(no))) => self.refuse(*a, no),
            Some((a, Verdict::Again)) => self.arrive(*a, None),
        }
    }

    /// What was permitted is laid out and started: a permit goes in by value.
    fn deliver(&mut self, permit: Permit, mut a: Arrival, asked: Option<&Missing>) {
        let config = a.config.clone();
        let prepared = config.catalog.prepared(&config.table, permit.service());
        match (&prepared, config.table.service(a.service).map(|s| &s.backend)) {
            (Ok(prepared), Some(Backend::Redirect(_))) => {
                return self.redirect(permit, a, prepared);
            }
            (Ok(_), Some(Backend::Offer)) => return self.offered(permit, a),
            _ => {}
        }
        let report = config.table.service(a.service).map_or(Ok(None), |s| self.state_report(s));
        let report = report.map_err(|e| StartError::busy("descriptors", Some(e.to_string())));
        let plan =
            prepared.map(|prepared| report.and_then(|report| Plan::new(&a, prepared, report)));
        let no = match plan {
            Ok(Ok(plan)) => match self.connection(&mut a, &plan) {
                Ok(given) => {
                    if let From::Wait(port) = a.who.from {
                        self.ports.listeners.given_to(port, plan.uid);
                    }
                    let record = (config, a.record());
                    return self.services.start(&mut self.cx, permit, plan, record, given);
                }
                Err(no) => no,
            },
            Err(Unprepared::Missing(name)) if asked != Some(&name) => {
                self.services.release(permit);
                let then = Then::Start(Box::new(a));
                if let Err((Then::Start(a), no)) =
                    self.accounts.look_up(&mut self.cx, name, &config, then)
                {
                    self.refuse(*a, no);
                }
                return;
            }
            Ok(Err(no)) => no,
            Err(why) => why.to_string().into(),
        };
        self.services.release(permit);
        self.refuse(a, no);
    }

    /// What the service is to have: the client's own socket, a terminal, or one end of a pair; and
    /// net's ends.
    fn connection(&mut self, a: &mut Arrival, plan: &Plan) -> Result<Given, StartError> {
        if !self.services.wait_for_turn(&mut self.cx, plan.uid) {
            let text = "too many starts are held up on their way to exec".to_string();
            return Err(StartError::busy("processes", Some(text)));
        }
        let (From::Session(stream), None) = (a.who.from, a.client.as_ref()) else {
            let connection = a.client.take().ok_or("no connection")?;
            if matches!(a.who.addresses, Addresses::Unix(_)) {
                // It is the program's from now on.
                local::take_rights(connection.as_fd(), true);
            }
            return Ok(Given { connection, errors: None, net_ends: NetEnds::default() });
        };
        let scarce = |e: std::io::Error| StartError::busy("descriptors", Some(e.to_string()));
        if let Some(size) = plan.terminal() {
            let (net_end, terminal) =
                self.cx.descriptors.terminal(plan.uid, size).map_err(scarce)?;
            let net_ends =
                NetEnds { connection: Some(net_end), terminal: true, ..NetEnds::default() };
            return Ok(Given { connection: terminal.into(), errors: None, net_ends });
        }
        let errors = match a.run.is_some() && plan.stderr() == Stderr::Connection {
            true => Some(self.cx.descriptors.pair().map_err(scarce)?),
            false => None,
        };
        let service = a.config.table.service(a.service).ok_or("no such service")?;
        let between = a.who.addresses.internet();
        let (net_end, service_end) = self
            .pairs
            .make(&self.cx.descriptors, &service.attributes, between, stream)
            .map_err(scarce)?;
        if self.cx.is_scarce(&service_end) {
            return Err(StartError::busy("descriptors", None));
        }
        let (net_errors, service_errors) = errors.unzip();
        let (connection, server) = (Some(net_end), plan.hands_over());
        let errors = net_errors;
        let net_ends = NetEnds { connection, errors, server, ..NetEnds::default() };
        let errors = service_errors.map(Shared::from);
        Ok(Given { connection: service_end, errors, net_ends })
    }

    pub fn refuse(&mut self, a: Arrival, no: StartError) {
        let record = a.record();
        self.services.refuse(&mut self.cx, a, record, no);
    }

    pub fn answer(&mut self, a: Answer) {
        match (a.to, a.outcome) {
            // What runs has the client's own socket; where nothing can be told any more the
            // connection just ends.
            (From::Net(_) | From::Port | From::Wait(_), Ok(())) => {}
            (From::Net(_) | From::Port, Err(None)) => {}
            (From::Wait(port), Err(why)) => {
                let why = match why {
                    Some(Why::NotAvailable) => NotStarted::Denied,
                    Some(Why::Busy) => NotStarted::Busy,
                    Some(Why::Failed) | None => NotStarted::Failed,
                };
                self.ports.not_started(&mut self.cx, port, why);
            }
            (From::Port, Err(Some(why))) => {
                // Where there is a text, what the client still sends is discarded for a while,
                // so that no reset overtakes the text. That is not done for whom the row does not
                // let in: it would cost something for each of them.
                let client = a.with.client.filter(|_| !a.text.is_empty());
                if let Some(client) = client
                    && socket::send(client.as_fd(), &a.text).is_ok()
                    && why != Why::NotAvailable
                {
                    self.nets.close_lingering(&self.cx, &client, false);
                }
            }
            (From::Net(net), Err(Some(why))) => {
                self.nets.refuse(&self.cx, net, (a.service, why), a.with.client.as_ref());
            }
            (From::Session((session, tag)), Ok(()) | Err(None)) => {
                self.tell_program_started((session, tag), &a);
            }
            (From::Session((session, tag)), Err(Some(why))) => {
                let refused = orders::Answer::Refused { tag, service: a.service.0, why };
                self.sessions.tell(&self.cx, session, &refused);
            }
        }
    }

    /// Tells a session that its service runs. Where there is no descriptor for what the client gets
    /// first, it gets no connection either, which net takes for a lack of them.
    fn tell_program_started(&mut self, (session, tag): StreamTag, a: &Answer) {
        let (net_ends, text) = (&a.with.net_ends, &a.text);
        let file = (text.len() > DATA_MAX).then(|| own::file(text));
        let (greeting, with, extras) = match &file {
            Some(Err(e)) => {
                ::log::debug!("a file for a greeting: {e}");
                (Data::default(), Vec::new(), Extras::default())
            }
            file => {
                let greeting = if file.is_none() { Data::truncate(text) } else { Data::default() };
                let file = file.as_ref().and_then(|f| f.as_ref().ok());
                let all = [net_ends.connection.as_ref(), net_ends.errors.as_ref(), file];
                let all: Vec<BorrowedFd> = all.into_iter().flatten().map(AsFd::as_fd).collect();
                (greeting, all, net_ends.extras(a.with.ends))
            }
        };
        let started = orders::Answer::Started { tag, relay: 0, greeting, extras };
        self.sessions.tell_with(&self.cx, session, &started, &with);
    }

    /// A user or a group was looked up: what waited for it goes on.
    pub fn account_known(&mut self, ended: Option<LookedUp<Then>>) {
        let Some(looked_up) = ended else { return };
        for then in looked_up.waiting {
            match then {
                Then::Start(a) => self.arrive(*a, Some(&looked_up.name)),
                Then::Identify(a) => self.arrive(a.identified(), None),
                Then::LocalClient(client) => self.local_client(client),
                Then::Login(proved) => {
                    let user = &looked_up.user;
                    self.logins.looked_up(&self.cx, &mut self.sessions, &proved, user);
                }
            }
        }
    }
}
