//! One session a computer: the first call makes it, all others find it. A lock lets one of those who race make it; the others wait and
//! then use it.

use super::holder::{Door, Holder};
use super::open::{self, Request};
use super::target::Target;
use super::trouble::Trouble;
use super::words;
use crate::sys::{local, process, socket};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How often a holder whose queue is full is asked again, and after which time.
const BUSY_TRIES: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A channel to the holder of a session that stands. None: there is none.
pub fn find(path: &Path) -> Result<Option<OwnedFd>, Trouble> {
    for _ in 0..BUSY_TRIES {
        match local::connect(path) {
            Ok(fd) => return Ok(Some(fd)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(BUSY_PAUSE),
            Err(e) => return Err(Trouble::system(path.display().to_string())(e)),
        }
    }
    Err(Trouble::System { what: path.display().to_string(), why: "the holder of the session takes no calls".into() })
}

/// A channel to the holder of the target's session, which is made if there is none; then the first call's request went with it. To be
/// called while this process has one thread.
pub fn channel(t: &Target, first: Option<&Request>) -> Result<OwnedFd, Trouble> {
    if t.unshared {
        return held(t, first, None);
    }
    let path = t.socket()?;
    if let Some(found) = find(&path)? {
        words::step(&format!("using the session to {} ({})", t.who(), path.display()));
        return Ok(found);
    }
    let lock = path.with_extension("lock");
    let said = || Trouble::system(lock.display().to_string());
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(said())?;
    if file.try_lock().is_err() {
        words::step("another five is making the session");
        file.lock().map_err(said())?;
    }
    if let Some(found) = find(&path)? {
        words::step(&format!("using the session to {} ({})", t.who(), path.display()));
        return Ok(found);
    }
    held(t, first, Some(&path))
}

/// Makes a session and its holder.
fn held(t: &Target, first: Option<&Request>, path: Option<&Path>) -> Result<OwnedFd, Trouble> {
    let session = open::open(t, first)?;
    let door = path.map(Door::open).transpose()?;
    let (near, far) = socket::seqpacket().map_err(Trouble::system("socket"))?;
    let (name, persist) = (t.who(), t.persist);
    let mut keep = vec![session.link.socket.as_raw_fd(), far.as_raw_fd()];
    keep.extend(door.as_ref().map(|d| d.as_fd().as_raw_fd()));
    process::branch(&keep, move || Holder::new(session, name, door, persist, far).run()).map_err(Trouble::system("fork"))?;
    words::step("the session stands, and its holder has it");
    Ok(near)
}
