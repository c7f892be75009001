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
//! | `next` | what follows after a built-in |
//! | `resume` | the same, for streams that outlive their connection |
//! | `run` | names a service whose standard error and end are told apart from its output |

mod auth;
pub mod help;
mod host;
mod login;
pub mod multiplex;
mod next;
mod offer;
mod pubkey;
mod resume;
mod run;
pub mod ssl;

pub use next::Next;

use super::end::End;
use super::session_state::{Begin, Session};
use crate::wire::builtins::Builtin;

/// Runs a built-in to its end. Err: the session has ended in it, and not in order. `begin` starts a
/// session for a stream.
pub fn run(s: &mut Session, b: Builtin, begin: Begin) -> Result<Next, End> {
    match b {
        Builtin::Host => host::run(s).map(|()| Next::Request),
        Builtin::Auth => auth::run(s).map(|()| Next::Request),
        Builtin::Offer => offer::run(s).map(Next::of),
        Builtin::Pubkey => pubkey::run(s).map(|()| Next::Request),
        Builtin::Ssl => ssl::run(s).map(|()| Next::Request),
        Builtin::Multiplex => multiplex::run(s, begin).map(Next::Streams),
        Builtin::Resume => resume::run(s, begin),
        Builtin::Run => run::run(s).map(Next::of),
    }
}
