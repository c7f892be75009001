//! The services that run: one entry each, from its start to its `EXIT` line.

use super::counts::{Counts, CountsOf, Traffic};
use super::terminals::Terminals;
use crate::parent::arrival::{Record, Requester, StreamTag};
use crate::parent::config::Config;
use crate::parent::lines;
use crate::parent::reports::tallies::Counted;
use crate::parent::tokens::{PortToken, SessionToken};
use crate::policy::{Backend, Service, ServiceId, Table, Ticket};
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
    /// The user that it runs as.
    pub uid: u32,
    pub config: Rc<Config>,
    pub service: ServiceId,
    /// None: it was released.
    pub ticket: Option<Ticket>,
    /// None: it has ended.
    pub counted: Option<Counted>,
    pub record: Record,
    /// The relay that counts its bytes. None: it has the client's own socket, or nobody counts.
    pub stream: Option<StreamTag>,
    pub started: Duration,
    /// When `server_timeout` will end it.
    pub until: Option<Duration>,
    /// Bytes to it and from it, once its relay has ended.
    pub traffic: Option<(u64, u64)>,
    /// The client's own socket, if it gets a lingering close after the service's end, and the user
    /// who has had it.
    pub lingering_close: Option<(Shared, u32)>,
    pub ending: Ending,
    pub output: Output,
}

/// Its output at its end, where the client is told of that end.
pub enum Output {
    /// None of it can be lost; or the client is not told.
    Safe,
    /// It may be, if the program leaves input unread: then this copy of its TCP socket is kept.
    Kept(Shared),
    /// It may be, and there was no descriptor for a copy.
    Unknown,
}

/// What its process group was sent because its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing.
    No,
    /// SIGTERM. SIGKILL follows for the whole group, even if the service itself has ended by then.
    Term,
    /// SIGKILL: nothing follows.
    Kill,
}

impl Running {
    pub fn service(&self) -> Option<&Service> {
        self.config.table.service(self.service)
    }

    /// Is it what a start of this service of a newer table would make?
    pub fn is_still(&self, table: &Table, id: ServiceId) -> bool {
        let before = &self.config.table;
        let (host, now) = (table.host(table.host_at_port(id)), table.service(id));
        host.is_some_and(|host| host.name == self.record.host)
            && self.service().zip(now).is_some_and(|(before, now)| before.is_same_row(now))
            && before.decided_at_a_time(self.service) == table.decided_at_a_time(id)
    }

    /// Sends SIGTERM to its process group.
    pub fn ask_to_end(&self) {
        if let Err(e) = self.child.signal_group(Signal::TERM) {
            log::debug!("process group {}: {e}", self.child.pid);
        }
    }
}

/// What became of a SIGTERM.
pub enum Terminated {
    /// It was sent.
    Sent,
    /// The service has ended already.
    Ended,
    /// No descriptor was free to send it: it must be tried again.
    Later,
}

/// A service that has ended, and whose line in the log waits for its relay's counts.
pub struct Ended {
    running: Running,
    exit: Exit,
    at: Duration,
}

/// See the module.
#[derive(Default)]
pub struct Runs {
    all: HashMap<i32, Running>,
    /// Services that were sent SIGTERM and have ended, while other processes of their group run;
    /// by process id and start.
    groups: HashMap<(i32, Duration), Child>,
    /// How many services were sent SIGTERM and still run, where a group cannot be signalled without
    /// its leader (before Linux 6.9). There the group gets SIGKILL when the leader ends, because
    /// after that its number may be given to another group.
    early_kills: usize,
    pub counts: Counts<Ended>,
    pub terminals: Terminals,
}

impl Runs {
    pub fn add(&mut self, mut running: Running) {
        let pid = running.child.pid;
        if let Some(stream) = running.stream {
            running.traffic = self.counts.runs(stream, pid);
        }
        self.all.insert(pid, running);
    }

    /// Does no service run, and no process of one that was sent SIGTERM?
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.groups.is_empty()
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (i32, &Running)> {
        self.all.iter().map(|(pid, r)| (*pid, r))
    }

    pub fn get(&self, pid: i32) -> Option<&Running> {
        self.all.get(&pid)
    }

    pub fn remove(&mut self, pid: i32) -> Option<Running> {
        self.all.remove(&pid)
    }

    /// Lets go of what it has of services' connections.
    pub fn let_go(&mut self) {
        for r in self.all.values_mut() {
            (r.lingering_close, r.output) = (None, Output::Safe);
        }
    }

    /// The next child that has ended, or this one if it has, which is to be reaped then.
    pub fn ended(&self, which: Option<i32>) -> Option<(i32, Exit)> {
        let (pid, exit) = process::ended(which)?;
        if self.early_kills > 0
            && let Some(r) = self.all.get(&pid).filter(|r| r.ending != Ending::No)
        {
            // This fails only where the group is empty.
            let _ = r.child.signal_group(Signal::KILL);
        }
        Some((pid, exit))
    }

    /// Sends SIGTERM to a service's process group.
    pub fn terminate(&mut self, pid: i32, started: Duration) -> Terminated {
        match self.all.get_mut(&pid) {
            Some(r) if r.started == started => match r.child.signal_group(Signal::TERM) {
                Ok(()) => {
                    r.ending = Ending::Term;
                    self.early_kills += usize::from(r.child.has_group().is_none());
                    Terminated::Sent
                }
                Err(e) if socket::is_scarcity(&e) => Terminated::Later,
                Err(_) => Terminated::Ended,
            },
            _ => Terminated::Ended,
        }
    }

    /// Sends SIGTERM to the process groups of the programs that have a port's socket itself.
    pub fn end_waits(&self) {
        self.waits().for_each(Running::ask_to_end);
    }

    /// Sends SIGTERM to the internal ones among them: no client is connected to one, and it would
    /// wait for the next datagram for some time.
    pub fn end_internal_waits(&self) {
        self.internal_waits().for_each(|(_, r)| r.ask_to_end());
    }

    /// Those, by the tokens of their ports.
    pub fn internal_waits(&self) -> impl Iterator<Item = (PortToken, &Running)> {
        self.all.values().filter_map(|r| match (r.record.requester, &r.service()?.backend) {
            (Requester::Wait(token), Backend::Internal(_)) => Some((token, r)),
            _ => None,
        })
    }

    /// Warns of those that have not ended when fived ends.
    pub fn warn_of_waits(&self) {
        for r in self.waits() {
            let place = r.service().map(|s| format!("{}:{}: {}: ", s.file, s.line, s.name));
            let (place, pid) = (place.unwrap_or_default(), r.child.pid);
            crate::log::warn(&format!(
                "{place}its program, pid {pid}, has not ended yet: until it has, its port is in use"
            ));
        }
    }

    /// The programs that have a port's socket itself.
    pub fn waits(&self) -> impl Iterator<Item = &Running> {
        self.all.values().filter(|r| matches!(r.record.requester, Requester::Wait(_)))
    }

    /// Sends SIGKILL to the process group of a service that was sent SIGTERM, even if the service
    /// itself has ended.
    pub fn kill(&mut self, pid: i32, started: Duration) {
        let group = self.groups.remove(&(pid, started));
        let child = match self.all.get_mut(&pid) {
            Some(r) if r.started == started => {
                r.ending = Ending::Kill;
                Some(&r.child)
            }
            _ => group.as_ref(),
        };
        if let Some(Err(e)) = child.map(|c| c.signal_group(Signal::KILL)) {
            // Usually because all processes of the group have ended.
            log::debug!("process group {pid}: {e}");
        }
    }

    /// A service has ended: logs its line, or keeps it until the relay's counts come.
    pub fn end(&mut self, mut running: Running, exit: Exit, at: Duration) {
        if running.ending != Ending::No {
            match running.child.has_group() {
                // Those that were sent SIGKILL may still be there; nobody waits for them.
                Some(true) if running.ending == Ending::Term => drop(
                    self.groups.insert((running.child.pid, running.started), running.child.take()),
                ),
                Some(_) => {}
                None => self.early_kills -= 1,
            }
        }
        let counts = running.service().is_some_and(|s| s.attributes.log_on_success.traffic);
        let most = running.config.table.settings.dialogues() as usize;
        let waits = running.stream.filter(|s| self.counts.ended(*s, running.child.pid));
        let ended = Ended { running, exit, at };
        match waits.filter(|_| counts) {
            Some(stream) => self.counts.wait(stream, most, at, ended),
            None => Some(ended),
        }
        .iter()
        .for_each(log_exit);
    }

    /// A relay has ended: its counts of bytes.
    pub fn tally(&mut self, stream: StreamTag, traffic: Traffic) {
        self.terminals.relay_over(stream);
        match self.counts.come(stream) {
            Some(CountsOf::Runs(pid)) => {
                self.all.get_mut(&pid).into_iter().for_each(|r| r.traffic = Some(traffic));
            }
            Some(CountsOf::Ended(mut ended)) => {
                ended.running.traffic = Some(traffic);
                log_exit(&ended);
            }
            None => {}
        }
    }

    /// A session is over: there will be no more counts for its services.
    pub fn forget(&mut self, session: SessionToken) {
        self.terminals.session_over(session);
        self.counts.forget(session).iter().for_each(log_exit);
    }
}

fn log_exit(Ended { running: r, exit, at }: &Ended) {
    let Some(service) = r.service() else { return };
    lines::exit(&lines::ExitLine {
        pid: r.child.pid,
        exit: *exit,
        duration: at.saturating_sub(r.started),
        traffic: r.traffic,
        service,
        session: r.record.number,
    });
}
