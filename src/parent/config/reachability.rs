//! Where clients can reach anything of a table, and whether any client can.

use super::keys::Make;
use super::row_ports::RowPorts;
use crate::policy::{HostId, Listen, Origin, Table};
use crate::sys::port::Wanted;
use std::net::SocketAddr;

const NOWHERE: &str = "expected an address, or a row with a port of its own, found neither: without sockets from systemd nobody can reach any service";

/// What is served, but hardly meant. `before`: the table that stands; `given`: the addresses of -l;
/// `handed`: the sockets of the service manager.
pub fn warn(
    origin: &Origin,
    table: &Table,
    before: Option<&Table>,
    ports: &RowPorts,
    (given, handed): (&[Listen], &[Wanted]),
    make: Make,
) -> impl Iterator<Item = String> {
    let nowhere = nowhere(origin, table, before, ports, given, make);
    [nowhere, unused(table, given, handed)].into_iter().flatten()
}

/// A table that offers nothing to anybody: its file may have been cut off.
fn nowhere(
    origin: &Origin,
    table: &Table,
    before: Option<&Table>,
    ports: &RowPorts,
    given: &[Listen],
    make: Make,
) -> Option<String> {
    match (table.services().len(), before.map_or(0, |b| b.services().len())) {
        (0, 0) => Some(format!("{origin}: the configuration has no service")),
        (0, n) => Some(format!(
            "{origin}: the new configuration has no service; the one before it had {n}"
        )),
        // The service manager has handed over sockets.
        _ if make == Make::Always => None,
        _ if !ports.plain.is_empty() || offers_tls(table, ports, given) => None,
        _ => {
            // Where rows of other programs alone are served, fived listens nowhere by itself.
            let line = table.line(HostId::DEFAULT, "listen").ok()?;
            Some(format!("{line}: listen: {NOWHERE}"))
        }
    }
}

/// The sockets of the service manager are used instead of `listen` and of -l, so an address that is
/// not among them is not served: `listen = 127.0.0.1:1` keeps nobody out where the service manager
/// has port 1 of every address.
fn unused(table: &Table, given: &[Listen], handed: &[Wanted]) -> Option<String> {
    let theirs: Vec<SocketAddr> = handed.iter().map(|h| h.address).collect();
    let own = table.settings.own_addresses(given);
    let not_theirs = own.iter().find(|own| !theirs.is_empty() && !theirs.contains(own))?;
    let place = if given.is_empty() {
        // Nobody has asked for the default.
        format!("{}: listen:", table.line(HostId::DEFAULT, "listen").ok()?)
    } else {
        "-l".into()
    };
    let theirs: Vec<String> = theirs.iter().map(SocketAddr::to_string).collect();
    Some(format!(
        "{place} {not_theirs} is not used, because the service manager handed over sockets (LISTEN_FDS): {}; to change that, stop and disable its unit (fived.socket), and restart fived",
        theirs.join(" ")
    ))
}

/// May a client begin TLS anywhere?
pub fn offers_tls(table: &Table, ports: &RowPorts, given: &[Listen]) -> bool {
    let own = table.settings.own_addresses(given);
    !(own.is_empty() && ports.own_paths.is_empty() && ports.tls.is_empty())
}
