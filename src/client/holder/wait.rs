//! What the holder waits for besides the session itself, and what is done about it.

use super::over::Over;
use super::session_socket::SessionSocket;
use super::state::{Holder, Phase};
use super::successor::Successor;
use crate::link::Error as LinkError;
use crate::sys::network::NetworkChanges;
use crate::sys::poll::{self, Poll};
use crate::sys::signal::{Signal, Signals};
use std::os::fd::AsFd;
use std::time::Duration;

/// What of it is ready.
pub struct Found {
    pub(super) signalled: bool,
    /// Somebody comes to the session's socket.
    arrived: bool,
    /// The network has changed.
    network: bool,
    /// The probe, or the attempt to resume the session, is over.
    connection: bool,
    /// Callers that have sent something, or have closed their end.
    callers: Vec<(u32, bool)>,
    /// Which listeners have an application.
    forwards: Vec<bool>,
}

/// How many descriptors come before those of callers and forwards.
const OWN: usize = 5;

/// These come first.
fn own<'a>(
    signals: &'a Signals,
    socket: Option<&'a SessionSocket>,
    network: Option<&'a NetworkChanges>,
    connection: Poll<'a>,
    successor: Option<&'a Successor>,
) -> Vec<Poll<'a>> {
    let all: [Poll; OWN] = [
        Poll::new(signals.as_fd(), true, false),
        socket.map_or(Poll::none(), |s| Poll::new(s.as_fd(), true, false)),
        network.map_or(Poll::none(), |n| Poll::new(n.as_fd(), true, false)),
        connection,
        // The next turn looks at it.
        successor.map_or(Poll::none(), Successor::poll),
    ];
    all.to_vec()
}

impl Found {
    /// `callers`: whose descriptors follow those of [`own`]; the forwards' come last, and after the
    /// session those that the rests of calls are written to.
    fn of(polls: &[Poll], callers: Vec<u32>) -> Found {
        let (own, rest) = polls.split_at(OWN);
        let (sent, forwards) = rest.split_at(callers.len());
        let talks = |(id, p): (u32, &Poll)| (p.readable() || p.hung()).then(|| (id, p.hung()));
        Found {
            signalled: own[0].readable(),
            arrived: own[1].readable(),
            network: own[2].readable(),
            connection: own[3].readable() || own[3].writable(),
            callers: callers.into_iter().zip(sent).filter_map(talks).collect(),
            forwards: forwards.iter().map(Poll::readable).collect(),
        }
    }
}

impl Holder {
    /// Waits while the session has a connection. None: only time has passed.
    pub(super) fn wait(&mut self, signals: &Signals) -> Result<Option<Found>, LinkError> {
        let (due, callers) = (self.deadline(), self.callers.ids());
        let socket = self.socket.as_ref().filter(|_| self.has_room_for_callers());
        let mut polls = own(
            signals,
            socket,
            self.network.as_ref(),
            self.liveness.poll(),
            self.successor.as_ref(),
        );
        polls.extend(self.callers.polls(self.has_room_for_calls()));
        polls.extend(self.forwards.polls(self.serves_forwards(), self.now));
        polls.extend(self.connecting.iter().map(|(_, a)| Poll::new(a.as_fd(), false, true)));
        let ready = self.pump.wait(&mut self.link, &mut polls, due)?;
        self.now = self.pump.now();
        Ok(ready.then(|| Found::of(&polls, callers)))
    }

    /// Waits while it has none: applications are watched, and not read.
    pub(super) fn wait_away(&mut self, signals: &Signals) -> Result<Option<Found>, LinkError> {
        let (due, callers) = (self.deadline(), self.callers.ids());
        let Some(away) = &self.away else { return Ok(None) };
        let socket = self.socket.as_ref().filter(|_| self.has_room_for_callers());
        let mut polls =
            own(signals, socket, self.network.as_ref(), away.poll(), self.successor.as_ref());
        polls.extend(self.callers.polls(self.has_room_for_calls()));
        polls.extend(self.forwards.polls(self.serves_forwards(), self.now));
        polls.extend(self.connecting.iter().map(|(_, a)| Poll::new(a.as_fd(), false, true)));
        let fixed = polls.len();
        let inputs: Vec<_> = self.pump.inputs().filter(|(id, _)| away.watches(*id)).collect();
        polls.extend(inputs.iter().map(|(_, input)| Poll::new(*input, true, false)));
        let left = due.saturating_sub(self.now);
        let ready = poll::wait(&mut polls, Some(left)).map_err(LinkError::System)?;
        let written = inputs.iter().zip(&polls[fixed..]).filter(|(_, p)| p.readable());
        let written: Vec<_> = written.map(|((id, _), _)| *id).collect();
        let found = (ready > 0).then(|| Found::of(&polls[..fixed], callers));
        drop(polls);
        self.pump.begin_turn();
        self.now = self.pump.now();
        if let Some(away) = &mut self.away {
            away.written(written, self.now);
        }
        Ok(found)
    }

    /// Waits after the session has ended.
    pub(super) fn wait_outliving(&mut self, signals: &Signals) -> std::io::Result<Found> {
        let callers = self.callers.ids();
        let mut polls =
            own(signals, self.socket.as_ref(), None, Poll::none(), self.successor.as_ref());
        polls.extend(self.callers.polls(true));
        polls.extend(self.pump.rests().map(|fd| Poll::new(fd, false, true)));
        let due = self.successor.as_ref().and_then(Successor::deadline);
        poll::wait(&mut polls, due.map(|at| at.saturating_sub(self.now)))?;
        Ok(Found::of(&polls, callers))
    }

    /// Receives the messages of callers, and accepts new ones.
    pub(super) fn serve_callers(&mut self, found: &Found) {
        found.callers.iter().for_each(|(id, hung)| self.receive_from(*id, *hung));
        if found.arrived {
            self.accept_callers();
        }
    }

    /// Does what was waited for.
    pub(super) fn serve(&mut self, found: Option<Found>, signals: &Signals) -> Result<(), Over> {
        let Some(found) = found else { return Ok(()) };
        match self.away {
            None => {
                if found.connection {
                    self.liveness.probe_finished(self.link.socket(), self.now);
                }
                self.pump.serve(&mut self.link);
            }
            Some(_) if found.connection => self.attempted()?,
            Some(_) => {}
        }
        let open = self.pump.len();
        self.serve_callers(&found);
        self.take_applications(&found.forwards);
        if self.pump.len() > open {
            self.wants_the_server();
        }
        if found.signalled && signals.next().is_some_and(|r| r.signal != Signal::HUP) {
            self.phase = Phase::Ending;
        }
        if found.network && self.network.as_ref().is_some_and(NetworkChanges::take) {
            self.network_changed()?;
        }
        Ok(())
    }

    /// When the next timeout is due.
    fn deadline(&self) -> Duration {
        let retry = self.waiting.front().and_then(|p| p.again).filter(|_| self.away.is_none());
        let paused = self.forwards.deadline(self.now);
        let first = match &self.away {
            Some(away) => away.deadline(self.now),
            None => self.liveness.deadline(),
        };
        let clients = self.clients_deadline();
        let successor = self.successor.as_ref().and_then(Successor::deadline);
        let others = self.over_at().into_iter().chain(retry).chain(paused).chain(clients);
        let others = others.chain(successor);
        others.fold(first, Duration::min)
    }
}
