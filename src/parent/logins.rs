//! Logins: who may try, what a try came to, and what that costs.

use super::accepted::Accepted;
use super::catalog::Missing;
use super::channel::Broken;
use super::children::Role;
use super::config::Config;
use super::context::Context;
use super::lines;
use super::notices::{Heard, Notices};
use super::penalties::Penalties;
use super::places::Work;
use super::session::{Session, Step, User};
use super::sessions::Sessions;
use super::tries::{self, Asks, Tries, Try};
use crate::policy::GroupSet;
use crate::sys::process::Exit;
use crate::wire::login::{HASH, Verdict};
use crate::wire::orders::{Answer, Data, May, Method};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// After this time a client for whom there was no place may try again.
const SOON: Duration = Duration::from_secs(1);

/// A try that was good, where the user must be looked up before the session gets its answer.
pub struct LookUp {
    pub name: Missing,
    pub config: Rc<Config>,
    pub proved: Proved,
}

/// A try that was good, with the hash of the key if it was by one.
pub struct Proved {
    tried: Box<Try>,
    key: Option<[u8; HASH]>,
}

/// See the module.
pub struct Logins {
    tries: Tries,
    penalties: Penalties,
    accepted: Accepted,
    notices: Notices,
}

impl Logins {
    pub fn new() -> Logins {
        Logins {
            tries: Tries::new(),
            penalties: Penalties::default(),
            accepted: Accepted::default(),
            notices: Notices::default(),
        }
    }

    /// When the next try has taken too long.
    pub fn deadline(&self) -> Option<Duration> {
        self.tries.deadline()
    }

    /// How many sources have a penalty.
    pub fn penalties(&mut self, now: Duration) -> usize {
        self.penalties.count(now)
    }

    /// A session has ended: its tries need no answer any more.
    pub fn forget(&mut self, session: usize) {
        self.tries.forget(session);
    }

    /// May that session try to log in?
    pub fn may(&self, cx: &Context, s: &Session, method: Method) -> May {
        let place = self.tries.has_place(&s.config, method, s.peer.ip());
        self.may_with(cx, s, method, place)
    }

    /// `place`: there is one for one more try.
    fn may_with(&self, cx: &Context, s: &Session, method: Method, place: bool) -> May {
        let settings = &s.config.table.settings;
        let near = s.tls.is_some() || s.peer.ip().is_loopback() || settings.plaintext_login;
        let most = [settings.login_tries, settings.pubkey_tries];
        if !near || s.tries[method as usize] >= most[method as usize] {
            return May::Never;
        }
        // A session that has failed itself may use up its tries.
        let left = self.penalties.left(s.peer.ip(), cx.now).filter(|_| s.failures == 0);
        match left.or((!place).then_some(SOON)) {
            Some(left) => May::Later { seconds: seconds(left) },
            // PAM asks as it likes; whoever else decides wants a name and a password, and no place
            // is taken until they are there.
            None => May::Try { password_first: tries::work(&s.config, method) != Work::Pam },
        }
    }

    /// A client tries to log in. It may have got a penalty since [`Logins::may`] was asked, or the
    /// last place may be taken: then it gets that answer. Only a try that could never be allowed is
    /// a forbidden order.
    pub fn verify(
        &mut self,
        cx: &mut Context,
        sessions: &mut Sessions,
        session: usize,
        (method, user, channel): (Method, Data, OwnedFd),
    ) -> Result<(), Broken> {
        let scarce = cx.is_scarce(&channel);
        let Some(s) = sessions.get_mut(session) else { return Ok(()) };
        let place = !scarce && self.tries.has_place(&s.config, method, s.peer.ip());
        match self.may_with(cx, s, method, place) {
            May::Try { .. } => {}
            later @ May::Later { .. } => {
                sessions.tell(cx, session, &Answer::Login(later));
                return Ok(());
            }
            May::Never => return Err(Broken::Nonsense),
        }
        s.step = Step::LoggingIn;
        // A try that fails leaves it nobody; so does one that has only begun.
        s.user = None;
        let t = Try {
            session,
            number: s.number,
            method,
            user,
            from: s.peer.ip(),
            asks: Asks::Proof(Some(channel)),
            kind: s.kind(),
            config: s.config.clone(),
        };
        if let Err(t) = self.tries.add(t, cx.now) {
            not_tried(cx, sessions, &t, SOON);
        }
        Ok(())
    }

    /// Ends the tries that have taken too long, and starts those that may run now.
    pub fn start(&mut self, cx: &mut Context, sessions: &mut Sessions) {
        for (t, verdict) in self.tries.late(cx.now) {
            match t.asks {
                Asks::Proof(_) => not_tried(cx, sessions, &t, SOON),
                Asks::Account(_) => self.verdict(cx, sessions, &t, verdict, None),
            }
        }
        while let Some((number, t)) = self.tries.next(cx.now) {
            let left =
                self.penalties.left(t.from, cx.now).filter(|_| matches!(t.asks, Asks::Proof(_)));
            if let Some(left) = left
                && sessions.get_mut(t.session).is_none_or(|s| s.failures == 0)
            {
                if let Some(t) = self.tries.remove(number) {
                    not_tried(cx, sessions, &t, left);
                }
                continue;
            }
            match tries::start(t, &mut cx.spawner, &cx.descriptors) {
                Ok((child, reports)) => {
                    cx.children.add(child.pid, Role::Login(number));
                    self.tries.runs(number, child, reports);
                }
                Err(e) => {
                    let scarce = e.is_scarcity();
                    cx.note_not_started("login", &e);
                    match self.tries.remove(number) {
                        Some(t) if scarce && matches!(t.asks, Asks::Proof(_)) => {
                            not_tried(cx, sessions, &t, SOON);
                        }
                        Some(t) => self.verdict(cx, sessions, &t, Verdict::Later, None),
                        None => {}
                    }
                }
            }
        }
    }

    /// A login child has ended: that alone says who a session is. Some: who that is on this
    /// computer must be looked up first.
    pub fn ended(
        &mut self,
        cx: &mut Context,
        sessions: &mut Sessions,
        number: u64,
        exit: Exit,
    ) -> Option<LookUp> {
        let status = match exit {
            Exit::Status(n) => n,
            // A child that was killed has decided nothing.
            Exit::Signal(_) => Verdict::Later.status(),
        };
        let (t, said, reports) = self.tries.done(number, Verdict::from_status(status))?;
        let heard = self.notices.hear(reports, cx.now);
        if let Some(why) = &heard.why {
            let name = String::from_utf8_lossy(t.user.bytes());
            ::log::debug!("login of {name:?} from {}: {why}", t.from);
        }
        let asks_account = matches!(t.asks, Asks::Proof(_)) && t.config.backends.account.is_some();
        let (verdict, key) = self.judge(&t, said, &heard);
        if verdict != Verdict::Yes {
            self.verdict(cx, sessions, &t, verdict, key);
            return None;
        }
        if let (true, Method::Pubkey, Some(key)) = (asks_account, t.method, key) {
            // Whoever has a key is not yet somebody whom PAM lets in: a child that hears nothing
            // but the name asks.
            if let Err(t) = self.tries.add(Try { asks: Asks::Account(key), ..t }, cx.now) {
                self.verdict(cx, sessions, &t, Verdict::Later, Some(key));
            }
            return None;
        }
        // Who that is on this computer is asked before anybody is told.
        let name = String::from_utf8_lossy(t.user.bytes()).into_owned();
        let config = t.config.clone();
        let proved = Proved { tried: Box::new(t), key };
        if config.catalog.known_account(&name).is_some() {
            self.let_in(cx, sessions, &proved);
            return None;
        }
        Some(LookUp { name: Missing::User(name), config, proved })
    }

    /// What a child's verdict means, and by which key.
    fn judge(&mut self, t: &Try, said: Verdict, heard: &Heard) -> (Verdict, Option<[u8; HASH]>) {
        match (said, &t.asks, t.method, heard.signed) {
            (said, Asks::Account(key), ..) => (said, Some(*key)),
            (Verdict::Yes, _, Method::Pubkey, None) => (Verdict::Later, None),
            (Verdict::Yes, _, Method::Pubkey, Some((text, key))) => {
                match self.accepted.accept(text, t.number) {
                    true => (Verdict::Yes, Some(key)),
                    false => (Verdict::UsedSignature, Some(key)),
                }
            }
            (said, _, _, signed) => (said, signed.map(|(_, key)| key).or(heard.key)),
        }
    }

    /// A login was good, and who that is on this computer is known as far as it can be.
    pub fn let_in(&mut self, cx: &Context, sessions: &mut Sessions, p: &Proved) {
        self.verdict(cx, sessions, &p.tried, Verdict::Yes, p.key);
    }

    /// A login was good, and who that is on this computer cannot be asked now.
    pub fn later(&mut self, cx: &Context, sessions: &mut Sessions, p: &Proved) {
        self.verdict(cx, sessions, &p.tried, Verdict::Later, p.key);
    }

    /// What a try came to. Whoever did not wait for it has his penalty all the same.
    fn verdict(
        &mut self,
        cx: &Context,
        sessions: &mut Sessions,
        t: &Try,
        verdict: Verdict,
        key: Option<[u8; HASH]>,
    ) {
        let name = String::from_utf8_lossy(t.user.bytes()).into_owned();
        lines::login(&name, word(t.method), verdict, t.from, t.number, key);
        // A key that is not the user's is no guess: an agent offers many.
        let failed =
            matches!(verdict, Verdict::No | Verdict::BadSignature | Verdict::UsedSignature);
        let mut failures = 1;
        if let Some(s) = sessions.get_mut(t.session) {
            s.step = Step::Idle;
            s.tries[t.method as usize] += u32::from(verdict != Verdict::Yes);
            s.failures += u32::from(failed);
            failures = s.failures;
        }
        if failed {
            let lasts = self.penalties.add(t.from, 1, cx.now);
            lines::penalty(t.from, failures, (seconds(lasts), lasts), cx.now, t.number);
        }
        let Some(s) = sessions.get_mut(t.session) else { return };
        let mut answer = (false, GroupSet::default());
        if verdict == Verdict::Yes {
            let user = Rc::new(logged_in(&t.config, &name, t.method));
            answer = (user.login.superuser, user.login.groups);
            s.user = Some(user);
        }
        let (status, superuser, groups) = (verdict.status() as u32, answer.0, answer.1.0);
        sessions.tell(cx, t.session, &Answer::Verdict { status, superuser, groups });
    }
}

/// A try that had no place, or whose source has got a penalty meanwhile: nothing was asked, and
/// nothing is counted.
fn not_tried(cx: &Context, sessions: &mut Sessions, t: &Try, left: Duration) {
    let Some(s) = sessions.get_mut(t.session) else { return };
    s.step = Step::Idle;
    let later = May::Later { seconds: seconds(left) };
    sessions.tell(cx, t.session, &Answer::Login(later));
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
