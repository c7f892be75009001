//! The ports that rows name: which addresses are to be bound, for which services.

use crate::policy::{
    self, Backend, Grammar, HostScope, Libwrap, ProgramSocket, Service, ServiceId, Table,
};
use crate::sys::port::{self, Protocol, Wanted};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Ports where TLS is expected, at most: net is told of each with its socket.
const TLS_PORTS_MAX: usize = 1024;

/// A port, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub wanted: Wanted,
    pub service: ServiceId,
    pub socket: ProgramSocket,
    /// The row's name, where any free port will do: nothing else tells these from one another.
    pub free: Option<Arc<str>>,
    pub place: RowPlace,
}

/// The file and line of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace(Arc<str>, usize);

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
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

impl Port {
    pub fn key(&self) -> Key<'_> {
        key(&self.wanted, self.free.as_deref(), self.socket.waits())
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
}

/// What a table names.
#[derive(Debug, Default)]
pub struct Found {
    pub ports: RowPorts,
    /// Mistakes, one line each.
    pub wrong: Vec<String>,
    /// The same of rows of other programs' files, which are switched off for them.
    pub left_out: Vec<(ServiceId, String)>,
}

/// The ports that a table names, in addition to the addresses of -l.
pub fn of(table: &Table, door: &[SocketAddr]) -> Found {
    let mut collector = PortCollector {
        table,
        door,
        ports: RowPorts::default(),
        on_port: HashMap::new(),
        shared: HashSet::new(),
    };
    let (mut wrong, mut left_out) = (Vec::new(), Vec::new());
    for (n, service) in table.services().iter().enumerate() {
        let row = Row { service, id: ServiceId(n as u32) };
        let before = collector.ports.plain.len();
        let mistakes = collector.row(&row);
        if service.grammar == Grammar::Fived {
            wrong.extend(mistakes);
        } else if !mistakes.is_empty() {
            // There is no `tls_port` in the files of other programs.
            let gone = collector.ports.plain.split_off(before);
            for port in gone {
                let taken = collector.on_port.entry(port.wanted.address.port()).or_default();
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
    fn wrong(&self, word: &str, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {word}: {what}", self.service.file, self.service.line)
    }

    fn place(&self) -> RowPlace {
        RowPlace(self.service.file.clone(), self.service.line)
    }

    fn free(&self, wanted: &Wanted) -> Option<Arc<str>> {
        (wanted.address.port() == 0).then(|| Arc::from(self.service.name.as_str()))
    }
}

struct PortCollector<'a> {
    table: &'a Table,
    door: &'a [SocketAddr],
    ports: RowPorts,
    /// What is taken already, by its port, and the first row that has it.
    on_port: HashMap<u16, Vec<(Wanted, ServiceId)>>,
    /// Which hosts have a row at which of the TLS ports.
    shared: HashSet<(usize, HostScope)>,
}

impl PortCollector<'_> {
    /// Adds those of a row; one that is switched off has none, and may have the port of another.
    /// Returns its mistakes, one line each.
    fn row(&mut self, row: &Row) -> Vec<String> {
        let (s, a) = (row.service, &*row.service.attributes);
        let mut wrong = rules(row);
        let plain = a.port.iter().map(|p| (p, "port"));
        for (p, word) in plain.chain(a.tls_port.iter().map(|p| (p, "tls_port"))) {
            let added = wanted(s, p).and_then(|wanted| match word {
                _ if a.disable => Ok(()),
                "port" => self.plain(row, wanted).map_err(|what| format!("{p}: {what}")),
                _ => self.tls(row, wanted).map_err(|what| format!("{p}: {what}")),
            });
            wrong.extend(added.err().map(|what| row.wrong(word, what)));
        }
        wrong
    }

    fn plain(&mut self, row: &Row, wanted: Wanted) -> Result<(), String> {
        self.is_not_taken(&wanted)?;
        let (socket, free) = (row.service.endpoint.socket, row.free(&wanted));
        self.on_port.entry(wanted.address.port()).or_default().push((wanted, row.id));
        self.ports.plain.push(Port { wanted, service: row.id, socket, free, place: row.place() });
        Ok(())
    }

    /// Joins the rows of other hosts that have the same port.
    fn tls(&mut self, row: &Row, wanted: Wanted) -> Result<(), String> {
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
                let (services, place) = (vec![row.id], row.place());
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
        if let Some((_, other)) = taken.into_iter().find(|(other, _)| meets(other, wanted)) {
            let at = self.table.service(*other);
            let at = at.map(|o| format!("{}:{}", o.file, o.line)).unwrap_or_default();
            return Err(format!("expected each address and port once, found it at {at}"));
        }
        match meets_door(wanted, self.table.settings.listen.iter().chain(self.door)) {
            Some(l) => Err(format!("expected a port that `listen` and -l leave, found {l}")),
            None => Ok(()),
        }
    }
}

/// The mistakes that concern all ports of a row.
fn rules(row: &Row) -> Vec<String> {
    let (s, a) = (row.service, &*row.service.attributes);
    let mut wrong = Vec::new();
    if let Some(what) = waits_for_no_program(s) {
        // What else is wrong with it depends on what it is meant to be.
        return vec![row.wrong(&s.name, what)];
    }
    if !a.tcpmux && a.port.is_empty() && a.tls_port.is_empty() && !a.disable {
        let what = if s.endpoint.socket.waits() {
            "expected a `port`, for a row of `wait` is reached at its ports alone"
        } else {
            "expected a `port`, for with `tcpmux = no` there is no other way to it"
        };
        wrong.push(row.wrong(&s.name, format!("{what}, found none")));
    }
    wait_rules(s, &mut |word, what| wrong.push(row.wrong(word, what)));
    if s.endpoint.socket.waits() && !a.tls_port.is_empty() {
        let what = "expected a row of `nowait`, found one of `wait`: its program accepts by itself";
        wrong.push(row.wrong("tls_port", what));
    }
    if !a.port.is_empty() && (a.require.tls || s.needs_login()) {
        let what = "expected a row that everybody may use, for nobody logs in or encrypts at a port of its own";
        let what = format!("{what}, found `require`, `users` or the user `*`");
        wrong.push(row.wrong(&s.name, what));
    } else if !a.tls_port.is_empty() && s.needs_login() {
        let what = "expected a row that needs no login, for nobody logs in at a port of its own";
        let what = format!("{what}, found `require = login`, `users` or the user `*`");
        wrong.push(row.wrong(&s.name, what));
    }
    wrong
}

/// Has a row of `wait` no program that could get its socket?
fn waits_for_no_program(s: &Service) -> Option<String> {
    let has_one = match &s.backend {
        Backend::Exec { .. } => true,
        Backend::Internal(i) => i.has_datagrams() && s.endpoint.socket == ProgramSocket::Datagrams,
        Backend::Redirect(_) | Backend::Sensor | Backend::Offer | Backend::Handover { .. } => false,
    };
    let found = match &s.backend {
        Backend::Redirect(_) => "`redirect`",
        Backend::Handover { .. } => "`handover`",
        Backend::Offer => "`offer`",
        Backend::Exec { .. } | Backend::Internal(_) | Backend::Sensor => "none",
    };
    let what = format!("expected a program for a row of `wait`, found {found}");
    (s.endpoint.socket.waits() && !has_one).then_some(what)
}

/// What a row of `wait` cannot have: its program accepts and receives by itself.
fn wait_rules(s: &Service, wrong: &mut impl FnMut(&str, &str)) {
    let a = &*s.attributes;
    if !s.endpoint.socket.waits() {
        return;
    }
    let alone = "expected a row of `nowait`, found one of `wait`: its program accepts by itself";
    if s.endpoint.socket == ProgramSocket::Listener {
        if !a.access().is_open() {
            wrong("only_from", alone);
        }
        if a.libwrap != Libwrap::No {
            wrong("libwrap", alone);
        }
    }
    if a.banner.is_some() || a.banner_success.is_some() || a.banner_fail.is_some() {
        wrong(
            "banner",
            "expected a row of `nowait`, found one of `wait`: nobody is there to read it",
        );
    }
}

/// What is to be bound for a port of a row. Err: what is wrong with it.
fn wanted(s: &Service, p: &policy::Port) -> Result<Wanted, String> {
    let protocol = match s.endpoint.socket {
        ProgramSocket::Datagrams => Protocol::Udp,
        ProgramSocket::Connection | ProgramSocket::Listener => Protocol::Tcp,
    };
    let named = || port::named(&p.name, protocol.as_str());
    let Some(number) = p.name.parse().ok().or_else(named) else {
        return Err(format!("expected a number or a name of services(5), found {:?}", p.name));
    };
    let family = s.endpoint.family;
    let has_v4 = family.has(Ipv4Addr::LOCALHOST.into());
    let any = if family.has(Ipv6Addr::LOCALHOST.into()) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let ip = p.address.unwrap_or(any);
    if !family.has(ip) {
        return Err(format!("{p}: expected an address of {}, found {ip}", s.endpoint.protocol()));
    }
    let only_v6 = ip.is_ipv6() && !(ip.is_unspecified() && has_v4);
    let backlog = s.attributes.backlog;
    Ok(Wanted { protocol, address: (ip, number).into(), only_v6, backlog })
}

/// The address of the door that takes this one, too.
fn meets_door<'a>(
    wanted: &Wanted,
    mut door: impl Iterator<Item = &'a SocketAddr>,
) -> Option<&'a SocketAddr> {
    let protocol = Protocol::Tcp;
    let as_wanted =
        |l: &SocketAddr| Wanted { protocol, address: *l, only_v6: false, backlog: None };
    door.find(|l| wanted.address.port() != 0 && meets(&as_wanted(l), wanted))
}

/// Are they the same address and port, for one family at least?
fn meets(a: &Wanted, b: &Wanted) -> bool {
    let both = |w: &Wanted| w.address.ip() == Ipv6Addr::UNSPECIFIED && !w.only_v6;
    let v4_any = |w: &Wanted| w.address.ip() == Ipv4Addr::UNSPECIFIED;
    a.protocol == b.protocol
        && a.address.port() == b.address.port()
        && (a.address == b.address || both(a) && v4_any(b) || both(b) && v4_any(a))
}
