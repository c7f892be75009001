//! Tries to log in: one process each, whose exit status is its result. `slots` decides which may
//! start, and `logins` what follows from a result.

use super::slots::{Evicted, Slots, Work};
use crate::parent::config::Config;
use crate::parent::config::catalog;
use crate::parent::descriptors::{ChildError, Descriptors};
use crate::parent::tokens::SessionToken;
use crate::policy::{Peer, Source};
use crate::sys::signal::Signal;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Spawner};
use crate::sys::{message, process, socket};
use crate::wire::login::{HASH, LoginResult, REPORT_MAX, REPORTS_MAX, Report};
use crate::wire::orders::{Data, Method};
use crate::wire::pubkey::Kind;
use crate::wire::roles;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Processes of one user that look for keys, or ask about the account, at a time. They read what is
/// that user's own, who can keep them waiting in the kernel where no signal ends them. Those that
/// were ended and cannot end count, too, of any kind.
const OF_A_USER: usize = 8;

/// What a login child is to find out.
pub enum Asks {
    /// Is the client that user?
    Proof,
    /// May that user, who has proved to have this key (its SHA-256), log in now? The child asks
    /// the client nothing.
    Account([u8; HASH]),
}

/// A try. It outlives its session where a child runs for it: a failure counts even if nobody waits
/// for the answer any more.
pub struct Try {
    pub session: SessionToken,
    /// The session's number.
    pub number: u64,
    pub method: Method,
    pub user: Data,
    pub from: Peer,
    pub asks: Asks,
    /// The kind of the session's connection, which a signature must name.
    pub kind: Kind,
    pub config: Rc<Config>,
}

impl Try {
    /// The user's name, as text.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.user.bytes()).into_owned()
    }

    /// The method, as the log and services are told it.
    pub fn word(&self) -> &'static str {
        match self.method {
            Method::Password => "password",
            Method::Pubkey => "pubkey",
        }
    }

    pub fn work(&self) -> Work {
        match (&self.asks, self.method) {
            (Asks::Account(_), _) => Work::Account,
            (Asks::Proof, method) => work(&self.config, method),
        }
    }
}

/// What a proof by this method needs a slot for.
pub fn work(config: &Config, method: Method) -> Work {
    let b = &config.backends;
    match method {
        Method::Pubkey => Work::Key,
        Method::Password if b.pam.is_some() => Work::Pam,
        Method::Password if b.checkpassword.is_some() => Work::Program,
        Method::Password => Work::Hash,
    }
}

/// The child of a try.
struct LoginChild {
    child: Child,
    reports: LoginReports,
    /// The result instead of the child's own, where the parent has ended it.
    ended: Option<LoginResult>,
}

pub struct Tries {
    slots: Slots,
    tries: HashMap<u64, (Try, Option<LoginChild>)>,
    /// Tries that were dropped before they had a child, and the result on them.
    dropped: Vec<(Try, LoginResult)>,
}

impl Tries {
    pub fn new() -> Tries {
        let processors = process::processors();
        Tries { slots: Slots::new(processors), tries: HashMap::new(), dropped: Vec::new() }
    }

    /// May one more try of this source wait for a slot?
    pub fn may_wait(&self, config: &Config, method: Method, from: Peer) -> bool {
        self.slots.may_wait(work(config, method), Source::of(from))
    }

    /// Queues a try. Err: too many of its source wait; the try is returned.
    pub fn add(&mut self, t: Try, now: Duration) -> Result<(), Box<Try>> {
        let Some((number, evicted)) = self.slots.add(
            t.work(),
            Source::of(t.from),
            t.config.table.settings.login_timeout,
            now,
        ) else {
            return Err(Box::new(t));
        };
        self.tries.insert(number, (t, None));
        if let Some(Evicted(n)) = evicted {
            self.end(n, LoginResult::Later);
        }
        Ok(())
    }

    /// The next try that may start now; it counts as running.
    pub fn next(&mut self, now: Duration) -> Option<(u64, &mut Try)> {
        let (tries, full) = (&self.tries, self.full());
        let may = |number: u64| {
            let name = tries.get(&number).map_or(&[][..], |(t, _)| t.user.bytes());
            !full.iter().any(|other| other.eq_ignore_ascii_case(name))
        };
        let (number, evicted) = self.slots.next(now, may)?;
        if let Some(Evicted(n)) = evicted {
            self.end(n, LoginResult::Later);
        }
        self.tries.get_mut(&number).map(|(t, _)| (number, t))
    }

    /// The names of those users for whom as many processes run as may ([`OF_A_USER`]), in small
    /// letters: some name services know a name in capitals, too.
    fn full(&self) -> Vec<Vec<u8>> {
        let counts = |t: &Try, running: &Option<LoginChild>| {
            let is_of_user = matches!(t.work(), Work::Key | Work::Account);
            running.as_ref().is_some_and(|child| is_of_user || child.ended.is_some())
        };
        let mut running = HashMap::<Vec<u8>, usize>::new();
        for (t, _) in self.tries.values().filter(|(t, child)| counts(t, child)) {
            *running.entry(t.user.bytes().to_ascii_lowercase()).or_default() += 1;
        }
        running.into_iter().filter(|(_, n)| *n >= OF_A_USER).map(|(name, _)| name).collect()
    }

    /// The child of a try has been started.
    pub fn started(&mut self, number: u64, child: Child, reports: LoginReports) {
        if let Some((_, running)) = self.tries.get_mut(&number) {
            *running = Some(LoginChild { child, reports, ended: None });
        }
    }

    /// Removes a try that has no child.
    pub fn remove(&mut self, number: u64) -> Option<Try> {
        self.slots.remove(number);
        self.tries.remove(&number).map(|(t, _)| t)
    }

    /// The child of a try has ended with this result. Returns the try, the result that counts,
    /// and the child's reports.
    pub fn ended(
        &mut self,
        number: u64,
        result: LoginResult,
    ) -> Option<(Try, LoginResult, Vec<Report>)> {
        self.slots.remove(number);
        let (t, running) = self.tries.remove(&number)?;
        let running = running?;
        // The result of a child that the parent has ended does not count.
        Some((t, running.ended.unwrap_or(result), running.reports.take()))
    }

    /// When the next try will have taken too long.
    pub fn deadline(&self) -> Option<Duration> {
        self.slots.deadline()
    }

    /// Ends the tries that have taken too long. Returns those that never had a child: their
    /// sessions must be answered.
    pub fn late(&mut self, now: Duration) -> Vec<(Try, LoginResult)> {
        while let Some(Evicted(n)) = self.slots.late(now) {
            self.end(n, LoginResult::Timeout);
        }
        std::mem::take(&mut self.dropped)
    }

    /// Ends all tries: none has a slot any more.
    pub fn end_all(&mut self) {
        let is_over =
            |running: &Option<LoginChild>| matches!(running, Some(r) if r.ended.is_some());
        let all = self.tries.iter().filter(|(_, (_, running))| !is_over(running));
        for number in all.map(|(n, _)| *n).collect::<Vec<u64>>() {
            self.slots.remove(number);
            self.end(number, LoginResult::Later);
        }
    }

    /// Ends a try that has lost its slot. If it has a child, that is killed, and the try is over
    /// when the child has been reaped.
    fn end(&mut self, number: u64, why: LoginResult) {
        if let Some((_, Some(running))) = self.tries.get_mut(&number) {
            running.ended = Some(why);
            // With what the child has started: a program, a PAM module's helper, even in sessions
            // of their own. If the child has just ended, this does nothing.
            running.child.kill_tree();
            if running.child.signal_group(Signal::KILL).is_err_and(|e| socket::is_scarcity(&e)) {
                // There is no descriptor free to reach the group: the child alone is killed.
                running.child.kill();
            }
        } else if let Some((t, _)) = self.tries.remove(&number) {
            // `Later` whatever `why` is: nothing was tried.
            self.dropped.push((t, LoginResult::Later));
        }
    }

    /// A session has ended: its tries that have no child are dropped. Those that run go on, and
    /// their failures count.
    pub fn forget(&mut self, session: SessionToken) {
        let over: Vec<u64> = self
            .tries
            .iter()
            .filter(|(_, (t, running))| t.session == session && running.is_none())
            .map(|(n, _)| *n)
            .collect();
        over.into_iter().for_each(|n| drop(self.remove(n)));
    }
}

/// Starts the child of a try. Returns it, the socket for its reports, and the other end of the
/// child's channel to the client, if it asks the client.
pub fn start(
    t: &Try,
    spawner: &mut Spawner,
    descriptors: &Descriptors,
) -> Result<(Child, LoginReports, Option<OwnedFd>), ChildError> {
    let (ours, theirs) = descriptors.channel()?;
    let (argv, env) = (CList::new([roles::LOGIN])?, environment(t)?);
    // Only the child keeps its end, so that the session's thread sees when the child has ended.
    let (clients, own) = match t.asks {
        Asks::Proof => descriptors.channel().map(|(clients, own)| (Some(clients), Some(own)))?,
        Asks::Account(_) => (None, None),
    };
    let launch = Launch {
        extra: own.as_ref().map(AsFd::as_fd),
        second: Some(theirs.as_fd()),
        ..catalog::role(&argv, &env)
    };
    let child = spawner.start(&launch)?;
    Ok((child, LoginReports(ours), clients))
}

/// The parent's end of a child's socket for reports.
pub struct LoginReports(OwnedFd);

impl LoginReports {
    /// The reports of a child that has ended. This never waits, even where another process, such as
    /// a program that a PAM module started, still holds the other end.
    pub fn take(self) -> Vec<Report> {
        let mut bytes = [0; REPORT_MAX];
        let mut next = || {
            let (n, _) = message::receive(self.0.as_fd(), &mut bytes).ok()?;
            Report::decode(&bytes[..n])
        };
        std::iter::from_fn(&mut next).take(REPORTS_MAX).collect()
    }
}

fn environment(t: &Try) -> Result<CList, BadWord> {
    let (b, mut env) = (&t.config.backends, Env::new());
    let asks = match (&t.asks, t.method) {
        (Asks::Account(_), _) => roles::Asks::Account,
        (Asks::Proof, Method::Password) => roles::Asks::Password,
        (Asks::Proof, Method::Pubkey) => roles::Asks::Key,
    };
    let role = roles::Login {
        asks,
        user: t.user.bytes().to_vec(),
        from: t.from,
        kind: t.kind,
        keys: b.authorized_keys.clone(),
        passwords: b.passwords.clone(),
        pam: b.pam.clone(),
        checkpassword: b.checkpassword.clone(),
        ids: t.config.own_users.map(|o| o.helper),
    };
    env.extend(role.variables())?;
    // For `expiry-time=`, and for modules of PAM.
    if let Ok(zone) = std::env::var("TZ") {
        env.push("TZ", zone.as_bytes())?;
    }
    Ok(env.finish())
}
