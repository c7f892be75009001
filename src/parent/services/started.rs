//! What comes of a start: the service runs, or a daemon has the connection, or nothing was started.

use super::Services;
use super::running::{Ending, Running};
use super::starting::{Copies, Starting, not_started};
use crate::parent::arrival::{NetEnds, Record, Requester, Returned, StartOutcome};
use crate::parent::children::Role;
use crate::parent::config::Config;
use crate::parent::context::{Context, Timer};
use crate::parent::lines;
use crate::policy::{Backend, ServiceId, Ticket};
use crate::sys::spawn::{Child, PendingStart, Stage};
use crate::sys::{clock, reaper};
use std::rc::Rc;
use std::time::Duration;

/// A service that has been started.
struct Started {
    config: Rc<Config>,
    id: ServiceId,
    ticket: Ticket,
    record: Record,
    net_ends: NetEnds,
    /// What net sends to the client first, because the service cannot.
    text: Vec<u8>,
    copies: Copies,
}

impl Services {
    /// A start is over: the service runs, or it does not.
    pub(super) fn finish(&mut self, cx: &mut Context, start: PendingStart<Starting>) {
        // A copy of the service's socket may be closed below; the interrupt keeps that from taking
        // long.
        self.interrupt.want();
        let (starting, result, mut rest) = cx.spawner.finish(start);
        let Starting { config, service, ticket, plan, mut net_ends, record, copies } = *starting;
        let launch = plan.launch(None);
        if result.as_ref().is_err_and(|f| f.stage == Stage::OtherCopy) {
            self.kept_copies.push(record.requester);
        }
        let result = result.map_err(|f| not_started(f, &launch));
        net_ends.greeting = u32::try_from(launch.greeting.len()).unwrap_or(u32::MAX);
        let text = if record.reports_to.is_some() { plan.greeting().to_vec() } else { Vec::new() };
        match result {
            Ok(child) => {
                let started =
                    Started { config, id: service, ticket, record, net_ends, text, copies };
                match plan.hands_over() {
                    true => self.handed_over(cx, started),
                    false => self.runs(cx, started, child, plan.uid),
                }
            }
            Err(error) => {
                if error.reason == "processes" {
                    // What has ended, and was not reaped, counts against these limits.
                    reaper::go_on();
                }
                self.limits.release(ticket);
                if let Requester::Session(stream) = record.requester {
                    self.running.counts.forget_early(stream);
                }
                // Of a session too, if it is the client's own.
                let is_client = net_ends.connection.is_none()
                    && !matches!(record.requester, Requester::Wait(_));
                let client = rest.take().filter(|_| is_client);
                let returned = Returned { client, net_ends, tells_end: false };
                self.refused(cx, &config, service, &record, error, returned);
            }
        }
        self.ended_sessions
            .retain(|s| self.starting.iter().any(|start| start.payload().session() == Some(*s)));
    }

    /// A daemon has the connection. fived does not see its end: it does not count as running.
    fn handed_over(
        &mut self,
        cx: &mut Context,
        Started { config, id, ticket, record, net_ends, text, .. }: Started,
    ) {
        self.limits.release(ticket);
        if let Requester::Session(stream) = record.requester {
            self.running.counts.forget_early(stream);
        }
        if let Some(s) = config.table.service(id)
            && let Backend::Handover { path } = &s.backend
        {
            drop(cx.counters.started(&s.name, &record.host));
            lines::start_at(s, path, &record);
        }
        self.has_begun(&record, id, text, net_ends, false);
    }

    fn runs(
        &mut self,
        cx: &mut Context,
        Started { config, id, ticket, record, net_ends, text, copies }: Started,
        child: Child,
        uid: u32,
    ) {
        let (pid, started) = (child.pid, record.at);
        // The loop's own time may be that of the turn in which the start began.
        let took = clock::monotonic().saturating_sub(started);
        ::log::debug!("pid {pid} runs {} us after it was asked for", took.as_micros());
        let Some(service) = config.table.service(id) else { return };
        let counted = cx.counters.started(&service.name, &record.host);
        cx.counters.tallies.took(took);
        lines::start(service, pid, &record);
        self.refusals.started(&record);
        let until = service.attributes.server_timeout.map(|s| {
            let until = started + Duration::from_secs(s.into());
            cx.at(until, Timer::Terminate { pid, started });
            until
        });
        let stream = match record.requester {
            Requester::Session(s) if self.ended_sessions.contains(&s.session) => {
                // Its session has ended, so nobody counts its bytes.
                self.running.counts.forget_early(s);
                None
            }
            Requester::Session(s) => Some(s),
            Requester::Net(_) | Requester::Port(_) | Requester::Wait(_) => None,
        };
        cx.children.add(pid, Role::Service);
        self.outdated |=
            matches!(record.requester, Requester::Wait(_)) && !Rc::ptr_eq(&config, &cx.config);
        self.has_begun(&record, id, text, net_ends, record.reports_to.is_some());
        self.running.add(Running {
            child,
            uid,
            config,
            service: id,
            ticket: Some(ticket),
            counted: Some(counted),
            record,
            stream,
            started,
            until,
            traffic: None,
            lingering_close: copies.lingering_close,
            ending: Ending::No,
            output: copies.output,
        });
        if cx.is_ending() {
            self.running.end_internal_waits();
        }
    }

    fn has_begun(
        &mut self,
        record: &Record,
        service: ServiceId,
        text: Vec<u8>,
        net_ends: NetEnds,
        tells_end: bool,
    ) {
        let requester = record.requester;
        let returned = Returned { client: None, net_ends, tells_end };
        self.outcomes.push(StartOutcome { requester, service, result: Ok(()), text, returned });
    }
}
