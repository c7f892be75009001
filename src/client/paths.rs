//! Where five keeps things: configuration and known keys below `~/.config/five`, sockets of
//! sessions below `$XDG_RUNTIME_DIR/five`.

use super::error::{Error, reason};
use super::messages;
use crate::sys::{file, identity, local};
use crate::wire::handover;
use ring::digest::{SHA256, digest};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How the name of a session's lock ends.
const LOCK: &str = "lock";

/// This user's home directory.
pub fn home() -> PathBuf {
    let of_passwd = || identity::by_uid(identity::effective_uid()).map(|u| u.home);
    std::env::var("HOME")
        .ok()
        .filter(|h| h.starts_with('/'))
        .or_else(of_passwd)
        .unwrap_or_else(|| "/".into())
        .into()
}

/// Expands `~/...`; any other path stays as it is.
pub fn expand(path: &str) -> PathBuf {
    path.strip_prefix("~/").map_or_else(|| path.into(), |rest| home().join(rest))
}

fn directory_of(variable: &str) -> Option<PathBuf> {
    std::env::var(variable).ok().filter(|d| d.starts_with('/')).map(PathBuf::from)
}

fn config_directory() -> PathBuf {
    directory_of("XDG_CONFIG_HOME").unwrap_or_else(|| home().join(".config")).join("five")
}

pub fn config() -> PathBuf {
    config_directory().join("config")
}

pub fn known_hosts() -> PathBuf {
    config_directory().join("known_hosts")
}

/// Makes a directory that is this user's alone, and its missing parents.
pub fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// `$XDG_RUNTIME_DIR`, if it belongs to this user (sudo and su may leave another user's), and
/// nobody else may write there.
fn runtime_directory() -> Option<PathBuf> {
    let directory = directory_of("XDG_RUNTIME_DIR")?;
    let own = |m: fs::Metadata| {
        m.is_dir() && m.uid() == identity::effective_uid() && m.mode() & 0o022 == 0
    };
    if fs::metadata(&directory).is_ok_and(own) {
        return Some(directory);
    }
    messages::step(&format!(
        "XDG_RUNTIME_DIR {}: not a directory of this user alone: it is not used",
        directory.display()
    ));
    None
}

/// The path of a session's socket, in a directory that nobody else can enter. Its name is a hash of
/// `session`, which names the session.
pub fn socket(session: &str) -> Result<PathBuf, Error> {
    let what = format!("{} {session}", handover::VERSION);
    let name: String = digest(&SHA256, what.as_bytes()).as_ref()[..12]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let usual = runtime_directory().map(|d| d.join("five"));
    let fits = |d: &PathBuf| retired(&d.join(&name), u32::MAX).as_os_str().len() <= local::NAME_MAX;
    let uid = identity::effective_uid();
    let directory = usual.filter(fits).unwrap_or_else(|| format!("/tmp/five-{uid}").into());
    let failed = |e: io::Error| unusable(&directory, &reason(&e));
    make_private(&directory).map_err(failed)?;
    let m = fs::symlink_metadata(&directory).map_err(failed)?;
    if !m.is_dir() || m.uid() != uid || m.mode() & 0o077 != 0 {
        return Err(unusable(&directory, "must be a directory of yours with mode 0700"));
    }
    Ok(directory.join(name))
}

/// The error where sessions cannot be found.
pub fn unusable(path: &Path, why: &str) -> Error {
    Error::System {
        what: path.display().to_string(),
        why: format!("{why}: sessions are found there; set XDG_RUNTIME_DIR, or use -x"),
    }
}

/// The lock of a session's socket: whoever has it may make that socket, and nobody else.
pub fn lock_of(socket: &Path) -> Result<File, Error> {
    let lock = socket.with_extension(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(&lock).map_err(|e| unusable(&lock, &reason(&e)))
}

/// The path of a session's socket after its holder (`pid`) has stopped taking new calls.
pub fn retired(socket: &Path, pid: u32) -> PathBuf {
    socket.with_extension(pid.to_string())
}

/// All existing paths of [`retired`] for a session's socket, sorted.
pub fn all_retired(socket: &Path) -> Vec<PathBuf> {
    let entries =
        socket.parent().and_then(|d| fs::read_dir(d).ok()).into_iter().flatten().flatten();
    let of_it = |p: &PathBuf| {
        p.file_stem() == socket.file_name() && p.extension().is_some_and(|e| e != LOCK)
    };
    let mut all: Vec<PathBuf> = entries.map(|e| e.path()).filter(of_it).collect();
    all.sort();
    all
}

/// Reads a file; empty if it does not exist. One that has no end is an error, and nobody at the
/// other end of a named pipe is waited for.
pub fn read(path: &Path) -> Result<String, Error> {
    text(path, file::read_any(path))
}

/// The same; a file that somebody else can write is an error.
pub fn read_own(path: &Path) -> Result<String, Error> {
    text(path, file::read_own(path))
}

fn text(path: &Path, read: io::Result<Vec<u8>>) -> Result<String, Error> {
    match read {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // The home directory of many accounts of the system is /dev/null.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(e) => Err(Error::system(path.display().to_string())(e)),
    }
}
