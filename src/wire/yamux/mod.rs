//! yamux, for client and server: frames in, events out. Bytes and time are arguments; nothing here
//! does I/O.
//!
//! It follows hashicorp/yamux (spec.md), and gets on with clients as they are: Go's, the yamux
//! crate, others. Each stream has a window of [`INITIAL_WINDOW`] in each direction, which grows if
//! the stream is fast. Payload is never copied and never kept: what is received is a slice of the
//! caller's own bytes, what is sent is a header in front of the caller's own bytes.
//!
//! A client opens streams with odd numbers, a server with even ones ([`Mux::open`]). A server does
//! so only for services that its client offers; a client that has not said that it expects such
//! streams ([`Mux::set_max_streams`]) takes one for a breach of the protocol. Everything else is
//! the same for both; what is written below about a client and a service holds for the two ends of
//! any stream.
//!
//! The rules for a caller:
//! 1. Read the transport only while [`Mux::control_queued`] is at most [`CONTROL_MAX`] (so that a
//!    peer that sends requests without reading the answers is no longer read), then call
//!    [`Mux::receive`] until there is no event. At most one window of a stream is handed over
//!    before [`Mux::delivered`] reports that it was passed on.
//! 2. Take the control frames as long as the bytes that wait to be written have a bound, and write
//!    them between data frames, before any data frame that is made later.
//! 3. Write data frames, one of each stream in turn: the header from [`Mux::data`], then the
//!    payload.
//! 4. After reading, call [`Mux::tick`]; sleep until [`Mux::next_deadline`] at most.
//!
//! Memory: a session has at most `max_streams` streams of under 100 bytes each, as many again that
//! a server opens, a fixed amount for used numbers, and control frames: at most as many bytes as
//! were received. A client can make a caller hold [`SESSION_WINDOW`] bytes, or the number of open
//! streams times [`INITIAL_WINDOW`] where that is more, or where windows do not grow
//! ([`Mux::keep_windows`]). A breach of the protocol is found before anything is allocated for it;
//! it ends the session with go-away code 1 and [`Event::Broken`].
//!
//! `receive` decodes frames (`frame`) into events; `stream` is one stream, `opening` those that
//! this side opens, `used` the numbers that were used; `phase` says whether streams may still be
//! opened, and `keepalive` whether the peer is still there.

#[cfg(test)]
mod both_sides;
mod frame;
mod keepalive;
mod opening;
mod phase;
#[cfg(test)]
mod properties;
mod receive;
mod stream;
#[cfg(test)]
mod tests;
mod used;

use frame::{ACK, FIN, Header, Kind, RST, SYN};
use keepalive::{Due, Keepalive};
use opening::Side;
use phase::{Failure, Phase};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;
use stream::{PeerHalf, Stream};
use used::UsedNumbers;

pub use frame::{FRAME, HEADER, PIECE};
pub use keepalive::SILENT_INTERVALS_MAX;
pub use stream::{INITIAL_WINDOW, SESSION_WINDOW, STREAM_WINDOW};

/// While more bytes of control frames than this are queued, the transport must not be read.
pub const CONTROL_MAX: usize = 4096;
/// How long what comes on a drained stream is discarded.
pub const DRAIN_TIME: Duration = Duration::from_secs(30);
/// How many bytes that come on a drained stream are discarded.
pub const DRAIN_BYTES: u32 = 8 * 1024 * 1024;
/// How long a server that has sent go-away waits for the sign that its client has read it: streams
/// that the client opens meanwhile are served.
pub const GO_AWAY_TIME: Duration = Duration::from_secs(10);

const NORMAL: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// A stream's number. It is never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What has happened: bytes have come, or time has passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A new stream, which the peer has opened. A server has acknowledged it already; a client
    /// takes it by [`Mux::accept`].
    Opened(StreamId),
    /// The client has acknowledged a stream that this server has opened.
    Accepted(StreamId),
    /// Bytes of a stream, at least one. They count against its window until [`Mux::delivered`].
    Data(StreamId, &'a [u8]),
    /// The client has finished sending. The stream goes on until [`Mux::finish`].
    Finished(StreamId),
    /// The client has reset the stream, which is forgotten.
    Reset(StreamId),
    /// The client has sent go-away. Code 0: open streams go on, and no more will be opened; any
    /// other code: it has given up the session.
    GoAway(u32),
    /// The session must end, and why: the client has broken the protocol (a go-away frame is
    /// queued), or has been silent for [`SILENT_INTERVALS_MAX`] intervals. Nothing more is read.
    Broken(&'static str),
}

/// A session's multiplexer.
#[derive(Debug)]
pub struct Mux {
    streams: HashMap<u32, Stream>,
    used: UsedNumbers,
    /// The sum of the sizes of all receive windows.
    windows: u64,
    /// Windows grow as long as that sum is at most this.
    session_window: u64,
    /// How many bytes clients may still send on streams that are forgotten: the rest of their
    /// windows.
    late_credit: u64,
    /// Of the peer's; and of a server's own.
    max_streams: u32,
    side: Side,
    /// The number of the next stream that this side opens. None: all are used.
    next: Option<u32>,
    /// How many of the open streams this side has opened.
    own: usize,
    /// The peer has sent go-away: it accepts no streams.
    peer_went_away: bool,
    reader: receive::FrameReader,
    control: Vec<u8>,
    /// Drained streams, the next to be reset first.
    drains: VecDeque<(Duration, u32)>,
    keepalive: Keepalive,
    phase: Phase,
    /// The session has failed: nothing more is read.
    failure: Option<Failure>,
}

impl Mux {
    /// A server's side of a new session. `keepalive`: the interval after which silence is answered
    /// with a ping; zero: never. `max_streams`: how many streams of the client may be open at a
    /// time, and how many of the server. All times must come from one monotonic clock.
    pub fn new(keepalive: Duration, max_streams: u32, now: Duration) -> Self {
        Mux {
            streams: HashMap::new(),
            used: UsedNumbers::default(),
            windows: 0,
            session_window: SESSION_WINDOW,
            late_credit: 0,
            max_streams,
            side: Side::Server,
            next: Some(2),
            own: 0,
            peer_went_away: false,
            reader: receive::FrameReader::default(),
            control: Vec::new(),
            drains: VecDeque::new(),
            keepalive: Keepalive::new(keepalive, now),
            phase: Phase::Open,
            failure: None,
        }
    }

    /// A client's side of a new session: the server may open no streams until
    /// [`Mux::set_max_streams`].
    pub fn client(keepalive: Duration, now: Duration) -> Self {
        Mux { side: Side::Client, next: Some(1), ..Mux::new(keepalive, 0, now) }
    }

    /// Sends a ping, which the peer must answer.
    pub fn ping(&mut self, now: Duration) {
        let value = self.keepalive.ping(now);
        self.queue(Kind::Ping, SYN, 0, value);
    }

    /// How many streams of the peer may be open; one more is reset. Streams that are open already
    /// stay.
    pub fn set_max_streams(&mut self, n: u32) {
        self.max_streams = n;
    }

    /// Windows keep their first size, [`INITIAL_WINDOW`], however fast a stream is.
    pub fn keep_windows(&mut self) {
        self.session_window = 0;
    }

    /// How many streams are open, drained ones included.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Has either side sent go-away? Then no more streams are opened, and the session is over when
    /// `open_streams` is 0.
    pub fn is_going_away(&self) -> bool {
        self.phase != Phase::Open
    }

    /// How many bytes of control frames are queued.
    pub fn control_queued(&self) -> usize {
        self.control.len()
    }

    /// Appends the queued control frames to `out`, which must end with a whole frame.
    pub fn take_control(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.control);
        self.control.shrink_to(CONTROL_MAX);
    }

    /// How many bytes of payload the client accepts on a stream now; 0 if the stream is finished or
    /// forgotten. A frame has at most [`PIECE`] of them.
    pub fn send_window(&self, id: StreamId) -> usize {
        match self.streams.get(&id.0) {
            Some(stream) if !stream.finished => stream.send as usize,
            _ => 0,
        }
    }

    /// The header of a data frame with `len` bytes, 1 to [`PIECE`] and at most
    /// [`Mux::send_window`]. Exactly this many bytes of payload must follow.
    pub fn data(&mut self, id: StreamId, len: usize) -> [u8; HEADER] {
        debug_assert!(
            len > 0 && len <= PIECE && len <= self.send_window(id),
            "a frame that must not be sent"
        );
        // At most PIECE.
        let length = len as u32;
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.send = stream.send.saturating_sub(length);
        }
        let header = Header { kind: Kind::Data, flags: 0, stream: id.0, length };
        header.encode()
    }

    /// `n` bytes of a stream's data were passed on to its service. Bytes of a forgotten stream do
    /// not count.
    pub fn delivered(&mut self, id: StreamId, n: usize, now: Duration) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.consume(u32::try_from(n).unwrap_or(u32::MAX));
            self.grant(id.0, now);
        }
    }

    /// Finishes sending on a stream: FIN, once. All its data frames must have been written before
    /// the control frames.
    pub fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id.0).filter(|s| !s.finished) else {
            return;
        };
        stream.finished = true;
        let over = stream.peer_half == PeerHalf::Closed;
        self.queue(Kind::Window, FIN, id.0, 0);
        if over {
            self.forget(id.0);
        }
    }

    /// Ends a stream at once: RST. After our own FIN an RST would destroy what the client has not
    /// read yet: then this is [`Mux::drain`].
    pub fn reset(&mut self, id: StreamId, now: Duration) {
        match self.streams.get(&id.0) {
            Some(stream) if stream.finished => self.drain(id, now),
            Some(_) => self.abort(id.0),
            None => {}
        }
    }

    /// Ends a stream at once, even after our own FIN: RST; what the peer has not read yet is lost.
    /// For a client whose caller is gone: its service would otherwise run on for nobody. A server
    /// uses [`Mux::reset`].
    pub fn reset_at_once(&mut self, id: StreamId) {
        if self.streams.contains_key(&id.0) {
            self.abort(id.0);
        }
    }

    /// The service is gone: the stream is finished, and what the client still sends is discarded,
    /// along with what the caller holds of it. No more events follow for it. If the client has not
    /// finished after [`DRAIN_TIME`] or [`DRAIN_BYTES`], the stream is reset.
    pub fn drain(&mut self, id: StreamId, now: Duration) {
        self.finish(id);
        if let Some(stream) = self.streams.get_mut(&id.0).filter(|s| s.peer_half == PeerHalf::Open)
        {
            stream.peer_half = PeerHalf::Drained(0);
            stream.consume(u32::MAX);
            self.drains.push_back((now.saturating_add(DRAIN_TIME), id.0));
            self.grant(id.0, now);
        }
    }

    /// No new streams from now on: sends go-away with code 0, once. Open streams go on. A server
    /// still serves streams that its client opened before it read that: a ping follows go-away, and
    /// until its answer has come (at most [`GO_AWAY_TIME`]) streams may begin.
    pub fn go_away(&mut self, now: Duration) {
        if self.failure.is_some()
            || matches!(self.phase, Phase::GoAwayUnread { .. } | Phase::Closed)
        {
            return;
        }
        self.queue(Kind::GoAway, 0, 0, NORMAL);
        // A client that has sent go-away itself opens no more streams.
        if self.side == Side::Client || self.phase == Phase::PeerGoAway {
            self.phase = Phase::Closed;
            return;
        }
        let ping = self.keepalive.ping(now);
        self.queue(Kind::Ping, SYN, 0, ping);
        self.phase = Phase::GoAwayUnread { ping, until: now.saturating_add(GO_AWAY_TIME) };
    }

    /// Has the session ended in order: one side has sent go-away, no stream is open, and none that
    /// must be served can be on its way?
    pub fn is_over(&self) -> bool {
        self.phase.is_closed() && self.streams.is_empty()
    }

    /// Has the server acknowledged this stream? If so, it may have started a service for it.
    pub fn is_acknowledged(&self, id: StreamId) -> bool {
        self.streams.get(&id.0).is_some_and(|s| s.acknowledged)
    }

    /// The peer is alive, although no bytes came from it: it has read from a transport that was
    /// full.
    pub fn peer_is_alive(&mut self, now: Duration) {
        self.keepalive.peer_is_alive(now);
    }

    /// When [`Mux::tick`] has something to do, if nothing comes before; `Duration::MAX`: never.
    pub fn next_deadline(&self) -> Duration {
        let drain = self.drains.front().map(|(at, _)| *at);
        [drain, self.phase.deadline(), self.keepalive.deadline()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// Does what is due. The event, if any, is [`Event::Broken`].
    pub fn tick(&mut self, now: Duration) -> Option<Event<'static>> {
        if self.failure.is_some() {
            return None;
        }
        while let Some((_, id)) = self.drains.front().filter(|(at, _)| *at <= now) {
            self.abort(*id);
        }
        self.phase = self.phase.at(now);
        match self.keepalive.tick(now) {
            Due::Nothing => {}
            Due::Ping(value) => self.queue(Kind::Ping, SYN, 0, value),
            Due::PeerDead => {
                self.failure = Some(Failure::Silence);
                return Some(Event::Broken("silence"));
            }
        }
        None
    }

    fn queue(&mut self, kind: Kind, flags: u16, stream: u32, length: u32) {
        let header = Header { kind, flags, stream, length };
        self.control.extend_from_slice(&header.encode());
    }

    /// Grants the client more window, if there is enough to be worth a frame.
    fn grant(&mut self, id: u32, now: Duration) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // After the client's FIN it needs no more.
        if stream.peer_half == PeerHalf::Closed {
            return;
        }
        let room = self.session_window.saturating_sub(self.windows);
        if let Some((credit, grown)) = stream.credit(now, self.keepalive.round_trip(), room) {
            self.windows += u64::from(grown);
            self.queue(Kind::Window, 0, id, credit);
            if let Some(value) = self.keepalive.measure(now) {
                self.queue(Kind::Ping, SYN, 0, value);
            }
        }
    }

    fn abort(&mut self, id: u32) {
        self.queue(Kind::Window, RST, id, 0);
        self.forget(id);
    }

    fn forget(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.windows -= u64::from(stream.window);
            self.own -= usize::from(self.is_own(id));
            self.late_credit += u64::from(stream.receive);
            if let PeerHalf::Drained(_) = stream.peer_half {
                self.drains.retain(|(_, drained)| *drained != id);
            }
        }
    }
}
