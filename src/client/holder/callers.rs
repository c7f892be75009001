//! Channels to processes of the same user that make calls or ask about the session, and the
//! messages that are sent to them. Those for which a channel has no room are kept until it has:
//! a caller that was stopped, or has many calls, may leave them unread for long. Nothing is
//! received from a caller that leaves too many unread.

use crate::sys::clock;
use crate::sys::message::{self, Failed};
use crate::sys::poll::{self, Poll};
use crate::wire::handover::{INPUT_MAX, MESSAGE_MAX, Notice};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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

/// Messages of which a caller may leave so many unread before nothing is received from it. It is
/// more than the answers to all that its channel can hold, so no caller that waits for room there
/// waits for itself.
const UNSENT_MAX: usize = 4096;

/// What a caller's channel has had no room for yet.
enum Unsent {
    Messages(VecDeque<Vec<u8>>),
    /// The caller is gone.
    Gone,
}

pub struct Caller {
    pub fd: OwnedFd,
    /// Input that came before the `Open` of its call.
    pub inputs: BTreeMap<u32, Vec<u8>>,
    unsent: RefCell<Unsent>,
    pub purpose: Purpose,
}

impl Caller {
    fn send(&self, message: Vec<u8>) {
        if let Unsent::Messages(unsent) = &mut *self.unsent.borrow_mut() {
            unsent.push_back(message);
        }
        self.send_rest();
    }

    /// Sends what there is room for.
    fn send_rest(&self) {
        let mut rest = self.unsent.borrow_mut();
        while let Unsent::Messages(unsent) = &mut *rest
            && let Some(message) = unsent.front()
        {
            match message::send(self.fd.as_fd(), message, &[]) {
                Ok(()) => drop(unsent.pop_front()),
                Err(e) if matches!(Failed::of(&e), Failed::Full | Failed::Scarce) => return,
                Err(_) => *rest = Unsent::Gone,
            }
        }
    }

    /// How many messages it has not had. None: it is gone.
    fn unsent(&self) -> Option<usize> {
        match &*self.unsent.borrow() {
            Unsent::Messages(unsent) => Some(unsent.len()),
            Unsent::Gone => None,
        }
    }

    /// Is anything received from it?
    fn is_heard(&self) -> bool {
        self.unsent().is_some_and(|n| n < UNSENT_MAX)
    }
}

pub struct Callers {
    pub all: BTreeMap<u32, Caller>,
    next: u32,
    /// They know that the session takes no new calls.
    sent_away: bool,
}

impl Callers {
    pub fn new(first: OwnedFd) -> Callers {
        let mut this = Callers { all: BTreeMap::new(), next: FIRST, sent_away: false };
        this.add(first);
        this
    }

    pub fn add(&mut self, fd: OwnedFd) {
        self.all.insert(
            self.next,
            Caller {
                fd,
                inputs: BTreeMap::new(),
                unsent: RefCell::new(Unsent::Messages(VecDeque::new())),
                purpose: Purpose::Calls,
            },
        );
        // It may have found the socket just before that was renamed; -O finds it later, too.
        if self.sent_away {
            self.send(self.next, &Notice::Gone { tag: 0 });
        }
        self.next = self.next.wrapping_add(1);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn ids(&self) -> Vec<u32> {
        self.all.keys().copied().collect()
    }

    /// Is anything received from this caller?
    pub fn hears(&self, id: u32) -> bool {
        self.all.get(&id).is_some_and(Caller::is_heard)
    }

    /// In the order of [`Callers::ids`]. Without `room` for a call nothing is received from them.
    pub fn polls(&self, room: bool) -> impl Iterator<Item = Poll<'_>> {
        self.all.values().map(move |c| {
            let write = c.unsent().is_some_and(|n| n > 0);
            if room && c.is_heard() {
                Poll::new(c.fd.as_fd(), true, write)
            } else {
                Poll::end(c.fd.as_fd(), false, write)
            }
        })
    }

    /// Sends a message to a caller, now or when its channel has room.
    pub fn send(&self, id: u32, notice: &Notice) {
        if let Some(caller) = self.all.get(&id) {
            caller.send(notice.encode());
        }
    }

    /// Sends a message that nobody waits for to each caller but those that leave too many unread.
    pub fn send_to_all(&self, notice: &Notice) {
        let all = self.all.values().filter(|c| c.is_heard());
        all.for_each(|c| c.send(notice.encode()));
    }

    /// Tells all, those too who come later, that the session takes no new calls.
    pub fn send_away(&mut self) {
        if !std::mem::replace(&mut self.sent_away, true) {
            self.send_to_all(&Notice::Gone { tag: 0 });
        }
    }

    /// Sends what there is room for now. Returns the callers that are gone.
    pub fn send_rest(&self) -> Vec<u32> {
        self.all.values().for_each(Caller::send_rest);
        self.all.iter().filter(|(_, c)| c.unsent().is_none()).map(|(id, _)| *id).collect()
    }

    /// Sends all the rest, as far as the callers take it within this time.
    pub fn finish(&self, timeout: Duration) {
        let end = clock::monotonic() + timeout;
        loop {
            self.send_rest();
            let unsent = |c: &&Caller| c.unsent().is_some_and(|n| n > 0);
            let mut polls: Vec<Poll> = self
                .all
                .values()
                .filter(unsent)
                .map(|c| Poll::new(c.fd.as_fd(), false, true))
                .collect();
            let left = end.saturating_sub(clock::monotonic());
            if polls.is_empty() || left.is_zero() || poll::wait(&mut polls, Some(left)).is_err() {
                return;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    /// It may have been stopped while the session loses its connection again and again.
    #[test]
    fn what_nobody_waits_for_is_not_kept_without_end() {
        let (ours, _theirs) = socket::seqpacket().expect("a channel");
        let callers = Callers::new(ours);
        let unsent = || callers.all[&FIRST].unsent().expect("it is there");
        for _ in 0..2 * UNSENT_MAX {
            callers.send_to_all(&Notice::Step { text: "lost".into() });
        }
        assert_eq!(unsent(), UNSENT_MAX);
        callers.send(FIRST, &Notice::Done);
        assert_eq!(unsent(), UNSENT_MAX + 1, "what it waits for is kept");
    }
    #[test]
    fn everybody_is_told_once_that_no_new_calls_are_taken() {
        let (first, heard_first) = socket::seqpacket().expect("a channel");
        let (second, heard_second) = socket::seqpacket().expect("a channel");
        let mut callers = Callers::new(first);
        callers.send_away();
        callers.add(second);
        callers.send_away();
        for heard in [heard_first, heard_second] {
            let mut bytes = [0; MESSAGE_MAX];
            let (n, _) = message::receive(heard.as_fd(), &mut bytes).expect("one");
            assert_eq!(Notice::decode(&bytes[..n]), Some(Notice::Gone { tag: 0 }));
            assert!(message::receive(heard.as_fd(), &mut bytes).is_err());
        }
    }
}
