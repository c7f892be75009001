//! `~/.config/five/known_hosts`: what is known about servers, one line each.
//!
//! `HOST:PORT sha256//BASE64` is a key that somebody accepted; `HOST:PORT vouched` says that the
//! system's roots vouched for the certificate of this server. `#` begins a comment, at a line's
//! beginning or after white space; blank lines are ignored. Any other line is a mistake, which is
//! printed and does not count, as with ssh(1). But it may have been what was known about a server:
//! one about which no other line says anything is not taken for a new one until it is corrected.

use super::error::Error;
use super::messages;
use super::paths;
use super::syntax::{is_pin, place, with_port, without_comment};
use super::target::Target;
use crate::sys::{clock, file};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The word for a certificate that the system's roots vouched for.
const VOUCHED: &str = "vouched";
/// How long another process may have the file locked, and how often that is tried.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// What is known about one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its keys, each with the file and line.
    pub keys: Vec<(String, String)>,
    /// The file and line saying that the system's roots vouched for its certificate.
    pub vouched: Option<String>,
}

/// What the file says about the target. Its mistakes are printed, or are an error if nothing else
/// is known about the target, and one of them may have been about it.
pub fn read(t: &Target) -> Result<Known, Error> {
    let path = paths::known_hosts();
    let found = of(&path.display().to_string(), &paths::read(&path)?, &t.place());
    if found.known == Known::default() && found.mistakes.iter().any(|m| m.may_be_meant) {
        return Err(Error::Config(found.mistakes.into_iter().map(|m| m.text).collect()));
    }
    // A session may take several connections.
    if !TOLD.swap(true, Ordering::Relaxed) {
        let tell = |m: &Mistake| messages::info(&format!("{}: the line does not count", m.text));
        found.mistakes.iter().for_each(tell);
    }
    Ok(found.known)
}

/// The mistakes were printed.
static TOLD: AtomicBool = AtomicBool::new(false);

/// A line that cannot be read.
struct Mistake {
    text: String,
    /// It is not certainly about another place than the wanted one.
    may_be_meant: bool,
}

/// What a text says about one place.
#[derive(Default)]
struct Found {
    known: Known,
    mistakes: Vec<Mistake>,
}

fn of(path: &str, text: &str, wanted: &str) -> Found {
    let Found { mut known, mut mistakes } = Found::default();
    for (n, line) in text.lines().enumerate() {
        let mut words = without_comment(line).split_whitespace();
        let Some(at) = words.next() else { continue };
        let origin = format!("{path}:{}", n + 1);
        // Written in another way it would never be found: `[name]:1`, as ssh(1) has it.
        let as_found = with_port(at).filter(|(_, port)| *port != 0).map(|(h, p)| place(h, p));
        let own = as_found.as_ref().is_none_or(|found| found.eq_ignore_ascii_case(wanted));
        let mut wrong = |word: &str, what: &str| {
            let text = format!("{origin}: {word}: expected {what}");
            mistakes.push(Mistake { text, may_be_meant: own });
        };
        match (as_found, words.next(), words.next()) {
            (None, ..) => wrong(at, "HOST:PORT"),
            (Some(found), ..) if !found.eq_ignore_ascii_case(at) => wrong(at, &found),
            (_, _, Some(more)) => wrong(more, "nothing after the key"),
            (_, Some(VOUCHED), None) if own => known.vouched = known.vouched.or(Some(origin)),
            (_, Some(key), None) if own && is_pin(key) => known.keys.push((key.into(), origin)),
            (_, Some(word), None) if word == VOUCHED || is_pin(word) => {}
            (_, Some(word), None) => {
                wrong(word, "sha256//BASE64, as fived --fingerprint prints it, or `vouched`")
            }
            (_, None, None) => wrong(at, "sha256//BASE64 or `vouched` after it"),
        }
    }
    Found { known, mistakes }
}

/// Adds a key of the target.
pub fn add_key(t: &Target, key: &str) -> Result<(), Error> {
    add(t, key)
}

/// Notes that the system's roots vouched for the target's certificate.
pub fn add_vouched(t: &Target) -> Result<(), Error> {
    add(t, VOUCHED)
}

fn add(t: &Target, what: &str) -> Result<(), Error> {
    let file = paths::known_hosts();
    let written = || -> std::io::Result<()> {
        let mut to = file::append(&file)?;
        let locked = lock(&to);
        let before = file::read_any(&file).unwrap_or_default();
        if has(&String::from_utf8_lossy(&before), &t.place(), what) {
            // Another five has added it meanwhile.
            return Ok(());
        }
        // Somebody may have edited the file and left the last line without a newline.
        let end = if before.last().is_none_or(|b| *b == b'\n') { "" } else { "\n" };
        let length = to.metadata()?.len();
        to.write_all(format!("{end}{} {what}\n", t.place()).as_bytes()).inspect_err(|_| {
            // A part of a line, as on a full disk, would be a mistake that every call reports. A
            // device has no length. Without the lock another five may have added a line.
            let _ = if locked { to.set_len(length) } else { Ok(()) };
        })
    };
    if let Some(directory) = file.parent() {
        let failed = Error::system(directory.display().to_string());
        paths::make_private(directory).map_err(failed)?;
    }
    written().map_err(Error::system(file.display().to_string()))
}

/// Does the file say that already?
fn has(text: &str, place: &str, what: &str) -> bool {
    let known = of("", text, place).known;
    match what {
        VOUCHED => known.vouched.is_some(),
        key => known.keys.iter().any(|(k, _)| k == key),
    }
}

/// Locks the file as long as it is open: others that add a line wait. False: it is not locked,
/// because its file system has no locks, or because somebody else keeps it locked.
fn lock(file: &File) -> bool {
    let end = clock::monotonic() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if clock::monotonic() < end => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_by_place() {
        let key = |c: char| format!("sha256//{}A=", c.to_string().repeat(42));
        let (a, b, c) = (key('A'), key('B'), key('C'));
        let text =
            format!("# x\n\na:1 {a}\n[::1]:1 {b}\nA:1\t {c} # mine\n[::1]:1 vouched\n  # y\n");
        assert_eq!(
            of("f", &text, "a:1").known,
            Known { keys: vec![(a, "f:3".into()), (c, "f:5".into())], vouched: None }
        );
        assert_eq!(
            of("f", &text, "[::1]:1").known,
            Known { keys: vec![(b, "f:4".into())], vouched: Some("f:6".into()) }
        );
        let other = of("f", &text, "a:2");
        assert!(other.known == Known::default() && other.mistakes.is_empty());
    }

    #[test]
    fn what_is_known_already_is_not_added_again() {
        let key = format!("sha256//{}A=", "A".repeat(42));
        let text = format!("a:1 {key}\nb:1 vouched\n");
        assert!(has(&text, "A:1", &key) && has(&text, "b:1", VOUCHED));
        assert!(
            !has(&text, "b:1", &key) && !has(&text, "a:1", VOUCHED) && !has(&text, "a:2", &key)
        );
    }

    #[test]
    fn invalid_lines_are_reported() {
        let text = "a:1 garbage\nb:1\nc sha256//x\na:1 vouched twice\n[::1]:0x vouched\n";
        let what = "expected sha256//BASE64, as fived --fingerprint prints it, or `vouched`";
        let texts = |text, wanted| -> Vec<String> {
            of("f", text, wanted).mistakes.into_iter().map(|m| m.text).collect()
        };
        assert_eq!(
            texts(text, "z:1"),
            [
                &format!("f:1: garbage: {what}"),
                "f:2: b:1: expected sha256//BASE64 or `vouched` after it",
                "f:3: c: expected HOST:PORT",
                "f:4: twice: expected nothing after the key",
                "f:5: [::1]:0x: expected HOST:PORT",
            ]
        );
        assert_eq!(
            texts("[A]:1 vouched\na:01 vouched\n[::1]:1 vouched\n", "a:1"),
            ["f:1: [A]:1: expected a:1", "f:2: a:01: expected a:1"]
        );
    }

    #[test]
    fn an_invalid_line_may_be_about_its_own_place_or_if_it_names_none_about_any() {
        for (line, place, may) in [
            ("a:1 garbage", "A:1", true),
            ("a:1", "a:1", true),
            ("a:1 vouched twice", "a:1", true),
            ("[a]:1 vouched", "a:1", true),
            ("a:01 vouched", "a:1", true),
            ("a sha256//x", "a:1", true),
            ("garbage", "a:1", true),
            ("a:1 garbage", "a:2", false),
            ("[b]:1 vouched", "a:1", false),
        ] {
            let found = of("f", line, place);
            assert_eq!(found.known, Known::default(), "{line}");
            assert_eq!(found.mistakes.len(), 1, "{line}");
            assert_eq!(found.mistakes[0].may_be_meant, may, "{line} {place}");
        }
    }
}
