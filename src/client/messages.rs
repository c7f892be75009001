//! What five prints on standard error: nothing (-q), what went wrong, or each step too (-v).

use super::error::Error;
use crate::sys::terminal;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Quiet,
    Normal,
    Verbose,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Normal as u8);

pub fn set(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

fn is_on(level: Level) -> bool {
    LEVEL.load(Ordering::Relaxed) >= level as u8
}

/// Are steps printed?
pub fn steps() -> bool {
    is_on(Level::Verbose)
}

/// Prints a message, of one line or more, unless -q.
pub fn info(text: &str) {
    if is_on(Level::Normal) {
        write(text);
    }
}

/// Prints a message even with -q: that a server is not trusted.
pub fn always(text: &str) {
    write(text);
}

/// Prints why a call waits for its session's connection; `distrust`: what answers there is not
/// trusted.
pub fn outage(text: &str, distrust: bool) {
    if distrust { always(text) } else { info(text) }
}

/// Prints a step, with -v only.
pub fn step(text: &str) {
    if is_on(Level::Verbose) {
        write(text);
    }
}

fn write(text: &str) {
    show(&format!("five: {text}\n"));
}

/// Shows a text as it is; each line begins at the left, even while a service has the terminal.
pub fn show(text: &str) {
    let returned = terminal::errors_are_raw().then(|| text.replace('\n', "\r\n"));
    // If standard error is closed there is nowhere to report that.
    let _ = std::io::stderr().write_all(returned.as_deref().unwrap_or(text).as_bytes());
}

/// Prints an error; `about` goes before it.
pub fn error(about: &str, e: &Error) {
    let text = format!("{about}{e}");
    if e.is_distrust() { always(&text) } else { info(&text) }
}

/// Prints why five ends, and returns the exit status.
pub fn fail(e: &Error) -> i32 {
    error("", e);
    e.status()
}
