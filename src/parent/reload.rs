//! SIGHUP: another configuration, whole or not at all.
//!
//! | file | noun |
//! |---|---|
//! | `reloads` | those who asked for a reload and wait for its outcome |
//! | `ask` | `--reload`: sends SIGHUP to the running fived and prints its answer |

pub mod ask;
pub mod reloads;

use super::config::error::ConfigError;
use super::config::keys::Make;
use super::config::{self, Purpose, Read};
use super::context::Timer;
use super::lines;
use super::listeners::bound::Bound;
use super::log_file;
use super::ports::bind_again;
use super::run::Parent;
use super::tokens::PortToken;
use crate::log;
use crate::sys::clock;
use crate::sys::notify;
use crate::sys::outcome::Asker;
use reloads::{ASKERS_MAX, GATHERING};
use std::rc::Rc;
use std::time::Duration;

/// The first line of the answer to whoever asked for the reload. Warnings or mistakes follow.
pub const RELOADED: &str = "reloaded";
pub const REFUSED: &str = "refused";
/// The answer to those who ask or wait while fived ends.
pub const ENDS: &str = "ends";

/// For how long at most the parent still accepts clients at the ports that the new configuration no
/// longer has: a flood there must not keep everybody else waiting.
const LAST_CLIENTS: Duration = Duration::from_millis(200);

impl Parent {
    /// SIGHUP has come; `asker` wants to be told what comes of it.
    pub fn asked_to_reload(&mut self, asker: Option<Asker>) {
        if let Some(asker) = asker {
            if let Err(e) = asker.acknowledge() {
                ::log::debug!("the process that asks for a reload hears nothing: {e}");
            }
            if self.reloads.has(asker) {
                return;
            }
            self.reloads.asking.push(asker);
            if !self.cx.is_ending() && self.reloads.may_gather(self.cx.now) {
                return self.cx.after(GATHERING, Timer::Reload);
            }
        }
        self.reload();
    }

    /// Reads the configuration again. A mistake changes nothing and is reported; otherwise a new
    /// net process takes over. Those who asked are answered when that process serves.
    pub fn reload(&mut self) {
        let asking = std::mem::take(&mut self.reloads.asking);
        if self.cx.is_ending() {
            return asking.into_iter().for_each(|a| tell(a, ENDS, &[]));
        }
        // Where reloads come faster than net processes are ready, each has its line.
        self.say_loaded();
        // Reading a configuration may take long, so pending starts are finished first.
        self.services.settle_all(&mut self.cx);
        self.route();
        // The service manager learns that the reload is over even where it was refused.
        notify::reloading();
        let read = self.read_again();
        (self.reloads.last, self.reloads.done) = (Some(self.cx.now), true);
        self.cx.counters.tallies.reloaded(read.is_ok());
        match read {
            Ok(warnings) => {
                self.signers.start(&mut self.cx);
                self.nets.start(&mut self.cx);
                self.hosts.look_up(&mut self.cx);
                for asker in asking {
                    match self.reloads.waiting.len() < ASKERS_MAX {
                        true => self.reloads.waiting.push((asker, warnings.clone())),
                        false => tell(asker, RELOADED, &warnings),
                    }
                }
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|m| log::warn(m));
                lines::reload(&self.cx.options.origin.to_string(), Err(mistakes.len()));
                notify::ready();
                asking.into_iter().for_each(|a| tell(a, REFUSED, &mistakes));
            }
        }
    }

    /// Reads the new configuration and changes to it. Returns its warnings. Err: every mistake;
    /// nothing has changed.
    fn read_again(&mut self) -> Result<Vec<String>, Vec<String>> {
        let origin = self.cx.options.origin.clone();
        let make = if self.listeners.are_handed() { Make::Always } else { Make::WhereTls };
        let mut made = Vec::new();
        let handed = self.listeners.handed();
        let (listen, before) = (&self.cx.options.listen, Some(&*self.cx.config));
        let purpose = Purpose { origin: &origin, listen, handed: &handed, make, before };
        let read = config::read(purpose, &mut self.cx.spawner, &mut made);
        made.iter().for_each(|m| log::say(m));
        self.cx.now = clock::monotonic();
        let Read { config, mut warnings, .. } = read.map_err(ConfigError::lines)?;
        self.ports.listeners.look_for_files();
        let (options, ports) = (&self.cx.options, &self.ports.listeners);
        let mut bound = Bound::new(&config, options, ports, &self.listeners)?;
        let missing = bind_again::warnings(std::mem::take(&mut bound.missing));
        self.ports.again_later(&mut self.cx, !missing.is_empty());
        warnings.extend(missing);
        let now = config.table.services().len();
        warnings.iter().for_each(|w| log::warn(w));
        config.keys.notes.iter().for_each(|n| log::warn(n));
        if let Err(e) = log_file::open(&config.table, self.cx.options.background) {
            log::warn(&e);
            warnings.push(e);
        }
        self.reloads.loaded = Some(now);
        self.cx.counters.reloads += 1;
        // Clients that wait at a port that is given up came under the old table, and are served
        // under it.
        let until = clock::monotonic() + LAST_CLIENTS;
        for token in self.ports.listeners.given_up(&config.ports.plain, &bound.ports) {
            while clock::monotonic() < until
                && (self.port_client(token) || self.net_takes_more(token))
            {}
        }
        let (options, ports) = (&self.cx.options, &mut self.ports.listeners);
        let addresses = bound.adopt(&config, options, ports, &mut self.listeners);
        for address in addresses {
            lines::listening(address);
        }
        self.cx.config = Rc::new(config);
        self.cx.counters.tallies.keep(&self.cx.config.table);
        if let Err(e) = self.ports.listeners.watch(&mut self.cx) {
            log::warn(&format!("ports: {e}"));
        }
        self.ports.end_changed(&self.cx, &self.services.running);
        Ok(warnings)
    }

    /// Lets a net process read what it was sent, where the clients at a port wait for that. False:
    /// they do not.
    fn net_takes_more(&mut self, token: PortToken) -> bool {
        let waits = self.waits_for_net(token);
        if let Some(net) = self.nets.serving().filter(|_| waits) {
            std::thread::sleep(Duration::from_millis(1));
            self.flush(net.into());
        }
        waits && self.nets.serving().is_some()
    }

    /// A reload is over once no net process accepts clients under an older table any more: says so
    /// to the log, the service manager and those who asked. So whoever waited for any of these
    /// meets the new table.
    pub fn may_be_reloaded(&mut self) {
        if self.reloads.is_under_way() && self.nets.is_alone(&self.cx) {
            self.say_loaded();
            notify::ready();
            let waiting = self.reloads.waiting.drain(..);
            waiting.for_each(|(a, warnings)| tell(a, RELOADED, &warnings));
        }
    }

    fn say_loaded(&mut self) {
        if let Some(services) = self.reloads.loaded.take() {
            lines::reload(&self.cx.options.origin.to_string(), Ok(services));
        }
    }

    /// fived ends, so no net process will serve the newest table: answers those who asked.
    pub fn not_reloaded(&mut self) {
        self.say_loaded();
        let waiting = self.reloads.waiting.drain(..).map(|(a, _)| a);
        let all = waiting.chain(self.reloads.asking.drain(..));
        all.for_each(|a| tell(a, ENDS, &[]));
    }
}

fn tell(asker: Asker, outcome: &str, lines: &[String]) {
    let text: String = [outcome]
        .into_iter()
        .chain(lines.iter().map(String::as_str))
        .flat_map(|l| [l, "\n"])
        .collect();
    if let Err(e) = asker.tell(&text) {
        ::log::debug!("the process that asked for the reload cannot be answered: {e}");
    }
}
