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
    /// The answer that is expected before the service's own bytes.
    pub fn answer(&self) -> AnswerReader {
        let host = !self.host.is_empty();
        match (&self.offered, self.way.is_run()) {
            (Some(_), _) => AnswerReader::offer(host),
            (None, true) => AnswerReader::to_run(host),
            (None, false) => AnswerReader::new(host, self.service.is_none()),
        }
    }

    /// The lines with which a stream begins.
    pub fn lines(&self) -> Vec<u8> {
        let host = match self.host.as_str() {
            "" => Vec::new(),
            host => [request::line(Builtin::Host.as_str()), request::line(host)].concat(),
        };
        let (before, name) = match (&self.offered, self.way.is_run()) {
            (Some(_), _) => (request::line(Builtin::Offer.as_str()), request::line(self.name())),
            (None, true) => {
                let name = run::line(self.name(), self.way.terminal());
                (request::line(Builtin::Run.as_str()), name)
            }
            (None, false) => (Vec::new(), request::line(self.name())),
        };
        [host, before, name].concat()
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
