//! The pump: yamux streams on a link, and the descriptors at their local ends.
//!
//! One thread polls the link and all local ends, and never waits in a read or a write. The pump
//! copies, keeps windows, tells ends on, sends a frame of each stream in turn, and returns
//! [`Event`]s; it never calls its owner. What a stream is for, its request, its answer and whom to
//! tell of its end, is the owner's: it hears a stream's first bytes itself ([`Pump::held`]), and
//! attaches a local end when it knows which ([`Pump::attach`], [`Pump::release`]).
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | what an owner does with streams |
//! | `event.rs` | what an owner hears of them |
//! | `stream.rs` | a stream: its local end, how far either direction is |
//! | `peer.rs` | the link: frames that come, and what is sent |
//! | `local.rs` | the local ends: waiting for all, reading and writing them |
//!
//! What an owner does in a turn, in this order:
//! 1. [`Pump::begin_turn`]; then [`Pump::event`] until there is none, doing what each asks for.
//! 2. [`Pump::tick`], and whatever else it has to do; then [`Pump::send_queued`].
//! 3. [`Pump::wait`], with the descriptors of its own; then [`Pump::serve`].
//!
//! How a stream ends:
//! - Both directions to their ends: the local end was told of the peer's, the peer of the local
//!   end's. [`Event::Closed`].
//! - The local end takes no more ([`Event::OutputFailed`]): it is still heard, and what comes for it is
//!   thrown away. Of [`LocalEnd::Flows`] the rest is its owner's. When a socket has finished, too, the
//!   peer is told so, and may say for nobody what it has to say, for 30 s and 8 MiB
//!   ([`DRAIN_TIME`](crate::wire::yamux::DRAIN_TIME)): then the stream is reset.
//!   [`Event::Closed`] comes at once.
//! - The peer resets it: [`Event::Reset`].
//! - The owner ends it: [`Pump::close`] in order, [`Pump::cut`] and [`Pump::reset`] otherwise. No
//!   event tells of it.
//!
//! Memory: what a local end does not take, at most the windows that yamux gives; [`OUT_MAX`] bytes
//! of frames and a burst more. When nothing moves for 50 ms, buffers are given back.

mod event;
mod local;
mod peer;
mod stream;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use stream::{KEPT_MAX, LocalEnd, Stream, Tally};

use super::{Error, Link, SendQueue};
use crate::sys::clock;
use crate::wire::yamux::{Mux, PIECE, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;
use stream::{FromPeer, Ready, Sending, ToPeer};

/// Bytes of frames that wait to be sent; above it no local end is read.
pub const OUT_MAX: usize = 512 * 1024;
/// Bytes that are taken from the link in a turn, about: then the local ends have theirs.
const TURN_MAX: usize = 1024 * 1024;

/// Whether the link is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Not before [`Pump::start_reading`].
    NotYet,
    Open,
    /// Never again: the peer has finished, or has broken the protocol.
    Over,
}

/// Streams on a link. `T`: what their owner knows of each.
pub struct Pump<T> {
    mux: Mux,
    streams: BTreeMap<StreamId, Box<Stream<T>>>,
    /// Streams that are told their last words.
    closing: Vec<StreamId>,
    events: VecDeque<Event<T>>,
    /// The link broke while the local ends were served: told after the events.
    failed: Option<Error>,
    out: SendQueue,
    now: Duration,
    /// The stream that had its turn last.
    turn: Option<StreamId>,
    ready: VecDeque<(StreamId, Ready)>,
    reading: Reading,
    /// The link may have something.
    readable: bool,
    /// The multiplexer may have another event of the bytes that it has.
    pending: bool,
    /// Bytes that were taken in this turn.
    taken: usize,
    /// The link did not take all that was to be sent.
    blocked: bool,
    /// Bytes came, or went, since the owner asked.
    received: bool,
    sent: bool,
}

impl<T> Pump<T> {
    /// Nothing is read of the link before [`Pump::start_reading`].
    pub fn new(mux: Mux) -> Pump<T> {
        Pump {
            mux,
            reading: Reading::NotYet,
            streams: BTreeMap::new(),
            closing: Vec::new(),
            events: VecDeque::new(),
            failed: None,
            out: SendQueue::new(),
            now: clock::monotonic(),
            turn: None,
            ready: VecDeque::new(),
            readable: false,
            pending: false,
            taken: 0,
            blocked: false,
            received: false,
            sent: false,
        }
    }

    /// The link is read from now on, and first what has come already. Of a plain one all is read
    /// ([`Link::read_ahead`]).
    pub fn start_reading(&mut self) {
        if self.reading == Reading::NotYet {
            self.reading = Reading::Open;
        }
        self.readable = true;
    }

    /// A turn begins.
    pub fn begin_turn(&mut self) {
        self.now = clock::monotonic();
    }

    /// Does what is due. False: the peer has been silent for too long.
    pub fn tick(&mut self) -> bool {
        self.mux.tick(self.now).is_none()
    }

    /// The time of this turn.
    pub fn now(&self) -> Duration {
        self.now
    }

    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    pub fn mux_mut(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// No new streams from now on.
    pub fn go_away(&mut self) {
        self.mux.go_away(self.now);
    }

    pub fn stream(&self, id: StreamId) -> Option<&Stream<T>> {
        self.streams.get(&id).map(Box::as_ref)
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What the owner knows of a stream.
    pub fn owner(&mut self, id: StreamId) -> Option<&mut T> {
        self.streams.get_mut(&id).map(|s| &mut s.owner)
    }

    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Stream<T>)> {
        self.streams.iter().map(|(id, s)| (*id, s.as_ref()))
    }

    /// What the owner knows of each.
    pub fn owners(&mut self) -> impl Iterator<Item = (StreamId, &mut T)> {
        self.streams.iter_mut().map(|(id, s)| (*id, &mut s.owner))
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn ids(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// Does the peer say no more on the whole link?
    pub fn is_over(&self) -> bool {
        self.reading == Reading::Over
    }

    /// Was all sent?
    pub fn is_sent(&self, link: &Link) -> bool {
        !self.has_backlog(link) && self.mux.control_queued() == 0
    }

    /// Did the link not take all that was to be sent?
    pub fn has_backlog(&self, link: &Link) -> bool {
        !self.out.is_sent() || link.wants_write()
    }

    /// Have bytes come since this was asked last?
    pub fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    /// Were bytes sent since this was asked last?
    pub fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.sent)
    }

    // What an owner does with streams. Ids of streams that are gone count for nothing.

    /// Opens a stream, which its owner hears. Err: no stream can be opened any more.
    pub fn open(&mut self, owner: T) -> Result<StreamId, T> {
        let Some(id) = self.mux.open(self.now) else { return Err(owner) };
        // Its beginning goes before its data, whoever says that.
        let mux = &mut self.mux;
        self.out.append(|out| mux.take_control(out));
        self.adopt(id, owner);
        Ok(id)
    }

    /// A stream that the multiplexer has open already; its owner hears it.
    pub fn adopt(&mut self, id: StreamId, owner: T) {
        self.streams.insert(id, Stream::new(owner));
    }

    /// Says bytes for which there is window.
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

    /// Keeps what the local end says, after these bytes that were said: [`KEPT_MAX`] at most, until
    /// [`Pump::release`].
    pub fn keep(&mut self, id: StreamId, said: Vec<u8>) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.tally.sent = said.len() as u64;
            s.sending = Sending::Keeping(said);
        }
    }

    /// The local end is not read, so that not even its end is known.
    pub fn pause(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.sending = Sending::Paused;
        }
    }

    /// The stream has this local end, which is heard from now on; what comes is still the owner's.
    pub fn attach(&mut self, id: StreamId, local: LocalEnd) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let ended = matches!(&local, LocalEnd::Flows { input: None, .. });
        s.local = local;
        if ended {
            self.local_finished(id);
        }
    }

    /// The local end hears what comes from now on, and first what the owner has not taken.
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

    /// What its owner knows of a stream, and what has come for it and was not
    /// [taken](Pump::take).
    pub fn held(&mut self, id: StreamId) -> Option<(&mut T, &[u8])> {
        let s = self.streams.get_mut(&id)?;
        Some((&mut s.owner, s.held.make_contiguous()))
    }

    /// The owner has taken so many bytes.
    pub fn take(&mut self, id: StreamId, n: usize) {
        if let Some(s) = self.streams.get_mut(&id) {
            let counts = s.consume_held(n);
            if s.held.is_empty() {
                s.held = VecDeque::new();
            }
            self.mux.delivered(id, counts, self.now);
        }
    }

    /// Nobody reads the output: what comes is [`Event::OutputFailed`].
    pub fn drop_output(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id)
            && let LocalEnd::Flows { output, .. } = &mut s.local
        {
            *output = None;
        }
    }

    /// The stream is told this and then ends; what comes for it is thrown away.
    /// [`Event::Closed`] tells when it was told.
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

    /// Nothing more is said: the peer is told so.
    pub fn finish(&mut self, id: StreamId) {
        if self.streams.contains_key(&id) {
            self.local_finished(id);
        }
    }

    /// The stream is over for its owner, in order; what the peer still says is thrown away for a
    /// while.
    pub fn close(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        let stream = self.streams.remove(&id)?;
        self.mux.drain(id, self.now);
        Some(stream)
    }

    /// Resets a stream, where that destroys nothing that the peer has not read.
    pub fn reset(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.mux.reset(id, self.now);
        self.streams.remove(&id)
    }

    /// Resets a stream: nobody wants it any more.
    pub fn cut(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.mux.cut(id);
        self.streams.remove(&id)
    }

    /// Takes a stream out, and tells the peer nothing: the session is no more.
    pub fn remove(&mut self, id: StreamId) -> Option<Box<Stream<T>>> {
        self.streams.remove(&id)
    }

    // Ends.

    /// The local end says no more.
    fn local_finished(&mut self, id: StreamId) {
        // Data comes before the end: the queue keeps their order.
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

    /// Both directions are at their ends, or nobody hears any more what comes. True: it is closed.
    fn close_if_done(&mut self, id: StreamId) -> bool {
        let over = self.streams.get(&id).is_some_and(|s| {
            let discards =
                s.from_peer == FromPeer::Discarding && !matches!(s.local, LocalEnd::Flows { .. });
            matches!(s.to_peer, ToPeer::Finished) && (s.from_peer == FromPeer::Done || discards)
        });
        if over && let Some(stream) = self.close(id) {
            self.events.push_back(Event::Closed(id, stream));
        }
        over
    }

    /// The local end takes no more.
    fn output_failed(&mut self, id: StreamId, e: io::Error) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        if s.from_peer == FromPeer::ToLocalLast {
            s.finish_output();
        }
        s.from_peer = FromPeer::Discarding;
        let n = s.discard_held();
        self.mux.delivered(id, n, self.now);
        self.events.push_back(Event::OutputFailed(id, e));
        self.close_if_done(id);
    }
}
