//! The one way, and all that the parent's parts want of each other:
//!
//! `Arrival` (an order of net's or a session's) → `permit` (`policy` decides) → `deliver` (a
//! backend lays out, `services` starts) → an answer → the end (reaped, its place given back, told).

use super::arrival::{Answer, Arrival, From, StartError, Who};
use super::backend::exec::{self, Plan};
use super::catalog::{Missing, Unprepared};
use super::channel::Broken;
use super::children::Role;
use super::config::Config;
use super::lines::{self, AtTheDoor};
use super::logins::LookUp;
use super::names::{self, Asker};
use super::ports::Came;
use super::run::{Parent, Then};
use super::session::User;
use super::{nets, sessions, watch};
use crate::policy::{Busy, Facts, HostId, Permit, Refusal, ServiceId};
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{self, Refused, ToNet, Why};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Orders of a stream that are heard before another stream may have its place: more than any has
/// under way.
const HEARD: usize = 64;
/// Orders of a session that are heard after its net process has ended: more than a channel holds.
const LAST_HEARD: usize = 4096;

impl Parent {
    /// One order of a net process. Ok(false): there is none now.
    pub fn net_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(said) = self.nets.order(&mut self.cx, &mut self.listeners, token)? else {
            return Ok(false);
        };
        match said {
            nets::Said::Heard => {}
            nets::Said::Start { config, service, client } => {
                if let Some(arrival) = self.plain(token, config, service, client) {
                    self.arrive(arrival, None);
                }
            }
            nets::Said::Session { config, client, channel } => {
                let drains = self.nets.drains(token);
                let (cx, names) = (&mut self.cx, &self.names);
                let now = cx.now;
                self.sessions.begin(cx, (token, drains), config, (&client, channel), |address| {
                    names.known(now, address)
                });
            }
            nets::Said::Refused(config, r) => self.refused_at_the_door(&config, &r, None)?,
            nets::Said::Name { client, round, socket } => {
                if let Ok(peer) = socket::peer(socket.as_fd()) {
                    let asker = Asker::Net { net: token, client, round };
                    self.names.ask(&mut self.cx, asker, peer.ip());
                }
            }
            nets::Said::Serves => self.serves(token),
        }
        Ok(true)
    }

    /// Accepts one client at a port of a service's own. False: there is none now.
    pub fn port_client(&mut self, token: usize) -> bool {
        let (names, now) = (&self.names, self.cx.now);
        let came = self.ports.accept(&mut self.cx, token, |address| names.known(now, address));
        match came {
            Came::Client(a) if a.config.table.service_asks_name(a.service, &a.who.facts) => {
                let address = a.who.peer.ip();
                match self.ports.name(*a) {
                    Ok(number) => self.names.ask(&mut self.cx, Asker::Port(number), address),
                    Err(a) => self.refuse(*a, StartError::busy("connections", None)),
                }
            }
            Came::Client(a) => self.arrive(*a, None),
            Came::Gone => {}
            Came::Nobody => return false,
            Came::NoRoom => {
                self.cx.retries.add(token);
                return false;
            }
        }
        true
    }

    /// One order of a session. Ok(false): there is none now.
    pub fn session_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(said) = self.sessions.order(&mut self.cx, token)? else { return Ok(false) };
        match said {
            sessions::Said::Heard => {}
            sessions::Said::Sign { config, pair, scheme, message } => {
                self.signers.sign(&mut self.cx, &config, token, (pair, scheme, message));
            }
            sessions::Said::MayLogin { method } => {
                if let Some(s) = self.sessions.get_mut(token) {
                    let may = self.logins.may(&self.cx, s, method);
                    self.sessions.tell(&self.cx, token, &orders::Answer::Login(may));
                }
            }
            sessions::Said::Verify { method, user, channel } => {
                let try_ = (method, user, channel);
                self.logins.verify(&mut self.cx, &mut self.sessions, token, try_)?;
            }
            sessions::Said::Start(arrival) => self.arrive(*arrival, None),
            sessions::Said::Branch { host, channel } => {
                if self.sessions.is_full(token) {
                    // Ends of others may be here that were not heard yet.
                    self.hear_branches(token);
                }
                let drains = self.sessions.net_of(token).is_some_and(|n| self.nets.drains(n));
                self.sessions.branch(&mut self.cx, token, host, channel, drains);
            }
            sessions::Said::Refused { config, refused, number, user } => {
                self.refused_at_the_door(&config, &refused, Some((number, user)))?;
            }
            sessions::Said::Tally { tag, to, from } => {
                self.services.tally((token, tag), to, from);
            }
            sessions::Said::Name(address) => {
                self.names.ask(&mut self.cx, Asker::Session(token), address);
            }
        }
        Ok(true)
    }

    /// A plain connection, as its socket says. None: its client has gone already.
    fn plain(
        &mut self,
        net: usize,
        config: Rc<Config>,
        service: ServiceId,
        client: Shared,
    ) -> Option<Arrival> {
        let (peer, local) =
            (socket::peer(client.as_fd()).ok()?, socket::local(client.as_fd()).ok()?);
        let facts = Facts {
            peer: peer.ip(),
            host: HostId::DEFAULT,
            encrypted: false,
            login: None,
            minute: self.cx.minute(),
            peer_name: self.names.known(self.cx.now, peer.ip()),
            by_port: false,
        };
        let (number, from) = (self.cx.next_number(), From::Net(net));
        let who = Who { peer, local, facts, number, account: None, tls: None, from };
        Some(Arrival { config, service, who, client: Some(client) })
    }

    /// Somebody wants a service: whether he has it is decided here, and delivered or refused.
    /// `asked`: this name was looked up for it already.
    fn arrive(&mut self, a: Arrival, asked: Option<&Missing>) {
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

    /// What was permitted is laid out and started: a permit goes in by value.
    fn deliver(&mut self, permit: Permit, mut a: Arrival, asked: Option<&Missing>) {
        let config = a.config.clone();
        let state =
            config.table.service(a.service).is_some_and(exec::tells_state).then(|| self.state());
        let plan = config
            .catalog
            .prepared(&config.table, permit.service())
            .map(|prepared| Plan::new(&a, prepared, state, &self.cx.descriptors));
        let no = match plan {
            Ok(Ok(plan)) => match self.connection(&mut a, &plan) {
                Ok(connection) => {
                    let record = (config, a.record(self.cx.now));
                    return self.services.start(&mut self.cx, permit, plan, record, connection);
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

    /// What the service is to have: the client's own socket, or one end of a pair, and net's end.
    fn connection(
        &mut self,
        a: &mut Arrival,
        plan: &Plan,
    ) -> Result<(Shared, Option<OwnedFd>), StartError> {
        if !self.services.wait_for_room(&mut self.cx, plan.uid) {
            let text = "too many starts are held up on their way to exec".to_string();
            return Err(StartError::busy("processes", Some(text)));
        }
        let (From::Session(stream), None) = (a.who.from, a.client.as_ref()) else {
            return a.client.take().map(|c| (c, None)).ok_or_else(|| "no connection".into());
        };
        let service = a.config.table.service(a.service).ok_or("no such service")?;
        match self.pairs.make(
            &self.cx.descriptors,
            &service.attributes,
            a.who.peer,
            a.who.local,
            stream,
        ) {
            Ok((_, far)) if self.cx.is_scarce(&far) => Err(StartError::busy("descriptors", None)),
            Ok((near, far)) => Ok((far, Some(near))),
            Err(e) => Err(StartError::busy("descriptors", Some(e.to_string()))),
        }
    }

    fn refuse(&mut self, a: Arrival, no: StartError) {
        let record = a.record(self.cx.now);
        self.services.refuse(&mut self.cx, a, record, no);
    }

    /// `REFUSE`, of a request that net refused itself; of a session its number, and who logged in.
    /// Err: an order that cannot be.
    fn refused_at_the_door(
        &mut self,
        config: &Config,
        r: &Refused,
        session: Option<(u64, Option<Rc<User>>)>,
    ) -> Result<(), Broken> {
        self.cx.counters.refused += 1;
        let table = &config.table;
        let service = match r.service {
            Some(n) => Some(table.service(ServiceId(n)).ok_or(Broken::Nonsense)?),
            None => None,
        };
        lines::refused_at_the_door(&AtTheDoor {
            service,
            name: &r.name,
            host: &table.host(HostId(r.host)).ok_or(Broken::Nonsense)?.name,
            from: r.from.ip(),
            reason: lines::reason(r.reason).ok_or(Broken::Nonsense)?,
            session: session
                .as_ref()
                .map(|(n, user)| (*n, user.as_ref().map(|u| u.login.name.as_str()))),
        });
        Ok(())
    }

    /// Takes what the parts have for each other to whom it is for, until there is nothing more.
    pub fn route(&mut self) {
        loop {
            let mut done = true;
            for answer in self.services.answers() {
                done = false;
                self.answer(answer);
            }
            for (session, answer) in self.signers.answers() {
                done = false;
                self.sessions.tell_signature(&self.cx, session, &answer);
            }
            for (asker, name) in self.names.answers() {
                done = false;
                let name_said = names::said(&name);
                match asker {
                    Asker::Net { net, client, round } => {
                        let what = ToNet::Name { client, round, name: name_said };
                        self.nets.tell(&self.cx, net, &what, None);
                    }
                    Asker::Port(number) => {
                        if let Some(a) = self.ports.named(number, name) {
                            self.arrive(a, None);
                        }
                    }
                    Asker::Session(token) => {
                        self.sessions.tell_name(&self.cx, token, name, name_said)
                    }
                }
            }
            for (token, why) in self.nets.failed().into_iter().chain(self.sessions.failed()) {
                done = false;
                self.broken(token, why);
            }
            if done {
                self.tell_askers();
                return;
            }
        }
    }

    /// Where too many answers are held the sessions that do not take theirs end.
    pub fn relieve(&mut self) {
        while let Some(all) = self.sessions.with_most_held() {
            all.into_iter().for_each(|token| self.session_over(token, &Broken::Stuck));
        }
    }

    fn answer(&mut self, a: Answer) {
        match (a.to, a.outcome) {
            // What runs has the client's own socket; where nothing can be told any more the
            // connection just ends.
            (From::Net(_) | From::Port, Ok(()) | Err(None)) => {}
            (From::Port, Err(Some(_))) => {
                // Without a word it is closed; after one it is heard out, so that no reset overtakes
                // that.
                let client = a.with.client.filter(|_| !a.said.is_empty());
                if let Some(client) = client
                    && socket::send(client.as_fd(), &a.said).is_ok()
                {
                    self.nets.linger(&self.cx, &client);
                }
            }
            (From::Net(net), Err(Some(why))) => {
                self.nets.refuse(&self.cx, net, (a.service, why), a.with.client.as_ref());
            }
            (From::Session((session, tag)), Ok(()) | Err(None)) => {
                let near = a.with.near.as_ref().map(AsFd::as_fd);
                let started = orders::Answer::Started { tag };
                self.sessions.tell_with(&self.cx, session, &started, near);
            }
            (From::Session((session, tag)), Err(Some(why))) => {
                let refused = orders::Answer::Refused { tag, service: a.service.0, why };
                self.sessions.tell(&self.cx, session, &refused);
            }
        }
    }

    /// A user or a group was looked up: what waited for it goes on.
    pub fn account_known(&mut self, found: Option<(Missing, Vec<Then>)>) {
        let Some((name, waiting)) = found else { return };
        for then in waiting {
            match then {
                Then::Start(a) => self.arrive(*a, Some(&name)),
                Then::Login(proved) => {
                    self.logins.let_in(&self.cx, &mut self.sessions, &proved);
                }
            }
        }
    }

    /// A net process serves from now on: every other one takes nobody any more.
    fn serves(&mut self, token: usize) {
        for old in self.nets.serving_but(token) {
            self.drain(old, false);
        }
        if let Some(announce) = self.announce.take() {
            for address in self.listeners.addresses() {
                crate::log::say(&format!("listening on {address}"));
            }
            for address in self.ports.addresses() {
                crate::log::say(&format!("listening on {address}"));
            }
            announce();
        }
        self.reloaded();
    }

    /// A net process takes nobody any more, and its sessions no new streams.
    pub fn drain(&mut self, net: usize, last: bool) {
        self.nets.drain(&self.cx, net, last);
        self.sessions.drain(&self.cx, net, last);
    }

    /// Hears what the streams of a session with facts of their own have said, and which of them
    /// have ended.
    fn hear_branches(&mut self, token: usize) {
        for branch in self.sessions.branches_of(token) {
            if let Err(why) = self.hear(branch, HEARD) {
                self.broken(branch, why);
            }
        }
    }

    /// Hears so many orders of a session at most.
    fn hear(&mut self, session: usize, most: usize) -> Result<(), Broken> {
        for _ in 0..most {
            if !self.session_order(session)? {
                break;
            }
        }
        Ok(())
    }

    /// A session's channel has closed: with it goes all that was known of it.
    pub fn session_over(&mut self, token: usize, why: &Broken) {
        self.services.settle_session(&mut self.cx, token);
        for answer in self.services.answers() {
            self.answer(answer);
        }
        let Some(s) = self.sessions.over(&self.cx, token, why) else { return };
        if *why == Broken::Nonsense {
            // No net process of ours says that, of any session.
            self.nets.broken(s.net, why);
        }
        if s.trying {
            self.logins.forget(token);
        }
        if s.signing {
            self.signers.forget(token);
        }
        self.services.forget(token);
    }

    /// Hears of all children that have ended.
    pub fn reap(&mut self) {
        watch::end_stopped(&self.nets);
        while let Some((pid, exit)) = self.services.running.next_end() {
            self.services.reaped(&mut self.cx, pid);
            let cx = &mut self.cx;
            match cx.children.remove(pid) {
                Some(Role::Service) => {
                    if let Some(socket) = self.services.ended(cx, pid, exit) {
                        self.nets.linger(cx, &socket);
                    }
                }
                Some(Role::Net(token)) => self.net_ended(token, exit),
                Some(Role::Login(number)) => {
                    let look_up = self.logins.ended(cx, &mut self.sessions, number, exit);
                    self.look_up_login(look_up);
                }
                Some(Role::Keys(token)) => self.signers.ended(cx, token, exit),
                Some(Role::Name) => self.names.ended(cx, pid, exit),
                Some(Role::Account) => {
                    let found = self.accounts.ended(pid, exit);
                    self.account_known(found);
                }
                None => {}
            }
        }
    }

    fn look_up_login(&mut self, look_up: Option<LookUp>) {
        let Some(LookUp { name, config, proved }) = look_up else { return };
        let then = Then::Login(proved);
        if let Err((Then::Login(proved), _)) =
            self.accounts.look_up(&mut self.cx, name, &config, then)
        {
            self.logins.later(&self.cx, &mut self.sessions, &proved);
        }
    }

    fn net_ended(&mut self, token: usize, exit: crate::sys::process::Exit) {
        self.nets.ends(&self.cx, token);
        // What it said before its end still counts: clients wait for that.
        while let Ok(true) = self.net_order(token) {}
        // Its sessions end with it, whoever has their channels.
        for session in self.sessions.of_net(token) {
            let heard = self.hear(session, LAST_HEARD);
            self.session_over(session, &heard.err().unwrap_or(Broken::Closed));
        }
        self.nets.ended(&mut self.cx, &mut self.listeners, token, exit);
        let (current, nets) = (&self.cx.config, &self.nets);
        self.signers.retire(|config| {
            Rc::ptr_eq(config, current) || nets.iter().any(|n| Rc::ptr_eq(config, &n.config))
        });
    }
}
