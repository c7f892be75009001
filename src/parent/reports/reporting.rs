//! Who asks what fived tells about itself, and the rows that are composed in a turn of the loop.

use crate::parent::reports::{Kind, Next};
use crate::parent::run::Parent;
use crate::policy::{Backend, Internal, Service};
use std::io;
use std::os::fd::OwnedFd;

impl Parent {
    /// The end of a channel at which the process of this service waits for what it prints. None: it
    /// prints nothing of fived's. Err: no descriptors are left.
    pub fn state_report(&mut self, service: &Service) -> io::Result<Option<OwnedFd>> {
        let kind = match service.backend {
            Backend::Internal(Internal::Status) => Kind::Status,
            Backend::Internal(Internal::Metrics) => Kind::Metrics,
            _ => return Ok(None),
        };
        let (near, far) = self.cx.descriptors.channel()?;
        self.reports.tell(kind, near)?;
        Ok(Some(far))
    }

    /// Composes some rows of the report that has waited longest.
    pub fn report(&mut self) {
        let Some((next, to)) = self.reports.take() else { return };
        let mut text = String::new();
        let next = match next {
            Next::Status(part) => Next::Status(part.and_then(|p| self.state(p, &mut text))),
            Next::Metrics(part) => Next::Metrics(part.and_then(|p| self.metrics(p, &mut text))),
        };
        self.reports.composed(&text, next, to);
    }
}
