//! The services that streams get: at once, or from a thread of their own.

use super::{Multiplexer, StreamState};
use crate::link::pump::{LocalEnd, Tally};
use crate::net::channel::Received;
use crate::net::counted::Counted;
use crate::net::handover::{Got, Service};
use crate::sys::flow::Flow;
use crate::sys::socket;
use crate::wire::orders::{Answer, Why};
use crate::wire::yamux::StreamId;
use std::os::fd::AsFd;

impl Multiplexer<'_> {
    /// The parent has started what was asked for.
    pub(super) fn started(&mut self, received: Received) {
        let Answer::Started { tag, .. } = received.answer else { return };
        let counted = Counted::of(&received.answer, tag);
        let state = self.starting(tag).map(|(id, _)| id);
        let (connection, id) = match (received.connection, state) {
            (Some(connection), Some(id)) => (connection, id),
            (connection, _) => {
                // The client has closed the stream, or no descriptor was left for the connection.
                connection.iter().for_each(|connection| socket::abort(connection.as_fd()));
                if counted.is_relay() {
                    self.send_tally(counted, Tally::default());
                }
                return self.refused(tag, Why::Busy);
            }
        };
        self.runs(id, Some(counted), &received.greeting);
        self.connect(id, connection);
    }

    /// A service has the stream; its client gets this greeting first.
    fn runs(&mut self, id: StreamId, counted: Option<Counted>, greeting: &[u8]) {
        if let Some(state) = self.pump.owner(id) {
            *state = StreamState::Running(counted);
        }
        if counted.is_some_and(Counted::is_relay) {
            self.pump.pass_resets(id);
        }
        if !greeting.is_empty() {
            self.pump.send_data(id, greeting);
        }
    }

    /// A stream's thread has finished: a service has the stream, or it offers one, or it ends.
    pub(super) fn branch_finished(&mut self, id: StreamId) {
        if let Some(StreamState::Branch(handover)) = self.pump.owner(id)
            && let Some(given) = handover.take()
        {
            let unread = given.unread();
            match given.got() {
                Some(Got::Service(Service { connection, counted, greeting })) => {
                    self.runs(id, Some(counted).filter(|c| c.is_relay()), &greeting);
                    let local = LocalEnd::Socket(Flow::of_socket(connection));
                    return self.pump.replace(id, local, &unread);
                }
                Some(Got::Offer(offer)) => return self.offers(id, offer),
                None => {}
            }
        }
        self.pump.finish(id);
    }
}
