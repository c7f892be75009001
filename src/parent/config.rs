//! One configuration, read whole: the table, the keys, what each service needs to start, and the
//! archive for net. Nothing of it changes while anybody uses it; a reload makes another.
//!
//! | file | noun |
//! |---|---|
//! | `disk` | files, read from the disk |
//! | `catalog` | what each service needs to start |
//! | `users` | users and groups, as a child says them at a reload |
//! | `port_names` | names of ports, likewise |
//! | `name_service` | the child that both ask |
//! | `own_users` | the users that fived's own processes run as |
//! | `keys` | certificates and private keys |
//! | `certificate` | what is known about a certificate |
//! | `self_signed` | the one that fived makes for itself |
//! | `inspector` | a keys process checks private keys, because the parent never decodes them |
//! | `row_ports` | services' own ports: which rows name them |
//! | `wanted_port` | how one is to be bound |
//! | `own_addresses` | the addresses of fived's own port, which no row may have |
//! | `port_rules` | what cannot be together |
//! | `backends` | where passwords are checked, and the keys of users found |
//! | `checks` | what only this computer can say about a row, for mistakes and warnings |
//! | `programs` | which rows' programs cannot run, for warnings |
//! | `socket_directories` | who else can write where a Unix socket is, likewise |
//! | `banners` | which banners clients of RUN cannot tell from records, likewise |
//! | `reachability` | whether any client can reach anything, likewise |
//! | `error` | why a configuration could not be read |

mod backends;
mod banners;
pub mod catalog;
pub mod certificate;
mod checks;
pub mod disk;
pub mod error;
pub mod inspector;
pub mod keys;
mod name_service;
mod own_addresses;
pub mod own_users;
mod port_names;
mod port_rules;
mod programs;
mod reachability;
pub mod row_ports;
mod self_signed;
mod socket_directories;
mod users;
mod wanted_port;

use super::descriptors::own;
use crate::policy::{
    self, Extract, GroupSet, HostId, Listen, Login, Mistake, Origin, ServiceId, Table, Weight,
};
use crate::sys::identity;
use crate::sys::port::Wanted;
use crate::sys::spawn::Spawner;
use crate::wire::archive::Archive;
use backends::Backends;
use catalog::{Account, Catalog};
use disk::{Addresses, Disk};
use error::ConfigError;
use keys::{Keys, Make};
use own_users::OwnUsers;
use port_names::{Numbers, PortNames};
use row_ports::RowPorts;
use self_signed::state_directory;
use std::os::fd::OwnedFd;

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
    checks::rows(&table, &catalog, own, &mut wrong, &mut warnings);
    let backends = Backends::of(&table, before.map(|b| &b.backends));
    checks::logins(&table, &backends, before.is_some(), &mut wrong, &mut warnings);
    warnings.extend(checks::log(&table));
    let found = row_ports::of(&table, listen, handed, &catalog, &mut disk.ports);
    let ports = found.ports;
    wrong.extend(found.wrong);
    let late: Vec<String> = late.into_iter().chain(disk.ports.warning()).collect();
    warnings.extend_from_slice(&late);
    warnings.extend(socket_directories::warnings(&ports.plain, &table, &catalog, before.is_some()));
    warnings.extend(banners::warnings(&table));
    let (stood, given) = (before.map(|b| &b.table), (listen, handed));
    warnings.extend(reachability::warn(origin, &table, stood, &ports, given, make));
    left_out |= !found.left_out.is_empty();
    warnings.extend(switch_off(&mut table, found.left_out));
    let make = make.is_due(reachability::offers_tls(&table, &ports, listen)) && wrong.is_empty();
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
    let origin = origin.clone();
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
    let found = users::find(table, (&before.table, &before.catalog), before.own_users);
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
