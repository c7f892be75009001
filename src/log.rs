//! One event, one line: `VERB key=value ...`.
//!
//! In a log file each line begins with the time (RFC 3339, UTC, with milliseconds) and a blank.
//! Values are escaped, so that an event stays one line and a value one word; a line has at most
//! [`LINE_MAX`] bytes. A log that cannot be written never blocks fived: lines that do not fit into
//! [`HELD_MAX`] bytes are dropped and counted, and the count is logged (`WARN lost N lines`) as
//! soon as the log can be written again. Debug lines (the `log` crate) go the same way.

use crate::sys::clock;
use crate::sys::output::Output;
use crate::wire::word::escape;
pub use crate::wire::word::word;
use std::fmt::{Display, Write as _};
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes of a line at most, with its newline.
pub const LINE_MAX: usize = 1000;
/// Bytes of a value at most: what a stranger sends must not push the words after it off the line.
const WORD_MAX: usize = 384;
/// Bytes that are held at most while the log cannot be written.
pub const HELD_MAX: usize = 64 * 1024;
/// How long an output may take to write what it has, before another one follows it: milliseconds.
const OLD_OUTPUT: u32 = 100;
const MILLI: Duration = Duration::from_millis(1);

/// A line that is being written.
#[derive(Debug, Clone)]
pub struct Event(String);

impl Event {
    /// Begins a line with its verb.
    pub fn new(verb: &'static str) -> Event {
        let mut line = String::with_capacity(128);
        line.push_str(verb);
        Event(line)
    }

    /// `key=value`. Control bytes, blanks, `\` and bytes that are not ASCII become `\xNN`; the
    /// result is cut after 384 bytes.
    pub fn word(mut self, key: &str, value: impl AsRef<[u8]>) -> Event {
        self.key(key);
        let start = self.0.len();
        escape(&mut self.0, bounded(value.as_ref()), false);
        self.0.truncate(start + WORD_MAX);
        self
    }

    /// `key=N`
    pub fn number(mut self, key: &str, n: impl Into<i128>) -> Event {
        self.key(key);
        let _ = write!(self.0, "{}", n.into());
        self
    }

    /// `key=value`, where no value needs an escape: an address, say.
    pub fn value(mut self, key: &str, value: impl Display) -> Event {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    /// `key=S.mmm`
    pub fn seconds(mut self, key: &str, d: Duration) -> Event {
        self.key(key);
        let _ = write!(self.0, "{}.{:03}", d.as_secs(), d.subsec_millis());
        self
    }

    /// A sentence at the line's end; blanks stay.
    pub fn text(mut self, text: &str) -> Event {
        self.0.push(' ');
        escape(&mut self.0, bounded(text.as_bytes()), true);
        self
    }

    fn key(&mut self, key: &str) {
        self.0.push(' ');
        self.0.push_str(key);
        self.0.push('=');
    }

    /// Writes the line to the log.
    pub fn put(self) {
        log().line(&self.0);
    }
}

/// No more of it fits into a line.
fn bounded(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(LINE_MAX)]
}

/// Logs a sentence as it is, without a verb (`listening on ADDRESS`).
pub fn say(text: &str) {
    let mut line = String::new();
    escape(&mut line, bounded(text.as_bytes()), true);
    log().line(&line);
}

/// Logs a line whose values are escaped already, by another process of fived, say: printable
/// characters stay as they are.
pub fn pass(text: &str) {
    let mut line = String::new();
    for &b in bounded(text.as_bytes()) {
        match b {
            b' '..=b'~' => line.push(char::from(b)),
            _ => {
                let _ = write!(line, "\\x{b:02x}");
            }
        }
    }
    log().line(&line);
}

/// `WARN sentence`
pub fn warn(text: &str) {
    Event::new("WARN").text(text).put();
}

/// Sets where lines go from now on. Lines that are held, and those that were kept, go there, too.
pub fn open(output: Output) {
    for _ in 0..OLD_OUTPUT {
        if log().output.is_done() {
            break;
        }
        std::thread::sleep(MILLI);
    }
    let mut log = log();
    log.output = output;
    if let Some(kept) = log.kept.take() {
        let mut lines = Vec::with_capacity(kept.len());
        for line in kept.split_inclusive(|&b| b == b'\n') {
            lines.extend_from_slice(log.time().as_bytes());
            lines.extend_from_slice(line);
        }
        log.held.splice(0..0, lines);
    }
}

/// From now on keeps a copy of what is written, until another output is opened, which then gets it.
pub fn keep() {
    log().kept = Some(Vec::new());
}

/// Writes as much of what is held as the log takes. True if nothing is left.
pub fn flush() -> bool {
    log().flush()
}

/// Waits up to `millis` for the log to take what is held, and to write it; for the end of the
/// process.
pub fn finish(millis: u32) {
    for _ in 0..millis {
        if flush() && log().output.is_done() {
            return;
        }
        std::thread::sleep(MILLI);
    }
}

/// Starts the debug lines: `-d` once is `debug`, twice `trace`; RUST_LOG overrides it. Without
/// either, libraries say nothing: rustls warns of what strangers send.
pub fn debug(level: usize) {
    let default = ["fived=warn", "debug", "trace"][level.min(2)];
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| default.into());
    env_logger::Builder::new()
        .parse_filters(&filter)
        .format(|out, r| {
            use io::Write;
            writeln!(out, "{} {}: {}", r.level(), r.target(), r.args())
        })
        .target(env_logger::Target::Pipe(Box::new(Debug)))
        .init();
}

/// Writes debug lines to the same log, one line a write.
struct Debug;

impl io::Write for Debug {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = String::new();
        escape(&mut line, bounded(bytes.trim_ascii_end()), true);
        log().line(&line);
        log().flush();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Log {
    output: Output,
    held: Vec<u8>,
    /// A copy of lines that were written, for an output that is opened later.
    kept: Option<Vec<u8>>,
    lost: u64,
}

fn log() -> MutexGuard<'static, Log> {
    static LOG: OnceLock<Mutex<Log>> = OnceLock::new();
    LOG.get_or_init(|| {
        Mutex::new(Log { output: Output::stderr(false), held: Vec::new(), kept: None, lost: 0 })
    })
    .lock()
    .unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn line(&mut self, line: &str) {
        let time = self.time();
        let line = &line.as_bytes()[..line.len().min(LINE_MAX - 1 - time.len())];
        let size = time.len() + line.len() + 1;
        if self.held.len() + size > HELD_MAX {
            self.flush();
        }
        if self.lost > 0 || self.held.len() + size > HELD_MAX {
            self.lost += 1;
            return;
        }
        self.held.extend_from_slice(time.as_bytes());
        self.held.extend_from_slice(line);
        self.held.push(b'\n');
    }

    /// What a line begins with.
    fn time(&self) -> String {
        if self.output.wants_time() { clock::now() + " " } else { String::new() }
    }

    fn flush(&mut self) -> bool {
        loop {
            if self.held.is_empty() && self.lost == 0 {
                return true;
            }
            let taken = self.output.write(&self.held);
            if let Some(kept) = &mut self.kept
                && kept.len() + taken <= HELD_MAX / 2
            {
                kept.extend_from_slice(&self.held[..taken]);
            }
            self.held.drain(..taken);
            if !self.held.is_empty() {
                return false;
            }
            if self.lost == 0 {
                return true;
            }
            let lost = std::mem::take(&mut self.lost);
            self.held
                .extend_from_slice(format!("{}WARN lost {lost} lines\n", self.time()).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_line_and_a_word_a_word() {
        let e = Event::new("REFUSE")
            .word("service", b"a b\r\nSTART x=\x1b[2J\\")
            .number("pid", 7)
            .text("two words");
        assert_eq!(e.0, "REFUSE service=a\\x20b\\x0d\\x0aSTART\\x20x=\\x1b[2J\\\\ pid=7 two words");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let output = Output::file("/dev/full").unwrap();
        let mut log = Log { output, held: Vec::new(), kept: None, lost: 0 };
        let n = HELD_MAX / LINE_MAX;
        for _ in 0..n + 5 {
            log.line(&"x".repeat(2 * LINE_MAX));
        }
        assert_eq!((log.held.len(), log.lost), (n * LINE_MAX, 5));
        assert!(!log.flush());
    }
}
