//! HELP: the names of what this session may use.

use crate::policy::{Facts, Table};
use crate::wire::builtins::{Session, listed};
use crate::wire::reply;

/// The services, then the built-ins: whoever may not use one does not learn that there is one.
pub fn answer(table: &Table, facts: &Facts, session: Session) -> Vec<u8> {
    reply::help(table.help(facts), listed(session))
}
