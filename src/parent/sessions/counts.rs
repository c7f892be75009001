//! How many sessions there are, by source and by net process. `max_sessions_per_source` holds for
//! all net processes together. `max_sessions` holds for each net process, so that sessions of an
//! older table, which a reload does not end, do not count against new ones.
//!
//! Each net process also refuses by its own count, which is exact. The parent learns a moment later
//! that a session has ended, so its count decides only where sessions of other net processes are
//! part of it, and where a net process counts wrongly.

use crate::parent::tokens::NetToken;
use crate::policy::{DIALOGUES_MAX, STANDING_MAX, Settings, Source};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// See the module.
#[derive(Debug, Default)]
pub struct SessionCounts {
    /// By source.
    sources: HashMap<Source, u32>,
    /// By net process, that is its token.
    nets: HashMap<NetToken, u32>,
    /// Streams that have facts of their own, likewise.
    branches: HashMap<NetToken, u32>,
    /// By both.
    here: HashMap<(NetToken, Source), u32>,
    /// Sessions that outlive their connections, by source, and how many of these are lost. Each may
    /// come back on a connection that counts until then; of those that stand, some at a time.
    resumable: HashMap<Source, u32>,
    lost: HashMap<Source, u32>,
}

impl SessionCounts {
    /// Counts one more session of this source in this net process. Err: it is one too many; the
    /// log's word for the bound.
    pub fn begin(
        &mut self,
        net: NetToken,
        source: Source,
        settings: &Settings,
    ) -> Result<(), &'static str> {
        let (all, here) = (count(&self.sources, &source), count(&self.here, &(net, source)));
        let lost = count(&self.lost, &source);
        let stand = count(&self.resumable, &source).saturating_sub(lost).min(STANDING_MAX);
        let most = settings.max_sessions_per_source.saturating_add(lost).saturating_add(stand);
        if all >= most && (all > here || here >= most.saturating_mul(2)) {
            return Err("sessions_per_source");
        }
        if count(&self.nets, &net) >= settings.max_sessions.saturating_mul(2) {
            return Err("sessions");
        }
        *self.sources.entry(source).or_default() += 1;
        *self.nets.entry(net).or_default() += 1;
        *self.here.entry((net, source)).or_default() += 1;
        Ok(())
    }

    /// Counts one more stream that has facts of its own in this net process. False: it is one too
    /// many. (Net keeps to the half of that, and knows sooner when one has ended.)
    pub fn branch(&mut self, net: NetToken) -> bool {
        let n = self.branches.entry(net).or_default();
        let may = *n < DIALOGUES_MAX.saturating_mul(2);
        *n += u32::from(may);
        may
    }

    /// Such a stream has ended.
    pub fn branch_over(&mut self, net: NetToken) {
        one_less(&mut self.branches, net);
    }

    /// A session of this source outlives its connection; or one that did has ended.
    pub fn resumable(&mut self, source: Source, begins: bool) {
        match begins {
            true => *self.resumable.entry(source).or_default() += 1,
            false => one_less(&mut self.resumable, source),
        }
    }

    /// A session of this source is lost; or it is not lost any more.
    pub fn lost(&mut self, source: Source, lost: bool) {
        match lost {
            true => *self.lost.entry(source).or_default() += 1,
            false => one_less(&mut self.lost, source),
        }
    }

    /// A session that outlives its connection goes on from another source. No limit is checked: the
    /// session is there.
    pub fn moved(&mut self, net: NetToken, from: Source, to: Source) {
        *self.sources.entry(to).or_default() += 1;
        *self.here.entry((net, to)).or_default() += 1;
        *self.resumable.entry(to).or_default() += 1;
        one_less(&mut self.sources, from);
        one_less(&mut self.here, (net, from));
        one_less(&mut self.resumable, from);
    }

    /// A session has ended.
    pub fn end(&mut self, net: NetToken, source: Source) {
        one_less(&mut self.sources, source);
        one_less(&mut self.nets, net);
        one_less(&mut self.here, (net, source));
    }
}

/// How many are counted under this key.
pub fn count<K: Hash + Eq>(counts: &HashMap<K, u32>, key: &K) -> u32 {
    counts.get(key).copied().unwrap_or(0)
}

/// One of them is gone; a key without any is forgotten.
pub fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut n) = counts.entry(key) {
        match n.get().saturating_sub(1) {
            0 => drop(n.remove()),
            less => *n.get_mut() = less,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(number: usize) -> NetToken {
        mio::Token(number).into()
    }

    #[test]
    fn sessions_of_other_nets_count_and_a_lagging_count_refuses_nobody() {
        let settings =
            Settings { max_sessions: 4, max_sessions_per_source: 2, ..Settings::default() };
        let (mut s, of) = (SessionCounts::default(), |n: u8| Source::of([192, 0, 2, n].into()));
        // One net alone: it knows better.
        for _ in 0..3 {
            assert_eq!(s.begin(net(1), of(1), &settings), Ok(()));
        }
        s.end(net(1), of(1));
        assert_eq!(s.begin(net(2), of(1), &settings), Err("sessions_per_source"));
        s.end(net(1), of(1));
        assert_eq!(s.begin(net(2), of(1), &settings), Ok(()));
        assert_eq!(s.begin(net(2), of(1), &settings), Err("sessions_per_source"));
        s.end(net(1), of(1));
        // A net that has lost count is not believed for ever.
        let begun = (0..20).filter(|n| s.begin(net(2), of(10 + n), &settings).is_ok()).count();
        assert_eq!(begun, 7);
        (0..20).for_each(|n| s.end(net(2), of(10 + n)));
        assert_eq!((s.here.len(), s.sources.len()), (1, 1));
    }

    #[test]
    fn streams_of_a_net_are_bounded_in_all_its_sessions_together() {
        let mut s = SessionCounts::default();
        let most = (0..20_000).filter(|_| s.branch(net(1))).count() as u32;
        assert_eq!((most, s.branch(net(2))), (2 * DIALOGUES_MAX, true));
        s.branch_over(net(1));
        assert!(s.branch(net(1)) && !s.branch(net(1)));
        (0..most).for_each(|_| s.branch_over(net(1)));
        assert_eq!(s.branches.len(), 1);
    }
}
