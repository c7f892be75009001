//! The pump's local ends: polling all of them, reading and writing them.

use super::stream::{FromPeer, LocalEnd, Ready, Sending, ToPeer};
use super::{Event, OUT_MAX, Pump, Stream};
use crate::link::{BUFFERS_KEPT, Breaks, Error, Link, SendQueue, Tally};
use crate::sys::poll::{self, Poll};
use crate::sys::socket::PIECES;
use crate::sys::{clock, socket};
use crate::wire::run::{self, Data};
use crate::wire::yamux::{HEADER, PIECE, StreamId};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How often a full queue is sent before the peer and all local ends are polled again.
const ROUNDS: usize = 7;

/// Where the peer of a resumable link has not acknowledged this many bytes, it is received from
/// before more is sent. What it has had is then forgotten early, and its memory is used again while
/// the processor has it in its cache: with the whole 4 MiB a sixth of the speed was lost.
const UNACKNOWLEDGED_TURN: usize = 1024 * 1024;

impl<T> Pump<T> {
    /// Waits until there is something to do, or `due`. `others`: the owner's own descriptors. True:
    /// something is ready.
    pub fn wait(
        &mut self,
        link: &mut Link,
        others: &mut [Poll],
        due: Duration,
    ) -> Result<bool, Error> {
        self.taken = 0;
        let due = due.min(self.mux.next_deadline()).min(link.next_acknowledgement());
        loop {
            // What has come already is handled before anything is waited for.
            let now_already = !self.events.is_empty() || self.may_receive();
            let backlog = self.has_backlog(link);
            let room = self.out.taken() < OUT_MAX && !backlog;
            let mut polls = Vec::with_capacity(1 + others.len() + self.streams.len());
            polls.push(match self.is_over() && !backlog {
                // A peer that has finished sending may still reset the connection.
                true => Poll::hangup(link.socket()),
                false => Poll::new(link.socket(), self.reads_link(), backlog && !link.is_full()),
            });
            polls.extend_from_slice(others);
            let fixed = polls.len();
            for (id, s) in &self.streams {
                s.poll(room && self.mux.send_window(*id) > s.head(), &mut polls);
            }
            let has_buffers = link.has_buffers() || self.out.has_buffers() && !backlog;
            let timeout = match () {
                () if now_already => Duration::ZERO,
                () if has_buffers => BUFFERS_KEPT.min(due.saturating_sub(self.now)),
                () => due.saturating_sub(self.now),
            };
            let any = poll::wait(&mut polls, Some(timeout)).map_err(Error::System)? > 0;
            others.iter_mut().zip(&polls[1..fixed]).for_each(|(o, p)| o.answer_as(p));
            self.readable |= polls[0].readable();
            let broken = self.is_over() && polls[0].hung();
            self.ready.clear();
            let mut rest = &polls[fixed..];
            for (id, s) in &self.streams {
                let (its, others) = rest.split_at(s.entries());
                let (its, errors) = its.split_at(s.local.entries());
                rest = others;
                self.ready.extend(Ready::of(its, errors).map(|r| (*id, r)));
            }
            drop(polls);
            self.now = clock::monotonic();
            if broken {
                return Err(Error::Broken(ErrorKind::ConnectionReset.into()));
            }
            if any || now_already {
                return Ok(true);
            }
            if !has_buffers || self.now >= due {
                return Ok(false);
            }
            link.release_buffers();
            self.release_buffers();
        }
    }

    /// Frees the buffers: the session is idle, or has no link.
    pub fn release_buffers(&mut self) {
        self.ready.shrink_to_fit();
        self.events.shrink_to_fit();
        if self.out.is_sent() {
            self.out = SendQueue::new();
        }
    }

    /// Where the link is gone: what the rests of streams ([`Stream::has_rest`]) are written to.
    pub fn rests(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = self.streams.values().filter(|s| s.has_rest());
        all.filter_map(|s| Some(s.takes_rest()?.as_fd()))
    }

    /// Writes them, as much as is taken now. Returns what became of the streams.
    pub fn write_rests(&mut self) -> VecDeque<Event<T>> {
        for id in self.ids() {
            if self.stream(id).is_some_and(Stream::has_rest) {
                self.write_local(id);
            }
        }
        std::mem::take(&mut self.events)
    }

    /// The local ends that would be read if there were a link.
    pub fn inputs(&self) -> impl Iterator<Item = (StreamId, BorrowedFd<'_>)> {
        self.streams.iter().filter_map(|(id, s)| Some((*id, s.input()?.as_fd())))
    }

    /// Writes and reads the local ends that are ready, in turn: the first is the stream after the
    /// one that was read last. As long as the link takes everything they are read again: polling a
    /// hundred streams costs more than filling the queue once more. One that is known to have ended
    /// is read up to its end, so that the peer gets the end with the last bytes. If the link fails,
    /// [`Pump::event`] returns that, after the events of the local ends.
    pub fn serve(&mut self, link: &mut Link) {
        let mut ready = std::mem::take(&mut self.ready);
        let first = self.turn.and_then(|t| ready.iter().position(|(id, _)| *id > t)).unwrap_or(0);
        ready.rotate_left(first);
        let mut rounds = ROUNDS;
        while let Some((id, r)) = ready.pop_front() {
            if self.out.taken() >= OUT_MAX && rounds > 0 {
                if let Err(e) = self.send_queued(link) {
                    self.failed = Some(e);
                    return;
                }
                let more = link.unacknowledged() < UNACKNOWLEDGED_TURN && !self.has_backlog(link);
                rounds = if more { rounds - 1 } else { 0 };
            }
            if r.output || r.errors {
                self.write_local(id);
            }
            let input = r.input && self.read_local(id, Data::Main, r.ended);
            let errors = r.errors && self.read_local(id, Data::Errors, r.errors_ended);
            if input || errors {
                ready.push_back((id, Ready { input, errors, output: false, ..r }));
                continue;
            }
            if r.hung {
                self.hung_up(id, r.broken);
            }
        }
        self.ready = ready;
    }

    /// poll(2) reports that the local end has hung up.
    fn hung_up(&mut self, id: StreamId, broken: bool) {
        let Some(s) = self.streams.get(&id) else { return };
        match s.local {
            LocalEnd::None => {}
            LocalEnd::Flows { .. } => self.events.push_back(Event::OutputHungUp { id, broken }),
            // It has finished sending and takes no more: what comes is discarded, for a while.
            LocalEnd::Socket(_) if matches!(s.to_peer, ToPeer::Finished) && s.held.is_empty() => {
                if let Some(stream) = self.close(id) {
                    self.events.push_back(Event::Closed(stream));
                }
            }
            LocalEnd::Socket(_) => {}
        }
    }

    /// Reads a burst from a local end, as much as the window and the queue allow. `ended`: its end
    /// is known to follow. True: there is more that can be read now.
    fn read_local(&mut self, id: StreamId, what: Data, ended: bool) -> bool {
        if self.send_reply(id) {
            return false;
        }
        let Some(s) = self.streams.get_mut(&id) else { return false };
        let (head, window) = (s.head(), self.mux.send_window(id));
        // Each piece that is begun has a head of its own.
        let pieces = window.div_ceil(PIECE).min(PIECES);
        let most = window.min(pieces * PIECE).saturating_sub(pieces * head).min(s.may_send());
        if most == 0 || self.out.taken() >= OUT_MAX {
            return false;
        }
        let input = match (&s.run, what) {
            (Some(run), Data::Errors) => run.error_input(),
            (Some(run), Data::Main) if !run.reads_main() => None,
            (_, Data::Main) => s.local.input(&s.to_peer),
            (None, Data::Errors) => None,
        };
        let Some(input) = input else { return false };
        let (gap, piece) = (HEADER + head, PIECE - head);
        let (got, frames) = self.out.burst(id, |out| input.read_pieces(out, gap, piece, most));
        for frame in frames {
            let header = self.mux.data(id, frame.len() - HEADER);
            frame[..HEADER].copy_from_slice(&header);
            if head > 0 {
                let record = run::head(what, frame.len() - gap);
                frame[HEADER..gap].copy_from_slice(&record);
            }
            if let Sending::Keeping(kept) = &mut s.sending {
                kept.extend_from_slice(&frame[gap..]);
            }
        }
        match got {
            Ok(n @ 1..) => {
                s.tally.send(n);
                self.turn = Some(id);
                (n == most || ended) && self.mux.send_window(id) > head
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            ended => {
                self.input_ended(id, what, ended);
                false
            }
        }
    }

    /// A local end has no more of these data: its end, or an error.
    fn input_ended(&mut self, id: StreamId, what: Data, ended: io::Result<usize>) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        match ended {
            _ if what == Data::Errors => {
                s.end_input(what);
                self.tell(id);
            }
            Err(e) if matches!(s.local, LocalEnd::Flows { .. }) => {
                s.to_peer = ToPeer::Failed;
                self.events.push_back(Event::InputFailed(id, e));
            }
            read if s.breaks.is_break(&read) => self.break_stream(id),
            _ if s.asks_at_end => {
                // It is not read until the owner has decided.
                (s.asks_at_end, s.sending) = (false, Sending::Paused);
                self.events.push_back(Event::LocalFinished(id));
            }
            _ => {
                // If this is TCP, the other end should learn at once that its FIN has arrived.
                acknowledge(&s.local);
                self.finish(id);
            }
        }
    }

    /// From now on an error of the local end resets the stream, and the owner gets
    /// [`Event::Reset`]; without this it counts as an ordinary end.
    pub fn pass_resets(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.breaks = Breaks::Reset;
        }
    }

    /// When the local end, a socket, has finished sending, the owner is asked what follows
    /// ([`Event::LocalFinished`]). It answers with [`Pump::replace`] or [`Pump::finish`].
    pub fn ask_at_end(&mut self, id: StreamId) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.asks_at_end = true;
        }
    }

    /// Gives the stream another local end, which first gets these bytes: its predecessor had
    /// received them.
    pub fn replace(&mut self, id: StreamId, local: LocalEnd, first: &[u8]) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        (s.local, s.sending) = (local, Sending::Normal);
        if s.from_peer == FromPeer::Discarding {
            // Bytes were lost already.
            return;
        }
        s.held = first.iter().copied().chain(std::mem::take(&mut s.held)).collect();
        s.counted += first.len();
        if s.from_peer == FromPeer::Done {
            // It was the predecessor whose output was closed.
            s.from_peer = FromPeer::ToLocalLast;
        }
        self.write_local(id);
    }

    /// Takes the local end away. The stream stays open, and the owner reads what comes from now on;
    /// what is held is discarded. [`Event::Finished`] follows at once if the peer has finished.
    pub fn detach(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        (s.local, s.sending) = (LocalEnd::None, Sending::Normal);
        let last = matches!(s.from_peer, FromPeer::ToLocalLast | FromPeer::Done);
        s.from_peer = if last { FromPeer::ToOwnerLast } else { FromPeer::ToOwner };
        let n = s.discard_held();
        self.mux.delivered(id, n, self.now);
        if last {
            self.events.push_back(Event::Finished(id));
        }
    }

    /// What the stream carries from now on is counted so.
    pub fn count(&mut self, id: StreamId, tally: Tally) {
        if let Some(s) = self.streams.get_mut(&id) {
            s.tally = tally;
        }
    }

    /// Writes to a local end what is held for it.
    pub(super) fn write_local(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        if !matches!(s.from_peer, FromPeer::ToLocal | FromPeer::ToLocalLast)
            || matches!(s.local, LocalEnd::None)
        {
            return;
        }
        if s.run.is_some() {
            return self.write_records(id);
        }
        while !s.held.is_empty() {
            match s.write(s.held.as_slices().0) {
                Ok(0) => return,
                Ok(n) => {
                    s.tally.receive(n);
                    let counts = s.consume_held(n);
                    self.mux.delivered(id, counts, self.now);
                }
                Err(e) => return self.output_failed(id, e),
            }
        }
        self.local_has_all(id);
    }

    /// The local end takes no more.
    pub(super) fn output_failed(&mut self, id: StreamId, e: io::Error) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        if s.from_peer == FromPeer::ToLocalLast {
            s.finish_output();
        }
        s.from_peer = FromPeer::Discarding;
        s.breaks.note(&e);
        let n = s.discard_held();
        self.mux.delivered(id, n, self.now);
        self.events.push_back(Event::OutputFailed(id, e));
        self.close_if_done(id);
    }
    /// A local end was given all that was held for it.
    pub(super) fn local_has_all(&mut self, id: StreamId) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.held = Default::default();
        if s.from_peer != FromPeer::ToLocalLast {
            return;
        }
        if s.run.as_ref().is_some_and(|run| !run.may_finish()) {
            return self.break_stream(id);
        }
        s.from_peer = FromPeer::Done;
        s.finish_output();
        if !self.close_if_done(id) {
            self.events.push_back(Event::Finished(id));
        }
    }
}

fn acknowledge(local: &LocalEnd) {
    if let LocalEnd::Socket(flow) = local {
        // What is no TCP socket has nothing to acknowledge.
        let _ = socket::acknowledge(flow.as_fd());
    }
}
