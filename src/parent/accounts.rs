//! Users and groups that the system's name service did not know when the configuration was read,
//! and users who log in. A child looks them up, because a name service may never answer. Only the
//! request that needs the name waits.
//!
//! A name that was found is kept with the configuration. One that was not found is looked up again
//! for the next request that needs it, and a user at each login.

use super::arrival::StartError;
use super::catalog::{Account, LookUpResult, Missing};
use super::children::Role;
use super::config::Config;
use super::context::{Context, Timer};
use super::descriptors::ChildError;
use super::lookup;
use crate::log;
use crate::sys::process::Exit;
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::Child;
use crate::wire::{lookups, roles};
use std::collections::HashMap;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long a look-up may take.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Children at a time. Each looks up a different name.
const RUNNING_MAX: usize = 16;
/// Requests that wait at a time, for all names together.
const WAITING_MAX: usize = 256;
/// Of these, requests of one user who has connected to Unix sockets.
const WAITING_OF_UID_MAX: usize = 16;
/// Children at a time that look up such users, so that others find a place too.
const UIDS_MAX: usize = 8;
/// Bytes of an answer: a user may be in tens of thousands of groups.
const ANSWER_MAX: usize = 1 << 20;

/// A child that looks up a name, and the requests that wait for it.
struct LookUpChild<T> {
    name: Missing,
    child: Child,
    pipe: OwnedFd,
    late: Duration,
    waiting: Vec<(Rc<Config>, T)>,
}

/// A look-up that has ended.
pub struct LookedUp<T> {
    pub name: Missing,
    /// Of a group: never found.
    pub user: LookUpResult,
    /// The requests that continue now.
    pub waiting: Vec<T>,
}

/// The look-ups that run, by process id. `T` is a request that continues when its look-up has
/// ended, whether the name was found or not.
pub struct Accounts<T>(HashMap<i32, LookUpChild<T>>);

impl<T> Accounts<T> {
    pub fn new() -> Accounts<T> {
        Accounts(HashMap::new())
    }

    /// Looks up a name; `then` continues after that. Err: it cannot be looked up now; `then` is
    /// returned with the reason.
    pub fn look_up(
        &mut self,
        cx: &mut Context,
        name: Missing,
        config: &Rc<Config>,
        then: T,
    ) -> Result<(), (T, StartError)> {
        let all = &mut self.0;
        let busy = |reason, why: &dyn Display| {
            StartError::busy(reason, Some(format!("{}: {why}", name.subject())))
        };
        let too_many = || busy("processes", &"too many users are looked up");
        if all.values().map(|l| l.waiting.len()).sum::<usize>() >= WAITING_MAX {
            return Err((then, too_many()));
        }
        let is_uid = |name: &Missing| matches!(name, Missing::Uid(_));
        let uids = all.values().filter(|l| is_uid(&l.name)).count();
        if let Some(l) = all.values_mut().find(|l| l.name == name) {
            if is_uid(&name) && l.waiting.len() >= WAITING_OF_UID_MAX {
                return Err((then, too_many()));
            }
            l.waiting.push((config.clone(), then));
            return Ok(());
        }
        if all.len() >= RUNNING_MAX || is_uid(&name) && uids >= UIDS_MAX {
            return Err((then, too_many()));
        }
        match start(cx, &name) {
            Ok((child, pipe)) => {
                let pid = child.pid;
                let late = cx.expires_after(LOOK_UP_TIMEOUT, Timer::AccountLate { pid });
                let waiting = vec![(config.clone(), then)];
                all.insert(pid, LookUpChild { name, child, pipe, late, waiting });
                Ok(())
            }
            Err(e) => {
                cx.note_not_started("users", &e);
                let reason = if e.lacks_descriptors() { "descriptors" } else { "processes" };
                Err((then, busy(reason, &e)))
            }
        }
    }

    /// The child of a look-up has ended; its output is the answer.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) -> Option<LookedUp<T>> {
        let l = self.0.remove(&pid)?;
        // The number may soon be another child's.
        cx.cancel(l.late, Timer::AccountLate { pid });
        let answer = (exit == Exit::Status(0)).then(|| read_answer(&l.pipe));
        Some(l.learn(answer.as_deref(), cx.now))
    }

    /// The look-up has taken too long: its requests continue without the name.
    pub fn late(&mut self, pid: i32, now: Duration) -> Option<LookedUp<T>> {
        let l = self.0.remove(&pid)?;
        // This fails where the child has just ended. Its answer comes too late all the same.
        let _ = l.child.signal(Signal::KILL);
        log::warn(&format!(
            "{}: the name service did not answer within {} s",
            l.name.subject(),
            LOOK_UP_TIMEOUT.as_secs()
        ));
        Some(l.learn(None, now))
    }
}

impl<T> LookUpChild<T> {
    /// Each configuration whose requests waited keeps what was found. `answer`: None, if there is
    /// none.
    fn learn(self, answer: Option<&str>, now: Duration) -> LookedUp<T> {
        let (user, group) = match &self.name {
            Missing::User(_) | Missing::Uid(_) => (LookUpResult::read(answer), None),
            Missing::Group(_) => (LookUpResult::NotFound, answer.and_then(lookups::read_number)),
        };
        for (config, _) in &self.waiting {
            match (&self.name, &user, group) {
                (Missing::User(name), LookUpResult::Found(account), _) => {
                    config.catalog.learn_user(name, account.clone());
                }
                (Missing::User(name), LookUpResult::NotFound, _) => {
                    config.catalog.forget_user(name)
                }
                (Missing::Uid(uid), said, _) => config.catalog.learn_uid(*uid, said, now),
                (Missing::Group(name), _, Some(gid)) => config.catalog.learn_group(name, gid),
                _ => {}
            }
        }
        let waiting = self.waiting.into_iter().map(|(_, then)| then).collect();
        LookedUp { name: self.name, user, waiting }
    }
}

impl LookUpResult {
    fn read(answer: Option<&str>) -> LookUpResult {
        match answer {
            Some("") => LookUpResult::NotFound,
            Some(text) => match Account::read(text) {
                Some(account) => LookUpResult::Found(Rc::new(account)),
                // It is not whole.
                None => LookUpResult::NoAnswer,
            },
            None => LookUpResult::NoAnswer,
        }
    }
}

fn start(cx: &mut Context, name: &Missing) -> Result<(Child, OwnedFd), ChildError> {
    let asked = match name {
        Missing::User(name) => roles::LookUp::User(name.clone()),
        Missing::Group(name) => roles::LookUp::Group(name.clone()),
        Missing::Uid(uid) => roles::LookUp::Uid(*uid),
    };
    lookup::start(cx, &asked, Role::Account)
}

/// Everything that the child wrote before it ended. This never waits.
fn read_answer(pipe: &OwnedFd) -> String {
    let (mut all, mut part) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(n @ 1..) = socket::receive(pipe.as_fd(), &mut part)
        && all.len() < ANSWER_MAX
    {
        all.extend_from_slice(&part[..n]);
    }
    String::from_utf8(all).unwrap_or_default()
}
