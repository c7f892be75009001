//! The socket on which new callers find the session.

use crate::client::error::{Error, reason};
use crate::client::paths;
use crate::client::target::Target;
use crate::sys::undo::SocketPath;
use crate::sys::{local, process};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Who is to find the session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    All,
    /// The session drains: -O finds it, new calls do not.
    OrdersOnly,
}

/// Where new callers find the session.
pub struct SessionSocket {
    // It is dropped before the listener: once nobody listens, another five may replace the file.
    file: SocketPath,
    listener: OwnedFd,
    users: Users,
}

impl SessionSocket {
    /// Listens at a path where nobody listens any more; the directory is this user's alone.
    pub fn open(path: &Path) -> Result<SessionSocket, Error> {
        let failed = |e| paths::unusable(path, &reason(&e));
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let bind = |path: &Path| process::with_umask(0o177, || local::listen(path));
        let (listener, file) = SocketPath::bind(path, bind).map_err(failed)?;
        Ok(SessionSocket { listener, file, users: Users::All })
    }

    /// The holder removes it; the process that forks the holder does not.
    pub fn disown(&mut self) {
        self.file.disown();
    }

    /// From now on this process, the holder, removes it.
    pub fn claim(&mut self) {
        self.file.claim();
    }

    /// Makes the socket again if its file was removed, with its directory perhaps: calls would not
    /// find the session, and the next one could not have the ports of its forwards. For the holder
    /// alone.
    pub fn restore(&mut self, t: &Target) {
        if self.users == Users::OrdersOnly || self.file.is_there() {
            return;
        }
        // Where calls look for it now.
        let Ok(path) = t.socket() else { return };
        let Ok(lock) = paths::lock_of(&path) else { return };
        // Another five may be making a session now, or have made one.
        if path != self.file.path() || lock.try_lock().is_err() || path.exists() {
            return;
        }
        if let Ok(made) = SessionSocket::open(&path) {
            let _ = local::listen_again(made.as_fd());
            self.file.disown();
            *self = made;
        }
    }

    /// Moves the socket, so that new calls do not find this session, and -O still does. For the
    /// holder alone.
    pub fn retire(&mut self) {
        if self.users == Users::OrdersOnly {
            return;
        }
        self.users = Users::OrdersOnly;
        let to = paths::retired(self.file.path(), std::process::id());
        // Another holder may use the path by now.
        if self.file.is_there() {
            // If the socket keeps its name, new calls are sent to a new session.
            let _ = self.file.rename(&to);
        }
    }
}

impl AsFd for SessionSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
