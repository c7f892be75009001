//! Why the loop of a multiplexer ends.

use crate::link::Error;
use crate::net::end::End;

/// See the module.
pub(super) enum Over {
    End(End),
    /// The connection cannot be used any more. Only if the session is not resumable does that end
    /// the session.
    Lost(End),
}

impl From<End> for Over {
    fn from(end: End) -> Over {
        Over::End(end)
    }
}

impl From<Error> for Over {
    fn from(e: Error) -> Over {
        match e {
            Error::NoRecord(_) | Error::System(_) => {
                log::debug!("{e}");
                Over::End(e.into())
            }
            Error::Closed
            | Error::Truncated
            | Error::Broken(_)
            | Error::Tls(_)
            | Error::Timeout => Over::Lost(e.into()),
        }
    }
}
