//! One attempt to log in: what the parent asks of this process, and how it gives up its rights.

use super::reports::Reports;
use crate::sys::{confine, identity, inherit};
use crate::wire::login::{LoginResult, Report};
use crate::wire::roles::Login;

/// Why nobody logs in with a password or a key that is good ([`Attempt::has_expired`]).
pub const EXPIRED: &str = "the account has expired";

/// An attempt to log in.
pub struct Attempt {
    /// What the parent asks, in the environment.
    pub request: Login,
    pub reports: Reports,
}

impl Attempt {
    /// Reads what the parent asks. Err: a message.
    pub fn read() -> Result<Attempt, String> {
        Ok(Attempt { request: Login::read(inherit::variable)?, reports: Reports::open()? })
    }

    /// Returns the result, and reports to the parent alone why.
    pub fn refuse(&self, result: LoginResult, why: &str) -> LoginResult {
        self.reports.send(&Report::Why(why.into()));
        result
    }

    /// Has the account of the user who logs in expired? To be asked with root's rights.
    pub fn has_expired(&self) -> bool {
        std::str::from_utf8(&self.request.user).is_ok_and(identity::has_expired)
    }

    /// Gives up the rights of this process for good.
    pub fn drop_rights(&self) -> Result<(), String> {
        if let Some((uid, gid)) = self.request.ids {
            confine::login(uid, gid).map_err(|e| e.to_string())?;
        }
        confine::answer_only().map_err(|e| e.to_string())
    }
}
