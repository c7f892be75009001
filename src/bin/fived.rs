//! fived(8): the daemon, and the roles that it starts of itself.

#![no_main]

use fived::sys::process;
use fived::wire::roles;
use fived::{internal, keys, login, net, parent};
use std::ffi::OsString;

fived::entry_point!(run);

/// Runs what the first word says. Returns the exit status.
fn run(words: Vec<OsString>) -> i32 {
    let words: Vec<String> = words
        .into_iter()
        .map(OsString::into_string)
        .map(|w| w.unwrap_or_else(|w| w.to_string_lossy().into_owned()))
        .collect();
    let (role, rest) =
        words.split_first().map_or(("", &[][..]), |(role, rest)| (role.as_str(), rest));
    let own = [roles::NET, roles::KEYS, roles::LOGIN, roles::TERMINAL, roles::SERVICE];
    if own.contains(&role) {
        // They are started by a path whose last part says nothing.
        process::set_name(role);
    }
    match role {
        roles::NET => net::main(),
        roles::KEYS => keys::main(),
        roles::LOGIN => login::main(),
        roles::TERMINAL => internal::terminal::main(),
        roles::SERVICE => internal::main(rest),
        _ => parent::main(role, rest),
    }
}
