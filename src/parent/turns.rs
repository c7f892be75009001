//! How many starts may be pending, and who waits for them: so that starts that hang hold up nobody
//! but those who want the same user's services.

use super::arrival::From;
use super::context::Context;
use super::services::Services;
use super::starting::Starting;
use crate::sys::spawn::{LOOK_AFTER, PendingStart};
use std::time::Duration;

/// Pending starts at a time, late ones included, where descriptors are not scarce. One more waits
/// for one of them, or is refused where all of them hang.
pub const STARTING: usize = 32;
/// Pending starts at a time that are not late. There is no gain in more of them than there are
/// processors to run the children.
const AWAITED: usize = 4;
/// Pending starts of one user at a time, because it may be that user who keeps them from ending,
/// for ever even, where a file system takes what it is asked and does not answer. A user never has
/// as many as are left for all others: so a few users do not take all places. One more waits or is
/// refused likewise.
const PER_USER_MAX: usize = 12;
/// A start that is older than this hangs; a younger one may only be slow.
const HANGS_AFTER: Duration = Duration::from_millis(100);

/// Does somebody wait for this start, as far as it is not late? Nobody is answered when the program
/// of a `wait` port has reached its exec, so the loop goes on, and mostly it looks after that start
/// again when the program has ended: one change of process less for each.
fn is_awaited(f: &PendingStart<Starting>) -> bool {
    !f.is_late() && !matches!(f.payload().record.from, From::Wait(_))
}

impl Services {
    /// Waits until one more service of this user may be started. False: it may not, because the
    /// starts that it would have to wait for hang.
    pub fn wait_for_turn(&mut self, cx: &mut Context, uid: u32) -> bool {
        loop {
            let of_user = |f: &&PendingStart<Starting>| f.payload().plan.uid == uid;
            let left = cx.spawner.capacity().saturating_sub(self.starting.len());
            let all_full = left == 0;
            if self.starting.iter().filter(of_user).count() >= PER_USER_MAX.min(left) {
                let in_the_way = |f: &&PendingStart<Starting>| all_full || of_user(f);
                if self.starting.iter().filter(in_the_way).all(|f| f.age() > HANGS_AFTER) {
                    return false;
                }
            } else if self.starting.iter().filter(|f| !f.is_late()).count() < AWAITED {
                return true;
            }
            self.wait_for_one(cx);
        }
    }

    /// Finishes the starts that are over, and waits for one that is not. Children of late starts
    /// that were stopped, or take too long, are killed.
    pub fn settle(&mut self, cx: &mut Context) {
        self.look(cx);
        let old = |f: &&mut PendingStart<Starting>| f.age() >= LOOK_AFTER;
        self.starting.iter_mut().filter(old).for_each(PendingStart::look_after);
        cx.spawner.let_go();
        if self.starting.iter().any(is_awaited) {
            self.wait_for_one(cx);
        }
    }

    /// Finishes the starts that are over, and waits for one that is the only one. Not for one that
    /// a session has asked for: more can be made for its next one meanwhile.
    pub fn settle_single(&mut self, cx: &mut Context) {
        self.look(cx);
        if let [start] = &self.starting[..]
            && start.payload().session().is_none()
            && is_awaited(start)
        {
            self.wait_for_one(cx);
        }
    }

    /// How long the loop's poll may wait, for the sake of starts that are under way.
    pub fn settled_for(&self) -> Option<Duration> {
        let awaited = self.starting.iter().any(is_awaited);
        (!self.starting.is_empty()).then_some(if awaited { Duration::ZERO } else { LOOK_AFTER })
    }

    /// Waits until every start is over or is late.
    pub fn settle_all(&mut self, cx: &mut Context) {
        self.look(cx);
        while !self.starting.iter().all(PendingStart::is_late) {
            self.wait_for_one(cx);
        }
    }

    pub(super) fn wait_for_one(&mut self, cx: &mut Context) {
        let position = |of: fn(&PendingStart<Starting>) -> bool| self.starting.iter().position(of);
        let first = position(is_awaited).or_else(|| position(|f| !f.is_late())).unwrap_or(0);
        if let Some(f) = self.starting.get_mut(first) {
            f.wait();
        }
        self.look(cx);
    }
}
