//! What -O asks of the holder: to say how the session is, to change it, or to end it.

use super::forwards::Held;
use super::state::{Holder, Phase};
use crate::client::forward::{Forward, Listener};
use crate::client::offer::{Offer, Offered, Origin};
use crate::wire::handover::{Ask, Notice};
use crate::wire::word::word;
use std::os::fd::OwnedFd;

impl Holder {
    /// Does what a caller orders; `fds` came with it.
    pub(super) fn obey(&mut self, id: u32, order: Ask, fds: impl Iterator<Item = OwnedFd>) {
        match order {
            Ask::Check => self.callers.send(id, &Notice::State { text: self.state() }),
            Ask::List => {
                let open = self.pump.streams().map(|(_, s)| {
                    let tally = s.tally();
                    s.owner.state([tally.received, tally.sent], self.now)
                });
                let waiting = self.waiting.iter().map(|p| p.call.state_waiting(self.now));
                let forwards = self.forwards.all.iter().map(Held::state);
                self.callers.send_lines(id, forwards.chain(open).chain(waiting));
                self.callers.send(id, &Notice::Done);
            }
            // The end of the channel is the answer: by then the socket is removed.
            Ask::Exit => self.phase = Phase::Ending,
            Ask::Forward { host, forward } => {
                let added = self.add_forward(host, &forward, fds);
                self.answer(id, added);
            }
            Ask::Adopt { host, service } => {
                let ahead = self.callers.take_input(id, 0);
                let adopted = self.adopt(host, service, fds, ahead);
                self.answer(id, adopted);
            }
            Ask::Cancel { forward } => {
                let cancelled = self.cancel_forward(&forward);
                self.answer(id, cancelled);
            }
            Ask::Offer { tag, host, offer } => {
                if let Err(text) = self.take_offer(id, tag, host, &offer) {
                    self.callers.send(id, &Notice::Refused { tag, text });
                }
            }
            Ask::Withdraw { offer } => {
                let done = Offer::read(&offer).and_then(|offer| self.withdraw(&offer));
                self.answer(id, done);
            }
            Ask::Resume => {
                if let Some(tried) = self.try_now(id) {
                    self.answer(id, tried);
                }
            }
            Ask::Open { .. } | Ask::Input { .. } | Ask::Resized { .. } => {}
        }
    }

    fn answer(&self, id: u32, done: Result<(), String>) {
        let notice = match done {
            Ok(()) => Notice::Done,
            Err(text) => Notice::Refused { tag: 0, text },
        };
        self.callers.send(id, &notice);
    }

    fn add_forward(
        &mut self,
        host: String,
        text: &str,
        fds: impl Iterator<Item = OwnedFd>,
    ) -> Result<(), String> {
        let forward = Forward::read(text)?;
        if self.mux().is_going_away() {
            return Err("the session takes no new forwards: the server is ending it".into());
        }
        let listeners: Vec<Listener> = fds.map(|fd| Listener::adopt(&forward, fd)).collect();
        if listeners.is_empty() {
            return Err("no listener came with it".into());
        }
        self.forwards.all.push(Held { forward, host, origin: Origin::Order, listeners });
        Ok(())
    }

    /// An offer of a caller, or one of -O, which has the tag 0.
    fn take_offer(&mut self, id: u32, tag: u32, host: String, text: &str) -> Result<(), String> {
        let origin = if tag == 0 { Origin::Order } else { Origin::Caller };
        let offer = Offer::read(text)?;
        if self.mux().is_going_away() {
            if tag == 0 {
                return Err("the session takes no new offers: the server is ending it".into());
            }
            self.callers.send(id, &Notice::Gone { tag });
            return Ok(());
        }
        if tag != 0 {
            self.callers.send(id, &Notice::Taken { tag });
        }
        self.offer((id, tag), host, Offered { offer, origin });
        Ok(())
    }

    /// Connections to it go on to their end.
    fn cancel_forward(&mut self, text: &str) -> Result<(), String> {
        let forward = Forward::read(text)?;
        let before = self.forwards.all.len();
        self.forwards.all.retain(|held| held.forward != forward);
        if self.forwards.all.len() == before {
            return Err("the session has no such forward (-O list shows them)".into());
        }
        self.idle = self.now;
        Ok(())
    }

    /// One line for `-O check`.
    fn state(&self) -> String {
        let seconds = self.now.saturating_sub(self.began).as_secs();
        let (streams, waiting) = (self.pump.len(), self.waiting.len());
        let state = match self.away {
            Some(_) => "away",
            None if self.mux().is_going_away() => "draining",
            None => "up",
        };
        format!(
            "session={} via={} pid={} since={seconds} state={state} streams={streams} waiting={waiting}",
            word(&self.target.who()),
            word(&self.target.way()),
            std::process::id()
        )
    }
}
