//! One try to log in: a process of its own, which tells its verdict by its exit status alone, and
//! what else there is to say (`reports`) to the parent alone.
//!
//! No byte of a stranger's is parsed with privilege: hashes and keys are read first, then the
//! process becomes net's user for good, and only then does it hear a password or a signature. PAM
//! and checkpassword programs need root for what they do, as in sshd's monitor; they are handed the
//! words, bounded, and nothing else.
//!
//! Equal work: an unknown user, a locked one and a wrong password cost the same hash; an unknown
//! user's signature is verified like any other.

mod checkpassword;
mod conversation;
mod keys;
mod passwords;
mod reports;
mod verify;

use crate::log;
use crate::sys::{confine, inherit, process};
use crate::wire::login::{Report, Verdict};
use crate::wire::roles::{self, Asks, Login};
use conversation::Conversation;
use reports::Reports;

pub use passwords::{passwd_line, warnings};

/// A try to log in.
struct Try {
    /// What the parent says of it, in the environment.
    told: Login,
    /// To the parent alone.
    reports: Reports,
}

/// The whole life of a login child. Returns its verdict as its exit status.
pub fn main() -> i32 {
    process::set_name(roles::LOGIN);
    let verdict = verdict().unwrap_or_else(|e| {
        log::warn(&format!("login: {e}"));
        Verdict::Later
    });
    log::finish(100);
    verdict.status()
}

fn verdict() -> Result<Verdict, String> {
    let t = Try::read()?;
    if t.told.asks == Asks::Account || t.asks_others() {
        confine::others_code().map_err(|e| e.to_string())?;
    }
    if t.told.asks == Asks::Account {
        return passwords::account(&t);
    }
    let mut conversation = Conversation::open()?;
    let said = match t.verdict(&mut conversation) {
        // Whatever a back end makes of it: the session would be somebody else than whom it has
        // asked about.
        Ok(Verdict::Yes) if !is_name(&t.told.user) => {
            Ok(t.no(Verdict::No, "not a name that anybody can have"))
        }
        said => said,
    };
    if said != Ok(Verdict::Yes) && t.asks_others() {
        conversation.wait_for_beat();
    }
    said
}

/// Can it be anybody's name? The parent hands over none at all for one with a zero byte in it.
fn is_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|n| !n.is_empty() && !n.chars().any(char::is_control))
}

impl Try {
    /// By the back end that is asked for.
    fn verdict(&self, conversation: &mut Conversation) -> Result<Verdict, String> {
        if self.told.asks == Asks::Key {
            return keys::verdict(self, conversation);
        }
        match (&self.told.pam, &self.told.checkpassword) {
            (Some(service), _) => passwords::by_pam(self, service, conversation),
            (None, Some(command)) => checkpassword::verdict(self, command, conversation),
            (None, None) => passwords::by_hash(self, conversation),
        }
    }

    /// Does somebody else's code decide, which does different work for who exists, who is locked
    /// and who is nobody? Then a failure is told in a beat.
    fn asks_others(&self) -> bool {
        self.told.asks == Asks::Password
            && (self.told.pam.is_some() || self.told.checkpassword.is_some())
    }

    /// Says to the parent alone why nobody is let in.
    fn no(&self, verdict: Verdict, why: &str) -> Verdict {
        self.reports.tell(&Report::Why(why.into()));
        verdict
    }

    fn read() -> Result<Try, String> {
        Ok(Try { told: Login::read(inherit::variable)?, reports: Reports::open()? })
    }

    /// From here on this process has no rights.
    fn descend(&self) -> Result<(), String> {
        if let Some((uid, gid)) = self.told.ids {
            confine::login(uid, gid).map_err(|e| e.to_string())?;
        }
        confine::answer_only().map_err(|e| e.to_string())
    }
}
