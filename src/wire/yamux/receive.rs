//! Decodes the peer's bytes into events. However the bytes are split, the events are the same.

use super::frame::HEADER;
use super::used::Number;
use super::*;

/// The error of a client that sends anything after its FIN, even if the stream is forgotten.
const AFTER_FIN: &str = "data or an end after the end";
/// The error of a peer that uses a number of this side's for which there was no stream.
const NOT_THE_PEERS: &str = "a stream number that is not the peer's";

/// How far a frame has been read.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    header: [u8; HEADER],
    filled: usize,
    /// The stream of the payload that is being read.
    stream: u32,
    /// How many bytes of payload are still to come.
    left: u32,
    /// The frame has FIN.
    last: bool,
}

impl Mux {
    /// The peer is there again, after a silence that would have ended the session.
    pub fn peer_is_back(&mut self, now: Duration) {
        self.failure = self.failure.filter(|f| *f != Failure::Silence);
        self.peer_is_alive(now);
    }

    /// Takes bytes from the transport; returns how many it took, and an event.
    ///
    /// To be called again with the rest, even if that is empty, until there is no event; then all
    /// bytes have been taken.
    pub fn receive<'a>(&mut self, bytes: &'a [u8], now: Duration) -> (usize, Option<Event<'a>>) {
        if !bytes.is_empty() {
            self.keepalive.peer_is_alive(now);
        }
        let mut rest = bytes;
        while self.failure.is_none() {
            let event = if self.reader.left > 0 {
                if rest.is_empty() {
                    break;
                }
                let n = rest.len().min(self.reader.left as usize);
                let (payload, after) = rest.split_at(n);
                rest = after;
                self.payload(payload, now)
            } else if std::mem::take(&mut self.reader.last) {
                self.ended()
            } else {
                match self.header(&mut rest) {
                    None => break,
                    Some(Ok(header)) => self.frame(header, now),
                    Some(Err(why)) => Err(why),
                }
                .unwrap_or_else(|why| Some(self.fail(why)))
            };
            if event.is_some() {
                return (bytes.len() - rest.len(), event);
            }
        }
        (bytes.len(), None)
    }

    /// The transport has ended. Within a frame that breaks the protocol: the frame's length was not
    /// true, and a stream that ends with it would pass for whole.
    pub fn transport_ended(&mut self) -> Option<Event<'static>> {
        let within = self.reader.left > 0 || self.reader.filled > 0;
        (within && self.failure.is_none()).then(|| self.fail("the end within a frame"))
    }

    fn fail(&mut self, why: &'static str) -> Event<'static> {
        (self.failure, self.phase) = (Some(Failure::Protocol), Phase::Closed);
        self.queue(Kind::GoAway, 0, 0, PROTOCOL_ERROR);
        Event::Broken(why)
    }

    fn header(&mut self, rest: &mut &[u8]) -> Option<Result<Header, &'static str>> {
        let wanted = HEADER - self.reader.filled;
        let (part, after) = rest.split_at(wanted.min(rest.len()));
        *rest = after;
        self.reader.header[self.reader.filled..][..part.len()].copy_from_slice(part);
        self.reader.filled += part.len();
        (self.reader.filled == HEADER).then(|| {
            self.reader.filled = 0;
            Header::decode(&self.reader.header)
        })
    }

    fn payload<'a>(&mut self, bytes: &'a [u8], now: Duration) -> Option<Event<'a>> {
        let id = self.reader.stream;
        // At most `left`, which is a u32.
        let n = bytes.len() as u32;
        self.reader.left -= n;
        let stream = self.streams.get_mut(&id)?;
        match stream.peer_half {
            PeerHalf::Open => return Some(Event::Data(StreamId(id), bytes)),
            PeerHalf::Drained(before) => {
                let drained = before.saturating_add(n);
                stream.peer_half = PeerHalf::Drained(drained);
                stream.consume(n);
                if drained >= DRAIN_BYTES {
                    self.abort(id);
                } else {
                    self.grant(id, now);
                }
            }
            PeerHalf::Closed => {}
        }
        None
    }

    /// A FIN, after all data before it has been handed over.
    fn ended(&mut self) -> Option<Event<'static>> {
        let id = self.reader.stream;
        let stream = self.streams.get_mut(&id)?;
        let drained = stream.peer_half != PeerHalf::Open;
        if stream.finished {
            self.forget(id);
        } else {
            stream.peer_half = PeerHalf::Closed;
        }
        (!drained).then_some(Event::Finished(StreamId(id)))
    }

    fn frame(
        &mut self,
        header: Header,
        now: Duration,
    ) -> Result<Option<Event<'static>>, &'static str> {
        match header.kind {
            Kind::Ping if header.has(SYN) => self.queue(Kind::Ping, ACK, 0, header.length),
            Kind::Ping => {
                self.phase = self.phase.answered(header.length);
                self.keepalive.answered(header.length, now);
            }
            Kind::GoAway => {
                self.peer_went_away = true;
                self.phase = self.phase.peer_sent_go_away();
                return Ok(Some(Event::GoAway(header.length)));
            }
            Kind::Data | Kind::Window if self.is_own(header.stream) && self.is_new(header) => {
                return Err(NOT_THE_PEERS);
            }
            Kind::Data | Kind::Window if header.has(SYN) => return self.opened(header, now),
            Kind::Data => return self.data_frame(header),
            Kind::Window => return self.window_frame(header),
        }
        Ok(None)
    }

    fn opened(
        &mut self,
        header: Header,
        now: Duration,
    ) -> Result<Option<Event<'static>>, &'static str> {
        let id = header.stream;
        if self.side == Side::Client && self.max_streams == 0 {
            return Err("a stream opened by the server");
        }
        if self.streams.contains_key(&id) {
            return Err("an open stream opened again");
        }
        let (payload, credit) = match header.kind {
            Kind::Data => (header.length, 0),
            _ => (0, header.length),
        };
        let receive = INITIAL_WINDOW.checked_sub(payload).ok_or("data beyond the window")?;
        let send = INITIAL_WINDOW.checked_add(credit).ok_or("a window too large")?;
        let fresh = match self.used.look(id) {
            Number::Used => return Err("a stream number used twice"),
            Number::Old => false,
            Number::New => {
                self.used.mark(id);
                true
            }
        };
        self.reader.stream = id;
        self.reader.left = payload;
        self.reader.last = header.has(FIN);
        if header.has(FIN) {
            self.used.finish(id);
        }
        let closed = match self.side {
            // A server that has sent go-away may still open streams.
            Side::Client => self.phase == Phase::Closed,
            Side::Server => self.phase.is_closed(),
        };
        if !fresh || closed || self.streams.len() - self.own >= self.max_streams as usize {
            self.late_credit += u64::from(receive);
            self.queue(Kind::Window, RST, id, 0);
            return Ok(None);
        }
        let mut stream = Stream::new(send, now);
        stream.receive = receive;
        self.windows += u64::from(stream.window);
        self.streams.insert(id, stream);
        if self.side == Side::Server {
            self.accept(StreamId(id));
        }
        Ok(Some(Event::Opened(StreamId(id))))
    }

    fn data_frame(&mut self, header: Header) -> Result<Option<Event<'static>>, &'static str> {
        let (id, length) = (header.stream, header.length);
        if (length > 0 || header.has(FIN)) && self.used.finished(id) {
            return Err(AFTER_FIN);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.peer_half == PeerHalf::Closed && (length > 0 || header.has(FIN)) {
                return Err(AFTER_FIN);
            }
            stream.receive = stream.receive.checked_sub(length).ok_or("data beyond the window")?;
        } else if length > 0 {
            // Data that was on its way when the stream was forgotten.
            if self.used.look(id) == Number::New {
                return Err("data of a stream that was never opened");
            }
            self.late_credit =
                self.late_credit.checked_sub(u64::from(length)).ok_or("data beyond the window")?;
        }
        self.reader.stream = id;
        self.reader.left = length;
        if header.has(RST) {
            return Ok(self.reset_by_peer(id));
        }
        self.fin(header);
        Ok(self.accepted(header))
    }

    /// Notes an ACK, if the frame has one. A server is told of the first on a stream of its own.
    fn accepted(&mut self, header: Header) -> Option<Event<'static>> {
        let own = self.side == Side::Server && self.is_own(header.stream);
        let stream = self.streams.get_mut(&header.stream).filter(|_| header.has(ACK))?;
        let first = !std::mem::replace(&mut stream.acknowledged, true);
        (own && first).then_some(Event::Accepted(StreamId(header.stream)))
    }

    /// Is it about a stream that was never opened, or does it open one?
    fn is_new(&self, header: Header) -> bool {
        header.has(SYN) || self.used.look(header.stream) == Number::New
    }

    /// Notes a FIN, if the frame has one: it is reported after the payload.
    fn fin(&mut self, header: Header) {
        self.reader.last = header.has(FIN);
        if header.has(FIN) {
            self.used.finish(header.stream);
        }
    }

    fn window_frame(&mut self, header: Header) -> Result<Option<Event<'static>>, &'static str> {
        let id = header.stream;
        if header.has(FIN) && self.used.finished(id) {
            return Err(AFTER_FIN);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            if header.has(FIN) {
                self.used.finish(id);
            }
            // It crossed our RST or FIN; or the client gave the stream up before it was opened: the
            // yamux crate then sends RST or FIN without a SYN before it.
            return Ok(None);
        };
        if header.has(RST) {
            return Ok(self.reset_by_peer(id));
        }
        if header.has(FIN) && stream.peer_half == PeerHalf::Closed {
            return Err(AFTER_FIN);
        }
        stream.send = stream.send.checked_add(header.length).ok_or("a window too large")?;
        self.reader.stream = id;
        self.fin(header);
        Ok(self.accepted(header))
    }

    /// Handles RST. If the caller has drained the stream, it has forgotten it already.
    fn reset_by_peer(&mut self, id: u32) -> Option<Event<'static>> {
        let stream = self.streams.get(&id)?;
        let known = !matches!(stream.peer_half, PeerHalf::Drained(_));
        self.forget(id);
        known.then_some(Event::Reset(StreamId(id)))
    }
}
