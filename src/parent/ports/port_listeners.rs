//! The sockets of services' own ports: those of the current table, and those that it does not have
//! while a program has them.
//!
//! A program that got the socket itself (`wait`) keeps it until it ends. Where a reload has no row
//! for it any more, fived keeps it, too: a row of the same kind and address that a later reload
//! brings takes it over, and nobody else gets that address meanwhile.

use super::claims;
use super::port_listener::{Condition, PortListener};
use super::systemd_sockets::SystemdSockets;
use crate::log;
use crate::parent::config::row_ports::{At, Port};
use crate::parent::context::Context;
use crate::parent::listeners::bind_error::{self, Kept, Unbound};
use crate::parent::tokens::PortToken;
use crate::policy::ProgramSocket;
use crate::sys::identity;
use crate::sys::leftover::AsMade;
use crate::sys::local;
use crate::sys::port::{self, Wanted};
use crate::sys::shared::Whose;
use crate::sys::shared_port;
use crate::sys::unix_listener::{self, SocketFile};
use mio::unix::SourceFd;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const REPLACED: &str = "the program that was started for this row keeps the socket that it has, where no new clients come; end it if nobody needs it";

/// A socket, and its file.
type Made = (OwnedFd, Option<Box<SocketFile>>);

/// Listeners that nobody uses yet.
#[derive(Default)]
pub struct Fresh(Vec<PortListener>);

/// See the module.
#[derive(Default)]
pub struct PortListeners {
    now: Vec<PortListener>,
    /// Those that the current table does not have, and a program has.
    kept: Vec<PortListener>,
    /// Those that nobody needs, until they are closed.
    gone: Vec<PortListener>,
    /// The places in `now`, by tokens.
    places: HashMap<PortToken, usize>,
    /// Those that the service manager has bound.
    pub given: SystemdSockets,
}

impl PortListeners {
    /// Looks which Unix sockets still have their paths. What it finds holds until it looks again,
    /// so that all that a reload does agrees.
    pub fn look_for_files(&mut self) {
        self.now.iter_mut().chain(&mut self.kept).for_each(PortListener::look_for_file);
    }

    /// Binds those that are not bound already. `beside`: other listeners of this process.
    pub fn bind(&self, wanted: &[Port], beside: &[(SocketAddr, BorrowedFd)]) -> (Fresh, Unbound) {
        let claimed = self.claimed(wanted);
        let mut own: HashMap<u16, Vec<BorrowedFd>> = HashMap::new();
        for (address, fd) in self.shareable(&claimed).chain(beside.iter().copied()) {
            own.entry(address.port()).or_default().push(fd);
        }
        let (mut fresh, mut unbound) = (Vec::<PortListener>::new(), Unbound::default());
        let kept = self.unclaimed(&claimed);
        let mut new: HashMap<u16, Vec<usize>> = HashMap::new();
        for (port, _) in wanted.iter().zip(&claimed).filter(|(_, at)| at.is_none()) {
            let At::Port(at) = &port.at else {
                fresh.extend(unbound.or_note(port, self.at_path(port, wanted)));
                continue;
            };
            let number = at.address.port();
            let on_port = new.get(&number).into_iter().flatten();
            let mut beside = own.get(&number).cloned().unwrap_or_default();
            beside.extend(on_port.map(|n| fresh[*n].socket.as_fd()));
            let made = PortListener::bind(port, at, &beside);
            let (word, waits) = (port.word(), port.socket.waits());
            let line = |e| kept.line(&port.place, &word, at.protocol, at.address, &e, waits);
            let made = made.map_err(line);
            if let Some((l, real)) = unbound.or_note(port, made) {
                new.entry(real.port()).or_default().push(fresh.len());
                fresh.push(l);
            }
        }
        (Fresh(fresh), unbound)
    }

    /// A Unix socket. One of fived's own that has the path already, and that this port cannot go on
    /// using, makes way for it.
    fn at_path(&self, port: &Port, wanted: &[Port]) -> Result<PortListener, String> {
        let there = port.at.path().and_then(|w| unix_listener::identity_at(&w.path));
        let all = self.now.iter().chain(&self.kept).filter_map(|l| l.file.as_deref());
        let own: Vec<_> = all.filter(|file| Some(file.identity()) == there).collect();
        let (socket, file) = self.given.listener(port, &own, wanted)?;
        Ok(PortListener::new(port, socket, None, file))
    }

    /// For each port the place of the listener that is bound to it already, among those of now and
    /// then those that are kept: one port's each.
    fn claimed(&self, wanted: &[Port]) -> Vec<Option<usize>> {
        let all = self.now.iter().chain(&self.kept).enumerate().filter(|(_, l)| !l.replaced);
        claims::of(all.map(|(n, l)| (n, l.claimable())).collect(), wanted)
    }

    /// The listeners beside which others may be bound: not those that a program has and no port
    /// claims.
    fn shareable(
        &self,
        claimed: &[Option<usize>],
    ) -> impl Iterator<Item = (SocketAddr, BorrowedFd<'_>)> {
        let claimed: HashSet<usize> = claimed.iter().flatten().copied().collect();
        let all = self.now.iter().chain(&self.kept).enumerate();
        let all = all.filter(move |(n, l)| claimed.contains(n) || !l.stays_taken());
        all.filter_map(|(_, l)| l.bound())
    }

    /// What programs have that these ports do not claim.
    pub fn kept(&self, wanted: &[Port]) -> Kept {
        self.unclaimed(&self.claimed(wanted))
    }

    fn unclaimed(&self, claimed: &[Option<usize>]) -> Kept {
        let all = self.now.iter().chain(&self.kept).enumerate();
        let kept = all.filter(|(n, l)| l.stays_taken() && !claimed.contains(&Some(*n)));
        let port = |(_, l): (usize, &PortListener)| {
            let at = l.port.at.port()?;
            Some((at.protocol, l.real?.port(), l.port.place.clone()))
        };
        Kept(kept.filter_map(port).collect())
    }

    /// The one that a connection whose own address is this has come to, if its service gets
    /// connections. The kernel chooses likewise among listeners that meet.
    pub fn at(&self, real: SocketAddr) -> Option<&PortListener> {
        let fits = |l: &&PortListener| match l.real {
            Some(at) if at.port() == real.port() && l.port.socket == ProgramSocket::Connection => {
                match at.ip() {
                    ip if ip == real.ip() => 3,
                    ip if ip.is_unspecified() && ip.is_ipv4() == real.is_ipv4() => 2,
                    ip if ip.is_unspecified() && ip.is_ipv6() => 1,
                    _ => 0,
                }
            }
            _ => 0,
        };
        self.now.iter().filter(|l| fits(l) > 0).max_by_key(fits)
    }

    /// The listeners where clients may wait whom these ports have no use for. For a client a
    /// program may be started that keeps the port: not where a new listener is.
    pub fn given_up(&self, wanted: &[Port], fresh: &Fresh) -> Vec<PortToken> {
        let claimed: HashSet<usize> = self.claimed(wanted).into_iter().flatten().collect();
        let new: HashSet<u16> = fresh.0.iter().filter_map(|l| Some(l.real?.port())).collect();
        let given_up = self.now.iter().enumerate().filter(|(n, l)| {
            !claimed.contains(n)
                && (l.wait.is_none() || l.real.is_none_or(|real| !new.contains(&real.port())))
        });
        given_up.filter_map(|(_, l)| l.token).collect()
    }

    /// These ports and no others, from now on. Returns where it listens anew.
    pub fn adopt(&mut self, wanted: &[Port], Fresh(mut fresh): Fresh) -> Vec<String> {
        let (addresses, claimed) =
            (fresh.iter().map(PortListener::name).collect(), self.claimed(wanted));
        let mut old: Vec<_> = self.now.drain(..).chain(self.kept.drain(..)).map(Some).collect();
        for (port, at) in wanted.iter().zip(claimed) {
            if let Some(mut l) = at.and_then(|at| old[at].take()) {
                l.become_like(port);
                self.now.push(l);
            }
        }
        fresh.iter_mut().for_each(PortListener::keep);
        self.now.append(&mut fresh);
        self.given.adopt(wanted);
        let (kept, gone): (Vec<_>, Vec<_>) =
            old.into_iter().flatten().partition(PortListener::is_taken);
        (self.kept, self.gone) = (kept, gone);
        let now: HashSet<&str> = self.now.iter().filter_map(|l| l.port.path()).collect();
        for l in self.kept.iter_mut().filter(|l| !l.replaced) {
            if let Some(path) = l.port.path().filter(|path| now.contains(path)) {
                log::warn(&format!("{}: port: {path}: {REPLACED}", l.port.place));
                l.replaced = true;
            }
        }
        addresses
    }

    /// Watches those that are new, and closes those that nobody needs. Err: the first that failed;
    /// all others are done, and each token leads to its listener.
    pub fn watch(&mut self, cx: &mut Context) -> io::Result<()> {
        let mut done = Ok(());
        for l in self.gone.drain(..).filter(PortListener::is_watched) {
            // A program may have it still, so that closing it does not end this.
            let fd = l.socket.as_raw_fd();
            done = done.and(cx.registry().deregister(&mut SourceFd(&fd)).map_err(|e| l.at(e)));
        }
        for l in self.now.iter_mut().filter(|l| l.token.is_none()) {
            l.token = Some(cx.new_token().into());
            done = done.and(l.watch(cx).map_err(|e| l.at(e)));
        }
        let now = self.now.iter().enumerate();
        self.places = now.filter_map(|(n, l)| Some((l.token?, n))).collect();
        done
    }

    pub fn has(&self, token: PortToken) -> bool {
        self.places.contains_key(&token)
    }

    /// Is it one where fived itself listens?
    pub fn is_own(&self, token: PortToken) -> bool {
        let at = self.places.get(&token).and_then(|at| self.now.get(*at));
        at.is_some_and(|l| l.port.service.is_none())
    }

    pub fn get_mut(&mut self, token: PortToken) -> Option<&mut PortListener> {
        self.now.get_mut(*self.places.get(&token)?)
    }

    /// A program has ended: if its listener was kept for it alone, nobody needs it now.
    pub fn forget_kept(&mut self, token: PortToken) {
        self.kept.retain(|l| l.token != Some(token));
    }

    /// A program of this user is about to get the socket itself. One of our own user could end this
    /// process anyway.
    pub fn given_to(&mut self, token: PortToken, uid: u32) {
        if let Some(l) = self.get_mut(token)
            && uid != identity::effective_uid()
        {
            l.calls.guard();
            l.socket.is_of(Whose::User(uid));
            if let Some(real) = l.real {
                shared_port::guard(real.port());
            }
        }
    }

    /// Binds another socket in place of one that a program has made useless. Err: one line.
    pub fn bind_again(&mut self, token: PortToken) -> Result<(), String> {
        if let Some((socket, file)) = self.bound_again(token)?
            && let Some(l) = self.get_mut(token)
        {
            l.made = Some(AsMade::of(socket.as_fd()).into());
            l.socket = PortListener::socket(socket, l.real);
            (l.file, l.condition) = (file, Condition::Good);
        }
        Ok(())
    }

    /// None: the service manager has bound the one before.
    fn bound_again(&self, token: PortToken) -> Result<Option<Made>, String> {
        let Some(l) = self.places.get(&token).and_then(|at| self.now.get(*at)) else {
            return Ok(None);
        };
        match (&l.port.at, l.real) {
            (At::Port(wanted), Some(real)) => {
                let same = |other: &&PortListener| other.has_port(wanted.protocol, real.port());
                let all = self.now.iter().chain(&self.kept).filter(same);
                let own: Vec<_> = all.map(|l| l.socket.as_fd()).collect();
                let address = SocketAddr::new(wanted.address.ip(), real.port());
                let wanted = Wanted { address, ..*wanted };
                let bound = port::listen_again(&wanted, &own);
                let line = |e| bind_error::line(&l.port.place, "port", real, &e, true);
                bound.map(|socket| Some((socket, None))).map_err(line)
            }
            (At::Path(wanted), _) => {
                let own: Vec<&SocketFile> = l.file.as_deref().into_iter().collect();
                let (socket, mut file) = unix_listener::listen(wanted, &own)
                    .map_err(|e| format!("{}: port: {}: {e}", l.port.place, wanted.path))?;
                file.keep();
                local::take_rights(socket.as_fd(), l.port.socket.waits());
                Ok(Some((socket, Some(Box::new(file)))))
            }
            (At::Port(_), None) => Ok(None),
        }
    }

    /// Its listeners beside which others may be bound, for a table with these ports, and those that
    /// are bound and not used yet.
    pub fn with<'a>(
        &'a self,
        wanted: &[Port],
        fresh: &'a Fresh,
    ) -> Vec<(SocketAddr, BorrowedFd<'a>)> {
        let new = fresh.0.iter().filter_map(PortListener::bound);
        self.shareable(&self.claimed(wanted)).chain(new).collect()
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.now.iter().map(PortListener::name)
    }

    pub fn close(&mut self) {
        *self = PortListeners::default();
    }
}
