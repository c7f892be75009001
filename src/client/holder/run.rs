//! The holder's loop, and what ends it.

use super::over::Over;
use super::state::{Holder, Phase};
use crate::client::error::Error;
use crate::client::server::lost;
use crate::link::Error as LinkError;
use crate::link::pump::Event;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, local, process, socket};
use crate::wire::handover::Notice;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long sending the last frames may take, and the last messages to callers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// It is checked whether new callers find the session, if the last time is so long ago and
/// something happens: a ping at least, twice a minute.
const FOUND_INTERVAL: Duration = Duration::from_secs(5);

/// Why the holder ends.
enum End {
    /// Nobody needs it any more, or it was asked to end.
    Done,
    /// The session has broken; why.
    Broken(String),
}

impl Holder {
    /// Holds the session until nobody needs it. Returns the process's exit status.
    pub fn run(mut self) -> u8 {
        process::set_name("five-holder");
        // The limits of the shell that the first call came from are not those of others.
        process::raise_others();
        if let Some(socket) = &self.socket {
            // If this fails, a caller cannot name the process that does not answer.
            let _ = local::listen_again(socket.as_fd());
        }
        let ended = self.hold();
        // The socket goes first, so that no new caller comes.
        self.forwards.close_configured();
        match (&ended, &mut self.socket) {
            (Ok(End::Broken(_)), Some(socket)) => socket.retire(),
            _ => self.close_for_good(),
        }
        let why = match &ended {
            Ok(End::Done) => "the session was ended (five -O exit)".to_string(),
            Ok(End::Broken(why)) => why.clone(),
            Err(e) => e.to_string(),
        };
        self.end_all(&why, matches!(ended, Ok(End::Done)));
        self.callers.finish(CLOSE_TIMEOUT);
        if matches!(ended, Ok(End::Done)) {
            self.close_session();
        } else {
            // A server that was silent must not read these requests later: they are made on another
            // session now.
            let _ = socket::drop_unsent(self.link.socket());
        }
        let hands_on = self.socket.is_some() && self.has_something_to_hand_on();
        let outlives = hands_on || self.has_rest();
        let outlived = if outlives { self.outlive_the_session() } else { Ok(()) };
        self.close_for_good();
        self.callers.finish(CLOSE_TIMEOUT);
        u8::from(ended.is_err() || outlived.is_err())
    }

    fn close_for_good(&mut self) {
        self.forwards.close();
        // If the file stays, the next caller finds that nobody listens there.
        self.socket = None;
    }

    fn hold(&mut self) -> Result<End, Error> {
        let signals = Signals::new(&[Signal::TERM, Signal::INT, Signal::HUP])
            .map_err(Error::system("signals"))?;
        loop {
            if self.now >= self.found + FOUND_INTERVAL {
                self.found = self.now;
                self.socket.iter_mut().for_each(|socket| socket.restore(&self.target));
            }
            let turned = if self.away.is_some() { self.turn_away() } else { self.turn() };
            if let Err(why) = turned.or_else(|over| self.lose(over)) {
                return Ok(End::Broken(why));
            }
            if self.phase == Phase::Ending || self.is_over() {
                return Ok(End::Done);
            }
            let waited = match self.away {
                Some(_) => self.wait_away(&signals),
                None => self.wait(&signals),
            };
            match waited {
                Ok(ready) => {
                    if let Err(why) = self.serve(ready, &signals).or_else(|over| self.lose(over)) {
                        return Ok(End::Broken(why));
                    }
                }
                Err(LinkError::System(e)) => return Err(Error::system("poll")(e)),
                Err(e) => {
                    if let Err(why) = self.lose(e.into()) {
                        return Ok(End::Broken(why));
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let empty = self.pump.is_empty() && self.waiting.is_empty();
        let leaving = self.mux().is_going_away() && empty && !self.has_something_to_hand_on();
        leaving || self.over_at().is_some_and(|at| self.now >= at)
    }

    /// When the holder ends because nobody needs it. None: somebody does.
    pub(super) fn over_at(&self) -> Option<Duration> {
        let kept = || self.has_something_to_hand_on() || self.offers_keep_the_holder();
        let unneeded = self.callers.is_empty() && self.has_nothing_open() && !kept();
        unneeded.then(|| self.idle.saturating_add(self.persist))
    }

    /// One turn: handles what the server sent, does what is due, sends.
    fn turn(&mut self) -> Result<(), Over> {
        self.pump.begin_turn();
        self.now = self.pump.now();
        if self.pump.take_sent() {
            self.liveness.sending(self.pump.mux_mut(), self.now);
        }
        let handled = self.events();
        if self.pump.take_received() {
            self.liveness.received(self.now);
        }
        handled?;
        self.look_at_clients();
        // `Liveness` sends the pings: the multiplexer sends none by itself.
        self.pump.tick();
        let open = self.pump.streams().any(|(_, s)| s.owner.is_answered());
        let waits = !self.has_nothing_open();
        let answers = self.liveness.tick(self.pump.mux_mut(), (open, waits), self.now);
        answers.map_err(Over::Lost)?;
        if self.liveness.network_is_down() {
            let place = self.target.place();
            let text = format!("{place}: no answer: waiting until the network is back");
            self.report_outage(false, &text);
        }
        if self.mux().is_going_away() {
            // The next caller makes a new session, whose holder listens for the configuration's.
            self.forwards.close_configured();
            self.hand_on();
            self.return_offers();
            self.callers.send_away();
            if let Some(socket) = &mut self.socket {
                socket.retire();
            }
        }
        self.start_waiting();
        self.callers.send_rest().into_iter().for_each(|id| self.caller_gone(id));
        Ok(self.send()?)
    }

    fn send(&mut self) -> Result<(), LinkError> {
        if !self.pump.is_sent(&self.link) {
            self.liveness.sending(self.pump.mux_mut(), self.now);
        }
        let sent = self.pump.send_queued(&mut self.link);
        // `Liveness` has noted it above.
        self.pump.take_sent();
        sent
    }

    fn events(&mut self) -> Result<(), Over> {
        while let Some(event) = self.pump.event(&mut self.link)? {
            match event {
                Event::Opened(id) => self.client_came(id),
                // Only a server hears the first; no local end is followed by another one.
                Event::Accepted(_) | Event::LocalFinished(_) => {}
                Event::Received(id) => self.answer_received(id),
                Event::Finished(id) => self.output_finished(id),
                Event::OutputFailed(id, e) => self.output_failed(id, Some(e)),
                Event::Terminal(id) => self.terminal_given(id),
                Event::InputFailed(id, e) => self.input_failed(id, &e),
                Event::OutputHungUp { id, broken: true } => self.output_failed(id, None),
                Event::OutputHungUp { id, broken: false } => self.output_closed(id),
                Event::Closed(stream) => self.ended(&stream),
                Event::Reset(stream) => self.reset(*stream),
                Event::LinkFinished => return Err(self.link_finished()),
                Event::GoAway(code) => {
                    let why = format!("the server gave the session up (code {code})");
                    return Err(Over::Ended(why));
                }
                Event::ProtocolError(why) => {
                    return Err(Over::Ended(format!("what the server says is no yamux: {why}")));
                }
            }
        }
        Ok(())
    }

    /// The server sends no more. The pump has forgotten the streams whose input had ended before:
    /// how their services end is not known either. Others it resets now, of which it could not read
    /// what had come.
    fn link_finished(&mut self) -> Over {
        let why = lost(&LinkError::Closed);
        while let Ok(Some(event)) = self.pump.event(&mut self.link) {
            match event {
                Event::Closed(stream) => {
                    let (tag, text) = (stream.owner.tag, why.clone());
                    self.callers.send(stream.owner.caller, &Notice::Lost { tag, text });
                }
                Event::Reset(stream) => self.reset(*stream),
                _ => {}
            }
        }
        Over::Ended(why)
    }

    /// Sends go-away, the end of the session and the end of TLS, so that the server need not wait
    /// for a timeout.
    fn close_session(&mut self) {
        let until = clock::monotonic() + CLOSE_TIMEOUT;
        self.pump.go_away();
        if self.away.is_none() && self.pump.send_rest(&mut self.link, until) {
            self.link.finish();
        }
    }
}
