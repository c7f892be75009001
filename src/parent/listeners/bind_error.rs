//! Why an address and port could not be bound, for the administrator.

use crate::parent::config::row_ports::{Port, RowPlace};
use crate::sys::port::Protocol;
use crate::sys::socket::is_out_of_descriptors;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// The ports that programs of `wait` have and no row of the table, with the rows for which they
/// were started. Nobody else gets them before the programs have ended.
#[derive(Default)]
pub struct Kept(pub Vec<(Protocol, u16, RowPlace)>);

impl Kept {
    /// As [`line`].
    pub fn line(
        &self,
        place: impl Display,
        word: &str,
        protocol: Protocol,
        address: SocketAddr,
        e: &io::Error,
        waits: bool,
    ) -> String {
        let in_use = e.kind() == ErrorKind::AddrInUse;
        let has = |(p, n, _): &&(_, _, _)| (*p, *n) == (protocol, address.port());
        match self.0.iter().find(has).filter(|_| in_use) {
            Some((_, _, row)) => format!(
                "{place}: {word}: {address}: the program that was started for {row} has this port until it ends; end it, and reload again"
            ),
            None => line(place, word, address, e, waits),
        }
    }
}

/// Ports that could not be bound, one line each.
#[derive(Default)]
pub struct Unbound {
    /// Mistakes.
    pub wrong: Vec<String>,
    /// Of rows of other programs' files, without which the others are served.
    pub missing: Vec<String>,
}

impl Unbound {
    /// Notes why there is no listener, if there is none.
    pub fn or_note<T>(&mut self, port: &Port, made: Result<T, String>) -> Option<T> {
        let all = if port.foreign.is_some() { &mut self.missing } else { &mut self.wrong };
        made.map_err(|why| all.push(why)).ok()
    }
}

/// Is it one that exists on each interface, without naming one?
fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(a) if a.ip().is_unicast_link_local() && a.scope_id() == 0)
}

/// `FILE:LINE: WORD: ADDRESS: error: what to do`. `waits`: a program of the row gets the socket
/// itself, and one that was started before may have it still.
pub fn line(
    place: impl Display,
    word: &str,
    address: SocketAddr,
    e: &io::Error,
    waits: bool,
) -> String {
    let port = address.port();
    let hint = match e.kind() {
        ErrorKind::AddrInUse => {
            let whose = match waits {
                true => ", perhaps one that an earlier fived started for this row",
                false => "",
            };
            let which = format!("`ss -lntup sport = :{port}` shows which");
            format!(": another program has this port{whose}; {which}; end that one first")
        }
        ErrorKind::AddrNotAvailable => {
            ": expected an address of this computer, found that of another".into()
        }
        ErrorKind::PermissionDenied if port < 1024 && port != 0 => {
            ": only root may use this port (net.ipv4.ip_unprivileged_port_start)".into()
        }
        ErrorKind::InvalidInput if is_link_local(address) => match word {
            "listen" => {
                let with = format!("[{}%2]:{port}", address.ip());
                format!(": a link-local address needs the number of its interface (`ip link`): {with}")
            }
            _ => ": a link-local address can be given in `listen` alone, with the number of its interface; a port without an address is reached there, too".into(),
        },
        _ => of_limit(e).into(),
    };
    format!("{place}: {word}: {address}: {e}{hint}")
}

/// What to do about an error that is the limit of descriptors; empty for any other.
pub fn of_limit(e: &io::Error) -> &'static str {
    if is_out_of_descriptors(e) {
        ": the configuration needs more descriptors than fived may open: raise that limit (LimitNOFILE= of its unit, or `ulimit -n`)"
    } else {
        ""
    }
}
