//! What a resumable link has taken to be sent, and the other side has not said that it has had. On
//! a new connection it is sent again from there.
//!
//! It takes [`UNACKNOWLEDGED_MAX`] bytes at most and never drops any: when it is full it takes
//! nothing. Its memory grows with what it holds, and is given back. Few bytes are copied; a queue
//! that is full of them is taken as it is ([`Replay::take_queue`]), which saves a copy of all that
//! a busy session sends.

use super::queue::{SendQueue, WHOLE};
use crate::wire::resume::UNACKNOWLEDGED_MAX;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a chunk at most, and at least.
const CHUNK: usize = 64 * 1024;
const SMALL: usize = 4096;
/// How many empty chunks are kept to be filled again, and how many empty buffers of queues: those
/// that a busy session fills again and again.
const SPARE: usize = 8;
const SPARE_QUEUES: usize = UNACKNOWLEDGED_MAX / WHOLE + 1;

/// Bytes that follow one another.
#[derive(Debug)]
enum Chunk {
    /// They were copied. More are added up to its capacity.
    Copied(Vec<u8>),
    /// These of a queue that was taken.
    Taken(Arc<Vec<u8>>, Range<usize>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Copied(bytes) => bytes,
            Chunk::Taken(bytes, part) => &bytes[part.clone()],
        }
    }

    /// Is nothing added to it any more?
    fn is_whole(&self) -> bool {
        match self {
            Chunk::Copied(bytes) => bytes.len() == bytes.capacity(),
            Chunk::Taken(..) => true,
        }
    }
}

/// See the module. All counts are of bytes since the session began.
#[derive(Debug, Default)]
pub struct Replay {
    /// What was taken, from `start` to `end`.
    chunks: VecDeque<Chunk>,
    spare: Vec<Vec<u8>>,
    spare_queues: Vec<Vec<u8>>,
    /// Bytes of memory of the queues that were taken.
    queues: usize,
    /// Where the first chunk begins.
    start: u64,
    /// How much the other side has had.
    acknowledged: u64,
    /// How much was given to this connection, or was had before.
    sent: u64,
    /// How much was given to any connection.
    most_sent: u64,
    end: u64,
    /// The place of `sent`: a chunk, and this many bytes into it.
    next: (usize, usize),
}

impl Replay {
    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        (self.end - self.acknowledged) as usize
    }

    pub fn is_full(&self) -> bool {
        self.len() >= UNACKNOWLEDGED_MAX
    }

    /// How many bytes this connection was not given yet.
    pub fn unsent(&self) -> usize {
        (self.end - self.sent) as usize
    }

    /// Takes bytes to be sent; returns how many.
    pub fn take(&mut self, parts: &[IoSlice]) -> usize {
        let room = UNACKNOWLEDGED_MAX - self.len();
        let mut left = room.min(parts.iter().map(|p| p.len()).sum());
        let taken = left;
        for part in parts {
            let mut part = &part[..part.len().min(left)];
            left -= part.len();
            while !part.is_empty() {
                part = &part[self.copy(part, left)..];
            }
        }
        self.end += taken as u64;
        taken
    }

    /// Copies bytes into the last chunk, which is a new one if that is full; returns how many.
    /// `left`: how many will follow them.
    fn copy(&mut self, bytes: &[u8], left: usize) -> usize {
        if let Some(Chunk::Copied(last)) = self.chunks.back_mut()
            && last.len() < last.capacity()
        {
            let n = bytes.len().min(last.capacity() - last.len());
            last.extend_from_slice(&bytes[..n]);
            return n;
        }
        let wanted = bytes.len() + left;
        let spare = if wanted > SMALL { self.spare.pop() } else { None };
        let mut chunk = spare.unwrap_or_else(|| Vec::with_capacity(wanted.clamp(SMALL, CHUNK)));
        let n = bytes.len().min(chunk.capacity());
        chunk.extend_from_slice(&bytes[..n]);
        self.chunks.push_back(Chunk::Copied(chunk));
        n
    }

    /// Takes what waits in a queue, as much as there is room for; returns how many bytes. If they
    /// are many, they stay where they are, and the queue gets other memory for its next ones.
    pub fn take_queue<Id: PartialEq>(&mut self, queue: &mut SendQueue<Id>) -> usize {
        let (left, memory) = (queue.left(), queue.memory());
        let room = UNACKNOWLEDGED_MAX.saturating_sub(self.queues.max(self.len()));
        if left < memory / 2 || left < CHUNK || memory > room {
            let taken = self.take(&queue.unsent(usize::MAX));
            queue.sent(taken);
            return taken;
        }
        let other = self.spare_queues.pop().unwrap_or_else(|| Vec::with_capacity(WHOLE));
        let (bytes, parts) = queue.give(other);
        self.queues += memory;
        let bytes = Arc::new(bytes);
        self.chunks.extend(parts.into_iter().map(|part| Chunk::Taken(bytes.clone(), part)));
        self.end += left as u64;
        left
    }

    /// The next bytes for this connection, at most `most`, as far as there are entries for their
    /// parts. Returns how many bytes and how many parts.
    pub fn next<'a>(&'a self, most: usize, parts: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut bytes, mut used) = (0, 0);
        let (first, mut at) = self.next;
        for chunk in self.chunks.range(first.min(self.chunks.len())..) {
            let chunk = chunk.bytes();
            let some = &chunk[at..chunk.len().min(at + most - bytes)];
            at = 0;
            if some.is_empty() {
                continue;
            }
            let Some(part) = parts.get_mut(used) else { break };
            *part = IoSlice::new(some);
            (bytes, used) = (bytes + some.len(), used + 1);
            if bytes == most {
                break;
            }
        }
        (bytes, used)
    }

    /// This connection was given this many of them.
    pub fn sent(&mut self, n: usize) {
        self.sent += n as u64;
        self.most_sent = self.most_sent.max(self.sent);
        self.advance(n);
    }

    fn advance(&mut self, mut n: usize) {
        let (chunk, at) = &mut self.next;
        while n > 0 {
            let its = self.chunks[*chunk].bytes().len();
            let some = n.min(its - *at);
            (*at, n) = (*at + some, n - some);
            // The last one may grow, unless it is full.
            if n > 0 || *at == its && self.chunks[*chunk].is_whole() {
                (*chunk, *at) = (*chunk + 1, 0);
            }
        }
    }

    /// The other side has had this many bytes in all. False: it cannot have.
    pub fn acknowledge(&mut self, count: u64) -> bool {
        if !(self.acknowledged..=self.sent).contains(&count) {
            return false;
        }
        self.acknowledged = count;
        while let Some(first) = self.chunks.front()
            && self.start + first.bytes().len() as u64 <= count
            && self.next.0 > 0
        {
            self.start += first.bytes().len() as u64;
            self.next.0 -= 1;
            let chunk = self.chunks.pop_front();
            self.recycle(chunk);
        }
        if self.end == count {
            let last = self.chunks.pop_front();
            self.recycle(last);
            (self.start, self.next) = (count, (0, 0));
        }
        true
    }

    fn recycle(&mut self, chunk: Option<Chunk>) {
        let (bytes, spare, most) = match chunk {
            Some(Chunk::Copied(bytes)) if bytes.capacity() >= CHUNK => {
                (bytes, &mut self.spare, SPARE)
            }
            Some(Chunk::Taken(bytes, _)) => {
                // It is free when its last part is.
                let Some(bytes) = Arc::into_inner(bytes) else { return };
                self.queues -= bytes.capacity();
                (bytes, &mut self.spare_queues, SPARE_QUEUES)
            }
            Some(Chunk::Copied(_)) | None => return,
        };
        if spare.len() < most {
            spare.push(bytes);
            spare.last_mut().into_iter().for_each(Vec::clear);
        }
    }

    /// Can the other side have had this many bytes, on any connection?
    pub fn can_resume(&self, count: u64) -> bool {
        (self.acknowledged..=self.most_sent).contains(&count)
    }

    /// There is a new connection, and the other side has had this many bytes. False: it cannot
    /// have.
    pub fn resume(&mut self, count: u64) -> bool {
        if !self.can_resume(count) {
            return false;
        }
        (self.sent, self.next) = (self.start, (0, 0));
        let had = (count - self.start) as usize;
        self.sent = count;
        self.advance(had);
        self.acknowledge(count)
    }

    /// Does it hold memory that [`Replay::release`] would free?
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty() || !self.spare_queues.is_empty()
    }

    /// Frees what is not needed to hold what it holds.
    pub fn release(&mut self) {
        (self.spare, self.spare_queues) = (Vec::new(), Vec::new());
        // Only the last can be too large. It is full after this, so the place of `sent` moves on.
        if let Some(Chunk::Copied(last)) = self.chunks.back_mut()
            && last.capacity() - last.len() > SMALL
        {
            last.shrink_to_fit();
            let (full, (chunk, at)) = (last.len(), self.next);
            if chunk + 1 == self.chunks.len() && at == full {
                self.next = (chunk + 1, 0);
            }
        }
        self.chunks.shrink_to_fit();
    }

    /// Does it hold no byte and next to no memory?
    #[cfg(test)]
    pub fn is_empty_and_small(&self) -> bool {
        let spare = self.spare.capacity() + self.spare_queues.capacity();
        self.len() == 0 && self.chunks.is_empty() && spare + self.queues == 0
    }
}
