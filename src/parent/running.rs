//! The services that run: one entry each, from its start to the line that tells its end.

use super::arrival::{Record, Stream};
use super::config::Config;
use super::lines;
use crate::policy::{Service, ServiceId, Ticket};
use crate::sys::process::{self, Exit};
use crate::sys::shared::Shared;
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::Child;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// A service that runs.
pub struct Running {
    pub child: Child,
    pub config: Rc<Config>,
    pub service: ServiceId,
    /// None once it was given back.
    pub ticket: Option<Ticket>,
    pub record: Record,
    /// Where its bytes are counted. None: it has the client's own socket, or nobody counts.
    pub stream: Option<Stream>,
    pub started: Duration,
    /// When `server_timeout` ends it.
    pub until: Option<Duration>,
    /// Bytes to it and from it, once its relay has ended.
    pub traffic: Option<(u64, u64)>,
    /// The client's own socket, where it is to be heard out after the service's end.
    pub lingering_close: Option<Shared>,
    /// It was told to end: whoever is in its process group will be killed, be it there still or
    /// not.
    pub condemned: bool,
}

impl Running {
    pub fn service(&self) -> Option<&Service> {
        self.config.table.service(self.service)
    }
}

/// What came of a service's being told to end.
pub enum Condemned {
    Record,
    /// It has ended.
    Ended,
    /// There was no descriptor for it: it is to be told again.
    Later,
}

/// An end that waits for its relay to count its bytes.
pub struct Ended {
    running: Running,
    exit: Exit,
    at: Duration,
}

/// See the module.
#[derive(Default)]
pub struct Runs {
    all: HashMap<i32, Running>,
    /// Services that were told to end and have, while somebody of their process group has not; by
    /// number and start.
    left: HashMap<(i32, Duration), Child>,
    /// Services that were told to end and run, where a group cannot be signalled without its leader
    /// (before Linux 6.9): it has its SIGKILL when that ends, for later its number may be somebody
    /// else's.
    early_kills: usize,
    ended: HashMap<Stream, Ended>,
    streams: HashMap<Stream, i32>,
    /// Bytes of relays that ended before their service was known to run.
    early: HashMap<Stream, (u64, u64)>,
}

impl Runs {
    pub fn add(&mut self, mut running: Running) {
        let pid = running.child.pid;
        if let Some(stream) = running.stream {
            running.traffic = self.early.remove(&stream);
            if running.traffic.is_none() {
                self.streams.insert(stream, pid);
            }
        }
        self.all.insert(pid, running);
    }

    /// Does no service run, nor what a condemned one has left behind?
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.left.is_empty()
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i32, &Running)> {
        self.all.iter().map(|(pid, r)| (*pid, r))
    }

    pub fn remove(&mut self, pid: i32) -> Option<Running> {
        self.all.remove(&pid)
    }

    /// The next child that has ended.
    pub fn next_end(&self) -> Option<(i32, Exit)> {
        if self.early_kills == 0 {
            return process::wait_any();
        }
        process::wait_any_after(|pid| {
            if let Some(r) = self.all.get(&pid).filter(|r| r.condemned) {
                // Nobody may be there.
                let _ = r.child.signal_group(Signal::Kill);
            }
        })
    }

    /// SIGTERM to a service's process group.
    pub fn condemn(&mut self, pid: i32, started: Duration) -> Condemned {
        match self.all.get_mut(&pid) {
            Some(r) if r.started == started => match r.child.signal_group(Signal::Term) {
                Ok(()) => {
                    r.condemned = true;
                    self.early_kills += usize::from(r.child.has_group().is_none());
                    Condemned::Record
                }
                Err(e) if socket::is_scarcity(&e) => Condemned::Later,
                Err(_) => Condemned::Ended,
            },
            _ => Condemned::Ended,
        }
    }

    /// SIGKILL to a condemned service's process group, be the service itself there or not.
    pub fn kill(&mut self, pid: i32, started: Duration) {
        let left = self.left.remove(&(pid, started));
        let child = match self.all.get(&pid) {
            Some(r) if r.started == started => Some(&r.child),
            _ => left.as_ref(),
        };
        if let Some(Err(e)) = child.map(|c| c.signal_group(Signal::Kill)) {
            // Most often all have ended.
            log::debug!("process group {pid}: {e}");
        }
    }

    /// A service has ended: its line, now or when its relay has told its bytes.
    pub fn end(&mut self, mut running: Running, exit: Exit, at: Duration) {
        if running.condemned {
            match running.child.has_group() {
                Some(true) => drop(
                    self.left.insert((running.child.pid, running.started), running.child.take()),
                ),
                Some(false) => {}
                None => self.early_kills -= 1,
            }
        }
        let counts = running.service().is_some_and(|s| s.attributes.log_on_success.traffic);
        match running.stream {
            Some(stream)
                if counts && running.traffic.is_none() && self.streams.contains_key(&stream) =>
            {
                self.ended.insert(stream, Ended { running, exit, at });
            }
            stream => {
                if let Some(stream) = stream {
                    self.streams.remove(&stream);
                }
                tell(&running, exit, at);
            }
        }
    }

    /// A relay has ended and counted before its service was known to run.
    pub fn tally_early(&mut self, stream: Stream, to: u64, from: u64) {
        self.early.insert(stream, (to, from));
    }

    /// It did not run.
    pub fn forget_early(&mut self, stream: &Stream) {
        self.early.remove(stream);
    }

    /// A relay has ended and counted.
    pub fn tally(&mut self, stream: Stream, to: u64, from: u64) {
        let Some(pid) = self.streams.remove(&stream) else { return };
        if let Some(r) = self.all.get_mut(&pid) {
            r.traffic = Some((to, from));
        } else if let Some(mut e) = self.ended.remove(&stream) {
            e.running.traffic = Some((to, from));
            tell(&e.running, e.exit, e.at);
        }
    }

    /// A session is over: nothing of it will be counted any more.
    pub fn forget(&mut self, session: usize) {
        self.streams.retain(|stream, _| stream.0 != session);
        let over: Vec<Stream> = self.ended.keys().filter(|s| s.0 == session).copied().collect();
        for e in over.iter().filter_map(|s| self.ended.remove(s)) {
            tell(&e.running, e.exit, e.at);
        }
    }
}

fn tell(r: &Running, exit: Exit, at: Duration) {
    let Some(service) = r.service() else { return };
    lines::exit(&lines::Ended {
        pid: r.child.pid,
        exit,
        duration: at.saturating_sub(r.started),
        traffic: r.traffic,
        service,
        session: r.record.number,
    });
}
