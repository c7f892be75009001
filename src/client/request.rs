//! What a call asks the server for, once it has a stream.

use super::offer::{Offered, Origin};
use crate::wire::answer::AnswerReader;
use crate::wire::builtins::{Builtin, HELP};
use crate::wire::request;
use crate::wire::run::{self, Way};

/// What a call requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Empty: the session's host.
    pub host: String,
    /// None: HELP.
    pub service: Option<String>,
    /// How the service is requested.
    pub way: Way,
    /// The service is not used but offered.
    pub offered: Option<Offered>,
}

impl Request {
    /// The answer that is expected before the service's own bytes. `host`: that to
    /// [`Request::host_lines`] comes first.
    pub fn answer(&self, host: bool) -> AnswerReader {
        match (&self.offered, self.way.is_run()) {
            (Some(_), _) => AnswerReader::offer(host),
            (None, true) => AnswerReader::to_run(host),
            (None, false) => AnswerReader::new(host, self.service.is_none()),
        }
    }

    /// The lines that choose the virtual host; none for the session's host.
    pub fn host_lines(&self) -> Vec<u8> {
        match self.host.as_str() {
            "" => Vec::new(),
            host => [request::line(Builtin::Host.as_str()), request::line(host)].concat(),
        }
    }

    /// The lines that request the service, once the host is chosen.
    pub fn service_lines(&self) -> Vec<u8> {
        let (before, name) = match (&self.offered, self.way.is_run()) {
            (Some(_), _) => (request::line(Builtin::Offer.as_str()), request::line(self.name())),
            (None, true) => {
                let name = run::line(self.name(), self.way.terminal());
                (request::line(Builtin::Run.as_str()), name)
            }
            (None, false) => (Vec::new(), request::line(self.name())),
        };
        [before, name].concat()
    }

    /// The lines with which a session's first stream begins. Whether the server has such a virtual
    /// host is not known yet: where it has none it would take what follows for a request to the
    /// session's host.
    pub fn first_lines(&self) -> Vec<u8> {
        if self.host.is_empty() { self.service_lines() } else { self.host_lines() }
    }

    /// Who asked for the offer, if it is one.
    pub fn origin(&self) -> Option<Origin> {
        self.offered.as_ref().map(|o| o.origin)
    }

    /// The name that is requested.
    pub fn name(&self) -> &str {
        self.service.as_deref().unwrap_or(HELP)
    }
}
