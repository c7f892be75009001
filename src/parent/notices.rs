//! What a login child says of files of keys that do not count: a line each, not more than once a
//! minute a file.

use crate::log;
use crate::wire::login::{HASH, Report};
use std::collections::HashMap;
use std::time::Duration;

/// How long nothing more is said of a file.
const AGAIN: Duration = Duration::from_secs(60);
/// Files remembered at most. Where more than so many are wrong within a minute, nothing is said of
/// the rest.
const FILES: usize = 1024;

/// When something was last said of a file, by its path.
#[derive(Debug, Default)]
pub struct Notices(HashMap<Vec<u8>, Duration>);

impl Notices {
    /// May something be said of this file now? Then it was.
    fn is_due(&mut self, path: &[u8], now: Duration) -> bool {
        if self.0.len() >= FILES {
            self.0.retain(|_, said| *said + AGAIN > now);
        }
        let due = match self.0.get(path) {
            Some(said) => *said + AGAIN <= now,
            None => self.0.len() < FILES,
        };
        if due {
            self.0.insert(path.into(), now);
        }
        due
    }

    /// Says what there is to say of files, and returns the rest.
    pub fn hear(&mut self, reports: Vec<Report>, now: Duration) -> Heard {
        let mut heard = Heard::default();
        for report in reports {
            match report {
                Report::Signed { text, key } => heard.signed = Some((text, key)),
                Report::OtherKey { key } => heard.key = Some(key),
                Report::Why(why) => heard.why = Some(String::from_utf8_lossy(&why).into_owned()),
                Report::NotCounted { path, why } if self.is_due(&path, now) => {
                    let path = String::from_utf8_lossy(&path);
                    let why = String::from_utf8_lossy(&why);
                    log::warn(&format!("{path}: this file of keys does not count: {why}"));
                }
                Report::NotCounted { .. } => {}
            }
        }
        heard
    }
}

/// What a child has reported.
#[derive(Debug, Default)]
pub struct Heard {
    /// SHA-256 of the text that was signed, and of the user's own key that signed it.
    pub signed: Option<([u8; HASH], [u8; HASH])>,
    /// SHA-256 of a key that signed and is not the user's.
    pub key: Option<[u8; HASH]>,
    /// Why it did not let somebody in.
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
        let more = (0..FILES).filter(|i| n.is_due(format!("/{i}").as_bytes(), s(71))).count();
        assert_eq!((more, n.0.len()), (FILES - 2, FILES));
        assert!(!n.is_due(b"/new", s(72)) && n.is_due(b"/new", s(140)));
    }
}
