//! How many services run at a time, and how many start in a second or a minute. Services are
//! counted by host, name and family, so that the counts outlive a reload.
//!
//! Memory is bounded: services run for at most `max_services` sources. Each service also keeps the
//! sources for which it was started within the last minute (`nowait/A/B/C`), at most
//! [`SOURCES_MAX`] of them; for one more it forgets the source whose minute ends first.

use super::ids::{HostScope, ServiceId};
use super::service::Service;
use super::settings::Settings;
use super::source::Source;
use super::subject::Facts;
use super::table::{Denied, Table};
use crate::wire::peer::Peer;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Sources for which a service counts starts while it does not run for them.
pub const SOURCES_MAX: usize = 65_536;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    Instances,
    PerSource,
    Cps,
    MaxLoad,
    /// `max_services`
    Services,
    /// `max_services_per_source`
    SourceServices,
}

impl Busy {
    pub fn as_str(self) -> &'static str {
        match self {
            Busy::Instances => "instances",
            Busy::PerSource => "per_source",
            Busy::Cps => "cps",
            Busy::MaxLoad => "max_load",
            Busy::Services => "max_services",
            Busy::SourceServices => "max_services_per_source",
        }
    }
}

/// Why a service may not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Denied(Denied),
    Busy(Busy),
}

/// The permission to start one service once. Only [`Limits::permit`] makes it; it cannot be copied.
#[derive(Debug)]
pub struct Permit {
    service: ServiceId,
    ticket: Ticket,
}

impl Permit {
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// The ticket, which must be released when the service has ended, or was not started after all.
    pub fn into_ticket(self) -> Ticket {
        self.ticket
    }
}

/// One service that counts as running, until the ticket is released.
#[derive(Debug)]
pub struct Ticket {
    key: Arc<str>,
    source: Source,
}

/// A count of starts within a span of time.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Duration,
    count: u32,
}

impl Window {
    /// Counts one more. False: that is more than `most` within the span.
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
    /// The sources for which the service does not run now, by when their minute began.
    idle: BTreeSet<(Duration, Source)>,
}

/// What runs: of each service, for each source, and in all.
#[derive(Debug, Default)]
pub struct Limits {
    services: HashMap<Arc<str>, State>,
    running: u32,
    sources: HashMap<Source, u32>,
}

impl Limits {
    pub fn new() -> Limits {
        Limits::default()
    }

    /// Decides whether the client may use the service, and whether no limit is reached. `now` is
    /// monotonic; `load` is called only if the service has `max_load`.
    pub fn permit(
        &mut self,
        table: &Table,
        id: ServiceId,
        facts: &Facts,
        now: Duration,
        load: impl FnOnce() -> f64,
    ) -> Result<Permit, Refusal> {
        table.usable(id, facts).map_err(Refusal::Denied)?;
        let service = table.service(id).ok_or(Refusal::Denied(Denied::Unknown))?;
        // A program that gets the socket itself is nobody's in particular: whoever sends the first
        // datagram must not keep it from all others by reaching a limit.
        let source = match service.endpoint.socket.waits() {
            true => Source::of(Peer::Nobody),
            false => Source::of(facts.peer),
        };
        self.check_totals(&table.settings, source).map_err(Refusal::Busy)?;
        let key = key(table, service);
        let key = match self.services.get_key_value(&*key) {
            Some((k, _)) => k.clone(),
            None => {
                let k: Arc<str> = key.into();
                self.services.insert(k.clone(), State::default());
                k
            }
        };
        let state = self.services.get_mut(&key).expect("it was there, or has just been put there");
        state.admit(service, source, now, load).map_err(Refusal::Busy)?;
        self.running += 1;
        *self.sources.entry(source).or_default() += 1;
        Ok(Permit { service: id, ticket: Ticket { key, source } })
    }

    /// Checks the limits of all services together, and of this source.
    fn check_totals(&self, settings: &Settings, source: Source) -> Result<(), Busy> {
        let of_source = self.sources.get(&source).filter(|_| !source.is_nobody());
        if of_source.is_some_and(|n| *n >= settings.max_services_per_source) {
            return Err(Busy::SourceServices);
        }
        if self.running >= settings.max_services { Err(Busy::Services) } else { Ok(()) }
    }

    /// How many more services may run.
    pub fn left(&self, settings: &Settings) -> usize {
        settings.max_services.saturating_sub(self.running) as usize
    }

    /// A service has ended, or was not started after all.
    pub fn release(&mut self, ticket: Ticket) {
        self.running = self.running.saturating_sub(1);
        if let Some(n) = self.sources.get_mut(&ticket.source) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.sources.remove(&ticket.source);
            }
        }
        if let Some(state) = self.services.get_mut(&ticket.key) {
            state.release(ticket.source);
        }
    }

    /// Forgets what no longer matters. The caller does this now and then.
    pub fn tidy(&mut self, now: Duration) {
        for state in self.services.values_mut() {
            while let Some(&(since, source)) =
                state.idle.first().filter(|(since, _)| now.saturating_sub(*since) >= MINUTE)
            {
                state.forget(since, source);
            }
            if state.sources.is_empty() {
                state.sources.shrink_to_fit();
            }
        }
        self.services.retain(|_, s| {
            s.running > 0
                || !s.sources.is_empty()
                || s.shut_until > now
                || now.saturating_sub(s.minute.since) < MINUTE
        });
    }
}

impl State {
    fn admit(
        &mut self,
        s: &Service,
        source: Source,
        now: Duration,
        load: impl FnOnce() -> f64,
    ) -> Result<(), Busy> {
        let a = &*s.attributes;
        if a.instances.is_some_and(|most| self.running >= most) {
            return Err(Busy::Instances);
        }
        let of_source = self.sources.get(&source).map_or(0, |s| s.running);
        if a.per_source.is_some_and(|most| of_source >= most) && !source.is_nobody() {
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
        let of_source = self.sources.entry(source).or_default();
        if of_source.running == 0 {
            self.idle.remove(&(of_source.minute.since, source));
        }
        let minute_full =
            s.per_source_minute.is_some_and(|most| !of_source.minute.take(now, MINUTE, most));
        of_source.running += 1;
        self.running += 1;
        if minute_full {
            self.release(source);
            return Err(Busy::PerSource);
        }
        Ok(())
    }

    /// A service that ran for this source has ended.
    fn release(&mut self, source: Source) {
        self.running = self.running.saturating_sub(1);
        let Some(s) = self.sources.get_mut(&source) else { return };
        s.running = s.running.saturating_sub(1);
        if s.running > 0 {
            return;
        }
        if s.minute.count == 0 {
            self.sources.remove(&source);
            return;
        }
        self.idle.insert((s.minute.since, source));
        if self.idle.len() > SOURCES_MAX
            && let Some(&(since, first)) = self.idle.first()
        {
            self.forget(since, first);
        }
    }

    fn forget(&mut self, since: Duration, source: Source) {
        self.idle.remove(&(since, source));
        self.sources.remove(&source);
    }
}

/// The name by which a service is counted. It is the same after a reload. Rows that are not reached
/// by a name are distinguished by their ports.
fn key(table: &Table, s: &Service) -> String {
    let host = match s.host {
        HostScope::All => "*",
        HostScope::Host(h) => table.host(h).map_or("", |h| &h.name),
    };
    let mut key = [host, "\0", &s.name, "\0", s.endpoint.protocol()].concat();
    if !s.attributes.tcpmux {
        s.attributes.port.iter().for_each(|p| key += &format!("\0{p}"));
    }
    key.make_ascii_lowercase();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources that have started something, of which nothing runs any more.
    fn crowd(state: &mut State, from: u32, to: u32) {
        for n in from..to {
            let source = Source::of(n.to_be_bytes().into());
            let since = Duration::from_millis(n.into());
            state
                .sources
                .insert(source, OfSource { running: 1, minute: Window { since, count: 1 } });
            state.release(source);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many take Miri an hour")]
    fn a_crowd_of_sources_makes_the_oldest_forgotten_and_nobody_busy() {
        let mut state = State::default();
        crowd(&mut state, 0, SOURCES_MAX as u32 + 10);
        assert_eq!((state.sources.len(), state.idle.len()), (SOURCES_MAX, SOURCES_MAX));
        assert!(!state.sources.contains_key(&Source::of(9u32.to_be_bytes().into())));
        assert!(state.sources.contains_key(&Source::of(10u32.to_be_bytes().into())));
    }
}
