//! Applications that connect to a forward of the session. Each connection is a call without a
//! caller.

use super::call::Call;
use super::callers::NOBODY;
use super::state::Holder;
use super::successor::Left;
use crate::client::forward::{ACCEPT_PAUSE, Accepted};
use crate::client::request::Request;
use crate::link::pump::LocalEnd;
use crate::sys::flow::Flow;
use crate::wire::handover::OverWhen;
use crate::wire::run::Way;
use std::os::fd::OwnedFd;

/// Connections that are accepted from one listener in a turn, at most.
const BATCH: usize = 16;

impl Holder {
    /// Accepts connections; `ready`: which of the listeners have one.
    pub(super) fn take_applications(&mut self, ready: &[bool]) {
        for n in ready.iter().enumerate().filter(|(_, ready)| **ready).map(|(n, _)| n) {
            for _ in 0..BATCH {
                if !self.serves_forwards() {
                    return;
                }
                let Some((listener, host)) = self.forwards.listeners().nth(n) else { break };
                match listener.accept() {
                    Accepted::Application(fd) => {
                        let service = Some(listener.service.clone());
                        let (host, way) = (host.to_string(), Way::Plain);
                        let request = Request { host, service, way, offered: None };
                        self.application(request, fd, Vec::new());
                    }
                    Accepted::Nobody => break,
                    Accepted::NoRoom => {
                        self.forwards.paused = self.now + ACCEPT_PAUSE;
                        return;
                    }
                }
            }
        }
    }

    /// Serves one that has connected to a forward of a session that has ended; `ahead`: what was
    /// read of it already.
    pub(super) fn adopt(
        &mut self,
        host: String,
        service: String,
        mut fds: impl Iterator<Item = OwnedFd>,
        ahead: Vec<u8>,
    ) -> Result<(), String> {
        if !self.serves_forwards() {
            return Err("the session takes no more applications now".into());
        }
        let fd = fds.next().ok_or("no descriptor came with it")?;
        let (service, way) = (Some(service), Way::Plain);
        self.application(Request { host, service, way, offered: None }, fd, ahead);
        Ok(())
    }

    /// The service of an application has not been started, and this session does not start it any
    /// more: the next one does.
    pub(super) fn leave_application(&mut self, call: Call) {
        let LocalEnd::Flows { input, output } = call.local else { return };
        // Both are its connection.
        let Some(connection) = input.or(output) else { return };
        let Request { host, service, .. } = call.request;
        let (service, fd) = (service.unwrap_or_default(), connection.into_fd());
        self.left.push(Left { host, service, fd, ahead: call.ahead });
    }

    fn application(&mut self, request: Request, fd: OwnedFd, ahead: Vec<u8>) {
        let Ok(copy) = fd.try_clone() else { return };
        // If a descriptor cannot be used without waiting, the connection is closed.
        let (Ok(input), Ok(output)) = (Flow::new(fd), Flow::new(copy)) else { return };
        let local = LocalEnd::Flows { input: Some(input), output: Some(output) };
        self.take_call(Call::new(
            NOBODY,
            0,
            OverWhen::BothEnd,
            request,
            (local, None),
            ahead,
            self.now,
        ));
    }
}
