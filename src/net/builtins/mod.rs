//! The built-ins, a file each. Which of them a request may name, and where, is in
//! [`crate::wire::builtins`].
//!
//! | file | what it does |
//! |---|---|
//! | `help` | lists what this session may use |
//! | `host` | chooses a virtual host |
//! | `auth` `pubkey` | log in; `login` has what they share |
//! | `ssl` | begins TLS |
//! | `offer` | offers a service, in a stream |
//! | `multiplex` | turns the connection into many streams |
//! | `run` | names a service whose standard error and end are told apart from its output |

mod auth;
pub mod help;
mod host;
mod login;
mod multiplex;
mod offer;
mod pubkey;
mod run;
pub mod ssl;

use super::end::End;
use super::session_state::{Begin, Session};
use crate::wire::builtins::Builtin;

/// Runs a built-in to its end. Some: the session has ended in it, in order; Err: in another way.
/// `begin` starts a session for a stream.
pub fn run(s: &mut Session, b: Builtin, begin: Begin) -> Result<Option<End>, End> {
    match b {
        Builtin::Host => host::run(s).map(|()| None),
        Builtin::Auth => auth::run(s).map(|()| None),
        Builtin::Offer => offer::run(s),
        Builtin::Pubkey => pubkey::run(s).map(|()| None),
        Builtin::Run => run::run(s),
        Builtin::Ssl => ssl::run(s).map(|()| None),
        Builtin::Multiplex => multiplex::run(s, begin).map(Some),
    }
}
