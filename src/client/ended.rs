//! How a call ended, and what five returns then.

use super::error::Error;
use super::options::is_path;
use super::stdio::end_by_sigpipe;
use super::target::Target;
use crate::wire::reply;
use crate::wire::run::Status;

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The service has ended; how, if the server tells that.
    Over(Option<Status>),
    /// The service was refused; the server's answer.
    Refused(String),
    /// Nobody reads its output any more.
    Unread,
    /// The connection broke.
    Lost(String),
}

/// Added to a refusal if nobody is logged in.
const HINT_NOBODY: &str = " (nobody is logged in: -l USER may change that)";

/// What five returns when its call has ended like this: its exit status, which is that of the
/// service if the server tells it.
pub fn result_of(t: &Target, service: &str, ended: Ended) -> Result<i32, Error> {
    match ended {
        Ended::Over(status) => Ok(status.map_or(0, Status::code)),
        Ended::Unread => end_by_sigpipe(),
        Ended::Lost(why) => Err(Error::Lost { what: t.place(), why }),
        Ended::Refused(text) => {
            let unknown = text.starts_with(reply::refusal(reply::NOT_AVAILABLE));
            let nobody = t.user.is_none() && !is_path(&t.host);
            let hint = if unknown && nobody { HINT_NOBODY } else { "" };
            Err(Error::Service { service: service.into(), reply: text, hint })
        }
    }
}
