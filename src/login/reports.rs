//! What this process tells the parent besides its verdict, over a socket that the client has no
//! part in.

use crate::sys::{inherit, message};
use crate::wire::login::Report;
use crate::wire::roles;
use std::os::fd::{AsFd, OwnedFd};

pub struct Reports(OwnedFd);

impl Reports {
    pub fn open() -> Result<Reports, String> {
        inherit::take(roles::REPORTS).map(Reports).map_err(|e| format!("reports: {e}"))
    }

    /// Never waits.
    pub fn send(&self, report: &Report) {
        if let Err(e) = message::send_message(self.0.as_fd(), &report.encode(), &[], false) {
            // Without it a good signature is not accepted: the parent does not believe the exit
            // status alone.
            log::debug!("login: a report is lost: {e}");
        }
    }
}
