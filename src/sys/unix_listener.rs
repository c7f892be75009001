//! A listening Unix socket and its file, for whoever may connect.
//!
//! The directory may belong to somebody else, who can exchange everything in it at any moment. So
//! the directory is opened once, the file is changed and removed only there, and only after it was
//! found to be a socket of this process. No link is followed to a file. Who can list the directory
//! keeps nobody waiting (`directory_calls`).

use super::local::{self, Address};
use super::message::{self, Fds};
use super::shared::Shared;
use super::socket::{BACKLOG, seqpacket};
use super::{check, directory_calls};
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, lstat,
};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchdir, fchownat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const ANOTHER_FILE: &str =
    "expected no file or the socket of a fived that has ended, found another file";

/// What a socket's file is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute.
    pub path: String,
    /// The file's permissions.
    pub mode: u32,
    /// The file's user and group. None: those of this process.
    pub owner: Option<(u32, u32)>,
    /// Connections that may wait to be accepted. None: as many as the system allows.
    pub backlog: Option<u32>,
}

/// The file of a listening socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    /// As it was wanted.
    path: PathBuf,
    directory: OwnedFd,
    /// The file itself. While it is open, no other file has its device and inode.
    file: OwnedFd,
    place: Place,
}

/// Where in its directory it is.
#[derive(Debug, Clone)]
struct Place {
    name: OsString,
    identity: Identity,
    /// The name that the file of this process's socket before this one has meanwhile.
    before: Option<OsString>,
}

/// What tells a file from all others that exist: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

/// That of the file at this path, however the path is written. None: there is none.
pub fn identity_at(path: &str) -> Option<Identity> {
    look_at(path).ok().map(|s| identity(&s))
}

fn look_at(path: &str) -> io::Result<FileStat> {
    let at = path.to_string();
    directory_calls::make(Path::new(path), &[], move |_| Ok(lstat(&*at)?))
}

/// A listener that does not block and takes no descriptors ([`local::take_rights`]), and its file.
/// A file of a socket on which nobody listens any more is replaced, and so is that of a socket of
/// this process (`own`), which comes back if the new one is dropped before [`SocketFile::keep`].
/// Errors: AddrInUse if somebody else listens there, AlreadyExists if another file has this path,
/// InvalidInput if it is too long, TimedOut if somebody keeps the directory locked.
pub fn listen(wanted: &Wanted, own: &[&SocketFile]) -> io::Result<(OwnedFd, SocketFile)> {
    let (path, at) = (Path::new(&wanted.path), wanted.clone());
    let own: Vec<Identity> = own.iter().map(|file| file.identity()).collect();
    let (ours, theirs) = seqpacket()?;
    let made = directory_calls::make(path, &[theirs.as_fd()], move |to| {
        let made = bind(&at, &own)?;
        let all = [made.socket.as_fd(), made.directory.as_fd(), made.file.as_fd()];
        // An error: nobody waits for it any more.
        message::send(to[0], &[0], &all).inspect_err(|_| made.place.remove(all[1]))?;
        Ok(made.place)
    });
    let place = made?;
    let received = message::receive(ours.as_fd(), &mut [0; 1]);
    let (socket, file) = taken(path, place, received.map(|(_, fds)| fds))?;
    let backlog = wanted.backlog.map_or(BACKLOG, |n| i32::try_from(n).unwrap_or(i32::MAX));
    // SAFETY: no memory is handed over. (Clients see which process called this: unix(7).)
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok((socket, file))
}

/// What [`bind`] has made, of which these descriptors have come. Where some are lost, for want of a
/// number say, what was made is undone.
fn taken(path: &Path, place: Place, fds: io::Result<Fds>) -> io::Result<(OwnedFd, SocketFile)> {
    let mut lost = io::Error::from_raw_os_error(libc::EMFILE);
    let mut fds = fds.unwrap_or_else(|e| {
        lost = e;
        Fds::default()
    });
    let mut next = || fds.take().map(Shared::our_own);
    if let (Some(socket), Some(directory), Some(file)) = (next(), next(), next()) {
        return Ok((socket, SocketFile { path: path.into(), directory, file, place }));
    }
    let at = path.to_path_buf();
    directory_calls::make_late(path, &[], move |_| {
        // An error: the directory is gone, or nothing can be opened now either.
        let _ = directory_of(&at).map(|(directory, _)| place.remove(directory.as_fd()));
    });
    Err(lost)
}

/// What [`bind`] makes.
struct Made {
    socket: OwnedFd,
    directory: OwnedFd,
    file: OwnedFd,
    place: Place,
}

fn bind(wanted: &Wanted, own: &[Identity]) -> io::Result<Made> {
    let path = Path::new(&wanted.path);
    let (directory, name) = directory_of(path)?;
    let here = identity_in(directory.as_fd(), name);
    let moved = match own.iter().any(|identity| here == Some(*identity)) {
        true => Some(Moved::away(directory.try_clone()?, name)?),
        false => remove_dead(directory.as_fd(), Path::new(name)).map(|()| None)?,
    };
    let socket = local::unconnected()?;
    // The file gets the socket's own mode (unix(7)), so it never has another one.
    fchmod(&socket, mode(wanted.mode))?;
    let address = Address::of(path)?;
    let (raw, length) = address.raw();
    super::process::with_umask(0, || {
        // SAFETY: the address is read for its length.
        check(unsafe { libc::bind(socket.as_raw_fd(), raw, length) })
    })?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&directory, name, flags, Mode::empty())?;
    let found = fstat(&made)?;
    if !is_socket(&found) || found.st_nlink != 1 || found.st_uid != super::identity::effective_uid()
    {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "somebody has replaced the socket"));
    }
    let before = moved.map(Moved::stays);
    let place = Place { name: name.into(), identity: identity(&found), before };
    if let Some(owner) = wanted.owner {
        change_owner(made.as_fd(), owner).inspect_err(|_| place.remove(directory.as_fd()))?;
    }
    Ok(Made { socket, directory, file: made, place })
}

/// The directory of this path, and the name in it.
fn directory_of(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok((open(parent, flags, Mode::empty())?, name))
}

fn change_owner(file: BorrowedFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(fchownat(file, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?)
}

fn identity_in(directory: BorrowedFd, name: &OsStr) -> Option<Identity> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(|s| identity(&s))
}

impl SocketFile {
    /// The socket is used from now on: the file of the one before it is removed.
    pub fn keep(&mut self) {
        if let Some(before) = self.place.before.take() {
            // One that cannot be removed is replaced by the next one with this name.
            let _ = directory_calls::make(&self.path, &[self.directory.as_fd()], move |with| {
                Ok(unlinkat(with[0], before.as_os_str(), UnlinkatFlags::NoRemoveDir)?)
            });
        }
    }

    /// Gives the file these permissions and this owner.
    pub fn change(&self, wanted: &Wanted) -> io::Result<()> {
        // A descriptor that only names a file can be changed through this link.
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fchmodat(nix::fcntl::AT_FDCWD, &*link, mode(wanted.mode), FchmodatFlags::FollowSymlink)?;
        let ours = (super::identity::effective_uid(), super::identity::effective_gid());
        change_owner(self.file.as_fd(), wanted.owner.unwrap_or(ours))
    }

    pub fn identity(&self) -> Identity {
        self.place.identity
    }
}

impl Place {
    /// Removes the file, or puts the one before it back.
    fn remove(&self, directory: BorrowedFd) {
        if let Some(before) = &self.before {
            let _ = move_back(directory, before, &self.name);
            return;
        }
        // Somebody may have put another file there, or have removed this one.
        if identity_in(directory, &self.name) == Some(self.identity) {
            // A file that cannot be removed is found and replaced by the next fived.
            let _ = unlinkat(directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file stays open meanwhile: it is told from others by its inode.
        let (place, with) = (self.place.clone(), [self.directory.as_fd(), self.file.as_fd()]);
        directory_calls::make_late(&self.path, &with, move |with| place.remove(with[0]));
    }
}

/// The file of a socket that goes on listening, under another name for as long as this exists.
struct Moved {
    directory: OwnedFd,
    name: OsString,
    /// None: it stays there.
    now: Option<OsString>,
}

impl Moved {
    fn away(directory: OwnedFd, name: &OsStr) -> io::Result<Moved> {
        let mut now = OsString::from(".fived-");
        now.push(name);
        renameat(&directory, name, &directory, now.as_os_str())?;
        Ok(Moved { directory, name: name.into(), now: Some(now) })
    }

    /// It is not moved back. Returns its name now.
    fn stays(mut self) -> OsString {
        self.now.take().unwrap_or_default()
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if let Some(now) = self.now.take() {
            let _ = move_back(self.directory.as_fd(), &now, &self.name);
        }
    }
}

/// Whatever has the name now is replaced. Who drops a value by this can do no more where it fails:
/// the file keeps its other name.
fn move_back(directory: BorrowedFd, now: &OsStr, name: &OsStr) -> nix::Result<()> {
    renameat(directory, now, directory, name)
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits & 0o777)
}

fn identity(s: &FileStat) -> Identity {
    Identity(s.st_dev, s.st_ino)
}

fn is_socket(s: &FileStat) -> bool {
    SFlag::from_bits_truncate(s.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFSOCK
}

/// Is there a file that is no socket at this path, a symbolic link too? Err: what to say of it.
pub fn no_other_file(path: &str) -> Result<(), &'static str> {
    match look_at(path) {
        Ok(found) if !is_socket(&found) => Err(ANOTHER_FILE),
        // One that cannot be seen is told where the socket is to be made.
        _ => Ok(()),
    }
}

/// Removes a socket on which nobody listens. Errors: as in [`listen`].
fn remove_dead(directory: BorrowedFd, name: &Path) -> io::Result<()> {
    let found = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(nix::Error::ENOENT) => return Ok(()),
        found => found?,
    };
    if !is_socket(&found) {
        return Err(io::Error::new(ErrorKind::AlreadyExists, ANOTHER_FILE));
    }
    // A datagram socket tries to connect, which a stream listener refuses (EPROTOTYPE): a real
    // connection would count as a client and start a service.
    let asked = within(directory, || UnixDatagram::unbound()?.connect(name))?;
    match asked {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
        }
        _ => Err(io::Error::new(ErrorKind::AddrInUse, "a process listens there already")),
    }
}

/// Does something with this as the working directory. For a process of one thread.
fn within<T>(directory: BorrowedFd, what: impl FnOnce() -> T) -> io::Result<T> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let before = open(".", flags, Mode::empty())?;
    fchdir(directory)?;
    let done = what();
    fchdir(&before)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_a_dead_socket_is_replaced_and_only_ones_own_removed() {
        let dir = std::env::temp_dir().join(format!("fived-unix-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("directory");
        let path = dir.join("s");
        let wanted = Wanted {
            path: path.to_str().expect("text").into(),
            mode: 0o620,
            owner: None,
            backlog: None,
        };
        let (socket, file) = listen(&wanted, &[]).expect("listener");
        assert_eq!(std::fs::metadata(&path).expect("file").permissions().mode() & 0o7777, 0o620);
        UnixStream::connect(&path).expect("it listens");
        assert_eq!(listen(&wanted, &[]).expect_err("alive").kind(), ErrorKind::AddrInUse);
        file.change(&Wanted { mode: 0o600, ..wanted.clone() }).expect("change");
        assert_eq!(std::fs::metadata(&path).expect("file").permissions().mode() & 0o7777, 0o600);
        drop(socket);
        let (second, kept) = listen(&wanted, &[]).expect("a dead one is replaced");
        drop(file);
        assert!(path.exists(), "it was not that one's any more");
        std::fs::remove_file(&path).expect("remove");
        std::fs::write(&path, "mine").expect("file");
        drop((second, kept));
        assert_eq!(std::fs::read(&path).expect("file"), b"mine");
        assert_eq!(listen(&wanted, &[]).expect_err("a file").kind(), ErrorKind::AlreadyExists);
        std::fs::rename(&path, dir.join("other")).expect("rename");
        symlink(dir.join("other"), &path).expect("link");
        assert_eq!(listen(&wanted, &[]).expect_err("a link").kind(), ErrorKind::AlreadyExists);
        std::fs::remove_file(&path).expect("remove");
        let (_socket, file) = listen(&wanted, &[]).expect("listener");
        assert_eq!(std::fs::metadata(&path).expect("file").nlink(), 1);
        drop(file);
        assert!(!path.exists());
        // One of this process's own is replaced, or comes back.
        let (first, file) = listen(&wanted, &[]).expect("listener");
        let (accepts, connect) =
            (|fd: &OwnedFd| local::accept(fd.as_fd()).is_ok(), || UnixStream::connect(&path));
        drop(listen(&wanted, &[&file]).expect("in its place"));
        let _client = connect().expect("it listens");
        assert!(accepts(&first));
        let (second, mut new) = listen(&wanted, &[&file]).expect("in its place");
        new.keep();
        drop((first, file));
        let _client = connect().expect("it listens");
        assert!(accepts(&second));
        // Nor is it gone where what was made in its place cannot be received.
        let made = bind(&wanted, &[new.identity()]).expect("in its place");
        taken(&path, made.place, Ok(Fds::default())).expect_err("it has no descriptors");
        let _client = connect().expect("it listens");
        assert!(accepts(&second));
        drop(new);
        assert_eq!(std::fs::read_dir(&dir).expect("directory").count(), 1, "`other` alone");
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}
