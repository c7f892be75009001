//! The loop and the relays: what the parent sends for their threads, and what they leave to the
//! loop.

use super::Loop;
use std::os::fd::OwnedFd;

impl Loop {
    /// A thread that relays is to begin.
    pub(super) fn relays(&mut self, channel: OwnedFd) {
        if let Err(e) = self.relays.begin(channel) {
            log::debug!("a thread that relays: {e}");
        }
    }

    /// What relays' threads leave to this loop.
    pub(super) fn look_after_relays(&mut self) {
        while let Some(client) = self.relays.discarded() {
            self.answer_returned(client, Vec::new());
        }
        if self.relays.is_full() {
            self.evict();
        }
    }
}
