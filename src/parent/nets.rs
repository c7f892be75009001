//! The net processes: started, told, replaced.
//!
//! One serves; after a reload older ones finish what they have. One that dies is replaced at once;
//! one that keeps dying is started again only once a second, so that a mistake of ours is no fork
//! bomb. The listeners are ours: no client is refused meanwhile.

use super::catalog;
use super::channel::{Broken, Channel};
use super::children::Role;
use super::config::Config;
use super::names::Asker;
use super::run::{Parent, Timer};
use super::start::{From, Who};
use super::watch::Asked;
use crate::log::{self, Event};
use crate::policy::{Facts, HostId, ServiceId};
use crate::sys::message::Fds;
use crate::sys::process::Exit;
use crate::sys::shared::Shared;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Stderr};
use crate::sys::{process, socket};
use crate::wire::orders::{FromNet, Refused, ToNet};
use mio::Token;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// `argv[0]` of a net process.
pub const ROLE: &str = "fived-net";
/// How long one may take until it is ready.
const READY: Duration = Duration::from_secs(10);
/// More starts than this within [`WINDOW`], and the next waits for [`PAUSE`].
pub const STARTS: usize = 5;
pub const WINDOW: Duration = Duration::from_secs(10);
pub const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Serving,
    Draining,
    /// It has said its last order, and waits for the answers to what it said before.
    Leaving,
    /// It was told that there are no more: it ends.
    Left,
    /// It hung and was killed; another has its place, even while the system keeps it from ending.
    Killed,
}

pub struct Net {
    pub child: Child,
    pub channel: Channel,
    pub config: Rc<Config>,
    pub stage: Stage,
    pub asked: Asked,
    /// Where its words for the log come (`words`).
    words: usize,
    /// It has listeners.
    listens: bool,
    /// It has ended, or was ended for what it said: that is told once.
    ended: bool,
}

impl Net {
    pub fn serves(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Ends it, and with it every connection that it relays.
    pub fn end(&self) {
        self.child.kill();
    }
}

impl Parent {
    /// Starts a net process under the table of now.
    pub fn start_net(&mut self) {
        if self.stopping {
            return;
        }
        self.net_starts.retain(|&s| s + WINDOW > self.now);
        self.net_starts.push(self.now);
        if let Err(e) = self.try_start_net() {
            log::warn(&format!("net: {e}"));
            if self.is_stillborn(&e) {
                return;
            }
            self.at(self.now + PAUSE, Timer::NetAgain);
        }
    }

    /// Have so many been tried since the start, and none was ever ready? Then none will be: whoever
    /// started fived is told.
    fn is_stillborn(&mut self, last: &str) -> bool {
        self.net_failures += 1;
        let hopeless = self.announce.is_some() && self.net_failures >= STARTS;
        if hopeless {
            self.stillborn =
                Some(format!("no network process was ready in {STARTS} tries; the last: {last}"));
        }
        hopeless
    }

    fn try_start_net(&mut self) -> Result<(), String> {
        let (ours, theirs) = socket::seqpacket().map_err(|e| format!("channel: {e}"))?;
        let config = self.config.clone();
        let (words, said) = self.new_words().map_err(|e| format!("words: {e}"))?;
        let child = spawn(self, &config, &theirs, &said);
        drop(said);
        let child = child.inspect_err(|_| self.last_words(words))?;
        let token = self.new_token();
        let channel = Channel::new(ours, Token(token), self.poll.registry(), &self.retries)
            .map_err(|e| format!("poll: {e}"))?;
        self.children.add(child.pid, Role::Net(token));
        self.nets.insert(
            token,
            Net {
                child,
                channel,
                config,
                stage: Stage::Starting,
                asked: Asked::default(),
                words,
                listens: false,
                ended: false,
            },
        );
        self.at(self.now + READY, Timer::NetLate { net: token });
        Ok(())
    }

    /// One order of a net process. Ok(false): there is none now.
    pub fn net_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(net) = self.nets.get_mut(&token) else { return Ok(false) };
        if net.channel.is_behind() {
            // Who does not take its answers is asked nothing more: clients' sockets are among them.
            return Ok(false);
        }
        if !self.descriptors.have_room(net.channel.as_fd()) {
            net.channel.try_again();
            return Ok(false);
        }
        let Some((order, fds)) = net.channel.receive::<FromNet>()? else { return Ok(false) };
        net.asked.heard();
        let config = net.config.clone();
        self.counters.orders += 1;
        ::log::trace!("net {token}: {order:?}");
        if fds.lost() {
            // Whom it was about is gone with its descriptor; nobody is to blame for that.
            self.out_of_descriptors();
            return Ok(true);
        }
        match (order, two(fds)) {
            (FromNet::Ready, (None, None)) => self.net_ready(token)?,
            (FromNet::Start { service, host: 0 }, (Some(client), None)) => {
                self.start_plain(token, &config, ServiceId(service), client);
            }
            (FromNet::Session, (Some(client), Some(channel))) => {
                self.session_begins(token, &config, &client, channel.our_own())
            }
            (FromNet::Refused(r), (None, None)) => self.note_refusal(&config, &r, None)?,
            (FromNet::Name { client, round }, (Some(socket), None)) => {
                if let Ok(peer) = socket::peer(socket.as_fd()) {
                    self.ask_name(Asker::Net { net: token, client, round }, peer.ip());
                }
            }
            (FromNet::Pong, (None, None)) => {}
            (FromNet::Left, (None, None)) => self.net_left(token)?,
            (FromNet::Warn(text), (None, None)) => {
                log::warn(&String::from_utf8_lossy(text.bytes()))
            }
            _ => return Err(Broken::Nonsense),
        }
        Ok(true)
    }

    /// The table's newest net process serves from now on; the others drain.
    fn net_ready(&mut self, token: usize) -> Result<(), Broken> {
        let registry = self.poll.registry();
        let net = self.nets.get_mut(&token).ok_or(Broken::Closed)?;
        match net.stage {
            Stage::Starting => {}
            // It was told to drain before it could say so.
            Stage::Draining | Stage::Leaving | Stage::Left | Stage::Killed => return Ok(()),
            Stage::Serving => return Err(Broken::Nonsense),
        }
        if self.stopping || !Rc::ptr_eq(&net.config, &self.config) {
            // The table changed again meanwhile: another is on its way.
            net.stage = Stage::Draining;
            return net.channel.send(registry, &ToNet::Drain { last: self.stopping }, None);
        }
        net.stage = Stage::Serving;
        net.listens = true;
        let dead = self.listeners.revive(self.config.table.settings.mptcp);
        dead.iter().for_each(|w| log::warn(w));
        for socket in self.listeners.sockets() {
            net.channel.send(registry, &ToNet::Listener, Some(socket))?;
        }
        self.retire(token);
        if let Some(announce) = self.announce.take() {
            for address in self.listeners.addresses() {
                log::say(&format!("listening on {address}"));
            }
            announce();
        }
        self.reloaded();
        Ok(())
    }

    /// It accepts no more from any listener.
    fn net_left(&mut self, token: usize) -> Result<(), Broken> {
        let net = self
            .nets
            .get_mut(&token)
            .filter(|n| n.stage != Stage::Starting && n.stage != Stage::Serving);
        net.ok_or(Broken::Nonsense)?.listens = false;
        self.let_go_of_listeners();
        Ok(())
    }

    /// What a table has given up is free as soon as no net process of an older one has it.
    fn let_go_of_listeners(&mut self) {
        if self.nets.values().all(|n| !n.listens || Rc::ptr_eq(&n.config, &self.config)) {
            self.listeners.let_go();
        }
    }

    /// Does it take nobody any more, and no stream?
    pub fn drains(&self, token: usize) -> bool {
        self.nets
            .get(&token)
            .is_some_and(|n| n.stage != Stage::Starting && n.stage != Stage::Serving)
    }

    /// Every other net process takes nobody any more.
    fn retire(&mut self, but: usize) {
        let old: Vec<usize> = self
            .nets
            .iter()
            .filter(|(t, n)| **t != but && n.stage == Stage::Serving)
            .map(|(t, _)| *t)
            .collect();
        for token in old {
            self.drain_net(token, false);
        }
    }

    fn drain_net(&mut self, token: usize, last: bool) {
        let Some(net) = self.nets.get_mut(&token) else { return };
        if matches!(net.stage, Stage::Starting | Stage::Serving) {
            net.stage = Stage::Draining;
        }
        if let Err(why) = net.channel.send(self.poll.registry(), &ToNet::Drain { last }, None) {
            return self.net_broken(token, why);
        }
        self.sessions_drain(token, last);
    }

    /// All of them take nobody any more.
    pub fn drain(&mut self, last: bool) {
        let all: Vec<usize> = self.nets.keys().copied().collect();
        all.into_iter().for_each(|token| self.drain_net(token, last));
    }

    /// Its channel is of no use: it has died, or it must.
    pub fn net_broken(&mut self, token: usize, why: Broken) {
        let Some(net) = self.nets.get_mut(&token) else { return };
        if why == Broken::Closed
            && matches!(net.stage, Stage::Draining | Stage::Leaving | Stage::Left)
        {
            // It ends by itself.
            if net.stage == Stage::Draining {
                net.stage = Stage::Leaving;
            }
            return;
        }
        if std::mem::replace(&mut net.ended, true) {
            return;
        }
        if why == Broken::Nonsense {
            log::warn(&format!("net: pid {}: an order that is none; it is ended", net.child.pid));
        }
        if why == Broken::Stuck {
            log::warn(&format!(
                "net: pid {}: an order to it cannot be delivered; it is ended",
                net.child.pid
            ));
        }
        net.end();
        // Reaped, it is replaced; its channel says nothing more.
    }

    /// Those that drain and have said their last go, once all that they asked for has begun or was
    /// refused. What hangs is not waited for.
    pub fn leave_nets(&mut self) {
        for (token, net) in self.nets.iter_mut().filter(|(_, n)| n.stage == Stage::Leaving) {
            let waited_for =
                self.flights.iter().any(|f| !f.is_late() && f.cargo().is_of_net(*token));
            if !waited_for && net.channel.finish() {
                net.stage = Stage::Left;
            }
        }
    }

    pub fn net_late(&mut self, token: usize) {
        if let Some(net) = self.nets.get(&token).filter(|n| n.stage == Stage::Starting) {
            log::warn(&format!(
                "net: pid {}: not ready after {} s; it is ended",
                net.child.pid,
                READY.as_secs()
            ));
            net.end();
        }
    }

    pub fn net_ended(&mut self, token: usize, exit: Exit) {
        if let Some(net) = self.nets.get_mut(&token) {
            net.ended = true;
            // It takes nothing any more, and no answer that is held is in the way.
            let _ = net.channel.flush(self.poll.registry());
        }
        // What it said before its end still counts: clients wait behind it.
        while let Ok(true) = self.net_order(token) {}
        self.sessions_end(token);
        let Some(net) = self.nets.remove(&token) else { return };
        self.last_words(net.words);
        let drained = matches!(net.stage, Stage::Draining | Stage::Leaving | Stage::Left);
        self.let_go_of_listeners();
        let expected = drained && exit == Exit::Status(0);
        if !expected {
            log::warn(&format!("net: pid {} ended ({exit:?})", net.child.pid));
        }
        self.retire_signers();
        let current =
            !drained && net.stage != Stage::Killed && Rc::ptr_eq(&net.config, &self.config);
        if self.stopping || !current {
            return;
        }
        if self.is_stillborn(&format!("{exit:?}")) {
            return;
        }
        self.replace_net();
    }

    /// Starts another in the place of one that died.
    pub fn replace_net(&mut self) {
        self.counters.replaced += 1;
        if self.net_starts.iter().filter(|&&s| s + WINDOW > self.now).count() > STARTS {
            self.at(self.now + PAUSE, Timer::NetAgain);
        } else {
            self.start_net();
        }
    }

    fn start_plain(
        &mut self,
        token: usize,
        config: &Rc<Config>,
        service: ServiceId,
        client: Shared,
    ) {
        let (Ok(peer), Ok(local)) = (socket::peer(client.as_fd()), socket::local(client.as_fd()))
        else {
            // The client has gone already.
            return;
        };
        self.number += 1;
        let peer_name = self.known_name(peer.ip());
        let facts = Facts {
            peer: peer.ip(),
            host: HostId::DEFAULT,
            encrypted: false,
            login: None,
            minute: self.minute(),
            peer_name,
        };
        let who = Who {
            peer,
            local,
            facts,
            number: self.number,
            account: None,
            tls: None,
            from: From::Net(token),
        };
        self.start(config, service, who, client);
    }

    /// `REFUSE`, of a request that net refused itself; of a session its number, and who has logged
    /// in. Err: an order that cannot be.
    pub fn note_refusal(
        &mut self,
        config: &Rc<Config>,
        r: &Refused,
        session: Option<(u64, Option<&str>)>,
    ) -> Result<(), Broken> {
        self.counters.refused += 1;
        let table = &config.table;
        let (address, name) = r.data.bytes().split_at_checked(18).ok_or(Broken::Nonsense)?;
        let octets: [u8; 16] = address[..16].try_into().map_err(|_| Broken::Nonsense)?;
        let host = table.host(HostId(r.host)).ok_or(Broken::Nonsense)?;
        let service = match r.service {
            Some(n) => Some(table.service(ServiceId(n)).ok_or(Broken::Nonsense)?),
            None => None,
        };
        let reason = super::start::reason(r.reason).ok_or(Broken::Nonsense)?;
        let what = service.map(|s| &s.attributes.log_on_failure);
        let mut line = match service {
            Some(s) => Event::new("REFUSE").word("service", &s.name),
            None => Event::new("REFUSE").word("service", name),
        };
        line = line.word("host", &host.name);
        if what.is_none_or(|w| w.host) {
            line = line.address("from", std::net::IpAddr::from(octets).to_canonical());
        }
        line = line.word("reason", reason);
        if let (true, Some((_, Some(user)))) = (what.is_some_and(|w| w.userid), session) {
            line = line.word("user", user);
        }
        if what.is_some_and(|w| w.attempt) {
            line = line.word("attempt", name);
        }
        match session {
            Some((n, _)) => line.number("session", n).put(),
            None => line.put(),
        }
        Ok(())
    }
}

/// Both descriptors of an order, if it had any.
pub fn two(mut fds: Fds) -> (Option<Shared>, Option<Shared>) {
    let first = fds.take();
    (first, fds.take())
}

fn spawn(
    parent: &mut Parent,
    config: &Config,
    channel: &OwnedFd,
    said: &OwnedFd,
) -> Result<Child, String> {
    let null = process::null().map_err(|e| format!("/dev/null: {e}"))?;
    let words = |e: BadWord| e.to_string();
    let argv = CList::new([ROLE]).map_err(words)?;
    let env = environment(parent.options.debug, config).map_err(words)?;
    let launch = Launch {
        stderr: Stderr::Connection,
        connection: said.as_fd(),
        extra: Some(channel.as_fd()),
        second: Some(config.archive.as_fd()),
        ..catalog::role(&argv, &env, &null)
    };
    parent.spawner.start(&launch).map_err(|f| f.to_string())
}

fn environment(debug: usize, config: &Config) -> Result<CList, BadWord> {
    let mut env = Env::new();
    env.push("FIVED_DEBUG", debug.to_string().as_bytes())?;
    // What glibc keeps for each thread of what it freed is most of what a session's thread would
    // hold while it sleeps.
    env.push("GLIBC_TUNABLES", b"glibc.malloc.tcache_count=0")?;
    for name in ["RUST_LOG", "TZ"] {
        if let Ok(value) = std::env::var(name) {
            env.push(name, value.as_bytes())?;
        }
    }
    if let Some((uid, gid)) = config.own_users.map(|o| o.net) {
        env.push("FIVED_UID", uid.to_string().as_bytes())?;
        env.push("FIVED_GID", gid.to_string().as_bytes())?;
    }
    Ok(env.finish())
}
