//! Sources that are barred, and how long they must wait: those whose logins failed, and those that
//! touched a sensor (`sensors`).
//!
//! Each failed login adds [`STEP`] to the penalty of its source, up to [`PENALTY_MAX`] from now. A
//! penalty is in force at once, for every session of the source except the one that failed, which
//! may use up its tries. It bars only AUTH and PUBKEY. The table is bounded: a new source replaces
//! the one whose penalty would end soonest.

use crate::policy::{Peer, Source};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// What one failure adds.
const STEP: Duration = Duration::from_secs(5);
/// The longest penalty.
const PENALTY_MAX: Duration = Duration::from_secs(600);
/// Sources with a penalty at most.
pub const SOURCES_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct Penalties {
    until: HashMap<Source, Duration>,
    by_end: BTreeSet<(Duration, Source)>,
    /// How many penalties there have been.
    pub given: u64,
}

impl Penalties {
    /// How long this client is barred from now on. None: it is not barred.
    pub fn left(&self, peer: Peer, now: Duration) -> Option<Duration> {
        self.until
            .get(&Source::of(peer))
            .and_then(|end| end.checked_sub(now))
            .filter(|left| !left.is_zero())
    }

    /// Adds the penalty of this many failed tries. Returns how long this client is barred from now
    /// on.
    pub fn add(&mut self, peer: Peer, failures: u32, now: Duration) -> Duration {
        let old = self.left(peer, now).unwrap_or_default();
        self.bar(peer, (old + STEP * failures.min(1000)).min(PENALTY_MAX), now)
    }

    /// Bars this client for that long, or longer if it is barred for longer already. Returns how
    /// long it is barred from now on.
    pub fn bar(&mut self, peer: Peer, time: Duration, now: Duration) -> Duration {
        self.given += 1;
        self.forget(now);
        let source = Source::of(peer);
        let old = self.until.remove(&source);
        if let Some(end) = old {
            self.by_end.remove(&(end, source));
        }
        let end = old.unwrap_or(now).max(now + time);
        while self.by_end.len() >= SOURCES_MAX {
            if let Some((_, soonest)) = self.by_end.pop_first() {
                self.until.remove(&soonest);
            }
        }
        self.until.insert(source, end);
        self.by_end.insert((end, source));
        end - now
    }

    /// How many sources are barred.
    pub fn count(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.until.len()
    }

    fn forget(&mut self, now: Duration) {
        while let Some(&(end, source)) = self.by_end.first().filter(|(end, _)| *end <= now) {
            self.by_end.remove(&(end, source));
            self.until.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Penalties {
        fn lasts(&self, peer: Peer, now: Duration) -> bool {
            self.left(peer, now).is_some()
        }
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn failures_add_up_and_time_pays() {
        let (mut p, a) = (Penalties::default(), "192.0.2.1".parse().expect("address"));
        assert!(!p.lasts(a, S(0)));
        assert_eq!(p.add(a, 2, S(100)), S(10));
        assert_eq!(p.add(a, 1, S(104)), S(11));
        assert!(p.lasts(a, S(114)) && !p.lasts(a, S(115)));
        assert_eq!(p.add(a, 9999, S(200)), PENALTY_MAX);
        assert_eq!(p.count(S(800)), 0);
    }

    #[test]
    fn a_shorter_one_ends_no_longer_one() {
        let (mut p, a) = (Penalties::default(), "192.0.2.1".parse().expect("address"));
        assert_eq!(p.bar(a, S(100), S(0)), S(100));
        assert_eq!(p.bar(a, S(5), S(10)), S(90));
        assert!(p.lasts(a, S(99)) && !p.lasts(a, S(100)));
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let (mut p, a) = (Penalties::default(), |s: &str| s.parse().expect("address"));
        p.add(a("2001:db8::1"), 1, S(0));
        assert!(p.lasts(a("2001:db8::ffff"), S(1)) && !p.lasts(a("2001:db8:0:1::1"), S(1)));
        p.add(a("::ffff:192.0.2.1"), 1, S(0));
        assert!(p.lasts(a("192.0.2.1"), S(1)) && !p.lasts(a("192.0.2.2"), S(1)));
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut p = Penalties::default();
        let one: Peer = "192.0.2.1".parse().expect("address");
        p.add(one, 100, S(0));
        for i in 0..SOURCES_MAX as u32 + 10 {
            p.add(std::net::IpAddr::from((0x0a00_0000 + i).to_be_bytes()).into(), 1, S(0));
        }
        assert_eq!(p.count(S(0)), SOURCES_MAX);
        assert!(p.lasts(one, S(1)));
    }
}
