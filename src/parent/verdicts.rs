//! Who may try to log in, what a try came to, and what that costs.

use super::accounts::Then;
use super::catalog::Missing;
use super::channel::Broken;
use super::children::Role;
use super::config::Config;
use super::logins::{self, Asks, Try};
use super::places::Work;
use super::run::Parent;
use super::sessions::{Session, User};
use crate::log::Event;
use crate::policy::GroupSet;
use crate::sys::clock;
use crate::sys::process::Exit;
use crate::wire::login::{Verdict, fingerprint};
use crate::wire::orders::{Answer, Data, May, Method};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Seconds after which somebody may try again for whom there was no room.
const SOON: Duration = Duration::from_secs(1);
/// What that somebody is told.
pub const NO_ROOM: May = May::Later { seconds: 1 };

impl Parent {
    /// A client has said all that a try begins with. A penalty may have begun since it was asked
    /// ([`Session::may_login`]), or room may be gone: that is told, and only a try that could never
    /// be is an order that is none.
    pub fn verify(
        &mut self,
        token: usize,
        method: Method,
        user: Data,
        channel: OwnedFd,
    ) -> Result<(), Broken> {
        let scarce = self.is_scarce(&channel);
        let Some(s) = self.sessions.get_mut(&token) else { return Ok(()) };
        let room = !scarce && self.logins.has_room(&s.config, method, s.peer.ip());
        match s.may_login(method, self.penalties.left(s.peer.ip(), self.now), room) {
            May::Try { .. } if !s.trying => {}
            later @ May::Later { .. } if !s.trying => {
                return s.channel.send(self.poll.registry(), &Answer::Login(later), None);
            }
            _ => return Err(Broken::Nonsense),
        }
        s.trying = true;
        // A try that fails leaves it nobody; so does one that has only begun.
        s.user = None;
        let t = Try {
            session: token,
            number: s.number,
            method,
            user,
            from: s.peer.ip(),
            asks: Asks::Proof(Some(channel)),
            kind: s.kind(),
            config: s.config.clone(),
        };
        if let Err(t) = self.logins.add(t, self.now) {
            self.not_tried(&t, SOON);
        }
        Ok(())
    }

    /// Ends the tries that have taken too long, and starts those that may run now.
    pub fn start_logins(&mut self) {
        for (t, verdict) in self.logins.late(self.now) {
            match t.asks {
                Asks::Proof(_) => self.not_tried(&t, SOON),
                Asks::Account(_) => self.verdict(&t, verdict, None),
            }
        }
        while let Some((number, t)) = self.logins.next(self.now) {
            let left =
                self.penalties.left(t.from, self.now).filter(|_| matches!(t.asks, Asks::Proof(_)));
            if let Some(left) = left
                && self.sessions.get(&t.session).is_none_or(|s| s.failures == 0)
            {
                if let Some(t) = self.logins.remove(number) {
                    self.not_tried(&t, left);
                }
                continue;
            }
            match logins::start(t, &mut self.spawner, self.descriptors.reserve()) {
                Ok((child, reports)) => {
                    self.children.add(child.pid, Role::Login(number));
                    self.logins.runs(number, child, reports);
                }
                Err(e) => {
                    let scarce = e.for_want_of_room();
                    self.note_not_started("login", &e);
                    match self.logins.remove(number) {
                        Some(t) if scarce && matches!(t.asks, Asks::Proof(_)) => {
                            self.not_tried(&t, SOON)
                        }
                        Some(t) => self.verdict(&t, Verdict::Later, None),
                        None => {}
                    }
                }
            }
        }
    }

    /// A try that had no place, or whose source has got a penalty meanwhile: nothing was asked, and
    /// nothing is counted.
    fn not_tried(&mut self, t: &Try, left: Duration) {
        let Some(s) = self.sessions.get_mut(&t.session) else { return };
        s.trying = false;
        let later = Answer::Login(May::Later { seconds: seconds(left) });
        if let Err(why) = s.channel.send(self.poll.registry(), &later, None) {
            self.session_over(t.session, why);
        }
    }

    /// A login child has ended: that alone says who a session is.
    pub fn login_child_ended(&mut self, number: u64, exit: Exit) {
        let status = match exit {
            Exit::Status(n) => n,
            // A child that was killed has decided nothing.
            Exit::Signal(_) => Verdict::Later.status(),
        };
        let Some((t, said, reports)) = self.logins.done(number, Verdict::from_status(status))
        else {
            return;
        };
        let heard = self.hear(reports);
        if let Some(why) = &heard.why {
            ::log::debug!(
                "login of {:?} from {}: {why}",
                String::from_utf8_lossy(t.user.bytes()),
                t.from
            );
        }
        let (verdict, key) = match (said, &t.asks, t.method, heard.signed) {
            (said, Asks::Account(key), ..) => (said, Some(*key)),
            (Verdict::Yes, _, Method::Pubkey, None) => (Verdict::Later, None),
            (Verdict::Yes, _, Method::Pubkey, Some((text, key)))
                if !self.accepted.accept(text, t.number) =>
            {
                (Verdict::UsedSignature, Some(key))
            }
            (Verdict::Yes, _, Method::Pubkey, Some((_, key)))
                if t.config.backends.account.is_some() =>
            {
                // Whoever has a key is not yet somebody whom PAM lets in: a child that hears
                // nothing but the name asks.
                match self.logins.add(Try { asks: Asks::Account(key), ..t }, self.now) {
                    Ok(()) => return,
                    Err(t) => return self.verdict(&t, Verdict::Later, Some(key)),
                }
            }
            (said, _, _, signed) => (said, signed.map(|(_, key)| key).or(heard.key)),
        };
        if verdict != Verdict::Yes {
            return self.verdict(&t, verdict, key);
        }
        // Who that is on this computer is asked before anybody is told.
        let name = String::from_utf8_lossy(t.user.bytes()).into_owned();
        if t.config.catalog.known_account(&name).is_some() {
            return self.let_in(&t, key);
        }
        let (config, then) = (t.config.clone(), Then::Login { tried: Box::new(t), key });
        if let Err(Then::Login { tried, key }) =
            self.look_up_account(Missing::User(name), &config, then)
        {
            self.verdict(&tried, Verdict::Later, key);
        }
    }

    /// A login was good, and who that is on this computer is known as far as it can be.
    pub fn let_in(&mut self, t: &Try, key: Option<[u8; 32]>) {
        self.verdict(t, Verdict::Yes, key);
    }

    /// What a try came to. Whoever did not wait for it has his penalty all the same.
    fn verdict(&mut self, t: &Try, verdict: Verdict, key: Option<[u8; 32]>) {
        let name = String::from_utf8_lossy(t.user.bytes()).into_owned();
        let mut line = Event::new("LOGIN")
            .word("user", &name)
            .word("method", word(t.method))
            .word("result", verdict.as_str());
        line = line.address("from", t.from).number("session", t.number);
        match key {
            Some(key) => line.word("key", fingerprint(&key)).put(),
            None => line.put(),
        }
        // A key that is not the user's is no guess: an agent offers many.
        let failed =
            matches!(verdict, Verdict::No | Verdict::BadSignature | Verdict::UsedSignature);
        let mut failures = 1;
        if let Some(s) = self.sessions.get_mut(&t.session) {
            s.trying = false;
            s.tries[t.method as usize] += u32::from(verdict != Verdict::Yes);
            s.failures += u32::from(failed);
            failures = s.failures;
        }
        if failed {
            let lasts = self.penalties.add(t.from, 1, self.now);
            Event::new("PENALTY")
                .address("from", t.from)
                .word("reason", "login")
                .number("failures", failures)
                .number("seconds", seconds(lasts))
                .word("end", clock::stamp(self.now + lasts, self.now))
                .number("session", t.number)
                .put();
        }
        let Some(s) = self.sessions.get_mut(&t.session) else { return };
        let mut answer = (false, GroupSet::default());
        if verdict == Verdict::Yes {
            let user = Rc::new(logged_in(&t.config, &name, t.method));
            answer = (user.login.superuser, user.login.groups);
            s.user = Some(user);
        }
        let said = Answer::Verdict {
            status: verdict.status() as u32,
            superuser: answer.0,
            groups: answer.1.0,
        };
        if let Err(why) = s.channel.send(self.poll.registry(), &said, None) {
            self.session_over(t.session, why);
        }
    }
}

impl Session {
    /// `left`: of the penalty of its source. One that has failed itself may use up its tries;
    /// `room`: there is some for one more try.
    pub fn may_login(&self, method: Method, left: Option<Duration>, room: bool) -> May {
        let settings = &self.config.table.settings;
        let near = self.tls.is_some() || self.peer.ip().is_loopback() || settings.plaintext_login;
        let most = [settings.login_tries, settings.pubkey_tries];
        if !near || self.tries[method as usize] >= most[method as usize] {
            return May::Never;
        }
        match left.filter(|_| self.failures == 0).or((!room).then_some(SOON)) {
            Some(left) => May::Later { seconds: seconds(left) },
            // PAM asks as it likes; whoever else decides wants a name and a password, and no place
            // is taken until they are there.
            None => May::Try { password_first: logins::work(&self.config, method) != Work::Pam },
        }
    }
}

/// Whole seconds, none too few.
fn seconds(left: Duration) -> u32 {
    u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn word(method: Method) -> &'static str {
    match method {
        Method::Password => "password",
        Method::Pubkey => "pubkey",
    }
}

/// Somebody whom a login child vouched for.
fn logged_in(config: &Config, name: &str, method: Method) -> User {
    let account = config.catalog.known_account(name).filter(|a| a.user.name == name);
    User { login: config.login(name), account, method: word(method) }
}
