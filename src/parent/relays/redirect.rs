//! The way of a request for a service that runs already, after its permit: it is connected
//! (`backend::connect`), and then the process that has the client relays it.

use crate::parent::arrival::{Arrival, Requester, StartError, StreamTag};
use crate::parent::backend::connect::Outcome;
use crate::parent::backend::targets::Target;
use crate::parent::backend::tried::{Connecting, Permitted};
use crate::parent::channel::Broken;
use crate::parent::config::catalog::Prepared;
use crate::parent::context::Timer;
use crate::parent::relays::{Owner, Relay};
use crate::parent::run::Parent;
use crate::parent::tokens::RelayThreadToken;
use crate::policy::{Backend, Permit, Service};
use crate::sys::clock;
use crate::sys::shared::{Shared, Whose};
use crate::sys::socket;
use crate::wire::orders::{self, DATA_MAX, Data, Extras};
use crate::wire::proxy;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The version of TLS, as the header names it.
const TLS: &str = "TLSv1.3";

/// When the end of a relay is tried again that somebody has held up.
const END_AGAIN: Duration = Duration::from_secs(1);

/// What fived sends to the client before the bytes of its upstream.
pub enum Greeting {
    /// It has been sent.
    Sent,
    /// Net sends it.
    Data(Data),
    /// Net sends what is in this file, because it is long.
    File(OwnedFd),
}

/// What a relay needs besides its two ends.
pub struct RelayParts {
    pub owner: Owner,
    pub until: Option<(Duration, Shared)>,
    pub greeting: Greeting,
}

/// `server_timeout`.
fn lasts(service: &Service) -> Option<Duration> {
    service.attributes.server_timeout.map(|seconds| Duration::from_secs(seconds.into()))
}

impl Parent {
    /// A permitted arrival of a redirected service is connected.
    pub fn redirect(&mut self, permit: Permit, a: Arrival, prepared: &Prepared) {
        let config = a.config.clone();
        let Some(Backend::Redirect(all)) = config.table.service(a.service).map(|s| &s.backend)
        else {
            self.services.release(permit);
            return self.refuse(a, "no such service".into());
        };
        let hosts = &self.hosts;
        let addresses = |name: &str| hosts.addresses(name).to_vec();
        let left = self.services.limits.left(&config.table.settings);
        let permitted = Permitted { permit, arrival: a, left };
        self.connects.begin(&mut self.cx, permitted, prepared, all, addresses);
        self.redirected();
    }

    /// What came of connections goes on. False: there was nothing.
    pub fn redirected(&mut self) -> bool {
        let outcomes = self.connects.outcomes();
        let any = !outcomes.is_empty();
        for outcome in outcomes {
            match outcome {
                Outcome::Connected(c, to, upstream) => {
                    let Connecting { permit, arrival, .. } = *c;
                    self.connected(permit, arrival, to, upstream);
                }
                Outcome::Failed(c, error) => {
                    let Connecting { permit, arrival, .. } = *c;
                    self.services.release(permit);
                    self.refuse(arrival, error);
                }
            }
        }
        any
    }

    fn connected(&mut self, permit: Permit, mut a: Arrival, to: Target, upstream: OwnedFd) {
        let upstream = match to {
            // Its server can send descriptors, where that cannot be refused.
            Target::Unix(_) => Shared::from(upstream).of(Whose::Anybody),
            Target::Tcp(_) | Target::Offer(_) => upstream.into(),
        }
        .for_no_service();
        let config = a.config.clone();
        let parts =
            config.table.service(a.service).ok_or_else(|| "no such service".into()).and_then(
                |service| {
                    let owner = self.relayed_by(&a)?;
                    introduce(service, &a, owner, upstream.as_fd())?;
                    self.relay_parts(service, &a, owner, upstream.as_fd())
                },
            );
        let RelayParts { owner, until, greeting } = match parts {
            Ok(parts) => parts,
            Err(error) => {
                self.services.release(permit);
                return self.refuse(a, error);
            }
        };
        let relay = self.relays.number(|n| self.offers.waits(n));
        let ends_at = until.as_ref().map(|(at, _)| *at);
        self.begin_relay(permit, &a, to, relay, owner, until);
        match (owner, a.client.take()) {
            (Owner::Thread(thread), Some(client)) => {
                let ends = [client.for_no_service(), upstream];
                self.relay_threads.hand(&self.cx, thread, relay, ends);
                // A plain session has no more to do with it.
                self.tell_started(&a, 0, greeting, None, None);
            }
            (Owner::Thread(_) | Owner::Session(_), _) => {
                let net_end = Some(upstream.as_fd());
                self.tell_started(&a, relay, greeting, net_end, ends_at);
            }
        }
    }

    /// The relay of a permitted arrival begins, under this number.
    pub fn begin_relay(
        &mut self,
        permit: Permit,
        a: &Arrival,
        to: Target,
        number: u32,
        owner: Owner,
        until: Option<(Duration, Shared)>,
    ) {
        let (service, mut record) = (a.service, a.record());
        let row = a.config.table.service(service);
        if let (Some((at, _)), Some(lasts)) = (&until, row.and_then(lasts)) {
            // Its time runs since it was asked when that is over.
            record.at = at.saturating_sub(lasts);
        }
        let started = record.at;
        let counted = row.map(|s| self.cx.counters.started(&s.name, &record.host));
        let (config, ticket) = (a.config.clone(), permit.into_ticket());
        let relay = Relay { config, service, ticket, counted, record, to, started, until, owner };
        self.relays.begin(&mut self.cx, number, relay);
    }

    /// A session that asked for a service is told that it begins. `relay`: the number by which it
    /// counts the bytes, or 0; `net_end`: its end of the service's connection; `ends_at`: when
    /// `server_timeout` ends it.
    pub fn tell_started(
        &mut self,
        a: &Arrival,
        relay: u32,
        greeting: Greeting,
        net_end: Option<BorrowedFd>,
        ends_at: Option<Duration>,
    ) {
        if let Requester::Session(StreamTag { session, tag }) = a.who.requester {
            let (greeting, file) = match greeting {
                Greeting::Sent => (Data::default(), None),
                Greeting::Data(greeting) => (greeting, None),
                Greeting::File(file) => (Data::default(), Some(file)),
            };
            let with: Vec<BorrowedFd> =
                net_end.into_iter().chain(file.as_ref().map(AsFd::as_fd)).collect();
            let extras = Extras { ends_at, ..Extras::default() };
            let started = orders::Answer::Started { tag, relay, greeting, extras };
            self.sessions.tell_with(&self.cx, session, &started, &with);
        }
    }

    /// What can fail, before anybody learns that the service has begun. `end`: that of the relay by
    /// which `server_timeout` ends it.
    pub fn relay_parts(
        &mut self,
        service: &Service,
        a: &Arrival,
        owner: Owner,
        end: BorrowedFd,
    ) -> Result<RelayParts, StartError> {
        let descriptors = &self.cx.descriptors;
        let scarce = StartError::no_descriptor;
        let until = match self.ends_at(service) {
            None => None,
            Some(at) => Some((at, descriptors.copy(end, Whose::Anybody).map_err(scarce)?)),
        };
        let text = service.greeting(a.who.facts.reached);
        let greeting = match &a.client {
            None if text.len() <= DATA_MAX => Greeting::Data(Data::truncate(&text)),
            None => Greeting::File(descriptors.file(&text).map_err(scarce)?),
            Some(client) => self.greet(a.who.requester, client, &text)?,
        };
        Ok(RelayParts { owner, until, greeting })
    }

    /// Tells a plain client that its service begins.
    fn greet(
        &mut self,
        requester: Requester,
        client: &Shared,
        text: &[u8],
    ) -> Result<Greeting, StartError> {
        let net = match requester {
            Requester::Net(net) => Some(net),
            Requester::Session(stream) => {
                Some(self.sessions.net_of(stream.session).ok_or_else(StartError::gone)?)
            }
            Requester::Port(net) => net,
            Requester::Wait(_) => None,
        };
        let sent = if text.is_empty() { Ok(0) } else { self.nets.send(net, client, text) };
        match sent {
            Ok(n) if n == text.len() => Ok(Greeting::Sent),
            // A client that takes no greeting on a new connection has gone.
            _ => Err(StartError::gone()),
        }
    }

    /// `server_timeout` of a relay is over: its upstream's connection ends, which whoever copies
    /// sees and tells. Where somebody keeps the lock of its socket it is tried again.
    pub fn relay_late(&mut self, relay: u32) {
        let Some((end, owner)) = self.relays.ends(relay) else { return };
        let net = match owner {
            Owner::Thread(thread) => self.relay_threads.net_of(thread),
            Owner::Session(session) => self.sessions.net_of(session),
        };
        let Some(calls) = net.and_then(|net| self.nets.calls(net)) else { return };
        // An error means that it has ended already.
        let done = calls.make(&[end.as_fd()], |with| drop(socket::shutdown_both(with[0])));
        if done.is_none() {
            self.cx.after(END_AGAIN, Timer::RelayLate { relay });
        }
    }

    /// `server_timeout`: when a relay that begins now ends.
    pub fn ends_at(&self, service: &Service) -> Option<Duration> {
        lasts(service).map(|lasts| clock::monotonic() + lasts)
    }

    /// Who relays: the process that has the client; a plain client is handed to a net process.
    pub fn relayed_by(&mut self, a: &Arrival) -> Result<Owner, StartError> {
        let preferred = match (a.who.requester, &a.client) {
            (Requester::Session(StreamTag { session, .. }), None) => {
                return self
                    .sessions
                    .root(session)
                    .map(Owner::Session)
                    .ok_or_else(StartError::gone);
            }
            (Requester::Session(StreamTag { session, .. }), Some(_)) => {
                self.sessions.net_of(session)
            }
            (Requester::Net(net), Some(_)) => Some(net),
            (Requester::Port(_) | Requester::Wait(_), Some(_)) => None,
            (Requester::Net(_) | Requester::Port(_) | Requester::Wait(_), None) => {
                return Err("no connection".into());
            }
        };
        let Some(net) = self.nets.for_relay(preferred) else {
            return Err(StartError::busy("processes", None));
        };
        let chosen = self.relay_threads.choose(&mut self.cx, &mut self.nets, net);
        chosen.map(Owner::Thread).map_err(StartError::no_descriptor)
    }

    /// Whoever copied says that a relay is over, and how many bytes went to the upstream and came
    /// from it. Err: it has no such relay.
    pub fn relay_ended(
        &mut self,
        relay: u32,
        owner: Owner,
        traffic: (u64, u64),
    ) -> Result<(), Broken> {
        let ticket = self.relays.end(&mut self.cx, relay, owner, Some(traffic));
        self.services.take_back(ticket.ok_or(Broken::Forbidden)?);
        self.offers.streams.end(relay);
        Ok(())
    }

    /// The channel of a thread that relays cannot be used any more.
    pub fn relay_thread_over(&mut self, token: RelayThreadToken, why: &Broken) {
        self.relays_over(Owner::Thread(token));
        if let Some(net) = self.relay_threads.forget(token)
            && *why != Broken::Closed
        {
            self.net_broken(net, why);
        }
    }

    /// Whoever copied is gone.
    pub fn relays_over(&mut self, owner: Owner) {
        for (relay, ticket) in self.relays.end_all(&mut self.cx, owner) {
            self.services.take_back(ticket);
            self.offers.streams.end(relay);
        }
    }
}

/// Makes both ends ready for whoever relays, and tells an upstream about its client, where the row
/// says so.
fn introduce(
    service: &Service,
    a: &Arrival,
    owner: Owner,
    upstream: BorrowedFd,
) -> Result<(), StartError> {
    if let Some(client) = &a.client {
        // An error means that net copies what the kernel could pass on.
        let _ = socket::set_nonblocking(client.as_fd());
    }
    let proxy = service.attributes.proxy;
    if matches!(owner, Owner::Session(_)) || proxy.is_some() {
        // What is written later must not wait until this is acknowledged. It fails on a Unix
        // socket, where nothing waits.
        let _ = socket::set_nodelay(upstream, true);
    }
    let Some(version) = proxy else { return Ok(()) };
    let header = proxy::header(version, &described(a));
    // A new connection has room for it.
    match socket::send(upstream, &header) {
        Ok(n) if n == header.len() => Ok(()),
        Ok(_) => Err("the upstream does not take the header of `proxy`".into()),
        Err(e) => Err(format!("the header of `proxy`: {e}").into()),
    }
}

/// The client, as the header describes it to the upstream.
fn described(a: &Arrival) -> proxy::Client<'_> {
    let who = &a.who;
    proxy::Client {
        addresses: who.addresses.internet(),
        host: a.config.table.host(who.facts.host).map_or("", |h| h.name.as_str()),
        tls: who.tls.as_ref().map(|tls| (TLS, tls.suite)),
        user: who.facts.login.as_ref().map(|l| l.name.as_str()),
        session: who.number,
    }
}
