//! How a session with streams comes to its end.

use super::{Multiplexer, Phase, StreamState, Streams};
use crate::net::channel::GoAway;
use crate::net::end::End;
use crate::sys::clock;
use std::time::Duration;

/// How long sending the last frames may take; and, when fived ends, sending what services had
/// written before they ended.
const CLOSE_TIME: Duration = Duration::from_secs(1);
const LAST_DATA_TIME: Duration = Duration::from_secs(5);

impl Multiplexer<'_> {
    /// Has the session come to its end?
    pub(super) fn its_end(&self) -> Option<End> {
        let (pump, phase) = (&self.streams.pump, self.streams.phase);
        let sent = pump.is_sent(&self.session.link);
        let over = match phase {
            // Without the parent no stream can get a service, whatever is still on its way, and no
            // client can come back.
            Phase::ParentGone => pump.mux().open_streams() == 0,
            // A client whose connection is lost comes back for what it has not had.
            Phase::Serving | Phase::GoingAway => {
                pump.mux().is_over() && self.session.link.unacknowledged() == 0
            }
        };
        if over && sent {
            return Some(if phase == Phase::Serving { End::Closed } else { End::Drained });
        }
        let channel = &self.session.channel;
        let now = channel.go_away() == Some(GoAway::Now);
        if now || channel.exits() && !self.streams.serves() {
            return Some(End::Drained);
        }
        (pump.is_done() && sent).then_some(End::Closed)
    }

    /// The session ends: its services see a reset, and the client gets the last frames.
    pub(super) fn close(&mut self, end: End) {
        let now = self.session.channel.go_away() == Some(GoAway::Now);
        if end == End::Drained && now {
            // Nobody is to take the end of the session for that of what a service sends.
            self.reset_all();
        }
        self.streams.abort(&self.session.channel);
        if matches!(end, End::Protocol | End::Drained | End::Closed)
            || end == End::Timeout && self.streams.pump.mux().is_going_away()
        {
            let until = clock::monotonic()
                + if end == End::Drained && !now { LAST_DATA_TIME } else { CLOSE_TIME };
            if self.streams.pump.send_rest(&mut self.session.link, until) {
                self.session.link.linger();
            }
        }
    }

    /// The peer sees that its streams have not ended in order.
    fn reset_all(&mut self) {
        for id in self.streams.pump.ids() {
            let closes = matches!(self.streams.pump.owner(id), Some(StreamState::Closing));
            if !closes && let Some(stream) = self.streams.pump.reset_at_once(id) {
                Streams::break_off(&self.session.channel, &stream);
            }
        }
    }
}
