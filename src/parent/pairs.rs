//! The connections of services that fived relays: two ends, one for the service, one for net.
//!
//! With `socket = inet` both are TCP sockets in a network namespace of fived's own
//! (`sys::namespace`), and the service's has the client's and this computer's addresses: as the
//! parent knows them, not as net says. Net cannot make them, because it must not be able to
//! connect. Else, and where that cannot be had, they are a Unix socket pair.

use super::arrival::Stream;
use super::descriptors::Descriptors;
use crate::policy::{Attributes, SocketKind};
use crate::sys::namespace::{self, Namespace};
use crate::sys::process;
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Sockets that are made at once, at most: a visit to the namespace costs about as much as one of
/// them.
const BATCH: u64 = 16;
/// Of so many descriptors one socket may be kept for later.
const DESCRIPTORS_A_SOCKET: u64 = 256;
/// Bytes of a service that the kernel holds for net (it doubles them for its overhead: socket(7)):
/// fewer wake-ups of one that says much.
const UNIX_BUFFER: usize = 208 * 1024;

/// Net's end and the service's.
pub type Pair = (OwnedFd, Shared);

/// What pairs are made of.
#[derive(Default)]
pub struct Pairs {
    /// None: all are Unix pairs.
    namespace: Option<Namespace>,
    /// IPv4, IPv6.
    unused: [Vec<OwnedFd>; 2],
    listeners: HashMap<(bool, u16), OwnedFd>,
}

impl Pairs {
    /// Err: the pairs all the same, and why they are all Unix pairs.
    pub fn open() -> Result<Pairs, (Pairs, io::Error)> {
        match Namespace::new() {
            Ok(n) => Ok(Pairs { namespace: Some(n), ..Pairs::default() }),
            Err(e) => Err((Pairs::default(), e)),
        }
    }

    /// A pair for a service whose client is `from` and has come to `to`. The first connection of a
    /// session has its client's port, if it is free; others have any.
    pub fn make(
        &mut self,
        descriptors: &Descriptors,
        attributes: &Attributes,
        from: SocketAddr,
        to: SocketAddr,
        stream: Stream,
    ) -> io::Result<Pair> {
        if attributes.socket == SocketKind::Inet
            && let Some(namespace) = &self.namespace
        {
            let port = if stream.1 == 1 { from.port() } else { 0 };
            match inet(
                namespace,
                &mut self.unused,
                &mut self.listeners,
                SocketAddr::new(from.ip(), port),
                to,
            ) {
                Err(e) if socket::is_scarcity(&e) => return Err(e),
                Err(e) => ::log::debug!("no TCP pair from {from} to {to}: {e}"),
                made => return made,
            }
        }
        let (near, far) = descriptors.pair()?;
        // Less, where the system allows no more, is only slower.
        let _ = socket::set_send_buffer(far.as_fd(), UNIX_BUFFER);
        Ok((near, far.into()))
    }
}

type Listeners = HashMap<(bool, u16), OwnedFd>;

fn inet(
    space: &Namespace,
    unused: &mut [Vec<OwnedFd>; 2],
    listeners: &mut Listeners,
    mut from: SocketAddr,
    to: SocketAddr,
) -> io::Result<Pair> {
    if from.is_ipv6() != to.is_ipv6() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let v6 = to.is_ipv6();
    let key = (v6, to.port());
    let listener = match listeners.entry(key) {
        Entry::Occupied(l) => l.into_mut(),
        Entry::Vacant(place) => place.insert(space.listener(v6, to.port())?),
    };
    let listener = listener.as_fd();
    let mut near = || -> io::Result<OwnedFd> {
        let unused = &mut unused[usize::from(v6)];
        let most = (process::nofile() / DESCRIPTORS_A_SOCKET).clamp(1, BATCH) as usize;
        // The limit may have been lowered since.
        unused.truncate(most);
        if unused.is_empty() {
            *unused = space.sockets(v6, most)?;
        }
        unused.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    if from.port() != 0
        && let Ok(pair) = namespace::pair(near()?, listener, from, to)
    {
        return Ok(pair);
    }
    from.set_port(0);
    namespace::pair(near()?, listener, from, to)
}
