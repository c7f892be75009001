//! The frames that wait to be sent, and their order.
//!
//! A service is read in bursts of several frames, because that takes fewer system calls. To be
//! fair, the frames are then sent one of each stream in turn. Only their order is computed here: no
//! byte is moved.

use crate::sys::socket::PIECES;
use crate::wire::yamux::{FRAME, StreamId};
use std::io::IoSlice;
use std::ops::Range;

/// While this many bytes of frames wait to be sent, no local end is read.
pub const OUT_MAX: usize = 512 * 1024;

/// How many parts one sendmsg(2) gets; the kernel takes 1024 at most (UIO_MAXIOV).
const PARTS: usize = 64;

/// Bytes of a buffer that need not grow before the queue is full: what a pump lets wait, and one
/// burst more.
pub(super) const WHOLE: usize = OUT_MAX + PIECES * FRAME;

/// How many streams take turns at most: the list is searched from end to end.
const TURN: usize = 256;

/// See the module.
pub struct SendQueue<Id = StreamId> {
    bytes: Vec<u8>,
    /// The parts of `bytes` in the order in which they are sent; those before `first` were sent.
    order: Vec<Range<usize>>,
    first: usize,
    /// Bursts that have not been put into order: one of each stream.
    turn: Vec<(Id, Range<usize>)>,
}

impl<Id> Default for SendQueue<Id> {
    fn default() -> SendQueue<Id> {
        SendQueue { bytes: Vec::new(), order: Vec::new(), first: 0, turn: Vec::new() }
    }
}

impl<Id: PartialEq> SendQueue<Id> {
    pub fn new() -> SendQueue<Id> {
        SendQueue::default()
    }

    /// How many bytes were appended since it was last [emptied](SendQueue::empty), those that were
    /// sent included.
    pub fn taken(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_sent(&self) -> bool {
        self.first == self.order.len() && self.turn.is_empty()
    }

    pub fn has_buffers(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Appends frames, to be sent after all that were appended before.
    pub fn append<T>(&mut self, appends: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.end_turn();
        let at = self.bytes.len();
        let result = appends(&mut self.bytes);
        self.push(at..self.bytes.len());
        result
    }

    /// Appends a burst of one stream: frames of the full length, except for the last.
    pub fn burst<T>(
        &mut self,
        stream: Id,
        appends: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> (T, impl Iterator<Item = &mut [u8]>) {
        if self.turn.len() == TURN || self.turn.iter().any(|(id, _)| *id == stream) {
            self.end_turn();
        }
        let at = self.bytes.len();
        let result = appends(&mut self.bytes);
        if self.bytes.len() > at {
            self.turn.push((stream, at..self.bytes.len()));
        }
        (result, self.bytes[at..].chunks_mut(FRAME))
    }

    /// Puts the bursts into order: one frame of each in turn.
    fn end_turn(&mut self) {
        let mut turn = std::mem::take(&mut self.turn);
        while !turn.is_empty() {
            turn.retain_mut(|(_, burst)| {
                let end = burst.end.min(burst.start + FRAME);
                self.push(burst.start..end);
                burst.start = end;
                burst.start < burst.end
            });
        }
        self.turn = turn;
    }

    fn push(&mut self, part: Range<usize>) {
        match self.order[self.first..].last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ if part.start == part.end => {}
            _ => self.order.push(part),
        }
    }

    /// What is to be sent next, at most this many bytes; empty: all was sent.
    pub fn unsent(&mut self, most: usize) -> Vec<IoSlice<'_>> {
        self.end_turn();
        let mut left = most;
        self.order[self.first..]
            .iter()
            .take(PARTS)
            .map_while(|part| {
                let n = part.len().min(left);
                left -= n;
                (n > 0).then(|| IoSlice::new(&self.bytes[part.start..part.start + n]))
            })
            .collect()
    }

    /// The caller has sent this many bytes of [`SendQueue::unsent`].
    pub fn sent(&mut self, mut n: usize) {
        while let Some(part) = self.order.get_mut(self.first).filter(|_| n > 0) {
            let some = n.min(part.len());
            part.start += some;
            n -= some;
            self.first += usize::from(part.start == part.end);
        }
    }

    /// How many bytes wait to be sent.
    pub(super) fn left(&mut self) -> usize {
        self.end_turn();
        self.order[self.first..].iter().map(|part| part.len()).sum()
    }

    /// How many bytes of memory it holds for them.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives its frames away, as they are, with the parts of them that wait to be sent, in their
    /// order; goes on with another buffer.
    pub(super) fn give(&mut self, buffer: Vec<u8>) -> (Vec<u8>, Vec<Range<usize>>) {
        self.end_turn();
        let parts = self.order.drain(..).skip(std::mem::take(&mut self.first)).collect();
        (std::mem::replace(&mut self.bytes, buffer), parts)
    }

    /// Empties it and keeps its memory.
    pub fn empty(&mut self) {
        debug_assert!(self.is_sent(), "frames that were not sent");
        self.bytes.clear();
        self.order.clear();
        self.first = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut SendQueue<u32>, at_once: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = queue.unsent(at_once).first() {
            let n = part.len().min(at_once);
            all.extend_from_slice(&part[..n]);
            queue.sent(n);
        }
        assert!(queue.is_sent());
        all
    }

    fn burst(queue: &mut SendQueue<u32>, stream: u32, bytes: usize) {
        let ((), frames) = queue.burst(stream, |to| to.resize(to.len() + bytes, stream as u8));
        for (k, frame) in frames.enumerate() {
            frame[0] = b'a' + k as u8;
        }
    }

    /// The frames in their order, each as its stream and its mark.
    fn frames(bytes: &[u8]) -> String {
        bytes
            .windows(2)
            .filter(|w| w[0] >= b'a')
            .map(|w| format!("{}{}", w[1], w[0] as char))
            .collect()
    }

    #[test]
    fn a_frame_of_each_stream_in_turn() {
        let (mut queue, whole) = (SendQueue::new(), FRAME);
        for at_once in [usize::MAX, 7000] {
            burst(&mut queue, 1, 3 * whole);
            burst(&mut queue, 3, 9);
            burst(&mut queue, 5, whole + 1234);
            burst(&mut queue, 1, 2 * whole);
            burst(&mut queue, 7, whole);
            queue.append(|to| to.extend_from_slice(&[b'z', 9]));
            burst(&mut queue, 3, whole);
            let sent = all(&mut queue, at_once);
            assert_eq!(frames(&sent), "1a3a5a1b5b1c1a7a1b9z3a");
            assert_eq!(sent.len(), queue.taken());
            queue.empty();
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let mut queue = SendQueue::new();
        queue.append(|_| ());
        burst(&mut queue, 1, 0);
        assert!(queue.is_sent() && queue.unsent(1).is_empty() && !queue.has_buffers());
        queue.append(|to| to.push(1));
        assert!(!queue.is_sent());
        assert_eq!(all(&mut queue, 1), [1]);
        queue.append(|to| to.push(2));
        assert_eq!(all(&mut queue, 1), [2]);
    }
}
