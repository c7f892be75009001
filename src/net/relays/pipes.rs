//! The pipes of a thread, through which large transfers go without being copied. A relay has one
//! only while bytes are in it: an idle connection costs no more than its two sockets, and the
//! descriptors of all pipes are bounded, whoever fills them and takes nothing.

use crate::net::descriptors::Descriptors;
use crate::sys::pipe::{self, Pipe};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pipes at most, of all threads. Whoever gets none copies.
const PIPES: usize = 32;
/// Empty ones that a thread keeps while anything moves.
const KEPT: usize = 4;
/// Bytes that one holds at most. The kernel counts them to nobody's socket.
pub const HOLDS: usize = 256 * 1024;

/// One that a relay has, or a thread keeps.
pub struct CountedPipe {
    pipe: Pipe,
    count: Arc<AtomicUsize>,
}

impl Drop for CountedPipe {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for CountedPipe {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        &self.pipe
    }
}

impl DerefMut for CountedPipe {
    fn deref_mut(&mut self) -> &mut Pipe {
        &mut self.pipe
    }
}

/// See the module.
pub struct Pipes {
    /// How many there are in all threads.
    count: Arc<AtomicUsize>,
    descriptors: Arc<Descriptors>,
    kept: Vec<CountedPipe>,
}

impl Pipes {
    /// `count`: how many there are in all threads.
    pub fn new(count: Arc<AtomicUsize>, descriptors: Arc<Descriptors>) -> Pipes {
        Pipes { count, descriptors, kept: Vec::new() }
    }

    /// An empty one. None: there are too many, or the system makes no more.
    pub fn take(&mut self) -> Option<CountedPipe> {
        self.kept.pop().or_else(|| self.make())
    }

    fn make(&self) -> Option<CountedPipe> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= PIPES {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        match self.descriptors.unless_reserved(pipe::ends()) {
            Ok(ends) => {
                Some(CountedPipe { pipe: Pipe::new(ends, HOLDS as i32), count: self.count.clone() })
            }
            Err(e) => {
                self.count.fetch_sub(1, Ordering::Relaxed);
                log::debug!("a relay's pipe: {e}");
                None
            }
        }
    }

    /// Takes one back that is empty.
    pub fn give_back(&mut self, pipe: CountedPipe) {
        if self.kept.len() < KEPT && pipe.holds() == 0 {
            self.kept.push(pipe);
        }
    }

    /// Are none kept?
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps none any more: nothing moves.
    pub fn release(&mut self) {
        self.kept = Vec::new();
    }
}
