//! SIGHUP: another configuration, whole or not at all.

use super::config::{self, Read};
use super::run::Parent;
use crate::log::{self, Event};
use crate::sys::notify;
use std::rc::Rc;

impl Parent {
    /// Reads the configuration again. A mistake changes nothing and is reported; else a new net process takes over.
    pub fn reload(&mut self) {
        if self.stopping {
            return;
        }
        let path = self.options.config.clone();
        let refused = |mistakes: &[String]| {
            mistakes.iter().for_each(|m| log::warn(m));
            Event::new("RELOAD").word("file", &path).text("refused").number("mistakes", mistakes.len() as i128).put();
        };
        let Read { config, warnings } = match config::read(&path, true, Some(&self.config.keys)) {
            Ok(read) => read,
            Err(mistakes) => return refused(&mistakes),
        };
        let wanted = if self.options.listen.is_empty() { &config.table.settings.listen } else { &self.options.listen };
        if let Err(e) = self.listeners.rebound(wanted, config.table.settings.mptcp) {
            return refused(&[e]);
        }
        notify::reloading();
        warnings.iter().for_each(|w| log::warn(w));
        config.keys.notes.iter().for_each(|n| log::say(n));
        if let Err(e) = super::open_log(&config.table.settings.log_type, self.options.background) {
            log::warn(&e);
        }
        Event::new("RELOAD").word("file", &path).number("services", config.table.services().len() as i128).put();
        self.counters.reloads += 1;
        self.config = Rc::new(config);
        self.start_net();
        notify::ready();
    }
}
