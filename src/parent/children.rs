//! What runs: one entry a child, from its start to the line that tells its end.

use super::config::Config;
use crate::log::Event;
use crate::policy::{Service, ServiceId, Ticket};
use crate::sys::process::{self, Exit};
use crate::sys::shared::Shared;
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::Child;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A relayed connection's place: its session's token, its tag there.
pub type Stream = (usize, u32);

/// A service that runs.
pub struct Running {
    pub child: Child,
    pub config: Rc<Config>,
    pub service: ServiceId,
    /// None once it was given back.
    pub ticket: Option<Ticket>,
    pub host: String,
    pub peer: SocketAddr,
    pub session: u64,
    pub user: Option<String>,
    /// None: it has the client's own socket.
    pub stream: Option<Stream>,
    pub started: Duration,
    /// When `server_timeout` ends it.
    pub until: Option<Duration>,
    /// Bytes to it and from it, once its relay has ended.
    pub traffic: Option<(u64, u64)>,
    /// The client's own socket, where it is to be heard out after the service's end.
    pub lingers: Option<Shared>,
    /// It was told to end: whoever is in its process group will be killed, be it there still or
    /// not.
    pub condemned: bool,
}

impl Running {
    pub fn service(&self) -> Option<&Service> {
        self.config.table.service(self.service)
    }
}

/// What a child is.
pub enum Role {
    Service(Box<Running>),
    /// A net process, by its token.
    Net(usize),
    /// A keys process, by its token.
    Keys(usize),
    /// Looks up the name of an address.
    Name,
    /// Looks up a user or a group.
    Account,
    /// A login child, by the number of its try.
    Login(u64),
}

/// What came of a service's being told to end.
pub enum Condemned {
    Told,
    /// It has ended.
    Ended,
    /// There was no descriptor for it: it is to be told again.
    Later,
}

/// An end that waits for its relay to count its bytes.
pub struct Ended {
    running: Box<Running>,
    exit: Exit,
    at: Duration,
}

#[derive(Default)]
pub struct Children {
    pub roles: HashMap<i32, Role>,
    pub services: usize,
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
    pub early: HashMap<Stream, (u64, u64)>,
}

impl Children {
    pub fn add(&mut self, pid: i32, role: Role) {
        if let Role::Service(r) = &role {
            self.services += 1;
            if let (Some(stream), None) = (r.stream, r.traffic) {
                self.streams.insert(stream, pid);
            }
        }
        self.roles.insert(pid, role);
    }

    /// Does no service run, nor what a condemned one has left behind?
    pub fn is_empty(&self) -> bool {
        self.services == 0 && self.left.is_empty()
    }

    pub fn running(&self) -> impl Iterator<Item = (i32, &Running)> {
        self.roles.iter().filter_map(|(pid, role)| match role {
            Role::Service(r) => Some((*pid, &**r)),
            _ => None,
        })
    }

    pub fn remove(&mut self, pid: i32) -> Option<Role> {
        let role = self.roles.remove(&pid)?;
        if let Role::Service(_) = role {
            self.services -= 1;
        }
        Some(role)
    }

    /// The next child that has ended.
    pub fn next_end(&self) -> Option<(i32, Exit)> {
        if self.early_kills == 0 {
            return process::wait_any();
        }
        process::wait_any_after(|pid| {
            if let Some(Role::Service(r)) = self.roles.get(&pid)
                && r.condemned
            {
                // Nobody may be there.
                let _ = r.child.signal_group(Signal::Kill);
            }
        })
    }

    /// SIGTERM to a service's process group.
    pub fn condemn(&mut self, pid: i32, started: Duration) -> Condemned {
        match self.roles.get_mut(&pid) {
            Some(Role::Service(r)) if r.started == started => {
                match r.child.signal_group(Signal::Term) {
                    Ok(()) => {
                        r.condemned = true;
                        self.early_kills += usize::from(r.child.has_group().is_none());
                        Condemned::Told
                    }
                    Err(e) if socket::is_scarcity(&e) => Condemned::Later,
                    Err(_) => Condemned::Ended,
                }
            }
            _ => Condemned::Ended,
        }
    }

    /// SIGKILL to a condemned service's process group, be the service itself there or not.
    pub fn kill(&mut self, pid: i32, started: Duration) {
        let left = self.left.remove(&(pid, started));
        let child = match self.roles.get(&pid) {
            Some(Role::Service(r)) if r.started == started => Some(&r.child),
            _ => left.as_ref(),
        };
        if let Some(Err(e)) = child.map(|c| c.signal_group(Signal::Kill)) {
            // Most often all have ended.
            log::debug!("process group {pid}: {e}");
        }
    }

    /// A service has ended: its line, now or when its relay has told its bytes.
    pub fn end(&mut self, mut running: Box<Running>, exit: Exit, at: Duration) {
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

    /// A relay has ended and counted.
    pub fn tally(&mut self, stream: Stream, to: u64, from: u64) {
        let Some(pid) = self.streams.remove(&stream) else { return };
        if let Some(Role::Service(r)) = self.roles.get_mut(&pid) {
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

/// `EXIT service= pid= status= duration= session=`
fn tell(r: &Running, exit: Exit, at: Duration) {
    let Some(service) = r.service() else { return };
    let what = &service.attributes.log_on_success;
    if !(what.exit || what.duration || what.traffic) {
        return;
    }
    let mut line = Event::new("EXIT").word("service", &service.name);
    if what.pid {
        line = line.number("pid", r.child.pid);
    }
    if what.exit {
        line = match exit {
            Exit::Status(n) => line.number("status", n),
            Exit::Signal(n) => line.number("signal", n),
        };
    }
    if what.duration {
        line = line.seconds("duration", at.saturating_sub(r.started));
    }
    if let (true, Some((to, from))) = (what.traffic, r.traffic) {
        // The reply before it is fived's own.
        let ours = service.attributes.greeting(service.announce).len() as i128;
        line = line.number("in", to).number("out", (i128::from(from) - ours).max(0));
    }
    line.number("session", r.session).put();
}
