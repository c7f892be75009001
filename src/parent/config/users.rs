//! The users and groups of a configuration that is read again, as the system's name service has
//! them now. What has no answer in time is as the configuration that stands has it. A rule that
//! refuses a group of which that one knows nothing would then refuse nobody: it is a mistake.

use super::catalog::{Account, Catalog, Numbers};
use super::name_service::NameService;
use super::own_users::OwnUsers;
use crate::policy::{Table, UserSpec};
use crate::sys::identity::User;
use crate::wire::lookups::{self, Entry};
use std::collections::HashSet;
use std::rc::Rc;

/// What there is after that.
pub struct Found {
    pub catalog: Catalog,
    /// Why not all of it comes from the name service, if so.
    pub late: Option<String>,
    /// Groups of rules about which nothing is known: the configuration that stands does not name
    /// them.
    unknown: HashSet<String>,
}

/// Asks for all that the table names. `before`: the configuration that stands, and `own` its users.
pub fn find(table: &Table, before: (&Table, &Catalog), own: Option<OwnUsers>) -> Found {
    let mut service = NameService::new(own);
    let all: Vec<(Entry, Option<String>)> = questions(table, own)
        .into_iter()
        .map(|entry| {
            let line = service.ask(&entry);
            (entry, line)
        })
        .collect();
    let mut numbers = Numbers::default();
    for (entry, line) in &all {
        // Without an answer: they are of fived's own users, and were free.
        let exists = line.as_ref().is_some_and(|l| l != "\n");
        match entry {
            Entry::Uid(uid) => drop(numbers.users.insert(*uid, exists)),
            Entry::Gid(gid) => drop(numbers.groups.insert(*gid, exists)),
            Entry::User(_) | Entry::Group(_) | Entry::Port { .. } => {}
        }
    }
    let catalog = Catalog::told(numbers);
    for (entry, line) in &all {
        learn(&catalog, entry, line.as_deref(), before.1);
    }
    let asked = |name: &str| all.iter().any(|(e, _)| matches!(e, Entry::User(n) if n == name));
    catalog.keep_others(before.1, asked);
    let unanswered = all.iter().filter(|(_, line)| line.is_none());
    let unknown = unanswered.filter_map(|(entry, _)| match entry {
        Entry::Group(name) if !before.0.groups().contains(name) => Some(name.clone()),
        _ => None,
    });
    Found { unknown: unknown.collect(), catalog, late: service.why().map(String::from) }
}

impl Found {
    /// The rules that would refuse nobody, because nobody has said who is in a group.
    pub fn open_rules(&self, table: &Table) -> Vec<String> {
        let mut all = Vec::new();
        for s in table.services().iter().filter(|s| !s.attributes.disable) {
            for group in s.attributes.users.denied_groups().filter(|g| self.unknown.contains(*g)) {
                all.push(format!(
                    "{}:{}: !@{group}: expected a group that can be looked up, found no answer",
                    s.file, s.line
                ));
            }
        }
        all
    }
}

/// What a line says; without one, what the configuration that stands does.
fn learn(catalog: &Catalog, entry: &Entry, line: Option<&str>, before: &Catalog) {
    match entry {
        Entry::User(name) => {
            let read = |l: &str| Account::read(l).map(Rc::new);
            if let Some(account) = line.map_or_else(|| before.known_account(name), read) {
                catalog.learn_user(name, account);
            }
        }
        Entry::Group(name) => {
            let read = |l: &str| lookups::read_number(l);
            if let Some(gid) = line.map_or_else(|| before.known_group(name), read) {
                catalog.learn_group(name, gid);
            }
        }
        Entry::Uid(_) | Entry::Gid(_) | Entry::Port { .. } => {}
    }
}

/// Every user and group that is looked up while this table is read, each once. First the groups of
/// rules: later nobody looks them up.
fn questions(table: &Table, own: Option<OwnUsers>) -> Vec<Entry> {
    let mut all: Vec<Entry> = table.groups().iter().cloned().map(Entry::Group).collect();
    all.push(Entry::User(OwnUsers::account(table).into()));
    for s in table.services() {
        if let UserSpec::Named { user, .. } = &s.user {
            all.push(Entry::User(user.clone()));
        }
        all.extend(s.group().map(|g| Entry::Group(g.into())));
        if let Some(owner) = &s.attributes.socket_owner {
            all.push(Entry::User(owner.user.clone()));
            all.extend(owner.group.clone().map(Entry::Group));
        }
    }
    let ids = own.into_iter().flat_map(|o| [o.net, o.helper]);
    all.extend(ids.flat_map(|(uid, gid)| [Entry::Uid(uid), Entry::Gid(gid)]));
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
