//! The socket pairs for services whose connections fived relays: one end for the service, one for
//! net.
//!
//! With `socket = inet` both ends are TCP sockets in a network namespace of fived's own
//! (`sys::namespace`), and the service's end has the client's and this computer's addresses, as the
//! parent itself knows them. Net cannot make these sockets, because it must not be able to connect.
//! Otherwise, and where there is no such namespace, they are a Unix socket pair. The pair between a
//! client in a session and the session that offers its service is of TCP sockets, too, so that each
//! sees a reset of the other.
//!
//! The client of a stream often opens another stream soon, and making a TCP pair takes a while. So
//! the parent makes one ahead for that client ([`Spares`]) when it would only wait. Both ends of a
//! spare stay in the parent until it is used, so nobody can have closed one of them.

use crate::parent::descriptors::Descriptors;
use crate::policy::{Attributes, SocketKind};
use crate::sys::namespace::{self, Namespace};
use crate::sys::process;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::OWN_CONNECTION;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Sockets that are made at a time, at most: entering the namespace costs about as much as making
/// one of them.
const BATCH: u64 = 16;
/// How many descriptors the parent must be allowed for each socket that is kept for later.
const DESCRIPTORS_A_SOCKET: u64 = 256;
/// Spares at a time, at most, each for another client.
const SPARES_MAX: u64 = 32;
/// A spare that is older than this is closed at the next [`SocketPairs::tidy`].
const SPARE_FOR: Duration = Duration::from_secs(10);
/// The port of this computer in pairs between two sessions.
const BETWEEN_SESSIONS: u16 = 1;
/// Bytes from a service that the kernel holds for net (it doubles them for its overhead:
/// socket(7)). With more than the default a service that writes much is woken less often.
const UNIX_BUFFER: usize = 208 * 1024;

/// Net's end and the service's.
pub type Pair = (OwnedFd, Shared);

/// See the module.
#[derive(Default)]
pub struct SocketPairs {
    /// None: all are Unix pairs.
    namespace: Option<Namespace>,
    /// Sockets that were made in a batch: of IPv4, of IPv6.
    unused: [Vec<OwnedFd>; 2],
    spares: Spares,
}

/// The client of a pair: its address, and the address of this computer that it connected to.
type Key = (IpAddr, SocketAddr);

/// Pairs that were made ahead, one for each client that has opened a stream lately.
#[derive(Default)]
struct Spares {
    /// The oldest first.
    made: VecDeque<(Key, Duration, Pair)>,
    /// The clients for which a pair should be made when there is time.
    wanted: VecDeque<Key>,
}

impl Spares {
    fn most() -> usize {
        (process::nofile() / DESCRIPTORS_A_SOCKET).min(SPARES_MAX) as usize
    }

    /// Takes the pair that was made ahead for this client, if there is one. Another will be made
    /// for it later.
    fn take(&mut self, key: Key) -> Option<Pair> {
        if !self.wanted.contains(&key) && self.wanted.len() < Self::most() {
            self.wanted.push_back(key);
        }
        let at = self.made.iter().position(|(k, ..)| *k == key)?;
        self.made.remove(at).map(|(_, _, pair)| pair)
    }

    fn add(&mut self, key: Key, now: Duration, pair: Pair) {
        while self.made.len() >= Self::most().max(1) {
            self.made.pop_front();
        }
        self.made.push_back((key, now, pair));
    }
}

impl SocketPairs {
    /// Opens a namespace. Err: why that is impossible; the default makes only Unix pairs.
    pub fn open() -> io::Result<SocketPairs> {
        Ok(SocketPairs { namespace: Some(Namespace::new()?), ..SocketPairs::default() })
    }

    /// Makes a pair for a service whose client is the first of `between` and has connected to the
    /// second. The service of a session's own connection sees the client's port, if that is free;
    /// the service of a stream sees any port. `tag`: that of the stream, or `OWN_CONNECTION`. A
    /// client without an address has a Unix pair.
    pub fn make(
        &mut self,
        descriptors: &Descriptors,
        attributes: &Attributes,
        between: Option<(SocketAddr, SocketAddr)>,
        tag: u32,
    ) -> io::Result<Pair> {
        if let (SocketKind::Inet, Some((from, to)), Some(_)) =
            (attributes.socket, between, &self.namespace)
        {
            let made = match tag {
                OWN_CONNECTION => self.inet(from, to),
                _ => match self.spares.take((from.ip(), to)) {
                    Some(pair) => return Ok(pair),
                    None => self.inet(SocketAddr::new(from.ip(), 0), to),
                },
            };
            match made {
                Err(e) if socket::is_scarcity(&e) => {
                    self.spares = Spares::default();
                    return Err(e);
                }
                Err(e) => ::log::debug!("no TCP pair from {from} to {to}: {e}"),
                made => return made,
            }
        }
        let (net_end, service_end) = descriptors.pair()?;
        // A smaller buffer, if the system allows no larger one, is only slower.
        let _ = socket::set_send_buffer(service_end.as_fd(), UNIX_BUFFER);
        Ok((net_end, service_end.into()))
    }

    /// Makes a pair both of whose ends net copies from and to: whoever breaks off at one end is to
    /// be seen as a reset at the other, and a Unix pair has no such thing. Nobody asks for its
    /// addresses.
    pub fn between_sessions(&mut self, descriptors: &Descriptors) -> io::Result<Pair> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if self.namespace.is_some() {
            let (from, to) = (at(0), at(BETWEEN_SESSIONS));
            match self.spares.take((from.ip(), to)).map_or_else(|| self.inet(from, to), Ok) {
                Err(e) if !socket::is_scarcity(&e) => ::log::debug!("no TCP pair: {e}"),
                made => return made,
            }
        }
        let (one, other) = descriptors.pair()?;
        Ok((one, other.into()))
    }

    /// Makes the next pair that should be made ahead, if any. The caller has nothing else to do
    /// now.
    pub fn make_ahead(&mut self, descriptors: &Descriptors, now: Duration) {
        let Some((from, to)) = self.spares.wanted.pop_front() else { return };
        // If this fails, the pair is made when it is asked for, and the error counts then.
        if let Ok(pair) = self.inet(SocketAddr::new(from, 0), to)
            && !descriptors.is_of_reserve(&pair.1)
        {
            self.spares.add((from, to), now, pair);
        }
    }

    /// Are there pairs that were made ahead?
    pub fn has_spares(&self) -> bool {
        !self.spares.made.is_empty()
    }

    /// Closes pairs that were made ahead and not used for a while.
    pub fn tidy(&mut self, now: Duration) {
        self.spares.made.retain(|(_, made, _)| *made + SPARE_FOR > now);
    }

    /// Makes a TCP pair. Port 0 of `from` means any port.
    fn inet(&mut self, mut from: SocketAddr, to: SocketAddr) -> io::Result<Pair> {
        let SocketPairs { namespace: Some(space), unused, .. } = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        if from.is_ipv6() != to.is_ipv6() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let v6 = to.is_ipv6();
        let mut two = || -> io::Result<[OwnedFd; 2]> {
            let unused = &mut unused[usize::from(v6)];
            let most = (process::nofile() / DESCRIPTORS_A_SOCKET).clamp(2, BATCH) as usize;
            // The limit may have been lowered since the last batch.
            unused.truncate(most);
            if unused.len() < 2 {
                unused.extend(space.sockets(v6, most - unused.len())?);
            }
            unused.pop().zip(unused.pop()).map(Into::into).ok_or(io::ErrorKind::NotFound.into())
        };
        if from.port() != 0
            && let Ok(pair) = namespace::pair(two()?, from, to)
        {
            return Ok(pair);
        }
        from.set_port(0);
        namespace::pair(two()?, from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity::effective_uid;

    #[test]
    fn a_stream_has_the_pair_that_was_made_ahead_for_its_client() {
        if effective_uid() != 0 {
            return eprintln!("skipped: needs root");
        }
        let mut pairs = SocketPairs::open().expect("a namespace");
        let (d, now) = (Descriptors::new(), Duration::from_secs(100));
        let inet = Attributes { socket: SocketKind::Inet, ..Attributes::default() };
        let unix = Attributes { socket: SocketKind::Unix, ..Attributes::default() };
        let client = |n: u8| SocketAddr::from(([192, 0, 2, n], 4321));
        let to = SocketAddr::from(([198, 51, 100, 9], 1));
        let of = |pairs: &SocketPairs| {
            pairs.spares.made.iter().map(|(_, _, p)| socket::local(p.0.as_fd()).unwrap()).collect()
        };

        // Nobody is expected to come back who had no TCP pair in a stream.
        pairs.make(&d, &inet, Some((client(1), to)), OWN_CONNECTION).expect("a pair");
        pairs.make(&d, &unix, Some((client(1), to)), 1).expect("a pair");
        pairs.make_ahead(&d, now);
        assert_eq!(of(&pairs), []);

        pairs.make(&d, &inet, Some((client(1), to)), 1).expect("a pair");
        pairs.make_ahead(&d, now);
        pairs.make_ahead(&d, now);
        let spare: Vec<SocketAddr> = of(&pairs);
        assert_eq!(spare.len(), 1);
        let other = pairs.make(&d, &inet, Some((client(2), to)), 1).expect("a pair");
        let own = pairs.make(&d, &inet, Some((client(1), to)), 2).expect("a pair");
        let from = |pair: &Pair| socket::peer(pair.1.as_fd()).unwrap();
        assert_eq!((from(&other).ip(), from(&own)), (client(2).ip(), spare[0]));
        assert_eq!(of(&pairs), []);

        // Of many clients the last ones have one, for a while.
        for n in 0..100 {
            pairs.make(&d, &inet, Some((client(n), to)), 1).expect("a pair");
            pairs.make_ahead(&d, now);
        }
        pairs.make_ahead(&d, now);
        assert!((1..=SPARES_MAX as usize).contains(&of(&pairs).len()));
        assert_eq!(of(&pairs).last().unwrap().ip(), client(99).ip());
        pairs.tidy(now + SPARE_FOR);
        assert_eq!(of(&pairs), []);
    }
}
