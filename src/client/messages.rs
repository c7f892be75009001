//! What five says to the person, on standard error: nothing (-q), what went wrong, or each step too
//! (-v).

use super::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Quiet,
    Usual,
    Steps,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Usual as u8);

pub fn set(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

fn says(level: Level) -> bool {
    LEVEL.load(Ordering::Relaxed) >= level as u8
}

/// Are steps told?
pub fn steps() -> bool {
    says(Level::Steps)
}

/// A sentence, of one line or more.
pub fn say(text: &str) {
    if says(Level::Usual) {
        put(text);
    }
}

/// What is said whatever was asked for: that a server is not trusted.
pub fn insist(text: &str) {
    put(text);
}

/// One step, for -v.
pub fn step(text: &str) {
    if says(Level::Steps) {
        put(text);
    }
}

fn put(text: &str) {
    // Where standard error is closed nobody can be told.
    let _ = std::io::stderr().write_all(format!("five: {text}\n").as_bytes());
}

/// What went wrong, after what it is about.
pub fn error(about: &str, e: &Error) {
    let text = format!("{about}{e}");
    if e.is_distrust() { insist(&text) } else { say(&text) }
}

/// Says why five ends; its exit status.
pub fn fail(e: &Error) -> i32 {
    error("", e);
    e.status()
}
