//! From an order to a running service: decide, lay out, spawn, remember. There is no other way to a process.

use super::catalog::{Account, Prepared};
use super::children::{Role, Running, Stream};
use super::config::Config;
use super::environment::{self, Remote, Tls};
use super::run::{Parent, Timer};
use crate::log::Event;
use crate::policy::{Busy, Denied, Facts, Internal, Permit, Program, Refusal, Service, ServiceId};
use crate::sys::spawn::{Check, Child, Failure, Launch, Stage};
use crate::sys::{clock, memfd};
use crate::wire::orders::{SESSIONS, TOO_LONG, Why};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

/// Who wants it: the facts that the parent knows itself.
pub struct Who<'a> {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub facts: Facts,
    /// The session's number.
    pub number: u64,
    /// Who logged in: the account, if it is one of this computer, and how.
    pub account: Option<(Option<&'a Rc<Account>>, &'static str)>,
    pub tls: Option<&'a Tls>,
    pub stream: Option<Stream>,
}

impl Parent {
    /// Starts a service on this connection, if the policy permits it. Err: what the client is told; the log has the reason.
    pub fn start(&mut self, config: &Rc<Config>, service: ServiceId, who: &Who, connection: BorrowedFd) -> Result<(), Why> {
        let mut permit = self.permit(config, service, who);
        if let Err(Refusal::Busy(Busy::Instances | Busy::PerSource)) = permit {
            // A client that saw the service end may be back before we have heard of that end.
            let running = self.children.services;
            self.reap();
            if self.children.services < running {
                permit = self.permit(config, service, who);
            }
        }
        match permit {
            Ok(permit) => self.spawn(config, permit, who, connection),
            Err(Refusal::Denied(d)) => Err(self.refuse(config, service, who, Why::NotAvailable, d.as_str(), None)),
            Err(Refusal::Busy(b)) => Err(self.refuse(config, service, who, Why::Busy, b.as_str(), None)),
        }
    }

    fn permit(&mut self, config: &Config, service: ServiceId, who: &Who) -> Result<Permit, Refusal> {
        self.limits.permit(&config.table, service, &who.facts, self.now, clock::load_average)
    }

    /// The one place where a service is started: a permit goes in by value.
    fn spawn(&mut self, config: &Rc<Config>, permit: Permit, who: &Who, connection: BorrowedFd) -> Result<(), Why> {
        let id = permit.service();
        let ticket = permit.into_ticket();
        let launched = config.catalog.prepared(&config.table, id).map_err(failed).and_then(|p| {
            let service = config.table.service(id).ok_or_else(|| failed("no such service".into()))?;
            self.launch(config, service, &p, who, connection)
        });
        let child = match launched {
            Ok(child) => child,
            Err(no) => {
                self.limits.release(ticket);
                let why = self.refuse(config, id, who, no.told.unwrap_or(Why::Failed), no.reason, Some(&no.text));
                return no.told.map_or(Ok(()), |_| Err(why));
            }
        };
        self.counters.starts += 1;
        let host = host_name(config, &who.facts).to_string();
        let user = who.facts.login.as_ref().map(|l| l.name.clone());
        let started = self.now;
        let pid = child.pid;
        if let Some(service) = config.table.service(id) {
            note_start(service, pid, &host, who);
            if let Some(seconds) = service.attributes.server_timeout {
                self.at(started + Duration::from_secs(seconds.into()), Timer::Terminate { pid, started });
            }
        }
        let running = Running {
            child,
            config: config.clone(),
            service: id,
            ticket: Some(ticket),
            host,
            peer: who.peer,
            session: who.number,
            user,
            stream: who.stream,
            started,
            traffic: None,
        };
        self.children.add(pid, Role::Service(Box::new(running)));
        Ok(())
    }

    fn launch(
        &mut self,
        config: &Rc<Config>,
        service: &Service,
        prepared: &Prepared,
        who: &Who,
        connection: BorrowedFd,
    ) -> Result<Child, NoStart> {
        let own;
        let (account, identity) = match (&prepared.owner, who.account) {
            (Some((account, identity)), _) => (account, identity),
            (None, Some((Some(account), _))) => {
                own = prepared.identity_of(account);
                (account, &own)
            }
            (None, _) => return Err(failed("who logged in is no user of this computer".into())),
        };
        let needs = prepared.needs().map_err(failed)?;
        let check = needs.as_deref().map_or(Check::None, Check::Needs);
        let login = who.facts.login.as_ref().zip(who.account).map(|(l, (_, method))| (l.name.as_str(), method));
        let host = host_name(config, &who.facts);
        let remote = Remote { peer: who.peer, local: who.local, host, session: who.number, login, tls: who.tls };
        let env = environment::of(service, &account.user, &remote).map_err(|_| failed("a zero byte in the environment".into()))?;
        let state = match service.program {
            Program::Internal(Internal::Status) => {
                Some(memfd::sealed(self.state().as_bytes()).map_err(|e| failed(format!("memory file: {e}")))?)
            }
            _ => None,
        };
        let home = match &prepared.directory {
            None if prepared.owner.is_none() => std::ffi::CString::new(account.user.home.as_str()).ok(),
            given => given.clone(),
        };
        let a = &service.attributes;
        let launch = Launch {
            program: &prepared.program,
            argv: &prepared.argv,
            env: &env,
            identity: (crate::sys::identity::effective_uid() == 0).then_some(identity),
            chroot: prepared.chroot.as_deref(),
            directory: home.as_deref().unwrap_or(c"/"),
            umask: a.umask,
            nice: a.nice,
            rlimits: &prepared.rlimits,
            no_new_privs: a.no_new_privs,
            stderr: prepared.stderr,
            check,
            greeting: &prepared.greeting,
            connection,
            extra: state.as_ref().map(AsFd::as_fd),
            second: None,
            new_session: true,
        };
        if launch.identity.is_none() && identity.uid != crate::sys::identity::effective_uid() {
            return Err(failed("fived was not started by root, so it cannot run as another user".into()));
        }
        self.spawner.start(&launch).map_err(|f| no_start(f, &launch))
    }

    /// Notes a refusal of ours and gives back what the client is told.
    fn refuse(&mut self, config: &Config, id: ServiceId, who: &Who, why: Why, reason: &str, text: Option<&str>) -> Why {
        self.counters.refused += 1;
        let Some(service) = config.table.service(id) else { return Why::NotAvailable };
        let what = &service.attributes.log_on_failure;
        let mut line = Event::new("REFUSE").word("service", &service.name).word("host", host_name(config, &who.facts));
        if what.host {
            line = line.address("from", who.peer.ip());
        }
        line = line.word("reason", reason);
        if let (true, Some(l)) = (what.userid, &who.facts.login) {
            line = line.word("user", &l.name);
        }
        line = line.number("session", who.number);
        match text {
            Some(t) => line.text(t).put(),
            None => line.put(),
        }
        why
    }
}

/// Why nothing was started.
struct NoStart {
    /// What the client is told; None: nothing can be told any more, its connection just ends.
    told: Option<Why>,
    reason: &'static str,
    text: String,
}

fn failed(text: String) -> NoStart {
    NoStart { told: Some(Why::Failed), reason: "failed", text }
}

fn no_start(f: Failure, launch: &Launch) -> NoStart {
    let (why, reason) = match (f.is_scarcity(), f.stage) {
        (false, _) => (Why::Failed, "failed"),
        (true, Stage::Descriptors) => (Why::Busy, "descriptors"),
        (true, _) => (Why::Busy, "processes"),
    };
    let gone = f.greeted || f.is_peer_gone();
    let file = match f.stage {
        Stage::Chroot => launch.chroot,
        Stage::Directory => Some(launch.directory),
        Stage::Check | Stage::Exec => Some(launch.program),
        _ => None,
    };
    let text = file.map_or_else(|| f.to_string(), |file| format!("{}: {f}", file.to_string_lossy()));
    NoStart { told: (!gone).then_some(why), reason: if f.is_peer_gone() { "gone" } else { reason }, text }
}

fn host_name<'a>(config: &'a Config, facts: &Facts) -> &'a str {
    config.table.host(facts.host).map_or("", |h| h.name.as_str())
}

/// `START service= host= pid= from= session=`
fn note_start(service: &Service, pid: i32, host: &str, who: &Who) {
    let what = &service.attributes.log_on_success;
    if !what.any() {
        return;
    }
    let mut line = Event::new("START").word("service", &service.name).word("host", host);
    if what.pid {
        line = line.number("pid", pid);
    }
    if what.host {
        line = line.address("from", who.peer.ip());
    }
    line = line.number("session", who.number);
    match &who.facts.login {
        Some(l) => line.word("user", &l.name).put(),
        None => line.put(),
    }
}

/// The word for a reason of net's.
pub fn reason(number: u32) -> Option<&'static str> {
    match number {
        TOO_LONG => Some("too-long"),
        SESSIONS => Some("sessions"),
        n => Denied::from_number(n).map(Denied::as_str),
    }
}
