//! What is remembered of the last trial of a program.

use std::sync::atomic::{AtomicU64, Ordering};

/// The program file that passed the last trial, and the identity that tried it, as a hash: the
/// trial costs 20 µs, a sixth of a small start, and the same file gives the same answer. Mode,
/// owner and content cannot change without the change time (inode(7)). What can, shows at exec,
/// after the greeting: the file system is mounted anew without exec, or somebody has the file open
/// for writing and has written nothing yet. Scripts are tried at each start, because their
/// interpreter is another file.
#[derive(Debug, Default)]
pub struct Tried(AtomicU64);

impl Tried {
    /// Has this program passed the trial for this identity, and is it unchanged?
    pub(super) fn has(&self, mark: u64) -> bool {
        mark != 0 && self.0.load(Ordering::Relaxed) == mark
    }

    pub(super) fn set(&self, mark: u64) {
        self.0.store(mark, Ordering::Relaxed);
    }
}
