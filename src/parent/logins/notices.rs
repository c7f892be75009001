//! What login children report. Warnings about files of keys that do not count are logged here, at
//! most one a minute for each file, unless the reason is another.

use crate::log;
use crate::wire::login::{HASH, Report};
use std::collections::HashMap;
use std::time::Duration;

/// Between two warnings about a file for one reason.
const PAUSE: Duration = Duration::from_secs(60);
/// Files remembered at most. Where more files than this are wrong within a minute, the log has
/// nothing about the rest.
const FILES_MAX: usize = 1024;

/// When the last warning about a file was logged, and its reason, by the file's path.
#[derive(Debug, Default)]
pub struct Notices(HashMap<Vec<u8>, (Duration, Vec<u8>)>);

impl Notices {
    /// May a warning about this file be logged now? If so, it counts as logged.
    fn is_due(&mut self, path: &[u8], why: &[u8], now: Duration) -> bool {
        if self.0.len() >= FILES_MAX {
            self.0.retain(|_, (last, _)| *last + PAUSE > now);
        }
        let due = match self.0.get(path) {
            Some((last, reason)) => *last + PAUSE <= now || reason != why,
            None => self.0.len() < FILES_MAX,
        };
        if due {
            self.0.insert(path.into(), (now, why.into()));
        }
        due
    }

    /// Logs the warnings about files, and returns the rest.
    pub fn sort(&mut self, reports: Vec<Report>, now: Duration) -> Reported {
        let mut reported = Reported::default();
        for report in reports {
            match report {
                Report::Signed { text, key } => reported.signed = Some((text, key)),
                Report::OtherKey { key } => reported.other_key = Some(key),
                Report::Why(why) => reported.why = Some(String::from_utf8_lossy(&why).into_owned()),
                Report::NotCounted { path, why } if self.is_due(&path, &why, now) => {
                    let path = String::from_utf8_lossy(&path);
                    let why = String::from_utf8_lossy(&why);
                    log::warn(&format!("{path}: this file of keys does not count: {why}"));
                }
                Report::NotCounted { .. } => {}
            }
        }
        reported
    }
}

/// What a child has reported about its try.
#[derive(Debug, Default)]
pub struct Reported {
    /// SHA-256 of the text that was signed, and of the user's own key that signed it.
    pub signed: Option<([u8; HASH], [u8; HASH])>,
    /// SHA-256 of a key that signed and is not the user's.
    pub other_key: Option<[u8; HASH]>,
    /// Why the try failed.
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_a_file_and_reason() {
        let (mut n, s) = (Notices::default(), Duration::from_secs);
        let mut due = |path: &str, why: &str, at| n.is_due(path.as_bytes(), why.as_bytes(), s(at));
        assert!(due("/a", "mode", 10) && !due("/a", "mode", 69) && due("/b", "mode", 69));
        assert!(due("/a", "mode", 70));
        // Whoever has mended one thing must learn of the next.
        assert!(due("/a", "owner", 71) && !due("/a", "owner", 130) && due("/a", "mode", 130));
        let more = (0..FILES_MAX).filter(|i| due(&format!("/{i}"), "mode", 131)).count();
        assert!(more == FILES_MAX - 1 && !due("/new", "mode", 132) && due("/new", "mode", 200));
        assert!(n.0.len() <= FILES_MAX);
    }
}
