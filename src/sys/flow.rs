//! A descriptor that somebody uses as standard input or output: a socket, a pipe, a file, a
//! terminal. Reading and writing never wait.
//!
//! Other programs (a shell, the rest of a pipeline) share the open file, so it is never made
//! nonblocking: each call on a socket has MSG_DONTWAIT, and a pipe is opened again through /proc
//! with flags of its own.

use super::poll::{self, Poll};
use super::{check, count, process, socket};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

/// Bytes that [`copy`] copies at once: as many as a pipe holds.
const PIECE: usize = 64 * 1024;

/// What a descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Socket,
    /// Reading and writing it never wait, and poll(2) reports it ready.
    File,
    Pipe,
    /// A terminal or another device.
    Device,
}

/// What the descriptor leads to.
pub fn kind(fd: BorrowedFd) -> io::Result<Kind> {
    let copy = File::from(fd.try_clone_to_owned()?);
    let t = copy.metadata()?.file_type();
    Ok(match () {
        () if t.is_socket() => Kind::Socket,
        () if t.is_fifo() => Kind::Pipe,
        () if t.is_char_device() && is_null(&copy) => Kind::File,
        () if t.is_char_device() || t.is_block_device() => Kind::Device,
        () => Kind::File,
    })
}

/// Is it /dev/null, /dev/zero or /dev/full? They never wait, as files do not.
fn is_null(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    // The memory devices (major 1): null 3, zero 5, full 7.
    const HARMLESS: [u64; 3] = [3, 5, 7];
    file.metadata().is_ok_and(|m| {
        libc::major(m.rdev()) == 1 && HARMLESS.contains(&u64::from(libc::minor(m.rdev())))
    })
}

/// A descriptor of the same file that can be read (or written) without waiting, and be handed to
/// another process. None: there is none, as for a terminal, or for a file that another computer or
/// another program serves; or another process must not write it, because this one's limit of the
/// size of files is to hold. The caller must copy the bytes itself.
pub fn without_waiting(fd: BorrowedFd, write: bool) -> io::Result<Option<OwnedFd>> {
    match kind(fd)? {
        Kind::File if write && process::file_size_is_limited() || !is_local(fd) => Ok(None),
        Kind::Socket | Kind::File => fd.try_clone_to_owned().map(Some),
        Kind::Pipe => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let mut how = OpenOptions::new();
            how.read(!write).write(write).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            let opened = how.open(path).ok().map(OwnedFd::from);
            // A named pipe that is opened after its last writer has gone never reports its end,
            // unlike the descriptor from before.
            Ok(opened.filter(|_| write || !is_over(fd)))
        }
        Kind::Device => Ok(None),
    }
}

/// Is the file on one of the usual file systems of this computer's own disks and memory? Any other
/// one (nfs, fuse) may leave who reads or writes it waiting for ever.
fn is_local(file: BorrowedFd) -> bool {
    const LOCAL: [FsType; 6] = [
        BTRFS_SUPER_MAGIC,
        EXT4_SUPER_MAGIC,
        F2FS_SUPER_MAGIC,
        OVERLAYFS_SUPER_MAGIC,
        TMPFS_MAGIC,
        XFS_SUPER_MAGIC,
    ];
    fstatfs(file).is_ok_and(|at| LOCAL.contains(&at.filesystem_type()))
}

/// Has every writer of a pipe gone?
fn is_over(pipe: BorrowedFd) -> bool {
    let mut polls = [Poll::hangup(pipe)];
    poll::wait(&mut polls, Some(Duration::ZERO)).is_ok() && polls[0].hung()
}

/// A descriptor whose reads and writes wait, even if another program that has the same open file
/// made it nonblocking.
pub struct Waiting<'a>(pub &'a File);

impl Waiting<'_> {
    /// Makes a call again each time that it would block, once it no longer does.
    fn waited(
        &self,
        write: bool,
        mut call: impl FnMut(&File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match call(self.0) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    poll::wait(&mut [Poll::new(self.0.as_fd(), !write, write)], None)?;
                }
                done => return done,
            }
        }
    }
}

impl Read for Waiting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.waited(false, |mut file| file.read(buffer))
    }
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waited(true, |mut file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor that [`without_waiting`] returned, in this process or another.
#[derive(Debug)]
pub struct Flow {
    fd: OwnedFd,
    socket: bool,
    /// A socket of bytes. One of datagrams would make one of several writes (MSG_MORE).
    stream: bool,
}

impl Flow {
    /// Errors: the descriptor cannot be read or written without waiting.
    pub fn new(fd: OwnedFd) -> io::Result<Flow> {
        let kind = kind(fd.as_fd())?;
        // SAFETY: F_GETFL hands no memory over.
        let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
        if matches!(kind, Kind::Pipe | Kind::Device) && flags & libc::O_NONBLOCK == 0 {
            return Err(ErrorKind::InvalidInput.into());
        }
        let socket = kind == Kind::Socket;
        let stream = socket && !socket::is_datagram(fd.as_fd());
        Ok(Flow { fd, socket, stream })
    }

    /// A socket of bytes that this process made: its kind is known.
    pub fn of_socket(fd: OwnedFd) -> Flow {
        Flow { fd, socket: true, stream: true }
    }

    /// Our end of a terminal that fived made ([`super::pty`]), which never waits.
    pub fn of_terminal(fd: OwnedFd) -> Flow {
        Flow { fd, socket: false, stream: false }
    }

    /// The descriptor itself.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub fn is_socket(&self) -> bool {
        self.socket
    }

    /// Reads what has come, as [`socket::receive_pieces`] does.
    pub fn read_pieces(
        &self,
        buffer: &mut Vec<u8>,
        gap: usize,
        piece: usize,
        most: usize,
    ) -> io::Result<usize> {
        if self.socket {
            return socket::receive_pieces(self.fd.as_fd(), buffer, gap, piece, most);
        }
        socket::read_pieces(self.fd.as_fd(), buffer, gap, piece, most)
    }

    /// Reads what has come. 0: the end. `WouldBlock`: nothing yet.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.socket {
            return socket::receive(self.fd.as_fd(), buffer);
        }
        // SAFETY: the buffer is writable for its whole length.
        count(unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// Writes as much as it can without waiting. `WouldBlock`: nothing. `BrokenPipe`: nobody reads
    /// any more.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.socket {
            return socket::send(self.fd.as_fd(), bytes);
        }
        // SAFETY: the bytes are readable for their whole length. SIGPIPE is ignored.
        count(unsafe { libc::write(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
    }

    /// The same, and more follows at once: of TCP only whole segments go, which is less work for
    /// both ends. The rest waits for what follows, for [`Flow::push`], or for 0.2 s.
    pub fn write_with_more(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.stream {
            return socket::send_with_more(self.fd.as_fd(), bytes);
        }
        self.write(bytes)
    }

    /// Nothing follows [`Flow::write_with_more`] for now.
    pub fn push(&self) {
        if self.stream {
            // What is no TCP socket keeps nothing back.
            let _ = socket::push(self.fd.as_fd());
        }
    }

    /// Ends the output. A socket can still be read.
    pub fn finish(&self) {
        if self.socket {
            // An error means that the other end has closed already.
            let _ = socket::shutdown_write(self.fd.as_fd());
        }
    }
}

/// What ended a copy early.
#[derive(Debug)]
pub enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the end. It waits for either end. std's io::copy must not be used on a pipe that
/// another program reads or writes: it calls splice(2), which keeps the pipe locked while it waits
/// for the other end, so that nobody can read what was sent before until more bytes come.
pub fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut bytes = vec![0; PIECE];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&bytes[..n]).map_err(CopyError::Write)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(CopyError::Read(e)),
        }
    }
}

impl AsFd for Flow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_does_not_wait_and_its_other_users_do() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let input = Flow::new(without_waiting(reader.as_fd(), false).unwrap().unwrap()).unwrap();
        let output = Flow::new(without_waiting(writer.as_fd(), true).unwrap().unwrap()).unwrap();
        let mut b = [0; 8];
        assert_eq!(input.read(&mut b).unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.write_all(b"one").unwrap();
        assert_eq!(input.read(&mut b).unwrap(), 3);
        let mut sent = 0;
        while let Ok(n) = output.write(&[7; 4096]) {
            sent += n;
        }
        assert!(sent > 0);
        // SAFETY: F_GETFL hands no memory over.
        let mode = |fd: &dyn AsRawFd| {
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            flags & libc::O_NONBLOCK
        };
        assert_eq!((mode(&reader), mode(&writer)), (0, 0));
        reader.read_exact(&mut b).unwrap();
        assert_eq!(b, [7; 8]);
        drop((reader, input));
        let gone = std::iter::repeat_with(|| output.write(b"x").err())
            .flatten()
            .find(|e| e.kind() != ErrorKind::WouldBlock);
        assert_eq!(gone.unwrap().kind(), ErrorKind::BrokenPipe);
        // A pipe in its usual mode would make its reader wait.
        let (waits, _writer) = io::pipe().unwrap();
        assert!(Flow::new(waits.into()).is_err());
    }

    #[test]
    fn kinds() {
        let of = |path: &str| kind(File::open(path).unwrap().as_fd()).unwrap();
        assert_eq!((of("/dev/null"), of("/etc/passwd")), (Kind::File, Kind::File));
        assert_eq!(kind(socket::pair().unwrap().0.as_fd()).unwrap(), Kind::Socket);
        assert_eq!(kind(io::pipe().unwrap().0.as_fd()).unwrap(), Kind::Pipe);
    }
}
