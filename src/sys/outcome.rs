//! How a reload's outcome reaches whoever asked for it (`fived --reload`).
//!
//! The asker binds a datagram socket of an abstract name (unix(7)) that nobody can guess, and sends
//! SIGHUP with that name's number as the signal's value (sigqueue(3)). A SIGHUP that is sent while
//! another one is pending is lost, with its value: so the daemon acknowledges at once, with one
//! datagram, and the asker repeats its signal until then. The outcome is one more datagram. The
//! daemon never waits. The asker takes an answer only from the process that it signalled
//! (SCM_CREDENTIALS).

use super::check;
use super::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How soon an asker repeats its signal while it was not acknowledged.
pub const REPEAT: Duration = Duration::from_millis(50);
/// Bytes of an answer at most; what is longer is cut after a line.
const MAX: usize = 60_000;
/// The acknowledgement. No outcome is this line.
const NOTED: &str = "noted\n";

/// The number that is the signal's value, and from which the socket's name is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker(pub u64);

impl Asker {
    fn address(self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("fived-reload-{:016x}", self.0))
    }

    /// Says that the question has come, so that it is not repeated. Errors: as `tell`.
    pub fn acknowledge(self) -> io::Result<()> {
        self.tell(NOTED)
    }

    /// Sends the outcome. Errors: the asker has ended, or receives nothing.
    pub fn tell(self, text: &str) -> io::Result<()> {
        let end = if text.len() <= MAX {
            text.len()
        } else {
            text.as_bytes()[..MAX].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1)
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(&text.as_bytes()[..end], &self.address()?).map(drop)
    }
}

/// What the process that was asked has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It has the question.
    Noted,
    Outcome(String),
}

/// The asker's end.
#[derive(Debug)]
pub struct Question {
    asker: Asker,
    socket: UnixDatagram,
}

impl Question {
    /// Errors: the system has no socket, or no random bytes.
    pub fn new() -> io::Result<Question> {
        let mut number = [0; 8];
        // SAFETY: 8 bytes are written.
        let n = unsafe { libc::getrandom(number.as_mut_ptr().cast(), number.len(), 0) };
        if usize::try_from(n) != Ok(number.len()) {
            return Err(io::Error::last_os_error());
        }
        // Not 0, which is the value of a signal without one.
        let asker = Asker(u64::from_ne_bytes(number) | 1);
        let socket = UnixDatagram::bind_addr(&asker.address()?)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Question { asker, socket })
    }

    /// SIGHUP with our number to that process. ESRCH: there is no such process; EPERM: it is
    /// another user's.
    pub fn ask(&self, pid: i32) -> io::Result<()> {
        let value = libc::sigval { sival_ptr: self.asker.0 as usize as *mut libc::c_void };
        // SAFETY: the value is only a number for both sides.
        check(unsafe { libc::sigqueue(pid, Signal::HUP.number(), value) }).map(drop)
    }

    /// Is there still a process of that id?
    pub fn reaches(&self, pid: i32) -> bool {
        // SAFETY: no signal is sent.
        check(unsafe { libc::kill(pid, 0) }).is_ok()
    }

    /// What that process says next. None: nothing within `time`.
    pub fn answer(&self, pid: i32, time: Duration) -> io::Result<Option<Said>> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut bytes = vec![0; MAX];
            let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let (n, from) = match recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::empty(),
            ) {
                Ok(m) => {
                    let from = m.cmsgs()?.find_map(|c| match c {
                        ControlMessageOwned::ScmCredentials(c) => Some(c.pid()),
                        _ => None,
                    });
                    (m.bytes, from)
                }
                Err(e) => match io::Error::from(e) {
                    e if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                        continue;
                    }
                    e => return Err(e),
                },
            };
            if from == Some(pid) {
                bytes.truncate(n);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some(if text == NOTED { Said::Noted } else { Said::Outcome(text) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_bounded_datagram_of_the_process_that_was_asked() {
        let (me, question) = (std::process::id() as i32, Question::new().unwrap());
        let asker = question.asker;
        assert_eq!(question.answer(me, Duration::from_millis(1)).unwrap(), None);
        asker.tell(&"line\n".repeat(MAX)).unwrap();
        let said = question.answer(me, Duration::from_secs(5)).unwrap();
        let Some(Said::Outcome(text)) = said else { panic!("{said:?}") };
        assert!(text.len() <= MAX && text.len() > MAX - 5 && text.ends_with("line\n"));
        asker.acknowledge().unwrap();
        assert_eq!(question.answer(me, Duration::from_secs(5)).unwrap(), Some(Said::Noted));
        // What somebody else says is no answer.
        asker.tell("refused").unwrap();
        assert_eq!(question.answer(me + 1, Duration::from_millis(50)).unwrap(), None);
    }
}
