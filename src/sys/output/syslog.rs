//! Syslog's socket (syslog(3)). A process beside this one looks for it (`sys::side_process`):
//! whoever may list /dev can keep it locked (`sys::directory_calls`), and as long as there is no
//! syslog its name has to be looked for there each time.

use crate::sys::message;
use crate::sys::poll::{self, Poll};
use crate::sys::shared::Shared;
use crate::sys::{side_process, socket};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

pub const SYSLOG: &str = "/dev/log";
pub(super) const WARN: &[u8] = b"WARN ";
/// The priority of warnings, as RFC 5424, 6.2.1 numbers it.
pub(super) const WARNING: u8 = 4;

/// What ps(1) calls the process.
const NAME: &str = "fived-log";
/// How long the log waits for syslog, when it is opened and later. What is logged meanwhile is
/// kept.
const FIRST: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_millis(20);
/// A syslog that is not there is not looked for again before.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Syslog {
    facility: u8,
    level: u8,
    /// Connected.
    socket: Option<UnixDatagram>,
    /// From where a connected one will come.
    sought: Option<OwnedFd>,
    /// When one was looked for in vain.
    missed: Option<Instant>,
}

impl Syslog {
    /// `facility` and `level` as RFC 5424, 6.2.1 numbers them.
    pub fn new(facility: u8, level: u8) -> Syslog {
        let mut syslog = Syslog { facility, level, socket: None, sought: None, missed: None };
        syslog.connect(FIRST);
        syslog
    }

    /// One datagram a line; returns how many bytes syslog has taken.
    pub fn write(&mut self, lines: &[u8]) -> usize {
        let mut done = 0;
        for line in lines.split_inclusive(|&b| b == b'\n') {
            let level = if line.starts_with(WARN) { self.level.min(WARNING) } else { self.level };
            let priority = u32::from(self.facility) * 8 + u32::from(level);
            let prefix = format!("<{priority}>fived[{}]: ", std::process::id());
            let packet = [prefix.as_bytes(), line.strip_suffix(b"\n").unwrap_or(line)].concat();
            if !self.send(&packet) {
                break;
            }
            done += line.len();
        }
        done
    }

    fn send(&mut self, packet: &[u8]) -> bool {
        match self.socket.as_ref().map(|socket| socket.send(packet)) {
            Some(Ok(_)) => return true,
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => return false,
            Some(Err(_)) | None => self.socket = None,
        }
        self.connect(LATER);
        self.socket.as_ref().is_some_and(|socket| socket.send(packet).is_ok())
    }

    /// Waits so long at most, and not at all for one that is sought already.
    fn connect(&mut self, wait: Duration) {
        if self.missed.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        let (sought, wait) = match self.sought.take() {
            Some(sought) => (sought, Duration::ZERO),
            None => match seek() {
                Ok(sought) => (sought, wait),
                Err(_) => return self.missed = Some(Instant::now()),
            },
        };
        if !poll::wait(&mut [Poll::new(sought.as_fd(), true, false)], Some(wait))
            .is_ok_and(|n| n > 0)
        {
            self.sought = Some(sought);
            return;
        }
        let found = message::receive(sought.as_fd(), &mut [0; 1]);
        self.socket =
            found.ok().and_then(|(_, mut fds)| fds.take()).map(|fd| Shared::our_own(fd).into());
        self.missed = self.socket.is_none().then(Instant::now);
    }
}

/// Begins to look for syslog.
fn seek() -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::seqpacket()?;
    side_process::run(NAME, theirs, |to| {
        // Where there is none, nothing is sent.
        let _ = connected().and_then(|found| message::send_waiting(to, &[0], &[found.as_fd()]));
    })?;
    Ok(ours)
}

fn connected() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}
