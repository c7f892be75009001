//! What only this computer can say about a table, for mistakes and warnings.

use super::backends::Backends;
use super::catalog::Catalog;
use super::disk::ask;
use super::own_users::OwnUsers;
use super::programs::{self, CANNOT_START, Programs};
use crate::login::{self, PasswordFile};
use crate::policy::{Backend, HostId, LogType, Service, Table, UserSpec};
use crate::sys::directory_calls;
use crate::sys::output::SYSLOG;
use crate::sys::spawn::CList;
use crate::sys::{identity, pam, program};
use std::collections::HashSet;
use std::path::Path;

/// What only this computer can say about a row. Of one that is switched off only mistakes are
/// told: it answers nobody. `before`: the users of the configuration that stands.
pub fn rows(
    table: &Table,
    catalog: &Catalog,
    before: Option<OwnUsers>,
    wrong: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let programs = Programs::check(table);
    let asks =
        table.services().iter().any(|s| !s.attributes.disable && s.libwrap_daemon().is_some());
    let libwrap = asks.then(|| programs::wrong_with_libwrap(before)).flatten();
    rule_groups(table, catalog, warnings);
    let mut told = HashSet::new();
    for s in table.services() {
        let at = |word: &str, what: &str| format!("{}:{}: {word}: {what}", s.file, s.line);
        let mut unless_off = Vec::new();
        if let Some(port) = s.port_for_a_name() {
            let what = format!(
                "a name, not a port: clients reach it as {:?} on fived's own port; `port = {port}` gives it that port",
                s.name
            );
            unless_off.push(at(&s.name, &what));
        }
        owner(s, catalog, wrong, &mut unless_off);
        unless_off.extend(kept_groups(s));
        if let (Some(daemon), Some(why)) = (s.libwrap_daemon(), &libwrap) {
            let what = format!(
                "{why}: the rules of hosts_access(5) cannot be asked, so all clients of this service are refused"
            );
            unless_off.push(at(daemon, &what));
        }
        let own = s.attributes.env.iter().map(|(name, value)| format!("{name}={value}"));
        if let Err(e) = CList::new(s.backend.arguments()).and(CList::new(own)) {
            unless_off.push(at(&s.name, &format!("{e}: {CANNOT_START}")));
        }
        if !s.attributes.disable {
            warnings.append(&mut unless_off);
            // Rows may have it from the same line.
            warnings.extend(programs.lacking(s).filter(|line| told.insert(line.clone())));
        }
    }
}

/// The groups that `users` names and that do not exist: each is a warning, at the first row that it
/// concerns. This is also where the catalog learns the groups of all rules: when a user logs in,
/// it is asked only which of them the user is in.
fn rule_groups(table: &Table, catalog: &Catalog, warnings: &mut Vec<String>) {
    let mut missing: HashSet<&str> =
        table.groups().iter().map(String::as_str).filter(|g| catalog.group(g).is_none()).collect();
    for s in table.services() {
        let (users, by) = (&s.attributes.users, &s.attributes.offered_by);
        let users = users.groups().map(|group| ("users", group));
        for (attribute, group) in users.chain(by.groups().map(|group| ("offered_by", group))) {
            if missing.remove(group) {
                let place = s.place(attribute, |w| {
                    w.trim_start_matches('!').strip_prefix('@') == Some(group)
                });
                warnings.push(format!(
                    "{place}: @{group}: no such group: the rule acts as if nobody were in it, until a reload finds it"
                ));
            }
        }
    }
}

/// What only this computer can say about the user and the group of a row.
fn owner(s: &Service, catalog: &Catalog, wrong: &mut Vec<String>, warnings: &mut Vec<String>) {
    let me = identity::effective_uid();
    let at = |word: &str, what: &str| format!("{}:{}: {word}: {what}", s.file, s.line);
    // A sensor runs as nobody.
    if let UserSpec::Named { user, .. } = &s.user
        && s.backend != Backend::Sensor
    {
        match catalog.user(user) {
            None => warnings.push(at(user, &format!("no such user: {CANNOT_START}"))),
            Some(u) if me != 0 && u.uid != me => wrong.push(at(
                user,
                "expected the user who started fived, found another: only root can start a service as another user",
            )),
            Some(_) => {}
        }
    }
    if let Some(group) = s.group() {
        let own = matches!(&s.user, UserSpec::Named { group: Some(_), .. });
        let row = format!("{}:{}", s.file, s.line);
        let place = if own { row } else { s.place("group", |_| true) };
        let at = |word: &str, what: &str| format!("{place}: {word}: {what}");
        match catalog.group(group) {
            None => warnings.push(at(group, &format!("no such group: {CANNOT_START}"))),
            Some(gid) if me != 0 && gid != identity::effective_gid() => wrong.push(at(
                group,
                "expected the group of the user who started fived, found another: only root can start a service in another group",
            )),
            Some(_) => {}
        }
    }
}

/// `groups = no`, where fived has supplementary groups that it may not take away.
fn kept_groups(s: &Service) -> Option<String> {
    let asks = matches!(s.backend, Backend::Exec { .. } | Backend::Internal(_));
    if identity::effective_uid() == 0 || !asks || s.attributes.groups {
        return None;
    }
    let who = identity::current().ok()?;
    who.groups.iter().any(|group| *group != who.gid).then(|| {
        let place = s.place("groups", |_| true);
        format!(
            "{place}: groups: no: only root can take groups away: the service has those of fived"
        )
    })
}

/// Syslog that is not there: its lines are lost, and nobody would hear of that.
pub fn log(table: &Table) -> Option<String> {
    let LogType::Syslog { .. } = table.settings.log_type else { return None };
    let look = || std::fs::metadata(SYSLOG).map(drop);
    let e = directory_calls::make(Path::new(SYSLOG), &[], move |_| look()).err()?;
    let place = table.place(HostId::DEFAULT, "log_type");
    Some(format!("{place}: log_type: {SYSLOG}: {e}: nothing is logged until syslog is there"))
}

/// What only this computer can say about where passwords are asked. `serves`: see [`ask`].
pub fn logins(
    table: &Table,
    backends: &Backends,
    serves: bool,
    wrong: &mut Vec<String>,
    warnings: &mut Vec<String>,
) {
    let (s, at) = (&table.settings, |setting: &str| {
        format!("{}: {setting}", table.place(HostId::DEFAULT, setting))
    });
    let look = |path: &str, what: Box<dyn FnOnce() -> Result<(), String> + Send>| {
        ask(serves, Path::new(path), || Ok(what())).unwrap_or_else(|e| Err(e.to_string()))
    };
    if let Some(path) = s.checkpassword.as_ref().and_then(|words| words.first())
        && let name = path.clone()
        && let Err(e) = look(path, Box::new(move || program::inspect(None, &name)))
    {
        warnings
            .push(format!("{}: {path}: {e}: nobody can log in by a password", at("checkpassword")));
    }
    if let Some(path) = &s.passwords
        && let name = path.clone()
        && let Err(e) = ask(serves, Path::new(path), || std::fs::metadata(name))
    {
        warnings.push(format!("{}: {path}: {e}: nobody can log in by a password", at("passwords")));
    }
    if let Some(service) = &s.pam
        && let name = service.clone()
        && ask(serves, Path::new(pam::SERVICES[0]), move || Ok(pam::is_configured(&name)))
            .is_ok_and(|is| !is)
    {
        let why = "no such file in /etc/pam.d: PAM then uses its service `other`, which usually lets nobody in";
        warnings.push(format!("{}: {service}: {why}", at("pam")));
    }
    if s.pam_account == Some(true) && s.pam.is_none() {
        wrong.push(format!(
            "{}: yes: expected a PAM service to ask (`pam = NAME`), found none",
            at("pam_account")
        ));
    }
    if let (Some(path), None, None) = (&backends.passwords, &backends.pam, &backends.checkpassword)
    {
        let name = path.clone();
        let found = ask(serves, Path::new(path), move || PasswordFile::read(&name));
        warnings.extend(login::warnings(path, &at("passwords"), found));
    }
}
