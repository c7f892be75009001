//! A call of this process, as it was asked for, and what a holder reports of it.

use super::ended::Ended;
use super::request::Request;
use crate::wire::handover::{Ask, OverWhen};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Applications that are accepted while there is no session, at most. The others wait unaccepted: a
/// descriptor for the next session must be left.
const UNSERVED_MAX: usize = 64;
/// How many tries of one call follow each other at once, and the pause before each later one.
pub const TRIES_AT_ONCE: u32 = 3;
pub const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// One call.
pub struct Call {
    pub request: Request,
    pub over: OverWhen,
    /// Input, output and standard error, or one that is input and output; closed once the service
    /// has the call.
    pub fds: Vec<OwnedFd>,
    /// Input that was read already.
    pub ahead: Vec<u8>,
    pub channel: u32,
    pub tries: u32,
}

impl Call {
    pub fn new(request: Request, over: OverWhen, fds: Vec<OwnedFd>) -> Call {
        Call { request, over, fds, ahead: Vec::new(), channel: 0, tries: 0 }
    }

    /// Is it an application's, which has connected to a forward?
    pub fn is_an_application_s(&self) -> bool {
        self.over == OverWhen::BothEnd
    }

    /// What its holder is asked for, last.
    pub fn open(&self, tag: u32) -> Ask {
        Ask::Open {
            tag,
            over: self.over,
            help: self.request.service.is_none(),
            host: self.request.host.clone(),
            service: self.request.service.clone().unwrap_or_default(),
            way: self.request.way.clone(),
        }
    }
}

/// Calls of applications that wait for a session, each with its tag.
#[derive(Default)]
pub struct Unserved {
    calls: Vec<(u32, Call)>,
    is_new: bool,
}

impl Unserved {
    pub fn push(&mut self, tag: u32, call: Call) {
        self.calls.push((tag, call));
        self.is_new = true;
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.calls.len() < UNSERVED_MAX
    }

    /// All of them, for the session that there is now.
    pub fn take(&mut self) -> Vec<(u32, Call)> {
        std::mem::take(&mut self.calls)
    }

    /// Has one come since this was asked last? Then: how long to wait before the next session is
    /// made, which depends on how those before it did. Once it stands nothing waits: it may not
    /// stand for long.
    pub fn pause(&mut self) -> Option<Duration> {
        let broke = self.calls.iter().any(|(_, call)| call.tries > TRIES_AT_ONCE);
        let pause = if broke { RETRY_INTERVAL } else { Duration::ZERO };
        std::mem::take(&mut self.is_new).then_some(pause)
    }
}

/// What a holder reports of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum CallEvent {
    Started,
    /// Its service has a terminal. So many bytes of its output, the first ones, are a banner.
    Terminal(usize),
    Ended(Ended),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::run::Way;

    #[test]
    fn sessions_that_break_as_soon_as_they_are_made_follow_each_other_after_a_pause() {
        let pause_after = |tries| {
            let mut all = Unserved::default();
            let (host, service) = (String::new(), Some("web".into()));
            let request = Request { host, service, way: Way::Plain, offered: None };
            let call = Call::new(request, OverWhen::BothEnd, Vec::new());
            assert_eq!(all.pause(), None);
            all.push(7, Call { tries, ..call });
            (all.pause(), all.pause())
        };
        assert_eq!(pause_after(TRIES_AT_ONCE), (Some(Duration::ZERO), None));
        assert_eq!(pause_after(TRIES_AT_ONCE + 1), (Some(RETRY_INTERVAL), None));
    }
}
