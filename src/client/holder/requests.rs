//! The messages of callers, and what the holder does about them.

use super::call::Call;
use super::callers::{FIRST, Purpose};
use super::state::{Holder, Phase};
use crate::client::request::Request;
use crate::link::pump::{KEPT_MAX, LocalEnd};
use crate::sys::flow::Flow;
use crate::sys::shared::Shared;
use crate::sys::{identity, local, message};
use crate::wire::handover::{Ask, MESSAGE_MAX, Notice};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

/// Messages of one caller that are received in a turn, at most.
const BATCH: usize = 16;

impl Holder {
    /// Accepts new callers.
    pub(super) fn accept_callers(&mut self) {
        let me = identity::effective_uid();
        while let Some(socket) = self.socket.as_ref().filter(|_| self.has_room_for_callers()) {
            match local::accept(socket.as_fd()) {
                // The directory is private, so nobody else should be able to connect.
                Ok(fd) if local::peer_uid(fd.as_fd()).is_ok_and(|uid| uid == me) => {
                    self.callers.add(fd)
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Receives a caller's messages; `hung`: the caller has closed its end, and these are its last.
    pub(super) fn receive_from(&mut self, id: u32, hung: bool) {
        let mut bytes = [0; MESSAGE_MAX];
        for _ in 0..BATCH {
            let takes = self.has_room_for_calls() && self.callers.hears(id);
            if !takes && !hung {
                return;
            }
            let Some(caller) = self.callers.all.get_mut(&id) else { return };
            let (n, mut fds) = match message::receive(caller.fd.as_fd(), &mut bytes) {
                Ok((n @ 1.., fds)) => (n, fds),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                _ => return self.caller_gone(id),
            };
            let ask = Ask::decode(&bytes[..n]);
            caller.purpose = match ask {
                Some(
                    Ask::Open { .. }
                    | Ask::Input { .. }
                    | Ask::Resized { .. }
                    | Ask::Offer { tag: 1.., .. },
                )
                | None => Purpose::Calls,
                Some(_) => Purpose::Orders,
            };
            match ask {
                None => return self.caller_gone(id),
                // The session has ended, as the end of the channel tells.
                Some(ask) if self.phase == Phase::Outliving && !ask.is_about_forwards() => {
                    if !self.asked_too_late(id, &ask) {
                        return self.caller_gone(id);
                    }
                }
                Some(Ask::Input { tag, bytes }) => {
                    let held = caller.inputs.entry(tag).or_default();
                    if held.len() + bytes.len() > KEPT_MAX {
                        return self.caller_gone(id);
                    }
                    held.extend_from_slice(&bytes);
                }
                Some(Ask::Resized { tag, size }) => self.resized(id, tag, size),
                // No stream is opened for a caller that is gone.
                Some(Ask::Open { .. }) if hung => {}
                Some(Ask::Open { tag, over, help, host, service, way }) => {
                    let ahead = self.callers.take_input(id, tag);
                    let service = (!help).then_some(service);
                    let request = Request { host, service, way, offered: None };
                    let fds = [(); 3].map(|()| fds.take().map(Shared::our_own));
                    let Some(ends) = ends(fds) else { return self.caller_gone(id) };
                    self.callers.send(id, &Notice::Taken { tag });
                    self.take_call(Call::new(id, tag, over, request, ends, ahead, self.now));
                }
                Some(order) => self.obey(
                    id,
                    order,
                    std::iter::from_fn(move || fds.take().map(Shared::our_own)),
                ),
            }
        }
    }

    /// A caller has ended, so its calls end, too.
    pub(super) fn caller_gone(&mut self, id: u32) {
        let Some(gone) = self.callers.all.remove(&id) else { return };
        // The call for which the session was made.
        if let Some((stream, _)) = self.first.take_if(|_| id == FIRST) {
            self.pump.start_reading();
            self.give_up(stream);
        }
        // Asking about a session (-O) must not prolong it.
        if gone.purpose == Purpose::Calls {
            self.idle = self.now;
        }
        self.waiting.retain(|p| p.call.caller != id);
        let its: Vec<_> =
            self.pump.streams().filter(|(_, s)| s.owner.caller == id).map(|s| s.0).collect();
        its.into_iter().for_each(|stream| self.give_up(stream));
    }
}

/// Makes a call's ends of the descriptors that came: an input and an output, or one that is both;
/// and its standard error. None: they could make the holder wait.
fn ends([input, output, errors]: [Option<OwnedFd>; 3]) -> Option<(LocalEnd, Option<Flow>)> {
    let input = input?;
    let output = output.or_else(|| input.try_clone().ok())?;
    let errors = errors.map(Flow::new).transpose().ok()?;
    let (input, output) = (Some(Flow::new(input).ok()?), Some(Flow::new(output).ok()?));
    Some((LocalEnd::Flows { input, output }, errors))
}
