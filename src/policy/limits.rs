//! How many at a time, how many a second: what runs is counted by host, name and family, so that a reload loses nothing.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits. At most [`SOURCES`] sources a service are counted; one more is
//! refused as busy.

use super::facts::{Denied, Facts};
use super::rows::Service;
use super::table::{HostScope, ServiceId, Table};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Sources of one service that are counted at once, at most.
pub const SOURCES: usize = 65_536;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Instances,
    PerSource,
    Cps,
    MaxLoad,
}

impl Busy {
    pub fn as_str(self) -> &'static str {
        match self {
            Busy::Instances => "instances",
            Busy::PerSource => "per_source",
            Busy::Cps => "cps",
            Busy::MaxLoad => "max_load",
        }
    }
}

/// Why a service is not to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Denied(Denied),
    Busy(Busy),
}

/// Leave to start one service once. Only [`Limits::permit`] makes it; it cannot be copied.
#[derive(Debug)]
pub struct Permit {
    service: ServiceId,
    ticket: Ticket,
}

impl Permit {
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// What must be given back when the service has ended, or was not started after all.
    pub fn into_ticket(self) -> Ticket {
        self.ticket
    }
}

/// A place among those that run.
#[derive(Debug)]
pub struct Ticket {
    key: Arc<str>,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(peer: IpAddr) -> Source {
        match peer.to_canonical() {
            IpAddr::V6(a) => Source(Ipv6Addr::from_bits(a.to_bits() & !u128::from(u64::MAX)).into()),
            v4 => Source(v4),
        }
    }
}

/// A count within a span of time.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Duration,
    count: u32,
}

impl Window {
    /// Counts one more, if that is no more than `most` within the span.
    fn take(&mut self, now: Duration, span: Duration, most: u32) -> bool {
        if now.saturating_sub(self.since) >= span {
            *self = Window { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

#[derive(Debug, Default)]
struct OfSource {
    running: u32,
    minute: Window,
}

#[derive(Debug, Default)]
struct State {
    running: u32,
    second: Window,
    minute: Window,
    shut_until: Duration,
    sources: HashMap<Source, OfSource>,
}

#[derive(Debug, Default)]
pub struct Limits(HashMap<Arc<str>, State>);

impl Limits {
    pub fn new() -> Limits {
        Limits::default()
    }

    /// Decides: may it be used, and is there room? `now` is monotonic; `load` is asked only where it matters.
    pub fn permit(&mut self, table: &Table, id: ServiceId, facts: &Facts, now: Duration, load: impl FnOnce() -> f64) -> Result<Permit, Refusal> {
        table.usable(id, facts).map_err(Refusal::Denied)?;
        let service = table.service(id).ok_or(Refusal::Denied(Denied::Unknown))?;
        let key = key(table, service);
        let key = match self.0.get_key_value(&*key) {
            Some((k, _)) => k.clone(),
            None => {
                let k: Arc<str> = key.into();
                self.0.insert(k.clone(), State::default());
                k
            }
        };
        let source = Source::of(facts.peer);
        let state = self.0.get_mut(&key).expect("it was there, or has just been put there");
        state.admit(service, source, now, load).map_err(Refusal::Busy)?;
        Ok(Permit { service: id, ticket: Ticket { key, source } })
    }

    /// A service has ended.
    pub fn release(&mut self, ticket: Ticket) {
        let Some(state) = self.0.get_mut(&ticket.key) else { return };
        state.running = state.running.saturating_sub(1);
        if let Some(s) = state.sources.get_mut(&ticket.source) {
            s.running = s.running.saturating_sub(1);
            if s.running == 0 && s.minute.count == 0 {
                state.sources.remove(&ticket.source);
            }
        }
    }

    /// How many of a service run.
    pub fn running(&self, table: &Table, id: ServiceId) -> u32 {
        table.service(id).and_then(|s| self.0.get(&*key(table, s))).map_or(0, |s| s.running)
    }

    /// Forgets what no longer matters; to be called now and then.
    pub fn tidy(&mut self, now: Duration) {
        for state in self.0.values_mut() {
            state.sources.retain(|_, s| s.running > 0 || now.saturating_sub(s.minute.since) < MINUTE);
            if state.sources.is_empty() {
                state.sources.shrink_to_fit();
            }
        }
        self.0.retain(|_, s| s.running > 0 || !s.sources.is_empty() || s.shut_until > now || now.saturating_sub(s.minute.since) < MINUTE);
    }
}

impl State {
    fn admit(&mut self, s: &Service, source: Source, now: Duration, load: impl FnOnce() -> f64) -> Result<(), Busy> {
        let a = &*s.attributes;
        if a.instances.is_some_and(|most| self.running >= most) {
            return Err(Busy::Instances);
        }
        let full = self.sources.len() >= SOURCES && !self.sources.contains_key(&source);
        let of = self.sources.get(&source).map_or(0, |s| s.running);
        if full || a.per_source.is_some_and(|most| of >= most) {
            return Err(Busy::PerSource);
        }
        if a.max_load.is_some_and(|most| load() > most) {
            return Err(Busy::MaxLoad);
        }
        if let Some((rate, seconds)) = a.cps {
            if self.shut_until > now {
                return Err(Busy::Cps);
            }
            if !self.second.take(now, SECOND, rate) {
                self.shut_until = now + Duration::from_secs(seconds.into());
                return Err(Busy::Cps);
            }
        }
        if s.per_minute.is_some_and(|most| !self.minute.take(now, MINUTE, most)) {
            return Err(Busy::Cps);
        }
        let of = self.sources.entry(source).or_default();
        if s.per_source_minute.is_some_and(|most| !of.minute.take(now, MINUTE, most)) {
            return Err(Busy::PerSource);
        }
        of.running += 1;
        self.running += 1;
        Ok(())
    }
}

/// What stays the same when the configuration is read again.
fn key(table: &Table, s: &Service) -> String {
    let host = match s.host {
        HostScope::All => "*",
        HostScope::Host(h) => table.host(h).map_or("", |h| &h.name),
    };
    [host, "\0", &s.name, "\0", s.family.protocol()].concat().to_ascii_lowercase()
}
