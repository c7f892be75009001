//! Unix sockets that the service manager has bound (sd_listen_fds(3)): each is for the row, or for
//! fived's own `listen`, that names its path. It is kept until fived ends, because nobody but the
//! service manager can bind it again.

use super::descriptors::own;
use super::row_ports::Port;
use crate::sys::notify::SystemdListener;
use crate::sys::shared::Shared;
use crate::sys::unix_listener::{self, SocketFile};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// See the module.
#[derive(Default)]
pub struct GivenPaths(Vec<GivenPath>);

struct GivenPath {
    path: String,
    socket: OwnedFd,
    /// A row's program may have it, and may have made it wait: fived does not accept there.
    has_been_given: bool,
}

impl GivenPaths {
    /// Takes those with a path. Returns the others, too.
    pub fn of(all: Vec<SystemdListener>) -> (GivenPaths, Vec<OwnedFd>) {
        let (mut paths, mut others) = (Vec::new(), Vec::new());
        for given in all {
            match given {
                SystemdListener::Internet(socket) => others.push(socket),
                SystemdListener::Unix { path, socket } => {
                    paths.push(GivenPath { path, socket, has_been_given: false });
                }
            }
        }
        (GivenPaths(paths), others)
    }

    /// Those that none of the ports names, one line each.
    pub fn in_vain(&self, ports: &[Port]) -> Vec<String> {
        let named = |path: &str| ports.iter().any(|p| p.at.path().is_some_and(|w| w.path == path));
        let all = self.0.iter().filter(|g| !named(&g.path));
        let line = |g: &GivenPath| {
            format!(
                "LISTEN_FDS: {}: expected the path of a row (`port = {0}`) or of `listen`, found a socket that none names",
                g.path
            )
        };
        all.map(line).collect()
    }

    /// The socket of a port at a path: the one that was given, or else a new one with a file.
    /// `own`: the files of fived's sockets with this path. Err: one line.
    pub fn listener(
        &self,
        port: &Port,
        own: &[&SocketFile],
    ) -> Result<(OwnedFd, Option<SocketFile>), String> {
        let wanted = port.at.path().ok_or("expected a path")?;
        let word = if port.service.is_some() { "port" } else { "listen" };
        let made = match self.socket(&wanted.path, port.socket.waits()) {
            Some(given) => given.map(|socket| (socket, None)),
            None => unix_listener::listen(wanted, own).map(|(socket, file)| (socket, Some(file))),
        };
        made.map_err(|e| format!("{}: {word}: {}: {e}", port.place, wanted.path))
    }

    fn socket(&self, path: &str, waits: bool) -> Option<io::Result<OwnedFd>> {
        let given = self.0.iter().find(|g| g.path == path)?;
        if given.has_been_given && !waits {
            return Some(Err(io::Error::other(
                "expected a row of `wait`, because the program of one has had this socket of the service manager: restart fived",
            )));
        }
        Some(own::copy(given.socket.as_fd()).map(Shared::our_own))
    }

    /// These ports are used from now on.
    pub fn adopt(&mut self, ports: &[Port]) {
        for given in &mut self.0 {
            given.has_been_given |= ports
                .iter()
                .any(|p| p.socket.waits() && p.at.path().is_some_and(|w| w.path == given.path));
        }
    }
}
