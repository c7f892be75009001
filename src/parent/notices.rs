//! What login children report. Warnings about files of keys that do not count are logged here, at
//! most one a minute for each file.

use crate::log;
use crate::wire::login::{HASH, Report};
use std::collections::HashMap;
use std::time::Duration;

/// Between two warnings about a file.
const PAUSE: Duration = Duration::from_secs(60);
/// Files remembered at most. Where more files than this are wrong within a minute, the log has
/// nothing about the rest.
const FILES_MAX: usize = 1024;

/// When the last warning about a file was logged, by its path.
#[derive(Debug, Default)]
pub struct Notices(HashMap<Vec<u8>, Duration>);

impl Notices {
    /// May a warning about this file be logged now? If so, it counts as logged.
    fn is_due(&mut self, path: &[u8], now: Duration) -> bool {
        if self.0.len() >= FILES_MAX {
            self.0.retain(|_, last| *last + PAUSE > now);
        }
        let due = match self.0.get(path) {
            Some(last) => *last + PAUSE <= now,
            None => self.0.len() < FILES_MAX,
        };
        if due {
            self.0.insert(path.into(), now);
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
                Report::NotCounted { path, why } if self.is_due(&path, now) => {
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
    fn once_a_minute_a_file() {
        let (mut n, s) = (Notices::default(), Duration::from_secs);
        assert!(
            n.is_due(b"/a", s(10))
                && !n.is_due(b"/a", s(69))
                && n.is_due(b"/b", s(69))
                && n.is_due(b"/a", s(70))
        );
        let more = (0..FILES_MAX).filter(|i| n.is_due(format!("/{i}").as_bytes(), s(71))).count();
        assert_eq!((more, n.0.len()), (FILES_MAX - 2, FILES_MAX));
        assert!(!n.is_due(b"/new", s(72)) && n.is_due(b"/new", s(140)));
    }
}
