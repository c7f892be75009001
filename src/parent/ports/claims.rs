//! Which of the listeners that are bound each port of a new table goes on with: one that was
//! written as it is, or else one that is bound to the same, however that was written (`127.0.0.1:0`
//! and the number that this became; a path, and another that leads to the same socket).

use crate::parent::config::row_ports::{At, Port};
use crate::sys::port::Protocol;
use crate::sys::unix_listener::{self, Identity};
use std::collections::HashMap;
use std::net::SocketAddr;

/// A listener that a port may go on with.
pub struct Claimable<'a> {
    /// That of the table for which it was bound.
    pub port: &'a Port,
    /// Where it is. None: at a path.
    pub real: Option<SocketAddr>,
    /// Where it is a Unix socket.
    pub file: Option<Identity>,
    /// Its path does not lead to it any more.
    pub lost: bool,
}

/// Where a listener is. The last of each: the program gets the socket itself, and may have made it
/// wait.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    Address { protocol: Protocol, address: SocketAddr, only_v6: bool, waits: bool },
    File { identity: Identity, waits: bool },
}

/// For each port the number of its listener: one port's each. Those that come first go before.
pub fn of(all: Vec<(usize, Claimable)>, wanted: &[Port]) -> Vec<Option<usize>> {
    let mut unclaimed: HashMap<_, Vec<&(usize, Claimable)>> = HashMap::new();
    for l in all.iter().rev().filter(|l| !l.1.lost) {
        unclaimed.entry(l.1.port.key()).or_default().push(l);
    }
    let mut claimed: Vec<Option<usize>> =
        wanted.iter().map(|port| Some(unclaimed.get_mut(&port.key())?.pop()?.0)).collect();
    // Another path may lead to a file that has been moved.
    let lost: Vec<_> = all.iter().filter(|l| l.1.lost).collect();
    let left = unclaimed.values().flatten().chain(&lost);
    let mut left: HashMap<_, usize> = left.filter_map(|(n, l)| Some((l.place()?, *n))).collect();
    for (port, at) in wanted.iter().zip(&mut claimed).filter(|(_, at)| at.is_none()) {
        if left.is_empty() {
            break;
        }
        *at = place_of(port).and_then(|place| left.remove(&place));
    }
    claimed
}

impl Claimable<'_> {
    /// None: where fived itself has a Unix socket. Its clients are told from those of others by the
    /// path that it was bound to, as it is written.
    fn place(&self) -> Option<Place> {
        let waits = self.port.socket.waits();
        match &self.port.at {
            At::Port(at) => {
                let (protocol, address) = (at.protocol, self.real?);
                Some(Place::Address { protocol, address, only_v6: at.only_v6, waits })
            }
            At::Path(_) => {
                self.port.service?;
                Some(Place::File { identity: self.file?, waits })
            }
        }
    }
}

/// None: anywhere, or where nothing is yet.
fn place_of(port: &Port) -> Option<Place> {
    let waits = port.socket.waits();
    match &port.at {
        At::Port(at) if at.address.port() == 0 => None,
        At::Port(at) => {
            let (protocol, address) = (at.protocol, at.address);
            Some(Place::Address { protocol, address, only_v6: at.only_v6, waits })
        }
        At::Path(wanted) => {
            port.service?;
            Some(Place::File { identity: unix_listener::identity_at(&wanted.path)?, waits })
        }
    }
}
