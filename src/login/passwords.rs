//! Passwords: the file of hashes, and PAM.

use super::Try;
use super::conversation::{Conversation, PASSWORD};
use crate::sys::crypt::Crypt;
use crate::sys::pam::{self, Said, Style};
use crate::sys::terminal;
use crate::wire::login::Verdict;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;

/// Bytes of the password file at most.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// What a file without any hash is taken to be made of.
const USUAL: &str = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$vEcy8VBp1VtaLOtS63.pEUiXUKNY1taOaLYYJfmfkL2";

/// A hash to compare with, and whether it may log anybody in.
struct Entry {
    hash: CString,
    real: bool,
}

/// Asks the file of hashes.
pub fn by_hash(t: &Try, c: &mut Conversation) -> Result<Verdict, String> {
    let text = t.passwords.as_deref().map(read).transpose()?.unwrap_or_default();
    let entry = find(&text, &t.user);
    let crypt = Crypt::open()?;
    t.descend()?;
    let Some(password) = c.ask(PASSWORD) else { return Ok(Verdict::Later) };
    let asked = CString::new(password);
    let good = asked.is_ok();
    // A zero byte is in no password, and costs what any other costs.
    let hash = crypt.hash(&asked.unwrap_or_default(), &entry.hash).ok_or("a hash of a scheme that crypt(3) does not know")?;
    let same = equal(hash.as_bytes(), entry.hash.as_bytes());
    Ok(if same & entry.real & good { Verdict::Yes } else { Verdict::No })
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|f| f.take(FILE_MAX + 1).read_to_end(&mut text));
    match read {
        Err(e) => Err(format!("{path}: {e}")),
        Ok(n) if n as u64 > FILE_MAX => Err(format!("{path}: longer than {FILE_MAX} bytes")),
        Ok(_) => Ok(text),
    }
}

/// The user's hash; for one who has none, or who is locked, another of the file's: the work is the same.
fn find(text: &[u8], user: &[u8]) -> Entry {
    let line = |l: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let mut parts = l.strip_suffix(b"\r").unwrap_or(l).split(|&b| b == b':');
        let name = parts.next().filter(|n| !n.is_empty() && n[0] != b'#')?;
        Some((name.to_vec(), parts.next()?.to_vec()))
    };
    let lines: Vec<(Vec<u8>, Vec<u8>)> = text.split(|&b| b == b'\n').filter_map(line).collect();
    let hash = |h: &[u8]| CString::new(h).ok().filter(|h| h.as_bytes().len() > 1 && !h.as_bytes().starts_with(b"!") && !h.as_bytes().starts_with(b"*"));
    let own = lines.iter().find(|(name, _)| name == user).map(|(_, h)| h);
    if let Some(hash) = own.and_then(|h| hash(h)) {
        return Entry { hash, real: true };
    }
    // A locked one is hashed as it was before it was locked.
    let was = own.and_then(|h| hash(h.strip_prefix(b"!").map_or(h, |h| h.strip_prefix(b"!").unwrap_or(h))));
    let other = || lines.iter().find_map(|(_, h)| hash(h));
    Entry { hash: was.or_else(other).unwrap_or_else(|| CString::new(USUAL).unwrap_or_default()), real: false }
}

/// Compares in a time that tells nothing of where they differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

/// Asks PAM: authenticate and account.
pub fn by_pam(t: &Try, service: &str, c: &mut Conversation) -> Result<Verdict, String> {
    let text = |b: &[u8], what: &str| CString::new(b).map_err(|_| format!("a zero byte in the {what}"));
    let (service, from) = (text(service.as_bytes(), "service")?, text(t.from.to_string().as_bytes(), "address")?);
    let user = text(&t.user, "user")?;
    let mut ask = |style: Style, prompt: &[u8]| match style {
        Style::Told => {
            let line = [prompt, b"\r\n"].concat();
            c.tell(&line);
            Some(Vec::new())
        }
        // What every other back end asks, in the same words.
        Style::Secret if prompt.trim_ascii().eq_ignore_ascii_case(b"Password:") => c.ask(PASSWORD),
        _ => c.ask(prompt),
    };
    match pam::authenticate(&service, &user, &from, &mut ask)? {
        Said::Yes => Ok(Verdict::Yes),
        Said::No => Ok(Verdict::No),
    }
}

/// A line for the file of hashes: asks twice for a password. Err: a sentence.
pub fn passwd_line(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 255 || name.starts_with('#') || name.contains([':', '\n']) || name.chars().any(char::is_control) {
        return Err(format!("{name:?}: not a name for a password file; no colon and no control character would be right"));
    }
    let read = |prompt: &str| terminal::read_password(prompt).map_err(|e| format!("password: {e}"));
    let (first, again) = (read("Password: ")?, read("Once more: ")?);
    if first != again {
        return Err("the passwords differ".into());
    }
    if first.is_empty() {
        return Err("an empty password".into());
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
        let text = b"# c\nann:$5$a$x\nlocked:!$6$b$y\nempty:\nstar:*\r\n";
        let found = |name: &str| {
            let e = find(text, name.as_bytes());
            (e.hash.into_string().expect("text"), e.real)
        };
        assert_eq!(found("ann"), ("$5$a$x".into(), true));
        assert_eq!(found("locked"), ("$6$b$y".into(), false));
        for name in ["empty", "star", "nobody", "", "# c"] {
            assert_eq!(found(name), ("$5$a$x".into(), false), "{name}");
        }
        assert!(!find(b"", b"x").real && find(b"", b"x").hash.as_bytes() == USUAL.as_bytes());
    }

    #[test]
    fn equal_is_equal() {
        assert!(equal(b"abc", b"abc") && !equal(b"abc", b"abd") && !equal(b"abc", b"ab") && equal(b"", b""));
    }
}
