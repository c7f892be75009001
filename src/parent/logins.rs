//! Logins: who may try, the result on a try, and the penalty for a failure.
//!
//! | file | noun |
//! |---|---|
//! | `tries` | one process for each try |
//! | `slots` | how many may run |
//! | `penalties` | how long sources are barred after failures |
//! | `replay` | signatures that were accepted before |
//! | `notices` | warnings about files of keys |

mod notices;
pub mod penalties;
mod replay;
mod slots;
mod tries;

use super::channel::Broken;
use super::children::Role;
use super::config::Config;
use super::config::catalog::{Account, LookUpResult, Missing};
use super::context::Context;
use super::lines;
use super::sessions::Sessions;
use super::sessions::resumables::Resumables;
use super::sessions::session::{SessionRecord, Step, User};
use super::tokens::SessionToken;
use crate::policy::GroupSet;
use crate::sys::identity;
use crate::sys::process::Exit;
use crate::wire::login::{HASH, LoginResult};
use crate::wire::orders::{Answer, Data, May, Method};
use notices::{Notices, Reported};
use penalties::Penalties;
use replay::ReplayCache;
use slots::Work;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tries::{Asks, Tries, Try};

/// After this time a client may try again whose try could not be queued or started.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Tries that are started in one turn of the parent's loop. Each start takes some milliseconds
/// where the processors are busy, and everybody else waits for that turn.
const STARTS: usize = 4;

/// A login that succeeded: the user must be looked up before the session gets its answer.
pub struct NeedsAccount {
    pub name: Missing,
    pub config: Rc<Config>,
    pub proved: Proved,
}

/// A login that succeeded, with the hash of the key if it was by one.
pub struct Proved {
    tried: Box<Try>,
    key: Option<[u8; HASH]>,
}

/// See the module.
pub struct Logins {
    tries: Tries,
    penalties: Penalties,
    replay: ReplayCache,
    notices: Notices,
    /// How many tries had which result, by method and result.
    results: BTreeMap<(&'static str, &'static str), u64>,
    /// More tries may be started than were started in this turn.
    more: bool,
    /// A proof that a session is one's own is a login, too.
    pub resumables: Resumables,
}

impl Logins {
    pub fn new() -> Logins {
        Logins {
            tries: Tries::new(),
            penalties: Penalties::default(),
            replay: ReplayCache::default(),
            notices: Notices::default(),
            results: BTreeMap::new(),
            more: false,
            resumables: Resumables::default(),
        }
    }

    /// When the next try will have taken too long, or may be started.
    pub fn deadline(&self) -> Option<Duration> {
        if self.more { Some(Duration::ZERO) } else { self.tries.deadline() }
    }

    /// How many tries to log in had which result, by method and result.
    pub fn results(&self) -> impl Iterator<Item = ((&'static str, &'static str), u64)> {
        self.results.iter().map(|(of, n)| (*of, *n))
    }

    /// How many penalties there have been since the start.
    pub fn penalties_given(&self) -> u64 {
        self.penalties.given
    }

    /// How many sources have a penalty.
    pub fn penalties(&mut self, now: Duration) -> usize {
        self.penalties.count(now)
    }

    /// A session has ended: its tries need no answer.
    pub fn forget(&mut self, session: SessionToken) {
        self.tries.forget(session);
    }

    /// May that session try to log in?
    pub fn may(&self, cx: &Context, s: &SessionRecord, method: Method) -> May {
        let can_wait = self.tries.may_wait(&s.config, method, s.addresses.peer());
        self.may_if(cx, s, method, can_wait)
    }

    /// `can_wait`: one more try of its source may wait for a slot.
    fn may_if(&self, cx: &Context, s: &SessionRecord, method: Method, can_wait: bool) -> May {
        let settings = &s.config.table.settings;
        let protected = s.is_encrypted()
            || s.addresses.peer().is_of_this_computer()
            || settings.plaintext_login;
        let most = [settings.login_tries, settings.pubkey_tries];
        if !protected || s.tries[method as usize] >= most[method as usize] {
            return May::Never;
        }
        // A session with a failure of its own may use up its tries.
        let left = self.penalties.left(s.addresses.peer(), cx.now).filter(|_| s.failures == 0);
        match left.or((!can_wait).then_some(RETRY_AFTER)) {
            Some(left) => May::Later { seconds: seconds(left) },
            // PAM itself asks the client. All others need a name and a password, and a try takes no
            // slot until net has read both.
            None => May::Try { password_first: tries::work(&s.config, method) != Work::Pam },
        }
    }

    /// A client tries to log in. Since [`Logins::may`] was asked, its address may have got a
    /// penalty, or the queue may have filled up: then the client gets that answer. Only a try that
    /// could never be allowed is a forbidden order.
    pub fn verify(
        &mut self,
        cx: &Context,
        sessions: &mut Sessions,
        session: SessionToken,
        method: Method,
        user: Data,
    ) -> Result<(), Broken> {
        let Some(s) = sessions.get_mut(session) else { return Ok(()) };
        let can_wait = self.tries.may_wait(&s.config, method, s.addresses.peer());
        match self.may_if(cx, s, method, can_wait) {
            May::Try { .. } => {}
            later @ May::Later { .. } => {
                sessions.tell(cx, session, &Answer::Login(later));
                return Ok(());
            }
            May::Never => return Err(Broken::Forbidden),
        }
        s.step = Step::LoggingIn;
        // The session is nobody's from the beginning of a try until one succeeds.
        s.user = None;
        let t = Try {
            session,
            number: s.number,
            method,
            user,
            from: s.addresses.peer(),
            asks: Asks::Proof,
            kind: s.kind(),
            config: s.config.clone(),
        };
        if let Err(t) = self.tries.add(t, cx.now) {
            not_tried(cx, sessions, &t, RETRY_AFTER);
        }
        Ok(())
    }

    /// A client has claimed a session that is not its own, or that there is not: a failed login.
    pub fn claim_failed(&mut self, cx: &Context, sessions: &mut Sessions, session: SessionToken) {
        let Some(s) = sessions.get_mut(session) else { return };
        s.tries[Method::Password as usize] += 1;
        s.failures += 1;
        let peer = s.addresses.peer();
        let lasts = self.penalties.add(peer, 1, cx.now);
        lines::penalty(peer, s.failures, seconds(lasts), lasts, cx.now, s.number);
    }

    /// Ends the tries that have taken too long, and starts those that may run now, a few at a time.
    pub fn start(&mut self, cx: &mut Context, sessions: &mut Sessions) {
        if cx.is_stopping() {
            // What decides about one, such as a module of PAM, takes as long as it likes.
            self.tries.end_all();
        }
        for (t, result) in self.tries.late(cx.now) {
            match t.asks {
                Asks::Proof => not_tried(cx, sessions, &t, RETRY_AFTER),
                Asks::Account(_) => self.result(cx, sessions, &t, Err(result), None),
            }
        }
        for _ in 0..STARTS {
            let next = self.tries.next(cx.now);
            self.more = next.is_some();
            let Some((number, t)) = next else { return };
            let left =
                self.penalties.left(t.from, cx.now).filter(|_| matches!(t.asks, Asks::Proof));
            if let Some(left) = left
                && sessions.get_mut(t.session).is_none_or(|s| s.failures == 0)
            {
                if let Some(t) = self.tries.remove(number) {
                    not_tried(cx, sessions, &t, left);
                }
                continue;
            }
            let session = t.session;
            match tries::start(t, &mut cx.spawner, &cx.descriptors) {
                Ok((child, reports, clients)) => {
                    if let Some(end) = clients {
                        let with = [end.as_fd()];
                        sessions.tell_with(cx, session, &Answer::Channel { session: 0 }, &with);
                    }
                    cx.children.add(child.pid, Role::Login(number));
                    self.tries.started(number, child, reports);
                }
                Err(e) => {
                    let scarce = e.is_scarcity();
                    cx.note_not_started("login", &e);
                    match self.tries.remove(number) {
                        Some(t) if scarce && matches!(t.asks, Asks::Proof) => {
                            not_tried(cx, sessions, &t, RETRY_AFTER);
                        }
                        Some(t) => self.result(cx, sessions, &t, Err(LoginResult::Later), None),
                        None => {}
                    }
                }
            }
        }
    }

    /// A login child has ended. Its exit status alone says whether the session is that user's.
    /// Some: it is, once the system's name service was asked for the user.
    pub fn ended(
        &mut self,
        cx: &mut Context,
        sessions: &mut Sessions,
        number: u64,
        exit: Exit,
    ) -> Option<NeedsAccount> {
        let status = match exit {
            Exit::Status(n) => n,
            // A child that was killed has no result.
            Exit::Signal(_) => LoginResult::Later.status(),
        };
        let (t, result, reports) = self.tries.ended(number, LoginResult::from_status(status))?;
        let reported = self.notices.sort(reports, cx.now);
        if let Some(why) = &reported.why {
            ::log::debug!("login of {:?} from {}: {why}", t.name(), t.from);
        }
        let asks_account = matches!(t.asks, Asks::Proof) && t.config.backends.account.is_some();
        let (result, key) = self.check(&t, result, &reported);
        if result != LoginResult::Yes {
            self.result(cx, sessions, &t, Err(result), key);
            return None;
        }
        if let (true, Method::Pubkey, Some(key)) = (asks_account, t.method, key) {
            // A key proves who the client is; PAM's account phase then says whether that user may
            // log in now. Another child asks PAM, and that child reads nothing from the client.
            if let Err(t) = self.tries.add(Try { asks: Asks::Account(key), ..t }, cx.now) {
                self.result(cx, sessions, &t, Err(LoginResult::Later), Some(key));
            }
            return None;
        }
        // The rules need the user's groups, as they are now, before the session is answered.
        let name = Missing::User(t.name());
        let config = t.config.clone();
        Some(NeedsAccount { name, config, proved: Proved { tried: Box::new(t), key } })
    }

    /// Checks a child's result against the replay cache. Returns the result that counts, and the
    /// key's hash.
    fn check(
        &mut self,
        t: &Try,
        result: LoginResult,
        reported: &Reported,
    ) -> (LoginResult, Option<[u8; HASH]>) {
        match (result, &t.asks, t.method, reported.signed) {
            (result, Asks::Account(key), ..) => (result, Some(*key)),
            (LoginResult::Yes, _, Method::Pubkey, None) => (LoginResult::Later, None),
            (LoginResult::Yes, _, Method::Pubkey, Some((text, key))) => {
                match self.replay.accept(text, &t.name(), t.number) {
                    true => (LoginResult::Yes, Some(key)),
                    false => (LoginResult::UsedSignature, Some(key)),
                }
            }
            (result, _, _, signed) => (result, signed.map(|(_, key)| key).or(reported.other_key)),
        }
    }

    /// The client has proved who it is, and the look-up of its user has ended. Without an answer
    /// the user is as it was before. Of one who was not known nobody knows the groups, and so not
    /// which rules refuse it: it is not logged in.
    pub fn looked_up(
        &mut self,
        cx: &Context,
        sessions: &mut Sessions,
        p: &Proved,
        user: &LookUpResult,
    ) {
        let (t, name) = (&p.tried, p.tried.name());
        let account = match user {
            LookUpResult::Found(account) => Ok(Some(account.clone())),
            LookUpResult::NotFound => Ok(None),
            LookUpResult::NoAnswer => {
                ::log::debug!("login of {name:?} from {}: no answer about that user", t.from);
                t.config.catalog.known_account(&name).map(Some).ok_or(LoginResult::Later)
            }
        };
        let user = account.and_then(|account| own(&name, account)).map(|account| {
            let login = t.config.login(&name, account.as_deref());
            User { login, account, method: t.word() }
        });
        self.result(cx, sessions, t, user, p.key);
    }

    /// The user cannot be looked up now, because too many are. One who was not known may try again.
    pub fn not_looked_up(&mut self, cx: &Context, sessions: &mut Sessions, p: &Proved) {
        match p.tried.config.catalog.known_account(&p.tried.name()) {
            Some(_) => self.looked_up(cx, sessions, p, &LookUpResult::NoAnswer),
            None => not_tried(cx, sessions, &p.tried, RETRY_AFTER),
        }
    }

    /// Notes the result on a try, and answers its session. A session that has ended meanwhile
    /// gets its penalty all the same. `user`: who logs in; Err: why nobody does.
    fn result(
        &mut self,
        cx: &Context,
        sessions: &mut Sessions,
        t: &Try,
        user: Result<User, LoginResult>,
        key: Option<[u8; HASH]>,
    ) {
        let result = user.as_ref().err().copied().unwrap_or(LoginResult::Yes);
        *self.results.entry((t.word(), result.as_str())).or_default() += 1;
        lines::login(t.user.bytes(), t.word(), result, t.from, t.number, key);
        // A key that is not the user's costs nothing, because an agent offers many keys.
        let failed = matches!(
            result,
            LoginResult::No | LoginResult::BadSignature | LoginResult::UsedSignature
        );
        let mut failures = 1;
        if let Some(s) = sessions.get_mut(t.session) {
            s.step = Step::Idle;
            s.tries[t.method as usize] += u32::from(user.is_err());
            s.failures += u32::from(failed);
            failures = s.failures;
        }
        if failed {
            let lasts = self.penalties.add(t.from, 1, cx.now);
            lines::penalty(t.from, failures, seconds(lasts), lasts, cx.now, t.number);
        }
        let Some(s) = sessions.get_mut(t.session) else { return };
        let mut answer = (false, GroupSet::default());
        if let Ok(user) = user {
            answer = (user.login.superuser, user.login.groups);
            s.user = Some(Rc::new(user));
        }
        let (status, superuser, groups) = (result.status() as u32, answer.0, answer.1.0);
        sessions.tell(cx, t.session, &Answer::LoginResult { status, superuser, groups });
    }
}

/// Answers a try that was not made, for lack of a slot or because its source has got a penalty
/// meanwhile. It does not count.
fn not_tried(cx: &Context, sessions: &mut Sessions, t: &Try, left: Duration) {
    let Some(s) = sessions.get_mut(t.session) else { return };
    s.step = Step::Idle;
    let later = May::Later { seconds: seconds(left) };
    sessions.tell(cx, t.session, &Answer::Login(later));
}

/// Whole seconds, rounded up.
fn seconds(left: Duration) -> u32 {
    u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// The account that this name stands for, of the one that was found for it. A number is a name like
/// any other here, not that user's. Err: the user has another name, by which the rules know it.
fn own(name: &str, found: Option<Rc<Account>>) -> Result<Option<Rc<Account>>, LoginResult> {
    match found {
        Some(a) if identity::number(name) == Some(a.user.uid) => Ok(None),
        Some(a) if a.user.name != name => {
            ::log::debug!("login of {name:?}: that is the user {:?}", a.user.name);
            Err(LoginResult::NoAccount)
        }
        found => Ok(found),
    }
}
