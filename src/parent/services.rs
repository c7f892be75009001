//! The services: which may start, which are between spawn and exec, and which run.
//!
//! A start takes a moment (`sys::spawn::PendingStart`), and the parent serves the next order
//! meanwhile; when the start is over, the parent logs it and answers. A start may be late because
//! its child was stopped or a file system does not answer. Nothing waits long for it: the parent
//! checks it now and then, while everything else goes on. A child that takes too long is killed,
//! and its service counts as not started.
//!
//! | file | noun |
//! |---|---|
//! | `starting` | those that start |
//! | `started` | what comes of a start |
//! | `running` | those that run |
//! | `terminals` | the processes of their terminals |
//! | `counts` | bytes of their relays, and lines that wait for them |
//! | `turns` | how many may be starting, and who waits for them |
//! | `deferred` | those that wait for their turn |
//! | `held_up` | users whose starts are held up |
//! | `undelivered` | sockets of services that have ended, until net has all of their output |
//! | `lingering` | the lingering close of sockets that services have had |

mod counts;
pub mod deferred;
pub mod held_up;
pub mod lingering;
pub mod running;
mod started;
mod starting;
mod terminals;
pub mod turns;
mod undelivered;

use super::arrival::{
    Arrival, Given, Record, Requester, Returned, StartError, StartOutcome, StreamTag,
};
use super::backend::exec::Plan;
use super::config::Config;
use super::context::{Context, Timer};
use super::refusals::Refusals;
use super::tokens::{NetToken, PortToken, SessionToken};
use crate::policy::{Grammar, Limits, Permit, Refusal, Service, ServiceId, Ticket};
use crate::sys::clock;
use crate::sys::foreign;
use crate::sys::interrupt::Interrupt;
use crate::sys::process::Exit;
use crate::sys::shared::Shared;
use crate::sys::spawn::PendingStart;
use crate::wire::orders::Why;
use running::{Output, Runs, Terminated};
use starting::{Copies, Starting};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use undelivered::{RunEnds, Undelivered};

/// Between the signal that asks a service to end (SIGTERM) and the one that ends it (SIGKILL).
const KILL_AFTER: Duration = Duration::from_secs(5);
/// When a service could not be sent SIGTERM for lack of a descriptor, fived tries again.
const TERMINATE_RETRY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Services {
    pub(super) limits: Limits,
    /// Spawned and not yet at exec, the oldest first. They must be dropped before their spawner.
    pub(super) starting: Vec<PendingStart<Starting>>,
    pub running: Runs,
    /// Sessions that have ended while starts of theirs were late: nobody counts their bytes.
    ended_sessions: BTreeSet<SessionToken>,
    outcomes: Vec<StartOutcome>,
    run_ends: RunEnds,
    /// Ports whose program had the socket itself, and has ended.
    freed: Vec<PortToken>,
    /// An internal service that has a port's socket itself was started as an older table has it.
    outdated: bool,
    /// Those whose net process keeps a copy of the client's socket.
    kept_copies: Vec<Requester>,
    pub refusals: Refusals,
    undelivered: Undelivered,
    interrupt: Interrupt,
}

impl Services {
    pub fn new() -> io::Result<Services> {
        Ok(Services {
            limits: Limits::new(),
            starting: Vec::new(),
            running: Runs::default(),
            ended_sessions: BTreeSet::new(),
            outcomes: Vec::new(),
            run_ends: RunEnds::new(),
            freed: Vec::new(),
            outdated: false,
            kept_copies: Vec::new(),
            refusals: Refusals::default(),
            undelivered: Undelivered::default(),
            interrupt: Interrupt::new()?,
        })
    }

    /// Does nothing run or start, and is no process left of a service that was asked to end? What
    /// cannot be killed on its way to its start does not count: it may never end.
    pub fn is_empty(&self) -> bool {
        self.starting.iter().all(PendingStart::cannot_be_killed) && self.running.is_empty()
    }

    /// What became of arrivals, since the last call.
    pub fn outcomes(&mut self) -> Vec<StartOutcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// How services of RUN have ended since the last call.
    pub fn run_ends(&mut self) -> RunEnds {
        std::mem::take(&mut self.run_ends)
    }

    /// The ports whose program had the socket itself and has ended since the last call.
    pub fn freed(&mut self) -> Vec<PortToken> {
        std::mem::take(&mut self.freed)
    }

    /// Has an internal service of `wait` been started since the last call as an older table has it?
    /// Its start was decided, or waited for what decides, when a reload came.
    pub fn started_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// The requesters since the last call whose net process does not close its copy of a client's
    /// socket that it has handed over.
    pub fn kept_copies(&mut self) -> Vec<Requester> {
        std::mem::take(&mut self.kept_copies)
    }

    /// Decides whether an arrival may have its service, and takes its place among those that run.
    pub fn permit(&mut self, cx: &Context, a: &Arrival) -> Result<Permit, Refusal> {
        let (table, facts, load) = (&a.config.table, &a.who.facts, clock::load_average);
        self.limits.permit(table, a.service, facts, cx.now, load)
    }

    /// A permit that is not used gives its place back.
    pub fn release(&mut self, permit: Permit) {
        self.limits.release(permit.into_ticket());
    }

    /// What has ended gives its place back.
    pub fn take_back(&mut self, ticket: Ticket) {
        self.limits.release(ticket);
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
        config: Rc<Config>,
        record: Record,
        given: Given,
    ) {
        let (service, ticket) = (permit.service(), permit.into_ticket());
        let (Given { passed, net_ends }, uid) = (given, plan.uid);
        let row = config.table.service(service);
        let copies = Copies::make(cx, row, &record, &plan, &passed.connection);
        let starting = Starting { config, service, ticket, plan, net_ends, record, copies };
        // What net has handed over with earlier orders about this client, such as its session's,
        // and is to be closed elsewhere.
        foreign::settle();
        let mut start = cx.spawner.begin_passing(Box::new(starting), passed, Starting::launch);
        start.expect_late(cx.held_up.has(uid, cx.now));
        self.starting.push(start);
    }

    /// An arrival that is not started: the log has its line, and whoever asked an answer.
    pub fn refuse(&mut self, cx: &mut Context, a: Arrival, record: Record, error: StartError) {
        let returned = Returned { client: a.client, ..Returned::default() };
        self.refused(cx, &a.config, a.service, &record, error, returned);
    }

    fn refused(
        &mut self,
        cx: &mut Context,
        config: &Config,
        id: ServiceId,
        record: &Record,
        error: StartError,
        returned: Returned,
    ) {
        let service = config.table.service(id);
        self.refusals.refused(cx, service, record, &error);
        let (requester, result) = (record.requester, Err(error.reply));
        let text = match (record.requester, error.reply, service) {
            (Requester::Port(_), Some(why), Some(s)) if is_told(s, why) => s.attributes.tail(),
            _ => Vec::new(),
        };
        self.outcomes.push(StartOutcome { requester, service: id, result, text, returned });
    }

    /// Finishes the starts that are over.
    pub fn finish_starts(&mut self, cx: &mut Context) {
        while let Some(n) = self.starting.iter().position(PendingStart::is_over) {
            let start = self.starting.remove(n);
            self.finish(cx, start);
        }
    }

    /// A child has ended: it may be one whose start was not finished yet.
    pub fn child_ended(&mut self, cx: &mut Context, pid: i32) {
        if let Some(n) = self.starting.iter().position(|start| start.pid() == Some(pid)) {
            let start = self.starting.remove(n);
            self.finish(cx, start);
        }
    }

    /// A service has ended, so its place is free. Returns the client's own socket, where that is to
    /// get a lingering close, and the user who has had it.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) -> Option<(Shared, u32)> {
        let mut running = self.running.remove(pid)?;
        if let Requester::Wait(port) = running.record.requester {
            self.freed.push(port);
        }
        if let Some(ticket) = running.ticket.take() {
            self.limits.release(ticket);
        }
        running.counted = None;
        if let Some(until) = running.until {
            cx.cancel(until, Timer::Terminate { pid, started: running.started });
        }
        let output = std::mem::replace(&mut running.output, Output::Safe);
        let status = undelivered::status(exit);
        self.undelivered.ended(cx, &running.record, status, output, &mut self.run_ends);
        let lingering_close = running.lingering_close.take();
        self.running.end(running, exit, cx.now);
        lingering_close
    }

    /// Looks for output of services that has been delivered after their end.
    pub fn look_undelivered(&mut self, cx: &mut Context) {
        self.undelivered.look(cx, &mut self.run_ends);
    }

    /// fived ends: what it has of services' connections is closed as ever, and not by the end of
    /// this process, which would wait for whoever keeps that from going on.
    pub fn let_go(&mut self) {
        self.undelivered = Undelivered::default();
        self.running.let_go();
    }

    /// `server_timeout`: SIGTERM, and SIGKILL after a while.
    pub fn terminate(&mut self, cx: &mut Context, pid: i32, started: Duration) {
        match self.running.terminate(pid, started) {
            Terminated::Sent => cx.after(KILL_AFTER, Timer::Kill { pid, started }),
            Terminated::Later => {
                cx.out_of_descriptors();
                cx.after(TERMINATE_RETRY, Timer::Terminate { pid, started });
            }
            Terminated::Ended => {}
        }
    }

    /// A relay has ended: its counts of bytes.
    pub fn tally(&mut self, stream: StreamTag, to: u64, from: u64) {
        match self.starts(stream) {
            true => self.running.counts.early(stream, (to, from)),
            false => self.running.tally(stream, (to, from)),
        }
    }

    fn starts(&self, stream: StreamTag) -> bool {
        let is_of = |from: &Requester| matches!(from, Requester::Session(s) if *s == stream);
        self.starting.iter().any(|start| is_of(&start.payload().record.requester))
    }

    /// Has that stream a service, or one whose end is not logged yet?
    pub fn has(&self, stream: StreamTag) -> bool {
        self.starts(stream) || self.running.counts.has(stream)
    }

    /// Is a service of a plain connection from that net process being started? A late one does not
    /// count.
    pub fn starts_for_net(&self, net: NetToken) -> bool {
        let is_of = |from: &Requester| matches!(from, Requester::Net(n) if *n == net);
        self.starting
            .iter()
            .any(|start| !start.is_late() && is_of(&start.payload().record.requester))
    }

    /// Finishes the starts of a session before the session ends, but for late ones.
    pub fn settle_session(&mut self, cx: &mut Context, session: SessionToken) {
        let of = |start: &PendingStart<Starting>| start.payload().session() == Some(session);
        while self.starting.iter().any(|start| !start.is_late() && of(start)) {
            self.wait_for_one(cx);
        }
    }

    /// A session is over: no bytes of it will be counted any more.
    pub fn forget(&mut self, session: SessionToken) {
        if self.starting.iter().any(|start| start.payload().session() == Some(session)) {
            self.ended_sessions.insert(session);
        }
        self.running.forget(session);
    }

    /// What others have sent or left may be closed now, and no close may take long.
    pub fn want_interrupt(&mut self) {
        self.interrupt.want();
    }

    /// A new turn of the loop: no close needs the interrupt now.
    pub fn rest_interrupt(&mut self) {
        self.interrupt.rest();
    }

    /// Ends the starts that have not reached exec. Returns how many there were.
    pub fn abandon(&mut self) -> usize {
        self.starting.drain(..).map(PendingStart::abandon).count()
    }
}

/// Are the row's banners sent to a client at a port of its own who is refused for this? To one whom
/// the row does not let in xinetd sends them, and other rows send nothing.
fn is_told(s: &Service, why: Why) -> bool {
    match why {
        Why::Busy | Why::Failed => true,
        Why::NotAvailable => s.grammar == Grammar::Xinetd,
    }
}
