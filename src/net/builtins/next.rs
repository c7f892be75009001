//! What follows after a built-in, or after a request.

use super::multiplex::Streams;
use crate::net::end::End;

/// See the module.
pub enum Next {
    /// The next request.
    Request,
    /// The connection carries streams from now on.
    Streams(Box<Streams>),
    /// The session has ended, in order.
    Ended(End),
}

impl Next {
    /// After a request that has ended the session, or has not.
    pub fn of(ended: Option<End>) -> Next {
        ended.map_or(Next::Request, Next::Ended)
    }
}
