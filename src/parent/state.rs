//! Who is here, what runs, since when, how much: for SIGUSR1's lines and the service `status`.

use super::lines;
use super::net::Stage;
use super::run::Parent;
use crate::sys::clock;
use std::fmt::Write;

/// Lines of the log that one SIGUSR1 may take; the service `status` has them all.
const LOG_LINES: usize = 400;

impl Parent {
    /// `key=value` lines: fived itself, its counters, sessions, and services.
    pub fn state(&mut self) -> String {
        self.services.settle_all(&mut self.cx);
        let mut out = String::new();
        let c = &self.cx.counters;
        let since = |t: std::time::Duration| clock::stamp(t, self.cx.now);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "fived={} pid={} config={}",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            word(&self.cx.config.path)
        );
        for (name, n) in [
            ("sessions", c.sessions),
            ("starts", c.starts),
            ("refused", c.refused),
            ("orders", c.orders),
            ("reloads", c.reloads),
            ("nets_replaced", c.replaced),
            ("bytes_in", c.bytes.0),
            ("bytes_out", c.bytes.1),
            ("services_now", self.services.running.len() as u64),
            ("timers_now", self.cx.timers() as u64),
            (
                "sessions_now",
                self.sessions.iter().filter(|(_, s)| s.parent.is_none()).count() as u64,
            ),
        ] {
            let _ = writeln!(out, "{name}={n}");
        }
        for net in self.nets.iter() {
            let stage = match net.stage {
                Stage::Starting => "starting",
                Stage::Serving => "serving",
                Stage::Draining | Stage::Leaving | Stage::Left => "draining",
                Stage::Killed => "killed",
            };
            let _ = writeln!(out, "net={} stage={stage}", net.child.pid);
        }
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|(token, s)| (s.number, **token));
        for (_, s) in sessions {
            let host = s.config.table.host(s.host).map_or("", |h| h.name.as_str());
            let (user, method) =
                s.user.as_ref().map_or(("", ""), |u| (u.login.name.as_str(), u.method));
            let tls = s.tls.as_ref().map_or("", |t| t.suite);
            let _ = writeln!(
                out,
                "session={} from={} user={} method={method} host={} tls={tls} since={} in={} out={}",
                s.number,
                s.peer.ip(),
                word(user),
                word(host),
                since(s.since),
                s.traffic.0,
                s.traffic.1
            );
        }
        let mut running: Vec<_> = self.services.running.iter().collect();
        running.sort_by_key(|(pid, r)| (r.started, *pid));
        for (pid, r) in running {
            let name = r.service().map_or("", |s| s.name.as_str());
            let user = r.record.user.as_deref().unwrap_or("");
            let _ = writeln!(
                out,
                "service={} host={} pid={pid} from={} session={} user={} since={}",
                word(name),
                word(&r.record.host),
                r.record.peer.ip(),
                r.record.number,
                word(user),
                since(r.started)
            );
        }
        let _ = writeln!(out, "penalties={}", self.logins.penalties(self.cx.now));
        out
    }

    /// SIGUSR1.
    pub fn tell_state(&mut self) {
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
