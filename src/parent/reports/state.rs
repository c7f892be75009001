//! fived's state: its counters, its sessions and what runs, for SIGUSR1's lines and the service
//! `status`.

use crate::log::word;
use crate::parent::arrival::Record;
use crate::parent::nets::net::State;
use crate::parent::offers::offer::Offer;
use crate::parent::relays::Relay;
use crate::parent::reports::{Count, Kinds, StatePart as Part, rows};
use crate::parent::run::Parent;
use crate::parent::services::running::Running;
use crate::parent::sessions::session::SessionRecord;
use crate::policy::Service;
use crate::sys::clock;
use std::fmt::Write;
use std::time::Duration;
use std::vec::IntoIter;

impl Parent {
    /// A part of `key=value` lines: fived itself, its counters, sessions, and services. Returns the
    /// part that follows.
    pub fn state(&mut self, part: Part, out: &mut String) -> Option<Part> {
        Some(match part {
            Part::Begin => {
                // What was answered with `+Go` is told.
                self.services.settle_all(&mut self.cx);
                Part::Counters(self.count_sessions())
            }
            Part::Counters(count) => match self.count(count) {
                Err(count) => Part::Counters(count),
                Ok(kinds) => {
                    self.counters(&kinds, out);
                    self.net_lines(out);
                    let all = self.sessions.iter().map(|(token, s)| (s.number, *token));
                    Part::Sessions(sorted(all))
                }
            },
            Part::Sessions(all) => {
                let each =
                    |token| out.extend(self.sessions.get(token).map(|s| self.session_line(s)));
                let all_services =
                    || sorted(self.services.running.iter().map(|(pid, r)| (r.started, pid)));
                rows(all, each).map_or_else(|| Part::Services(all_services()), Part::Sessions)
            }
            Part::Services(all) => {
                let running = &self.services.running;
                let each = |pid| out.extend(running.get(pid).map(|r| self.service_line(pid, r)));
                let relays = || sorted(self.relays.iter().map(|(n, r)| (r.started, n)));
                rows(all, each).map_or_else(|| Part::Relays(relays()), Part::Services)
            }
            Part::Relays(all) => {
                let each = |n| out.extend(self.relays.get(n).map(|r| self.relay_line(r)));
                let offers = || self.offers.numbers().collect::<Vec<_>>().into_iter();
                rows(all, each).map_or_else(|| Part::Offers(offers()), Part::Relays)
            }
            Part::Offers(all) => {
                let each = |n| out.extend(self.offers.get(n).map(|o| self.offer_line(o)));
                rows(all, each).map_or(Part::Penalties, Part::Offers)
            }
            Part::Penalties => {
                // Writing to a string cannot fail, here and below.
                let _ = writeln!(out, "penalties={}", self.logins.penalties(self.cx.now));
                return None;
            }
        })
    }

    /// The sessions, to be counted.
    pub fn count_sessions(&self) -> Count {
        let all: Vec<_> = self.sessions.iter().map(|(token, _)| *token).collect();
        Count { rest: all.into_iter(), kinds: Kinds::default() }
    }

    /// Counts some more of them. Ok: it has counted all.
    pub fn count(&self, count: Count) -> Result<Kinds, Count> {
        let Count { rest, mut kinds } = count;
        let each = |token| {
            let Some(s) = self.sessions.get(token).filter(|s| s.parent.is_none()) else { return };
            kinds.lost += usize::from(s.is_lost());
            let of = if s.tls.is_some() { &mut kinds.encrypted } else { &mut kinds.plain };
            *of += 1;
        };
        match rows(rest, each) {
            Some(rest) => Err(Count { rest, kinds }),
            None => Ok(kinds),
        }
    }

    fn net_lines(&self, out: &mut String) {
        for net in self.nets.iter() {
            let stage = match net.state {
                State::Starting => "starting",
                State::Serving => "serving",
                State::Draining | State::Finished | State::Released => "draining",
                State::Killed => "killed",
            };
            let _ = writeln!(out, "net={} stage={stage}", net.child.pid);
        }
    }

    fn counters(&self, sessions: &Kinds, out: &mut String) {
        let (c, relayed) = (&self.cx.counters, self.nets.gauges());
        let _ = writeln!(
            out,
            "fived={} pid={} config={}",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            word(&self.cx.config.origin.to_string())
        );
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
            ("sessions_now", (sessions.plain + sessions.encrypted) as u64),
            ("sessions_lost_now", sessions.lost as u64),
        ] {
            let _ = writeln!(out, "{name}={n}");
        }
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
}

/// In this order. It takes some 0.3 ms for 10,000 of them.
fn sorted<K: Ord, T: Ord>(all: impl Iterator<Item = (K, T)>) -> IntoIter<T> {
    let mut all: Vec<(K, T)> = all.collect();
    all.sort_unstable();
    all.into_iter().map(|(_, row)| row).collect::<Vec<T>>().into_iter()
}
