//! The loop and the relays: what the parent hands over goes to the relays' threads, and their ends
//! are reported to the parent.

use super::Loop;
use crate::net::relays::Ended;
use crate::sys::message::Fds;
use crate::sys::socket;
use crate::wire::orders::FromNet;
use std::os::fd::AsFd;

impl Loop {
    /// A client and a server, connected, between which bytes are to be copied.
    pub(super) fn relay(&mut self, relay: u32, mut fds: Fds) {
        let (client, server) = (fds.take(), fds.take());
        let begun = match (client, server) {
            (Some(client), Some(server)) => self.relays.begin(relay, client, server),
            // No descriptor was left for one of them: the other sees a reset.
            (client, _) => {
                client.iter().for_each(|c| socket::abort(c.as_fd()));
                Err(std::io::Error::other("no descriptor"))
            }
        };
        if let Err(e) = begun {
            log::debug!("a relay: {e}");
            self.send_order(&FromNet::RelayEnded { relay, to: 0, from: 0 }, &[]);
        }
    }

    /// Reports relays that have ended to the parent. While orders are held they wait: none may be
    /// dropped, because the parent still counts it among those that run.
    pub(super) fn relays_ended(&mut self) {
        while !self.order_queue.has_backlog()
            && let Some(Ended { relay, to, from, client }) = self.relays.ended()
        {
            self.send_order(&FromNet::RelayEnded { relay, to, from }, &[]);
            if let Some(client) = client {
                self.answer_returned(client, Vec::new());
            }
        }
    }
}
