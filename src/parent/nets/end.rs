//! How net processes end: by themselves, or by the parent.

use super::net::{ProcessState, State};
use crate::log;
use crate::parent::channel::Broken;
use crate::parent::context::Context;
use crate::parent::listeners::Listeners;
use crate::parent::nets::{Nets, READY_TIMEOUT};
use crate::parent::tokens::NetToken;
use crate::sys::process::Exit;
use std::rc::Rc;

impl Nets {
    /// The channel of a net process cannot be used any more: it has ended, or the parent ends it
    /// now. One that served is replaced at once, even if the kernel cannot end it yet. True: it was
    /// ended now, and nothing that it has asked for counts any more.
    pub fn broken(&mut self, cx: &mut Context, token: NetToken, why: &Broken) -> bool {
        let Some(net) = self.all.get_mut(&token) else { return false };
        if *why == Broken::Closed
            && matches!(net.state, State::Draining | State::Finished | State::Released)
        {
            // It will end by itself.
            if net.state == State::Draining {
                net.state = State::Finished;
            }
            return false;
        }
        if net.process != ProcessState::Running {
            // Only the first error is logged.
            return false;
        }
        net.process = ProcessState::BeingEnded;
        let what = match why {
            Broken::Closed => None,
            Broken::Forbidden => Some("a forbidden order"),
            Broken::Stuck => Some("an order to it cannot be delivered"),
            Broken::KeepsCopy => Some("it keeps a client's socket that it has handed over"),
        };
        if let Some(what) = what {
            log::warn(&format!("net: pid {}: {what}; fived ends it", net.child.pid));
        }
        net.end();
        if net.state == State::Serving && !cx.is_ending() {
            net.state = State::Killed;
            self.replace(cx);
        }
        true
    }

    /// Lets those end that have sent their last order, once every service that they asked for runs
    /// or was refused.
    pub fn release(&mut self, waited_for: impl Fn(NetToken) -> bool) {
        for (token, net) in self.all.iter_mut().filter(|(_, n)| n.state == State::Finished) {
            if !waited_for(*token) && net.channel.finish() {
                net.state = State::Released;
            }
        }
    }

    /// Ends a net process that is not ready in time.
    pub fn late(&mut self, token: NetToken) {
        if let Some(net) = self.all.get_mut(&token).filter(|n| n.state == State::Starting) {
            log::warn(&format!(
                "net: pid {}: not ready after {} s; fived ends it",
                net.child.pid,
                READY_TIMEOUT.as_secs()
            ));
            net.process = ProcessState::BeingEnded;
            net.end();
        }
    }

    /// A net process has ended.
    pub fn has_ended(&mut self, token: NetToken) {
        if let Some(net) = self.all.get_mut(&token)
            && net.process == ProcessState::Running
        {
            net.process = ProcessState::Ended;
        }
    }

    /// A net process has ended or was killed, and its last orders are still to be read. The answers
    /// that are held for it are dropped, because while there are any its orders are not read.
    pub fn expects_nothing(&mut self, token: NetToken) {
        if let Some(net) = self.all.get_mut(&token) {
            net.channel.drop_held();
        }
    }

    /// Forgets a net process that has ended and whose last orders were read. Replaces it if it
    /// served.
    pub fn forget(
        &mut self,
        cx: &mut Context,
        listeners: &mut Listeners,
        token: NetToken,
        exit: Exit,
    ) {
        let Some(net) = self.all.remove(&token) else { return };
        self.keep_counted(cx, &net);
        self.log.finish(net.log);
        let drained = matches!(net.state, State::Draining | State::Finished | State::Released);
        self.close_unused(cx, listeners);
        let expected = drained && exit == Exit::Status(0);
        if !expected {
            log::warn(&format!("net: pid {} ended: {exit}", net.child.pid));
        }
        let current = !drained && net.state != State::Killed && Rc::ptr_eq(&net.config, &cx.config);
        if !cx.is_ending() && current && !self.gives_up(&exit.to_string()) {
            self.replace(cx);
        }
    }
}
