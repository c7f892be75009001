//! Tries to log in: one child each, that tells its verdict by its exit status alone.
//!
//! A password costs a hash: at most as many at once as there are processors. Everything else waits for people and their
//! devices: at most [`OTHERS`] at once. Who comes beyond [`WAITING`] is told to try later.

use super::catalog;
use super::config::Config;
use crate::sys::spawn::{BadWord, CList, Child, Env, Launch, Spawner};
use crate::sys::{message, process, socket};
use crate::wire::login::{REPORT_MAX, REPORTS_MAX, Report};
use crate::wire::orders::{Data, Method};
use crate::wire::sshsig::Kind;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// `argv[0]` of a login child.
pub const ROLE: &str = "fived-login";
/// Tries at once that hash nothing themselves.
const OTHERS: usize = 64;
/// Tries that wait, at most.
const WAITING: usize = 1024;

/// What a child is to find out.
pub enum Asks {
    /// Is it that user? With the channel to whoever wants to be.
    Proof(OwnedFd),
    /// May that user, who has proved it by a key, come in? The child hears from nobody.
    Account,
}

/// A try.
pub struct Try {
    pub session: usize,
    pub method: Method,
    pub user: Data,
    pub from: IpAddr,
    pub asks: Asks,
    /// Of the session's connection: what a signature must be made for.
    pub kind: Kind,
    pub config: Rc<Config>,
}

impl Try {
    /// Does its child hash a password itself?
    pub fn hashes(&self) -> bool {
        let b = &self.config.backends;
        matches!(self.asks, Asks::Proof(_)) && self.method == Method::Password && b.pam.is_none() && b.checkpassword.is_none()
    }
}

pub struct Logins {
    processors: usize,
    /// How many run: of those that hash, and of the others.
    running: [usize; 2],
    waiting: [VecDeque<Try>; 2],
}

impl Logins {
    pub fn new() -> Logins {
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        Logins { processors, running: [0; 2], waiting: Default::default() }
    }

    /// Takes a try. Err: too many wait; it is given back.
    pub fn add(&mut self, t: Try) -> Result<(), Try> {
        let queue = &mut self.waiting[usize::from(!t.hashes())];
        if queue.len() >= WAITING {
            return Err(t);
        }
        queue.push_back(t);
        Ok(())
    }

    /// The next try that may start now; it counts as running.
    pub fn next(&mut self) -> Option<Try> {
        let most = [self.processors, OTHERS];
        let kind = (0..2).find(|&k| self.running[k] < most[k] && !self.waiting[k].is_empty())?;
        self.running[kind] += 1;
        self.waiting[kind].pop_front()
    }

    /// A try is over.
    pub fn done(&mut self, hashes: bool) {
        self.running[usize::from(!hashes)] -= 1;
    }

    /// Nobody waits any more for the tries of a session that has ended.
    pub fn forget(&mut self, session: usize) {
        self.waiting.iter_mut().for_each(|q| q.retain(|t| t.session != session));
    }
}

/// Starts the child of a try. Returns it and what its reports come over.
pub fn start(t: &Try, spawner: &mut Spawner) -> Result<(Child, Reports), String> {
    let (ours, theirs) = socket::seqpacket().map_err(|e| format!("login: socket pair: {e}"))?;
    let null = process::null().map_err(|e| format!("/dev/null: {e}"))?;
    let words = |e: BadWord| format!("login: {e}");
    let (argv, env) = (CList::new([ROLE]).map_err(words)?, environment(t).map_err(words)?);
    let channel = match &t.asks {
        Asks::Proof(channel) => channel,
        Asks::Account => &null,
    };
    let launch = Launch { extra: Some(channel.as_fd()), second: Some(theirs.as_fd()), ..catalog::role(&argv, &env, &null) };
    let child = spawner.start(&launch).map_err(|f| format!("login: {f}"))?;
    Ok((child, Reports(ours)))
}

/// The end of a child's socket for reports.
pub struct Reports(OwnedFd);

impl Reports {
    /// What a child has said that has ended. Nothing is waited for: whoever else holds the other end, a program of PAM's say, is not heard.
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
    let method = match (&t.asks, t.method) {
        (Asks::Account, _) => "account",
        (Asks::Proof(_), Method::Password) => "password",
        (Asks::Proof(_), Method::Pubkey) => "pubkey",
    };
    env.push("FIVED_METHOD", method.as_bytes())?;
    // A name is bytes until the child has looked at it; a zero byte in it can be no user's.
    let user = t.user.bytes();
    env.push("FIVED_USER", if user.contains(&0) { b"" } else { user })?;
    env.push("FIVED_KIND", t.kind.as_str().as_bytes())?;
    env.push("FIVED_FROM", t.from.to_string().as_bytes())?;
    env.push("FIVED_KEYS", b.authorized_keys.as_bytes())?;
    for (key, value) in [("FIVED_PASSWORDS", &b.passwords), ("FIVED_PAM", &b.pam), ("FIVED_CHECKPASSWORD", &b.checkpassword)] {
        if let Some(value) = value {
            env.push(key, value.as_bytes())?;
        }
    }
    if let Some((uid, gid)) = t.config.own_users.map(|o| o.helper) {
        env.push("FIVED_UID", uid.to_string().as_bytes())?;
        env.push("FIVED_GID", gid.to_string().as_bytes())?;
    }
    Ok(env.finish())
}
