//! One stream: its two windows, its two directions, and how much is discarded after its service has
//! ended.

use std::time::Duration;

/// The first window in each direction of a stream, in bytes (spec.md).
pub const INITIAL_WINDOW: u32 = 256 * 1024;
/// The receive window of a fast stream grows up to this many bytes.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Windows grow as long as the windows of all open streams together are at most this, in bytes.
pub const SESSION_WINDOW: u64 = 16 * 1024 * 1024;
/// A stream that uses up its window within this time, or within two round trips, is fast.
const FAST: Duration = Duration::from_millis(100);

/// State of the client's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerHalf {
    /// Bytes are delivered.
    Open,
    /// This many bytes were discarded.
    Drained(u32),
    /// FIN has come.
    Closed,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub peer_half: PeerHalf,
    /// FIN has been queued.
    pub finished: bool,
    /// The peer has sent ACK.
    pub acknowledged: bool,
    /// Bytes that may be sent.
    pub send: u32,
    /// Bytes that the client may still send.
    pub receive: u32,
    /// Size of the receive window: what the client may still send, what the caller holds, and
    /// `spent`.
    pub window: u32,
    /// Bytes that were consumed and not granted again yet.
    spent: u32,
    /// Bytes that were granted again since `since`.
    granted: u32,
    since: Duration,
}

impl Stream {
    /// A stream that a client has just opened, and on which it accepts `send` bytes.
    pub fn new(send: u32, now: Duration) -> Self {
        Stream {
            peer_half: PeerHalf::Open,
            finished: false,
            acknowledged: false,
            send,
            receive: INITIAL_WINDOW,
            window: INITIAL_WINDOW,
            spent: 0,
            granted: 0,
            since: now,
        }
    }

    /// Bytes that came and were neither delivered nor discarded.
    pub fn held(&self) -> u32 {
        self.window - self.receive - self.spent
    }

    /// The caller consumed `n` of the bytes that it held.
    pub fn consume(&mut self, n: u32) {
        self.spent += n.min(self.held());
    }

    /// How much to grant again, if that is worth a frame, and by how much the window grows.
    /// `round_trip`: how long one takes; `room`: by how much windows may grow.
    pub fn credit(&mut self, now: Duration, round_trip: Duration, room: u64) -> Option<(u32, u32)> {
        if self.spent < self.window / 2 {
            return None;
        }
        let mut grown = 0;
        self.granted += self.spent;
        if self.granted >= self.window {
            let fast = now.saturating_sub(self.since) <= FAST.max(round_trip * 2);
            let more = self.window.min(STREAM_WINDOW - self.window);
            if fast && self.peer_half == PeerHalf::Open && u64::from(more) <= room {
                grown = more;
            }
            self.granted = 0;
            self.since = now;
        }
        let credit = self.spent + grown;
        self.spent = 0;
        self.window += grown;
        self.receive += credit;
        Some((credit, grown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Duration = Duration::ZERO;

    /// Passes `bytes` through a stream; returns how many were granted.
    fn pass(stream: &mut Stream, bytes: u32, now: Duration, round_trip: Duration) -> u32 {
        let mut granted = 0;
        for _ in 0..bytes / 1024 {
            stream.receive -= 1024;
            stream.consume(1024);
            granted += stream.credit(now, round_trip, SESSION_WINDOW).map_or(0, |(n, _)| n);
            assert!(stream.receive + stream.spent == stream.window);
        }
        granted
    }

    #[test]
    fn credit_comes_back_by_halves() {
        let mut stream = Stream::new(0, LOCAL);
        stream.receive -= INITIAL_WINDOW / 2;
        stream.consume(INITIAL_WINDOW / 2 - 1);
        assert_eq!(stream.credit(LOCAL, LOCAL, 0), None);
        stream.consume(1);
        assert_eq!(stream.credit(LOCAL, LOCAL, 0), Some((INITIAL_WINDOW / 2, 0)));
        assert_eq!(stream.receive, INITIAL_WINDOW);
    }

    #[test]
    fn nobody_consumes_what_never_came() {
        let mut stream = Stream::new(0, LOCAL);
        stream.consume(u32::MAX);
        assert_eq!(stream.credit(LOCAL, LOCAL, SESSION_WINDOW), None);
    }

    #[test]
    fn fast_streams_grow_to_the_bound_and_slow_ones_do_not() {
        let mut fast = Stream::new(0, LOCAL);
        pass(&mut fast, 64 << 20, LOCAL, LOCAL);
        assert_eq!(fast.window, STREAM_WINDOW);
        let mut slow = Stream::new(0, LOCAL);
        for second in 1..50 {
            pass(&mut slow, 128 << 10, Duration::from_secs(second), LOCAL);
        }
        assert_eq!(slow.window, INITIAL_WINDOW);
        // A small window allows just one window for each round trip.
        let mut distant = Stream::new(0, LOCAL);
        for round_trip in 1..9 {
            pass(
                &mut distant,
                256 << 10,
                Duration::from_millis(round_trip * 600),
                Duration::from_millis(600),
            );
        }
        assert!(distant.window > INITIAL_WINDOW);
    }

    #[test]
    fn growth_keeps_within_the_room() {
        let mut stream = Stream::new(0, LOCAL);
        stream.receive = 0;
        stream.consume(INITIAL_WINDOW);
        let room = u64::from(INITIAL_WINDOW) - 1;
        assert_eq!(stream.credit(LOCAL, LOCAL, room), Some((INITIAL_WINDOW, 0)));
    }
}
