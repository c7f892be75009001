//! What the holder does with the forwards that -O has added, once the session takes no new calls
//! and after it has ended; and with output that came before the end and is still to be written.

use super::state::{Holder, Phase};
use super::streams::has_rest;
use super::successor::{Left, LeftForward, Successor, ToHandOn};
use super::wait::Found;
use crate::client::error::Error;
use crate::client::forward::Listener;
use crate::link::pump::Event;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, socket};
use crate::wire::handover::{Ask, Notice};

impl Holder {
    /// Hands the forwards of -O on, as far as that can be done without waiting.
    pub(super) fn hand_on(&mut self) {
        if let Some(taken) = self.successor.as_mut().and_then(Successor::finished) {
            taken.forwards.iter().for_each(|f| self.forwards.handed_on(f));
            self.left.drain(..taken.applications);
        }
        if !self.has_something_to_hand_on() {
            self.successor = None;
            return;
        }
        let now = self.now;
        let successor = self.successor.get_or_insert_with(|| Successor::new(now));
        if !successor.is_due(now) {
            return;
        }
        let copies = |l: &Listener| l.fd.try_clone().ok();
        let forwards = self.forwards.all.iter().map(|held| {
            let listeners = held.listeners.iter().filter_map(copies).collect();
            LeftForward { forward: held.forward.clone(), host: held.host.clone(), listeners }
        });
        let copy = |l: &Left| {
            let (host, service, ahead) = (l.host.clone(), l.service.clone(), l.ahead.clone());
            Some(Left { host, service, fd: l.fd.try_clone().ok()?, ahead })
        };
        let all = ToHandOn {
            forwards: forwards.collect(),
            // Without a descriptor for one, those after it wait, too.
            applications: self.left.iter().map_while(copy).collect(),
        };
        let waited = !self.left.is_empty() || self.forwards.somebody_waits();
        successor.start(&self.target, all, waited, now);
    }

    /// The session has ended, and with it all calls but those whose services had ended before: the
    /// holder goes on until their output is written, and until the next session's has the forwards
    /// of -O and the applications that were not served. -O lists and cancels the forwards here
    /// until then.
    pub(super) fn outlive_the_session(&mut self) -> Result<(), Error> {
        let signals = Signals::new(&[Signal::TERM, Signal::INT, Signal::HUP])
            .map_err(Error::system("signals"))?;
        self.phase = Phase::Outliving;
        (self.away, self.gate, self.network) = (None, None, None);
        let _ = socket::shutdown_both(self.link.socket());
        // Callers notice that their channel has ended, and look for another holder.
        for id in self.callers.ids() {
            if !self.has_rest_of(id) {
                self.callers.all.remove(&id);
            }
        }
        loop {
            self.now = clock::monotonic();
            if self.socket.is_some() {
                self.hand_on();
            }
            self.write_rests();
            self.callers.send_rest().into_iter().for_each(|id| self.caller_gone(id));
            let hands_on = self.socket.is_some() && self.has_something_to_hand_on();
            if self.phase == Phase::Ending || !hands_on && !self.has_rest() {
                return Ok(());
            }
            let found = self.wait_outliving(&signals).map_err(Error::system("poll"))?;
            self.serve_orders(found, &signals);
        }
    }

    /// Is output still to be written, of calls whose services had ended before the session?
    pub(super) fn has_rest(&self) -> bool {
        self.pump.streams().any(|(_, s)| has_rest(s))
    }

    fn has_rest_of(&self, caller: u32) -> bool {
        self.pump.streams().any(|(_, s)| has_rest(s) && s.owner.caller == caller)
    }

    fn write_rests(&mut self) {
        let mut events = self.pump.write_rests();
        while let Some(event) = events.pop_front() {
            match event {
                Event::Finished(id) => self.output_finished(id),
                Event::OutputFailed(id, e) => self.output_failed(id, Some(e)),
                Event::Closed(stream) => self.ended(&stream),
                Event::Reset(stream) => self.reset(*stream),
                Event::Terminal(id) => self.terminal_given(id),
                // These come from a link, or from ends that are no longer read.
                Event::Opened(_)
                | Event::Accepted(_)
                | Event::Received(_)
                | Event::LocalFinished(_)
                | Event::InputFailed(..)
                | Event::OutputHungUp { .. }
                | Event::GoAway(_)
                | Event::ProtocolError(_)
                | Event::LinkFinished => {}
            }
            events.extend(self.pump.write_rests());
        }
    }

    /// A caller wants something for which there is no session any more. False: it has no call
    /// here, so the end of its channel tells it.
    pub(super) fn asked_too_late(&self, id: u32, ask: &Ask) -> bool {
        if let Ask::Open { tag, .. } | Ask::Offer { tag, .. } = ask {
            self.callers.send(id, &Notice::Gone { tag: *tag });
        }
        self.has_rest_of(id)
    }

    fn serve_orders(&mut self, found: Found, signals: &Signals) {
        self.serve_callers(&found);
        if found.signalled && signals.next().is_some_and(|r| r.signal != Signal::HUP) {
            self.phase = Phase::Ending;
        }
    }
}
