//! The services that streams get: at once, or from a thread of their own.

use super::{Multiplexer, StreamState};
use crate::link::pump::LocalEnd;
use crate::link::{Breaks, Tally};
use crate::net::channel::Received;
use crate::net::counted::Counted;
use crate::net::handover::{Got, Service};
use crate::sys::socket;
use crate::wire::orders::{Answer, Why};
use crate::wire::run::Status;
use crate::wire::yamux::StreamId;
use std::os::fd::AsFd;

impl Multiplexer<'_> {
    /// The parent has started what was asked for.
    pub(super) fn started(&mut self, received: Received) {
        let Answer::Started { tag, .. } = received.answer else { return };
        let counted = Counted::of(&received.answer, tag);
        let stage = self.starting(tag).map(|(id, stage)| match stage {
            StreamState::Starting { run, .. } => (id, *run),
            _ => (id, None),
        });
        let service = Service::of(received, counted, stage.and_then(|(_, run)| run));
        match (service, stage) {
            (Some(mut service), Some((id, _))) => {
                self.runs(id, tag, Some(counted), &mut service);
                self.connect(id, service.connection);
            }
            (service, _) => {
                // The client has closed the stream, or no descriptor was left for the connection.
                service.iter().for_each(|service| socket::abort(service.connection.as_fd()));
                if counted.is_relay() {
                    self.send_tally(counted, Tally::default());
                }
                self.refused(tag, Why::Busy);
            }
        }
    }

    /// A service has the stream; its client gets the greeting first.
    fn runs(&mut self, id: StreamId, tag: u32, counted: Option<Counted>, service: &mut Service) {
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::Running { tag, counted };
        }
        if service.breaks == Breaks::Reset {
            self.streams.pump.pass_resets(id);
        }
        self.streams.pump.count(id, service.tally);
        if !service.greeting.is_empty() {
            self.streams.pump.send_data(id, &service.greeting);
        }
        if let Some(run) = service.run.take() {
            self.streams.pump.run(id, run);
        }
    }

    /// The parent has told how the service of a stream ended.
    pub(super) fn ended(&mut self, asked: u32, status: Option<Status>) {
        let runs = |(id, stage): (StreamId, &mut StreamState)| match stage {
            StreamState::Running { tag, .. } if *tag == asked => Some(id),
            StreamState::Branch { tag, handover } if *tag == asked => {
                // Whoever takes the service from there hears of it.
                handover.ended(status);
                None
            }
            _ => None,
        };
        // If there is none, the client has closed the stream.
        let running = self.streams.pump.owners().find_map(runs);
        if let Some(id) = running {
            self.streams.pump.note(id, |run| run.ended(status));
        }
    }

    /// A stream's thread has finished: a service has the stream, or it offers one, or it ends.
    pub(super) fn branch_finished(&mut self, id: StreamId) {
        if let Some(StreamState::Branch { tag, handover }) = self.streams.pump.owner(id)
            && let Some(given) = handover.take()
        {
            let (tag, unread) = (*tag, given.unread());
            match given.got() {
                Some(Got::Service(mut service)) => {
                    let counted = Some(service.counted).filter(|c| c.is_relay());
                    self.runs(id, tag, counted, &mut service);
                    return self.streams.pump.replace(
                        id,
                        LocalEnd::Socket(service.connection),
                        &unread,
                    );
                }
                Some(Got::Offer(offer)) => return self.offers(id, offer),
                None => {}
            }
        }
        self.streams.pump.finish(id);
    }
}
