//! What a child reads on its way to exec, and where it writes what became of that.

use super::failure::Fault;
use super::given::Given;
use super::inherited::Inherited;
use super::launch::Launch;
use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the child is to do, and where it writes what failed.
pub(super) struct Order<'a> {
    pub launch: Launch<'a>,
    pub inherited: Arc<Inherited>,
    /// The identity's groups, sorted as the kernel sorts them.
    pub groups: Vec<u32>,
    /// Longer than `groups`.
    pub groups_back: Vec<Cell<u32>>,
    pub null: RawFd,
    /// Where what it is given waits for it.
    pub queue: RawFd,
    /// The launch itself has none of these any more.
    pub given: Given,
    /// The child has left our descriptor table, and needs nothing of it.
    pub has_own_table: AtomicBool,
    /// Descriptors from here on are not the child's.
    pub above: u32,
    /// The limit of descriptors before we raised ours.
    pub nofile: Option<(u64, u64)>,
    /// The child was a spare: it has a session and a keyring of its own already.
    pub prepared: bool,
    /// Some of the greeting may have been sent.
    pub greeted: Cell<bool>,
    pub fault: Cell<Option<Fault>>,
}
