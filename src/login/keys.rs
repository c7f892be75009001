//! A user's keys: reads the authorized_keys files, and checks whether one of their keys made the
//! signature.

use super::attempt::{Attempt, EXPIRED};
use super::conversation::Conversation;
use super::verify;
use crate::sys::clock;
use crate::sys::identity::{self, Identity, User};
use crate::sys::strict::{self, Unfit};
use crate::wire::authorized_keys::{self, KeyLine};
use crate::wire::login::{LoginResult, REPORTS_MAX, Report};
use crate::wire::peer::Peer;
use crate::wire::{pubkey, sshsig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Read;
use std::path::Path;

/// Bytes of a file of keys at most; more lines than anybody has keys.
const FILE_MAX: u64 = 256 * 1024;

pub fn result(attempt: &Attempt, c: &mut Conversation) -> Result<LoginResult, String> {
    let (keys, has_expired) = (of(attempt), attempt.has_expired());
    attempt.drop_rights()?;
    let Some((challenge, line)) = c.signature() else {
        return Ok(attempt.refuse(LoginResult::Later, "no signature came"));
    };
    let Ok(blob) = STANDARD.decode(line.trim_ascii_end()) else {
        return Ok(attempt.refuse(LoginResult::BadSignature, "the signature is not base64"));
    };
    let Some(sig) = sshsig::read(&blob) else {
        // An agent offers keys of every kind, and nobody here can have one of these.
        let other = sshsig::key(&blob).is_some_and(|key| !sshsig::takes(key));
        return Ok(match other {
            true => attempt.refuse(LoginResult::NotAKey, "a kind or size of key that never counts"),
            false => attempt.refuse(
                LoginResult::BadSignature,
                "not a signature of namespace fived by a kind of key that counts",
            ),
        });
    };
    let text =
        pubkey::text(attempt.request.kind, &attempt.request.user, &STANDARD.encode(challenge));
    // Both checks are made for every user, so that an unknown one takes the same time.
    let good = verify::is_good(&sig, &text);
    let own = keys.iter().any(|k| k.key == sig.key && may(k, attempt.request.from));
    Ok(match (good, own) {
        (false, _) => attempt.refuse(
            LoginResult::BadSignature,
            "the signature is not one of this challenge, user and kind of connection",
        ),
        (true, false) => {
            attempt.reports.send(&Report::OtherKey { key: verify::sha256(sig.key) });
            attempt.refuse(LoginResult::NotAKey, why_not(attempt, &keys, sig.key))
        }
        (true, true) => {
            attempt.reports.send(&Report::Signed {
                text: verify::sha256(&text),
                key: verify::sha256(sig.key),
            });
            match has_expired {
                true => attempt.refuse(LoginResult::NoAccount, EXPIRED),
                false => LoginResult::Yes,
            }
        }
    })
}

/// Why a key is refused although its signature is good.
fn why_not(attempt: &Attempt, keys: &[KeyLine], key: &[u8]) -> &'static str {
    match (keys.is_empty(), keys.iter().any(|k| k.key == key)) {
        (_, true) => {
            "the key's line does not hold now, or not for this address (expiry-time=, from=)"
        }
        (true, _) if attempt.request.user.is_empty() => "no name",
        (true, _) => "no such user, or one without keys that count",
        _ => "not one of the user's keys that count",
    }
}

/// The lines of all files that are accepted. A file that exists but is not accepted is reported to
/// the parent.
fn of(attempt: &Attempt) -> Vec<KeyLine> {
    let Some(name) = std::str::from_utf8(&attempt.request.user).ok().filter(|n| is_name(n)) else {
        return Vec::new();
    };
    let user = identity::lookup(name);
    let mut keys = Vec::new();
    // Two reports are left free: for the key, and for the reason.
    let mut reports = REPORTS_MAX - 2;
    for pattern in attempt.request.keys.split_whitespace() {
        let (path, text) = match (pattern.strip_prefix("%h"), &user) {
            (None, _) => {
                let path = pattern.replace("%u", name);
                let text = read(Path::new(&path), user.as_ref());
                (path, text)
            }
            // A file in a home directory is read with its user's rights, because it may be a link
            // to any file.
            (Some(rest), Some(u)) => {
                let path = format!("{}{}", u.home, rest.replace("%u", name));
                let text = as_user(u, || read(Path::new(&path), Some(u)));
                (path, text)
            }
            (Some(_), None) => continue,
        };
        match text {
            Ok(text) => keys.extend(text.lines().filter_map(authorized_keys::read)),
            Err(Unfit::Why(why)) if reports > 0 => {
                reports -= 1;
                attempt.reports.send(&Report::NotCounted { path: path.into(), why: why.into() });
            }
            Err(_) => {}
        }
    }
    keys
}

/// Can this name be put into a path without leading to another directory?
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['.', '-'])
        && !name.contains(['/', '%'])
        && !name.chars().any(char::is_control)
}

fn as_user(user: &User, read: impl FnOnce() -> Result<String, Unfit>) -> Result<String, Unfit> {
    if identity::effective_uid() != 0 {
        return read();
    }
    let groups = identity::groups_of(user);
    let who = Identity { uid: user.uid, gid: user.gid, groups };
    identity::acting_as(&who, read)
        .unwrap_or_else(|e| Err(Unfit::Why(format!("as {}: {e}", user.name))))
}

/// Reads a file that nobody else can have written: it is owned by root, by the user, or by the user
/// as whom fived runs.
fn read(path: &Path, user: Option<&User>) -> Result<String, Unfit> {
    let ours = identity::effective_uid();
    let owners = [ours, user.map_or(ours, |u| u.uid)];
    let file = strict::open(path, &owners)?;
    let mut text = Vec::new();
    let n =
        file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(|e| Unfit::Why(e.to_string()))?;
    if n as u64 > FILE_MAX {
        return Err(Unfit::Why(format!("longer than {FILE_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Do the conditions on the key's line hold?
fn may(key: &KeyLine, from: Peer) -> bool {
    let fresh = key.expires.as_ref().is_none_or(|(until, utc)| clock::digits(*utc) < *until);
    fresh
        && key.from.as_ref().is_none_or(|patterns| {
            // A client without an address matches no pattern, not even `*`.
            from.address().is_some_and(|address| patterns.has(address))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", "..", ".x", "-x", "a/b", "a%hb", "a\nb"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("demo") && is_name("a.b") && is_name("ann@example"));
    }
}
