//! Counts for the service `metrics`, beyond those that `status` prints. Each has a bound: its
//! names are those of the table and words of fived's own, never a client's. Counting asks the
//! system for nothing.

use crate::policy::Table;
use crate::sys::clock;
use std::collections::{BTreeMap, HashSet};
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
}

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
    pub fn started(&mut self, service: &str, host: &str) {
        self.of(service, host).starts += 1;
    }

    pub fn refused(&mut self, service: Option<(&str, &str)>, reason: &'static str) {
        let counts = match service {
            Some((service, host)) => &mut self.of(service, host).refusals,
            None => &mut self.nameless,
        };
        *counts.entry(reason).or_default() += 1;
    }

    /// A start took so long.
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

    /// There is a new table: the counts of names that it does not have are forgotten.
    pub fn keep(&mut self, table: &Table) {
        let services: HashSet<&str> = table.services().iter().map(|s| s.name.as_str()).collect();
        let hosts: HashSet<&str> = table.hosts().iter().map(|h| h.name.as_str()).collect();
        self.services.retain(|name, _| services.contains(name.as_str()));
        for of in self.services.values_mut() {
            of.retain(|name, _| hosts.contains(name.as_str()));
        }
    }

    /// The service's name, the host's, and their counts.
    pub fn services(&self) -> impl Iterator<Item = (&str, &str, &OfService)> {
        self.services
            .iter()
            .flat_map(|(s, hosts)| hosts.iter().map(move |(h, of)| (s.as_str(), h.as_str(), of)))
    }

    fn of(&mut self, service: &str, host: &str) -> &mut OfService {
        let hosts = self.services.entry(service.into()).or_default();
        hosts.entry(host.into()).or_default()
    }
}
