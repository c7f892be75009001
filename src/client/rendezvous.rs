//! One session for each user, host and port: the first call opens it, all others find it. If
//! several calls start at once, a lock lets one of them open it; the others wait and then use it.

use super::error::Error;
use super::forward;
use super::holder::{Forwards, Holder, SessionSocket};
use super::open::{self, Request};
use super::target::Target;
use super::{messages, paths};
use crate::sys::{clock, local, process, socket};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How long a holder may leave a connection or a message unread.
pub const HOLDER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another five may take to open the session before a message is printed.
const QUIET_WAIT: Duration = Duration::from_secs(2);
/// How often the lock is tried until then.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

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

/// A channel to the holder of the target's session. If there is no session, it is opened, and the
/// first call's request is sent with it. To be called while this process has one thread.
pub fn channel(t: &Target, first: Option<&Request>) -> Result<Channel, Error> {
    if t.unshared {
        return create(t, first, None);
    }
    let path = t.socket()?;
    if let Some(found) = find(&path)? {
        messages::step(&format!("using the session to {} ({})", t.who(), path.display()));
        return Ok(found);
    }
    let lock = path.with_extension("lock");
    let failed = || Error::system(lock.display().to_string());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock)
        .map_err(failed())?;
    if !locked_soon(&file) {
        // The other five may be waiting for its user to answer a prompt.
        messages::info(&format!("{}: another five is making the session: waiting for it", t.who()));
        file.lock().map_err(failed())?;
    }
    if let Some(found) = find(&path)? {
        messages::step(&format!("using the session to {} ({})", t.who(), path.display()));
        return Ok(found);
    }
    create(t, first, Some(&path))
}

/// Locks a file, if the process that has the lock releases it soon.
fn locked_soon(file: &File) -> bool {
    let end = clock::monotonic() + QUIET_WAIT;
    while file.try_lock().is_err() {
        if clock::monotonic() >= end {
            return false;
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
    true
}

/// Opens a session and starts its holder.
fn create(t: &Target, first: Option<&Request>, path: Option<&Path>) -> Result<Channel, Error> {
    let session = open::open(t, first)?;
    let socket = path.map(SessionSocket::open).transpose()?;
    let (ours, theirs) = socket::seqpacket().map_err(Error::system("socket"))?;
    let (name, persist) = (t.who(), t.persist);
    let mut opened = forward::open_all(&t.forwards);
    let mut keep = vec![session.link.socket().as_raw_fd(), theirs.as_raw_fd()];
    for listener in opened.iter_mut().flat_map(|(_, listeners)| listeners) {
        listener.announce();
        keep.push(listener.fd.as_raw_fd());
        listener.disown();
    }
    let forwards = Forwards::new(opened, &t.virtual_host);
    keep.extend(socket.as_ref().map(|d| d.as_fd().as_raw_fd()));
    local::limit_sending(ours.as_fd(), HOLDER_TIMEOUT).map_err(Error::system("socket"))?;
    let pid = process::branch(&keep, move || {
        Holder::new(session, name, (socket, forwards), persist, theirs).run()
    })
    .map_err(Error::system("fork"))?;
    messages::step("the session stands, and its holder has it");
    Ok(Channel { fd: ours, pid })
}
