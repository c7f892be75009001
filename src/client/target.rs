//! Which session is wanted: the command line, the configuration and the defaults put together.

use super::config::{self, Settings};
use super::error::Error;
use super::forward::Forward;
use super::hop::Hop;
use super::offer::Offer;
use super::options::{Family, Options, is_path};
use super::{paths, syntax};
use std::path::PathBuf;
use std::time::Duration;

/// fived's port (tcpmux).
const PORT: u16 = 1;

#[derive(Debug, Clone)]
pub struct Target {
    /// What was typed, or what the way there says.
    pub typed: String,
    /// The name or address to which five connects and whose key must be known: `hostname` of the
    /// configuration, or what was typed.
    pub host: String,
    pub port: u16,
    /// The user to log in as. None: no login.
    pub user: Option<String>,
    /// The virtual host of every call; empty: the one that the server chooses.
    pub virtual_host: String,
    pub identities: Vec<PathBuf>,
    pub pins: Vec<String>,
    pub persist: Duration,
    /// The forwards of the configuration, without those that the command line has too.
    pub forwards: Vec<Forward>,
    /// The offers of the configuration, without those that the command line has too.
    pub offers: Vec<Offer>,
    pub family: Family,
    /// Is the session's connection Multipath TCP?
    pub mptcp: bool,
    pub accept_new: bool,
    pub unshared: bool,
    /// The last gate on the way there. None: five connects with the server itself.
    pub gate: Option<Box<Gate>>,
}

/// A server through whose service another one is reached.
#[derive(Debug, Clone)]
pub struct Gate {
    pub target: Target,
    pub service: String,
}

impl Target {
    /// This target for a session of one call's own, in which nobody else takes part: on the way
    /// there, too.
    pub fn alone(&self) -> Target {
        let gate = self.gate.as_deref();
        let gate = gate.map(|g| Gate { target: g.target.alone(), service: g.service.clone() });
        Target {
            forwards: Vec::new(),
            offers: Vec::new(),
            unshared: true,
            gate: gate.map(Box::new),
            ..self.clone()
        }
    }

    pub fn new(o: &Options) -> Result<Target, Error> {
        let path = paths::config();
        // No section is about a socket of this computer.
        let text = if is_path(&o.host) { String::new() } else { paths::read_own(&path)? };
        let settings = |host: &str| -> Result<Settings, Error> {
            config::read(&path.display().to_string(), &text, host).map_err(Error::Config)
        };
        let s = settings(&o.host)?;
        let way = o.way.as_ref().or(s.via.as_ref()).filter(|_| !o.plain);
        let mut gate = None;
        for hop in way.into_iter().flatten() {
            let target = Target::of_gate(o, hop, settings(&hop.host)?, gate);
            gate = Some(Box::new(Gate { target, service: hop.service.clone() }));
        }
        let identities = if o.identities.is_empty() { &s.identities } else { &o.identities };
        Ok(Target {
            typed: o.host.clone(),
            host: s.hostname.unwrap_or_else(|| o.host.clone()),
            port: o.port.or(s.port).unwrap_or(PORT),
            user: o.user.clone().or(s.user).filter(|u| !u.is_empty() && !o.plain),
            virtual_host: o.virtual_host.clone().or(s.virtual_host).unwrap_or_default(),
            identities: identities.iter().map(|i| paths::expand(i)).collect(),
            pins: s.pins,
            persist: s.persist.unwrap_or(config::PERSIST),
            forwards: s.forwards.iter().filter(|f| !o.forwards.contains(f)).cloned().collect(),
            offers: s.offers.iter().filter(|f| !o.offers.contains(f)).cloned().collect(),
            family: o.family,
            mptcp: s.mptcp.unwrap_or(false),
            accept_new: o.accept_new,
            // Without TLS and a login a session of its own costs next to nothing.
            unshared: o.unshared || is_path(&o.host),
            gate,
        })
    }

    /// A gate's own session, made through the gate `before` it. What was typed for the server does
    /// not count for it, except for how it is connected with and whether it is trusted.
    fn of_gate(o: &Options, hop: &Hop, s: Settings, before: Option<Box<Gate>>) -> Target {
        Target {
            typed: hop.host.clone(),
            host: s.hostname.unwrap_or_else(|| hop.host.clone()),
            port: hop.port.or(s.port).unwrap_or(PORT),
            user: hop.user.clone().or(s.user),
            virtual_host: s.virtual_host.unwrap_or_default(),
            identities: s.identities.iter().map(|i| paths::expand(i)).collect(),
            pins: s.pins,
            persist: s.persist.unwrap_or(config::PERSIST),
            forwards: s.forwards,
            offers: s.offers,
            family: o.family,
            mptcp: s.mptcp.unwrap_or(false),
            accept_new: o.accept_new,
            unshared: o.unshared,
            gate: before,
        }
    }

    /// `host:port`, as in messages and in known_hosts.
    pub fn place(&self) -> String {
        if is_path(&self.host) {
            return self.host.clone();
        }
        syntax::place(&self.host, self.port)
    }

    /// `user@host:port`, or the place alone.
    pub fn who(&self) -> String {
        self.user.as_ref().map_or_else(|| self.place(), |u| format!("{u}@{}", self.place()))
    }

    /// The way there, as -J takes it; empty: there is no gate.
    pub fn way(&self) -> String {
        let Some(gate) = &self.gate else { return String::new() };
        let before = gate.target.way();
        let comma = if before.is_empty() { "" } else { "," };
        format!("{before}{comma}{}/{}", gate.target.who(), gate.service)
    }

    /// The same, with the names that were typed: sections of the configuration are found by them.
    pub fn spelled_way(&self) -> String {
        let Some(gate) = &self.gate else { return String::new() };
        let before = gate.target.spelled_way();
        let comma = if before.is_empty() { "" } else { "," };
        let spelled = Target { host: gate.target.typed.clone(), ..gate.target.clone() };
        format!("{before}{comma}{}/{}", spelled.who(), gate.service)
    }

    /// Where the session is found: user, host, port and the way there are its name.
    pub fn socket(&self) -> Result<PathBuf, Error> {
        let (user, host) = (self.user.as_deref().unwrap_or_default(), &self.host);
        let direct = format!("{user}@{}:{}", host.to_ascii_lowercase(), self.port);
        match self.way().as_str() {
            "" => paths::socket(&direct),
            way => paths::socket(&format!("{way} {direct}")),
        }
    }
}
