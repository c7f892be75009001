//! The lines that net processes write for the log: to a socket that is their standard error,
//! because they have no descriptor of the log itself. Whoever takes a net process over can write
//! only lines that begin with `net: `, or that only `-d` shows.

use super::context::Context;
use super::descriptors::own;
use crate::log;
use crate::sys::socket;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Bytes of a message: what `sys::output` writes at once, and more is cut.
const MESSAGE: usize = 4096;
/// Messages that are read from a net process that has ended, at most.
const LAST: usize = 64;

/// The parent's ends, by their tokens.
#[derive(Default)]
pub struct Words(HashMap<usize, OwnedFd>);

impl Words {
    pub fn has(&self, token: usize) -> bool {
        self.0.contains_key(&token)
    }

    /// The socket of a new net process: its token, and the end that becomes the process's standard
    /// error.
    pub fn add(&mut self, cx: &mut Context) -> io::Result<(usize, OwnedFd)> {
        let (ours, theirs) = own::channel()?;
        let token = cx.new_token();
        cx.registry().register(
            &mut SourceFd(&ours.as_raw_fd()),
            Token(token),
            Interest::READABLE,
        )?;
        self.0.insert(token, ours);
        Ok((token, theirs))
    }

    /// Reads one message and logs it. False: no message waits.
    pub fn hear(&mut self, token: usize) -> bool {
        let Some(fd) = self.0.get(&token) else { return false };
        let mut bytes = [0; MESSAGE];
        match socket::receive(fd.as_fd(), &mut bytes) {
            Ok(n @ 1..) => {
                String::from_utf8_lossy(&bytes[..n])
                    .lines()
                    .filter(|l| !l.is_empty())
                    .for_each(say);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            _ => {
                // Nobody has the other end any more.
                self.0.remove(&token);
                false
            }
        }
    }

    /// The process has ended: its last messages are read.
    pub fn last(&mut self, token: usize) {
        for _ in 0..LAST {
            if !self.hear(token) {
                break;
            }
        }
        self.0.remove(&token);
    }
}

fn say(line: &str) {
    const DEBUGGING: [&str; 3] = ["DEBUG ", "TRACE ", "INFO "];
    if DEBUGGING.iter().any(|head| line.starts_with(head)) {
        return log::pass(line);
    }
    let text = line.strip_prefix("WARN ").unwrap_or(line);
    let named = if text.starts_with("net: ") { text.to_string() } else { format!("net: {text}") };
    log::pass(&format!("WARN {named}"));
}
