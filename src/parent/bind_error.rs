//! Why an address and port could not be bound, for the administrator.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

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
            format!(": another program has this port{whose}; {which}, to be ended first")
        }
        ErrorKind::AddrNotAvailable => {
            ": expected an address of this computer, found that of another".into()
        }
        ErrorKind::PermissionDenied if port < 1024 && port != 0 => {
            ": only root may have this port, by net.ipv4.ip_unprivileged_port_start".into()
        }
        _ => String::new(),
    };
    format!("{place}: {word}: {address}: {e}{hint}")
}
