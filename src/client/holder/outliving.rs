//! What the holder does with the forwards that -O has added, once the session takes no new calls
//! and after it has ended.

use super::state::{Holder, Phase};
use super::successor::{Left, LeftForward, Successor, ToHandOn};
use super::wait::Found;
use crate::client::error::Error;
use crate::client::forward::Listener;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, socket};

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

    /// The session has ended, and nobody has a call any more: the holder goes on until the next
    /// session's has the forwards of -O and the applications that were not served. -O lists and
    /// cancels the forwards here until then.
    pub(super) fn outlive_the_session(&mut self) -> Result<(), Error> {
        let signals = Signals::new(&[Signal::TERM, Signal::INT, Signal::HUP])
            .map_err(Error::system("signals"))?;
        self.phase = Phase::Outliving;
        (self.away, self.gate, self.network) = (None, None, None);
        let _ = socket::shutdown_both(self.link.socket());
        // Callers notice that their channel has ended, and look for another holder.
        self.callers.all.clear();
        loop {
            self.now = clock::monotonic();
            self.hand_on();
            self.callers.unreachable().into_iter().for_each(|id| self.caller_gone(id));
            if self.phase == Phase::Ending || !self.has_something_to_hand_on() {
                return Ok(());
            }
            let found = self.wait_outliving(&signals).map_err(Error::system("poll"))?;
            self.serve_orders(found, &signals);
        }
    }

    fn serve_orders(&mut self, found: Found, signals: &Signals) {
        self.serve_callers(&found);
        if found.signalled && signals.next().is_some_and(|r| r.signal != Signal::HUP) {
            self.phase = Phase::Ending;
        }
    }
}
