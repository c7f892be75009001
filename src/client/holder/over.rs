//! Why the session, or its connection, is over.

use crate::client::server::lost;
use crate::link::Error as LinkError;

/// See the module; each with the reason.
pub enum Over {
    /// The connection; the session may be resumed on another one.
    Lost(String),
    /// The session.
    Ended(String),
}

impl From<LinkError> for Over {
    fn from(e: LinkError) -> Over {
        match &e {
            // What is no record may be anybody's fault, but it will not be right the next time.
            LinkError::NoRecord(_) => Over::Ended(lost(&e)),
            LinkError::Closed
            | LinkError::Truncated
            | LinkError::Broken(_)
            | LinkError::Tls(_)
            | LinkError::Timeout
            | LinkError::System(_) => Over::Lost(lost(&e)),
        }
    }
}
