//! The services that streams get: at once, or from a dialogue of their own.

use super::{Multiplexer, Stage};
use crate::link::pump::{Near, Tally};
use crate::net::channel::Told;
use crate::net::counted::Counted;
use crate::net::handover::Service;
use crate::sys::flow::Flow;
use crate::sys::socket;
use crate::wire::orders::{Answer, Why};
use crate::wire::yamux::StreamId;
use std::os::fd::AsFd;

impl Multiplexer<'_> {
    /// The parent has started what was asked for.
    pub(super) fn started(&mut self, told: Told) {
        let Answer::Started { tag, .. } = told.answer else { return };
        let counted = Counted::of(&told.answer, tag);
        let stage = self.starting(tag).map(|(id, _)| id);
        let (near, id) = match (told.near, stage) {
            (Some(near), Some(id)) => (near, id),
            (near, _) => {
                // Its client has given it up, or there was no descriptor for it.
                near.iter().for_each(|near| socket::cut(near.as_fd()));
                if counted.resets() {
                    self.tell_tally(counted, Tally::default());
                }
                return self.refused(tag, Why::Busy);
            }
        };
        self.runs(id, Some(counted), &told.said);
        self.connect(id, near);
    }

    /// A service has the stream, whose client is told this first.
    fn runs(&mut self, id: StreamId, counted: Option<Counted>, said: &[u8]) {
        if let Some(stage) = self.pump.owner(id) {
            *stage = Stage::Running(counted);
        }
        if counted.is_some_and(Counted::resets) {
            self.pump.pass_resets(id);
        }
        if !said.is_empty() {
            self.pump.say(id, said);
        }
    }

    /// A stream's dialogue says no more: a service has the stream, or it ends.
    pub(super) fn dialogue_over(&mut self, id: StreamId) {
        if let Some(Stage::Dialogue(handover)) = self.pump.owner(id)
            && let Some(given) = handover.take()
        {
            let first = given.unheard();
            if let Some(Service { near, counted, said }) = given.service() {
                self.runs(id, Some(counted).filter(|c| c.resets()), &said);
                return self.pump.replace(id, Near::Socket(Flow::of_socket(near)), &first);
            }
        }
        self.pump.finish(id);
    }
}
