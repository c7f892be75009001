//! RUN: a service with its standard error and its end apart from its output. What follows the
//! answer are records (`wire::run`).

use crate::net::end::End;
use crate::net::session_state::Session;
use crate::wire::reply;
use crate::wire::request::DIALOGUE_MAX;
use crate::wire::run::{self, Way};

/// Runs the dialogue, and starts the service that it names. Some: it was refused.
pub fn run(s: &mut Session) -> Result<Option<End>, End> {
    s.write(reply::SUCCESS)?;
    let line = s.line(DIALOGUE_MAX)?;
    let (name, terminal) = run::read_line(&line);
    s.run_service(name, Way::run(terminal))
}
