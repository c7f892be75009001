//! A stream as the pump has it: its local end, and how far either direction is.

use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// Bytes that are kept of what was said ([`Pump::keep`](super::Pump::keep)), at most.
pub const KEPT_MAX: usize = 64 * 1024;

/// What a stream is copied from and to, here.
#[derive(Debug)]
pub enum LocalEnd {
    None,
    /// One socket, both ways. That its other end is gone is noticed when it has said its last.
    Socket(Flow),
    /// An input and an output. That nobody reads the output is noticed at once.
    Flows {
        input: Option<Flow>,
        output: Option<Flow>,
    },
}

impl LocalEnd {
    /// How many entries it has for poll(2), which takes no more of them than there may be
    /// descriptors (RLIMIT_NOFILE): none for what is none.
    pub(super) fn entries(&self) -> usize {
        match self {
            LocalEnd::None => 0,
            LocalEnd::Socket(_) => 1,
            LocalEnd::Flows { .. } => 2,
        }
    }

    /// What is read, where that direction is so far.
    pub(super) fn input(&self, to_peer: &ToPeer) -> Option<&Flow> {
        match (to_peer, self) {
            (ToPeer::Open, LocalEnd::Socket(flow)) => Some(flow),
            (ToPeer::Open, LocalEnd::Flows { input, .. }) => input.as_ref(),
            _ => None,
        }
    }
}

/// How far the direction from the peer to the local end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromPeer {
    /// The stream's owner hears it. What it has not taken is held.
    ToOwner,
    /// The same, and the peer has finished.
    ToOwnerLast,
    /// The local end hears it.
    ToLocal,
    /// The same, and the peer has finished: what is held is yet to be given.
    ToLocalLast,
    /// The local end has it all, and was told that it is all.
    Done,
    /// The local end takes no more: what comes is thrown away.
    Discarding,
}

/// How far the direction from the local end to the peer is.
#[derive(Debug)]
pub(super) enum ToPeer {
    Open,
    /// These bytes, of which so many were sent, are its last.
    Final(Vec<u8>, usize),
    /// The local end has finished; the peer was told so.
    Finished,
    /// The local end has broken; the peer has not been told of any end.
    Failed,
}

/// What becomes of bytes that were said.
#[derive(Debug)]
pub(super) enum Sending {
    Normal,
    /// They are kept, for another try: at most [`KEPT_MAX`] are said.
    Keeping(Vec<u8>),
    /// Nothing is said for now: the local end is not read.
    Paused,
}

/// Bytes of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// From the peer; the local end has taken them.
    pub received: u64,
    /// To the peer.
    pub sent: u64,
}

/// A stream of the pump, or what is left of one.
#[derive(Debug)]
pub struct Stream<T> {
    /// What its owner knows of it.
    pub owner: T,
    pub(super) local: LocalEnd,
    pub(super) from_peer: FromPeer,
    pub(super) to_peer: ToPeer,
    /// What the local end, or the owner, has not taken yet.
    pub(super) held: VecDeque<u8>,
    /// So many bytes of it, the first, a local end before this one had taken: the multiplexer counts
    /// them no more.
    pub(super) counted: usize,
    /// The owner says what follows the local end's last word.
    pub(super) asks_at_end: bool,
    /// That the local end breaks is told to the peer as a reset.
    pub(super) resets: bool,
    pub(super) sending: Sending,
    pub(super) tally: Tally,
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
            resets: false,
            sending: Sending::Normal,
            tally: Tally::default(),
        })
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Bytes of the peer that nobody has taken yet.
    pub fn held(&self) -> &VecDeque<u8> {
        &self.held
    }

    /// Has the local end all that the peer said, and has the peer finished?
    pub fn is_done(&self) -> bool {
        self.from_peer == FromPeer::Done
    }

    pub fn local(&self) -> &LocalEnd {
        &self.local
    }

    /// What is left: what its owner knows, the local end, what was kept of what that said.
    pub fn into_parts(self) -> (T, LocalEnd, Vec<u8>) {
        let kept = match self.sending {
            Sending::Keeping(kept) => kept,
            Sending::Normal | Sending::Paused => Vec::new(),
        };
        (self.owner, self.local, kept)
    }

    /// Does the owner hear what comes?
    pub(super) fn is_read_by_owner(&self) -> bool {
        matches!(self.from_peer, FromPeer::ToOwner | FromPeer::ToOwnerLast)
    }

    /// What the local end may say is read from here.
    pub(super) fn input(&self) -> Option<&Flow> {
        self.local.input(&self.to_peer)
    }

    pub(super) fn output(&self) -> Option<&Flow> {
        match &self.local {
            LocalEnd::None => None,
            LocalEnd::Socket(flow) => Some(flow),
            LocalEnd::Flows { output, .. } => output.as_ref(),
        }
    }

    /// So many of the bytes that are held are no longer; how many of them the multiplexer is to
    /// count.
    pub(super) fn consume_held(&mut self, n: usize) -> usize {
        self.held.drain(..n);
        let before = n.min(self.counted);
        self.counted -= before;
        n - before
    }

    /// All of them.
    pub(super) fn discard_held(&mut self) -> usize {
        let n = self.consume_held(self.held.len());
        self.held = VecDeque::new();
        n
    }

    /// Gives the local end bytes, as many as it takes now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let output = self.output().ok_or(ErrorKind::BrokenPipe)?;
        match output.write(bytes) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            n => n,
        }
    }

    /// Tells the local end that nothing more comes.
    pub(super) fn finish_output(&mut self) {
        if let Some(output) = self.output() {
            output.finish();
        }
        if let LocalEnd::Flows { output, .. } = &mut self.local {
            *output = None;
        }
    }

    /// Bytes that may be said now, beside what the window says.
    pub(super) fn may_send(&self) -> usize {
        match &self.sending {
            Sending::Normal => usize::MAX,
            Sending::Keeping(kept) => KEPT_MAX.saturating_sub(kept.len()),
            Sending::Paused => 0,
        }
    }

    /// Is there something to be given to the local end?
    pub(super) fn has_output(&self) -> bool {
        !self.held.is_empty() && matches!(self.from_peer, FromPeer::ToLocal | FromPeer::ToLocalLast)
    }

    /// Adds what is waited for: [`LocalEnd::entries`]. `window`: the peer takes more.
    pub(super) fn poll<'s>(&'s self, window: bool, polls: &mut Vec<Poll<'s>>) {
        let has_output = self.has_output();
        let reads = window && self.may_send() > 0;
        match &self.local {
            LocalEnd::None => {}
            LocalEnd::Socket(flow) => polls.push(match &self.to_peer {
                ToPeer::Open => Poll::new(flow.as_fd(), reads, has_output),
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
    }
}

/// What poll(2) said of a stream's local end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub input: bool,
    pub output: bool,
    pub hung: bool,
    pub broken: bool,
}

impl Ready {
    /// None: nothing, or no local end.
    pub fn of(polls: &[Poll]) -> Option<Ready> {
        let (input, output) = (polls.first()?, polls.last()?);
        let ready = Ready {
            input: input.readable(),
            output: output.writable(),
            hung: output.hung(),
            broken: output.broken(),
        };
        (ready.input || ready.output || ready.hung).then_some(ready)
    }
}
