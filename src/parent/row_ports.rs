//! The ports that rows ask for: which addresses are to be bound, for which service.

use crate::policy::{self, Backend, Grammar, Libwrap, ProgramSocket, Service, ServiceId, Table};
use crate::sys::port::{self, Protocol, Wanted};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A port, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub wanted: Wanted,
    pub service: ServiceId,
    pub socket: ProgramSocket,
    /// The row's name, where any free port will do: nothing else tells these from one another.
    pub free: Option<Arc<str>>,
}

/// What a table asks for.
#[derive(Debug, Default)]
pub struct Found {
    pub ports: Vec<Port>,
    /// Mistakes, one line each.
    pub wrong: Vec<String>,
    /// The same of rows of other programs' files, which are switched off for them.
    pub left_out: Vec<(ServiceId, String)>,
}

/// The ports that a table asks for, beside the addresses of -l.
pub fn of(table: &Table, door: &[SocketAddr]) -> Found {
    let mut found = Found::default();
    for (n, s) in table.services().iter().enumerate() {
        let (id, before) = (ServiceId(n as u32), found.ports.len());
        let wrong = row(table, id, s, door, &mut found.ports);
        if s.grammar == Grammar::Fived {
            found.wrong.extend(wrong);
        } else if !wrong.is_empty() {
            found.ports.truncate(before);
            found.left_out.extend(wrong.into_iter().map(|w| (id, w)));
        }
    }
    found
}

/// Adds those of a row; one that is switched off has none, and may have the port of another.
/// Returns its mistakes, one line each.
fn row(
    table: &Table,
    id: ServiceId,
    s: &Service,
    door: &[SocketAddr],
    all: &mut Vec<Port>,
) -> Vec<String> {
    let (a, mut wrong) = (&*s.attributes, Vec::new());
    let at = |word: &str, what: String| format!("{}:{}: {word}: {what}", s.file, s.line);
    if !a.tcpmux && a.port.is_empty() && !a.disable {
        let what = "expected a `port`, for with `tcpmux = no` there is no other way to it";
        wrong.push(at(&s.name, format!("{what}, found none")));
    }
    wait_rules(s, &mut |word, what| wrong.push(at(word, what.into())));
    if !a.port.is_empty() && (a.require.tls || s.needs_login()) {
        let what = "expected a row that everybody may use, for nobody logs in or encrypts at a port of its own";
        wrong.push(at(&s.name, format!("{what}, found `require`, `users` or the user `*`")));
    }
    for p in &a.port {
        let wanted = match wanted(s, p) {
            Ok(wanted) => wanted,
            Err(what) => {
                wrong.push(at("port", what));
                continue;
            }
        };
        let number = wanted.address.port();
        if a.disable {
            continue;
        }
        if let Some(other) = all.iter().find(|o| number != 0 && meets(&o.wanted, &wanted)) {
            let (file, line) = table
                .service(other.service)
                .map_or_else(Default::default, |o| (o.file.to_string(), o.line));
            let what = format!("expected each address and port once, found it at {file}:{line}");
            wrong.push(at("port", format!("{p}: {what}")));
        } else if let Some(l) = meets_door(&wanted, table.settings.listen.iter().chain(door)) {
            let what = format!("expected a port that `listen` and -l leave, found {l}");
            wrong.push(at("port", format!("{p}: {what}")));
        } else {
            let free = (number == 0).then(|| Arc::from(s.name.as_str()));
            all.push(Port { wanted, service: id, socket: s.endpoint.socket, free });
        }
    }
    wrong
}

/// What a row of `wait` cannot have: its program accepts and receives by itself.
fn wait_rules(s: &Service, wrong: &mut impl FnMut(&str, &str)) {
    let a = &*s.attributes;
    if !s.endpoint.socket.waits() {
        return;
    }
    let program = matches!(s.backend, Backend::Exec { .. });
    let internal = match &s.backend {
        Backend::Internal(i) => i.has_datagrams(),
        _ => false,
    };
    if !program && (!internal || s.endpoint.socket == ProgramSocket::Listener) {
        wrong(&s.name, "expected a program for a row of `wait`, found none");
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
