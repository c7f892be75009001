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
            // Whichever side is wrong about records, it would be wrong on another connection too.
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
