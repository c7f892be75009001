//! Streams that this side opens.

use super::frame::{ACK, Kind, SYN};
use super::phase::Phase;
use super::stream::Stream;
use super::{INITIAL_WINDOW, Mux, StreamId};
use std::time::Duration;

/// Which side of the session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Mux {
    /// Opens a stream: SYN is queued, and data may follow at once. None: all 2^31 numbers are used;
    /// or this side is a client, and one of the sides has sent go-away; or it is a server, and its
    /// client has sent go-away, or `max_streams` streams are open that the server has opened. Those
    /// that are drained take no place from others: the oldest of them is reset.
    pub fn open(&mut self, now: Duration) -> Option<StreamId> {
        if self.side == Side::Server && self.own >= self.max_streams as usize {
            self.end_drained();
        }
        let may = match self.side {
            Side::Client => self.phase == Phase::Open,
            Side::Server => {
                self.failure.is_none()
                    && !self.peer_went_away
                    && self.own < self.max_streams as usize
            }
        };
        let id = self.next.filter(|_| may)?;
        self.next = id.checked_add(2);
        if self.next.is_none() && self.side == Side::Client {
            self.phase = Phase::PeerGoAway;
        }
        let stream = Stream::new(INITIAL_WINDOW, now);
        self.windows += u64::from(stream.window);
        self.own += 1;
        self.used.mark(id);
        self.streams.insert(id, stream);
        self.queue(Kind::Window, SYN, id, 0);
        Some(StreamId(id))
    }

    /// Resets the oldest own stream that is drained, if there is one.
    fn end_drained(&mut self) {
        let drained = self.drains.iter().map(|(_, id)| *id).find(|id| self.is_own(*id));
        if let Some(id) = drained {
            self.abort(id);
        }
    }

    /// Has the peer sent go-away? It takes no more streams.
    pub fn peer_went_away(&self) -> bool {
        self.peer_went_away
    }

    /// Takes a stream that the peer has opened: sends ACK, once. A server does so by itself.
    pub fn accept(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0)
            && !std::mem::replace(&mut stream.acknowledged, true)
        {
            self.queue(Kind::Window, ACK, id.0, 0);
        }
    }

    /// Is it a number that only this side may open a stream with?
    pub(super) fn is_own(&self, id: u32) -> bool {
        (self.side == Side::Server) == id.is_multiple_of(2)
    }
}
