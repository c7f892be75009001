//! fived(8): the daemon, and the roles that it starts of itself.

use fived::{internal, keys, login, net, parent};
use std::ffi::OsString;

fn main() {
    let words: Vec<String> = std::env::args_os()
        .map(OsString::into_string)
        .map(|w| w.unwrap_or_else(|w| w.to_string_lossy().into_owned()))
        .collect();
    let (role, rest) =
        words.split_first().map_or(("", &[][..]), |(role, rest)| (role.as_str(), rest));
    std::process::exit(match role {
        parent::NET => net::main(),
        parent::KEYS => keys::main(),
        parent::LOGIN => login::main(),
        parent::INTERNAL => internal::main(rest.first().map_or("", String::as_str)),
        _ => parent::main(rest),
    });
}
