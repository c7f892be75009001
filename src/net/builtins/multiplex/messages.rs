//! What the parent sends a session with streams: answers, and that it is to take no more.

use super::{Multiplexer, Phase, StreamState};
use crate::net::channel::ChannelError;
use crate::net::end::End;
use crate::wire::orders::{Answer, Why};
use crate::wire::yamux::StreamId;

impl Multiplexer<'_> {
    /// Handles what the parent has sent.
    pub(super) fn receive_answers(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.streams.channel_readable) {
            return Ok(());
        }
        while self.streams.phase != Phase::ParentGone {
            let received = match self.session.channel.try_answer_with() {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(ChannelError::Closed) => {
                    self.parent_gone();
                    return Ok(());
                }
                Err(gone) => return Err(gone.into()),
            };
            if matches!(received.answer, Answer::Started { .. } | Answer::Refused { .. }) {
                self.streams.starts.pop();
            }
            match received.answer {
                Answer::Started { .. } => self.started(received),
                Answer::Refused { tag, why, .. } => self.refused(tag, why),
                Answer::Ended { tag, status } => self.ended(tag, status),
                Answer::Branched { tag } => self.streams.branched(tag, received.connection),
                Answer::Name(name) => self.named(name)?,
                Answer::OfferClient { client, what } => {
                    self.offered(client, what, received.connection)
                }
                _ => return Err(End::System),
            }
        }
        if self.session.channel.go_away().is_some() && self.streams.phase == Phase::Serving {
            self.streams.phase = Phase::GoingAway;
            self.streams.pump.go_away();
        }
        Ok(())
    }

    /// The parent is gone. What runs goes on to its end; a stream without a service can get none.
    fn parent_gone(&mut self) {
        self.streams.phase = Phase::ParentGone;
        self.streams.branching.clear();
        self.streams.pump.go_away();
        for id in self.streams.pump.ids() {
            match self.streams.pump.owner(id) {
                Some(StreamState::Starting { tag, .. }) => {
                    let tag = *tag;
                    self.refused(tag, Why::Busy);
                }
                Some(
                    StreamState::Requesting { .. }
                    | StreamState::LookingUpName { .. }
                    | StreamState::Offering(_)
                    | StreamState::Asking { .. },
                ) => drop(self.streams.pump.reset(id)),
                Some(
                    StreamState::Running { .. } | StreamState::Branch { .. } | StreamState::Closing,
                )
                | None => self.streams.pump.note(id, |run| run.ended(None)),
            }
        }
    }

    /// The stream that waits for this service.
    pub(super) fn starting(&mut self, asked: u32) -> Option<(StreamId, &mut StreamState)> {
        let its = |s: &StreamState| matches!(s, StreamState::Starting { tag, .. } if *tag == asked);
        self.streams.pump.owners().find(|(_, s)| its(s))
    }
}
