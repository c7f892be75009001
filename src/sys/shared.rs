//! A socket that another process has, or has had: closing it never waits.
//!
//! With SO_LINGER (socket(7)) a service can make whoever closes the last copy of its socket wait in
//! close(2) until the client has received everything, for as long as the service likes. If fived
//! had the last copy, fived would wait. So what is given to services has this type from the
//! beginning, and one that lingers is closed by a thread that does nothing else. The option is only
//! read: to change it takes the socket's lock, which a service can keep for as long as it likes,
//! and then not even a signal ends that wait. (What a socket holds that was sent through a Unix
//! socket: `local::take_rights`.)
//!
//! But who has a socket can keep its last close waiting in many other ways, and what other
//! processes have handed over may be anything. In a process that serves all (`foreign`) others
//! close what is [somebody's](Shared::of).
//!
//! Between reading the option and closing, a service could still set it, if it is started, fills
//! its socket and closes it within that microsecond. The parent's wait is bounded even then,
//! because it is interrupted (`sys::interrupt`).

use super::check;
use super::interrupt::Interrupt;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use syscalls::{Sysno, syscall};

/// Bytes of the stack of the thread that closes.
const STACK: usize = 64 * 1024;
/// For how long one close may keep that thread, so that it closes more than can be started.
const CLOSE_MAX: Duration = Duration::from_millis(1);

/// Who may keep a close waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Nobody knows who.
    Anybody,
    /// Whoever sent it through the channel of this number.
    Channel(usize),
    /// The user whose service has it.
    User(u32),
}

/// Closes what is somebody's, or gives it back: then it is closed as any other.
type CloseForeign = Box<dyn Fn(Whose, OwnedFd) -> Option<OwnedFd> + Send + Sync>;
/// None: that is closed as any other.
static FOREIGN: OnceLock<CloseForeign> = OnceLock::new();

/// From now on this closes what is somebody's, in the whole process.
pub fn close_foreign_with(
    close: impl Fn(Whose, OwnedFd) -> Option<OwnedFd> + Send + Sync + 'static,
) {
    let _ = FOREIGN.set(Box::new(close));
}

/// An open descriptor that other processes may have, too. It need not be a socket.
#[derive(Debug)]
pub struct Shared {
    fd: Option<OwnedFd>,
    /// None: nobody can keep its close waiting, but by SO_LINGER.
    whose: Option<Whose>,
    /// A service may have it, or may have had it.
    of_services: bool,
}

impl Shared {
    /// A duplicate of a descriptor.
    pub fn copy(fd: BorrowedFd) -> io::Result<Shared> {
        fd.try_clone_to_owned().map(Shared::from)
    }

    /// These can keep its close waiting: it came from them, or they have it, or will; or they can
    /// put something into its queue.
    pub fn of(mut self, whose: Whose) -> Shared {
        self.whose = Some(whose);
        self
    }

    /// From now on these have it, and can keep its close waiting.
    pub fn is_of(&mut self, whose: Whose) {
        self.whose = Some(whose);
    }

    /// Nobody has had the time to keep its close waiting, but by SO_LINGER.
    pub fn is_of_nobody(&mut self) {
        self.whose = None;
    }

    /// No service gets it: whether closing it waits is not asked.
    pub fn for_no_service(mut self) -> Shared {
        self.of_services = false;
        self
    }

    /// The descriptor itself, if it is one that no service gets: a channel, a listener.
    pub fn our_own(mut self) -> OwnedFd {
        self.fd.take().expect("only this and the end take it")
    }
}

impl From<OwnedFd> for Shared {
    fn from(fd: OwnedFd) -> Shared {
        Shared { fd: Some(fd), whose: None, of_services: true }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is taken with the value itself").as_fd()
    }
}

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let left = match (self.whose, FOREIGN.get()) {
            (Some(whose), Some(close)) => close(whose, fd),
            _ => Some(fd),
        };
        match left {
            Some(fd) if self.of_services && lingers(fd.as_raw_fd()) => close_elsewhere(fd),
            left => drop(left),
        }
    }
}

/// Can closing this descriptor wait? A linger time of 0 makes the close a reset, which does not.
/// This takes no lock.
fn lingers(fd: RawFd) -> bool {
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut size = size_of_val(&linger) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: the option is such a struct, which is written, and its length.
    let answer =
        unsafe { syscall!(Sysno::getsockopt, fd, level, name, &raw mut linger, &raw mut size) };
    answer.is_ok() && linger.l_onoff != 0 && linger.l_linger != 0
}

/// Closes a descriptor of this process's own, which services have had, so that it does not wait
/// even if it lingers: the kernel sends the rest. This may take the socket's lock.
pub fn close_at_once(fd: OwnedFd) {
    if lingers(fd.as_raw_fd()) {
        let off = libc::linger { l_onoff: 0, l_linger: 0 };
        // An error leaves it as it was; then the close waits.
        let _ = setsockopt(&fd, sockopt::Linger, &off);
    }
    drop(fd);
}

/// The thread that closes is started for the first one. Where none can be, this thread closes.
fn close_elsewhere(fd: OwnedFd) {
    static CLOSER: Mutex<Option<Sender<OwnedFd>>> = Mutex::new(None);
    let mut closer = CLOSER.lock().unwrap_or_else(PoisonError::into_inner);
    if closer.is_none() {
        let (sender, all) = mpsc::channel();
        let thread = std::thread::Builder::new().name("closes".into()).stack_size(STACK);
        *closer = thread.spawn(move || close_all(&all)).ok().map(|_| sender);
    }
    if let Some(closer) = &*closer {
        // It never ends. If it did, the descriptor would come back in the error, and be closed.
        drop(closer.send(fd));
    }
}

fn close_all(all: &Receiver<OwnedFd>) {
    let mut interrupt = Interrupt::after(CLOSE_MAX).ok();
    while let Ok(fd) = all.recv() {
        interrupt.iter_mut().for_each(Interrupt::want);
        drop(fd);
        for fd in all.try_iter() {
            drop(fd);
        }
        interrupt.iter_mut().for_each(Interrupt::stop);
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
    use std::io::Read;
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
    fn nor_does_one_that_may_take_the_lock_and_all_of_it_arrives() {
        let (mut client, fd) = full(20);
        let began = Instant::now();
        close_at_once(fd.our_own());
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(client.read_to_end(&mut Vec::new()).unwrap() > 65536);
    }

    #[test]
    fn a_reset_stays_one() {
        for close in [drop, |fd: Shared| close_at_once(fd.our_own())] {
            let (mut client, fd) = full(0);
            close(fd);
            assert_eq!(
                client.read_to_end(&mut Vec::new()).unwrap_err().kind(),
                io::ErrorKind::ConnectionReset
            );
        }
    }
}
