//! How fived ends: when its services have finished, and after it has made room for another fived.

use super::channel::Broken;
use super::context::{Phase, Timer};
use super::nets::net;
use super::nets::net::Net;
use super::pidfile::Pidfile;
use super::reaping::LAST_ORDERS;
use super::run::Parent;
use super::sessions;
use super::sessions::session::SessionRecord;
use super::tokens::{NetToken, SessionToken};
use crate::log;
use crate::sys::clock;
use crate::sys::foreign;
use crate::sys::notify;
use crate::wire::orders::Answer;
use std::time::Duration;

/// How long fived waits at its end for programs of `wait`, and how often it looks.
const WAITS_END: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long sessions may take to end when `shutdown_timeout` is over.
const SESSIONS_END: Duration = Duration::from_secs(1);
/// How long it may take until what services have had is closed.
const CLOSED_WITHIN: Duration = Duration::from_millis(200);
/// How long net processes that were killed may take to end.
const NETS_END: Duration = Duration::from_secs(1);

impl Parent {
    /// Stops accepting connections. The loop ends when the last service has ended, or after
    /// `shutdown_timeout`.
    pub fn stop(&mut self) {
        notify::stopping();
        self.cx.phase = Phase::Stopping;
        self.close_listeners(true);
        log::say("stopping");
        // Scripts that start fived again do nothing while it names a process that runs.
        self.cx.pidfile = None;
        self.services.running.end_internal_waits();
        self.logins.start(&mut self.cx, &mut self.sessions);
        self.cx.after(self.cx.config.table.settings.shutdown_timeout, Timer::Shutdown);
    }

    /// Ends without waiting for what runs. Asked a second time it waits for no session either.
    pub fn end_now(&mut self) {
        match self.cx.phase {
            Phase::Serving | Phase::Leaving => {
                self.stop();
                self.end_sessions();
            }
            Phase::Stopping => self.end_sessions(),
            Phase::EndingSessions | Phase::Over => self.cx.phase = Phase::Over,
        }
    }

    /// No service is waited for any longer. A client whose session outlives its connection would
    /// try to come back for long, unless it is told that the session ends. Those that do not take
    /// that in time keep nobody waiting.
    pub fn end_sessions(&mut self) {
        self.cx.phase = Phase::EndingSessions;
        self.sessions.tell_all(&self.cx, &Answer::EndNow, |s| s.resumable.is_some());
        self.cx.after(SESSIONS_END, Timer::SessionsLate);
    }

    /// Does the loop end, whatever still runs?
    pub fn is_over(&self) -> bool {
        match self.cx.phase {
            Phase::Over => true,
            Phase::EndingSessions => !self.sessions.iter().any(|(_, s)| s.resumable.is_some()),
            Phase::Serving | Phase::Leaving | Phase::Stopping => false,
        }
    }

    /// Makes room for another fived, which will have the ports: stops accepting connections, and
    /// goes on with what it has as after a reload, until the last of it has ended.
    pub fn leave(&mut self) {
        if self.cx.is_ending() {
            return;
        }
        // A program of `wait` may be on its way to exec: it has its port by then.
        self.services.settle_all(&mut self.cx);
        self.route();
        self.cx.phase = Phase::Leaving;
        self.close_listeners(false);
        log::say("leaving");
        // Nobody can come back to a session here any more.
        self.sessions.tell_all(&self.cx, &Answer::Forget, SessionRecord::is_lost);
        // They have the ports, too.
        self.services.running.end_waits();
        self.left(clock::monotonic() + WAITS_END);
    }

    /// The ports are free, or programs of `wait` have had [`WAITS_END`] to end.
    pub fn left(&mut self, until: Duration) {
        let has_waits = self.services.running.waits().next().is_some();
        if has_waits && self.cx.now < until {
            return self.cx.after(LOOK_AGAIN, Timer::WaitsEnded { until });
        }
        self.services.running.warn_of_waits();
        // The service manager starts the other one when the main process has ended.
        match notify::stand_in() {
            Ok(other) => self.stand_in = other,
            Err(e) => log::warn(&format!("no process can stand in for this one: {e}")),
        }
    }

    /// Gives up all listeners, and the pidfile to whoever has them next. `last`: sessions in which
    /// no service runs end.
    fn close_listeners(&mut self, last: bool) {
        self.cx.spawner.end_spare();
        self.not_reloaded();
        self.listeners.close();
        self.ports.close();
        self.cx.pidfile.iter_mut().for_each(Pidfile::give_up);
        for net in self.nets.tokens() {
            self.drain(net, last);
        }
    }

    /// Asks the programs of `wait` to end, because they would keep the ports from the next fived,
    /// and gives them a moment for it.
    fn end_waits(&mut self) {
        self.services.running.end_waits();
        let until = clock::monotonic() + WAITS_END;
        while self.services.running.waits().next().is_some() && clock::monotonic() < until {
            std::thread::sleep(LOOK_AGAIN);
            self.reap_all();
        }
        self.services.running.warn_of_waits();
    }

    /// The processes that close clients' sockets do so without this one. But where it is the first
    /// of a container they end with it.
    fn end_lingering(&self) {
        while self.lingering.any(clock::monotonic()) {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Logs what net processes, which are killed, had refused before the parent read it. What else
    /// they had asked for is not carried out any more.
    fn last_refusals(&mut self) {
        let until = clock::monotonic() + NETS_END;
        while self.nets.iter().any(|net| net.channel.is_open()) && clock::monotonic() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        for net in self.nets.tokens() {
            self.nets.has_ended(net);
            self.nets.expects_nothing(net);
            for _ in 0..LAST_ORDERS {
                // Err: that was all.
                let Ok(true) = self.last_net_order(net) else { break };
            }
            // Twice: the channels of streams that have their own are found in those of sessions.
            for _ in 0..2 {
                for session in self.sessions.of_net(net) {
                    for _ in 0..LAST_ORDERS {
                        let Ok(true) = self.last_session_order(session) else { break };
                    }
                }
            }
        }
        self.nets.iter().for_each(Net::warn_of_unreported);
    }

    fn last_net_order(&mut self, net: NetToken) -> Result<bool, Broken> {
        match self.nets.order(&mut self.cx, &mut self.listeners, net)? {
            None => return Ok(false),
            // Its channel may have more.
            Some(r @ (net::Request::Refused(..) | net::Request::Session(_))) => {
                self.net_request(net, r)?;
            }
            Some(_) => {}
        }
        Ok(true)
    }

    fn last_session_order(&mut self, session: SessionToken) -> Result<bool, Broken> {
        match self.sessions.order(&mut self.cx, session)? {
            None => return Ok(false),
            Some(r @ (sessions::Request::Refused { .. } | sessions::Request::Branch { .. })) => {
                self.session_request(session, r)?;
            }
            Some(_) => {}
        }
        Ok(true)
    }

    /// Ends the net and keys processes. Services that have their client's own socket continue.
    pub fn end(mut self) {
        self.not_reloaded();
        self.services.settle_all(&mut self.cx);
        self.refuse_deferred();
        self.route();
        if let hang @ 1.. = self.services.abandon() {
            log::warn(&format!("{hang} starts hang before their exec; fived ends them"));
        }
        self.connects.abandon();
        self.end_waits();
        self.end_lingering();
        self.nets.end();
        self.last_refusals();
        self.cx.now = clock::monotonic();
        self.sessions.end_with_fived(&self.cx);
        self.signers.end();
        self.services.let_go();
        self.ports.close();
        foreign::finish(CLOSED_WITHIN);
        self.services.refusals.over();
        log::finish(200);
    }
}
