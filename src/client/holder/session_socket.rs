//! The socket on which new callers find the session.

use crate::client::error::Error;
use crate::client::paths;
use crate::sys::{local, process};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who is to find the session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    All,
    /// The session drains: -O finds it, new calls do not.
    OrdersOnly,
}

/// Where new callers find the session.
pub struct SessionSocket {
    listener: OwnedFd,
    path: PathBuf,
    inode: u64,
    users: Users,
}

impl SessionSocket {
    /// Listens at a path where nobody listens any more; the directory is this user's alone.
    pub fn open(path: &Path) -> Result<SessionSocket, Error> {
        let failed = || Error::system(path.display().to_string());
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed()(e)),
            _ => {}
        }
        let before = process::set_umask(0o177);
        let listener = local::listen(path);
        process::set_umask(before);
        let inode = std::fs::symlink_metadata(path).map_err(failed())?.ino();
        Ok(SessionSocket {
            listener: listener.map_err(failed())?,
            path: path.into(),
            inode,
            users: Users::All,
        })
    }

    /// Moves the socket, so that new calls do not find this session, and -O still does. For the
    /// holder alone.
    pub fn retire(&mut self) {
        if self.users == Users::OrdersOnly {
            return;
        }
        self.users = Users::OrdersOnly;
        let to = paths::retired(&self.path, std::process::id());
        // Another holder may use the path by now. If the socket keeps its name, new calls are sent
        // to a new session.
        if self.is_its_own() && std::fs::rename(&self.path, &to).is_ok() {
            self.path = to;
        }
    }

    fn is_its_own(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode)
    }

    /// Removes the socket. For the holder alone: the process that forked it drops its copy
    /// without that.
    pub fn close(self) {
        // Another holder may use the path by now.
        if self.is_its_own() {
            // If this fails, the next caller finds that nobody listens on it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for SessionSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
