//! The ports that rows ask for: which addresses are to be bound, for which service.

use crate::policy::{ServiceId, Table};
use crate::sys::port::{self, Wanted};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// A port, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub wanted: Wanted,
    pub service: ServiceId,
    /// The row's name, where any free port will do: nothing else tells these from one another.
    pub free: Option<Arc<str>>,
}

/// The ports that a table asks for, beside the addresses of -l. Err: every mistake, one line each.
pub fn of(table: &Table, door: &[SocketAddr]) -> Result<Vec<Port>, Vec<String>> {
    let (mut all, mut wrong): (Vec<Port>, Vec<String>) = (Vec::new(), Vec::new());
    for (n, s) in table.services().iter().enumerate() {
        let a = &*s.attributes;
        let at = |word: &str, what: String| format!("{}:{}: {word}: {what}", s.file, s.line);
        if !a.tcpmux && a.port.is_empty() && !a.disable {
            let what = "expected a `port`, for with `tcpmux = no` there is no other way to it";
            wrong.push(at(&s.name, format!("{what}, found none")));
        }
        if !a.port.is_empty() && (a.require.tls || s.needs_login()) {
            let what = "expected a row that everybody may use, for nobody logs in or encrypts at a port of its own";
            wrong.push(at(&s.name, format!("{what}, found `require`, `users` or the user `*`")));
        }
        for p in &a.port {
            let Some(number) = p.name.parse().ok().or_else(|| port::named(&p.name, "tcp")) else {
                let what =
                    format!("expected a number or a name of services(5), found {:?}", p.name);
                wrong.push(at("port", what));
                continue;
            };
            let (v4, v6) = (
                s.endpoint.family.has(Ipv4Addr::LOCALHOST.into()),
                s.endpoint.family.has(Ipv6Addr::LOCALHOST.into()),
            );
            let ip = p.address.unwrap_or(if v6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            });
            if !s.endpoint.family.has(ip) {
                let what =
                    format!("expected an address of {}, found {ip}", s.endpoint.family.protocol());
                wrong.push(at("port", format!("{p}: {what}")));
                continue;
            }
            let only_v6 = ip.is_ipv6() && !(ip.is_unspecified() && v4);
            let wanted = Wanted { address: (ip, number).into(), only_v6, backlog: a.backlog };
            if let Some(other) = all.iter().find(|o| number != 0 && meets(&o.wanted, &wanted)) {
                let (file, line) = table
                    .service(other.service)
                    .map_or_else(Default::default, |o| (o.file.to_string(), o.line));
                let what =
                    format!("expected each address and port once, found it at {file}:{line}");
                wrong.push(at("port", format!("{p}: {what}")));
                continue;
            }
            if let Some(l) = meets_door(&wanted, table.settings.listen.iter().chain(door)) {
                let what = format!("expected a port that `listen` and -l leave, found {l}");
                wrong.push(at("port", format!("{p}: {what}")));
                continue;
            }
            let free = (number == 0).then(|| Arc::from(s.name.as_str()));
            all.push(Port { wanted, service: ServiceId(n as u32), free });
        }
    }
    // A row that is switched off has no port, but its mistakes are told.
    all.retain(|p| table.service(p.service).is_some_and(|s| !s.attributes.disable));
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

/// The address of the door that takes this one, too.
fn meets_door<'a>(
    wanted: &Wanted,
    mut door: impl Iterator<Item = &'a SocketAddr>,
) -> Option<&'a SocketAddr> {
    let as_wanted = |l: &SocketAddr| Wanted { address: *l, only_v6: false, backlog: None };
    door.find(|l| wanted.address.port() != 0 && meets(&as_wanted(l), wanted))
}

/// Are they the same address and port, for one family at least?
fn meets(a: &Wanted, b: &Wanted) -> bool {
    let both = |w: &Wanted| w.address.ip() == Ipv6Addr::UNSPECIFIED && !w.only_v6;
    let v4_any = |w: &Wanted| w.address.ip() == Ipv4Addr::UNSPECIFIED;
    a.address.port() == b.address.port()
        && (a.address == b.address || both(a) && v4_any(b) || both(b) && v4_any(a))
}
