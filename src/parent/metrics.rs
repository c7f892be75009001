//! What the service `metrics` prints: fived's counts, and what there is now.

use super::run::Parent;
use super::tallies::BOUNDS;
use crate::policy::{Backend, Internal, Service};
use crate::sys::gauges::Now;
use crate::sys::process;
use crate::wire::exposition::{Exposition, Kind};
use std::collections::HashMap;
use std::time::SystemTime;

impl Parent {
    /// What this service prints of fived's state, if it is one that does.
    pub fn state_report(&mut self, service: &Service) -> Option<String> {
        match service.backend {
            Backend::Internal(Internal::Status) => Some(self.state()),
            Backend::Internal(Internal::Metrics) => Some(self.metrics()),
            _ => None,
        }
    }

    fn metrics(&mut self) -> String {
        let mut e = Exposition::default();
        let now = self.nets.gauges();
        self.counts(&mut e, &now);
        self.of_services(&mut e);
        self.start_times(&mut e);
        self.sessions_now(&mut e, &now);
        self.descriptors_now(&mut e);
        let (name, version) = ("fived_build_info", env!("CARGO_PKG_VERSION"));
        e.begin(name, Kind::Gauge, "Which fived this is.");
        e.sample(name, &[("version", version)], 1);
        let t = &self.cx.counters.tallies;
        for (name, help, value) in [
            ("fived_start_time_seconds", "When fived started.", seconds(t.since)),
            (
                "fived_last_reload_time_seconds",
                "When the configuration was read last.",
                seconds(t.reloaded.0),
            ),
            (
                "fived_last_reload_good",
                "Whether that configuration was good and is served.",
                u64::from(t.reloaded.1),
            ),
        ] {
            e.single(name, Kind::Gauge, help, value);
        }
        e.finish()
    }

    fn counts(&self, e: &mut Exposition, now: &Now) {
        let c = &self.cx.counters;
        let name = "fived_requests_total";
        e.begin(name, Kind::Counter, "Requests for services, by what became of them.");
        for (outcome, n) in [("started", c.starts), ("refused", c.refused)] {
            e.sample(name, &[("outcome", outcome)], n);
        }
        let name = "fived_relayed_bytes_total";
        e.begin(name, Kind::Counter, "Bytes relayed until now, to services and from them.");
        for (direction, n) in [("in", now.to), ("out", now.from)] {
            e.sample(name, &[("direction", direction)], n);
        }
        let name = "fived_logins_total";
        e.begin(name, Kind::Counter, "Tries to log in.");
        for ((method, result), n) in self.logins.results() {
            e.sample(name, &[("method", method), ("result", result)], n);
        }
        let (name, help) = ("fived_penalties_total", "Penalties for failed logins.");
        e.single(name, Kind::Counter, help, self.logins.penalties_given());
    }

    fn of_services(&self, e: &mut Exposition) {
        let t = &self.cx.counters.tallies;
        let name = "fived_starts_total";
        e.begin(name, Kind::Counter, "Services started.");
        for (service, host, of) in t.services() {
            e.sample(name, &[("service", service), ("host", host)], of.starts);
        }
        let name = "fived_refusals_total";
        e.begin(name, Kind::Counter, "Requests refused; no service: the table has none of it.");
        let nameless = t.nameless.iter().map(|(reason, n)| ("", "", reason, n));
        let named = t
            .services()
            .flat_map(|(s, h, of)| of.refusals.iter().map(move |(reason, n)| (s, h, reason, n)));
        for (service, host, reason, n) in nameless.chain(named) {
            e.sample(name, &[("service", service), ("host", host), ("reason", reason)], n);
        }
        let mut now: HashMap<(&str, &str), u64> = HashMap::new();
        let running = self.services.running.iter().map(|(_, r)| (r.service(), &r.record));
        let relays = self.relays.iter().map(|(_, r)| (r.service(), &r.record));
        for (service, record) in running.chain(relays) {
            let Some(service) = service else { continue };
            *now.entry((&service.name, &record.host)).or_default() += 1;
        }
        let name = "fived_services_running";
        e.begin(name, Kind::Gauge, "Services that run, relays among them.");
        for (service, host, _) in t.services() {
            let n = now.remove(&(service, host)).unwrap_or_default();
            e.sample(name, &[("service", service), ("host", host)], n);
        }
        // Those of names that a reload has taken from the table.
        for ((service, host), n) in now {
            e.sample(name, &[("service", service), ("host", host)], n);
        }
    }

    fn start_times(&self, e: &mut Exposition) {
        let t = &self.cx.counters.tallies;
        e.begin("fived_start_seconds", Kind::Histogram, "From the decision on a request to exec.");
        let mut sum = 0;
        for ((_, most), n) in BOUNDS.iter().zip(t.took) {
            sum += n;
            e.sample("fived_start_seconds_bucket", &[("le", most)], sum);
        }
        e.sample("fived_start_seconds_bucket", &[("le", "+Inf")], t.took_count);
        e.sample("fived_start_seconds_sum", &[], t.took_sum.as_secs_f64());
        e.sample("fived_start_seconds_count", &[], t.took_count);
    }

    fn sessions_now(&self, e: &mut Exposition, now: &Now) {
        let roots = || self.sessions.iter().map(|(_, s)| s).filter(|s| s.parent.is_none());
        let name = "fived_sessions";
        e.begin(name, Kind::Gauge, "Sessions, by kind; one may be of several.");
        for (kind, n) in [
            ("plain", roots().filter(|s| s.tls.is_none()).count()),
            ("encrypted", roots().filter(|s| s.tls.is_some()).count()),
            ("lost", roots().filter(|s| s.is_lost()).count()),
        ] {
            e.sample(name, &[("kind", kind)], n);
        }
        e.sample(name, &[("kind", "multiplexed")], now.multiplexed);
        let (name, help) = ("fived_waiting_clients", "Clients that have not said what they want.");
        e.single(name, Kind::Gauge, help, now.waiting);
    }

    fn descriptors_now(&self, e: &mut Exposition) {
        let own = process::descriptors(None).unwrap_or_default();
        let name = "fived_descriptors";
        e.begin(name, Kind::Gauge, "Descriptors that fived's processes have.");
        for (role, n) in [("parent", own), ("net", self.nets.descriptors())] {
            e.sample(name, &[("process", role)], n);
        }
        let (name, help) = ("fived_descriptors_max", "Descriptors that each process may have.");
        e.single(name, Kind::Gauge, help, process::nofile());
    }
}

/// Seconds since 1970.
fn seconds(t: SystemTime) -> u64 {
    t.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
