//! Whether any client can reach anything of a table.

use super::keys::Make;
use super::row_ports::RowPorts;
use crate::policy::{HostId, Listen, Origin, Table};

const NOWHERE: &str = "expected an address, or a row with a port of its own, found neither: without sockets from systemd nobody can reach any service";

/// A table that offers nothing to anybody is served, but hardly meant: its file may have been cut
/// off. `before`: the one that stands; `given`: the addresses of -l.
pub fn warn(
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

/// May a client begin TLS anywhere?
pub fn offers_tls(table: &Table, ports: &RowPorts, given: &[Listen]) -> bool {
    let own = table.settings.own_addresses(given);
    !(own.is_empty() && ports.own_paths.is_empty() && ports.tls.is_empty())
}
