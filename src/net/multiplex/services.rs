//! From services to the client, and what becomes of a stream whose service has ended.

use super::{End, Multiplexer, OUT_MAX, Stage, Stream};
use crate::sys::socket::{self, PIECES};
use crate::wire::orders::Ask;
use crate::wire::yamux::{HEADER, PIECE, StreamId};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd;

/// How often the transport is given what services say before it and the client are asked about
/// again.
const ROOMS: usize = 7;

impl Multiplexer<'_> {
    /// What services say, in turn: the stream behind the last one that was heard begins. As long as
    /// the transport takes all of it they are heard on: asking about a hundred streams costs more
    /// than a room is worth.
    pub(super) fn streams_ready(
        &mut self,
        ready: Vec<(StreamId, bool, bool, bool)>,
    ) -> Result<(), End> {
        let mut ready = VecDeque::from(ready);
        let first = self.turn.and_then(|t| ready.iter().position(|(id, ..)| *id > t)).unwrap_or(0);
        ready.rotate_left(first);
        let mut rooms = ROOMS;
        while let Some((id, readable, writable, hung)) = ready.pop_front() {
            if self.out.taken() >= OUT_MAX && rooms > 0 {
                self.give_out()?;
                rooms = if self.backlog() { 0 } else { rooms - 1 };
            }
            if writable {
                self.feed_service(id);
            }
            if readable && self.hear_service(id) {
                ready.push_back((id, true, false, hung));
                continue;
            }
            let gone = hung && self.streams.get(&id).is_some_and(|s| s.over && s.held.is_empty());
            if gone {
                self.service_gone(id);
            }
        }
        Ok(())
    }

    /// Takes a burst of a service's bytes, as far as there is window and room. Is there more, that
    /// can be taken?
    pub(super) fn hear_service(&mut self, id: StreamId) -> bool {
        let Some(Stream {
            stage: Stage::Connected { near },
            over: false,
            from,
            unanswered,
            ended: waits,
            ..
        }) = self.streams.get_mut(&id)
        else {
            return false;
        };
        let most = self.mux.send_window(id).min(PIECES * PIECE);
        if most == 0 || self.out.taken() >= OUT_MAX {
            return false;
        }
        let (got, frames) = self
            .out
            .burst(id, |out| socket::receive_pieces(near.as_fd(), out, HEADER, PIECE, most));
        for frame in frames {
            let header = self.mux.data(id, frame.len() - HEADER);
            frame[..HEADER].copy_from_slice(&header);
        }
        match got {
            Ok(n) if n > 0 => {
                *from += n as u64;
                self.turn = Some(id);
                return n == most && self.mux.send_window(id) > 0;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            _ => {}
        }
        // It has ended.
        socket::acknowledge(near.as_fd());
        if *unanswered {
            // It may be that nothing runs: the parent's word comes first.
            *waits = true;
            return false;
        }
        // Data comes before the end: the room keeps their order.
        self.mux.finish(id);
        self.out.append(|out| self.mux.take_control(out));
        if let Some(s) = self.streams.get_mut(&id) {
            s.over = true;
        }
        self.forget_if_done(id);
        false
    }

    /// Gives a service what was held for it.
    pub(super) fn feed_service(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let Stage::Connected { near } = &s.stage else { return };
        let mut gone = false;
        while !s.held.is_empty() {
            match socket::send(near.as_fd(), s.held.as_slices().0) {
                Ok(n) => {
                    s.held.drain(..n);
                    s.to += n as u64;
                    self.mux.delivered(id, n, self.now);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        if s.held.is_empty() {
            s.held = VecDeque::new();
            if s.finished && !s.told {
                s.told = true;
                let _ = socket::shutdown_write(near.as_fd());
            }
        }
        if gone {
            self.deaf(id);
        }
        self.forget_if_done(id);
    }

    /// A service takes no more; what it has said is still to come.
    pub(super) fn deaf(&mut self, id: StreamId) {
        // Its ACK may not have gone out yet.
        self.out.append(|out| self.mux.take_control(out));
        while self.streams.get(&id).is_some_and(|s| !s.over)
            && self.mux.send_window(id) > 0
            && self.out.taken() < OUT_MAX
        {
            let before = self.out.taken();
            self.hear_service(id);
            if self.out.taken() == before && self.streams.get(&id).is_some_and(|s| !s.over) {
                break;
            }
        }
        let Some(s) = self.streams.get_mut(&id) else { return };
        let n = s.held.len();
        s.held = VecDeque::new();
        self.mux.delivered(id, n, self.now);
        if s.over {
            self.service_gone(id);
        }
    }

    /// A service has ended both ways: what its client still sends is thrown away, for a while.
    pub(super) fn service_gone(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| !s.finished) {
            self.mux.drain(id, self.now);
        }
        self.end_stream(id);
    }

    pub(super) fn forget_if_done(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| s.over && s.told) {
            self.end_stream(id);
        }
    }

    /// A stream is over: its bytes are told.
    pub(super) fn end_stream(&mut self, id: StreamId) {
        let Some(s) = self.streams.remove(&id) else { return };
        if s.tag != 0 {
            // A parent that is gone is noticed elsewhere.
            let _ =
                self.session.channel.tell(&Ask::Tally { tag: s.tag, to: s.to, from: s.from }, &[]);
        }
    }
}
