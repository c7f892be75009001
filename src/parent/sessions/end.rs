//! How sessions end.

use super::Sessions;
use super::session::SessionRecord;
use crate::parent::channel::Broken;
use crate::parent::context::Context;
use crate::parent::lines;
use crate::parent::tokens::SessionToken;
use crate::policy::Source;

impl Sessions {
    /// Forgets a session whose channel has closed or cannot be used any more.
    pub fn over(
        &mut self,
        cx: &Context,
        token: SessionToken,
        why: &Broken,
    ) -> Option<SessionRecord> {
        let s = self.all.remove(&token)?;
        if let Some(parent) = s.parent {
            self.counts.branch_over(s.net);
            if let Some(p) = self.all.get_mut(&parent) {
                p.branches -= 1;
            }
            return Some(s);
        }
        let source = Source::of(s.addresses.peer());
        self.counts.end(s.net, source);
        if s.resumable.is_some() {
            self.counts.resumable(source, false);
        }
        if s.is_lost() {
            self.counts.lost(source, false);
        }
        let reason = match (why, &s.end_reason) {
            (Broken::Forbidden, _) => "nonsense",
            (Broken::Stuck | Broken::KeepsCopy, _) => "system",
            (Broken::Closed, Some(reason)) => reason,
            (Broken::Closed, None) => "closed",
        };
        lines::end(s.number, s.addresses.peer(), reason, cx.now.saturating_sub(s.since));
        Some(s)
    }

    /// Logs the end of the sessions that end with fived, the oldest first.
    pub fn end_with_fived(&self, cx: &Context) {
        let mut all: Vec<_> = self.all.values().filter(|s| s.parent.is_none()).collect();
        all.sort_unstable_by_key(|s| s.number);
        for s in all {
            let reason = s.end_reason.as_deref().unwrap_or("drained");
            lines::end(s.number, s.addresses.peer(), reason, cx.now.saturating_sub(s.since));
        }
    }
}
