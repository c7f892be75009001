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

/// Added to a refusal that a login may change.
const HINT_NOBODY: &str = " (nobody is logged in: -l USER may change that)";
/// Added to one whose reason a client is not told.
const HINT_FAILED: &str = " (the server's log says why)";

/// What five returns when its call has ended like this: its exit status, which is that of the
/// service if the server tells it.
pub fn result_of(t: &Target, service: &str, ended: Ended) -> Result<i32, Error> {
    match ended {
        Ended::Over(status) => Ok(status.map_or(0, Status::code)),
        Ended::Unread => end_by_sigpipe(),
        Ended::Lost(why) => Err(Error::Lost { what: t.place(), why }),
        Ended::Refused(text) => {
            let hint = hint(nobody(t), &text);
            Err(Error::Service { service: service.into(), reply: text, hint })
        }
    }
}

/// Does nobody log in, who could?
pub fn nobody(t: &Target) -> bool {
    t.user.is_none() && !is_path(&t.host)
}

/// What the user can do about a refusal; `nobody`: nobody is logged in.
pub fn hint(nobody: bool, refusal: &str) -> &'static str {
    let hides = [reply::NOT_AVAILABLE, reply::NOT_OFFERED];
    let hidden = hides.iter().any(|answer| refusal.starts_with(reply::refusal(answer).trim()));
    match refusal.starts_with(reply::refusal(reply::FAILED)) {
        true => HINT_FAILED,
        false if hidden && nobody => HINT_NOBODY,
        false => "",
    }
}
