//! What the service `metrics` prints: fived's counts, and what there is now.

use super::tallies::{BOUNDS, Place};
use crate::parent::reports::{Kinds, Metric, MetricsPart as Part, ROWS};
use crate::parent::run::Parent;
use crate::sys::{process, processes};
use crate::wire::exposition::{Exposition, Kind};
use std::collections::BTreeMap;
use std::time::SystemTime;

impl Metric {
    fn begin(self, e: &mut Exposition) {
        match self {
            Metric::Starts => e.begin("fived_starts_total", Kind::Counter, "Services started."),
            Metric::Refusals => {
                let help = "Requests refused; service is empty for an unknown name.";
                e.begin("fived_refusals_total", Kind::Counter, help);
            }
            Metric::Now => {
                let help = "Services that are running, relayed ones included.";
                e.begin("fived_services_running", Kind::Gauge, help);
            }
        }
    }

    fn next(self) -> Part {
        match self {
            Metric::Starts => Part::Services(Metric::Refusals, None),
            Metric::Refusals => Part::Services(Metric::Now, None),
            Metric::Now => Part::Starts,
        }
    }
}

impl Parent {
    /// A part of the text. Returns the part that follows.
    pub fn metrics(&mut self, part: Part, out: &mut String) -> Option<Part> {
        let mut e = Exposition::default();
        let next = match part {
            Part::Counts => {
                self.counts(&mut e);
                Some(Part::Services(Metric::Starts, None))
            }
            Part::Services(metric, last) => Some(self.of_services(&mut e, metric, last)),
            Part::Starts => {
                self.start_times(&mut e);
                Some(Part::Sessions(self.count_sessions()))
            }
            Part::Sessions(count) => {
                Some(self.count(count).map_or_else(Part::Sessions, Part::Rest))
            }
            Part::Rest(kinds) => {
                self.sessions_now(&mut e, &kinds);
                self.descriptors_now(&mut e);
                self.build(&mut e);
                None
            }
        };
        *out += &e.finish();
        next
    }

    fn build(&self, e: &mut Exposition) {
        let (name, version) = ("fived_build_info", env!("CARGO_PKG_VERSION"));
        e.begin(name, Kind::Gauge, "The version of fived.");
        e.sample(name, &[("version", version)], 1);
        let t = &self.cx.counters.tallies;
        for (name, help, value) in [
            ("fived_start_time_seconds", "When fived started.", seconds(t.since)),
            (
                "fived_last_reload_time_seconds",
                "When a configuration was read last.",
                seconds(t.reloaded.0),
            ),
            (
                "fived_last_reload_good",
                "1 if that configuration is served, 0 if it was refused.",
                u64::from(t.reloaded.1),
            ),
        ] {
            e.single(name, Kind::Gauge, help, value);
        }
    }

    fn counts(&self, e: &mut Exposition) {
        let (c, now) = (&self.cx.counters, self.nets.gauges());
        let name = "fived_requests_total";
        e.begin(name, Kind::Counter, "Requests for services, by outcome.");
        for (outcome, n) in [("started", c.starts), ("refused", c.refused)] {
            e.sample(name, &[("outcome", outcome)], n);
        }
        let name = "fived_relayed_bytes_total";
        e.begin(name, Kind::Counter, "Bytes relayed to services (in) and from them (out).");
        for (direction, n) in [("in", now.to), ("out", now.from)] {
            e.sample(name, &[("direction", direction)], n);
        }
        let (name, help) =
            ("fived_empty_connections_total", "Connections that ended without a request.");
        e.single(name, Kind::Counter, help, now.empty);
        let name = "fived_logins_total";
        e.begin(name, Kind::Counter, "Login attempts.");
        for ((method, result), n) in self.logins.results() {
            e.sample(name, &[("method", method), ("result", result)], n);
        }
        let name = "fived_penalties_total";
        e.begin(name, Kind::Counter, "Penalties for failed logins, and for asking for a sensor.");
        let given = [("login", self.logins.penalties_given()), ("sensor", self.sensors.given())];
        for (reason, n) in given {
            e.sample(name, &[("reason", reason)], n);
        }
    }

    /// Some rows of services, those after `last`.
    fn of_services(&self, e: &mut Exposition, metric: Metric, last: Option<Place>) -> Part {
        let t = &self.cx.counters.tallies;
        if last.is_none() {
            metric.begin(e);
            if metric == Metric::Refusals {
                refusals(e, ("", ""), &t.nameless);
            }
        }
        let mut now = None;
        for (service, host, of) in t.services_after(last.as_ref()).take(ROWS) {
            let labels = [("service", service), ("host", host)];
            match metric {
                Metric::Starts => e.sample("fived_starts_total", &labels, of.starts),
                Metric::Refusals => refusals(e, (service, host), &of.refusals),
                Metric::Now => e.sample("fived_services_running", &labels, of.now()),
            }
            now = Some((service, host));
        }
        match now {
            Some((service, host)) => Part::Services(metric, Some((service.into(), host.into()))),
            None => metric.next(),
        }
    }

    fn start_times(&self, e: &mut Exposition) {
        let t = &self.cx.counters.tallies;
        e.begin(
            "fived_start_seconds",
            Kind::Histogram,
            "Seconds from the decision until the program runs.",
        );
        let mut sum = 0;
        for ((_, most), n) in BOUNDS.iter().zip(t.took) {
            sum += n;
            e.sample("fived_start_seconds_bucket", &[("le", most)], sum);
        }
        e.sample("fived_start_seconds_bucket", &[("le", "+Inf")], t.took_count);
        e.sample("fived_start_seconds_sum", &[], t.took_sum.as_secs_f64());
        e.sample("fived_start_seconds_count", &[], t.took_count);
    }

    fn sessions_now(&self, e: &mut Exposition, kinds: &Kinds) {
        let (name, now) = ("fived_sessions", self.nets.gauges());
        e.begin(name, Kind::Gauge, "Sessions, by kind; one may be of several.");
        for (kind, n) in
            [("plain", kinds.plain), ("encrypted", kinds.encrypted), ("lost", kinds.lost)]
        {
            e.sample(name, &[("kind", kind)], n);
        }
        e.sample(name, &[("kind", "multiplexed")], now.multiplexed);
        let (name, help) = ("fived_waiting_clients", "Clients whose request has not arrived yet.");
        e.single(name, Kind::Gauge, help, now.waiting);
    }

    fn descriptors_now(&self, e: &mut Exposition) {
        let own = processes::descriptors(None).unwrap_or_default();
        let name = "fived_descriptors";
        e.begin(name, Kind::Gauge, "Descriptors that are open, by process.");
        for (role, n) in [("parent", own), ("net", self.nets.descriptors())] {
            e.sample(name, &[("process", role)], n);
        }
        let (name, help) = ("fived_descriptors_max", "Descriptors that each process may open.");
        e.single(name, Kind::Gauge, help, process::nofile());
    }
}

/// Refusals of one service of one host, by reason.
fn refusals(e: &mut Exposition, (service, host): (&str, &str), all: &BTreeMap<&str, u64>) {
    for (reason, n) in all {
        let labels = [("service", service), ("host", host), ("reason", reason)];
        e.sample("fived_refusals_total", &labels, n);
    }
}

/// Seconds since 1970.
fn seconds(t: SystemTime) -> u64 {
    t.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
