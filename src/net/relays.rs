//! Relays: connections of plain clients to servers that were running already. The parent has made
//! the connection to the server; here the bytes are copied, both ways and untouched.
//!
//! A few threads have all of them, each with a poll and a channel to the parent of its own
//! ([`thread`]): one that is silent costs two descriptors and no thread. The parent begins a thread
//! by sending its channel, so where no row has any relays they do not exist. What moves in large
//! pieces goes through a pipe and is not copied ([`pipes`]).
//!
//! | file | noun |
//! |---|---|
//! | `common` | what the threads and the loop share |
//! | `thread` | a thread |
//! | `relay` | one relay |
//! | `pipes` | the pipes of a thread |

mod common;
mod pipes;
mod relay;
mod thread;

use super::descriptors::Descriptors;
use crate::sys::shared::Shared;
use common::Common;
use mio::Waker;
use pipes::Pipes;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};

/// See the module.
pub struct Relays {
    common: Arc<Common>,
    discarded: Receiver<Shared>,
    /// For the threads.
    discards: Sender<Shared>,
}

impl Relays {
    /// None yet. `waker` wakes whoever calls [`Relays::discarded`] and [`Relays::is_full`].
    pub fn new(waker: Arc<Waker>, descriptors: Arc<Descriptors>) -> Relays {
        let (discards, discarded) = mpsc::channel();
        Relays { common: Common::new(waker, descriptors).into(), discarded, discards }
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.common.relays.load(Ordering::Acquire) == 0
    }

    /// Begins a thread with this channel. Errors: the system has none. The parent then sees that
    /// the channel is closed.
    pub fn begin(&self, channel: OwnedFd) -> io::Result<()> {
        let common = self.common.clone();
        let pipes = Pipes::new(common.pipes.clone(), common.descriptors.clone());
        thread::begin(channel, common, pipes, self.discards.clone())
    }

    /// The socket of a client that was still sending to a server that has gone: what it sends is to
    /// be discarded for a while, so that no reset overtakes what was sent to it.
    pub fn discarded(&self) -> Option<Shared> {
        self.discarded.try_recv().ok()
    }

    /// Is a descriptor wanted, since the last call?
    pub fn is_full(&self) -> bool {
        self.common.full.swap(false, Ordering::Relaxed)
    }
}
