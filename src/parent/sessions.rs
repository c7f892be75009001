//! The sessions: what the parent itself knows of each, and nothing that net says of it.
//!
//! A session's user is whom a login child vouched for; it is encrypted once this process has signed its handshake; its peer
//! is what its socket says. Its host is the client's own choice and gives no right.

use super::catalog::Account;
use super::channel::{Broken, Channel};
use super::children::Role;
use super::config::Config;
use super::environment::Tls;
use super::logins::{self, Asks, Try};
use super::names::Asker;
use super::nets::two;
use super::run::Parent;
use super::start::{From, Who};
use crate::log::Event;
use crate::policy::{Facts, GroupSet, HostId, Login, PeerName, ServiceId, Source};
use crate::sys::{clock, message, socket};
use crate::wire::login::{Report, Verdict};
use crate::wire::orders::{Answer, Ask, Data, May, Message, Method};
use crate::wire::sshsig::Kind;
use mio::Token;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Orders of a stream that are heard before another stream may have its place: more than any has in flight.
const HEARD: usize = 64;

/// Somebody who has logged in.
pub struct User {
    pub login: Login,
    /// None: a name that is no user of this computer.
    pub account: Option<Rc<Account>>,
    pub method: &'static str,
}

pub struct Session {
    pub channel: Channel,
    pub config: Rc<Config>,
    /// The net process that serves it, by its token.
    pub net: usize,
    pub number: u64,
    /// The session that this stream belongs to.
    pub parent: Option<usize>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Of its client's address.
    pub name: PeerName,
    pub host: HostId,
    pub tls: Option<Rc<Tls>>,
    pub user: Option<Rc<User>>,
    pub since: Duration,
    /// Bytes to services and from them, as far as counted.
    pub traffic: (u64, u64),
    signed: bool,
    /// The try that runs: its method and the name.
    trying: Option<(Method, String)>,
    tries: [u32; 2],
    failures: u32,
    /// Streams that have facts of their own.
    branches: u32,
    why: Option<String>,
}

impl Parent {
    /// A client has asked for a built-in, or for TLS.
    pub fn session_begins(&mut self, net: usize, config: &Rc<Config>, client: &OwnedFd, channel: OwnedFd) {
        let (Ok(peer), Ok(local)) = (socket::peer(client.as_fd()), socket::local(client.as_fd())) else { return };
        let source = Source::of(peer.ip());
        if let Err(reason) = self.standing.begin(net, source, &config.table.settings) {
            self.counters.refused += 1;
            Event::new("REFUSE").word("service", "").word("host", "").address("from", peer.ip()).word("reason", reason).put();
            // Whoever has no room for it sees the channel close.
            let _ = message::send_message(channel.as_fd(), &Answer::Full.encode(), &[], false);
            return;
        }
        self.number += 1;
        let name = self.known_name(peer.ip());
        let session = |channel: Channel, number: u64, since: Duration| Session {
            channel,
            config: config.clone(),
            net,
            number,
            parent: None,
            peer,
            local,
            name: name.clone(),
            host: HostId::DEFAULT,
            tls: None,
            user: None,
            since,
            traffic: (0, 0),
            signed: false,
            trying: None,
            tries: [0; 2],
            failures: 0,
            branches: 0,
            why: None,
        };
        let token = self.new_token();
        let Ok(channel) = Channel::new(channel, Token(token), self.poll.registry()) else {
            return self.standing.end(net, source);
        };
        self.sessions.insert(token, session(channel, self.number, self.now));
        self.counters.sessions += 1;
        Event::new("SESSION").address("from", peer.ip()).number("session", self.number).put();
    }

    /// One order of a session. Ok(false): there is none now.
    pub fn session_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(false) };
        let Some((ask, fds)) = s.channel.receive::<Ask>()? else { return Ok(false) };
        self.counters.orders += 1;
        ::log::trace!("session {}: {ask:?}", s.number);
        match (ask, two(fds)) {
            (Ask::Sign { chain, scheme, message }, (None, None)) if s.tls.is_none() => {
                let answer = match s.config.keys.sign(chain, scheme, message.bytes()).and_then(|b| Data::new(&b)) {
                    Some(signature) => Answer::Signed(signature),
                    None => Answer::NotSigned,
                };
                s.signed |= answer != Answer::NotSigned;
                s.channel.send(self.poll.registry(), &answer, None)?;
            }
            (Ask::Encrypted { suite, name }, (None, None)) => s.encrypted(suite, &name)?,
            (Ask::MayLogin { method }, (None, None)) => {
                let may = s.may_login(method, self.penalties.lasts(s.peer.ip(), self.now));
                s.channel.send(self.poll.registry(), &Answer::Login(may), None)?;
            }
            (Ask::Verify { method, user }, (Some(channel), None)) => self.verify(token, method, user, channel)?,
            (Ask::Start { service, host, tag }, (Some(connection), None)) => {
                self.start_in(token, ServiceId(service), HostId(host), tag, connection)?;
            }
            (Ask::Branch { host }, (Some(channel), None)) => self.branch(token, HostId(host), channel)?,
            (Ask::Refused(r), (None, None)) => {
                let (config, number, user) = (s.config.clone(), s.number, s.user.clone());
                self.note_refusal(&config, &r, Some((number, user.as_ref().map(|u| u.login.name.as_str()))))?;
            }
            (Ask::Tally { tag, to, from }, (None, None)) => {
                s.traffic = (s.traffic.0.saturating_add(to), s.traffic.1.saturating_add(from));
                self.counters.bytes = (self.counters.bytes.0.saturating_add(to), self.counters.bytes.1.saturating_add(from));
                match self.flights.iter().any(|f| f.cargo().is_of((token, tag))) {
                    true => drop(self.children.early.insert((token, tag), (to, from))),
                    false => self.children.tally((token, tag), to, from),
                }
            }
            (Ask::Name, (None, None)) => {
                let address = s.peer.ip();
                self.ask_name(Asker::Session(token), address);
            }
            (Ask::End(why), (None, None)) => s.why = Some(String::from_utf8_lossy(why.bytes()).into_owned()),
            _ => return Err(Broken::Nonsense),
        }
        Ok(true)
    }

    fn verify(&mut self, token: usize, method: Method, user: Data, channel: OwnedFd) -> Result<(), Broken> {
        let barred = |p: &Parent, s: &Session| p.penalties.lasts(s.peer.ip(), p.now);
        let Some(s) = self.sessions.get(&token) else { return Ok(()) };
        if s.trying.is_some() || s.may_login(method, barred(self, s)) != May::Try {
            return Err(Broken::Nonsense);
        }
        let kind = s.kind();
        let t = Try {
            session: token,
            method,
            user: user.clone(),
            from: s.peer.ip(),
            asks: Asks::Proof(channel),
            kind,
            config: s.config.clone(),
        };
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        s.trying = Some((method, String::from_utf8_lossy(user.bytes()).into_owned()));
        // A try that fails leaves it nobody; so does one that has only begun.
        s.user = None;
        if self.logins.add(t).is_err() {
            self.verdict(token, Verdict::Later);
        }
        Ok(())
    }

    /// Starts the tries that may run now.
    pub fn start_logins(&mut self) {
        while let Some(t) = self.logins.next() {
            match logins::start(&t, &mut self.spawner) {
                Ok((child, reports)) => {
                    // Signalled by nobody: it ends by itself, at its own deadline at the latest.
                    self.children.add(
                        child.pid,
                        Role::Login { session: t.session, hashes: t.hashes(), account: matches!(t.asks, Asks::Account), reports },
                    );
                }
                Err(e) => {
                    crate::log::warn(&e);
                    self.logins.done(t.hashes());
                    self.verdict(t.session, Verdict::Later);
                }
            }
        }
    }

    /// A login child has ended: that alone says who a session is.
    pub fn login_child_ended(&mut self, token: usize, account: bool, status: i32, reports: Vec<Report>) {
        let signed = self.hear(reports);
        let Some(s) = self.sessions.get(&token) else { return };
        let Some((method, name)) = &s.trying else { return };
        let verdict = match (Verdict::from_status(status), method, signed) {
            (Verdict::Yes, Method::Pubkey, _) if account => Verdict::Yes,
            (Verdict::Yes, Method::Pubkey, None) => Verdict::Later,
            (Verdict::Yes, Method::Pubkey, Some((text, _))) if !self.accepted.accept(text, s.number) => Verdict::UsedSignature,
            (Verdict::Yes, Method::Pubkey, Some(_)) if s.config.backends.account.is_some() => {
                // Whoever has a key is not yet somebody whom PAM lets in: a child that hears nothing but the name asks.
                let user = Data::cut(name.as_bytes());
                let t = Try {
                    session: token,
                    method: *method,
                    user,
                    from: s.peer.ip(),
                    asks: Asks::Account,
                    kind: s.kind(),
                    config: s.config.clone(),
                };
                match self.logins.add(t) {
                    Ok(()) => return,
                    Err(_) => Verdict::Later,
                }
            }
            (verdict, ..) => verdict,
        };
        self.verdict(token, verdict);
    }

    /// What a try came to.
    fn verdict(&mut self, token: usize, verdict: Verdict) {
        let Some(s) = self.sessions.get_mut(&token) else { return };
        let Some((method, name)) = s.trying.take() else { return };
        let mut answer = (false, GroupSet::default());
        if verdict == Verdict::Yes {
            let user = Rc::new(logged_in(&s.config, &name, method));
            answer = (user.login.superuser, user.login.groups);
            s.user = Some(user);
        } else {
            s.tries[method as usize] += 1;
            // A key that is not the user's is no guess: an agent offers many.
            s.failures += u32::from(matches!(verdict, Verdict::No | Verdict::BadSignature | Verdict::UsedSignature));
        }
        Event::new("LOGIN")
            .word("user", &name)
            .word("method", word(method))
            .word("result", verdict.as_str())
            .address("from", s.peer.ip())
            .number("session", s.number)
            .put();
        let said = Answer::Verdict { status: verdict.status() as u32, superuser: answer.0, groups: answer.1.0 };
        if let Err(why) = s.channel.send(self.poll.registry(), &said, None) {
            self.session_over(token, why);
        }
    }

    fn start_in(&mut self, token: usize, service: ServiceId, host: HostId, tag: u32, connection: OwnedFd) -> Result<(), Broken> {
        let minute = self.minute();
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        let config = s.config.clone();
        if config.table.host(host).is_none() || config.table.service(service).is_none() {
            return Err(Broken::Nonsense);
        }
        s.host = host;
        let (tls, user) = (s.tls.clone(), s.user.clone());
        let login = user.as_ref().map(|u| u.login.clone());
        let facts = Facts { peer: s.peer.ip(), host, encrypted: tls.is_some(), login, minute, peer_name: s.name.clone() };
        let who = Who {
            peer: s.peer,
            local: s.local,
            facts,
            number: s.number,
            account: user.as_ref().map(|u| (u.account.as_ref(), u.method)),
            tls: tls.as_deref(),
            from: From::Session((token, tag)),
        };
        self.start(&config, service, &who, connection);
        Ok(())
    }

    /// A stream gets facts of its own: they begin as its session's.
    fn branch(&mut self, token: usize, host: HostId, channel: OwnedFd) -> Result<(), Broken> {
        let full = |p: &Parent| p.sessions.get(&token).is_some_and(|s| s.branches >= s.config.table.settings.dialogues());
        if full(self) {
            // Ends of others may be here that were not heard yet.
            self.hear_branches(token);
        }
        if full(self) || self.sessions.get(&token).is_some_and(|s| s.parent.is_some()) {
            return Err(Broken::Nonsense);
        }
        let branch = self.new_token();
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        let Ok(channel) = Channel::new(channel, Token(branch), self.poll.registry()) else { return Ok(()) };
        s.branches += 1;
        let own = Session {
            channel,
            config: s.config.clone(),
            net: s.net,
            number: s.number,
            parent: Some(token),
            peer: s.peer,
            local: s.local,
            name: s.name.clone(),
            host,
            tls: s.tls.clone(),
            user: s.user.clone(),
            since: self.now,
            traffic: (0, 0),
            signed: false,
            trying: None,
            tries: [0; 2],
            failures: 0,
            branches: 0,
            why: None,
        };
        self.sessions.insert(branch, own);
        Ok(())
    }

    /// Hears what the streams of a session with facts of their own have said, and which of them have ended.
    fn hear_branches(&mut self, token: usize) {
        let all: Vec<usize> = self.sessions.iter().filter(|(_, s)| s.parent == Some(token)).map(|(t, _)| *t).collect();
        for branch in all {
            for _ in 0..HEARD {
                match self.session_order(branch) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(why) => {
                        self.broken(branch, why);
                        break;
                    }
                }
            }
        }
    }

    /// The sessions of a net process that drains: they take no new streams.
    pub fn sessions_drain(&mut self, net: usize, last: bool) {
        let registry = self.poll.registry();
        let mut over = Vec::new();
        for (token, s) in self.sessions.iter_mut().filter(|(_, s)| s.net == net) {
            if let Err(why) = s.channel.send(registry, &Answer::GoAway { last }, None) {
                over.push((*token, why));
            }
        }
        over.into_iter().for_each(|(token, why)| self.session_over(token, why));
    }

    /// Its channel has closed: with it goes all that was known of it.
    pub fn session_over(&mut self, token: usize, why: Broken) {
        // What it began is told of before its end, but for what is late.
        while self.flights.iter().any(|f| !f.is_late() && f.cargo().is_in(token)) {
            self.wait_for_one();
        }
        let Some(s) = self.sessions.remove(&token) else { return };
        self.logins.forget(token);
        self.children.forget(token);
        if s.failures > 0 {
            let lasts = self.penalties.add(s.peer.ip(), s.failures, self.now);
            Event::new("PENALTY")
                .address("from", s.peer.ip())
                .word("reason", "login")
                .number("failures", s.failures)
                .number("seconds", lasts.as_secs())
                .word("end", clock::stamp(self.now + lasts, self.now))
                .number("session", s.number)
                .put();
        }
        if let Some(parent) = s.parent {
            if let Some(p) = self.sessions.get_mut(&parent) {
                p.branches -= 1;
            }
            return;
        }
        self.standing.end(s.net, Source::of(s.peer.ip()));
        let reason = match (why, s.why) {
            (Broken::Nonsense, _) => "nonsense".to_string(),
            (Broken::Closed, said) => said.unwrap_or_else(|| "closed".into()),
        };
        Event::new("END")
            .number("session", s.number)
            .address("from", s.peer.ip())
            .word("reason", reason)
            .seconds("duration", self.now.saturating_sub(s.since))
            .put();
    }
}

impl Session {
    fn encrypted(&mut self, suite: u16, name: &Data) -> Result<(), Broken> {
        let suite = match suite {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            _ => return Err(Broken::Nonsense),
        };
        // Without our signature no client has finished a handshake with us.
        if !self.signed || self.tls.is_some() {
            return Err(Broken::Nonsense);
        }
        let server_name = name.text().ok_or(Broken::Nonsense)?.to_string();
        self.host = self.config.table.host_named(name.bytes()).unwrap_or(HostId::DEFAULT);
        self.user = None;
        self.tls = Some(Rc::new(Tls { suite, server_name }));
        Ok(())
    }

    fn kind(&self) -> Kind {
        if self.tls.is_some() { Kind::Tls } else { Kind::Plain }
    }

    fn may_login(&self, method: Method, barred: bool) -> May {
        let settings = &self.config.table.settings;
        let near = self.tls.is_some() || self.peer.ip().is_loopback() || settings.plaintext_login;
        let most = [settings.login_tries, settings.pubkey_tries];
        if !near || self.tries[method as usize] >= most[method as usize] {
            May::Never
        } else if barred {
            May::Later
        } else {
            May::Try
        }
    }
}

fn word(method: Method) -> &'static str {
    match method {
        Method::Password => "password",
        Method::Pubkey => "pubkey",
    }
}

/// Somebody whom a login child vouched for.
fn logged_in(config: &Config, name: &str, method: Method) -> User {
    let account = config.catalog.account(name).filter(|a| a.user.name == name);
    User { login: config.login(name), account, method: word(method) }
}
