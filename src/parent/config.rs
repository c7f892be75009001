//! One configuration, read whole: the table, the keys, what each service needs to start, and the
//! archive for net. Nothing of it changes while anybody uses it; a reload makes another.

use super::asked;
use super::banners;
use super::catalog::{Account, Catalog};
use super::config_error::ConfigError;
use super::descriptors::own;
use super::disk::{Addresses, Disk};
use super::keys::{Keys, Make};
use super::own_users::OwnUsers;
use super::port_names::{Numbers, PortNames};
use super::port_rules;
use super::programs::{self, Programs};
use super::reached;
use super::row_ports::{self, RowPorts};
use super::self_signed::state_directory;
use super::socket_directories;
use crate::policy::{
    self, Backend, Extract, GroupSet, HostId, Listen, Login, Mistake, Origin, Service, ServiceId,
    Table, UserSpec, Weight,
};
use crate::sys::port::Wanted;
use crate::sys::spawn::{CList, Spawner};
use crate::sys::{identity, pam, program};
use crate::wire::archive::Archive;
use std::collections::HashSet;
use std::os::fd::OwnedFd;

/// The password file that is used if it is there.
const PASSWORDS: &str = "/etc/fived.passwd";

/// Where the passwords are asked, and the keys.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    pub passwords: Option<String>,
    pub pam: Option<String>,
    /// The service of PAM whose account phase follows a good key.
    pub account: Option<String>,
    /// Its words, one a line: no word has a control character.
    pub checkpassword: Option<String>,
    pub authorized_keys: String,
}

pub struct Config {
    pub origin: Origin,
    pub table: Table,
    pub keys: Keys,
    pub catalog: Catalog,
    pub backends: Backends,
    /// Whom fived's own processes run as; None: as we are.
    pub own_users: Option<OwnUsers>,
    /// The addresses of hosts that the tables name.
    pub hosts: Addresses,
    /// The numbers of ports that they name.
    pub names_of_ports: Numbers,
    /// What net is told (`wire::archive`), sealed.
    pub archive: OwnedFd,
    /// Sessions of this or an older configuration may stand that can be resumed.
    pub resumes: bool,
    /// Ports of services' own.
    pub ports: RowPorts,
}

impl Config {
    /// The table with what this computer fills in where the file says nothing.
    pub fn effective(mut self) -> Table {
        let s = &mut self.table.settings;
        s.passwords = self.backends.passwords.take();
        // A number without an account was chosen for this moment: the table does not fix it.
        s.user = s.user.take().or_else(|| identity::by_uid(self.own_users?.net.0).map(|u| u.name));
        let directory = state_directory(&self.table);
        self.table.settings.state_directory = Some(directory.to_string_lossy().into_owned());
        self.table
    }

    /// A name as the rules see it once it has logged in. `account`: that of its user, if it is one
    /// of this computer.
    pub fn login(&self, name: &str, account: Option<&Account>) -> Login {
        let nobody = || Login { name: name.into(), groups: GroupSet::default(), superuser: false };
        account.map_or_else(nobody, |a| self.login_of(a))
    }

    /// An account as the rules see it once its user has logged in.
    pub fn login_of(&self, account: &Account) -> Login {
        let mut groups = GroupSet::default();
        for (i, group) in self.table.groups().iter().enumerate() {
            if self.catalog.known_group(group).is_some_and(|g| account.groups.contains(&g)) {
                groups.insert(i);
            }
        }
        Login { name: account.user.name.clone(), groups, superuser: account.user.uid == 0 }
    }
}

/// A configuration that may be used, and what the administrator should know about it.
pub struct Read {
    pub config: Config,
    pub warnings: Vec<String>,
    /// Something is wrong in a file of another program, and is among the warnings.
    pub left_out: bool,
}

/// What a configuration is read for.
pub struct Purpose<'a> {
    pub origin: &'a Origin,
    /// The addresses of -l.
    pub listen: &'a [Listen],
    /// The sockets of the service manager.
    pub handed: &'a [Wanted],
    /// When a missing certificate is made.
    pub make: Make,
    /// The configuration that stands.
    pub before: Option<&'a Config>,
}

/// Reads everything. `made` gets a line about a certificate that was made and kept, which is to be
/// logged whatever is returned: the next time it is found, and nothing is said. Err: every mistake,
/// one line each.
pub fn read(
    Purpose { origin, listen, handed, make, before }: Purpose,
    spawner: &mut Spawner,
    made: &mut Vec<String>,
) -> Result<Read, ConfigError> {
    let (own, mut disk) = (before.and_then(|b| b.own_users), disk(before));
    let (mut table, mistakes) = policy::load(origin, &mut disk);
    disk.has_all()?;
    table.after_sensors = before.is_some_and(|b| b.table.has_had_sensors());
    let Messages { mut wrong, mut warnings, mut left_out, rest } = messages(&mistakes);
    warnings.extend(disk.take_warnings());
    port_rules::check(&mut table, &mut wrong, &mut warnings);
    let (catalog, late) = catalog(&table, before, &mut wrong);
    check(&table, &catalog, own, &mut wrong, &mut warnings);
    logins(&table, &mut wrong, &mut warnings);
    let found = row_ports::of(&table, listen, handed, &catalog, &mut disk.ports);
    let ports = found.ports;
    wrong.extend(found.wrong);
    let late: Vec<String> = late.into_iter().chain(disk.ports.warning()).collect();
    warnings.extend_from_slice(&late);
    warnings.extend(socket_directories::warnings(&ports.plain, &table, &catalog));
    warnings.extend(banners::warnings(&table));
    let given = (listen, handed);
    warnings.extend(reached::warn(origin, &table, before.map(|b| &b.table), &ports, given, make));
    left_out |= !found.left_out.is_empty();
    warnings.extend(switch_off(&mut table, found.left_out));
    let make = make.is_due(reached::offers_tls(&table, &ports, listen)) && wrong.is_empty();
    let keys = Keys::read(&table, make, before.map(|b| &b.keys), spawner, made);
    let keys = unless_refused(keys, &mut wrong)?;
    warnings.extend_from_slice(&keys.warnings);
    let own_users = OwnUsers::choose(&table, &catalog, own).unwrap_or_else(|e| {
        wrong.push(format!("{}: user: {e}", table.place(HostId::DEFAULT, "user")));
        None
    });
    let resumes = before.is_some_and(|b| b.resumes) || !table.settings.resume_timeout.is_zero();
    let archive = archive(&table, &keys, &ports, resumes, &mut wrong)?;
    if !wrong.is_empty() {
        // It may be why others are wrong.
        wrong.extend(late.into_iter().chain(rest));
        return Err(ConfigError::Mistakes(wrong));
    }
    let (origin, backends) = (origin.clone(), backends(&table));
    let (hosts, names_of_ports) = disk.found();
    let config = Config {
        origin,
        table,
        keys,
        catalog,
        backends,
        own_users,
        hosts,
        names_of_ports,
        archive,
        resumes,
        ports,
    };
    Ok(Read { config, warnings, left_out })
}

/// The keys, or none where they have mistakes, which are added to the others. Err: the system has
/// refused something, and nothing else is wrong: who tries again may have it.
fn unless_refused(
    keys: Result<Keys, ConfigError>,
    wrong: &mut Vec<String>,
) -> Result<Keys, ConfigError> {
    keys.or_else(|e| match e {
        ConfigError::System(_) if wrong.is_empty() => Err(e),
        e => {
            wrong.extend(e.lines());
            Ok(Keys::default())
        }
    })
}

/// Rows of other programs' files that have mistakes. Returns them, one line each.
fn switch_off(table: &mut Table, rows: Vec<(ServiceId, String)>) -> Vec<String> {
    let mut off = |(service, why)| {
        table.switch_off(service);
        why
    };
    rows.into_iter().map(&mut off).collect()
}

/// What net is told. If nothing is wrong yet, net must be able to read the table in it: one net
/// process after another would end otherwise.
fn archive(
    table: &Table,
    keys: &Keys,
    ports: &RowPorts,
    resumes: bool,
    wrong: &mut Vec<String>,
) -> Result<OwnedFd, ConfigError> {
    let files = Extract::of(table).files;
    if wrong.is_empty()
        && let Err(e) = Extract::read(files.clone())
    {
        wrong.push(format!(
            "{e}: expected a table that fived can read in its own words: please report this bug"
        ));
    }
    let archive = Archive {
        files,
        chains: keys.pairs.iter().map(|p| (p.chain.clone(), p.schemes.clone())).collect(),
        chosen: keys.chosen.clone(),
        tls_ports: ports.tls.iter().map(|p| p.services.iter().map(|s| s.0).collect()).collect(),
        resumes,
    };
    own::file(&archive.encode()).map_err(ConfigError::memory)
}

fn disk(before: Option<&Config>) -> Disk<'_> {
    let Some(before) = before else { return Disk::default() };
    let names = PortNames::again(&before.names_of_ports, before.own_users);
    Disk::new(before.own_users, Some(&before.hosts), names)
}

/// Users and groups, and what the log says if not all come from the name service.
fn catalog(
    table: &Table,
    before: Option<&Config>,
    wrong: &mut Vec<String>,
) -> (Catalog, Option<String>) {
    let Some(before) = before else { return Default::default() };
    let found = asked::find(table, (&before.table, &before.catalog), before.own_users);
    wrong.extend(found.open_rules(table));
    let kept = "users and groups without one stay as in the configuration before";
    (found.catalog, found.late.map(|why| format!("users: {why}: {kept}")))
}

/// The messages about the text of a table, one line each.
struct Messages {
    wrong: Vec<String>,
    warnings: Vec<String>,
    left_out: bool,
    /// How many more mistakes there are: the last line.
    rest: Option<String>,
}

fn messages(mistakes: &[Mistake]) -> Messages {
    let (mut refused, others): (Vec<&Mistake>, Vec<_>) =
        mistakes.iter().partition(|m| m.weight == Weight::Refused);
    let rest = refused.pop_if(|m| m.rest).map(|m| m.to_string());
    let of = |all: Vec<&Mistake>| all.into_iter().map(Mistake::to_string).collect();
    let left_out = others.iter().any(|m| m.weight == Weight::LeftOut);
    Messages { wrong: of(refused), warnings: of(others), left_out, rest }
}

/// What only this computer can say about where passwords are asked.
fn logins(table: &Table, wrong: &mut Vec<String>, warnings: &mut Vec<String>) {
    let (s, at) = (&table.settings, |setting: &str| {
        format!("{}: {setting}", table.place(HostId::DEFAULT, setting))
    });
    if let Some(path) = s.checkpassword.as_ref().and_then(|words| words.first())
        && let Err(e) = program::inspect(None, path)
    {
        warnings
            .push(format!("{}: {path}: {e}: nobody can log in by a password", at("checkpassword")));
    }
    if let Some(path) = &s.passwords
        && let Err(e) = std::fs::metadata(path)
    {
        warnings.push(format!("{}: {path}: {e}: nobody can log in by a password", at("passwords")));
    }
    if let Some(service) = &s.pam
        && !pam::is_configured(service)
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
    let backends = backends(table);
    if let (Some(path), None, None) = (&backends.passwords, &backends.pam, &backends.checkpassword)
    {
        warnings.extend(crate::login::warnings(path, &at("passwords")));
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

/// What only this computer can say about a row. Of one that is switched off only mistakes are
/// told: it answers nobody. `before`: the users of the configuration that stands.
fn check(
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
        if let (Some(daemon), Some(why)) = (s.libwrap_daemon(), &libwrap) {
            let what = format!(
                "{why}: the rules of hosts_access(5) cannot be asked, and this service answers `-Service not available`"
            );
            unless_off.push(at(daemon, &what));
        }
        let own = s.attributes.env.iter().map(|(name, value)| format!("{name}={value}"));
        if let Err(e) = CList::new(s.backend.arguments()).and(CList::new(own)) {
            unless_off.push(at(&s.name, &format!("{e}: this service answers `-Service failed`")));
        }
        if !s.attributes.disable {
            warnings.append(&mut unless_off);
            // Rows may have it from the same line.
            warnings.extend(programs.lacking(s).filter(|line| told.insert(line.clone())));
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
            None => warnings.push(at(user, "no such user: this service answers `-Service failed`")),
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
            None => warnings.push(at(group, "no such group: this service answers `-Service failed`")),
            Some(gid) if me != 0 && gid != identity::effective_gid() => wrong.push(at(
                group,
                "expected the group of the user who started fived, found another: only root can start a service in another group",
            )),
            Some(_) => {}
        }
    }
}

fn backends(table: &Table) -> Backends {
    let s = &table.settings;
    let usual = || std::path::Path::new(PASSWORDS).exists().then(|| PASSWORDS.to_string());
    Backends {
        passwords: s.passwords.clone().or_else(usual),
        pam: s.pam.clone(),
        account: s.account_service().map(String::from),
        checkpassword: s.checkpassword.as_ref().map(|words| words.join("\n")),
        authorized_keys: s.authorized_keys.join(" "),
    }
}
