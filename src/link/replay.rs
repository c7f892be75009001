//! What a resumable link has taken to be sent, and the other side has not said that it has had. On
//! a new connection it is sent again from there.
//!
//! It takes [`UNACKNOWLEDGED_MAX`] bytes at most and never drops any: when it is full it takes
//! nothing. Its memory grows with what it holds, and is given back.

use crate::wire::resume::UNACKNOWLEDGED_MAX;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes of a chunk at most, and at least.
const CHUNK: usize = 64 * 1024;
const SMALL: usize = 4096;
/// How many empty chunks are kept to be filled again.
const SPARE: usize = 8;

/// See the module. All counts are of bytes since the session began.
#[derive(Debug, Default)]
pub struct Replay {
    /// What was taken, from `start` to `end`. A chunk is never longer than its first capacity.
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Where the first chunk begins.
    start: u64,
    /// So much the other side has had.
    acknowledged: u64,
    /// So much was given to this connection, or was had before.
    sent: u64,
    /// So much was given to any connection.
    most_sent: u64,
    end: u64,
    /// The place of `sent`: a chunk, and so many bytes into it.
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
                let chunk = self.last(part.len() + left);
                let n = part.len().min(chunk.capacity() - chunk.len());
                chunk.extend_from_slice(&part[..n]);
                part = &part[n..];
            }
        }
        self.end += taken as u64;
        taken
    }

    /// A chunk that is not full, for so many bytes if it is a new one.
    fn last(&mut self, wanted: usize) -> &mut Vec<u8> {
        if self.chunks.back().is_none_or(|c| c.len() == c.capacity()) {
            let new = || Vec::with_capacity(wanted.clamp(SMALL, CHUNK));
            let chunk = if wanted > SMALL { self.spare.pop() } else { None };
            self.chunks.push_back(chunk.unwrap_or_else(new));
        }
        self.chunks.back_mut().expect("one was pushed if there was none")
    }

    /// The next bytes for this connection, at most `most`, as far as there are entries for their
    /// parts. Returns how many bytes and how many parts.
    pub fn next<'a>(&'a self, most: usize, parts: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut bytes, mut used) = (0, 0);
        let (first, mut at) = self.next;
        for chunk in self.chunks.range(first.min(self.chunks.len())..) {
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

    /// This connection was given so many of them.
    pub fn sent(&mut self, n: usize) {
        self.sent += n as u64;
        self.most_sent = self.most_sent.max(self.sent);
        self.advance(n);
    }

    fn advance(&mut self, mut n: usize) {
        let (chunk, at) = &mut self.next;
        while n > 0 {
            let some = n.min(self.chunks[*chunk].len() - *at);
            (*at, n) = (*at + some, n - some);
            // The last one may grow, unless it is full.
            if *at == self.chunks[*chunk].capacity() || n > 0 {
                (*chunk, *at) = (*chunk + 1, 0);
            }
        }
    }

    /// The other side has had so many bytes in all. False: it cannot have.
    pub fn acknowledge(&mut self, count: u64) -> bool {
        if !(self.acknowledged..=self.sent).contains(&count) {
            return false;
        }
        self.acknowledged = count;
        while let Some(first) = self.chunks.front()
            && self.start + first.len() as u64 <= count
            && self.next.0 > 0
        {
            self.start += first.len() as u64;
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

    fn recycle(&mut self, chunk: Option<Vec<u8>>) {
        if let Some(mut chunk) = chunk.filter(|c| c.capacity() >= CHUNK && self.spare.len() < SPARE)
        {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    /// Can the other side have had so many bytes, on any connection?
    pub fn can_resume(&self, count: u64) -> bool {
        (self.acknowledged..=self.most_sent).contains(&count)
    }

    /// There is a new connection, and the other side has had so many bytes. False: it cannot have.
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
        !self.spare.is_empty()
    }

    /// Frees what is not needed to hold what it holds.
    pub fn release(&mut self) {
        self.spare = Vec::new();
        // Only the last is not full. It is full after this, so the place of `sent` moves on.
        if let Some(last) = self.chunks.back_mut().filter(|c| c.capacity() - c.len() > SMALL) {
            last.shrink_to_fit();
            let (chunk, at) = self.next;
            if chunk + 1 == self.chunks.len() && at == self.chunks[chunk].capacity() {
                self.next = (chunk + 1, 0);
            }
        }
        self.chunks.shrink_to_fit();
    }

    /// Does it hold no byte and next to no memory?
    #[cfg(test)]
    pub fn is_empty_and_small(&self) -> bool {
        self.len() == 0 && self.chunks.is_empty() && self.spare.capacity() == 0
    }
}
