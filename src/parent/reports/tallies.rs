//! Counts for the service `metrics`, beyond those that `status` prints. Each has a bound: its
//! names are those of the table and words of fived's own, never a client's. Counting asks the
//! system for nothing.

use crate::policy::Table;
use crate::sys::clock;
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// Upper bounds of the histogram of start times, in microseconds, and as they are printed in
/// seconds.
pub const BOUNDS: [(u128, &str); 9] = [
    (500, "0.0005"),
    (1000, "0.001"),
    (2500, "0.0025"),
    (5000, "0.005"),
    (10_000, "0.01"),
    (50_000, "0.05"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (5_000_000, "5"),
];

/// Of one service of one host.
#[derive(Debug, Default)]
pub struct OfService {
    pub starts: u64,
    pub refusals: BTreeMap<&'static str, u64>,
    /// How many run.
    now: Rc<Cell<u64>>,
}

impl OfService {
    /// How many run.
    pub fn now(&self) -> u64 {
        self.now.get()
    }
}

/// One that runs is counted for as long as this exists.
#[derive(Debug)]
pub struct Counted(Rc<Cell<u64>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The name of a service, and that of its host: the place of a row of counts among the others.
pub type Place = (String, String);

/// See the module.
#[derive(Debug)]
pub struct Tallies {
    /// By service and host.
    services: BTreeMap<String, BTreeMap<String, OfService>>,
    /// Refusals that were of no service of the table, by reason.
    pub nameless: BTreeMap<&'static str, u64>,
    /// Starts that took no longer than each bound, and longer than the one before.
    pub took: [u64; BOUNDS.len()],
    pub took_count: u64,
    pub took_sum: Duration,
    pub since: SystemTime,
    /// When the configuration was read last, and whether it was good.
    pub reloaded: (SystemTime, bool),
}

impl Default for Tallies {
    fn default() -> Tallies {
        let now = clock::wall();
        Tallies {
            services: BTreeMap::new(),
            nameless: BTreeMap::new(),
            took: [0; BOUNDS.len()],
            took_count: 0,
            took_sum: Duration::ZERO,
            since: now,
            reloaded: (now, true),
        }
    }
}

impl Tallies {
    /// One more has started. It counts as one that runs until what is returned is dropped.
    pub fn started(&mut self, service: &str, host: &str) -> Counted {
        let of = self.of(service, host);
        of.starts += 1;
        of.now.set(of.now.get().saturating_add(1));
        Counted(of.now.clone())
    }

    pub fn refused(&mut self, service: Option<(&str, &str)>, reason: &'static str) {
        let counts = match service {
            Some((service, host)) => &mut self.of(service, host).refusals,
            None => &mut self.nameless,
        };
        *counts.entry(reason).or_default() += 1;
    }

    /// So many were refused, as a net process says, and nobody knows for which services.
    pub fn not_logged(&mut self, refusals: u64) {
        if refusals > 0 {
            let n = self.nameless.entry("not-logged").or_default();
            *n = n.saturating_add(refusals);
        }
    }

    /// A start took this long.
    pub fn took(&mut self, time: Duration) {
        self.took_count += 1;
        self.took_sum += time;
        if let Some(i) = BOUNDS.iter().position(|(most, _)| time.as_micros() <= *most) {
            self.took[i] += 1;
        }
    }

    pub fn reloaded(&mut self, good: bool) {
        self.reloaded = (clock::wall(), good);
    }

    /// There is a new table: the counts of names that it does not have are forgotten, unless
    /// something of such a name still runs.
    pub fn keep(&mut self, table: &Table) {
        let services: HashSet<&str> = table.services().iter().map(|s| s.name.as_str()).collect();
        let hosts: HashSet<&str> = table.hosts().iter().map(|h| h.name.as_str()).collect();
        self.services.retain(|service, of_hosts| {
            let known = services.contains(service.as_str());
            of_hosts.retain(|host, of| known && hosts.contains(host.as_str()) || of.now() > 0);
            !of_hosts.is_empty()
        });
    }

    /// The service's name, the host's, and their counts: those that come after `last`, in order.
    pub fn services_after(
        &self,
        last: Option<&Place>,
    ) -> impl Iterator<Item = (&str, &str, &OfService)> {
        let from = last.map_or(Bound::Unbounded, |(s, _)| Bound::Included(s.as_str()));
        self.services.range::<str, _>((from, Bound::Unbounded)).flat_map(move |(s, hosts)| {
            let of_last = last.filter(|(service, _)| service == s);
            let from = of_last.map_or(Bound::Unbounded, |(_, host)| Bound::Excluded(host.as_str()));
            let rest = hosts.range::<str, _>((from, Bound::Unbounded));
            rest.map(move |(h, of)| (s.as_str(), h.as_str(), of))
        })
    }

    fn of(&mut self, service: &str, host: &str) -> &mut OfService {
        let hosts = self.services.entry(service.into()).or_default();
        hosts.entry(host.into()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Files, Grammar, Origin, load};

    /// A configuration without rows.
    struct Empty;

    impl Files for Empty {
        fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
            Ok(Vec::new())
        }

        fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn rows_go_on_after_any_of_them_whatever_has_come_or_gone() {
        let mut t = Tallies::default();
        let running: Vec<_> = [("a", "x"), ("a", "y"), ("b", ""), ("c", "z")]
            .map(|(service, host)| t.started(service, host))
            .into();
        let all = |t: &Tallies, last: Option<(&str, &str)>| {
            let last = last.map(|(s, h)| (s.to_string(), h.to_string()));
            let rows = t.services_after(last.as_ref());
            rows.map(|(s, h, of)| format!("{s}{h}{}", of.now())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(all(&t, None), "ax1 ay1 b1 cz1");
        assert_eq!(all(&t, Some(("a", "x"))), "ay1 b1 cz1");
        assert_eq!(all(&t, Some(("a", "z"))), "b1 cz1");
        assert_eq!(all(&t, Some(("aa", ""))), "b1 cz1");
        assert_eq!(all(&t, Some(("c", "z"))), "");
        drop(running);
        let _runs = t.started("b", "");
        t.keep(&load(&Origin::new(Grammar::Fived, "c"), &mut Empty).0);
        assert_eq!(all(&t, None), "b1", "what runs is told, whatever the table has");
    }
}
