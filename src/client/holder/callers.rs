//! Who asks the holder: channels to processes of the same user, and what they are told. A caller
//! that does not listen is dropped.

use super::Holder;
use super::calls::Call;
use crate::client::open::Request;
use crate::link::pump::{KEPT_MAX, Near};
use crate::sys::flow::Flow;
use crate::sys::poll::Poll;
use crate::sys::shared::Shared;
use crate::sys::{identity, local, message};
use crate::wire::handover::{Ask, INPUT_MAX, MESSAGE_MAX, Tell};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

/// Descriptors that the holder has for itself: session, socket, signals, a probe, and some to spare.
const OWN: usize = 12;
/// Descriptors that come with a call at most.
const OF_A_CALL: usize = 2;
/// Of so many descriptors one is for calls, whatever comes to the forwards of the configuration.
const CALLS_SHARE: usize = 4;
/// Bytes of lines in one message at most.
const LINES_MAX: usize = MESSAGE_MAX - 1024;
/// The number of the caller for whom the session was made.
const FIRST: u32 = 0;
/// Messages of one caller in a turn, at most.
const BATCH: usize = 16;

struct Caller {
    fd: OwnedFd,
    /// Input that belongs to calls which are yet to come.
    inputs: BTreeMap<u32, Vec<u8>>,
    /// It did not take what it was told.
    deaf: Cell<bool>,
    /// It has only asked about the session (-O).
    only_asks: bool,
}

pub struct Callers {
    all: BTreeMap<u32, Caller>,
    next: u32,
}

impl Callers {
    pub fn new(first: OwnedFd) -> Callers {
        let mut this = Callers { all: BTreeMap::new(), next: FIRST };
        this.add(first);
        this
    }

    fn add(&mut self, fd: OwnedFd) {
        self.all.insert(
            self.next,
            Caller { fd, inputs: BTreeMap::new(), deaf: Cell::new(false), only_asks: false },
        );
        self.next = self.next.wrapping_add(1);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn ids(&self) -> Vec<u32> {
        self.all.keys().copied().collect()
    }

    /// In the order of [`Callers::ids`]. Without `room` for a call they are only asked whether they
    /// are still there.
    pub fn polls(&self, room: bool) -> impl Iterator<Item = Poll<'_>> {
        self.all.values().map(move |c| {
            if room { Poll::new(c.fd.as_fd(), true, false) } else { Poll::hangup(c.fd.as_fd()) }
        })
    }

    /// Tells a caller. One that is gone, or has more unread than its channel holds, is dropped in
    /// the next turn.
    pub fn tell(&self, id: u32, tell: &Tell) {
        if let Some(caller) = self.all.get(&id)
            && message::send_message(caller.fd.as_fd(), &tell.encode(), &[], false).is_err()
        {
            caller.deaf.set(true);
        }
    }

    /// Those who did not take what they were told.
    pub fn deaf(&self) -> Vec<u32> {
        self.all.iter().filter(|(_, c)| c.deaf.get()).map(|(id, _)| *id).collect()
    }

    /// Tells lines, as many in a message as fit.
    fn tell_lines(&self, id: u32, lines: impl Iterator<Item = String>) {
        let mut text = String::new();
        for line in lines {
            if text.len() + line.len() >= LINES_MAX {
                self.tell(id, &Tell::State { text: std::mem::take(&mut text) });
            }
            let end = if text.is_empty() { "" } else { "\n" };
            text = text + end + &line;
        }
        if !text.is_empty() {
            self.tell(id, &Tell::State { text });
        }
    }

    /// Gives input back that was taken for a call.
    pub fn give_back(&self, id: u32, tag: u32, input: &[u8]) {
        input
            .chunks(INPUT_MAX)
            .for_each(|piece| self.tell(id, &Tell::Input { tag, bytes: piece.to_vec() }));
    }
}

impl Holder {
    /// Are there descriptors for `more` of them? Where there are none, callers wait.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let used = OWN
            + self.callers.all.len()
            + self.forwards.len()
            + OF_A_CALL * (self.pump.len() + self.waiting.len());
        used + more <= self.descriptors
    }

    /// May another application come to a forward? A share of the descriptors is for calls alone.
    pub(super) fn has_room_for_applications(&self) -> bool {
        self.has_room(OF_A_CALL + self.descriptors / CALLS_SHARE)
    }

    /// May another call come?
    pub(super) fn has_room_for_calls(&self) -> bool {
        self.has_room(OF_A_CALL)
    }

    /// May another caller come, with its call?
    pub(super) fn has_room_for_callers(&self) -> bool {
        self.has_room(OF_A_CALL + 1)
    }

    /// Takes in who has arrived.
    pub(super) fn admit(&mut self) {
        let me = identity::effective_uid();
        while let Some(socket) = self.socket.as_ref().filter(|_| self.has_room_for_callers()) {
            match local::accept(socket.as_fd()) {
                // The directory is private: nobody else should get here.
                Ok(fd) if local::peer_uid(fd.as_fd()).is_ok_and(|uid| uid == me) => {
                    self.callers.add(fd)
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// What a caller says; `hung`: it is gone behind that.
    pub(super) fn hear_caller(&mut self, id: u32, hung: bool) {
        let mut bytes = [0; MESSAGE_MAX];
        for _ in 0..BATCH {
            if !self.has_room_for_calls() && !hung {
                return;
            }
            let Some(caller) = self.callers.all.get_mut(&id) else { return };
            let (n, mut fds) = match message::receive_message(caller.fd.as_fd(), &mut bytes, false)
            {
                Ok((n @ 1.., fds)) => (n, fds),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                _ => return self.caller_gone(id),
            };
            let ask = Ask::decode(&bytes[..n]);
            caller.only_asks = matches!(ask, Some(Ask::Check | Ask::List | Ask::Exit));
            match ask {
                None => return self.caller_gone(id),
                Some(Ask::Input { tag, bytes }) => {
                    let held = caller.inputs.entry(tag).or_default();
                    if held.len() + bytes.len() > KEPT_MAX {
                        return self.caller_gone(id);
                    }
                    held.extend_from_slice(&bytes);
                }
                // Nothing is begun for who is gone: nobody would hear of it.
                Some(Ask::Open { .. }) if hung => {}
                Some(Ask::Open { tag, both_ends, help, host, service }) => {
                    let ahead = caller.inputs.remove(&tag).unwrap_or_default();
                    let request = Request { host, service: (!help).then_some(service) };
                    let Some((input, output)) =
                        ends(fds.take().map(Shared::our_own), fds.take().map(Shared::our_own))
                    else {
                        return self.caller_gone(id);
                    };
                    self.callers.tell(id, &Tell::Taken { tag });
                    let near = Near::Flows { input: Some(input), output: Some(output) };
                    self.called(Call::new(id, tag, both_ends, request, near, ahead, self.now));
                }
                Some(Ask::Check) => self.callers.tell(id, &Tell::State { text: self.state() }),
                Some(Ask::List) => {
                    let open = self.pump.streams().map(|(_, s)| s.owner.state(s.tally(), self.now));
                    let waiting = self.waiting.iter().map(|p| p.call.state_waiting(self.now));
                    self.callers.tell_lines(id, open.chain(waiting));
                    self.callers.tell(id, &Tell::Done);
                }
                // Its end is the answer: by then the socket is gone.
                Some(Ask::Exit) => self.told_to_go = true,
            }
        }
    }

    /// A caller has ended: so do its calls.
    pub(super) fn caller_gone(&mut self, id: u32) {
        let Some(gone) = self.callers.all.remove(&id) else { return };
        // The call for which the session was made.
        if let Some((stream, _)) = self.first.take_if(|_| id == FIRST) {
            self.pump.listen();
            self.give_up(stream);
        }
        // Whoever watches a session must not keep it.
        if !gone.only_asks {
            self.idle = self.now;
        }
        self.waiting.retain(|p| p.call.caller != id);
        let its: Vec<_> =
            self.pump.streams().filter(|(_, s)| s.owner.caller == id).map(|s| s.0).collect();
        its.into_iter().for_each(|stream| self.give_up(stream));
    }

    /// One line for `-O check`.
    fn state(&self) -> String {
        let seconds = self.now.saturating_sub(self.began).as_secs();
        let (streams, waiting) = (self.pump.len(), self.waiting.len());
        let state = if self.mux().leaving() { "draining" } else { "up" };
        format!(
            "session={} pid={} since={seconds} state={state} streams={streams} waiting={waiting}",
            self.name,
            std::process::id()
        )
    }
}

/// Input and output out of what was handed over: two descriptors, or one that is both. None: they
/// would make the holder wait.
fn ends(input: Option<OwnedFd>, output: Option<OwnedFd>) -> Option<(Flow, Flow)> {
    let input = input?;
    let output = output.or_else(|| input.try_clone().ok())?;
    Some((Flow::new(input).ok()?, Flow::new(output).ok()?))
}
