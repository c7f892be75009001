//! yamux, the server's side (hashicorp/yamux, spec.md): bytes and time in, events and frames out.
//!
//! PURE: whoever owns the connection calls [`Mux::receive`] with what came, sends what [`Mux::take_control`] gives, puts the
//! header that [`Mux::data`] gives before each piece of a service's bytes, and says what it has delivered. Nothing is
//! allocated for a frame before it was checked, and nothing but a stream's few words at all: payload is handed on as it lies.
//!
//! What breaks the protocol ends the session: [`Event::Broken`], with a go-away of code 1 to be sent.

mod frame;
#[cfg(test)]
mod tests;

pub use frame::HEADER;
use frame::{ACK, FIN, Header, Kind, RST, SYN};
use std::collections::HashMap;
use std::time::Duration;

/// A stream's window at its beginning, in bytes (spec.md).
pub const WINDOW: u32 = 256 * 1024;
/// What a fast stream's window grows to, and all windows of a session together beyond their beginning.
pub const WINDOW_MAX: u32 = 4 * 1024 * 1024;
const SESSION_MAX: u32 = 16 * 1024 * 1024;
/// A stream that uses up half of its window within this time is fast.
const FAST: Duration = Duration::from_millis(200);
/// Bytes of a data frame that is sent, at most.
pub const PIECE: usize = 16 * 1024;
/// Control frames that wait to be sent, in bytes: above it the caller must not read.
pub const CONTROL_MAX: usize = 4096;
/// What is thrown away behind a service that has gone: bytes, and time.
const DRAIN_BYTES: u32 = 8 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Intervals of silence that end a session.
const SILENCE: u32 = 3;

/// A stream's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The client has opened a stream; it was acknowledged.
    Opened(StreamId),
    /// Bytes of a stream; to be reported by [`Mux::delivered`] once they are out of the way.
    Data(StreamId, &'a [u8]),
    /// The client sends no more on it.
    Finished(StreamId),
    /// It is gone, both ways.
    Reset(StreamId),
    /// The client opens no more streams.
    GoAway(u32),
    /// The session must end: why.
    Broken(&'static str),
}

#[derive(Debug)]
struct Stream {
    /// What the client may still send.
    credit: u32,
    /// What it sent and the caller still holds.
    held: u32,
    /// How large its window is.
    window: u32,
    /// When it was last given credit.
    renewed: Duration,
    /// What may still be sent to it.
    send: u32,
    finished_here: bool,
    finished_there: bool,
    /// Its service is gone: bytes that are still thrown away, and until when.
    drain: Option<(u32, Duration)>,
}

/// One session.
#[derive(Debug)]
pub struct Mux {
    streams: HashMap<u32, Stream>,
    max_streams: u32,
    /// Windows beyond their beginning, all together.
    grown: u32,
    header: [u8; HEADER],
    have: usize,
    /// The stream whose payload is coming, and how much of it.
    payload: (u32, u32),
    /// A flag of a data frame, that counts behind its payload.
    behind: Option<StreamId>,
    control: Vec<u8>,
    keepalive: Duration,
    heard: Duration,
    pinged: Duration,
    pings: u32,
    going: bool,
    broken: bool,
}

impl Mux {
    pub fn new(keepalive: Duration, max_streams: u32, now: Duration) -> Mux {
        Mux {
            streams: HashMap::new(),
            max_streams,
            grown: 0,
            header: [0; HEADER],
            have: 0,
            payload: (0, 0),
            behind: None,
            control: Vec::new(),
            keepalive,
            heard: now,
            pinged: now,
            pings: 0,
            going: false,
            broken: false,
        }
    }

    /// Reads on: how many bytes were taken, and what they mean. To be called again until all are taken; a call that took
    /// nothing and tells nothing wants more bytes.
    pub fn receive<'a>(&mut self, bytes: &'a [u8], now: Duration) -> (usize, Option<Event<'a>>) {
        if self.broken {
            return (bytes.len(), None);
        }
        if let Some(id) = self.behind.take_if(|_| self.payload.1 == 0)
            && let Some(event) = self.finished(id)
        {
            return (0, Some(event));
        }
        if bytes.is_empty() {
            return (0, None);
        }
        self.heard = now;
        if self.payload.1 > 0 {
            return self.receive_payload(bytes, now);
        }
        let n = bytes.len().min(HEADER - self.have);
        self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
        self.have += n;
        if self.have < HEADER {
            return (n, None);
        }
        self.have = 0;
        let event = match Header::decode(&self.header).and_then(|h| self.frame(h, now)) {
            Ok(event) => event,
            Err(why) => Some(self.break_off(why)),
        };
        (n, event)
    }

    fn receive_payload<'a>(&mut self, bytes: &'a [u8], now: Duration) -> (usize, Option<Event<'a>>) {
        let (id, left) = self.payload;
        let n = bytes.len().min(left as usize);
        self.payload.1 -= n as u32;
        let Some(s) = self.streams.get(&id) else { return (n, None) };
        if s.drain.is_some() {
            self.throw_away(id, n as u32, now);
            return (n, None);
        }
        (n, Some(Event::Data(StreamId(id), &bytes[..n])))
    }

    fn frame<'a>(&mut self, h: Header, now: Duration) -> Result<Option<Event<'a>>, &'static str> {
        match h.kind {
            Kind::Data | Kind::WindowUpdate => self.of_stream(h, now),
            Kind::Ping => self.ping(h),
            Kind::GoAway if h.stream != 0 => Err("go-away of a stream"),
            Kind::GoAway => Ok(Some(Event::GoAway(h.length))),
        }
    }

    fn ping<'a>(&mut self, h: Header) -> Result<Option<Event<'a>>, &'static str> {
        if h.stream != 0 {
            return Err("ping of a stream");
        }
        if h.flags & SYN != 0 {
            self.put(Header::new(Kind::Ping, ACK, 0, h.length));
        }
        Ok(None)
    }

    fn of_stream<'a>(&mut self, h: Header, now: Duration) -> Result<Option<Event<'a>>, &'static str> {
        if h.stream.is_multiple_of(2) {
            return Err("stream's number");
        }
        let length = if h.kind == Kind::Data { h.length } else { 0 };
        if length > WINDOW_MAX {
            return Err("length");
        }
        let mut event = None;
        if h.flags & SYN != 0 {
            if self.streams.contains_key(&h.stream) {
                return Err("stream opened twice");
            }
            if length > WINDOW {
                return Err("window exceeded");
            }
            if h.flags & RST != 0 {
                return Ok(None);
            }
            if self.going || self.streams.len() >= self.max_streams as usize {
                self.put(Header::new(Kind::WindowUpdate, RST, h.stream, 0));
                self.payload = (h.stream, length);
                return Ok(None);
            }
            event = Some(self.open(h.stream, now));
        }
        let Some(s) = self.streams.get_mut(&h.stream) else {
            // Of a stream that is gone: what was on its way is thrown away.
            self.payload = (h.stream, length);
            return Ok(None);
        };
        if h.flags & RST != 0 {
            self.forget(h.stream);
            self.payload = (h.stream, length);
            return Ok(Some(Event::Reset(StreamId(h.stream))));
        }
        if length > s.credit {
            return Err("window exceeded");
        }
        if s.finished_there && (length > 0 || h.flags & FIN != 0) {
            return Err("stream finished twice");
        }
        if h.kind == Kind::WindowUpdate {
            s.send = s.send.checked_add(h.length).ok_or("window overflow")?;
        }
        s.credit -= length;
        s.held += length;
        self.payload = (h.stream, length);
        if h.flags & FIN != 0 {
            s.finished_there = true;
            // Behind what comes before it.
            if length > 0 || event.is_some() {
                self.behind = Some(StreamId(h.stream));
            } else {
                return Ok(self.finished(StreamId(h.stream)));
            }
        }
        Ok(event)
    }

    fn open<'a>(&mut self, id: u32, now: Duration) -> Event<'a> {
        let s = Stream {
            credit: WINDOW,
            held: 0,
            window: WINDOW,
            renewed: now,
            send: WINDOW,
            finished_here: false,
            finished_there: false,
            drain: None,
        };
        self.streams.insert(id, s);
        self.put(Header::new(Kind::WindowUpdate, ACK, id, 0));
        Event::Opened(StreamId(id))
    }

    fn finished<'a>(&mut self, id: StreamId) -> Option<Event<'a>> {
        let s = self.streams.get(&id.0)?;
        if s.finished_here {
            let drained = s.drain.is_some();
            self.forget(id.0);
            return (!drained).then_some(Event::Finished(id));
        }
        Some(Event::Finished(id))
    }

    fn break_off<'a>(&mut self, why: &'static str) -> Event<'a> {
        self.broken = true;
        self.put(Header::new(Kind::GoAway, 0, 0, 1));
        Event::Broken(why)
    }

    fn put(&mut self, h: Header) {
        self.control.extend_from_slice(&h.encode());
    }

    fn forget(&mut self, id: u32) {
        if let Some(s) = self.streams.remove(&id) {
            self.grown -= s.window - WINDOW;
        }
    }

    // What is sent.

    /// Bytes of control frames that wait; above [`CONTROL_MAX`] nothing may be read.
    pub fn control_queued(&self) -> usize {
        self.control.len()
    }

    /// Moves the control frames behind whole frames of `out`.
    pub fn take_control(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.control);
    }

    /// How much the client takes on this stream now.
    pub fn send_window(&self, id: StreamId) -> usize {
        self.streams.get(&id.0).filter(|s| !s.finished_here).map_or(0, |s| s.send as usize)
    }

    /// The header of `length` bytes, which must be no more than [`Mux::send_window`] and [`PIECE`].
    pub fn data(&mut self, id: StreamId, length: usize) -> [u8; HEADER] {
        let length = length as u32;
        if let Some(s) = self.streams.get_mut(&id.0) {
            debug_assert!(length <= s.send && !s.finished_here);
            s.send = s.send.saturating_sub(length);
        }
        Header::new(Kind::Data, 0, id.0, length).encode()
    }

    /// Nothing more will be sent on it.
    pub fn finish(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id.0) else { return };
        if s.finished_here {
            return;
        }
        s.finished_here = true;
        let both = s.finished_there;
        self.put(Header::new(Kind::WindowUpdate, FIN, id.0, 0));
        if both {
            self.forget(id.0);
        }
    }

    /// Ends it both ways. Behind a FIN of ours it is only drained: a reset would destroy what the client has not read.
    pub fn reset(&mut self, id: StreamId, now: Duration) {
        match self.streams.get(&id.0) {
            Some(s) if s.finished_here => self.drain(id, now),
            Some(_) => {
                self.forget(id.0);
                self.put(Header::new(Kind::WindowUpdate, RST, id.0, 0));
            }
            None => {}
        }
    }

    /// Its service is gone: it is finished, and what still comes is thrown away, for a while.
    pub fn drain(&mut self, id: StreamId, now: Duration) {
        self.finish(id);
        let Some(s) = self.streams.get_mut(&id.0) else { return };
        if s.drain.is_none() {
            s.drain = Some((DRAIN_BYTES, now + DRAIN_TIME));
            let held = s.held;
            self.throw_away(id.0, held, now);
        }
    }

    fn throw_away(&mut self, id: u32, n: u32, now: Duration) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let Some((left, _)) = &mut s.drain else { return };
        if n > *left {
            self.forget(id);
            return self.put(Header::new(Kind::WindowUpdate, RST, id, 0));
        }
        *left -= n;
        self.delivered(StreamId(id), n as usize, now);
    }

    /// `n` bytes of a stream are out of the way: the client is given credit for more when half of the window is used up.
    pub fn delivered(&mut self, id: StreamId, n: usize, now: Duration) {
        let Some(s) = self.streams.get_mut(&id.0) else { return };
        s.held = s.held.saturating_sub(n as u32);
        let free = s.window - s.credit - s.held;
        if s.finished_there || free < s.window / 2 {
            return;
        }
        let mut more = free;
        let larger = s.window.saturating_mul(2);
        if now.saturating_sub(s.renewed) < FAST && larger <= WINDOW_MAX && self.grown + s.window <= SESSION_MAX && s.drain.is_none() {
            self.grown += s.window;
            more += s.window;
            s.window = larger;
        }
        s.credit += more;
        s.renewed = now;
        self.put(Header::new(Kind::WindowUpdate, 0, id.0, more));
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// No new streams: they will be reset. Those that are open go on.
    pub fn go_away(&mut self) {
        if !self.going {
            self.going = true;
            self.put(Header::new(Kind::GoAway, 0, 0, 0));
        }
    }

    // Time.

    /// When [`Mux::tick`] has something to do next.
    pub fn next_deadline(&self) -> Duration {
        let silent = self.heard + self.keepalive * SILENCE;
        let ping = self.heard.max(self.pinged) + self.keepalive;
        self.streams.values().filter_map(|s| s.drain.map(|(_, until)| until)).fold(silent.min(ping), Duration::min)
    }

    /// Pings a silent client, gives one up that stays silent, and ends drains.
    pub fn tick(&mut self, now: Duration) -> Option<Event<'static>> {
        if self.broken {
            return None;
        }
        if now >= self.heard + self.keepalive * SILENCE {
            self.broken = true;
            return Some(Event::Broken("silence"));
        }
        if now >= self.heard.max(self.pinged) + self.keepalive {
            self.pinged = now;
            self.pings = self.pings.wrapping_add(1);
            self.put(Header::new(Kind::Ping, SYN, 0, self.pings));
        }
        let over: Vec<u32> = self.streams.iter().filter(|(_, s)| s.drain.is_some_and(|(_, until)| until <= now)).map(|(id, _)| *id).collect();
        for id in over {
            self.forget(id);
            self.put(Header::new(Kind::WindowUpdate, RST, id, 0));
        }
        None
    }
}
