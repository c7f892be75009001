//! The table: services by name, host and family, and which of them a client may use.

use super::access::Access;
use super::attributes::Attributes;
use super::backend::Backend;
use super::endpoint::ProgramSocket;
use super::ids::{HostId, HostScope, ServiceId};
use super::service::Service;
use super::settings::Settings;
use super::subject::{Facts, Login, PeerName, Reached};
use super::text::entry::{Audience, Entry};
use super::text::value::PATH;
use super::users::UserSpec;
use crate::wire::peer::Peer;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A virtual host: a section of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The section's first name; empty for the default host.
    pub name: String,
    pub names: Vec<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub file: String,
    pub line: usize,
}

/// The settings of a host, which stand at the beginning of its section.
pub static HOST_SETTINGS: &[Entry<Host>] = &[
    Entry {
        name: "certificate",
        audience: Audience::Parent,
        list: PATH.list,
        read: |host, given| (PATH.read)(&mut host.certificate, given),
        print: |host| (PATH.print)(&host.certificate),
    },
    Entry {
        name: "key",
        audience: Audience::Parent,
        list: PATH.list,
        read: |host, given| (PATH.read)(&mut host.key, given),
        print: |host| (PATH.print)(&host.key),
    },
];

/// Why a client may not use a service. Only the log says it, not the answer to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Unknown,
    Disabled,
    Host,
    Tls,
    Login,
    User,
    Root,
    Address,
    Hours,
    /// It may not offer the service.
    Offer,
}

const DENIED: [(Denied, &str); 10] = [
    (Denied::Unknown, "unknown"),
    (Denied::Disabled, "disabled"),
    (Denied::Host, "host"),
    (Denied::Tls, "tls"),
    (Denied::Login, "login"),
    (Denied::User, "user"),
    (Denied::Root, "root"),
    (Denied::Address, "address"),
    (Denied::Hours, "hours"),
    (Denied::Offer, "offer"),
];

impl Denied {
    pub fn as_str(self) -> &'static str {
        DENIED[self as usize].1
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(n: u32) -> Option<Denied> {
        DENIED.get(n as usize).map(|d| d.0)
    }
}

/// The file and line of each setting of fived as a whole, or of a host.
pub(super) type SettingLines = HashMap<(HostId, String), (Arc<str>, usize)>;

/// A whole configuration.
#[derive(Debug, PartialEq)]
pub struct Table {
    pub settings: Settings,
    hosts: Vec<Host>,
    services: Vec<Service>,
    groups: Vec<String>,
    /// By name in lower case: the rows of that name, those of a host before those of `[*]`.
    by_name: HashMap<Box<[u8]>, Vec<(HostScope, ServiceId)>>,
    /// The rows that share their name with another, which may be meant by it.
    shared: HashSet<ServiceId>,
    by_host: HashMap<String, HostId>,
    set_at: SettingLines,
    /// Had one that was in force before it a sensor? Its penalties may last.
    pub after_sensors: bool,
}

/// Datagrams of one sender that are answered before it is decided again whether the sender may use
/// the service: an hour ends, or the sender touches a sensor.
const DATAGRAMS_AT_A_TIME: u32 = 100;

/// The length of the longest name that a service can have, in bytes.
const NAME_MAX: usize = 255;

impl Table {
    pub(super) fn new(
        settings: Settings,
        hosts: Vec<Host>,
        services: Vec<Service>,
        groups: Vec<String>,
        set_at: SettingLines,
    ) -> Table {
        let mut by_name: HashMap<Box<[u8]>, Vec<_>> = HashMap::with_capacity(services.len());
        for (i, s) in services.iter().enumerate() {
            by_name
                .entry(s.name.to_ascii_lowercase().into_bytes().into())
                .or_default()
                .push((s.host, ServiceId(i as u32)));
        }
        // A row that is reached only at ports may have the same name as another row.
        let named = |id: ServiceId| services[id.0 as usize].attributes.tcpmux;
        by_name
            .values_mut()
            .for_each(|all| all.sort_by_key(|(scope, id)| (*scope, !named(*id), *id)));
        let several = by_name.values().filter(|all| all.len() > 1).flatten();
        let shared = several.map(|(_, id)| *id).collect();
        let by_host = hosts
            .iter()
            .enumerate()
            .flat_map(|(i, h)| {
                h.names.iter().map(move |n| (n.to_ascii_lowercase(), HostId(i as u32)))
            })
            .collect();
        let after_sensors = false;
        Table { settings, hosts, services, groups, by_name, shared, by_host, set_at, after_sensors }
    }

    /// This row, which could not be served as it stands, is as one with `disable = yes`.
    pub fn switch_off(&mut self, id: ServiceId) {
        if let Some(s) = self.services.get_mut(id.0 as usize) {
            Arc::make_mut(&mut s.attributes).disable = true;
        }
    }

    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Does this service write its own reply line?
    pub fn answers_itself(&self, id: ServiceId) -> bool {
        self.service(id).is_some_and(|s| !s.endpoint.announce)
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0 as usize)
    }

    /// `FILE:LINE` of a setting, else of its host's section, else the file (or the option) alone.
    pub fn place(&self, host: HostId, setting: &str) -> String {
        self.line(host, setting).unwrap_or_else(|whole| whole)
    }

    /// `FILE:LINE` of a setting, else of its host's section. Err: no line has it; the file alone.
    pub fn line(&self, host: HostId, setting: &str) -> Result<String, String> {
        let whole = || self.host(host).map_or(("", 0), |h| (&*h.file, h.line));
        let given = self.set_at.get(&(host, setting.into()));
        let (file, line) = given.map_or_else(whole, |(file, line)| (file, *line));
        if line == 0 { Err(file.into()) } else { Ok(format!("{file}:{line}")) }
    }

    /// All hosts, the default first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.get(id.0 as usize)
    }

    /// The host of that name, by any of its names, without regard to case.
    pub fn host_named(&self, name: &[u8]) -> Option<HostId> {
        let name = std::str::from_utf8(name).ok()?;
        self.by_host.get(&name.to_ascii_lowercase()).copied()
    }

    /// The host of a client that has come to the port of this service.
    pub fn host_at_port(&self, id: ServiceId) -> HostId {
        match self.service(id).map(|s| s.host) {
            Some(HostScope::Host(host)) => host,
            Some(HostScope::All) | None => HostId::DEFAULT,
        }
    }

    /// The groups that `users` attributes name.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The service of that name for that peer in that host. The host's own row stands in place of
    /// one of `[*]`, also for peers that it is not for.
    pub fn find(&self, host: HostId, name: &[u8], peer: Peer) -> Option<ServiceId> {
        self.look(host, name, peer).ok()
    }

    /// As [`Table::find`]. Err: a service of the same name for other clients or of another host, if
    /// there is one.
    fn look(&self, host: HostId, name: &[u8], peer: Peer) -> Result<ServiceId, Option<ServiceId>> {
        let all = self.rows_named(name).ok_or(None)?;
        let mut here = self.rows_in(all, host).peekable();
        let other = here.peek().copied().or(all.first().map(|(_, id)| *id));
        here.find(|id| self.service(*id).is_some_and(|s| s.endpoint.family.has(peer))).ok_or(other)
    }

    /// The rows of that name.
    fn rows_named(&self, name: &[u8]) -> Option<&[(HostScope, ServiceId)]> {
        let mut lower = [0; NAME_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).map(Vec::as_slice)
    }

    /// The service of that name in that host that this user may offer. None: there is none.
    pub fn offerable(&self, host: HostId, name: &[u8], login: Option<&Login>) -> Option<ServiceId> {
        self.rows_in(self.rows_named(name)?, host).find(|id| self.may_offer(*id, host, login))
    }

    /// Those of these rows of one name that this host has: its own, or, where clients reach none of
    /// those by the name, those of every host first.
    fn rows_in<'a>(
        &self,
        all: &'a [(HostScope, ServiceId)],
        host: HostId,
    ) -> impl Iterator<Item = ServiceId> + use<'a> {
        let of = |scope: HostScope| {
            let first = all.partition_point(|(s, _)| *s < scope);
            let end = all.partition_point(|(s, _)| *s <= scope);
            &all[first..end]
        };
        let (own, every) = (of(HostScope::Host(host)), of(HostScope::All));
        let named = |id: ServiceId| self.service(id).is_some_and(|s| s.attributes.tcpmux);
        // Those with a name come first.
        let hides = own.first().is_some_and(|(_, id)| named(*id));
        let every = if hides { &[] } else { every };
        every.iter().chain(own).map(|(_, id)| *id)
    }

    /// May this user, in a session with that host, offer this service?
    pub fn may_offer(&self, id: ServiceId, host: HostId, login: Option<&Login>) -> bool {
        let (Some(s), Some(login)) = (self.service(id), login) else { return false };
        let here = s.host == HostScope::All || s.host == HostScope::Host(host);
        let a = &*s.attributes;
        let by = &a.offered_by;
        s.backend == Backend::Offer && here && !a.disable && !by.0.is_empty() && by.allow(login)
    }

    /// May this user, in a session with that host, offer any service?
    pub fn may_offer_any(&self, host: HostId, login: Option<&Login>) -> bool {
        let all = 0..self.services.len() as u32;
        login.is_some() && all.map(ServiceId).any(|id| self.may_offer(id, host, login))
    }

    /// May the client use this service?
    pub fn usable(&self, id: ServiceId, facts: &Facts) -> Result<(), Denied> {
        self.usable_at(id, facts, |access| access.allows(facts.peer, &facts.peer_name))
    }

    /// May the client use this service? `from_here` decides about the rules on addresses.
    fn usable_at(
        &self,
        id: ServiceId,
        facts: &Facts,
        from_here: impl Fn(Access) -> bool,
    ) -> Result<(), Denied> {
        let s = self.service(id).ok_or(Denied::Unknown)?;
        let a = &*s.attributes;
        let rule = |denied: bool, why: Denied| if denied { Err(why) } else { Ok(()) };
        let here = s.host == HostScope::All || s.host == HostScope::Host(facts.host);
        rule(!here, Denied::Host)?;
        // A service without a port is unknown to a client at a port, and one without a name to a
        // client that names it.
        let not_there = match facts.reached {
            Reached::ByName => !a.tcpmux,
            Reached::AtPort => a.port.is_empty(),
            Reached::AtTlsPort => a.tls_port.is_empty(),
        };
        rule(not_there, Denied::Unknown)?;
        rule(a.disable, Denied::Disabled)?;
        rule(!s.endpoint.family.has(facts.peer), Denied::Address)?;
        rule(a.require.tls && !facts.encrypted, Denied::Tls)?;
        rule(s.needs_login() && facts.login.is_none(), Denied::Login)?;
        if let Some(login) = &facts.login {
            rule(s.needs_login() && !a.users.allow(login), Denied::User)?;
            rule(
                s.user == UserSpec::Login && login.superuser && !a.users.name_root(),
                Denied::Root,
            )?;
        }
        rule(!from_here(a.access()), Denied::Address)?;
        rule(
            !a.access_times.is_empty() && !a.access_times.iter().any(|h| h.contains(facts.minute)),
            Denied::Hours,
        )
    }

    /// Is it a sensor, and may this client use it but for rules on addresses? These protect nobody
    /// from a sensor (xinetd).
    pub fn is_sensor_for(&self, id: ServiceId, facts: &Facts) -> bool {
        self.service(id).is_some_and(|s| s.backend == Backend::Sensor)
            && self.usable_at(id, facts, |_| true).is_ok()
    }

    /// How many datagrams of one sender a process of this internal service answers, before it is
    /// decided again who may send the next. None: as many as come, for nothing depends on who sends
    /// them, on when, or on how many there are.
    pub fn decided_at_a_time(&self, id: ServiceId) -> Option<u32> {
        let s = self.service(id).filter(|s| s.endpoint.socket == ProgramSocket::Datagrams)?;
        let a = &*s.attributes;
        if a.cps.is_some() || s.per_minute.is_some() {
            return Some(1);
        }
        let has_rules = !a.access().is_open()
            || !a.access_times.is_empty()
            || a.max_load.is_some()
            || s.libwrap_daemon().is_some()
            // Who has touched a sensor is refused by all services.
            || self.has_had_sensors();
        has_rules.then_some(DATAGRAMS_AT_A_TIME)
    }

    /// Can somebody have touched a sensor?
    pub fn has_had_sensors(&self) -> bool {
        let off = |a: &Attributes| a.disable || a.deny_time == Some(0);
        let mut sensors = self.services.iter().filter(|s| s.backend == Backend::Sensor);
        self.after_sensors || sensors.any(|s| !off(&s.attributes))
    }

    /// Does the decision about the client depend on the name of its address, and was that name not
    /// looked up yet?
    pub fn asks_name(&self, name: &[u8], facts: &Facts) -> bool {
        let Ok(id) = self.look(facts.host, name, facts.peer) else { return false };
        self.service_asks_name(id, facts)
    }

    /// Does the decision about this service depend on the name of the client's address, and was
    /// that name not looked up yet?
    pub fn service_asks_name(&self, id: ServiceId, facts: &Facts) -> bool {
        if facts.peer_name != PeerName::NotAsked {
            return false;
        }
        let depends =
            self.service(id).is_some_and(|s| s.attributes.access().depends_on_name(facts.peer));
        depends && self.usable_at(id, facts, |_| true).is_ok()
    }

    /// The service of that name, if the client may use it. Err: why the client may not, and the
    /// service, for the log.
    pub fn allowed(
        &self,
        name: &[u8],
        facts: &Facts,
    ) -> Result<ServiceId, (Option<ServiceId>, Denied)> {
        match self.look(facts.host, name, facts.peer) {
            Ok(id) => self.usable(id, facts).map(|()| id).map_err(|d| (Some(id), d)),
            Err(Some(other)) => {
                Err((Some(other), self.usable(other, facts).err().unwrap_or(Denied::Host)))
            }
            Err(None) => Err((None, Denied::Unknown)),
        }
    }

    /// The names that HELP shows this client, in the order and spelling of the configuration. Any
    /// stranger may ask for all of a long table: only rows that share a name are looked up.
    pub fn help(&self, facts: &Facts) -> impl Iterator<Item = &str> {
        let shown = move |(i, s): &(usize, &Service)| {
            let id = ServiceId(*i as u32);
            !s.attributes.hidden
                && self.usable(id, facts).is_ok()
                && (!self.shared.contains(&id)
                    || self.find(facts.host, s.name.as_bytes(), facts.peer) == Some(id))
        };
        self.services.iter().enumerate().filter(shown).map(|(_, s)| s.name.as_str())
    }
}
