//! Routes requests between the parent's parts: each order of a net process or a session goes to the
//! part that carries it out, and each answer goes to whoever asked. Requests for services go to
//! `pipeline`.

use super::arrival::{Requester, StreamTag};
use super::channel::Broken;
use super::config::Config;
use super::lines::{self, NetRefusal};
use super::lookups::names::{self, Asker};
use super::nets::net::{self, CameTo, NewClient};
use super::relays::Owner;
use super::run::Parent;
use super::sessions;
use super::sessions::session::{SessionRequest, User, local_user};
use super::signers::ToSign;
use super::tokens::{NetToken, RelayThreadToken, SessionToken, Watched};
use crate::policy::{HostId, PeerName, ServiceId};
use crate::sys::notify;
use crate::wire::orders::{self, Named, Refused, RelayEnd, ToNet};
use std::os::fd::AsFd;
use std::rc::Rc;

/// Orders that are read from the channel of a stream, to find out whether it has ended, or of a
/// session without streams, before one that came another way: more than any has open.
const STREAM_ORDERS: usize = 64;

impl Parent {
    /// One order of a net process. Ok(false): there is none now.
    pub fn net_order(&mut self, token: NetToken) -> Result<bool, Broken> {
        let Some(request) = self.nets.order(&mut self.cx, &mut self.listeners, token)? else {
            return Ok(false);
        };
        self.net_request(token, request)?;
        Ok(true)
    }

    /// Carries out what a net process has asked for.
    pub fn net_request(&mut self, token: NetToken, request: net::Request) -> Result<(), Broken> {
        match request {
            net::Request::Done => {}
            net::Request::Start { config, service, client, said } => {
                let of = (token, &*config);
                let Some(at) = self.addresses(of, client.as_fd(), &said, CameTo::Own)? else {
                    self.client_gone(&config, Some((service, HostId::DEFAULT)));
                    return Ok(());
                };
                let arrival = self.plain(token, config, service, client, at);
                self.arrive(arrival, None);
            }
            net::Request::Session(client) => self.begin_session(token, client)?,
            net::Request::StartOnClient { session, what, client } => {
                // What the session has sent on its own channel came before.
                if let Err(why) = self.read_orders(session, STREAM_ORDERS) {
                    self.session_over(session, &why);
                }
                let cx = &mut self.cx;
                let arrival = self.sessions.start_on_client(cx, token, session, what, client)?;
                if let Some(arrival) = arrival {
                    self.arrive(arrival, None);
                }
            }
            net::Request::AtPort { config, client, said } => {
                if let Some(a) = self.proxied_at_port((token, &config), client, &said)? {
                    self.came_to_port(a);
                }
            }
            net::Request::Refused(config, r) => self.refused_by_net(&config, &r, None)?,
            net::Request::Name { config, client, generation, socket, said } => {
                let of = (token, &*config);
                let at = self.addresses(of, socket.as_fd(), &said, CameTo::Any)?;
                if let Some(address) = at.and_then(|at| at.peer().address()) {
                    let asker = Asker::Net { net: token, client, generation };
                    self.names.ask(&mut self.cx, asker, address);
                }
            }
            net::Request::Serves => self.serves(token),
        }
        Ok(())
    }

    /// A session begins, or is refused.
    fn begin_session(&mut self, net: NetToken, client: NewClient) -> Result<(), Broken> {
        let NewClient { config, socket, pair, tls_port, said } = client;
        let came_to = tls_port.map_or(CameTo::Own, CameTo::Tls);
        let addresses = self.addresses((net, &config), socket.as_fd(), &said, came_to)?;
        let Some(addresses) = addresses else {
            self.client_gone(&config, None);
            return Ok(());
        };
        let peer = addresses.peer();
        let (name, drains) = (self.names.known(self.cx.now, peer), self.nets.drains(net));
        let request =
            SessionRequest { net, drains, config, addresses, name, socket, pair, tls_port };
        if let Err(reason) = self.sessions.begin(&mut self.cx, request) {
            self.refuse_nameless(peer, reason);
        }
        Ok(())
    }

    /// One message of a thread that relays. Ok(false): there is none now.
    pub fn relays_order(&mut self, token: RelayThreadToken) -> Result<bool, Broken> {
        let Some(all) = self.relay_threads.over(&mut self.cx, token)? else { return Ok(false) };
        for RelayEnd { relay, to, from } in all {
            self.relay_ended(relay, Owner::Thread(token), (to, from))?;
        }
        Ok(true)
    }

    /// One order of a session. Ok(false): there is none now.
    pub fn session_order(&mut self, token: SessionToken) -> Result<bool, Broken> {
        let Some(request) = self.sessions.order(&mut self.cx, token)? else { return Ok(false) };
        self.session_request(token, request)?;
        Ok(true)
    }

    /// Carries out what a session has asked for.
    pub fn session_request(
        &mut self,
        token: SessionToken,
        request: sessions::Request,
    ) -> Result<(), Broken> {
        match request {
            sessions::Request::Done => {}
            sessions::Request::Sign { config, pair, scheme, message } => {
                if let Some(source) = self.sessions.source_of(token) {
                    let what = ToSign { pair, scheme, message };
                    self.signers.sign(&mut self.cx, &config, token, source, what);
                }
            }
            sessions::Request::MayLogin { method } => {
                if let Some(s) = self.sessions.get_mut(token) {
                    let may = self.logins.may(&self.cx, s, method);
                    self.sessions.tell(&self.cx, token, &orders::Answer::Login(may));
                }
            }
            sessions::Request::Verify { method, user } => {
                self.logins.verify(&self.cx, &mut self.sessions, token, method, user)?;
            }
            sessions::Request::Start(arrival) => self.arrive(*arrival, None),
            sessions::Request::Branch { host, tag } => {
                if self.sessions.is_full(token) {
                    // Other streams may have ended without the parent having read it yet.
                    self.read_branches(token);
                }
                let drains = self.sessions.net_of(token).is_some_and(|n| self.nets.drains(n));
                self.sessions.branch(&mut self.cx, (token, tag), host, drains);
            }
            sessions::Request::Refused { config, refused, number, user } => {
                self.refused_by_net(&config, &refused, Some((number, user)))?;
            }
            sessions::Request::Tally { tag, to, from } => {
                self.services.tally(StreamTag { session: token, tag }, to, from);
            }
            sessions::Request::RelayEnded { relay, to, from } => {
                // The relays of a session that is over have ended with it.
                if let Some(session) = self.sessions.root(token) {
                    self.relay_ended(relay, Owner::Session(session), (to, from))?;
                }
            }
            sessions::Request::Name(client) => match client.address() {
                Some(address) => self.names.ask(&mut self.cx, Asker::Session(token), address),
                None => self.sessions.tell_name(&self.cx, token, PeerName::None, Named::None),
            },
            sessions::Request::Offer(ask) => self.offer_order(token, ask)?,
            sessions::Request::Resumable(key) => self.resumable(token, key)?,
            sessions::Request::Lost(why) => self.session_lost(token, &why)?,
            sessions::Request::Claim(claim) => self.claim(token, &claim)?,
            sessions::Request::Resumed(taken) => self.session_resumed(token, taken)?,
        }
        Ok(())
    }

    /// Logs and counts a client that was gone before its socket could say who it was. `what`: the
    /// service that it asked for, and its host; None: a session.
    pub fn client_gone(&mut self, config: &Config, what: Option<(ServiceId, HostId)>) {
        let table = &config.table;
        let name = |(service, host)| {
            Some((table.service(service)?.name.as_str(), table.host(host)?.name.as_str()))
        };
        self.services.refusals.gone(&mut self.cx, what.and_then(name));
    }

    /// Logs `REFUSE` for a request that net refused itself. `session`: its number, and the user who
    /// logged in. Err: the order cannot be right.
    fn refused_by_net(
        &mut self,
        config: &Config,
        r: &Refused,
        session: Option<(u64, Option<Rc<User>>)>,
    ) -> Result<(), Broken> {
        let table = &config.table;
        let service = match r.service {
            Some(n) => Some(table.service(ServiceId(n)).ok_or(Broken::Forbidden)?),
            None => None,
        };
        let host = &table.host(HostId(r.host)).ok_or(Broken::Forbidden)?.name;
        let reason = lines::reason(r.reason).ok_or(Broken::Forbidden)?;
        let names = service.map(|s| (s.name.as_str(), host.as_str()));
        self.cx.counters.refuse(names, reason);
        let refusals = &mut self.services.refusals;
        if !refusals.of_client(&mut self.cx, r.from, reason, names) {
            return Ok(());
        }
        // Who has connected to a Unix socket is logged in before there is a session.
        let local = local_user(config, r.from);
        let user = match &session {
            Some((_, user)) => user.as_deref(),
            None => local.as_ref(),
        };
        lines::refused_by_net(&NetRefusal {
            service,
            name: &r.name,
            host,
            from: r.from,
            reason,
            user: user.map(|u| u.login.name.as_str()),
            session: session.as_ref().map(|s| s.0),
        });
        Ok(())
    }

    /// Ends the net processes that keep what is not their own any more. False: there was none.
    fn end_nets_that_keep_copies(&mut self) -> bool {
        let all = self.services.kept_copies();
        for requester in &all {
            let net = match *requester {
                Requester::Net(net) | Requester::Port(Some(net)) => Some(net),
                Requester::Session(StreamTag { session, .. }) => self.sessions.net_of(session),
                Requester::Port(None) | Requester::Wait(_) => None,
            };
            net.into_iter().for_each(|net| self.net_broken(net, &Broken::KeepsCopy));
        }
        !all.is_empty()
    }

    /// Routes all answers and failures that the parts have, until there are no more.
    pub fn route(&mut self) {
        loop {
            let mut done = !self.redirected();
            for outcome in self.services.outcomes() {
                done = false;
                self.answer(outcome);
            }
            done &= !self.end_nets_that_keep_copies();
            // After the answers, so that a session hears of a start before it hears of the end.
            for (StreamTag { session, tag }, status) in self.services.run_ends() {
                done = false;
                self.sessions.tell(&self.cx, session, &orders::Answer::Ended { tag, status });
            }
            for port in self.services.freed() {
                done = false;
                if self.ports.program_ended(&mut self.cx, port) {
                    self.may_have_orders(port.into());
                }
            }
            if self.services.started_outdated() {
                self.ports.end_changed(&self.cx, &self.services.running);
            }
            for (session, answer) in self.signers.answers() {
                done = false;
                self.sessions.tell_signature(&self.cx, session, &answer);
            }
            while let Some((asker, name)) = self.names.next_answer(|net| self.nets.takes_more(net))
            {
                done = false;
                let for_net = names::for_net(&name);
                match asker {
                    Asker::Net { net, client, generation } => {
                        let what = ToNet::Name { client, generation, name: for_net };
                        self.nets.tell(&self.cx, net, &what, None);
                    }
                    Asker::Port(number) => {
                        if let Some(a) = self.ports.named(number, name) {
                            self.arrive(a, None);
                        }
                    }
                    Asker::Session(token) => {
                        self.sessions.tell_name(&self.cx, token, name, for_net)
                    }
                }
            }
            for token in std::mem::take(&mut self.nets.hung) {
                done = false;
                self.net_hung(token);
            }
            for (watched, why) in self.failed() {
                done = false;
                self.broken(watched, &why);
            }
            if done {
                self.may_be_reloaded();
                self.relay_threads.settle(&self.cx, false);
                return;
            }
        }
    }

    /// The channels to which something could not be sent, since the last call.
    fn failed(&mut self) -> Vec<(Watched, Broken)> {
        let nets = self.nets.failed().into_iter().map(|(t, why)| (Watched::Net(t), why));
        let sessions = self.sessions.failed().into_iter();
        let sessions = sessions.map(|(t, why)| (Watched::Session(t), why));
        let threads = self.relay_threads.failed().into_iter();
        let threads = threads.map(|(t, why)| (Watched::RelayThread(t), why));
        nets.chain(sessions).chain(threads).collect()
    }

    /// Where too many answers are held, ends the sessions that do not read theirs.
    pub fn relieve(&mut self) {
        while let Some(all) = self.sessions.with_most_held() {
            all.into_iter().for_each(|token| self.session_over(token, &Broken::Stuck));
        }
    }

    /// A net process serves from now on: all others are ordered to drain.
    fn serves(&mut self, token: NetToken) {
        for old in self.nets.serving_except(token) {
            self.drain(old, false);
        }
        if let Some(announce) = self.announce.take() {
            for address in self.listeners.addresses() {
                lines::listening(address);
            }
            let tls = self.listeners.tls.addresses().map(|a| a.to_string());
            for address in self.ports.listeners.addresses().chain(tls) {
                lines::listening(address);
            }
            announce();
            notify::ready();
            self.give_sign_of_life();
        }
    }

    /// Orders a net process to take no new clients, and its sessions to take no new streams.
    pub fn drain(&mut self, net: NetToken, last: bool) {
        self.nets.drain(&self.cx, net, last);
        self.sessions.drain(&self.cx, net, last);
    }

    /// Reads the orders of a session's streams that have facts of their own, and finds out which of
    /// them have ended.
    fn read_branches(&mut self, token: SessionToken) {
        for branch in self.sessions.branches_of(token) {
            if let Err(why) = self.read_orders(branch, STREAM_ORDERS) {
                self.session_over(branch, &why);
            }
        }
    }

    /// Reads this many orders of a session at most.
    pub fn read_orders(&mut self, session: SessionToken, most: usize) -> Result<(), Broken> {
        for _ in 0..most {
            if !self.session_order(session)? {
                break;
            }
        }
        Ok(())
    }
}
