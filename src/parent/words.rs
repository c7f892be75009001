//! What net processes say for the log: each has a socket of its own for that, its standard error,
//! and no descriptor of the log itself. Whoever takes one over can say only lines that bear its
//! name, or that only debugging shows.

use super::channel::Broken;
use super::run::Parent;
use crate::log;
use crate::sys::socket;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Bytes of a message: what `sys::output` writes at once, and more is cut.
const MESSAGE: usize = 4096;
/// Messages that are heard of a net process that has ended.
const LAST: usize = 64;

/// The parent's ends, by their tokens.
#[derive(Default)]
pub struct Words(HashMap<usize, OwnedFd>);

impl Words {
    pub fn has(&self, token: usize) -> bool {
        self.0.contains_key(&token)
    }
}

impl Parent {
    /// A place for the words of a new net process: its token, and the end that becomes the
    /// process's standard error.
    pub fn new_words(&mut self) -> io::Result<(usize, OwnedFd)> {
        let (ours, theirs) = socket::seqpacket()?;
        let token = self.new_token();
        self.poll.registry().register(
            &mut SourceFd(&ours.as_raw_fd()),
            Token(token),
            Interest::READABLE,
        )?;
        self.words.0.insert(token, ours);
        Ok((token, theirs))
    }

    /// One message of it. Ok(false): there is none now.
    pub fn words(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(fd) = self.words.0.get(&token) else { return Ok(false) };
        let mut bytes = [0; MESSAGE];
        match socket::receive(fd.as_fd(), &mut bytes) {
            Ok(n @ 1..) => {
                String::from_utf8_lossy(&bytes[..n])
                    .lines()
                    .filter(|l| !l.is_empty())
                    .for_each(say);
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            _ => {
                // Nobody has the other end any more.
                self.words.0.remove(&token);
                Ok(false)
            }
        }
    }

    /// The process has ended: its last words.
    pub fn last_words(&mut self, token: usize) {
        for _ in 0..LAST {
            if !matches!(self.words(token), Ok(true)) {
                break;
            }
        }
        self.words.0.remove(&token);
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
