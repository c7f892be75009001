//! How many starts may be pending, and who waits for them: so that starts that hang, or are slow,
//! hold up nobody but those who want the same user's services.

use super::starting::Starting;
use crate::parent::arrival::Requester;
use crate::parent::context::Context;
use crate::parent::services::Services;
use crate::sys::foreign;
use crate::sys::reaper;
use crate::sys::shared::Whose;
use crate::sys::spawn::{LOOK_AFTER, PendingStart};
use std::time::Duration;

/// Pending starts at a time but those that hang, where descriptors are not scarce. One more waits
/// for one of them.
pub const STARTING: usize = 32;
/// Pending starts at a time that are not late. There is no gain in more of them than there are
/// processors to run the children.
const AWAITED: usize = 4;
/// Pending starts of one user at a time, those that hang included, because it may be that user who
/// keeps them from ending, for ever even, where a file system takes what it is asked and does not
/// answer. Of places a user never has as many as are left for all others. One more waits, or is
/// refused where all of them hang.
const PER_USER_MAX: usize = 12;
/// A start that is older than this hangs; a younger one may only be slow. One that hangs gives its
/// place to others: it costs its user, and nobody else.
const HANGS_AFTER: Duration = Duration::from_millis(100);

/// Where all that a request waits for were looked after for so long, it is refused. A child may
/// wait for a processor for some tenths of a second where hundreds of programs are busy.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// Does it hang for so long that nobody waits for it?
pub fn hangs<T: 'static>(start: &PendingStart<T>) -> bool {
    start.looked_after() > REFUSED_AFTER
}

/// While starts are pending that nobody waits for, and that are not late yet, the loop looks as
/// often as this whether they are over.
pub const LOOK_SOON: Duration = Duration::from_millis(2);

/// May one more service of a user be started?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// Not before one of those that are pending is over. The loop must not wait for that.
    Later,
    /// Those that it would have to wait for hang.
    Never,
}

/// Does somebody wait for this start, as far as it is not late? Nobody is answered when the program
/// of a `wait` port has reached its exec, so the loop goes on, and mostly it looks after that start
/// again when the program has ended: one change of process less for each.
fn is_awaited(start: &PendingStart<Starting>) -> bool {
    !start.is_late() && !matches!(start.payload().record.requester, Requester::Wait(_))
}

impl Services {
    /// May one more service of this user be started? Waits for others' starts, but for those alone
    /// that are expected to be over in a moment.
    pub fn turn_of(&mut self, cx: &mut Context, uid: u32) -> Turn {
        if foreign::is_held_up(Whose::User(uid)) || reaper::is_held_up(uid) {
            return Turn::Never;
        }
        loop {
            let hang = |start: &&mut PendingStart<Starting>| {
                start.has_place() && start.age() > HANGS_AFTER
            };
            self.starting.iter_mut().filter(hang).for_each(|start| cx.spawner.free_place(start));
            let of_user = |start: &&PendingStart<Starting>| start.payload().plan.uid == uid;
            let in_place = || self.starting.iter().filter(|start| start.has_place());
            let left = cx.spawner.capacity().saturating_sub(in_place().count());
            let all_full = left == 0;
            if self.starting.iter().filter(of_user).count() >= PER_USER_MAX
                || in_place().filter(of_user).count() >= left
            {
                let in_the_way = |start: &&PendingStart<Starting>| all_full || of_user(start);
                let mut in_the_way = self.starting.iter().filter(in_the_way);
                if in_the_way.clone().all(hangs) {
                    return Turn::Never;
                }
                if !in_the_way.any(is_awaited) {
                    return Turn::Later;
                }
            } else if self.starting.iter().filter(|start| !start.is_late()).count() < AWAITED {
                return Turn::Now;
            }
            self.wait_for_one(cx);
        }
    }

    /// Finishes the starts that are over, and waits for one that is not. Children of late starts
    /// that were stopped, or take too long, are killed.
    pub fn settle(&mut self, cx: &mut Context) {
        foreign::settle();
        self.finish_starts(cx);
        let old = |start: &&mut PendingStart<Starting>| start.age() >= LOOK_AFTER;
        for start in self.starting.iter_mut().filter(old) {
            start.look_after();
            cx.held_up.note(start.payload().plan.uid, cx.now);
        }
        if self.starting.iter().any(is_awaited) {
            self.wait_for_one(cx);
        }
    }

    /// Finishes the starts that are over, and waits for one that is the only one. Not for one that
    /// a session has asked for: more can be made for its next one meanwhile.
    pub fn settle_single(&mut self, cx: &mut Context) {
        self.finish_starts(cx);
        if let [start] = &self.starting[..]
            && start.payload().session().is_none()
            && is_awaited(start)
        {
            self.wait_for_one(cx);
        }
    }

    /// How long the loop's poll may wait, for the sake of starts that are under way.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.starting.iter().any(is_awaited) {
            return Some(Duration::ZERO);
        }
        let is_soon = |start: &PendingStart<Starting>| {
            start.age() < LOOK_AFTER
                && !matches!(start.payload().record.requester, Requester::Wait(_))
        };
        let soon = foreign::waits() || self.starting.iter().any(is_soon);
        let looks = soon || !self.starting.is_empty();
        looks.then_some(if soon { LOOK_SOON } else { LOOK_AFTER })
    }

    /// Waits until every start is over or is late.
    pub fn settle_all(&mut self, cx: &mut Context) {
        self.finish_starts(cx);
        while !self.starting.iter().all(PendingStart::is_late) {
            self.wait_for_one(cx);
        }
    }

    pub fn wait_for_one(&mut self, cx: &mut Context) {
        let position = |of: fn(&PendingStart<Starting>) -> bool| self.starting.iter().position(of);
        let first = position(is_awaited).or_else(|| position(|start| !start.is_late()));
        if let Some(start) = first.and_then(|n| self.starting.get_mut(n)) {
            start.wait();
            if start.is_late() {
                cx.held_up.note(start.payload().plan.uid, cx.now);
            }
        }
        self.finish_starts(cx);
    }
}
