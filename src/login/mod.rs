//! One attempt to log in: a process of its own, whose exit status is its result. Everything else
//! it reports to the parent alone.
//!
//! Nothing that a stranger sent is parsed with privilege: the process reads hashes and keys first,
//! then becomes net's user for good, and only then receives a password or a signature. PAM and
//! checkpassword programs need root for their work, as in sshd's monitor; fived gives them the name
//! and the password, both of bounded length, and nothing else.
//!
//! The work is always the same: for an unknown user, a locked one and a wrong password one hash is
//! computed, and an unknown user's signature is verified like any other.
//!
//! | file | noun |
//! |---|---|
//! | `attempt` | what the parent asks, and how this process gives up its rights |
//! | `conversation` | prompts and answers, between this process and the client |
//! | `reports` | what this process reports to the parent besides its result |
//! | `passwords` | the file of hashes, and PAM |
//! | `checkpassword` | a checkpassword program |
//! | `keys` `verify` | a user's authorized_keys files; checks of signatures |

mod attempt;
mod checkpassword;
mod conversation;
mod keys;
mod passwords;
mod reports;
mod verify;

use crate::log;
use crate::sys::{confine, poll, process};
use crate::wire::login::LoginResult;
use crate::wire::roles::{Asks, Login};
use attempt::Attempt;
use conversation::Conversation;

pub use passwords::{PasswordFile, passwd_line, warnings};

/// Runs a login child. Returns its exit status, which is the result.
pub fn main() -> i32 {
    let result = result().unwrap_or_else(|e| {
        log::warn(&format!("login: {e}"));
        LoginResult::Later
    });
    log::finish(100);
    result.status()
}

fn result() -> Result<LoginResult, String> {
    let attempt = Attempt::read()?;
    let (request, foreign) = (&attempt.request, uses_foreign_code(&attempt.request));
    if request.asks == Asks::Account || foreign {
        confine::foreign_code().map_err(|e| e.to_string())?;
    }
    if request.asks == Asks::Account || foreign && request.pam.is_some() {
        ends_with_fived(&attempt)?;
    }
    if request.asks == Asks::Account {
        return passwords::account(&attempt);
    }
    let mut conversation = Conversation::open()?;
    let result = match ask(&attempt, &mut conversation) {
        // Refused even if a back end accepts such a name: the service would get another name than
        // the one that the back end accepted.
        Ok(LoginResult::Yes) if !is_name(&request.user) => {
            Ok(attempt.refuse(LoginResult::No, "not a name that a user can have"))
        }
        other => other,
    };
    if result != Ok(LoginResult::Yes) && foreign {
        conversation.delay_failure();
    }
    result
}

/// A module of PAM may never return. (A checkpassword program is waited for, and ended, by this
/// process.)
fn ends_with_fived(attempt: &Attempt) -> Result<(), String> {
    process::end_with_parent().map_err(|e| format!("the parent's end: {e}"))?;
    match poll::has_hung(attempt.reports.parent()) {
        true => Err("fived has ended".into()),
        false => Ok(()),
    }
}

/// Can a user have this name? Instead of a name with a zero byte the parent passes an empty one.
fn is_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|n| !n.is_empty() && !n.chars().any(char::is_control))
}

/// Lets the back end decide that the parent named.
fn ask(attempt: &Attempt, conversation: &mut Conversation) -> Result<LoginResult, String> {
    let request = &attempt.request;
    if request.asks == Asks::Key {
        return keys::result(attempt, conversation);
    }
    match (&request.pam, &request.checkpassword) {
        (Some(service), _) => passwords::by_pam(attempt, service, conversation),
        (None, Some(command)) => checkpassword::result(attempt, command, conversation),
        (None, None) => passwords::by_hash(attempt, conversation),
    }
}

/// Does code that is not fived's decide? It does different work for a user who exists, for one who
/// is locked and for an unknown name, so the time until a failure must not show which it was
/// ([`Conversation::delay_failure`]).
fn uses_foreign_code(request: &Login) -> bool {
    request.asks == Asks::Password && (request.pam.is_some() || request.checkpassword.is_some())
}
