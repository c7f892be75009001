//! The built-ins, a file each. Which of them a request may name, and where, is in
//! [`crate::wire::builtins`].
//!
//! | file | what it does |
//! |---|---|
//! | `help` | says what is there, and changes nothing |
//! | `host` | chooses a virtual host |
//! | `auth` `pubkey` | log in, with what `login` has for both |
//! | `ssl` | begins TLS |
//! | `multiplex` | turns the connection into many |

mod auth;
pub mod help;
mod host;
mod login;
mod multiplex;
mod pubkey;
pub mod ssl;

use super::end::End;
use super::session_state::{Begin, Session};
use crate::wire::builtins::Builtin;

/// The whole of a built-in. Some: the session ended in it, in order; Err: otherwise.
/// `begin`: what starts a session for a stream.
pub fn run(s: &mut Session, b: Builtin, begin: Begin) -> Result<Option<End>, End> {
    match b {
        Builtin::Host => host::run(s).map(|()| None),
        Builtin::Auth => auth::run(s).map(|()| None),
        Builtin::Pubkey => pubkey::run(s).map(|()| None),
        Builtin::Ssl => ssl::run(s).map(|()| None),
        Builtin::Multiplex => multiplex::run(s, begin).map(Some),
    }
}
