//! Which session is wanted: the command line, the configuration and the defaults put together.

use super::config::{self, Settings};
use super::error::Error;
use super::forward::Forward;
use super::options::{Family, Options};
use super::paths;
use std::path::PathBuf;
use std::time::Duration;

/// fived's port (tcpmux).
const PORT: u16 = 1;

#[derive(Debug)]
pub struct Target {
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
    pub family: Family,
    /// Is the session's connection Multipath TCP?
    pub mptcp: bool,
    pub accept_new: bool,
    pub unshared: bool,
}

impl Target {
    pub fn new(o: &Options) -> Result<Target, Error> {
        let path = paths::config();
        let text = paths::read(&path)?;
        let s: Settings =
            config::read(&path.display().to_string(), &text, &o.host).map_err(Error::Config)?;
        let identities = if o.identities.is_empty() { &s.identities } else { &o.identities };
        Ok(Target {
            host: s.hostname.unwrap_or_else(|| o.host.clone()),
            port: o.port.or(s.port).unwrap_or(PORT),
            user: o.user.clone().or(s.user).filter(|u| !u.is_empty() && !o.plain),
            virtual_host: o.virtual_host.clone().or(s.virtual_host).unwrap_or_default(),
            identities: identities.iter().map(|i| paths::expand(i)).collect(),
            pins: s.pins,
            persist: s.persist.unwrap_or(config::PERSIST),
            forwards: s.forwards.iter().filter(|f| !o.forwards.contains(f)).cloned().collect(),
            family: o.family,
            mptcp: s.mptcp.unwrap_or(false),
            accept_new: o.accept_new,
            unshared: o.unshared,
        })
    }

    /// `host:port`, as in messages and in known_hosts.
    pub fn place(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// `user@host:port`, or the place alone.
    pub fn who(&self) -> String {
        self.user.as_ref().map_or_else(|| self.place(), |u| format!("{u}@{}", self.place()))
    }

    pub fn socket(&self) -> Result<PathBuf, Error> {
        paths::socket(self.user.as_deref().unwrap_or_default(), &self.host, self.port)
    }
}
