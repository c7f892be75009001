//! One stream of the pump: its local end, and the state of each direction.

use super::run::{self, Run};
use crate::link::{Breaks, Tally};
use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use crate::wire::run::Data;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// How many of the bytes that were sent are kept at most ([`Pump::keep`](super::Pump::keep)).
pub const KEPT_MAX: usize = 64 * 1024;

/// What a stream is copied from and to on this side.
#[derive(Debug)]
pub enum LocalEnd {
    None,
    /// One socket for both directions. That its peer is gone is noticed only after it has finished
    /// sending.
    Socket(Flow),
    /// An input and an output. That nobody reads the output is noticed at once.
    Flows {
        input: Option<Flow>,
        output: Option<Flow>,
    },
}

impl LocalEnd {
    /// How many entries it needs in poll(2)'s list, which may not be longer than the limit of
    /// descriptors (RLIMIT_NOFILE): none where there is nothing to poll.
    pub(super) fn entries(&self) -> usize {
        match self {
            LocalEnd::None => 0,
            LocalEnd::Socket(_) => 1,
            LocalEnd::Flows { .. } => 2,
        }
    }

    /// The descriptor that is read, as long as that direction is open.
    pub(super) fn input(&self, to_peer: &ToPeer) -> Option<&Flow> {
        match (to_peer, self) {
            (ToPeer::Open, LocalEnd::Socket(flow)) => Some(flow),
            (ToPeer::Open, LocalEnd::Flows { input, .. }) => input.as_ref(),
            _ => None,
        }
    }
}

/// State of the direction from the peer to the local end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromPeer {
    /// The stream's owner reads it. What it has not taken is held.
    ToOwner,
    /// The same, and the peer has finished.
    ToOwnerLast,
    /// It is written to the local end.
    ToLocal,
    /// The same, and the peer has finished: the rest is still held.
    ToLocalLast,
    /// The local end has all of it, and its output was closed.
    Done,
    /// The local end takes no more: what comes is discarded.
    Discarding,
}

/// State of the direction from the local end to the peer.
#[derive(Debug)]
pub(super) enum ToPeer {
    Open,
    /// The stream ends after these bytes, of which this many were sent.
    Final(Vec<u8>, usize),
    /// The local end has finished sending, and the peer was told so.
    Finished,
    /// Reading the local end failed; the peer was not told that it has ended.
    Failed,
}

/// What is done with bytes that the local end sends.
#[derive(Debug)]
pub(super) enum Sending {
    Normal,
    /// A copy is kept, to be sent again by another try: at most [`KEPT_MAX`] bytes are read.
    Keeping(Vec<u8>),
    /// None are read for now.
    Paused,
}

/// A stream of the pump, or what is left of one.
#[derive(Debug)]
pub struct Stream<T> {
    /// The owner's own state of it.
    pub owner: T,
    pub(super) local: LocalEnd,
    pub(super) from_peer: FromPeer,
    pub(super) to_peer: ToPeer,
    /// What the local end, or the owner, has not taken yet.
    pub(super) held: VecDeque<u8>,
    /// How many of these bytes, the first ones, were received by the previous local end: the
    /// multiplexer must not count them again.
    pub(super) counted: usize,
    /// The owner decides what follows when the local end has finished sending.
    pub(super) asks_at_end: bool,
    /// What the peer sees if the local end breaks.
    pub(in crate::link) breaks: Breaks,
    pub(super) sending: Sending,
    pub(in crate::link) tally: Tally,
    /// Both sides send records.
    pub(super) run: Option<Box<Run>>,
    /// More for the local end follows at once, or [`Flow::push`] does.
    pub(super) more: bool,
    /// The link ended before the peer had finished.
    pub(super) cut: bool,
}

impl<T> Stream<T> {
    pub(super) fn new(owner: T) -> Box<Stream<T>> {
        Box::new(Stream {
            owner,
            local: LocalEnd::None,
            from_peer: FromPeer::ToOwner,
            to_peer: ToPeer::Open,
            held: VecDeque::new(),
            counted: 0,
            asks_at_end: false,
            breaks: Breaks::End,
            sending: Sending::Normal,
            tally: Tally::default(),
            run: None,
            more: false,
            cut: false,
        })
    }

    /// One whose local end is known already, and that sends and receives records.
    pub(in crate::link) fn of_run(local: LocalEnd, run: Box<Run>, breaks: Breaks) -> Box<Stream<T>>
    where
        T: Default,
    {
        let mut stream = Stream::new(T::default());
        (stream.local, stream.run, stream.breaks) = (local, Some(run), breaks);
        stream
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What the peer has sent and nobody has taken yet.
    #[cfg(test)]
    pub fn held(&self) -> &VecDeque<u8> {
        &self.held
    }

    /// Has the peer finished, and has the local end everything that it sent?
    pub fn is_done(&self) -> bool {
        self.from_peer == FromPeer::Done
    }

    /// Has the peer finished, and is a rest of what it sent still to be written to the local end?
    pub fn has_rest(&self) -> bool {
        self.from_peer == FromPeer::ToLocalLast && !self.cut
    }

    /// What takes that rest, as far as is known.
    pub(super) fn takes_rest(&self) -> Option<&Flow> {
        match self.run.as_ref().and_then(|run| run.waits_with()) {
            Some(Data::Errors) => self.errors(),
            Some(Data::Main) | None => self.output(),
        }
    }

    pub fn local(&self) -> &LocalEnd {
        &self.local
    }

    /// What the two sides tell each other besides bytes, if they do.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_deref()
    }

    /// The same, to be taken over by another try.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        self.run.as_deref_mut()
    }

    /// What is left of it: the owner's state, the local end, and the copy of what was sent.
    pub fn into_parts(self) -> (T, LocalEnd, Vec<u8>) {
        let kept = match self.sending {
            Sending::Keeping(kept) => kept,
            Sending::Normal | Sending::Paused => Vec::new(),
        };
        (self.owner, self.local, kept)
    }

    /// Does the owner read what comes?
    pub(super) fn is_read_by_owner(&self) -> bool {
        matches!(self.from_peer, FromPeer::ToOwner | FromPeer::ToOwnerLast)
    }

    /// The descriptor that the local end is read from.
    pub(in crate::link) fn input(&self) -> Option<&Flow> {
        let reads = self.run.as_ref().is_none_or(|run| run.reads_main());
        self.local.input(&self.to_peer).filter(|_| reads)
    }

    /// The descriptor of standard error, where that is neither the input nor the output.
    pub(super) fn errors(&self) -> Option<&Flow> {
        self.run.as_ref()?.errors.as_ref()
    }

    /// How many entries it needs in poll(2)'s list: [`LocalEnd::entries`], and standard error.
    pub(super) fn entries(&self) -> usize {
        self.local.entries() + usize::from(self.errors().is_some())
    }

    /// How many bytes of the window belong to no data at the least.
    pub(super) fn head(&self) -> usize {
        run::head(self.run.as_deref())
    }

    pub(in crate::link) fn output(&self) -> Option<&Flow> {
        match &self.local {
            LocalEnd::None => None,
            LocalEnd::Socket(flow) => Some(flow),
            LocalEnd::Flows { output, .. } => output.as_ref(),
        }
    }

    /// Removes this many of the bytes that are held; returns how many of them the multiplexer is to
    /// count.
    pub(super) fn consume_held(&mut self, n: usize) -> usize {
        self.held.drain(..n);
        let before = n.min(self.counted);
        self.counted -= before;
        n - before
    }

    /// Removes all of them.
    pub(super) fn discard_held(&mut self) -> usize {
        let n = self.consume_held(self.held.len());
        self.held = VecDeque::new();
        n
    }

    /// Writes bytes to the local end, as many as it takes now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let output = self.output().ok_or(ErrorKind::BrokenPipe)?;
        let written = match self.more {
            true => output.write_with_more(bytes),
            false => output.write(bytes),
        };
        match written {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            n => n,
        }
    }

    /// Nothing more follows at once: the local end sends what it has kept back.
    pub(super) fn push(&mut self) {
        if std::mem::take(&mut self.more)
            && let Some(output) = self.output()
        {
            output.push();
        }
    }

    /// Closes the output of the local end.
    pub(super) fn finish_output(&mut self) {
        if let Some(output) = self.output() {
            output.finish();
        }
        if let LocalEnd::Flows { output, .. } = &mut self.local {
            *output = None;
        }
    }

    /// How many bytes may be sent now, apart from the window.
    pub(super) fn may_send(&self) -> usize {
        match &self.sending {
            Sending::Normal => usize::MAX,
            Sending::Keeping(kept) => KEPT_MAX.saturating_sub(kept.len()),
            Sending::Paused => 0,
        }
    }

    /// Is there something to be written to the local end?
    fn has_output(&self) -> bool {
        !self.held.is_empty() && matches!(self.from_peer, FromPeer::ToLocal | FromPeer::ToLocalLast)
    }

    /// Adds its entries to poll(2)'s list: [`Stream::entries`]. `window`: the peer takes more.
    pub(super) fn poll<'s>(&'s self, window: bool, polls: &mut Vec<Poll<'s>>) {
        let waits_with = self.run.as_ref().and_then(|run| run.waits_with());
        let (held, errors_wait) = (self.has_output(), waits_with == Some(Data::Errors));
        let has_output = held && !errors_wait;
        let reads = window && self.may_send() > 0;
        match &self.local {
            LocalEnd::None => {}
            LocalEnd::Socket(flow) => polls.push(match &self.to_peer {
                ToPeer::Open => {
                    Poll::new(flow.as_fd(), reads && self.input().is_some(), has_output)
                }
                _ if has_output => Poll::new(flow.as_fd(), false, true),
                _ => Poll::hangup(flow.as_fd()),
            }),
            LocalEnd::Flows { output, .. } => {
                let input = self.input().filter(|_| reads);
                let output = output.as_ref().map(|o| match has_output {
                    true => Poll::new(o.as_fd(), false, true),
                    false => Poll::hangup(o.as_fd()),
                });
                polls.push(input.map_or(Poll::none(), |i| Poll::new(i.as_fd(), true, false)));
                polls.push(output.unwrap_or(Poll::none()));
            }
        }
        if let Some(run) = &self.run
            && let Some(errors) = &run.errors
        {
            let reads = window && run.error_input().is_some();
            polls.push(Poll::new(errors.as_fd(), reads, held && errors_wait));
        }
    }
}

/// What poll(2) reports of a stream's local end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub input: bool,
    pub output: bool,
    pub hung: bool,
    pub broken: bool,
    /// Standard error can be read, or takes more.
    pub errors: bool,
    /// The input, and standard error, are known to have ended after the bytes that can be read.
    pub ended: bool,
    pub errors_ended: bool,
}

impl Ready {
    /// None: nothing is ready, or there is no local end.
    pub fn of(polls: &[Poll], errors: &[Poll]) -> Option<Ready> {
        let (input, output) = (polls.first()?, polls.last()?);
        let ready = Ready {
            errors: errors.iter().any(|e| e.readable() || e.writable()),
            input: input.readable(),
            output: output.writable(),
            hung: output.hung(),
            broken: output.broken(),
            ended: input.ended(),
            errors_ended: errors.iter().any(|e| e.ended()),
        };
        (ready.input || ready.output || ready.hung || ready.errors).then_some(ready)
    }
}
