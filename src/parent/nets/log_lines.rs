//! The lines that net processes write for the log. They write them to a socket that is their
//! standard error, because they have no descriptor of the log itself. So an attacker who controls a
//! net process can write only lines that begin with `net: `, or that only `-d` shows; without `-d`,
//! only [`LINES_MAX`] in each [`WINDOW`], and then how many were left out.

use crate::log;
use crate::parent::context::Context;
use crate::parent::descriptors::own;
use crate::parent::tokens::NetLogToken;
use crate::sys::shared::Shared;
use crate::sys::{clock, local, message, poll};
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Bytes of a message: as many as `sys::output` writes at once. A longer one is lost.
const MESSAGE_MAX: usize = 4096;
/// Messages that are read from a net process that has ended.
const LAST_MAX: usize = 64;
/// How long lines are counted together, and how many are logged in that time.
const WINDOW: Duration = Duration::from_secs(10);
const LINES_MAX: u32 = 100;

/// The parent's ends of these sockets, by token.
#[derive(Default)]
pub struct NetLog(HashMap<NetLogToken, Source>);

/// A socket, and the lines that came through it.
struct Source {
    fd: Shared,
    /// None: all lines are logged, because fived is being debugged.
    rate: Option<Rate>,
}

/// The lines of a window.
#[derive(Default)]
struct Rate {
    until: Duration,
    logged: u32,
    /// How many were left out.
    more: u64,
}

impl Rate {
    /// A line has come. Is it logged?
    fn is_logged(&mut self, now: Duration) -> bool {
        if now >= self.until {
            self.over();
            *self = Rate { until: now + WINDOW, ..Rate::default() };
        }
        let logged = self.logged < LINES_MAX;
        self.logged += u32::from(logged);
        self.more += u64::from(!logged);
        logged
    }

    /// The window is over.
    fn over(&mut self) {
        if self.more > 0 {
            log::warn(&format!("net: more={} lines like these", self.more));
        }
    }
}

impl NetLog {
    pub fn has(&self, token: NetLogToken) -> bool {
        self.0.contains_key(&token)
    }

    /// Makes the socket of a new net process. Returns the token of the parent's end, and the end
    /// that becomes the process's standard error.
    pub fn add(&mut self, cx: &mut Context) -> io::Result<(NetLogToken, OwnedFd)> {
        let (ours, theirs) = own::channel()?;
        let token = cx.new_token();
        cx.registry().register(&mut SourceFd(&ours.as_raw_fd()), token, Interest::READABLE)?;
        let all = cx.options.debug > 0 || std::env::var_os("RUST_LOG").is_some();
        self.0.insert(
            token.into(),
            Source { fd: local::without_rights(ours), rate: (!all).then(Rate::default) },
        );
        Ok((token.into(), theirs))
    }

    /// Reads one message and logs its lines. False: no message waits.
    pub fn read(&mut self, token: NetLogToken) -> bool {
        match self.receive(token) {
            // An empty message, or the end, before which more may be: `finish` reads it.
            Some(0) => !self.0.get(&token).is_some_and(|s| poll::has_hung(s.fd.as_fd())),
            received => received.is_some(),
        }
    }

    /// The size of the message whose lines were logged.
    fn receive(&mut self, token: NetLogToken) -> Option<usize> {
        let source = self.0.get_mut(&token)?;
        let mut bytes = [0; MESSAGE_MAX];
        // Descriptors that come with it are closed elsewhere, as with any message.
        match message::receive(source.fd.as_fd(), &mut bytes) {
            Ok((n, _)) => {
                let now = clock::monotonic();
                String::from_utf8_lossy(&bytes[..n])
                    .lines()
                    .filter(|l| !l.is_empty())
                    .filter(|_| source.rate.as_mut().is_none_or(|rate| rate.is_logged(now)))
                    .for_each(pass);
                Some(n)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) if e.kind() == ErrorKind::InvalidData => Some(bytes.len()),
            Err(_) => {
                self.0.remove(&token);
                None
            }
        }
    }

    /// Reads the last messages of a process that has ended, and closes its socket.
    pub fn finish(&mut self, token: NetLogToken) {
        for _ in 0..LAST_MAX {
            if self.receive(token).is_none() {
                break;
            }
        }
        if let Some(mut rate) = self.0.remove(&token).and_then(|source| source.rate) {
            rate.over();
        }
    }
}

/// Logs a line of a net process, at its own level if that is below a warning.
fn pass(line: &str) {
    const DEBUGGING: [&str; 3] = ["DEBUG ", "TRACE ", "INFO "];
    if DEBUGGING.iter().any(|head| line.starts_with(head)) {
        return log::pass(line);
    }
    let text = line.strip_prefix("WARN ").unwrap_or(line);
    let named = if text.starts_with("net: ") { text.to_string() } else { format!("net: {text}") };
    log::pass(&format!("WARN {named}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    #[test]
    fn lines_have_a_rate() {
        let mut rate = Rate::default();
        let mut logged =
            |at: u64| (0..1000).filter(|_| rate.is_logged(Duration::from_secs(at))).count() as u32;
        assert_eq!([100, 109, 110].map(&mut logged), [LINES_MAX, 0, LINES_MAX]);
        assert_eq!(rate.more, 900);
    }

    /// A message of no bytes is not the end: what the C library and the address sanitizer say at
    /// the end comes in many pieces, and some of them are empty.
    #[test]
    fn an_empty_message_is_not_the_end() {
        let (ours, theirs) = own::channel().unwrap();
        let one = NetLogToken::from(mio::Token(1));
        let mut log = NetLog(HashMap::from([(one, Source { fd: ours.into(), rate: None })]));
        let say = |text: &[u8]| socket::send(theirs.as_fd(), text).unwrap();
        [b"DEBUG a".as_slice(), b"", b"", b"DEBUG b"].into_iter().for_each(|text| {
            say(text);
        });
        assert_eq!([(); 5].map(|()| log.read(one)), [true, true, true, true, false]);
        say(b"");
        say(b"DEBUG c");
        drop(theirs);
        // It may be followed by more, as here, or by nothing for ever.
        assert!(!log.read(one) && log.has(one));
        log.finish(one);
        assert!(!log.has(one));
    }
}
