//! Channels to processes of the same user that make calls or ask about the session, and the
//! messages that are sent to them. A caller that does not receive them is dropped.

use crate::sys::message;
use crate::sys::poll::Poll;
use crate::wire::handover::{INPUT_MAX, MESSAGE_MAX, Notice};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// The number of the caller for whom the session was made.
pub const FIRST: u32 = 0;
/// A number that no caller has.
pub const NOBODY: u32 = u32::MAX;
/// Bytes of lines in one message at most.
const LINES_MAX: usize = MESSAGE_MAX - 1024;

/// What a caller has a channel for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Calls,
    /// To ask about the session, or to end it (-O).
    Orders,
}

/// Does a caller take the messages that are sent to it?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Works,
    /// It is gone, or its channel is full of messages that it has not read.
    Failed,
}

pub struct Caller {
    pub fd: OwnedFd,
    /// Input that came before the `Open` of its call.
    pub inputs: BTreeMap<u32, Vec<u8>>,
    delivery: Cell<Delivery>,
    pub purpose: Purpose,
}

pub struct Callers {
    pub all: BTreeMap<u32, Caller>,
    next: u32,
}

impl Callers {
    pub fn new(first: OwnedFd) -> Callers {
        let mut this = Callers { all: BTreeMap::new(), next: FIRST };
        this.add(first);
        this
    }

    pub fn add(&mut self, fd: OwnedFd) {
        self.all.insert(
            self.next,
            Caller {
                fd,
                inputs: BTreeMap::new(),
                delivery: Cell::new(Delivery::Works),
                purpose: Purpose::Calls,
            },
        );
        self.next = self.next.wrapping_add(1);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn ids(&self) -> Vec<u32> {
        self.all.keys().copied().collect()
    }

    /// In the order of [`Callers::ids`]. Without `room` for a call they are polled for their end
    /// only.
    pub fn polls(&self, room: bool) -> impl Iterator<Item = Poll<'_>> {
        self.all.values().map(move |c| {
            if room { Poll::new(c.fd.as_fd(), true, false) } else { Poll::hangup(c.fd.as_fd()) }
        })
    }

    /// Sends a message to a caller. One that has ended, or whose channel is full of unread
    /// messages, is dropped in the next turn.
    pub fn send(&self, id: u32, notice: &Notice) {
        if let Some(caller) = self.all.get(&id)
            && message::send_message(caller.fd.as_fd(), &notice.encode(), &[], false).is_err()
        {
            caller.delivery.set(Delivery::Failed);
        }
    }

    /// Callers to which a message could not be delivered.
    pub fn unreachable(&self) -> Vec<u32> {
        self.all
            .iter()
            .filter(|(_, c)| c.delivery.get() == Delivery::Failed)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Sends lines, as many in a message as fit.
    pub fn send_lines(&self, id: u32, lines: impl Iterator<Item = String>) {
        let mut text = String::new();
        for line in lines {
            if text.len() + line.len() >= LINES_MAX {
                self.send(id, &Notice::State { text: std::mem::take(&mut text) });
            }
            let end = if text.is_empty() { "" } else { "\n" };
            text = text + end + &line;
        }
        if !text.is_empty() {
            self.send(id, &Notice::State { text });
        }
    }

    /// The input that came before a message of this caller with that tag.
    pub fn take_input(&mut self, id: u32, tag: u32) -> Vec<u8> {
        self.all.get_mut(&id).and_then(|caller| caller.inputs.remove(&tag)).unwrap_or_default()
    }

    /// Returns to the caller the input of a call.
    pub fn return_input(&self, id: u32, tag: u32, input: &[u8]) {
        input
            .chunks(INPUT_MAX)
            .for_each(|piece| self.send(id, &Notice::Input { tag, bytes: piece.to_vec() }));
    }
}
