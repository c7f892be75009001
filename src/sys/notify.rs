//! systemd: the sockets that it opened for fived (sd_listen_fds(3)), and the state that fived
//! reports to it (sd_notify(3)). Without systemd these functions do nothing.

use super::poll::{self, Poll};
use super::signal::{Signal, Signals};
use super::{check, clock, local, pipe, process, socket};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::env;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sockets that are taken at most.
const SOCKETS_MAX: i32 = 64;
const FIRST: RawFd = 3;

/// A listening socket of systemd's.
pub enum SystemdListener {
    /// At an address and port.
    Internet(OwnedFd),
    /// At a path.
    Unix { path: String, socket: OwnedFd },
}

/// The listeners that systemd gave to this process, made nonblocking; none if it gave none, or from
/// the second call on. To be called before `daemonize`, because they are meant for one process id.
/// Errors: one of them is no listener of TCP, and none of a Unix stream socket with a path.
pub fn listen_fds() -> io::Result<Vec<SystemdListener>> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let number = |name| env::var(name).ok()?.parse::<i32>().ok();
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    if !ours || ASKED.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).max(0);
    if count > SOCKETS_MAX {
        let what = format!("expected at most {SOCKETS_MAX} sockets, found {count}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    (FIRST..FIRST + count).map(take).collect()
}

fn take(number: RawFd) -> io::Result<SystemdListener> {
    // SAFETY: F_SETFD only sets a flag of a descriptor, and fails for one that is not open.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the protocol of LISTEN_FDS says that it is ours alone; it is taken
    // once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let wrong = |found| {
        let what = format!("descriptor {number}: expected a listening socket, found {found}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    };
    if !is_listening(fd.as_fd())? {
        return wrong("something else");
    }
    if getsockopt(&fd, sockopt::SockType)? != SockType::Stream {
        return wrong("one that is no stream socket");
    }
    socket::set_nonblocking(fd.as_fd())?;
    match socket::local(fd.as_fd()) {
        Ok(_) => Ok(SystemdListener::Internet(fd)),
        Err(e) if socket::is_of_another_family(&e) => {
            match local::own_path(fd.as_fd()).map(String::from_utf8) {
                Some(Ok(path)) => Ok(SystemdListener::Unix { path, socket: fd }),
                _ => wrong("one that has neither an address and port nor a path in UTF-8"),
            }
        }
        Err(e) => Err(e),
    }
}

fn is_listening(fd: BorrowedFd) -> io::Result<bool> {
    let mut answer: libc::c_int = 0;
    let mut size = size_of_val(&answer) as libc::socklen_t;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    let place = (&raw mut answer).cast();
    // SAFETY: one int is written, for which there is room.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, place, &mut size) })?;
    Ok(answer != 0)
}

/// While a reload waits for answers (fived(8)), the signs of life may take this long.
const RELOAD_MAX: Duration = Duration::from_secs(60);

/// Does a service manager wait for what this process reports?
pub fn is_awaited() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// The service manager ends this process if it has no sign of life from it for so long
/// (`WatchdogSec`, sd_watchdog_enabled(3)).
pub fn silence_max() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0)?;
    Some(Duration::from_micros(micros))
}

/// A sign of life.
pub fn alive() {
    send("WATCHDOG=1");
}

/// Ready to serve; also the end of a reload.
pub fn ready() {
    send(&format!("READY=1{}", silence(silence_max)));
}

/// A reload begins.
pub fn reloading() {
    let now = clock::monotonic().as_micros();
    let silence = silence(|| silence_max().map(|own| own.max(RELOAD_MAX)));
    send(&format!("RELOADING=1\nMONOTONIC_USEC={now}{silence}"));
}

/// The longest silence from now on, if the service manager has one at all.
fn silence(max: impl FnOnce() -> Option<Duration>) -> String {
    max().map_or_else(String::new, |max| format!("\nWATCHDOG_USEC={}", max.as_micros()))
}

/// fived begins to stop.
pub fn stopping() {
    send("STOPPING=1");
}

/// The unit's main process in place of this one. It ends when this is dropped, and so when this
/// process ends: it holds the other end of the pipe.
#[derive(Debug)]
pub struct StandIn(#[expect(dead_code, reason = "it is closed when it is dropped")] OwnedFd);

/// Names another process as the unit's main process: one that does nothing, and ends when it is
/// told to. So the service manager can end that one and start fived anew, while this process
/// finishes what it has. If nobody does, the unit ends with this process. Without a service
/// manager, nothing is done. To be called while this process has one thread. Errors: no process can
/// be made.
pub fn stand_in() -> io::Result<Option<StandIn>> {
    if !is_awaited() {
        return Ok(None);
    }
    let (reader, writer) = pipe::ends()?;
    let wait = || {
        let ended = Signals::new(&[Signal::TERM, Signal::INT]).and_then(|signals| {
            let ends = [signals.as_fd(), reader.as_fd()];
            poll::wait(&mut ends.map(|fd| Poll::new(fd, true, false)), None)
        });
        u8::from(ended.is_err())
    };
    let pid = process::branch(&[reader.as_raw_fd()], wait)?;
    // That process gives no signs of life.
    let none = silence(|| silence_max().map(|_| Duration::ZERO));
    send(&format!("MAINPID={pid}{none}"));
    Ok(Some(StandIn(writer)))
}

/// Errors are ignored: a service manager that does not listen needs no state.
fn send(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let _ = address.and_then(|a| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &a)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const TASK: &str = "FIVED_TEST_NOTIFY";

    #[test]
    fn inside() {
        if env::var_os(TASK).is_some() {
            ready();
            reloading();
            stopping();
        }
    }

    #[test]
    fn the_manager_is_notified() {
        let name = format!("fived-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let ended = Command::new("/proc/self/exe")
            .args(["--exact", "sys::notify::tests::inside"])
            .env(TASK, "1")
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .output()
            .unwrap();
        assert!(ended.status.success());
        let next = || {
            let mut b = [0; 100];
            let n = manager.recv(&mut b).unwrap();
            String::from_utf8(b[..n].to_vec()).unwrap()
        };
        assert_eq!(next(), "READY=1");
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(next(), "STOPPING=1");
    }

    #[test]
    fn another_process_s_sockets_are_not_taken() {
        let l = socket::listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(is_listening(l.as_fd()).unwrap());
        let (a, _b) = socket::pair().unwrap();
        assert!(!is_listening(a.as_fd()).unwrap());
        assert!(listen_fds().unwrap().is_empty());
    }
}
