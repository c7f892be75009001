//! Connects to a host by its name. If one address is slow, the next is tried as well; the first
//! connection that succeeds is used (RFC 8305). A host that is a path is a Unix socket here.

use super::error::{Error, reason};
use super::messages;
use super::options::{Family, is_path};
use super::target::Target;
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, dial, local};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A connection to a server.
pub struct Connection {
    pub socket: OwnedFd,
    /// The channel to the holder of the gate's session: the call that is this connection ends when
    /// it is closed. None: it is a connection of its own.
    pub gate: Option<OwnedFd>,
}

/// Makes a connection to the server; may be done several times.
pub type Connect<'a> = &'a dyn Fn() -> Result<Connection, Error>;

/// How long a connection may take, over all addresses.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// After this without an answer the next address is tried too.
const STAGGER: Duration = Duration::from_millis(250);

/// The host's addresses that may be used, in the order in which they are tried.
fn addresses(t: &Target) -> Result<Vec<SocketAddr>, Error> {
    let none = |why: String| Error::NoSuchHost { host: t.host.clone(), why };
    let found = (t.host.as_str(), t.port).to_socket_addrs().map_err(|e| none(resolver(&e)))?;
    let fits = |a: &SocketAddr| match t.family {
        Family::Any => true,
        Family::V4 => a.is_ipv4(),
        Family::V6 => a.is_ipv6(),
    };
    let (mut first, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = (Vec::new(), Vec::new());
    for a in found.filter(fits) {
        let same = first.first().is_none_or(|f| f.is_ipv6() == a.is_ipv6());
        if same { first.push(a) } else { other.push(a) }
    }
    // The families take turns.
    let mut all = Vec::new();
    let (mut first, mut other) = (first.into_iter(), other.into_iter());
    loop {
        let (a, b) = (first.next(), other.next());
        if a.is_none() && b.is_none() {
            break;
        }
        all.extend(a.into_iter().chain(b));
    }
    if all.is_empty() {
        return Err(none(format!(
            "no address of that family (-{})",
            if t.family == Family::V6 { 6 } else { 4 }
        )));
    }
    Ok(all)
}

/// The message of getaddrinfo(3), without what Rust's library puts before it.
fn resolver(e: &std::io::Error) -> String {
    let text = reason(e);
    text.rsplit_once("information: ").map_or(text.clone(), |(_, why)| why.to_string())
}

/// Connects to a Unix socket of this computer.
fn connect_here(t: &Target) -> Result<OwnedFd, Error> {
    let unreached = |e| Error::unreached(t.place(), &e);
    messages::step(&format!("connecting to {}", t.host));
    let stream = local::connect_stream(t.host.as_ref(), CONNECT_TIMEOUT).map_err(unreached)?;
    // That was for the connection alone.
    stream.set_write_timeout(None).map_err(unreached)?;
    Ok(stream.into())
}

/// Connects.
pub fn connect(t: &Target) -> Result<OwnedFd, Error> {
    if is_path(&t.host) {
        return connect_here(t);
    }
    connect_to(t, addresses(t)?, CONNECT_TIMEOUT)
}

/// Connects with the same server once more, of which this address is known; `resolve`: if it does
/// not answer there, its name is asked for other addresses. That may take long without a network.
pub fn connect_again(
    t: &Target,
    known: SocketAddr,
    resolve: bool,
    timeout: Duration,
) -> Result<OwnedFd, Error> {
    match connect_to(t, vec![known], timeout) {
        Err(e) if resolve => {
            let others: Vec<_> = addresses(t)?.into_iter().filter(|a| *a != known).collect();
            if others.is_empty() { Err(e) } else { connect_to(t, others, timeout) }
        }
        connected => connected,
    }
}

/// Connects with one of these addresses.
fn connect_to(t: &Target, addresses: Vec<SocketAddr>, timeout: Duration) -> Result<OwnedFd, Error> {
    let (mut waiting, mut running) = (addresses.into_iter(), Vec::<(SocketAddr, OwnedFd)>::new());
    let end = clock::monotonic() + timeout;
    let (mut next, mut why) = (Duration::ZERO, None);
    loop {
        let now = clock::monotonic();
        if now >= end {
            return Err(Error::NoAnswer { place: t.place(), seconds: timeout.as_secs() });
        }
        if (now >= next || running.is_empty())
            && let Some(a) = waiting.next()
        {
            messages::step(&format!("connecting to {a}"));
            next = now + STAGGER;
            match dial::begin(a, t.mptcp) {
                Ok(fd) => running.push((a, fd)),
                Err(e) => why = why.or(Some(e)),
            }
            continue;
        }
        if running.is_empty() {
            let why = why.unwrap_or_else(|| io::Error::other("no address"));
            return Err(Error::unreached(t.place(), &why));
        }
        let until = if waiting.len() > 0 { next.min(end) } else { end };
        let mut polls: Vec<Poll> =
            running.iter().map(|(_, fd)| Poll::new(fd.as_fd(), false, true)).collect();
        poll::wait(&mut polls, Some(until.saturating_sub(now))).map_err(Error::system("poll"))?;
        let Some(at) = polls.iter().position(Poll::writable) else { continue };
        let (a, fd) = running.swap_remove(at);
        match dial::finish(fd.as_fd()) {
            Ok(()) => {
                messages::step(&format!("connected to {a}"));
                return Ok(fd);
            }
            Err(e) => why = why.or(Some(e)),
        }
    }
}
