//! A socket that another process has, or has had: closing it never waits.
//!
//! With SO_LINGER (socket(7)) a service can make whoever closes the last copy of its socket wait in
//! close(2) until the client has received everything, for as long as the service likes. If fived
//! had the last copy, fived would wait. So what is given to services has this type from the
//! beginning, and is closed only here. (What a socket holds that was sent through a Unix socket:
//! `local::take_rights`.)
//!
//! Between reading the option and closing, a service could still set it, if it is started, fills
//! its socket and closes it within that microsecond. The parent's wait is bounded even then,
//! because it is interrupted (`sys::interrupt`).

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use syscalls::{Sysno, syscall};

/// An open descriptor that other processes may have, too. It need not be a socket.
#[derive(Debug)]
pub struct Shared(Option<OwnedFd>);

impl Shared {
    /// A duplicate of a descriptor.
    pub fn copy(fd: BorrowedFd) -> io::Result<Shared> {
        fd.try_clone_to_owned().map(Shared::from)
    }

    /// The descriptor itself, if it is one that no service gets: a channel, a listener.
    pub fn our_own(mut self) -> OwnedFd {
        self.0.take().expect("only this and the end take it")
    }
}

impl From<OwnedFd> for Shared {
    fn from(fd: OwnedFd) -> Shared {
        Shared(Some(fd))
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("it is taken with the value itself").as_fd()
    }
}

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            unset_linger(fd.as_raw_fd());
        }
    }
}

/// From now on closing this descriptor does not wait. A linger time of 0, which makes the close a
/// reset, is kept.
fn unset_linger(fd: RawFd) {
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut size = size_of_val(&linger) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: the option is such a struct, which is written, and its length.
    let answer =
        unsafe { syscall!(Sysno::getsockopt, fd, level, name, &raw mut linger, &raw mut size) };
    if answer.is_ok() && linger.l_onoff != 0 && linger.l_linger != 0 {
        linger.l_onoff = 0;
        // SAFETY: the option is such a struct, which is read. It cannot fail: it is a socket.
        let _ = unsafe {
            syscall!(Sysno::setsockopt, fd, level, name, &raw const linger, size_of_val(&linger))
        };
    }
}

/// An accepted connection, which will be given to a service.
pub(super) fn accepted(fd: libc::c_int) -> io::Result<Shared> {
    // SAFETY: the descriptor was just made and is nobody else's.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

#[cfg(test)]
mod tests {
    use super::super::socket;
    use super::*;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    /// A socket whose peer reads nothing, with a full send buffer and this linger time.
    fn full(seconds: i32) -> (TcpStream, Shared) {
        let l = socket::listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let client = TcpStream::connect(socket::local(l.as_fd()).unwrap()).unwrap();
        let (fd, _) = socket::accept(l.as_fd()).unwrap();
        while socket::send(fd.as_fd(), &[0; 65536]).is_ok() {}
        let linger = libc::linger { l_onoff: 1, l_linger: seconds };
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        (client, fd)
    }

    #[test]
    fn its_close_never_waits() {
        let (_client, fd) = full(20);
        let began = Instant::now();
        drop(fd);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_reset_stays_one() {
        use std::io::Read;
        let (mut client, fd) = full(0);
        drop(fd);
        let mut all = Vec::new();
        assert_eq!(
            client.read_to_end(&mut all).unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }
}
