//! What concerns several sessions at once: those of a net process, the streams of one, all of a
//! kind.

use super::Sessions;
use super::session::SessionRecord;
use crate::parent::context::Context;
use crate::parent::tokens::{NetToken, SessionToken};
use crate::wire::orders::Answer;
use std::collections::HashMap;

/// Answers held for all sessions together at most, of half a kilobyte each.
const HELD_MAX: usize = 16_384;

impl Sessions {
    /// The streams of that session that have facts of their own.
    pub fn branches_of(&self, token: SessionToken) -> Vec<SessionToken> {
        self.all.iter().filter(|(_, s)| s.parent == Some(token)).map(|(t, _)| *t).collect()
    }

    /// Where too many answers are held, the tokens of the session that has most, and of its
    /// streams; streams come first, because they began later. None: not too many are held.
    pub fn with_most_held(&self) -> Option<Vec<SessionToken>> {
        if self.held.count() <= HELD_MAX {
            return None;
        }
        let mut counts = HashMap::new();
        for (token, s) in &self.all {
            *counts.entry(s.parent.unwrap_or(*token)).or_insert(0) += s.channel.held();
        }
        let (most, _) = counts.into_iter().max_by_key(|(_, n)| *n)?;
        let of_it = self.all.iter().filter(|(t, s)| **t == most || s.parent == Some(most));
        let mut all: Vec<SessionToken> = of_it.map(|(t, _)| *t).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        Some(all)
    }

    /// Tells the sessions of a net process that drains to take no new streams.
    pub fn drain(&mut self, cx: &Context, net: NetToken, last: bool) {
        self.tell_all(cx, &Answer::GoAway { last }, |s| s.net == net);
    }

    /// Sends all of these sessions an answer.
    pub fn tell_all(
        &mut self,
        cx: &Context,
        answer: &Answer,
        which: impl Fn(&SessionRecord) -> bool,
    ) {
        let all: Vec<SessionToken> =
            self.all.iter().filter(|(_, s)| which(s)).map(|(t, _)| *t).collect();
        all.into_iter().for_each(|token| self.tell(cx, token, answer));
    }

    /// The sessions of a net process. Streams come before their session, because they began later.
    pub fn of_net(&self, net: NetToken) -> Vec<SessionToken> {
        let mut all: Vec<SessionToken> =
            self.all.iter().filter(|(_, s)| s.net == net).map(|(token, _)| *token).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }
}
