//! The ports that rows name: which addresses are to be bound, for which services.

use super::catalog::Catalog;
use super::own_addresses::OwnAddresses;
use super::port_names::PortNames;
use super::wanted_port::wanted;
use crate::policy::{
    self, Family, Grammar, HostId, HostScope, Listen, Owner, ProgramSocket, Service, ServiceId,
    Table,
};
use crate::sys::port::{Protocol, Wanted};
use crate::sys::unix_listener;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Ports where TLS is expected, at most: net is told of each with its socket.
const TLS_PORTS_MAX: usize = 1024;

/// Where a listener of the parent's own is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    Port(Wanted),
    Path(Box<unix_listener::Wanted>),
}

impl At {
    pub fn port(&self) -> Option<&Wanted> {
        match self {
            At::Port(wanted) => Some(wanted),
            At::Path(_) => None,
        }
    }

    pub fn path(&self) -> Option<&unix_listener::Wanted> {
        match self {
            At::Port(_) => None,
            At::Path(wanted) => Some(wanted),
        }
    }
}

/// A port, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub at: At,
    /// None: it is one where fived itself listens, and its clients name a service.
    pub service: Option<ServiceId>,
    pub socket: ProgramSocket,
    /// The row's name, where any free port will do: nothing else tells these from one another.
    pub free: Option<Arc<str>>,
    pub place: RowPlace,
    /// The row's name, where it is one of inetd.conf or xinetd.conf: if its port cannot be bound,
    /// everything else is served.
    pub foreign: Option<Arc<str>>,
}

/// The file and line of a row's port, or of a setting; without a line, an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace(Arc<str>, usize);

impl RowPlace {
    /// One that is written already.
    fn whole(text: &str) -> RowPlace {
        RowPlace(text.into(), 0)
    }
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.1 {
            0 => f.write_str(&self.0),
            line => write!(f, "{}:{line}", self.0),
        }
    }
}

/// A port where TLS is expected, and the services that share it: one of a host at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPort {
    pub wanted: Wanted,
    pub services: Vec<ServiceId>,
    /// As in [`Port`]; rows of this name in several hosts share it.
    pub free: Option<Arc<str>>,
    /// Of the first of them.
    pub place: RowPlace,
}

/// What tells one listener from another. What a program has had (`true` at the end) is never one
/// where fived accepts: the program may still have it, and may have made it wait.
pub type Key<'a> = (Protocol, SocketAddr, bool, Option<&'a str>, bool);

/// What tells one listener from another ([`Key`]), at a port or at a path.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum PortKey<'a> {
    Port(Key<'a>),
    Path(&'a str, bool),
}

impl Port {
    /// The word that a line about what could not be bound names.
    pub fn word(&self) -> String {
        match (&self.foreign, self.service) {
            (Some(name), _) => format!("{name}: not served"),
            (None, Some(_)) => "port".into(),
            (None, None) => "listen".into(),
        }
    }

    /// None: it is at an address.
    pub fn path(&self) -> Option<&str> {
        self.at.path().map(|wanted| &*wanted.path)
    }

    pub fn key(&self) -> PortKey<'_> {
        let waits = self.socket.waits();
        match &self.at {
            At::Port(wanted) => PortKey::Port(key(wanted, self.free.as_deref(), waits)),
            At::Path(wanted) => PortKey::Path(&wanted.path, waits),
        }
    }
}

impl TlsPort {
    pub fn key(&self) -> Key<'_> {
        key(&self.wanted, self.free.as_deref(), false)
    }
}

fn key<'a>(wanted: &Wanted, free: Option<&'a str>, waits: bool) -> Key<'a> {
    (wanted.protocol, wanted.address, wanted.only_v6, free, waits)
}

/// The ports of a table.
#[derive(Debug, Default)]
pub struct RowPorts {
    pub plain: Vec<Port>,
    pub tls: Vec<TlsPort>,
    /// The paths among `plain` where fived itself listens.
    pub own_paths: Vec<String>,
}

/// What a table names.
#[derive(Debug, Default)]
pub struct Found {
    pub ports: RowPorts,
    /// Mistakes, one line each.
    pub wrong: Vec<String>,
    /// Mistakes in rows of other programs' files, which are switched off for them.
    pub left_out: Vec<(ServiceId, String)>,
}

/// The ports that a table names, and the Unix sockets of fived's own. `given`: the addresses and
/// paths of -l; `handed`: the sockets of the service manager.
pub fn of(
    table: &Table,
    given: &[Listen],
    handed: &[Wanted],
    catalog: &Catalog,
    names: &mut PortNames,
) -> Found {
    let own = OwnAddresses::of(table, given, handed);
    let mut collector = PortCollector {
        table,
        own: &own,
        catalog,
        names,
        ports: RowPorts::default(),
        on_port: HashMap::new(),
        shared: HashSet::new(),
    };
    let (mut wrong, mut left_out) = (Vec::new(), Vec::new());
    wrong.extend(collector.own_sockets(given));
    for (n, service) in table.services().iter().enumerate() {
        let row = Row { service, id: ServiceId(n as u32) };
        let before = collector.ports.plain.len();
        let mistakes = collector.row(&row);
        if service.grammar == Grammar::Fived {
            wrong.extend(mistakes);
        } else if !mistakes.is_empty() {
            // There is no `tls_port` in the files of other programs.
            let gone = collector.ports.plain.split_off(before);
            for wanted in gone.iter().filter_map(|p| p.at.port()) {
                let taken = collector.on_port.entry(wanted.address.port()).or_default();
                taken.retain(|(_, id)| *id != row.id);
            }
            left_out.extend(mistakes.into_iter().map(|w| (row.id, w)));
        }
    }
    let ports = collector.ports;
    if ports.tls.len() > TLS_PORTS_MAX {
        let n = ports.tls.len();
        let what = format!("expected at most {TLS_PORTS_MAX} different ports, found {n}");
        wrong.push(format!("tls_port: {what}"));
    }
    Found { ports, wrong, left_out }
}

/// A row, and its number.
struct Row<'a> {
    service: &'a Service,
    id: ServiceId,
}

impl Row<'_> {
    /// What is wrong with this word of an attribute.
    fn wrong(&self, attribute: &str, word: &str, what: impl fmt::Display) -> String {
        format!("{}: {attribute}: {what}", self.service.place(attribute, |w| w == word))
    }

    /// Where this port is written.
    fn place(&self, attribute: &str, port: &str) -> RowPlace {
        let (file, line) = self.service.file_and_line(attribute, |w| w == port);
        RowPlace(file, line)
    }

    fn foreign(&self) -> Option<Arc<str>> {
        (self.service.grammar != Grammar::Fived).then(|| Arc::from(self.service.name.as_str()))
    }

    fn free(&self, wanted: &Wanted) -> Option<Arc<str>> {
        (wanted.address.port() == 0).then(|| Arc::from(self.service.name.as_str()))
    }
}

struct PortCollector<'a, 'n> {
    table: &'a Table,
    /// Where fived itself listens.
    own: &'a OwnAddresses<'a>,
    catalog: &'a Catalog,
    names: &'a mut PortNames<'n>,
    ports: RowPorts,
    /// What is taken already, by its port, and the first row that has it.
    on_port: HashMap<u16, Vec<(Wanted, ServiceId)>>,
    /// Which hosts have a row at which of the TLS ports.
    shared: HashSet<(usize, HostScope)>,
}

impl PortCollector<'_, '_> {
    /// Adds the Unix sockets of fived's own. Returns the mistakes, one line each.
    fn own_sockets(&mut self, given: &[Listen]) -> Vec<String> {
        let settings = &self.table.settings;
        let (all, from) = match given {
            [] => (&settings.listen[..], self.table.place(HostId::DEFAULT, "listen")),
            given => (given, "-l".to_string()),
        };
        let mut wrong = Vec::new();
        if let Some(address) = self.own.twice() {
            wrong
                .push(format!("{from}: listen: expected each address once, found {address} twice"));
        }
        for path in all.iter().filter_map(Listen::path) {
            let (path, mode) = (path.to_string(), settings.listen_mode);
            let wanted = unix_listener::Wanted { path, mode, owner: None, backlog: None };
            let taken =
                self.path_is_free(&wanted.path, false).map_err(|w| format!("{from}: listen: {w}"));
            wrong.extend(taken.err());
            self.ports.own_paths.push(wanted.path.clone());
            let (at, socket) = (At::Path(Box::new(wanted)), ProgramSocket::Connection);
            let place = RowPlace::whole(&from);
            let port = Port { at, service: None, socket, free: None, place, foreign: None };
            self.ports.plain.push(port);
        }
        wrong
    }

    /// Adds those of a row. Returns its mistakes, one line each. One that is switched off has no
    /// port, and nothing that it says of them is a mistake: so -T prints the rows of inetd.conf and
    /// xinetd.conf that were switched off for a mistake, and what it prints is read again.
    fn row(&mut self, row: &Row) -> Vec<String> {
        let (s, a) = (row.service, &*row.service.attributes);
        if a.disable {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        let owner = a.socket_owner.as_ref().and_then(|owner| {
            let found = self.owner(owner);
            found.map_err(|what| wrong.push(row.wrong("socket_owner", "", what))).ok()
        });
        let plain = a.port.iter().map(|p| (p, "port"));
        for (p, word) in plain.chain(a.tls_port.iter().map(|p| (p, "tls_port"))) {
            let named = |what| format!("{p}: {what}");
            let added = match (p.path(), word) {
                (Some(path), "port") => self.unix(row, path, owner),
                (Some(_), _) => Err("expected a port of TCP, found a path".into()),
                (None, _) => wanted(s, p, self.names).and_then(|wanted| match word {
                    "port" => self.plain(row, p, wanted).map_err(named),
                    _ => self.tls(row, p, wanted).map_err(named),
                }),
            };
            wrong.extend(added.err().map(|what| row.wrong(word, &p.to_string(), what)));
        }
        wrong
    }

    fn plain(&mut self, row: &Row, p: &policy::Port, wanted: Wanted) -> Result<(), String> {
        self.is_not_taken(&wanted)?;
        let (socket, free) = (row.service.endpoint.socket, row.free(&wanted));
        self.on_port.entry(wanted.address.port()).or_default().push((wanted, row.id));
        let (at, service) = (At::Port(wanted), Some(row.id));
        let (place, foreign) = (row.place("port", &p.to_string()), row.foreign());
        self.ports.plain.push(Port { at, service, socket, free, place, foreign });
        Ok(())
    }

    /// Adds a Unix socket that is given to this user and group. Err: what is wrong with it.
    fn unix(&mut self, row: &Row, path: &str, owner: Option<(u32, u32)>) -> Result<(), String> {
        let (s, a) = (row.service, &*row.service.attributes);
        if s.endpoint.family != Family::Unix {
            let protocol = s.endpoint.protocol();
            return Err(format!("expected a port of {protocol}, found the path {path:?}"));
        }
        self.path_is_free(path, row.foreign().is_some())?;
        let (path, mode) = (path.to_string(), a.socket_mode);
        let wanted = unix_listener::Wanted { path, mode, owner, backlog: a.backlog };
        let place = row.place("port", &wanted.path);
        let at = At::Path(Box::new(wanted));
        let (service, socket, foreign) = (Some(row.id), s.endpoint.socket, row.foreign());
        self.ports.plain.push(Port { at, service, socket, free: None, place, foreign });
        Ok(())
    }

    /// The user and group that a socket is given to.
    fn owner(&self, owner: &Owner) -> Result<(u32, u32), String> {
        let Owner { user, group } = owner;
        let found = self
            .catalog
            .user(user)
            .ok_or_else(|| format!("expected a user of this computer, found {user:?}"))?;
        let gid = match group {
            None => Some(found.gid),
            Some(group) => self.catalog.group(group),
        };
        let none = || format!("expected a group of this computer, found {group:?}");
        Ok((found.uid, gid.ok_or_else(none)?))
    }

    /// Err: whose this path is already, however its slashes and dots are written, or that another
    /// file is there. For a row of another program's file (`foreign`) that is told where the socket
    /// is to be made, and tried again.
    fn path_is_free(&self, path: &str, foreign: bool) -> Result<(), String> {
        if !foreign {
            unix_listener::no_other_file(path).map_err(|what| format!("{path}: {what}"))?;
        }
        let mut all = self.ports.plain.iter();
        let same = |p: &&Port| p.at.path().is_some_and(|w| Path::new(&w.path) == Path::new(path));
        let Some(other) = all.find(same) else {
            return Ok(());
        };
        let by = match other.service.and_then(|id| self.table.service(id)) {
            Some(o) => format!("at {}:{}", o.file, o.line),
            None => "where fived itself listens (`listen` or -l)".into(),
        };
        Err(format!("expected each path once, found {path} {by}"))
    }

    /// Joins the rows of other hosts that have the same port.
    fn tls(&mut self, row: &Row, p: &policy::Port, wanted: Wanted) -> Result<(), String> {
        let (free, host) = (row.free(&wanted), row.service.host);
        let same = |o: &TlsPort| o.key() == key(&wanted, free.as_deref(), false);
        let mut all = self.ports.tls.iter().enumerate();
        let joined = all.find(|(n, o)| same(o) && !self.shared.contains(&(*n, host)));
        let n = match joined.map(|(n, _)| n) {
            Some(n) => {
                let shared = &mut self.ports.tls[n];
                shared.services.push(row.id);
                shared.wanted.backlog = shared.wanted.backlog.or(wanted.backlog);
                n
            }
            None => {
                self.is_not_taken(&wanted)?;
                self.on_port.entry(wanted.address.port()).or_default().push((wanted, row.id));
                let (services, place) = (vec![row.id], row.place("tls_port", &p.to_string()));
                self.ports.tls.push(TlsPort { wanted, services, free, place });
                self.ports.tls.len() - 1
            }
        };
        self.shared.insert((n, host));
        Ok(())
    }

    /// Err: whose this address and port is already, for one family at least.
    fn is_not_taken(&self, wanted: &Wanted) -> Result<(), String> {
        if wanted.address.port() == 0 {
            return Ok(());
        }
        let taken = self.on_port.get(&wanted.address.port()).into_iter().flatten();
        if let Some((_, other)) = taken.into_iter().find(|(other, _)| other.meets(wanted)) {
            let at = self.table.service(*other);
            let at = at.map(|o| format!("{}:{}", o.file, o.line)).unwrap_or_default();
            return Err(format!("expected each address and port once, found it at {at}"));
        }
        self.own.is_not_taken(wanted)
    }
}
