//! HELP: lists the names that this session may use.

use crate::policy::{Facts, Table};
use crate::wire::builtins::{Conditions, listed};
use crate::wire::reply;

/// The services, then the built-ins. A name that this session may not use is not listed.
pub fn answer(table: &Table, facts: &Facts, session: Conditions) -> Vec<u8> {
    reply::help(table.help(facts), listed(session))
}
