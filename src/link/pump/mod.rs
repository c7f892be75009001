//! The pump: yamux streams on a link, and the local descriptors that they are copied from and to.
//!
//! One thread polls the link and all local ends, and never waits in a read or a write. The pump
//! copies, keeps windows, passes on the end of each direction, sends one frame of each stream in
//! turn, and returns [`Event`]s; it never calls its owner. The owner knows what a stream is for: it
//! reads the stream's first bytes itself ([`Pump::held`]), answers requests, attaches a local end
//! as soon as it knows which ([`Pump::attach`], [`Pump::release`]), and notifies whoever must know
//! that a stream has ended.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | what an owner can do with streams |
//! | `event.rs` | what the pump reports to its owner |
//! | `stream.rs` | one stream: its local end, and the state of each direction |
//! | `peer.rs` | the link: receiving and sending frames |
//! | `local.rs` | the local ends: polling all of them, reading and writing them |
//! | `run.rs` | what the two ends of RUN tell each other besides bytes |
//! | `records.rs` | the records of RUN: sending and receiving them |
//!
//! What an owner does in a turn, in this order:
//! 1. [`Pump::begin_turn`]; then [`Pump::event`] until there is none, handling each.
//! 2. [`Pump::tick`], and whatever else is due; then [`Pump::send_queued`].
//! 3. [`Pump::wait`], with the owner's own descriptors; then [`Pump::serve`].
//!
//! How a stream ends:
//! - Both directions have ended, and each side was told of the other's end: [`Event::Closed`].
//! - Writing to the local end fails ([`Event::OutputFailed`]): it is still read, and what the peer
//!   sends is discarded. With [`LocalEnd::Flows`] the owner decides what follows. A socket ends the
//!   stream once it has finished sending as well: [`Event::Closed`] comes at once, the peer is told
//!   that the stream has finished, and may send for another 30 s and 8 MiB, which are discarded
//!   ([`DRAIN_TIME`](crate::wire::yamux::DRAIN_TIME)); then the stream is reset.
//! - The peer resets it: [`Event::Reset`].
//! - The owner ends it: [`Pump::close`] in order, [`Pump::reset_at_once`] and [`Pump::reset`]
//!   otherwise. No event reports that.
//!
//! Memory: what local ends have not taken, at most the windows that yamux grants; [`OUT_MAX`] bytes
//! of frames and one burst more. When nothing moves for 50 ms, empty buffers are freed.

mod event;
mod local;
mod peer;
mod records;
mod run;
mod stream;
#[cfg(test)]
mod tests;

pub use event::Event;
pub(super) use records::Passed;
pub use run::{Run, Terminal};
pub use stream::{KEPT_MAX, LocalEnd, Stream};

pub use super::queue::OUT_MAX;
use super::{Error, Link, SendQueue};
use crate::sys::clock;
use crate::wire::yamux::{Mux, PIECE, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use stream::{FromPeer, Ready, Sending, ToPeer};

/// After about this many bytes from the link, the local ends have their turn.
const TURN_MAX: usize = 1024 * 1024;

/// Whether the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not before [`Pump::start_reading`].
    NotYet,
    Open,
    /// No longer: the peer has finished, or has broken the protocol.
    Over,
}

/// Streams on a link. `T`: the owner's own state of each stream.
pub struct Pump<T> {
    mux: Mux,
    streams: BTreeMap<StreamId, Box<Stream<T>>>,
    /// Streams that end as soon as their final bytes are sent.
    closing: Vec<StreamId>,
    /// Streams with records without data to be sent.
    control_due: Vec<StreamId>,
    events: VecDeque<Event<T>>,
    /// The link failed while the local ends were served: reported after the events.
    failed: Option<Error>,
    out: SendQueue,
    now: Duration,
    /// The stream that was read last.
    turn: Option<StreamId>,
    ready: VecDeque<(StreamId, Ready)>,
    reading: Reading,
    /// The link may have something to read.
    readable: bool,
    /// The multiplexer may return another event without more bytes.
    pending: bool,
    /// How many bytes were received in this turn.
    taken: usize,
    /// Streams whose local ends were told that more follows at once.
    more: Vec<StreamId>,
    /// The link did not take all that was to be sent.
    blocked: bool,
    /// Bytes were received, and sent, since the owner last asked.
    received: bool,
    sent: bool,
}

impl<T> Pump<T> {
    /// Does not read the link before [`Pump::start_reading`].
    pub fn new(mux: Mux) -> Pump<T> {
        Pump {
            mux,
            reading: Reading::NotYet,
            streams: BTreeMap::new(),
            closing: Vec::new(),
            control_due: Vec::new(),
            events: VecDeque::new(),
            failed: None,
            out: SendQueue::new(),
            now: clock::monotonic(),
            turn: None,
            ready: VecDeque::new(),
            readable: false,
            pending: false,
            taken: 0,
            more: Vec::new(),
            blocked: false,
            received: false,
            sent: false,
        }
    }

    /// Reads the link from now on, and first what has come already. Of a plain link everything is
    /// read: [`Link::read_ahead`].
    pub fn start_reading(&mut self) {
        if self.reading == Reading::NotYet {
            self.reading = Reading::Open;
        }
        self.readable = true;
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self) {
        self.now = clock::monotonic();
    }

    /// Does what is due. False: the peer has been silent for too long.
    pub fn tick(&mut self) -> bool {
        self.mux.tick(self.now).is_none()
    }

    /// The time at which this turn began.
    pub fn now(&self) -> Duration {
        self.now
    }

    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    pub fn mux_mut(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// Accepts and opens no new streams from now on; tells the peer so.
    pub fn go_away(&mut self) {
        self.mux.go_away(self.now);
    }

    pub fn stream(&self, id: StreamId) -> Option<&Stream<T>> {
        self.streams.get(&id).map(Box::as_ref)
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The owner's state of a stream.
    pub fn owner(&mut self, id: StreamId) -> Option<&mut T> {
        self.streams.get_mut(&id).map(|s| &mut s.owner)
    }

    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Stream<T>)> {
        self.streams.iter().map(|(id, s)| (*id, s.as_ref()))
    }

    /// The owner's state of each stream.
    pub fn owners(&mut self) -> impl Iterator<Item = (StreamId, &mut T)> {
        self.streams.iter_mut().map(|(id, s)| (*id, &mut s.owner))
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn ids(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// Has the peer closed its sending direction of the link, or broken the protocol?
    pub fn is_over(&self) -> bool {
        self.reading == Reading::Over
    }

    /// Has everything been sent?
    pub fn is_sent(&self, link: &Link) -> bool {
        !self.has_backlog(link) && self.mux.control_queued() == 0
    }

    /// Is anything left that the link did not take?
    pub fn has_backlog(&self, link: &Link) -> bool {
        !self.out.is_sent() || link.wants_write()
    }

    /// Have bytes been received since the last call?
    pub fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    /// Have bytes been sent since the last call?
    pub fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    // What an owner does with streams. A call for a stream that is gone does nothing.

    /// Opens a stream that the owner reads itself. Err: no stream can be opened any more.
    pub fn open(&mut self, owner: T) -> Result<StreamId, T> {
        let Some(id) = self.mux.open(self.now) else { return Err(owner) };
        // The frame that opens the stream must go before its data.
        let mux = &mut self.mux;
        self.out.append(|out| mux.take_control(out));
        self.adopt(id, owner);
        Ok(id)
    }

    /// Takes a stream that the multiplexer has opened already; the owner reads it itself.
    pub fn adopt(&mut self, id: StreamId, owner: T) {
        self.streams.insert(id, Stream::new(owner));
    }

    /// Sends bytes for which there is window.
    pub fn send_data(&mut self, id: StreamId, bytes: &[u8]) {
        let mux = &mut self.mux;
        self.out.append(|out| {
            mux.take_control(out);
            for piece in bytes.chunks(PIECE) {
                out.extend_from_slice(&mux.data(id, piece.len()));
                out.extend_from_slice(piece);
            }
        });
    }

    /// Keeps a copy of what is sent from the local end, after these bytes that the owner has sent:
    /// [`KEPT_MAX`] bytes at most, until [`Pump::release`]. A call that is tried again sends them
    /// again.
    pub fn keep(&mut self, id: StreamId, sent: Vec<u8>) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.tally.send(sent.len());
            s.sending = Sending::Keeping(sent);
        }
    }

    /// The local end is not read for now, so that not even its end is noticed.
    pub fn pause(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.sending = Sending::Paused;
        }
    }

    /// Gives the stream its local end, which is read from now on. What comes from the peer is still
    /// the owner's to read.
    pub fn attach(&mut self, id: StreamId, local: LocalEnd) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let ended = matches!(&local, LocalEnd::Flows { input: None, .. });
        s.local = local;
        if ended {
            self.finish(id);
        }
    }

    /// From now on what comes from the peer is written to the local end, beginning with what the
    /// owner has not taken.
    pub fn release(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.sending = Sending::Normal;
        s.from_peer = match s.from_peer {
            FromPeer::ToOwner => FromPeer::ToLocal,
            FromPeer::ToOwnerLast => FromPeer::ToLocalLast,
            other => other,
        };
        self.write_local(id);
    }

    /// The owner's state of a stream, and what has come for the owner and was not
    /// [taken](Pump::take).
    pub fn held(&mut self, id: StreamId) -> Option<(&mut T, &[u8])> {
        let s = self.streams.get_mut(&id)?;
        Some((&mut s.owner, s.held.make_contiguous()))
    }

    /// The owner has taken this many bytes.
    pub fn take(&mut self, id: StreamId, n: usize) {
        if let Some(s) = self.streams.get_mut(&id) {
            let counts = s.consume_held(n);
            if s.held.is_empty() {
                s.held = VecDeque::new();
            }
            self.mux.delivered(id, counts, self.now);
        }
    }

    /// Closes the output: what the peer sends next is reported as [`Event::OutputFailed`].
    pub fn drop_output(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id)
            && let LocalEnd::Flows { output, .. } = &mut s.local
        {
            *output = None;
        }
    }

    /// Sends these bytes, then ends the stream; what comes from the peer is discarded.
    /// [`Event::Closed`] follows when all is sent.
    pub fn close_with(&mut self, id: StreamId, bytes: Vec<u8>) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.to_peer = ToPeer::Final(bytes, 0);
        s.local = LocalEnd::None;
        if !matches!(s.from_peer, FromPeer::ToOwnerLast | FromPeer::ToLocalLast | FromPeer::Done) {
            s.from_peer = FromPeer::Discarding;
        }
        let n = s.discard_held();
        self.mux.delivered(id, n, self.now);
        self.closing.push(id);
    }

    /// Ends our direction of the stream, and tells the peer so.
    pub fn finish(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let Some(run) = &mut s.run else { return self.local_finished(id) };
        run.main_ended();
        if let LocalEnd::Flows { input, .. } = &mut s.local {
            *input = None;
        }
        self.tell(id);
    }

    /// Ends a stream in order. What the peer still sends is discarded, for a while.
    pub fn close(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        let stream = self.streams.remove(&id)?;
        self.mux.drain(id, self.now);
        Some(stream)
    }

    /// Resets a stream, unless that would destroy what the peer has not read yet.
    pub fn reset(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.mux.reset(id, self.now);
        self.streams.remove(&id)
    }

    /// Resets a stream at once: nobody needs it any more.
    pub fn reset_at_once(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.mux.reset_at_once(id);
        self.streams.remove(&id)
    }

    /// Forgets a stream without telling the peer: the session itself has ended.
    pub fn remove(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.streams.remove(&id)
    }

    // How streams end.

    /// The local end has finished sending.
    fn local_finished(&mut self, id: StreamId) {
        // Data goes before the end of the stream: the queue keeps their order.
        self.mux.finish(id);
        let mux = &mut self.mux;
        self.out.append(|out| mux.take_control(out));
        if let Some(s) = self.streams.get_mut(&id) {
            s.to_peer = ToPeer::Finished;
            if let LocalEnd::Flows { input, .. } = &mut s.local {
                *input = None;
            }
        }
        self.close_if_done(id);
    }

    /// Closes a stream if both its directions have ended, or nobody reads what comes. True: it is
    /// closed.
    fn close_if_done(&mut self, id: StreamId) -> bool {
        let over = self.streams.get(&id).is_some_and(|s| {
            let discards =
                s.from_peer == FromPeer::Discarding && !matches!(s.local, LocalEnd::Flows { .. });
            matches!(s.to_peer, ToPeer::Finished) && (s.from_peer == FromPeer::Done || discards)
        });
        if over && let Some(stream) = self.close(id) {
            self.events.push_back(Event::Closed(stream));
        }
        over
    }
}
