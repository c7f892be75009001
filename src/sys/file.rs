//! Reads whole files, up to a bound, and opens files, without waiting for anybody.

use super::identity;
use super::poll::{self, Poll};
use nix::errno::Errno;
use nix::fcntl::{self, FcntlArg, OFlag, OpenHow, ResolveFlag};
use nix::unistd::{self, AccessFlags};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Bytes of one file at most; a table of 100,000 rows is a tenth of it.
pub const FILE_MAX: u64 = 64 * 1024 * 1024;
/// Bytes by which the buffer is longer than the file, so that its end is found without a second
/// buffer.
const SPARE: usize = 64;
/// How long a pipe may be silent.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);
/// openat2(2), since Linux 5.12.
const RESOLVE_CACHED: u64 = 0x20;
/// The group may write; all others may.
const GROUP_WRITES: u32 = 0o020;
const ALL_WRITE: u32 = 0o002;

/// Reads a regular file. Everything else is an error: with a pipe, the process at its other end
/// would decide how long the reading takes.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    whole(path.as_ref(), false, |_| Ok(()))
}

/// Reads a file, a pipe or a device: for a name that somebody gave on purpose, such as
/// `/dev/stdin`. A pipe into which nobody writes anything is an error.
pub fn read_any(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    whole(path.as_ref(), true, |_| Ok(()))
}

/// Reads a file that decides what this process does, as [`read_any`]: nobody else may write it, as
/// ssh(1) demands of its own.
pub fn read_own(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    whole(path.as_ref(), true, |found| {
        others_write(found).map_or(Ok(()), |e| Err(io::Error::other(e)))
    })
}

/// Why others than this user and root can write a file or a directory, if they can. A group that
/// has the number of its user is that user's alone: where each user has a group, files are made so
/// that it may write them. A device says nothing.
pub fn others_write(found: &Metadata) -> Option<String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let of_others = if found.gid() == owner { ALL_WRITE } else { ALL_WRITE | GROUP_WRITES };
    match () {
        () if found.file_type().is_char_device() => None,
        () if owner != 0 && owner != identity::effective_uid() => {
            let who = format!("it belongs to another user (uid {owner})");
            Some(format!("{who}, who could change what it says"))
        }
        () if mode & of_others != 0 => {
            Some(format!("others can write it (mode {mode:04o}): run `chmod go-w` on it"))
        }
        () => None,
    }
}

/// Opens a file to append to it, which is made, for its owner alone, if it does not exist. A named
/// pipe that nobody reads is an error.
pub fn append(path: impl AsRef<Path>) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    how.open(path)
}

/// Could this process append to a file, which is made if it does not exist? It is neither opened
/// nor made.
pub fn may_append(path: &str) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(_) => Ok(unistd::access(path, AccessFlags::W_OK)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let directory = Path::new(path).parent().unwrap_or(Path::new("/")).join(".");
            Ok(unistd::access(&directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        Err(e) => Err(e),
    }
}

/// What the file at this path is, if the system can say that without a look into a directory, which
/// somebody may keep locked (`directory_calls`). None: it cannot, or not before Linux 5.12.
pub fn known_metadata(path: &Path) -> Option<io::Result<Metadata>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::from_bits_retain(RESOLVE_CACHED));
    match fcntl::openat2(fcntl::AT_FDCWD, path, how) {
        Ok(found) => Some(File::from(found).metadata()),
        Err(Errno::EAGAIN | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => None,
        Err(e) => Some(Err(e.into())),
    }
}

/// Locks a file that was opened for writing, until this process closes it, or any other descriptor
/// of it. False: another process has locked it so. Where files cannot be locked, none is; nor one
/// that another process has locked for reading, as anybody can who may read it.
pub fn lock(file: &File) -> io::Result<bool> {
    let mut whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl::fcntl(file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            fcntl::fcntl(file, FcntlArg::F_GETLK(&mut whole))?;
            Ok(whole.l_type != libc::F_WRLCK as libc::c_short)
        }
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// What a file is, in words.
pub(super) fn name_of(kind: FileType) -> &'static str {
    match () {
        () if kind.is_file() => "a regular file",
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// `check` may refuse the file by what it is.
fn whole(
    path: &Path,
    any: bool,
    check: impl Fn(&Metadata) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let found = file.metadata()?;
    check(&found)?;
    let kind = found.file_type();
    // Reading a directory gives an error that says what it is.
    if !kind.is_file() && !kind.is_dir() && !any {
        return Err(io::Error::other(format!("expected a regular file, found {}", name_of(kind))));
    }
    // One buffer that never grows: growing would leave copies in memory, and whoever reads a secret
    // can wipe only the last one.
    let size = found.len().min(FILE_MAX) as usize + SPARE;
    let (mut content, mut rest) = (Vec::with_capacity(size), file.take(FILE_MAX + 1));
    while let Err(e) = rest.read_to_end(&mut content) {
        let mut ready = [Poll::new(rest.get_ref().as_fd(), true, false)];
        if e.kind() != io::ErrorKind::WouldBlock {
            return Err(e);
        }
        if poll::wait(&mut ready, Some(PIPE_TIMEOUT))? == 0 {
            let seconds = PIPE_TIMEOUT.as_secs();
            let found = format!("expected text within {seconds} s, found a pipe that is silent");
            return Err(io::Error::new(io::ErrorKind::TimedOut, found));
        }
    }
    // Reading a pipe without a writer is at its end at once.
    if kind.is_fifo() && content.is_empty() {
        let found = "expected a file with text, found a pipe that nobody writes to";
        return Err(io::Error::other(found));
    }
    if content.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("longer than {FILE_MAX} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_pipe_is_waited_for_only_where_it_is_meant() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("expected a regular file, found a named pipe")
        );
        let says = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            writer.write_all(b"text")
        });
        assert_eq!(read_any(&path).unwrap(), b"text");
        says.join().unwrap().unwrap();
        assert!(read("/").is_err() && read("/dev/null").is_err());
        assert_eq!(read_any("/dev/null").unwrap(), b"");
    }

    #[test]
    fn a_pipe_that_is_silent_is_told_as_one() {
        let (reader, _writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let what = read_any(&path).unwrap_err().to_string();
        assert_eq!(what, "expected text within 5 s, found a pipe that is silent");
    }
}
