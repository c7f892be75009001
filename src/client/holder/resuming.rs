//! What the holder does while the session has no connection. Applications are not read, so that
//! they see a pause, and the session is resumed as soon as that is possible: it is tried at once
//! when the network changes, when an application writes and on `-O resume`, and otherwise again and
//! again, with longer and longer pauses, as long as the server keeps the session.

use super::away::Away;
use super::over::Over;
use super::state::Holder;
use crate::client::open::KEEPS_NONE;
use crate::client::resume::{Outcome, Resumed};
use crate::client::syntax::without_place;
use crate::sys::network::has_address;
use crate::sys::socket;
use crate::wire::handover::Notice;

impl Holder {
    /// The connection is lost. Err: so is the session, because it cannot be resumed.
    pub(super) fn lose(&mut self, over: Over) -> Result<(), String> {
        let resumable = match (over, &self.resumable) {
            (Over::Lost(why), Some(resumable)) => (why, resumable.clone()),
            (Over::Lost(why) | Over::Ended(why), _) => return Err(why),
        };
        let (why, resumable) = resumable;
        let Some(records) = self.link.take_records() else { return Err(why) };
        // The other side need not wait for a timeout, if this reaches it.
        let _ = socket::shutdown_both(self.link.socket());
        (self.gate, self.now) = (None, self.pump.now());
        // These wait for nothing any more.
        for id in self.pump.ids() {
            if let Some(text) = self.pump.owner(id).and_then(|call| call.refused()) {
                self.refuse(id, &text);
            }
        }
        self.step(&format!("the session has lost its connection ({why}) and is to be resumed"));
        let away = Away::new(resumable, records, why, self.last_attempt, self.now);
        self.away = Some(Box::new(away));
        Ok(())
    }

    /// One turn without a connection.
    pub(super) fn turn_away(&mut self) -> Result<(), Over> {
        self.pump.begin_turn();
        self.now = self.pump.now();
        self.look_at_clients();
        if self.mux().is_going_away() {
            self.hand_on();
        }
        self.report_away();
        self.callers.send_rest().into_iter().for_each(|id| self.caller_gone(id));
        let Some(away) = &mut self.away else { return Ok(()) };
        if self.now >= away.end() {
            let (kept, place) = (away.resumable.kept.as_secs(), self.target.place());
            let why = without_place(&away.why, &place);
            return Err(Over::Ended(format!(
                "the session was lost: away for longer than the server keeps it ({kept} s): {why}"
            )));
        }
        if away.attempt.is_none() && self.now >= away.next {
            self.last_attempt = self.now;
            away.start(self.now);
        }
        Ok(())
    }

    /// Tells those that wait why there is no connection, once that has lasted.
    fn report_away(&mut self) {
        let Some(away) = self.away.as_ref().filter(|away| away.is_told(self.now)) else { return };
        let (place, distrust) = (self.target.place(), away.distrust);
        let why = without_place(&away.why, &place);
        let text = format!(
            "{place}: waiting until the session can be resumed (five -O exit ends it): {why}"
        );
        self.report_outage(distrust, &text);
    }

    /// An attempt is over.
    pub(super) fn attempted(&mut self) -> Result<(), Over> {
        let Some(away) = &mut self.away else { return Ok(()) };
        let Some(attempt) = away.attempt.take() else { return Ok(()) };
        let asking = std::mem::take(&mut away.asking);
        let answer = match attempt.outcome() {
            Outcome::Resumed(resumed) => {
                self.go_on(*resumed)?;
                Notice::Done
            }
            Outcome::Gone => {
                let why = "the session was lost: the server has it no longer".into();
                return Err(Over::Ended(why));
            }
            Outcome::Failed { why, distrust } => {
                away.failed(why.clone(), distrust, self.now.max(self.last_attempt));
                Notice::Refused { tag: 0, text: why }
            }
        };
        asking.into_iter().for_each(|id| self.callers.send(id, &answer));
        Ok(())
    }

    fn go_on(&mut self, resumed: Resumed) -> Result<(), Over> {
        let Some(away) = self.away.take() else { return Ok(()) };
        self.link = resumed.link;
        if self.link.resume(away.records, resumed.received).is_err() {
            let why = "the session was lost: the server has had more than was sent".into();
            return Err(Over::Ended(why));
        }
        self.gate = resumed.gate;
        self.pump.resumed();
        self.now = self.pump.now();
        self.liveness.connected(self.link.socket(), self.now);
        let seconds = self.now.saturating_sub(away.since).as_secs_f64();
        self.step(&format!("the session is resumed, after {seconds:.1} s"));
        Ok(())
    }

    /// `-O resume`. None: the caller is told when the attempt is over.
    pub(super) fn try_now(&mut self, id: u32) -> Option<Result<(), String>> {
        if self.resumable.is_none() {
            return Some(Err(KEEPS_NONE.into()));
        }
        let Some(away) = &mut self.away else { return Some(Ok(())) };
        away.asking.push(id);
        away.hurry(self.now);
        None
    }

    /// Somebody waits for the server.
    pub(super) fn wants_the_server(&mut self) {
        if let Some(away) = &mut self.away {
            away.hurry(self.now);
        }
    }

    /// The network has changed. Err: the connection cannot go on.
    pub(super) fn network_changed(&mut self) -> Result<(), Over> {
        if let Some(away) = &mut self.away {
            away.network_changed(self.now);
            return Ok(());
        }
        if self.resumable.is_none() {
            return Ok(());
        }
        let own = socket::local(self.link.socket()).map(|a| a.ip());
        let why = if own.is_ok_and(|ip| !has_address(ip)) {
            "this computer's address has changed"
        } else if self.liveness.is_overdue(self.now) {
            "no answer before the network changed"
        } else {
            self.liveness.ask(self.pump.mux_mut(), self.now);
            return Ok(());
        };
        self.lose(Over::Lost(why.into())).map_err(Over::Ended)?;
        // The network may be back at this moment.
        self.wants_the_server();
        Ok(())
    }

    /// Tells everybody who has a call on the session, for -v.
    fn step(&self, text: &str) {
        self.callers.send_to_all(&Notice::Step { text: text.into() });
    }
}
