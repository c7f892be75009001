//! fived's state: its counters, its sessions and what runs, for SIGUSR1's lines and the service
//! `status`.

use super::arrival::Record;
use super::lines;
use super::net::State;
use super::offers::Offer;
use super::relays::Relay;
use super::run::Parent;
use super::running::Running;
use super::session::SessionRecord;
use crate::policy::Service;
use crate::sys::clock;
use std::fmt::Write;
use std::time::Duration;

/// Lines of the log that one SIGUSR1 may take; the service `status` has them all.
const LOG_LINES: usize = 400;

impl Parent {
    /// `key=value` lines: fived itself, its counters, sessions, and services.
    pub fn state(&mut self) -> String {
        self.services.settle_all(&mut self.cx);
        let mut out = self.counters();
        for net in self.nets.iter() {
            let stage = match net.state {
                State::Starting => "starting",
                State::Serving => "serving",
                State::Draining | State::Leaving | State::Left => "draining",
                State::Killed => "killed",
            };
            let _ = writeln!(out, "net={} stage={stage}", net.child.pid);
        }
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|(token, s)| (s.number, **token));
        sessions.into_iter().for_each(|(_, s)| out += &self.session_line(s));
        let mut running: Vec<_> = self.services.running.iter().collect();
        running.sort_by_key(|(pid, r)| (r.started, *pid));
        running.into_iter().for_each(|(pid, r)| out += &self.service_line(pid, r));
        let mut relays: Vec<_> = self.relays.iter().collect();
        relays.sort_by_key(|(number, r)| (r.started, *number));
        relays.into_iter().for_each(|(_, r)| out += &self.relay_line(r));
        self.offers.iter().for_each(|o| out += &self.offer_line(o));
        let _ = writeln!(out, "penalties={}", self.logins.penalties(self.cx.now));
        out
    }

    fn counters(&self) -> String {
        let (c, relayed) = (&self.cx.counters, self.nets.gauges());
        let mut out = format!(
            "fived={} pid={} config={}\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            word(&self.cx.config.origin.to_string())
        );
        let sessions = || self.sessions.iter().filter(|(_, s)| s.parent.is_none());
        for (name, n) in [
            ("sessions", c.sessions),
            ("starts", c.starts),
            ("refused", c.refused),
            ("orders", c.orders),
            ("reloads", c.reloads),
            ("nets_replaced", c.replaced),
            ("bytes_in", relayed.to),
            ("bytes_out", relayed.from),
            ("services_now", (self.services.running.len() + self.relays.len()) as u64),
            ("timers_now", self.cx.timers() as u64),
            ("sessions_now", sessions().count() as u64),
            ("sessions_lost_now", sessions().filter(|(_, s)| s.is_lost()).count() as u64),
        ] {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "{name}={n}");
        }
        out
    }

    fn session_line(&self, s: &SessionRecord) -> String {
        let host = s.config.table.host(s.host).map_or("", |h| h.name.as_str());
        let (user, method) =
            s.user.as_ref().map_or(("", ""), |u| (u.login.name.as_str(), u.method));
        let tls = s.tls.as_ref().map_or("", |t| t.suite);
        format!(
            "session={} from={} user={} method={method} host={} tls={tls} since={} in={} out={} state={}\n",
            s.number,
            s.addresses.peer(),
            word(user),
            word(host),
            clock::stamp(s.since, self.cx.now),
            s.traffic.0,
            s.traffic.1,
            if s.is_lost() { "lost" } else { "up" }
        )
    }

    fn service_line(&self, pid: i32, r: &Running) -> String {
        self.client_line(r.service(), &format!("pid={pid}"), &r.record, r.started)
    }

    fn relay_line(&self, r: &Relay) -> String {
        let to = format!("to={}", word(&r.to.to_string()));
        self.client_line(r.service(), &to, &r.record, r.started)
    }

    fn offer_line(&self, o: &Offer) -> String {
        format!(
            "offer={} host={} from={} session={} user={} since={}\n",
            word(o.config.table.service(o.service).map_or("", |s| s.name.as_str())),
            word(o.host()),
            o.from,
            o.number,
            word(&o.user.login.name),
            clock::stamp(o.since, self.cx.now)
        )
    }

    /// A service, what serves it, and for whom.
    fn client_line(
        &self,
        service: Option<&Service>,
        by: &str,
        record: &Record,
        started: Duration,
    ) -> String {
        format!(
            "service={} host={} {by} from={} session={} user={} since={}\n",
            word(service.map_or("", |s| s.name.as_str())),
            word(&record.host),
            record.peer,
            record.number,
            word(record.user.as_deref().unwrap_or("")),
            clock::stamp(started, self.cx.now)
        )
    }

    /// SIGUSR1: the state, to the log.
    pub fn log_state(&mut self) {
        let state = self.state();
        for line in state.lines().take(LOG_LINES) {
            lines::state(line);
        }
        if let more @ 1.. = state.lines().count().saturating_sub(LOG_LINES) {
            lines::state(&format!("and {more} lines more"));
        }
    }
}

/// A value as one word, as the log escapes it.
fn word(value: &str) -> String {
    let mut out = String::new();
    for b in value.bytes() {
        match b {
            b'\\' => out.push_str("\\\\"),
            b'!'..=b'~' => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
    out
}
