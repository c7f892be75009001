//! A net process that stands still is ended, and so replaced.
//!
//! One that somebody stopped (SIGSTOP) is seen at once: the system tells a child's stop as it tells
//! its end. One whose loop hangs is seen where it matters, when somebody waits at a listener: then
//! it is asked for a word, and any order is one. An idle net is never woken.

use super::nets::Stage;
use super::run::{Parent, Timer};
use crate::log;
use crate::sys::{poll, process};
use crate::wire::orders::ToNet;
use std::time::Duration;

/// How often the parent looks whether somebody waits.
pub const LOOK: Duration = Duration::from_secs(3);
/// How long a net process may take for a word.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a net process was asked for a word, and what it has said since.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    at: Option<Duration>,
}

impl Asked {
    /// It has said something.
    pub fn heard(&mut self) {
        self.at = None;
    }
}

impl Parent {
    /// Ends the net processes that were stopped.
    pub fn end_stopped_nets(&mut self) {
        for net in self.nets.values() {
            if process::has_stopped(net.child.pid) {
                log::warn(&format!(
                    "net: pid {} was stopped; it is ended and replaced",
                    net.child.pid
                ));
                net.end();
            }
        }
    }

    /// Looks after the net process that serves.
    pub fn watch_nets(&mut self) {
        if self.stopping {
            return;
        }
        self.at(self.now + LOOK, Timer::Watch);
        let somebody_waits = self.listeners.sockets().any(poll::is_readable);
        let registry = self.poll.registry();
        let (mut broken, mut replace) = (Vec::new(), false);
        for (token, net) in self.nets.iter_mut().filter(|(_, n)| n.serves()) {
            match net.asked.at {
                Some(at) if at + PATIENCE <= self.now => {
                    let seconds = self.now.saturating_sub(at).as_secs();
                    log::warn(&format!(
                        "net: pid {} has not answered for {seconds} s; it is ended and replaced",
                        net.child.pid
                    ));
                    net.end();
                    net.stage = Stage::Killed;
                    replace = true;
                }
                Some(_) => {}
                None if somebody_waits => {
                    net.asked.at = Some(self.now);
                    if let Err(why) = net.channel.send(registry, &ToNet::Ping, None) {
                        broken.push((*token, why));
                    }
                }
                None => {}
            }
        }
        if replace {
            self.replace_net();
        }
        broken.into_iter().for_each(|(token, why)| self.broken(token, why));
    }
}
