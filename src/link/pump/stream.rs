//! A stream as the pump has it: its near end, and how far either direction is.

use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// Bytes that are kept of what was said ([`Pump::keep`](super::Pump::keep)), at most.
pub const KEPT_MAX: usize = 64 * 1024;

/// What a stream is copied from and to, here.
#[derive(Debug)]
pub enum Near {
    None,
    /// One socket, both ways. That its other end is gone is noticed when it has said its last.
    Socket(Flow),
    /// An input and an output. That nobody reads the output is noticed at once.
    Flows {
        input: Option<Flow>,
        output: Option<Flow>,
    },
}

impl Near {
    /// How many entries it has for poll(2), which takes no more of them than there may be
    /// descriptors (RLIMIT_NOFILE): none for what is none.
    pub(super) fn entries(&self) -> usize {
        match self {
            Near::None => 0,
            Near::Socket(_) => 1,
            Near::Flows { .. } => 2,
        }
    }

    /// What is read, where that direction is so far.
    pub(super) fn input(&self, outward: &Outward) -> Option<&Flow> {
        match (outward, self) {
            (Outward::Open, Near::Socket(flow)) => Some(flow),
            (Outward::Open, Near::Flows { input, .. }) => input.as_ref(),
            _ => None,
        }
    }
}

/// How far the direction from the peer to the near end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inward {
    /// The stream's owner hears it. What it has not taken is held.
    Owner,
    /// The same, and the peer has finished.
    OwnerLast,
    /// The near end hears it.
    Near,
    /// The same, and the peer has finished: what is held is yet to be given.
    NearLast,
    /// The near end has it all, and was told that it is all.
    Done,
    /// The near end takes no more: what comes is thrown away.
    Deaf,
}

/// How far the direction from the near end to the peer is.
#[derive(Debug)]
pub(super) enum Outward {
    Open,
    /// These bytes, of which so many were sent, are its last.
    LastWords(Vec<u8>, usize),
    /// The near end has finished; the peer was told so.
    Over,
    /// The near end has broken; the peer has not been told of any end.
    Broken,
}

/// What becomes of bytes that were said.
#[derive(Debug)]
pub(super) enum Sent {
    Free,
    /// They are kept, for another try: at most [`KEPT_MAX`] are said.
    Kept(Vec<u8>),
    /// Nothing is said for now: the near end is not read.
    Paused,
}

/// Bytes of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// From the peer; the near end has taken them.
    pub heard: u64,
    /// To the peer.
    pub said: u64,
}

/// A stream of the pump, or what is left of one.
#[derive(Debug)]
pub struct Stream<T> {
    /// What its owner knows of it.
    pub owner: T,
    pub(super) near: Near,
    pub(super) inward: Inward,
    pub(super) outward: Outward,
    /// What the near end, or the owner, has not taken yet.
    pub(super) held: VecDeque<u8>,
    /// So many bytes of it, the first, a near end before this one had taken: the multiplexer counts
    /// them no more.
    pub(super) counted: usize,
    /// The owner says what follows the near end's last word.
    pub(super) asks: bool,
    /// That the near end breaks is told to the peer as a reset.
    pub(super) resets: bool,
    pub(super) sent: Sent,
    pub(super) tally: Tally,
}

impl<T> Stream<T> {
    pub(super) fn new(owner: T) -> Box<Stream<T>> {
        Box::new(Stream {
            owner,
            near: Near::None,
            inward: Inward::Owner,
            outward: Outward::Open,
            held: VecDeque::new(),
            counted: 0,
            asks: false,
            resets: false,
            sent: Sent::Free,
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

    /// Has the near end all that the peer said, and has the peer finished?
    pub fn is_done(&self) -> bool {
        self.inward == Inward::Done
    }

    pub fn near(&self) -> &Near {
        &self.near
    }

    /// What is left: what its owner knows, the near end, what was kept of what that said.
    pub fn into_parts(self) -> (T, Near, Vec<u8>) {
        let kept = match self.sent {
            Sent::Kept(kept) => kept,
            Sent::Free | Sent::Paused => Vec::new(),
        };
        (self.owner, self.near, kept)
    }

    /// Does the owner hear what comes?
    pub(super) fn is_owners(&self) -> bool {
        matches!(self.inward, Inward::Owner | Inward::OwnerLast)
    }

    /// What the near end may say is read from here.
    pub(super) fn input(&self) -> Option<&Flow> {
        self.near.input(&self.outward)
    }

    pub(super) fn output(&self) -> Option<&Flow> {
        match &self.near {
            Near::None => None,
            Near::Socket(flow) => Some(flow),
            Near::Flows { output, .. } => output.as_ref(),
        }
    }

    /// So many of the bytes that are held are no longer; how many of them the multiplexer is to
    /// count.
    pub(super) fn let_go(&mut self, n: usize) -> usize {
        self.held.drain(..n);
        let before = n.min(self.counted);
        self.counted -= before;
        n - before
    }

    /// All of them.
    pub(super) fn let_go_all(&mut self) -> usize {
        let n = self.let_go(self.held.len());
        self.held = VecDeque::new();
        n
    }

    /// Gives the near end bytes, as many as it takes now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let output = self.output().ok_or(ErrorKind::BrokenPipe)?;
        match output.write(bytes) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            n => n,
        }
    }

    /// Tells the near end that nothing more comes.
    pub(super) fn tell_end(&mut self) {
        if let Some(output) = self.output() {
            output.finish();
        }
        if let Near::Flows { output, .. } = &mut self.near {
            *output = None;
        }
    }

    /// Bytes that may be said now, beside what the window says.
    pub(super) fn may_say(&self) -> usize {
        match &self.sent {
            Sent::Free => usize::MAX,
            Sent::Kept(kept) => KEPT_MAX.saturating_sub(kept.len()),
            Sent::Paused => 0,
        }
    }

    /// Is there something to be given to the near end?
    pub(super) fn gives(&self) -> bool {
        !self.held.is_empty() && matches!(self.inward, Inward::Near | Inward::NearLast)
    }

    /// Adds what is waited for: [`Near::entries`]. `window`: the peer takes more.
    pub(super) fn poll<'s>(&'s self, window: bool, polls: &mut Vec<Poll<'s>>) {
        let gives = self.gives();
        let reads = window && self.may_say() > 0;
        match &self.near {
            Near::None => {}
            Near::Socket(flow) => polls.push(match &self.outward {
                Outward::Open => Poll::new(flow.as_fd(), reads, gives),
                _ if gives => Poll::new(flow.as_fd(), false, true),
                _ => Poll::hangup(flow.as_fd()),
            }),
            Near::Flows { output, .. } => {
                let input = self.input().filter(|_| reads);
                let output = output.as_ref().map(|o| match gives {
                    true => Poll::new(o.as_fd(), false, true),
                    false => Poll::hangup(o.as_fd()),
                });
                polls.push(input.map_or(Poll::none(), |i| Poll::new(i.as_fd(), true, false)));
                polls.push(output.unwrap_or(Poll::none()));
            }
        }
    }
}

/// What poll(2) said of a stream's near end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub input: bool,
    pub output: bool,
    pub hung: bool,
    pub broken: bool,
}

impl Ready {
    /// None: nothing, or no near end.
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
