//! What the threads that relay and the loop share.

use crate::net::descriptors::Descriptors;
use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// See the module.
pub struct Common {
    pub descriptors: Arc<Descriptors>,
    /// How many relays there are, and such as are over while the parent was not told.
    pub relays: AtomicUsize,
    /// How many pipes the threads have.
    pub pipes: Arc<AtomicUsize>,
    /// A thread has no descriptor left for a relay that is to begin.
    pub full: AtomicBool,
    /// Wakes the loop.
    pub waker: Arc<Waker>,
}

impl Common {
    /// No relay yet.
    pub fn new(waker: Arc<Waker>, descriptors: Arc<Descriptors>) -> Common {
        Common {
            descriptors,
            relays: AtomicUsize::new(0),
            pipes: Arc::default(),
            full: AtomicBool::new(false),
            waker,
        }
    }
}
