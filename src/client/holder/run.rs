//! The holder's loop, and what ends it.

use super::state::{Holder, Phase};
use crate::client::error::Error;
use crate::client::server::lost;
use crate::link::Error as LinkError;
use crate::link::pump::{Event, Run};
use crate::sys::poll::Poll;
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, local, process, socket};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long sending the last frames may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
        if let Some(socket) = &self.socket {
            // If this fails, a caller cannot name the process that does not answer.
            let _ = local::listen_again(socket.as_fd());
        }
        let ended = self.hold();
        // The socket goes first, so that no new caller comes.
        self.forwards.close();
        self.close_socket();
        let why = match &ended {
            Ok(End::Done) => "the session was ended (five -O exit)".to_string(),
            Ok(End::Broken(why)) => why.clone(),
            Err(e) => e.to_string(),
        };
        self.end_all(&why, matches!(ended, Ok(End::Done)));
        if matches!(ended, Ok(End::Done)) {
            self.close_session();
        } else {
            // A server that was silent must not read these requests later: they are made on another
            // session now.
            let _ = socket::drop_unsent(self.link.socket());
        }
        u8::from(ended.is_err())
    }

    fn hold(&mut self) -> Result<End, Error> {
        let signals = Signals::new(&[Signal::Term, Signal::Int, Signal::Hup])
            .map_err(Error::system("signals"))?;
        loop {
            if let Err(why) = self.turn() {
                return Ok(End::Broken(why));
            }
            if self.phase == Phase::Ending || self.is_over() {
                return Ok(End::Done);
            }
            match self.wait(&signals) {
                Ok(()) => {}
                Err(LinkError::System(e)) => return Err(Error::system("poll")(e)),
                Err(e) => return Ok(End::Broken(lost(&e))),
            }
        }
    }

    fn close_socket(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.close();
        }
    }

    fn is_over(&self) -> bool {
        let empty = self.pump.is_empty() && self.waiting.is_empty();
        let leaving = self.mux().is_going_away() && empty;
        leaving || self.over_at().is_some_and(|at| self.now >= at)
    }

    /// When the holder ends because nobody needs it. None: somebody does.
    fn over_at(&self) -> Option<Duration> {
        let kept = || self.forwards.keep_the_holder() || self.offers_keep_the_holder();
        let unneeded = self.callers.is_empty() && self.has_nothing_open() && !kept();
        unneeded.then(|| self.idle.saturating_add(self.persist))
    }

    /// One turn: handles what the server sent, does what is due, sends.
    fn turn(&mut self) -> Result<(), String> {
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
        self.liveness.tick(self.pump.mux_mut(), open, self.now)?;
        if self.liveness.network_is_down() {
            self.report_outage();
        }
        if self.mux().is_going_away() {
            // The next caller makes a new session, whose holder listens for the forwards.
            self.forwards.close();
            self.return_offers();
            if let Some(socket) = &mut self.socket {
                socket.retire();
            }
        }
        self.start_waiting();
        self.callers.unreachable().into_iter().for_each(|id| self.caller_gone(id));
        self.send().map_err(|e| lost(&e))
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

    fn events(&mut self) -> Result<(), String> {
        while let Some(event) = self.pump.event(&mut self.link).map_err(|e| lost(&e))? {
            match event {
                Event::Opened(id) => self.client_came(id),
                // Only a server hears the first; no local end is followed by another one.
                Event::Accepted(_) | Event::LocalFinished(_) => {}
                Event::Received(id) => self.answer_received(id),
                Event::Finished(id) => self.output_finished(id),
                Event::OutputFailed(id, e) => self.output_failed(id, Some(e)),
                Event::InputFailed(id) => self.input_failed(id),
                Event::OutputHungUp { id, broken: true } => self.output_failed(id, None),
                Event::OutputHungUp { id, broken: false } => self.output_closed(id),
                Event::Closed(_, stream) => {
                    let status = stream.run().and_then(Run::status);
                    self.ended(&stream.owner, status);
                }
                Event::Reset(_, stream) => self.reset(*stream),
                Event::LinkFinished => return Err(lost(&LinkError::Closed)),
                Event::GoAway(code) => {
                    return Err(format!("the server gave the session up (code {code})"));
                }
                Event::ProtocolError(why) => {
                    return Err(format!("what the server says is no yamux: {why}"));
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, signals: &Signals) -> Result<(), LinkError> {
        let due = self.deadline();
        let mut polls = vec![
            Poll::new(signals.as_fd(), true, false),
            self.socket
                .as_ref()
                .filter(|_| self.has_room_for_callers())
                .map_or(Poll::none(), |d| Poll::new(d.as_fd(), true, false)),
            self.liveness.poll(),
        ];
        let (fixed, callers) = (polls.len(), self.callers.ids());
        polls.extend(self.callers.polls(self.has_room_for_calls()));
        let forwards = self.forwards.listeners().count();
        polls.extend(self.forwards.polls(self.has_room_for_applications(), self.now));
        polls.extend(self.connecting.iter().map(|(_, fd)| Poll::new(fd.as_fd(), false, true)));
        let ready = self.pump.wait(&mut self.link, &mut polls, due)?;
        self.now = self.pump.now();
        if !ready {
            return Ok(());
        }
        let (signalled, arrived, probed) =
            (polls[0].readable(), polls[1].readable(), polls[2].writable());
        let sent: Vec<(u32, bool)> = callers
            .iter()
            .zip(&polls[fixed..fixed + callers.len()])
            .filter(|(_, p)| p.readable() || p.hung())
            .map(|(id, p)| (*id, p.hung()))
            .collect();
        let pending_forwards: Vec<bool> =
            polls[fixed + callers.len()..][..forwards].iter().map(Poll::readable).collect();
        drop(polls);
        if probed {
            self.liveness.probe_finished(self.link.socket(), self.now);
        }
        self.pump.serve(&mut self.link);
        sent.into_iter().for_each(|(id, hung)| self.receive_from(id, hung));
        if arrived {
            self.accept_callers();
        }
        self.take_applications(&pending_forwards);
        if signalled && signals.next().is_some_and(|r| r.signal != Signal::Hup) {
            self.phase = Phase::Ending;
        }
        Ok(())
    }

    /// When the next timeout is due.
    fn deadline(&self) -> Duration {
        let retry = self.waiting.front().and_then(|p| p.again);
        let paused = self.forwards.deadline(self.now);
        self.over_at()
            .into_iter()
            .chain(retry)
            .chain(paused)
            .chain(self.clients_deadline())
            .fold(self.liveness.deadline(), Duration::min)
    }

    /// Sends go-away and the end of TLS, so that the server need not wait for a timeout.
    fn close_session(&mut self) {
        let until = clock::monotonic() + CLOSE_TIMEOUT;
        self.pump.go_away();
        if self.pump.send_rest(&mut self.link, until) {
            self.link.send_close_notify();
        }
    }
}
