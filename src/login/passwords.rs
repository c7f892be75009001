//! Passwords: the file of hashes, and PAM.

use super::attempt::{Attempt, EXPIRED};
use super::conversation::{Conversation, PASSWORD};
use crate::log;
use crate::sys::crypt::{Crypt, PASSWORD_MAX};
use crate::sys::file;
use crate::sys::pam::{self, Answer, Style};
use crate::sys::terminal;
use crate::wire::login::LoginResult;
use ring::digest;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

/// Bytes of the password file at most.
const FILE_MAX: usize = 16 * 1024 * 1024;
/// Warnings about single lines at most; one more line counts the rest.
const WARNINGS_MAX: usize = 20;
/// The hash to compare with if the file has none.
const USUAL: &str = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$vEcy8VBp1VtaLOtS63.pEUiXUKNY1taOaLYYJfmfkL2";

/// A hash to compare with, and whether it is the user's own: with any other one nobody logs in.
struct Entry {
    hash: CString,
    real: bool,
}

/// Checks the password against the file of hashes.
pub fn by_hash(attempt: &Attempt, c: &mut Conversation) -> Result<LoginResult, String> {
    let text = attempt.request.passwords.as_deref().map(read).transpose()?.unwrap_or_default();
    let entries = find(&text, &attempt.request.user);
    let (crypt, has_expired) = (Crypt::open()?, attempt.has_expired());
    attempt.drop_rights()?;
    let Some(mut password) = c.ask(PASSWORD) else {
        return Ok(attempt.refuse(LoginResult::Later, "no password came"));
    };
    // No password has a zero byte, or is longer than crypt(3) takes. Such a one is hashed all the
    // same, so that it takes as long as any other.
    let short = password.len() <= PASSWORD_MAX;
    password.truncate(PASSWORD_MAX);
    let typed = CString::new(password);
    let good = short && typed.is_ok();
    let typed = typed.unwrap_or_default();
    let known = entries.iter().find_map(|e| Some((crypt.hash(&typed, &e.hash)?, e)));
    let (hash, entry) = known.ok_or("crypt(3) of this system knows no scheme of hashes")?;
    if entries.iter().any(|e| e.real) && !entry.real {
        log::warn("login: a hash of a scheme that crypt(3) does not know; it is as good as locked");
    }
    let same = equal(hash.as_bytes(), entry.hash.as_bytes());
    Ok(match (same & entry.real & good, entry.real, good) {
        (true, ..) if has_expired => attempt.refuse(LoginResult::No, EXPIRED),
        (true, ..) => LoginResult::Yes,
        (_, _, false) => attempt.refuse(LoginResult::No, "a password that crypt(3) cannot take"),
        (_, true, _) => attempt.refuse(LoginResult::No, "another password than the file's"),
        (_, false, _) => attempt.refuse(
            LoginResult::No,
            "no such name in the password file, or it is locked, or its scheme is not known",
        ),
    })
}

/// Reads the file without ever waiting: one that is not a regular file is an error.
fn read(path: &str) -> Result<Vec<u8>, String> {
    let text = file::read(path).map_err(|e| format!("{path}: {e}"))?;
    if text.len() > FILE_MAX {
        return Err(format!("{path}: longer than {FILE_MAX} bytes"));
    }
    Ok(text)
}

/// A password file, as [`warnings`] looks at it.
pub struct PasswordFile {
    text: Vec<u8>,
    mode: u32,
}

impl PasswordFile {
    /// It never waits for another process.
    pub fn read(path: &str) -> io::Result<PasswordFile> {
        let (text, mode) = (file::read(path)?, std::fs::metadata(path)?.mode() & 0o7777);
        Ok(PasswordFile { text, mode })
    }
}

/// Warnings about a password file, before anybody logs in: one if it is none, with the place of its
/// setting (`at`); one if others can write it; and `FILE:LINE: NAME: ...` for each hash by a scheme
/// that the system's crypt(3) does not know. There are none if the file does not exist, or if this
/// user may not read it, as when an ordinary user tests root's configuration; nor if it could not
/// be looked at in time.
pub fn warnings(path: &str, at: &str, found: io::Result<PasswordFile>) -> Vec<String> {
    use std::io::ErrorKind::{NotFound, PermissionDenied, TimedOut};
    let PasswordFile { text, mode } = match found {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), NotFound | PermissionDenied | TimedOut) => return Vec::new(),
        Err(e) => return vec![format!("{at}: {path}: {e}: nobody can log in by a password")],
    };
    let crypt = match Crypt::open() {
        Ok(crypt) => crypt,
        Err(e) => return vec![format!("{at}: {path}: {e}: nobody can log in by a password")],
    };
    let unknown = |(number, line): (usize, &[u8])| {
        let (name, hash) = entry(line)?;
        let hash = usable(&hash)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        (!crypt.knows(&hash)?).then(|| {
            let scheme = scheme_of(&hash);
            let named = if scheme.is_empty() { String::new() } else { format!(" ${}$", String::from_utf8_lossy(&scheme)) };
            format!(
                "{path}:{}: {name}: crypt(3) of this system does not know the scheme{named} of this hash; it is as good as locked",
                number + 1
            )
        })
    };
    let mut all = text.split(|&b| b == b'\n').enumerate().filter_map(unknown);
    let mut lines: Vec<String> = others_write(path, mode).into_iter().collect();
    lines.extend(all.by_ref().take(WARNINGS_MAX));
    if let more @ 1.. = all.count() {
        lines.push(format!(
            "{path}: {more} more hashes of schemes that crypt(3) of this system does not know"
        ));
    }
    lines
}

/// A warning about a password file that its owner is not alone to write.
fn others_write(path: &str, mode: u32) -> Option<String> {
    (mode & 0o022 != 0).then(|| {
        format!(
            "{path}: mode {mode:04o}: whoever can write it can log in as any user: run `chmod go-w`"
        )
    })
}

/// The name and the hash of a line. None: a comment, or a line without them.
fn entry(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = line.strip_suffix(b"\r").unwrap_or(line).split(|&b| b == b':');
    let name = parts.next().filter(|n| !n.is_empty() && n[0] != b'#')?;
    Some((name.to_vec(), parts.next()?.to_vec()))
}

/// A hash that is neither empty nor locked.
fn usable(hash: &[u8]) -> Option<CString> {
    let hash = CString::new(hash).ok()?;
    (hash.as_bytes().len() > 1
        && !hash.as_bytes().starts_with(b"!")
        && !hash.as_bytes().starts_with(b"*"))
    .then_some(hash)
}

/// `6` of `$6$...`; empty for a hash of another form.
fn scheme_of(hash: &CStr) -> Vec<u8> {
    hash.to_bytes()
        .strip_prefix(b"$")
        .and_then(|h| h.split(|&b| b == b'$').next())
        .unwrap_or_default()
        .to_vec()
}

/// The user's own hash, if any, and after it one hash of each scheme in the file. If the user has
/// none, is locked, or has one that crypt(3) does not know, the first of the others is used
/// instead, so that the work is the same. Which one is first depends on the name: in a file of
/// several schemes each name takes the time of one of them, and the time does not show who exists.
fn find(text: &[u8], user: &[u8]) -> Vec<Entry> {
    let lines: Vec<(Vec<u8>, Vec<u8>)> = text.split(|&b| b == b'\n').filter_map(entry).collect();
    let hash = |h: &[u8]| usable(h);
    let own = lines.iter().find(|(name, _)| name == user).map(|(_, h)| h);
    let real = own.and_then(|h| hash(h)).map(|hash| Entry { hash, real: true });
    // For a locked user, the hash as it was before it was locked.
    let was = own
        .filter(|_| real.is_none())
        .and_then(|h| hash(h.strip_prefix(b"!").map_or(h, |h| h.strip_prefix(b"!").unwrap_or(h))));
    let mut others: Vec<CString> = was.into_iter().collect();
    let mut schemes = BTreeSet::new();
    let all: Vec<CString> = lines.iter().filter_map(|(_, h)| hash(h)).collect();
    let first = stand_in(&all, user);
    others.extend(
        all.iter()
            .cycle()
            .skip(first)
            .take(all.len())
            .filter(|h| schemes.insert(scheme_of(h)))
            .cloned(),
    );
    others.extend(CString::new(USUAL));
    real.into_iter().chain(others.into_iter().map(|hash| Entry { hash, real: false })).collect()
}

/// A place in the list that is always the same for a name, and that only somebody who knows the
/// list can predict.
fn stand_in(all: &[CString], user: &[u8]) -> usize {
    let mut hash = digest::Context::new(&digest::SHA256);
    all.iter().take(2).for_each(|h| hash.update(h.to_bytes_with_nul()));
    hash.update(user);
    let number = hash.finish().as_ref().first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    // There are no more lines than bytes in a file, so it fits.
    (number % all.len().max(1) as u64) as usize
}

/// Compares in a time that does not show where they differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Has PAM check the password.
pub fn by_pam(
    attempt: &Attempt,
    service: &str,
    c: &mut Conversation,
) -> Result<LoginResult, String> {
    let result = ask_pam(attempt, service, c);
    if result != Ok(LoginResult::Yes) && !c.has_answer() {
        // No module asked for a password, as may be so for an unknown user: the client is asked all
        // the same.
        if c.ask(PASSWORD).is_none() {
            // A client that goes away without an answer has guessed nothing.
            return Ok(LoginResult::Later);
        }
    }
    result
}

/// Asks PAM about the account of a user who has logged in with a key.
pub fn account(attempt: &Attempt) -> Result<LoginResult, String> {
    let service = attempt.request.pam.as_deref().ok_or("no service of PAM to ask")?;
    let (service, user, from) = (
        text(service.as_bytes(), "service")?,
        text(&attempt.request.user, "user")?,
        text(attempt.request.from.to_string().as_bytes(), "address")?,
    );
    match pam::account(&service, &user, &from)? {
        Answer::Yes => Ok(LoginResult::Yes),
        Answer::No(why) => Ok(attempt.refuse(LoginResult::NoAccount, &format!("PAM: {why}"))),
    }
}

fn text(bytes: &[u8], what: &str) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| format!("a zero byte in the {what}"))
}

/// Authentication and account check.
fn ask_pam(attempt: &Attempt, service: &str, c: &mut Conversation) -> Result<LoginResult, String> {
    let (service, from) = (
        text(service.as_bytes(), "service")?,
        text(attempt.request.from.to_string().as_bytes(), "address")?,
    );
    let user = text(&attempt.request.user, "user")?;
    let mut ask = |style: Style, prompt: &[u8]| match style {
        Style::Text => {
            let line = [prompt, b"\r\n"].concat();
            c.show(&line);
            Some(Vec::new())
        }
        // The same prompt as from every other back end.
        Style::Secret if prompt.trim_ascii().eq_ignore_ascii_case(b"Password:") => c.ask(PASSWORD),
        _ => c.ask(prompt),
    };
    match pam::authenticate(&service, &user, &from, &mut ask)? {
        Answer::Yes => Ok(LoginResult::Yes),
        Answer::No(why) => Ok(attempt.refuse(LoginResult::No, &format!("PAM: {why}"))),
    }
}

/// Makes a line for the file of hashes. At a terminal it asks for the password twice; from a pipe
/// it reads one line, and a second one, if it comes with the first, must be the same. Err: a
/// message.
pub fn passwd_line(name: &str) -> Result<String, String> {
    if name.is_empty()
        || name.len() > 255
        || name.starts_with('#')
        || name.contains([':', '\n'])
        || name.chars().any(char::is_control)
    {
        return Err(format!(
            "{name:?}: expected a name of 1 to 255 bytes that has no colon and no control character, and does not begin with #"
        ));
    }
    let too_long = || format!("expected a password of at most {PASSWORD_MAX} bytes, found more");
    let read = |prompt: &str| match terminal::read_password(prompt) {
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(too_long()),
        read => read.map_err(|e| format!("password: {e}")),
    };
    let first = read("Password: ")?;
    let again = match terminal::is_input() {
        true => Some(read("Once more: ")?),
        false => terminal::waiting_line().map_err(|e| format!("password: {e}"))?,
    };
    if again.is_some_and(|again| again != first) {
        return Err("the passwords differ".into());
    }
    if first.is_empty() {
        return Err("expected a password, found none".into());
    }
    if first.len() > PASSWORD_MAX {
        return Err(too_long());
    }
    let crypt = Crypt::open()?;
    let setting = crypt.setting().ok_or("crypt(3) of this system makes no settings")?;
    let password = CString::new(first).map_err(|_| "a zero byte in the password")?;
    let hash = crypt.hash(&password, &setting).ok_or("crypt(3) has refused")?;
    Ok(format!("{name}:{}", hash.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_hash_costs_somebody_elses() {
        let text =
            b"# c\nann:$5$a$x\nodd:$apr1$x$y\nlocked:!$6$b$y\nempty:\nstar:*\r\nbob:$5$c$z\n";
        let found = |name: &str| {
            let all: Vec<(String, bool)> = find(text, name.as_bytes())
                .into_iter()
                .map(|e| (e.hash.into_string().expect("text"), e.real))
                .collect();
            assert_eq!(all.last(), Some(&(USUAL.to_string(), false)));
            all.into_iter()
                .map(|(h, real)| h + if real { " real" } else { "" })
                .take(3)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("ann")[0], "$5$a$x real");
        assert_eq!(found("odd")[0], "$apr1$x$y real");
        assert_eq!(found("locked")[0], "$6$b$y");
        let of_nobody = |name: &str| {
            let all = found(name);
            assert!(
                all.contains(&"$apr1$x$y".to_string())
                    && all.iter().any(|h| h.starts_with("$5$"))
                    && all[2] == USUAL,
                "{all:?}"
            );
            assert_eq!(all, found(name));
            all[0].clone()
        };
        let firsts: BTreeSet<String> = (0..99).map(|n| of_nobody(&format!("nobody{n}"))).collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), ["$5$a$x", "$5$c$z", "$apr1$x$y"]);
        for name in ["empty", "star", "", "# c"] {
            of_nobody(name);
        }
        assert!(find(b"", b"x").len() == 1);
    }

    #[test]
    fn equal_is_equal() {
        assert!(
            equal(b"abc", b"abc")
                && !equal(b"abc", b"abd")
                && !equal(b"abc", b"ab")
                && equal(b"", b"")
        );
    }
}
