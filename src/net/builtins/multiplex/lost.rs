//! What becomes of streams when their connection is lost, and when there is another one.

use super::over::Over;
use super::{Multiplexer, Served, StreamState, Streams};
use crate::link::pump::{LocalEnd, Stream};
use crate::net::channel::Channel;
use crate::net::counted::Counted;
use crate::net::end::End;
use crate::net::handover::{Given, Got};
use crate::sys::socket;
use crate::wire::orders::{Ask, OfferAsk};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

impl Streams {
    /// Had nobody logged in before they began?
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Is there a stream with a service, or one that has asked for one?
    pub fn serves(&self) -> bool {
        let serves = |s: &StreamState| match s {
            StreamState::Starting { .. }
            | StreamState::Running { .. }
            | StreamState::Asking { .. } => true,
            StreamState::Branch { handover, .. } => handover.serves(),
            StreamState::Requesting { .. }
            | StreamState::LookingUpName { .. }
            | StreamState::Offering(_)
            | StreamState::Closing => false,
        };
        self.pump.streams().any(|(_, s)| serves(&s.owner))
    }

    /// The parent has made the channel of the stream of this tag. None: there is none.
    pub fn branched(&mut self, tag: u32, channel: Option<OwnedFd>) {
        if let (Some(waits), Some(channel)) = (self.branching.remove(&tag), channel) {
            waits.came(channel);
        }
    }

    /// The session ends: all services see a reset.
    pub fn abort(&mut self, channel: &Channel) {
        for id in self.pump.ids() {
            if let Some(stream) = self.pump.remove(id) {
                Self::break_off(channel, &stream);
            }
        }
    }

    /// A stream is over: its bytes are reported, or that its offer has ended.
    pub(super) fn report(channel: &Channel, stream: &Stream<StreamState>) {
        let ask = match &stream.owner {
            StreamState::Running { counted, .. } => counted.map(|c| c.tally(stream.tally())),
            StreamState::Starting { tag, .. } => Some(Counted::Tag(*tag).tally(stream.tally())),
            // What it has got, and nobody will use.
            StreamState::Branch { handover, .. } => match handover.close().and_then(Given::got) {
                Some(Got::Service(unused)) => {
                    let counted = Some(unused.discard()).filter(|c| c.is_relay());
                    counted.map(|c| c.tally(stream.tally()))
                }
                Some(Got::Offer(offer)) => Some(Ask::Offer(OfferAsk::End { offer })),
                None => None,
            },
            StreamState::Offering(offer) => Some(Ask::Offer(OfferAsk::End { offer: *offer })),
            StreamState::Asking { client, .. } => {
                Some(Ask::Offer(OfferAsk::Refused { client: *client, busy: false }))
            }
            StreamState::Requesting { .. }
            | StreamState::LookingUpName { .. }
            | StreamState::Closing => None,
        };
        if let Some(ask) = ask {
            // This fails if the parent is gone, which is noticed elsewhere.
            let _ = channel.send(&ask);
        }
    }

    /// A stream was reset: its service must not mistake that for an orderly end.
    pub(super) fn break_off(channel: &Channel, stream: &Stream<StreamState>) {
        if let LocalEnd::Socket(connection) = stream.local() {
            socket::abort(connection.as_fd());
        }
        Self::report(channel, stream);
    }

    /// There is a new connection: what depends on time begins again. What the client has sent for a
    /// stream may still be on its way.
    pub fn resumed(&mut self, request_timeout: Duration) {
        self.pump.resumed();
        let now = self.pump.now();
        self.idle = self.idle.map(|_| now);
        self.name_requested = false;
        self.channel_readable = true;
        for (_, state) in self.pump.owners() {
            if let StreamState::Requesting { deadline, .. } = state {
                *deadline = now + request_timeout;
            }
        }
    }
}

impl Multiplexer<'_> {
    /// Is the session kept, now that its connection is lost?
    pub(super) fn outlives_its_connection(&mut self) -> bool {
        if self.session.link.records().is_none() {
            return false;
        }
        // A client that ended the session and closed may have been written to after that: what it
        // had sent before can still be read.
        self.streams.pump.start_reading();
        while let Ok(Some(event)) = self.streams.pump.event(&mut self.session.link) {
            // What cannot be sent on this connection is sent on the next.
            if let Err(Over::End(_)) = self.handle(event) {
                return false;
            }
        }
        !self.session.link.is_ended()
    }

    /// The streams wait for another connection.
    pub(super) fn lost(self, why: End) -> Served {
        let mut streams = self.streams;
        for (_, state) in streams.pump.owners() {
            if let StreamState::Asking { here, .. } = state {
                // The parent, which hears of the loss, sends it when the client is taken.
                *here = None;
            }
        }
        streams.pump.release_buffers();
        Served::Lost(why, Box::new(streams))
    }

    /// Goes on, on another connection, if a client has proved that it may.
    pub(super) fn take_over(&mut self) {
        // Nothing is lost.
        self.session.channel.take_forget();
        while let Some(new) = self.session.channel.new_connection() {
            let s = &mut *self.session;
            let Some(found) = new.find(&s.state.world.connections, &s.channel, s.link.records())
            else {
                continue;
            };
            let Some(records) = s.link.take_records() else { continue };
            socket::abort(s.link.socket());
            s.link = found.accept(s, records);
            self.streams.resumed(self.session.state.world.table.settings.request_timeout);
        }
    }
}
