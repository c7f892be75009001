//! Unix sockets that the service manager has bound (sd_listen_fds(3)): each is for the row, or for
//! fived's own `listen`, that names its path. It is kept until fived ends, because nobody but the
//! service manager can bind it again.

use crate::parent::config::row_ports::Port;
use crate::parent::descriptors::own;
use crate::sys::local;
use crate::sys::notify::SystemdListener;
use crate::sys::shared::Shared;
use crate::sys::unix_listener::{self, SocketFile};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// See the module.
#[derive(Default)]
pub struct SystemdSockets(Vec<SystemdSocket>);

struct SystemdSocket {
    path: String,
    socket: OwnedFd,
    /// A row's program may have it, and may have made it wait: fived does not accept there.
    has_been_given: bool,
}

impl SystemdSocket {
    /// Is it for this port, by whichever path that leads there? (Where fived itself listens, only
    /// by the same: its clients are told from those of others by the path that it was bound to.)
    fn is_for(&self, port: &Port) -> bool {
        let there = |path| unix_listener::identity_at(path);
        port.path().is_some_and(|path| {
            let leads = || there(path).is_some_and(|file| there(&self.path) == Some(file));
            path == self.path || port.service.is_some() && leads()
        })
    }

    fn socket(&self, port: &Port, all: &[Port]) -> io::Result<OwnedFd> {
        if let Some(other) = all.iter().find(|p| p.key() != port.key() && self.is_for(p)) {
            let at = &other.place;
            let what = format!("expected each socket once, found it at {at} by another path");
            return Err(io::Error::other(what));
        }
        if self.has_been_given && !port.socket.waits() {
            return Err(io::Error::other(
                "expected a row of `wait`, because the program of one has had this socket of the service manager: restart fived",
            ));
        }
        own::copy(self.socket.as_fd()).map(Shared::our_own)
    }
}

impl SystemdSockets {
    /// Takes those with a path. Returns the others, too.
    pub fn of(all: Vec<SystemdListener>) -> (SystemdSockets, Vec<OwnedFd>) {
        let (mut paths, mut others) = (Vec::new(), Vec::new());
        for given in all {
            match given {
                SystemdListener::Internet(socket) => others.push(socket),
                SystemdListener::Unix { path, socket } => {
                    paths.push(SystemdSocket { path, socket, has_been_given: false });
                }
            }
        }
        (SystemdSockets(paths), others)
    }

    /// Those that none of the ports names, one line each.
    pub fn in_vain(&self, ports: &[Port]) -> Vec<String> {
        let named = |g: &SystemdSocket| ports.iter().any(|p| g.is_for(p));
        let all = self.0.iter().filter(|g| !named(g));
        let line = |g: &SystemdSocket| {
            format!(
                "LISTEN_FDS: {}: expected the path of a row (`port = {0}`) or of `listen`, found a socket that none names",
                g.path
            )
        };
        all.map(line).collect()
    }

    /// The socket of a port at a path: the one that was given, or else a new one with a file.
    /// `own`: the files of fived's sockets with this path; `all`: the ports of its table. Err: one
    /// line.
    pub fn listener(
        &self,
        port: &Port,
        own: &[&SocketFile],
        all: &[Port],
    ) -> Result<(OwnedFd, Option<SocketFile>), String> {
        let wanted = port.at.path().ok_or("expected a path")?;
        let made = match self.0.iter().find(|g| g.is_for(port)) {
            Some(given) => given.socket(port, all).map(|socket| (socket, None)),
            None => unix_listener::listen(wanted, own).map(|(socket, file)| (socket, Some(file))),
        };
        let made =
            made.map_err(|e| format!("{}: {}: {}: {e}", port.place, port.word(), wanted.path))?;
        // A program that accepts by itself may want them.
        local::take_rights(made.0.as_fd(), port.socket.waits());
        Ok(made)
    }

    /// These ports are used from now on.
    pub fn adopt(&mut self, ports: &[Port]) {
        for given in &mut self.0 {
            given.has_been_given |= ports.iter().any(|p| p.socket.waits() && given.is_for(p));
        }
    }
}
