//! A channel to the holder of a session: how it is found, and whether the holder can answer.

use super::error::Error;
use super::paths;
use crate::sys::{local, process};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long a holder may leave a connection or a message unread.
pub const HOLDER_TIMEOUT: Duration = Duration::from_secs(10);
/// A channel to a holder.
pub struct Channel {
    pub fd: OwnedFd,
    /// The holder's process.
    pub pid: i32,
}

impl Channel {
    /// The message for a holder that cannot answer because it was stopped. None: it was not.
    pub fn stopped(&self) -> Option<String> {
        let pid = self.pid;
        let why = || {
            format!("{NO_ANSWER}: its process {pid} was stopped, kill -CONT {pid} lets it go on")
        };
        process::is_stopped(pid).then(why)
    }
}

/// The message for a holder that does not answer.
pub const NO_ANSWER: &str = "the holder of the session does not answer";

/// A channel to the holder of the session at this socket. None: there is no session.
pub fn find(path: &Path) -> Result<Option<Channel>, Error> {
    let failed = || Error::system(path.display().to_string());
    match local::connect(path, HOLDER_TIMEOUT) {
        Ok(fd) => Ok(Some(Channel { pid: local::peer_pid(fd.as_fd()).map_err(failed())?, fd })),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(Error::System {
            what: path.display().to_string(),
            why: "the holder of the session takes no calls".into(),
        }),
        Err(e) => Err(failed()(e)),
    }
}

/// Channels to the holders of all the target's sessions: of the one that takes calls, and of those
/// that drain.
pub fn find_all(path: &Path) -> Result<Vec<Channel>, Error> {
    let mut all: Vec<Channel> = find(path)?.into_iter().collect();
    for retired in paths::all_retired(path) {
        match find(&retired)? {
            Some(channel) => all.push(channel),
            // Its holder was killed: nobody will listen there again.
            None => drop(std::fs::remove_file(&retired)),
        }
    }
    Ok(all)
}
