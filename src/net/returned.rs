//! Unix sockets of others, where the kernel cannot refuse what they send (`local::take_rights`).
//!
//! The last one to close such a socket closes the descriptors in its queue, too, and that can take
//! long (`sys::passed_rights`). This process can have no other one beside it, so it returns each to
//! the parent, which has (`sys::foreign`): whatever thread drops it.

use crate::sys::shared;
use crate::sys::{local, socket};
use mio::Waker;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

/// See the module.
pub struct Returned(Receiver<OwnedFd>);

impl Returned {
    /// From now on the sockets are gathered here, where there may be any. `waker` wakes whoever
    /// calls [`Returned::next`].
    pub fn new(waker: Arc<Waker>) -> Returned {
        let (sender, all) = mpsc::channel();
        if !local::can_refuse_rights() {
            shared::close_foreign_with(move |_, fd| {
                let address = socket::local(fd.as_fd());
                if !address.is_err_and(|e| socket::is_of_another_family(&e)) {
                    return Some(fd);
                }
                // Where nobody gathers them any more, this process ends.
                let returned = sender.send(fd);
                if let Err(e) = waker.wake() {
                    log::debug!("a socket to close: {e}");
                }
                returned.err().map(|not_sent| not_sent.0)
            });
        }
        Returned(all)
    }

    /// One that is to be closed.
    pub fn next(&self) -> Option<OwnedFd> {
        self.0.try_recv().ok()
    }
}
