//! Applications that connect to a forward of the configuration: each is a call without a caller.

use super::call::Call;
use super::state::Holder;
use crate::client::forward::{ACCEPT_PAUSE, Accepted};
use crate::client::open::Request;
use crate::link::pump::Near;
use crate::sys::flow::Flow;
use crate::wire::handover::OverWhen;
use std::os::fd::OwnedFd;

/// The number of a caller that there never is.
const NOBODY: u32 = u32::MAX;
/// Applications that one listener's turn takes at most.
const BATCH: usize = 16;

impl Holder {
    /// Somebody is at these listeners, by their places.
    pub(super) fn take_applications(&mut self, ready: &[bool]) {
        for n in ready.iter().enumerate().filter(|(_, ready)| **ready).map(|(n, _)| n) {
            for _ in 0..BATCH {
                if !self.has_room_for_applications() {
                    return;
                }
                let Some(listener) = self.forwards.all.get(n) else { break };
                let service = listener.service.clone();
                match listener.accept() {
                    Accepted::Application(fd) => self.application(service, fd),
                    Accepted::Nobody => break,
                    Accepted::NoRoom => {
                        self.forwards.paused = self.now + ACCEPT_PAUSE;
                        return;
                    }
                }
            }
        }
    }

    fn application(&mut self, service: String, fd: OwnedFd) {
        let Ok(copy) = fd.try_clone() else { return };
        // Where its flags cannot be set it is closed, and sees that.
        let (Ok(input), Ok(output)) = (Flow::new(fd), Flow::new(copy)) else { return };
        let request = Request { host: self.forwards.host.clone(), service: Some(service) };
        let near = Near::Flows { input: Some(input), output: Some(output) };
        self.take_call(Call::new(
            NOBODY,
            0,
            OverWhen::BothEnd,
            request,
            near,
            Vec::new(),
            self.now,
        ));
    }
}
