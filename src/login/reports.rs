//! What this process reports to the parent besides its result, over a socket to which the client
//! has no access.

use crate::sys::{inherit, message};
use crate::wire::login::Report;
use crate::wire::roles;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub struct Reports(OwnedFd);

impl Reports {
    pub fn open() -> Result<Reports, String> {
        inherit::take(roles::REPORTS).map(Reports).map_err(|e| format!("reports: {e}"))
    }

    /// Hangs up when the parent is gone.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Never waits.
    pub fn send(&self, report: &Report) {
        if let Err(e) = message::send(self.0.as_fd(), &report.encode(), &[]) {
            // If it is lost, a good signature is not accepted: the exit status alone is not enough
            // for the parent.
            log::debug!("login: a report is lost: {e}");
        }
    }
}
