//! Users and groups that the system's name service did not know when the configuration was read,
//! and users who log in. A child looks them up, because a name service may never answer. Only the
//! request that needs the name waits.
//!
//! A name that was found is kept with the configuration. One that was not found is looked up again
//! for the next request that needs it, and a user at each login.

use crate::log;
use crate::parent::arrival::StartError;
use crate::parent::children::Role;
use crate::parent::config::Config;
use crate::parent::config::catalog::{Account, LookUpResult, Missing};
use crate::parent::context::{Context, Timer};
use crate::parent::lookups::LookUps;
use crate::sys::process::Exit;
use crate::wire::lookups;
use crate::wire::roles::LookUp;
use std::fmt::Display;
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

/// A name that is looked up, and the requests that wait for it.
struct Wanted<T> {
    name: Missing,
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

/// The look-ups that run. `T` is a request that continues when its look-up has ended, whether the
/// name was found or not.
pub struct Accounts<T>(LookUps<Wanted<T>>);

impl<T> Accounts<T> {
    pub fn new() -> Accounts<T> {
        Accounts(LookUps::default())
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
        let subject = name.subject();
        let busy =
            |reason, why: &dyn Display| StartError::busy(reason, Some(format!("{subject}: {why}")));
        let too_many = || busy("processes", &"too many users are looked up");
        if !may_wait(all.waiting().map(|l| (&l.name, l.waiting.len())), &name) {
            return Err((then, too_many()));
        }
        if let Some(l) = all.waiting_mut().find(|l| l.name == name) {
            l.waiting.push((config.clone(), then));
            return Ok(());
        }
        let asked = asked(&name);
        let wanted = Wanted { name, waiting: vec![(config.clone(), then)] };
        match all.start(cx, Role::Account, &asked, wanted) {
            Ok(pid) => {
                all.set_timer(cx, pid, LOOK_UP_TIMEOUT, Timer::AccountLate { pid });
                Ok(())
            }
            Err((wanted, e)) => {
                cx.note_not_started("users", &e);
                let reason = if e.lacks_descriptors() { "descriptors" } else { "processes" };
                let (_, then) = wanted.waiting.into_iter().next().expect("it was put there");
                Err((then, busy(reason, &e)))
            }
        }
    }

    /// The child of a look-up has ended; its output is the answer.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) -> Option<LookedUp<T>> {
        let (wanted, answer) = self.0.ended(cx, pid, exit)?;
        let answer = answer.map(|bytes| String::from_utf8(bytes).unwrap_or_default());
        Some(wanted.learn(answer.as_deref(), cx.now))
    }

    /// The look-up has taken too long: its requests continue without the name.
    pub fn late(&mut self, cx: &mut Context, pid: i32) -> Option<LookedUp<T>> {
        let wanted = self.0.late(cx, pid)?;
        log::warn(&format!(
            "{}: the name service did not answer within {} s",
            wanted.name.subject(),
            LOOK_UP_TIMEOUT.as_secs()
        ));
        Some(wanted.learn(None, cx.now))
    }
}

impl<T> Wanted<T> {
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

/// May one more request wait for this name? `running`: the names that are looked up, and how many
/// requests wait for each.
fn may_wait<'a>(
    running: impl Iterator<Item = (&'a Missing, usize)> + Clone,
    name: &Missing,
) -> bool {
    let is_uid = |name: &Missing| matches!(name, Missing::Uid(_));
    let all: usize = running.clone().map(|(_, n)| n).sum();
    let with_others = running.clone().find(|(of, _)| *of == name);
    all < WAITING_MAX
        && match with_others {
            Some((_, n)) => !is_uid(name) || n < WAITING_OF_UID_MAX,
            None => {
                let uids = running.clone().filter(|(of, _)| is_uid(of)).count();
                running.count() < RUNNING_MAX && (!is_uid(name) || uids < UIDS_MAX)
            }
        }
}

fn asked(name: &Missing) -> LookUp {
    match name {
        Missing::User(name) => LookUp::User(name.clone()),
        Missing::Group(name) => LookUp::Group(name.clone()),
        Missing::Uid(uid) => LookUp::Uid(*uid),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// fived(8), LIMITS.
    #[test]
    fn each_has_its_places_and_leaves_others_theirs() {
        let (uid, user) = (Missing::Uid, |n: u32| Missing::User(format!("user{n}")));
        let may = |running: &[(Missing, usize)], name: Missing| {
            may_wait(running.iter().map(|(of, n)| (of, *n)), &name)
        };
        let each =
            |all: Vec<Missing>, n: usize| -> Vec<_> { all.into_iter().map(|of| (of, n)).collect() };
        let users = |n: u32| (0..n).map(user).collect::<Vec<_>>();
        assert!(may(&each(users(15), 1), user(99)));
        assert!(!may(&each(users(16), 1), user(99)), "16 at a time");
        assert!(may(&each(users(16), 1), user(3)));
        let uids = |n: u32| (0..n).map(uid).collect::<Vec<_>>();
        assert!(may(&each(uids(7), 1), uid(99)));
        assert!(!may(&each(uids(8), 1), uid(99)), "8 of them for who has connected");
        assert!(may(&each(uids(8), 1), user(99)) && may(&each(uids(8), 1), uid(3)));
        assert!(may(&each(uids(1), 15), uid(0)));
        assert!(!may(&each(uids(1), 16), uid(0)), "16 of one who has connected wait");
        assert!(may(&each(users(1), 255), user(0)));
        assert!(!may(&each(users(1), 256), user(0)), "256 wait");
        assert!(!may(&each(users(4), 64), user(99)));
    }
}
