//! SIGHUP: another configuration, whole or not at all.

use super::config::{self, Read};
use super::config_error::ConfigError;
use super::lines;
use super::log_file;
use super::run::Parent;
use crate::log;
use crate::sys::clock;
use crate::sys::notify;
use crate::sys::outcome::Asker;
use std::rc::Rc;
use std::time::Duration;

/// The first line of what an asker is told; after it come warnings or mistakes.
pub const RELOADED: &str = "reloaded";
pub const REFUSED: &str = "refused";
/// Askers that wait for the new net process at a time; one more is told as soon as the table was
/// read.
const ASKERS: usize = 64;
/// What they are told who ask, or wait, when it is too late.
const ENDS: &str = "fived is being ended";

/// How long clients that wait at ports that are given up are still accepted, at most: a flood there
/// must not keep everybody else waiting.
const LAST_CLIENTS: Duration = Duration::from_millis(200);

impl Parent {
    /// Reads the configuration again. A mistake changes nothing and is reported; else a new net
    /// process takes over. Whoever asked is told when that serves.
    pub fn reload(&mut self, asker: Option<Asker>) {
        if self.cx.stopping {
            return tell(asker, REFUSED, &[ENDS.into()]);
        }
        // A table that was refused is no longer being read, and the manager knows it.
        notify::reloading();
        match self.read_again() {
            Ok(warnings) => {
                self.signers.start(&mut self.cx);
                self.nets.start(&mut self.cx);
                match asker {
                    Some(a) if self.askers.len() < ASKERS => self.askers.push((a, warnings)),
                    other => tell(other, RELOADED, &warnings),
                }
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|m| log::warn(m));
                lines::reload(&self.cx.options.config, Err(mistakes.len()));
                notify::ready();
                tell(asker, REFUSED, &mistakes);
            }
        }
    }

    /// The new table, whole. Err: every mistake; nothing has changed.
    fn read_again(&mut self) -> Result<Vec<String>, Vec<String>> {
        let path = self.cx.options.config.clone();
        let Read { config, warnings } = config::read(
            &path,
            &self.cx.options.listen,
            true,
            Some(&self.cx.config),
            &mut self.cx.spawner,
        )
        .map_err(ConfigError::lines)?;
        let wanted = if self.cx.options.listen.is_empty() {
            &config.table.settings.listen
        } else {
            &self.cx.options.listen
        };
        let door: Vec<_> = self.listeners.addresses().zip(self.listeners.sockets()).collect();
        let fresh = self.ports.bind(&config.ports, &door).map_err(|e| vec![e])?;
        drop(door);
        let beside = self.ports.with(&fresh);
        self.listeners
            .rebound(wanted, config.table.settings.mptcp, &beside)
            .map_err(|e| vec![e])?;
        warnings.iter().for_each(|w| log::warn(w));
        config.keys.notes.iter().for_each(|n| log::say(n));
        if let Err(e) = log_file::open(&config.table.settings.log_type, self.cx.options.background)
        {
            log::warn(&e);
        }
        lines::reload(&path, Ok(config.table.services().len()));
        self.cx.counters.reloads += 1;
        // Whoever waits at a port that is given up came under the old table.
        let until = clock::monotonic() + LAST_CLIENTS;
        for token in self.ports.given_up(&config.ports) {
            while clock::monotonic() < until && self.port_client(token) {}
        }
        for address in self.ports.adopt(&config.ports, fresh) {
            log::say(&format!("listening on {address}"));
        }
        self.cx.config = Rc::new(config);
        if let Err(e) = self.ports.watch(&mut self.cx) {
            log::warn(&format!("ports: {e}"));
        }
        Ok(warnings)
    }

    /// The newest table is served.
    pub fn reloaded(&mut self) {
        notify::ready();
    }

    /// Tells those who asked, once nobody accepts clients under an older table any more.
    pub fn tell_askers(&mut self) {
        if !self.askers.is_empty() && self.nets.is_alone(&self.cx) {
            self.askers.drain(..).for_each(|(a, warnings)| tell(Some(a), RELOADED, &warnings));
        }
    }

    /// The newest table will never be served, for fived ends.
    pub fn not_reloaded(&mut self) {
        self.askers.drain(..).for_each(|(a, _)| tell(Some(a), REFUSED, &[ENDS.into()]));
    }
}

fn tell(asker: Option<Asker>, outcome: &str, lines: &[String]) {
    let Some(asker) = asker else { return };
    let text: String = [outcome]
        .into_iter()
        .chain(lines.iter().map(String::as_str))
        .flat_map(|l| [l, "\n"])
        .collect();
    if let Err(e) = asker.tell(&text) {
        ::log::debug!("whoever asked for the reload has gone: {e}");
    }
}
