//! The users and groups of a configuration that is read again, as a child has asked the system's
//! name service for them: it may never answer, and the parent serves nobody while it reads. What
//! has no answer in time is as the configuration that stands has it.
//!
//! At the start the parent asks itself ([`super::catalog`]), and waits: rules that refuse a group
//! must not begin without it.

use super::catalog::{Account, Catalog, Numbers};
use super::own_users::OwnUsers;
use super::programs;
use crate::policy::{Table, UserSpec};
use crate::sys::identity::User;
use crate::wire::lookups::{self, Who};
use crate::wire::roles;
use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::rc::Rc;

/// Asks for all that the table names. `before`: the configuration that stands, and `own` its users.
/// Returns why not all of it comes from the name service, if so.
pub fn catalog(
    table: &Table,
    before: &Catalog,
    own: Option<OwnUsers>,
) -> (Catalog, Option<String>) {
    let all = questions(table, own);
    let mut child = programs::program(roles::ACCOUNTS);
    child.env_clear();
    if let Some((uid, gid)) = own.map(|o| o.helper) {
        child.uid(uid).gid(gid);
    }
    let (lines, late) = programs::ask(&mut child, lookups::accounts(&all).as_bytes())
        .unwrap_or_else(|e| (Vec::new(), Some(e.to_string())));
    let failed = || late.unwrap_or_else(|| "the process that looks them up has failed".into());
    let why = (lines.len() < all.len()).then(failed);
    let mut numbers = Numbers::default();
    for (n, who) in all.iter().enumerate() {
        // Without an answer: they are of fived's own users, and were free.
        let exists = lines.get(n).is_some_and(|l| !l.is_empty());
        match who {
            Who::Uid(uid) => drop(numbers.users.insert(*uid, exists)),
            Who::Gid(gid) => drop(numbers.groups.insert(*gid, exists)),
            Who::User(_) | Who::Group(_) => {}
        }
    }
    let catalog = Catalog::told(numbers);
    for (n, who) in all.iter().enumerate() {
        learn(&catalog, who, lines.get(n), before);
    }
    (catalog, why)
}

/// What a line says; without one, what the configuration that stands does.
fn learn(catalog: &Catalog, who: &Who, line: Option<&String>, before: &Catalog) {
    match who {
        Who::User(name) => {
            let read = |l: &String| Account::read(&format!("{l}\n")).map(Rc::new);
            if let Some(account) = line.map_or_else(|| before.known_account(name), read) {
                catalog.learn_user(name, account);
            }
        }
        Who::Group(name) => {
            let read = |l: &String| lookups::read_group(l);
            if let Some(gid) = line.map_or_else(|| before.known_group(name), read) {
                catalog.learn_group(name, gid);
            }
        }
        Who::Uid(_) | Who::Gid(_) => {}
    }
}

/// Every user and group that is looked up while this table is read, each once. First the groups of
/// rules: later nobody looks them up.
fn questions(table: &Table, own: Option<OwnUsers>) -> Vec<Who> {
    let mut all: Vec<Who> = table.groups().iter().cloned().map(Who::Group).collect();
    all.push(Who::User(OwnUsers::account(table).into()));
    for s in table.services() {
        if let UserSpec::Named { user, .. } = &s.user {
            all.push(Who::User(user.clone()));
        }
        all.extend(s.group().map(|g| Who::Group(g.into())));
        if let Some(owner) = &s.attributes.socket_owner {
            all.push(Who::User(owner.user.clone()));
            all.extend(owner.group.clone().map(Who::Group));
        }
    }
    let ids = own.into_iter().flat_map(|o| [o.net, o.helper]);
    all.extend(ids.flat_map(|(uid, gid)| [Who::Uid(uid), Who::Gid(gid)]));
    let mut seen = HashSet::new();
    all.retain(|who| seen.insert(who.clone()));
    all
}

impl Account {
    /// A user, as a child has answered. None: there is none, or the answer is not whole.
    pub fn read(text: &str) -> Option<Account> {
        let lookups::User { name, uid, gid, home, shell, groups } = lookups::User::decode(text)?;
        Some(Account { user: User { name, uid, gid, home, shell }, groups })
    }
}
