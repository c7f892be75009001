//! Unix sockets with a path (unix(7)): the holder of a session and the SSH agent are found at one.

use super::check;
use super::shared::{Shared, Whose};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Bytes of a path at most.
pub const NAME_MAX: usize =
    size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 128;

/// SO_PASSRIGHTS ([`take_rights`]).
pub(super) const PASS_RIGHTS: libc::c_int = 83;

/// A listener for channels that keep messages apart (SOCK_SEQPACKET); it does not block. Whoever
/// may search the directory and write the socket may connect; the umask sets the socket's mode.
/// Errors: AddrInUse if the path exists, InvalidInput for a path of more than [`NAME_MAX`] bytes.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket(libc::SOCK_NONBLOCK)?;
    let (name, length) = address(path)?;
    // SAFETY: the address is read for its length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), length) })?;
    // SAFETY: no memory is handed over.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(fd)
}

/// Connects to such a listener. Neither this nor any sending on it waits longer than `timeout`.
/// `WouldBlock`: the listener accepts nobody. NotFound, ConnectionRefused: nobody listens.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    connected(socket(0)?, path, timeout)
}

/// Connects to a listener of streams, such as an SSH agent's socket, likewise.
pub fn connect_stream(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    connected(of_type(libc::SOCK_STREAM)?, path, timeout).map(UnixStream::from)
}

/// A stream's socket that leads nowhere yet; it does not block. It takes no descriptors
/// ([`take_rights`]).
pub fn unconnected() -> io::Result<OwnedFd> {
    let fd = of_type(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    take_rights(fd.as_fd(), false);
    Ok(fd)
}

/// Whether whoever is at the other end may send descriptors (unix(7), SCM_RIGHTS). A listener's
/// connections inherit that from the moment when their client connects.
///
/// A descriptor that was sent is closed by whoever reads past it or closes the socket, and that can
/// wait for as long as its sender likes: it may be a TCP socket with SO_LINGER. So no socket that
/// fived reads or closes takes any (SO_PASSRIGHTS: Linux 6.16). Where the kernel has no such
/// option, no loop reads them ([`passed_rights`](super::passed_rights)) or closes such a socket
/// ([`Shared::of`]). Returned: has it one?
pub fn take_rights(fd: BorrowedFd, take: bool) -> bool {
    let value = libc::c_int::from(take);
    let (level, size) = (libc::SOL_SOCKET, size_of_val(&value) as libc::socklen_t);
    let value = (&raw const value).cast();
    // SAFETY: the option is an int, which is read. It fails only on an older kernel.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, PASS_RIGHTS, value, size) == 0 }
}

/// An end of a channel through which nobody sends this process descriptors. What somebody sends all
/// the same, where that cannot be refused, is in its queue when it is closed.
pub fn without_rights(end: OwnedFd) -> Shared {
    let refuses = take_rights(end.as_fd(), false);
    let end = Shared::from(end);
    if refuses { end } else { end.of(Whose::Anybody) }
}

/// Can descriptors be refused ([`take_rights`])? What the first call has found stays: a confined
/// process, which cannot ask, asks before.
pub fn can_refuse_rights() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| unconnected().is_ok_and(|fd| take_rights(fd.as_fd(), false)))
}

/// Connects it, as this process, without waiting. `WouldBlock`: whoever listens takes nobody in.
pub fn connect_now(fd: BorrowedFd, to: &Address) -> io::Result<()> {
    let (raw, length) = to.raw();
    // SAFETY: the address is read for its length.
    check(unsafe { libc::connect(fd.as_raw_fd(), raw, length) }).map(drop)
}

/// Where a Unix socket is, as the kernel wants it.
#[derive(Clone, Copy)]
pub struct Address(libc::sockaddr_un, libc::socklen_t);

impl Address {
    /// Errors: InvalidInput for a name of more than [`NAME_MAX`] bytes.
    pub fn of(path: &Path) -> io::Result<Address> {
        let (raw, length) = address(path)?;
        Ok(Address(raw, length))
    }

    pub(super) fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        ((&raw const self.0).cast(), self.1)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Address({} bytes)", self.1)
    }
}

fn connected(fd: OwnedFd, path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    let (name, length) = address(path)?;
    limit_sending(fd.as_fd(), timeout)?;
    // SAFETY: the address is read for its length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const name).cast(), length) })?;
    Ok(fd)
}

/// Bounds how long a send on this socket waits; after that it fails with `WouldBlock`.
pub fn limit_sending(fd: BorrowedFd, timeout: Duration) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let time = nix::sys::time::TimeVal::new(timeout.as_secs() as _, timeout.subsec_micros() as _);
    Ok(setsockopt(&fd, sockopt::SendTimeout, &time)?)
}

/// The process that made the other end. If a listener accepted it: the process that called
/// [`listen`] or [`listen_again`] last.
pub fn peer_pid(fd: BorrowedFd) -> io::Result<i32> {
    use nix::sys::socket::{getsockopt, sockopt};
    Ok(getsockopt(&fd, sockopt::PeerCredentials)?.pid())
}

/// Makes this process the one that clients find with [`peer_pid`].
pub fn listen_again(listener: BorrowedFd) -> io::Result<()> {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) }).map(drop)
}

/// A listener for streams, to which applications connect; it does not block, and only this user may
/// connect. A socket on which nobody listens any more is replaced.
pub fn listen_stream(path: &Path) -> io::Result<OwnedFd> {
    let bind = || super::process::with_umask(0o177, || UnixListener::bind(path));
    let listener = bind().or_else(|e| {
        if e.kind() != io::ErrorKind::AddrInUse || !is_dead(path) {
            return Err(e);
        }
        std::fs::remove_file(path)?;
        bind()
    })?;
    take_rights(listener.as_fd(), false);
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Is this a socket on which nobody listens? A datagram socket tries to connect, which a stream
/// listener refuses (EPROTOTYPE): a real connection would count as a client and start a service.
/// Connecting to a file that is not a socket gives the same error as a dead one, so the type is
/// checked, too.
fn is_dead(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let ask = || UnixDatagram::unbound()?.connect(path);
    socket && ask().is_err_and(|e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The next connection; the descriptor blocks. `WouldBlock`: there is none.
pub fn accept(listener: BorrowedFd) -> io::Result<OwnedFd> {
    // SAFETY: no address is asked for.
    let fd = check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the descriptor was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user at the other end.
pub fn peer_uid(fd: BorrowedFd) -> io::Result<u32> {
    Ok(credentials(fd)?.uid)
}

/// The user and the group that a process ran as when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
}

/// Those of the process at the other end (SO_PEERCRED).
pub fn credentials(fd: BorrowedFd) -> io::Result<Credentials> {
    use nix::sys::socket::{getsockopt, sockopt};
    let found = getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(Credentials { uid: found.uid(), gid: found.gid() })
}

/// The path of the socket itself; of an accepted one, that of its listener.
pub fn own_path(fd: BorrowedFd) -> Option<Vec<u8>> {
    use nix::sys::socket::{UnixAddr, getsockname};
    let address = getsockname::<UnixAddr>(fd.as_raw_fd()).ok()?;
    address.path().map(|p| p.as_os_str().as_bytes().to_vec())
}

/// Is it a Unix socket that has no path?
pub fn has_no_path(fd: BorrowedFd) -> bool {
    use nix::sys::socket::{UnixAddr, getsockname};
    getsockname::<UnixAddr>(fd.as_raw_fd()).is_ok_and(|address| address.path().is_none())
}

/// The path of the other end's own socket. None: it has none, as most clients.
pub fn peer_path(fd: BorrowedFd) -> Option<Vec<u8>> {
    use nix::sys::socket::{UnixAddr, getpeername};
    let address = getpeername::<UnixAddr>(fd.as_raw_fd()).ok()?;
    address.path().map(|p| p.as_os_str().as_bytes().to_vec())
}

fn socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    of_type(libc::SOCK_SEQPACKET | flags)
}

fn of_type(kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_CLOEXEC | kind, 0) })?;
    // SAFETY: the descriptor was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_MAX || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: not the name of a socket", path.display()),
        ));
    }
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as _;
    for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
        *to = *from as _;
    }
    Ok((raw, (offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1) as _))
}

#[cfg(test)]
mod tests {
    use super::super::{identity, message};
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn who_connects_is_known() {
        let path = std::env::temp_dir().join(format!("fived-local-{}", std::process::id()));
        assert_eq!(connect(&path, SOON).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let client = connect(&path, SOON).unwrap();
        let server = accept(listener.as_fd()).unwrap();
        assert_eq!(peer_uid(server.as_fd()).unwrap(), identity::effective_uid());
        message::send(client.as_fd(), b"x", &[]).unwrap();
        assert_eq!(message::receive_waiting(server.as_fd(), &mut [0; 9]).unwrap().0, 1);
        assert_eq!(peer_pid(client.as_fd()).unwrap() as u32, std::process::id());
        // Whoever does not read is waited for so long, and no longer.
        let full = || message::send_waiting(client.as_fd(), &[0; 4096], &[]).err();
        assert_eq!((0..1000).find_map(|_| full()).unwrap().kind(), io::ErrorKind::WouldBlock);
        let crowd: Vec<_> = (0..BACKLOG + 2).map_while(|_| connect(&path, SOON).ok()).collect();
        assert_eq!(
            connect(&path, SOON).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "{}",
            crowd.len()
        );
        drop((listener, crowd));
        // What another test is starting at the moment has a copy of the listener until its exec.
        let mut answers = (0..1000).map(|_| connect(&path, SOON).unwrap_err().kind());
        let last = answers.find(|kind| *kind != io::ErrorKind::WouldBlock);
        assert_eq!(last, Some(io::ErrorKind::ConnectionRefused));
        std::fs::remove_file(&path).unwrap();
        // A file of somebody's is not a socket; a socket that was left is replaced.
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(listen_stream(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
        drop(listen_stream(&path).unwrap());
        let again = listen_stream(&path).unwrap();
        assert_eq!(listen_stream(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            accept(again.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "nobody has connected"
        );
        drop(again);
        std::fs::remove_file(&path).unwrap();
        let long = Path::new("/tmp").join("x".repeat(NAME_MAX));
        assert_eq!(connect(&long, SOON).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
