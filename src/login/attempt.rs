//! One try: what the parent asks of this process, and the rights that it gives up.

use super::reports::Reports;
use crate::sys::{confine, inherit};
use crate::wire::login::{Report, Verdict};
use crate::wire::roles::Login;

/// A try to log in.
pub struct Attempt {
    /// What the parent asks, in the environment.
    pub request: Login,
    pub reports: Reports,
}

impl Attempt {
    /// Reads what the parent asks. Err: a sentence.
    pub fn read() -> Result<Attempt, String> {
        Ok(Attempt { request: Login::read(inherit::variable)?, reports: Reports::open()? })
    }

    /// A verdict of which the parent alone is told why.
    pub fn refuse(&self, verdict: Verdict, why: &str) -> Verdict {
        self.reports.send(&Report::Why(why.into()));
        verdict
    }

    /// From here on this process has no rights.
    pub fn drop_rights(&self) -> Result<(), String> {
        if let Some((uid, gid)) = self.request.ids {
            confine::login(uid, gid).map_err(|e| e.to_string())?;
        }
        confine::answer_only().map_err(|e| e.to_string())
    }
}
