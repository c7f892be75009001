//! The services: which may start, which are on their way to exec, which run, until the last line
//! that is told of each.
//!
//! A start is under way for a moment (`sys::spawn::PendingStart`); meanwhile the next order is served. It
//! is remembered, told of and answered when it is over. Nothing waits long: a start that is late
//! (stopped, or with a file system that hangs in its way) is looked after now and then, while
//! everything goes on; killed, it did not start.

use super::arrival::{Answer, Arrival, Ends, From, Record, StartError, Stream};
use super::backend::exec::Plan;
use super::children::Role;
use super::config::Config;
use super::context::{Context, Timer};
use super::lines;
use super::running::{Condemned, Running, Runs};
use crate::policy::{Limits, Permit, Refusal, ServiceId, Ticket};
use crate::sys::clock;
use crate::sys::interrupt::Interrupt;
use crate::sys::shared::Shared;
use crate::sys::spawn::{Child, Failure, LOOK_AFTER, Launch, PendingStart, Stage};
use crate::wire::orders::Why;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Starts under way at a time, at most, late ones among them, where descriptors are not scarce. One
/// more waits, and is refused where all hang.
pub const STARTING: usize = 32;
/// Of these that are waited for. More than processors that could take a child's way to exec gain
/// nothing.
const AWAITED: usize = 4;
/// Starts of one user under way at a time: that user may be why they do not end. One more likewise.
const OF_ONE: usize = 12;
/// Older ones hang; until then a slow system may just be slow.
const HELD_UP: Duration = Duration::from_millis(100);
/// Between the signal that asks a service to end and the one that ends it.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// A service that could not be told to end for want of a descriptor is told so again.
const CONDEMN_AGAIN: Duration = Duration::from_secs(1);

/// A service on its way: all that its start borrows, and what is told of it.
struct Starting {
    config: Rc<Config>,
    service: ServiceId,
    ticket: Ticket,
    plan: Plan,
    connection: Shared,
    /// Net's end, where it is one of a pair.
    near: Option<OwnedFd>,
    record: Record,
}

impl Starting {
    fn launch(&self) -> Launch<'_> {
        self.plan.launch(self.connection.as_fd())
    }

    fn session(&self) -> Option<usize> {
        match self.record.from {
            From::Session(stream) => Some(stream.0),
            From::Net(_) | From::Port => None,
        }
    }
}

/// See the module.
pub struct Services {
    limits: Limits,
    /// Spawned and not yet at exec, the oldest first. They are dropped before their spawner is.
    starting: Vec<PendingStart<Starting>>,
    pub running: Runs,
    /// Sessions that have ended while starts of theirs were late: nobody counts bytes of these.
    over: BTreeSet<usize>,
    answers: Vec<Answer>,
    interrupt: Interrupt,
}

impl Services {
    pub fn new() -> io::Result<Services> {
        Ok(Services {
            limits: Limits::new(),
            starting: Vec::new(),
            running: Runs::default(),
            over: BTreeSet::new(),
            answers: Vec::new(),
            interrupt: Interrupt::new()?,
        })
    }

    /// Does nothing run, nor start, nor is left of one that was told to end?
    pub fn is_empty(&self) -> bool {
        self.starting.is_empty() && self.running.is_empty()
    }

    /// What became of arrivals, for those who asked.
    pub fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Decides whether an arrival may have its service, and takes its place among those that run.
    pub fn permit(&mut self, cx: &Context, a: &Arrival) -> Result<Permit, Refusal> {
        self.limits.permit(&a.config.table, a.service, &a.who.facts, cx.now, clock::load_average)
    }

    /// A permit that is not used gives its place back.
    pub fn release(&mut self, permit: Permit) {
        self.limits.release(permit.into_ticket());
    }

    /// Limits are relieved of what no longer matters.
    pub fn tidy(&mut self, now: Duration) {
        self.limits.tidy(now);
    }

    /// The one place where a service is started: a permit goes in by value.
    pub fn start(
        &mut self,
        cx: &mut Context,
        permit: Permit,
        plan: Plan,
        (config, record): (Rc<Config>, Record),
        (connection, near): (Shared, Option<OwnedFd>),
    ) {
        let alone = plan.has_extra();
        let (service, ticket) = (permit.service(), permit.into_ticket());
        let starting = Starting { config, service, ticket, plan, connection, near, record };
        let start = cx.spawner.begin(Box::new(starting), Starting::launch);
        if alone { self.over(cx, start, false) } else { self.starting.push(start) }
    }

    /// Waits until one more of this user may begin. False: what is in the way hangs.
    pub fn wait_for_turn(&mut self, cx: &mut Context, uid: u32) -> bool {
        loop {
            let of_one = |f: &&PendingStart<Starting>| f.payload().plan.uid == uid;
            let all_full = self.starting.len() >= cx.spawner.capacity();
            if all_full || self.starting.iter().filter(of_one).count() >= OF_ONE {
                let in_the_way = |f: &&PendingStart<Starting>| all_full || of_one(f);
                if self.starting.iter().filter(in_the_way).all(|f| f.age() > HELD_UP) {
                    return false;
                }
            } else if self.starting.iter().filter(|f| !f.is_late()).count() < AWAITED {
                return true;
            }
            self.wait_for_one(cx);
        }
    }

    /// Nothing is started: the log and whoever asked are told.
    pub fn refuse(&mut self, cx: &mut Context, a: Arrival, record: Record, no: StartError) {
        let with = Ends { client: a.client, near: None };
        self.refused(cx, (&a.config, a.service), &record, no, with);
    }

    fn refused(
        &mut self,
        cx: &mut Context,
        (config, id): (&Config, ServiceId),
        record: &Record,
        no: StartError,
        with: Ends,
    ) {
        cx.counters.refused += 1;
        if let Some(service) = config.table.service(id) {
            lines::refused(service, record, &no);
        }
        let outcome = Err(no.reply);
        let said = match (record.from, no.reply) {
            (From::Port, Some(Why::Busy | Why::Failed)) => {
                config.table.service(id).map_or_else(Vec::new, |s| s.attributes.tail())
            }
            _ => Vec::new(),
        };
        self.answers.push(Answer { to: record.from, service: id, outcome, said, with });
    }

    /// Ends the turns of all that are over, and waits for one that is not; what was waited for in
    /// vain is looked after.
    pub fn settle(&mut self, cx: &mut Context) {
        self.look(cx);
        self.starting.iter_mut().filter(|f| f.is_late()).for_each(PendingStart::look_after);
        if self.starting.iter().any(|f| !f.is_late()) {
            self.wait_for_one(cx);
        }
    }

    /// How long the loop may wait for something else.
    pub fn settled_for(&self) -> Option<Duration> {
        let late = self.starting.iter().all(PendingStart::is_late);
        (!self.starting.is_empty()).then_some(if late { LOOK_AFTER } else { Duration::ZERO })
    }

    /// What is under way is over, or proves to be late.
    pub fn settle_all(&mut self, cx: &mut Context) {
        self.look(cx);
        while self.settled_for() == Some(Duration::ZERO) {
            self.settle(cx);
        }
    }

    fn wait_for_one(&mut self, cx: &mut Context) {
        let first = self.starting.iter().position(|f| !f.is_late()).unwrap_or(0);
        if let Some(f) = self.starting.get_mut(first) {
            f.wait();
        }
        self.look(cx);
    }

    /// Looks which starts are over.
    pub fn look(&mut self, cx: &mut Context) {
        while let Some(n) = self.starting.iter().position(PendingStart::is_over) {
            let start = self.starting.remove(n);
            self.over(cx, start, false);
        }
    }

    /// The child whose end was just heard of may be one of which it was not known yet that it ran.
    pub fn reaped(&mut self, cx: &mut Context, pid: i32) {
        if let Some(n) = self.starting.iter().position(|f| f.pid() == Some(pid)) {
            let start = self.starting.remove(n);
            self.over(cx, start, true);
        }
    }

    /// A start is over: the service runs, or it does not.
    fn over(&mut self, cx: &mut Context, start: PendingStart<Starting>, reaped: bool) {
        // The service's socket is closed below, and that must not take long.
        self.interrupt.want();
        let (starting, result) = cx.spawner.finish(start, reaped);
        let no = result.map_err(|f| not_started(f, &starting.launch()));
        let Starting { config, service, ticket, connection, near, record, .. } = *starting;
        match no {
            Ok(child) => {
                self.runs(cx, (config, service, ticket), record, child, (connection, near))
            }
            Err(no) => {
                self.limits.release(ticket);
                if let From::Session(stream) = record.from {
                    self.running.forget_early(&stream);
                }
                let plain = matches!(record.from, From::Net(_) | From::Port);
                let client = plain.then_some(connection);
                self.refused(cx, (&config, service), &record, no, Ends { client, near });
            }
        }
        self.over.retain(|s| self.starting.iter().any(|f| f.payload().session() == Some(*s)));
    }

    fn runs(
        &mut self,
        cx: &mut Context,
        (config, id, ticket): (Rc<Config>, ServiceId, Ticket),
        record: Record,
        child: Child,
        (connection, near): (Shared, Option<OwnedFd>),
    ) {
        cx.counters.starts += 1;
        let (pid, started) = (child.pid, record.at);
        ::log::debug!("pid {pid} runs {:?} after it was asked for", cx.now.saturating_sub(started));
        let Some(service) = config.table.service(id) else { return };
        lines::start(service, pid, &record);
        let until = service.attributes.server_timeout.map(|s| {
            let until = started + Duration::from_secs(s.into());
            cx.at(until, Timer::Terminate { pid, started });
            until
        });
        let (stream, lingering_close) = match record.from {
            From::Session(s) if self.over.contains(&s.0) => {
                // Its session has ended meanwhile, and counts no bytes of it any more.
                self.running.forget_early(&s);
                (None, None)
            }
            From::Session(s) => (Some(s), None),
            From::Net(_) | From::Port if service.attributes.lingering_close => {
                (None, copy(cx, &connection))
            }
            From::Net(_) | From::Port => (None, None),
        };
        cx.children.add(pid, Role::Service);
        let to = record.from;
        self.running.add(Running {
            child,
            config,
            service: id,
            ticket: Some(ticket),
            record,
            stream,
            started,
            until,
            traffic: None,
            lingering_close,
            condemned: false,
        });
        let with = Ends { client: None, near };
        self.answers.push(Answer { to, service: id, outcome: Ok(()), said: Vec::new(), with });
    }

    /// A service has ended: its place is free. Returns the client's own socket, where the client is
    /// to be heard out.
    pub fn ended(
        &mut self,
        cx: &mut Context,
        pid: i32,
        exit: crate::sys::process::Exit,
    ) -> Option<Shared> {
        let mut running = self.running.remove(pid)?;
        if let Some(ticket) = running.ticket.take() {
            self.limits.release(ticket);
        }
        if let Some(until) = running.until {
            cx.not_at(until, Timer::Terminate { pid, started: running.started });
        }
        let lingering_close = running.lingering_close.take();
        self.running.end(running, exit, cx.now);
        lingering_close
    }

    /// `server_timeout`: SIGTERM, and SIGKILL after a while.
    pub fn terminate(&mut self, cx: &mut Context, pid: i32, started: Duration) {
        match self.running.condemn(pid, started) {
            Condemned::Record => cx.after(KILL_AFTER, Timer::Kill { pid, started }),
            Condemned::Later => {
                cx.out_of_descriptors();
                cx.after(CONDEMN_AGAIN, Timer::Terminate { pid, started });
            }
            Condemned::Ended => {}
        }
    }

    /// A relay has ended and counted.
    pub fn tally(&mut self, stream: Stream, to: u64, from: u64) {
        let starts = |f: &PendingStart<Starting>| matches!(f.payload().record.from, From::Session(s) if s == stream);
        match self.starting.iter().any(starts) {
            true => self.running.tally_early(stream, to, from),
            false => self.running.tally(stream, to, from),
        }
    }

    /// Is a plain connection of that net process on its way to its service? What hangs is not.
    pub fn starts_for_net(&self, net: usize) -> bool {
        let of_net = |f: &PendingStart<Starting>| matches!(f.payload().record.from, From::Net(n) if n == net);
        self.starting.iter().any(|f| !f.is_late() && of_net(f))
    }

    /// What a session began is told of before its end, but for what is late.
    pub fn settle_session(&mut self, cx: &mut Context, session: usize) {
        let of = |f: &PendingStart<Starting>| f.payload().session() == Some(session);
        while self.starting.iter().any(|f| !f.is_late() && of(f)) {
            self.wait_for_one(cx);
        }
    }

    /// A session is over: nothing of it will be counted any more.
    pub fn forget(&mut self, session: usize) {
        if self.starting.iter().any(|f| f.payload().session() == Some(session)) {
            self.over.insert(session);
        }
        self.running.forget(session);
    }

    /// The next turn of the loop begins: a close that was to be interrupted is over.
    pub fn rest(&mut self) {
        self.interrupt.rest();
    }

    /// Ends what never came to exec. Returns how many hung.
    pub fn abandon(&mut self) -> usize {
        let hang = self.starting.len();
        self.starting.drain(..).for_each(PendingStart::abandon);
        hang
    }
}

/// Without a descriptor for it the client's end is the service's, as it is without the attribute.
fn copy(cx: &Context, connection: &Shared) -> Option<Shared> {
    cx.descriptors
        .copy(connection.as_fd())
        .inspect_err(|e| ::log::debug!("lingering_close: {e}"))
        .ok()
}

fn not_started(f: Failure, launch: &Launch) -> StartError {
    let busy = f.is_scarcity();
    let file = match f.stage {
        Stage::Chroot => launch.chroot,
        Stage::Directory => Some(launch.directory),
        Stage::Check | Stage::Interpreter | Stage::Exec => Some(launch.program),
        _ => None,
    };
    let text =
        file.map_or_else(|| f.to_string(), |file| format!("{}: {f}", file.to_string_lossy()));
    let mut no = match busy {
        false => StartError::from(text),
        true if f.lacks_descriptors() => StartError::busy("descriptors", Some(text)),
        true => StartError::busy("processes", Some(text)),
    };
    if f.is_peer_gone() {
        no.reason = "gone";
    }
    if f.greeted || f.is_peer_gone() {
        no.reply = None;
    }
    no
}
