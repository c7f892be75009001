//! Tries to log in: one process each, whose exit status is its verdict. `places` decides which may
//! start, and `logins` what follows from a verdict.

use super::catalog;
use super::config::Config;
use super::descriptors::{Descriptors, NotStarted};
use super::places::{Ended, Places, Work};
use crate::policy::Source;
use crate::sys::signal::Signal;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Spawner};
use crate::sys::{message, socket};
use crate::wire::login::{HASH, REPORT_MAX, REPORTS_MAX, Report, Verdict};
use crate::wire::orders::{Data, Method};
use crate::wire::pubkey::Kind;
use crate::wire::roles;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// What a child is to find out.
pub enum Asks {
    /// Is the client that user? With the channel to the client, until the child has it.
    Proof(Option<OwnedFd>),
    /// May that user, proved by this key (its SHA-256), log in now? The child asks the client
    /// nothing.
    Account([u8; HASH]),
}

/// A try. It stays whole when its session ends: what a child finds out is noted, whoever waits for
/// it or not.
pub struct Try {
    pub session: usize,
    /// The session's number.
    pub number: u64,
    pub method: Method,
    pub user: Data,
    pub from: IpAddr,
    pub asks: Asks,
    /// Of the session's connection: what a signature must be made for.
    pub kind: Kind,
    pub config: Rc<Config>,
}

impl Try {
    pub fn work(&self) -> Work {
        match (&self.asks, self.method) {
            (Asks::Account(_), _) => Work::Account,
            (Asks::Proof(_), method) => work(&self.config, method),
        }
    }
}

/// What a proof by this method needs a place for.
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
struct Runs {
    child: Child,
    reports: Reports,
    /// Why it was ended, if it was.
    ended: Option<Verdict>,
}

pub struct Tries {
    places: Places,
    tries: HashMap<u64, (Try, Option<Runs>)>,
    /// Tries that were turned away, and what they are told.
    away: Vec<(Try, Verdict)>,
}

impl Tries {
    pub fn new() -> Tries {
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        Tries { places: Places::new(processors), tries: HashMap::new(), away: Vec::new() }
    }

    /// May one more try of this source wait for a place?
    pub fn has_place(&self, config: &Config, method: Method, from: IpAddr) -> bool {
        self.places.has_place(work(config, method), Source::of(from))
    }

    /// Takes a try. Err: too many of its source wait; it is given back.
    pub fn add(&mut self, t: Try, now: Duration) -> Result<(), Box<Try>> {
        let Some((number, away)) = self.places.add(
            t.work(),
            Source::of(t.from),
            t.config.table.settings.login_timeout,
            now,
        ) else {
            return Err(Box::new(t));
        };
        self.tries.insert(number, (t, None));
        if let Some(Ended(n)) = away {
            self.end(n, Verdict::Later);
        }
        Ok(())
    }

    /// The next try that may start now; it counts as running.
    pub fn next(&mut self, now: Duration) -> Option<(u64, &mut Try)> {
        let (number, ended) = self.places.next(now)?;
        if let Some(Ended(n)) = ended {
            self.end(n, Verdict::Later);
        }
        self.tries.get_mut(&number).map(|(t, _)| (number, t))
    }

    /// Its child runs.
    pub fn runs(&mut self, number: u64, child: Child, reports: Reports) {
        if let Some((_, runs)) = self.tries.get_mut(&number) {
            *runs = Some(Runs { child, reports, ended: None });
        }
    }

    /// A try without a child is over.
    pub fn remove(&mut self, number: u64) -> Option<Try> {
        self.places.remove(number);
        self.tries.remove(&number).map(|(t, _)| t)
    }

    /// Its child has ended with this verdict.
    pub fn done(&mut self, number: u64, verdict: Verdict) -> Option<(Try, Verdict, Vec<Report>)> {
        self.places.remove(number);
        let (t, runs) = self.tries.remove(&number)?;
        let runs = runs?;
        // One that was ended has decided nothing.
        Some((t, runs.ended.unwrap_or(verdict), runs.reports.take()))
    }

    /// When the next try has taken too long.
    pub fn deadline(&self) -> Option<Duration> {
        self.places.deadline()
    }

    /// Ends those that have taken too long. Returns those that never had a child: whoever waits for
    /// them is to be told.
    pub fn late(&mut self, now: Duration) -> Vec<(Try, Verdict)> {
        while let Some(Ended(n)) = self.places.late(now) {
            self.end(n, Verdict::Timeout);
        }
        std::mem::take(&mut self.away)
    }

    /// It gives its place back; its child, if it has one, is killed, by its pidfd, and is heard of
    /// when it was reaped.
    fn end(&mut self, number: u64, why: Verdict) {
        if let Some((_, Some(runs))) = self.tries.get_mut(&number) {
            runs.ended = Some(why);
            // With what it has started: a program, a module's helper, in sessions of their own too.
            // One that has ended already is reaped as it is.
            runs.child.kill_tree();
            if runs.child.signal_group(Signal::Kill).is_err_and(|e| socket::is_scarcity(&e)) {
                // Without a descriptor for it, the child alone.
                runs.child.kill();
            }
        } else if let Some((t, _)) = self.tries.remove(&number) {
            // Nobody would wait for a place much longer: the same for all who were turned away.
            self.away.push((t, Verdict::Later));
        }
    }

    /// Nobody waits any more for the tries of a session that has ended. Those that run are heard
    /// out.
    pub fn forget(&mut self, session: usize) {
        let over: Vec<u64> = self
            .tries
            .iter()
            .filter(|(_, (t, runs))| t.session == session && runs.is_none())
            .map(|(n, _)| *n)
            .collect();
        over.into_iter().for_each(|n| drop(self.remove(n)));
    }
}

/// Starts the child of a try. Returns it and what its reports come over.
pub fn start(
    t: &mut Try,
    spawner: &mut Spawner,
    descriptors: &Descriptors,
) -> Result<(Child, Reports), NotStarted> {
    let (ours, theirs) = descriptors.channel()?;
    let (argv, env) = (CList::new([roles::LOGIN])?, environment(t)?);
    // The child alone has it: when it has ended, the session's thread sees that.
    let own = match &mut t.asks {
        Asks::Proof(channel) => channel.take(),
        Asks::Account(_) => None,
    };
    let launch = Launch {
        extra: own.as_ref().map(AsFd::as_fd),
        second: Some(theirs.as_fd()),
        ..catalog::role(&argv, &env)
    };
    let child = spawner.start(&launch)?;
    Ok((child, Reports(ours)))
}

/// The end of a child's socket for reports.
pub struct Reports(OwnedFd);

impl Reports {
    /// What a child has said that has ended. Nothing is waited for: whoever else holds the other
    /// end, a program of PAM's say, is not heard.
    pub fn take(self) -> Vec<Report> {
        let mut bytes = [0; REPORT_MAX];
        let mut next = || {
            let (n, _) = message::receive_message(self.0.as_fd(), &mut bytes, false).ok()?;
            Report::decode(&bytes[..n])
        };
        std::iter::from_fn(&mut next).take(REPORTS_MAX).collect()
    }
}

fn environment(t: &Try) -> Result<CList, BadWord> {
    let (b, mut env) = (&t.config.backends, Env::new());
    let asks = match (&t.asks, t.method) {
        (Asks::Account(_), _) => roles::Asks::Account,
        (Asks::Proof(_), Method::Password) => roles::Asks::Password,
        (Asks::Proof(_), Method::Pubkey) => roles::Asks::Key,
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
    Ok(env.finish())
}
