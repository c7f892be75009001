//! The pump's side towards the peer: receiving and sending frames.

use super::stream::{FromPeer, ToPeer};
use super::{Event, OUT_MAX, Pump, Reading, TURN_MAX};
use crate::link::{Error, Link, Received};
use crate::sys::clock;
use crate::sys::poll::{self, Poll};
use crate::wire::yamux::{self, CONTROL_MAX, PIECE, StreamId};
use std::time::Duration;

impl<T> Pump<T> {
    /// There is another link in place of the one that failed, and the peer is there.
    pub fn resumed(&mut self) {
        self.now = clock::monotonic();
        self.mux.peer_is_back(self.now);
        (self.failed, self.readable, self.blocked) = (None, true, false);
    }

    /// The next event, if there is one. Err: the link can no longer be used.
    pub fn event(&mut self, link: &mut Link) -> Result<Option<Event<T>>, Error> {
        let next = self.next_event(link);
        if !matches!(next, Ok(Some(_))) {
            self.push();
        }
        next
    }

    fn next_event(&mut self, link: &mut Link) -> Result<Option<Event<T>>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(e) = self.failed.take() {
                return Err(e);
            }
            if !self.may_receive() {
                return Ok(None);
            }
            self.readable = self.receive(link)?;
        }
    }

    /// Is there something to receive, and may it be received? A peer that sends requests without
    /// reading the answers is no longer read (CVE-2024-32984).
    pub(super) fn may_receive(&self) -> bool {
        self.readable && self.taken < TURN_MAX && self.reads_link()
    }

    /// Is the link read?
    pub(super) fn reads_link(&self) -> bool {
        self.reading == Reading::Open && self.mux.control_queued() <= CONTROL_MAX
    }

    /// Receives what has come, up to the next event. True: there may be more.
    fn receive(&mut self, link: &mut Link) -> Result<bool, Error> {
        if self.pending {
            self.frames(&[], false);
            return Ok(self.pending || link.may_have_more());
        }
        let more = link.has_more_at_once();
        match link.received()? {
            Received::Bytes(bytes) => {
                let taken = self.frames(bytes, more);
                link.consume(taken);
                if link.owes_acknowledgement() {
                    link.acknowledge(self.now);
                    self.sent = true;
                    link.send_queued()?;
                }
                Ok(self.pending || link.may_have_more())
            }
            Received::Nothing => link.receive(),
            Received::End => {
                match self.mux.transport_ended() {
                    Some(yamux::Event::Broken(why)) => self.broken(why),
                    _ => self.link_finished(),
                }
                Ok(false)
            }
        }
    }

    /// Decodes frames up to the one that is an event for the owner. Returns how many bytes were
    /// taken. `more`: others follow at once.
    fn frames(&mut self, bytes: &[u8], more: bool) -> usize {
        let mut at = 0;
        self.received |= !bytes.is_empty();
        loop {
            let (taken, event) = self.mux.receive(&bytes[at..], self.now);
            at += taken;
            self.taken += taken;
            self.pending = event.is_some();
            match event {
                None => {}
                Some(yamux::Event::Opened(id)) => self.events.push_back(Event::Opened(id)),
                Some(yamux::Event::Accepted(id)) => self.events.push_back(Event::Accepted(id)),
                Some(yamux::Event::Data(id, data)) => self.data(id, data, more),
                Some(yamux::Event::Finished(id)) => self.finished(id),
                Some(yamux::Event::Reset(id)) => {
                    if let Some(mut stream) = self.streams.remove(&id) {
                        // What has come before the reset goes before it.
                        stream.push();
                        self.events.push_back(Event::Reset(stream));
                    }
                }
                // The peer opens no more streams.
                Some(yamux::Event::GoAway(0)) => {}
                Some(yamux::Event::GoAway(code)) => self.events.push_back(Event::GoAway(code)),
                Some(yamux::Event::Broken(why)) => self.broken(why),
            }
            if !self.events.is_empty() || at == bytes.len() && !self.pending {
                return at;
            }
        }
    }

    /// The peer has broken the protocol.
    fn broken(&mut self, why: &'static str) {
        self.reading = Reading::Over;
        self.events.push_back(Event::ProtocolError(why));
    }

    fn data(&mut self, id: StreamId, data: &[u8], more: bool) {
        let Some(s) = self.streams.get_mut(&id) else {
            return self.mux.delivered(id, data.len(), self.now);
        };
        if s.is_read_by_owner() {
            s.held.extend(data);
            return self.events.push_back(Event::Received(id));
        }
        if s.from_peer != FromPeer::ToLocal {
            return self.mux.delivered(id, data.len(), self.now);
        }
        if more && data.len() > PIECE / 2 {
            s.more = true;
            self.more.push(id);
        }
        if s.run.is_some() {
            return self.records(id, data);
        }
        let n = match if s.held.is_empty() { s.write(data) } else { Ok(0) } {
            Ok(n) => n,
            Err(e) => {
                self.mux.delivered(id, data.len(), self.now);
                return self.output_failed(id, e);
            }
        };
        s.tally.receive(n);
        s.held.extend(&data[n..]);
        // A pipe that has taken only a part may take more at once.
        let again = n > 0 && n < data.len() && s.output().is_some_and(|o| !o.is_socket());
        self.mux.delivered(id, n, self.now);
        if again {
            self.write_local(id);
        }
    }

    /// Nothing more follows at once: the local ends send what they have kept back.
    fn push(&mut self) {
        for id in self.more.drain(..) {
            if let Some(s) = self.streams.get_mut(&id) {
                s.push();
            }
        }
    }

    /// The peer has finished sending on a stream.
    fn finished(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        match s.from_peer {
            FromPeer::ToOwner => {
                s.from_peer = FromPeer::ToOwnerLast;
                self.events.push_back(Event::Finished(id));
            }
            FromPeer::ToLocal => {
                s.from_peer = FromPeer::ToLocalLast;
                self.write_local(id);
            }
            FromPeer::Discarding => {
                // Only one write has failed: the local end may still wait for the end.
                s.finish_output();
                s.from_peer = FromPeer::Done;
                self.close_if_done(id);
            }
            FromPeer::ToOwnerLast | FromPeer::ToLocalLast | FromPeer::Done => {}
        }
    }

    /// The peer has closed its direction of the link: that ends its direction of every stream.
    fn link_finished(&mut self) {
        self.reading = Reading::Over;
        self.events.push_back(Event::LinkFinished);
        for s in self.streams.values_mut() {
            s.cut = matches!(s.from_peer, FromPeer::ToOwner | FromPeer::ToLocal);
        }
        self.ids().into_iter().for_each(|id| self.finished(id));
    }

    /// Has the peer closed its direction of the link, and can nothing more follow from that? So it
    /// is when each stream has used up what the peer allowed it to send, which it can increase no
    /// more, and its local end has taken all that came.
    pub fn is_done(&self) -> bool {
        let stuck = |id: &StreamId| self.mux.send_window(*id) == 0;
        self.is_over() && self.streams.iter().all(|(id, s)| s.held.is_empty() && stuck(id))
    }

    // Sending.

    /// Sends as much as the link takes.
    pub fn send_queued(&mut self, link: &mut Link) -> Result<(), Error> {
        link.acknowledge(self.now);
        loop {
            self.take_control();
            self.send_records();
            self.send_final();
            self.take_control();
            if self.out.is_sent() {
                return self.send_frames(link).map(drop);
            }
            let sent = self.send_frames(link)?;
            let blocked = std::mem::replace(&mut self.blocked, !self.out.is_sent());
            if blocked && sent > 0 {
                // A peer that takes bytes again is alive, even if it was not read for long.
                self.mux.peer_is_alive(self.now);
            }
            if !self.out.is_sent() {
                return Ok(());
            }
            self.out.empty();
        }
    }

    /// Queues the control frames. While the queue is full they stay with the multiplexer: that
    /// stops the reading of a peer that does not read (CVE-2024-32984).
    fn take_control(&mut self) {
        if self.out.taken() < OUT_MAX && self.mux.control_queued() > 0 {
            let mux = &mut self.mux;
            self.out.append(|out| mux.take_control(out));
        }
    }

    /// Sends as much as the link takes now. Returns how many bytes of frames it took.
    fn send_frames(&mut self, link: &mut Link) -> Result<usize, Error> {
        let mut sent = 0;
        // Nothing more is encrypted while the socket is full.
        if link.wants_write() {
            self.sent = true;
            if !link.send_queued()? {
                return Ok(0);
            }
        }
        while !self.out.is_sent() {
            let n = link.send_queue(&mut self.out)?;
            if n == 0 {
                break;
            }
            sent += n;
        }
        self.sent |= sent > 0;
        link.send_queued()?;
        Ok(sent)
    }

    /// Sends the final bytes of streams, as far as their windows allow.
    fn send_final(&mut self) {
        for id in std::mem::take(&mut self.closing) {
            let Some(s) = self.streams.get_mut(&id) else { continue };
            let ToPeer::Final(bytes, done) = &mut s.to_peer else { continue };
            while *done < bytes.len() && self.out.taken() < OUT_MAX {
                let n = (bytes.len() - *done).min(PIECE).min(self.mux.send_window(id));
                if n == 0 {
                    break;
                }
                let header = self.mux.data(id, n);
                self.out.append(|out| out.extend(header.iter().chain(&bytes[*done..*done + n])));
                *done += n;
            }
            if *done < bytes.len() {
                self.closing.push(id);
            } else if let Some(stream) = self.close(id) {
                self.events.push_back(Event::Closed(stream));
            }
        }
    }

    /// Sends all that is left, until that time at most. True: the link took all of it.
    pub fn send_rest(&mut self, link: &mut Link, until: Duration) -> bool {
        loop {
            let mux = &mut self.mux;
            self.out.append(|out| mux.take_control(out));
            if self.send_frames(link).is_err() {
                return false;
            }
            let left = until.saturating_sub(clock::monotonic());
            if !self.has_backlog(link) || left.is_zero() {
                return !self.has_backlog(link);
            }
            // A resumable link may first have to hear how much the other side has had.
            let full = link.is_full();
            if poll::wait(&mut [Poll::new(link.socket(), full, !full)], Some(left)).is_err()
                || full && discard(link).is_err()
            {
                return false;
            }
        }
    }
}

/// Reads what has come, and forgets the data in it: only acknowledgements count any more.
fn discard(link: &mut Link) -> Result<(), Error> {
    link.receive()?;
    loop {
        let n = match link.received()? {
            Received::Bytes(bytes) => bytes.len(),
            Received::Nothing => return Ok(()),
            Received::End => return Err(Error::Closed),
        };
        link.consume(n);
    }
}
