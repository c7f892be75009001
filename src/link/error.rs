//! Why a link can no longer be used.

use std::fmt;
use std::io;

/// See the module.
#[derive(Debug)]
pub enum Error {
    /// The other side has closed the connection.
    Closed,
    /// The connection ended without TLS's close_notify: data may be missing.
    Truncated,
    /// Reading or writing the connection failed.
    Broken(io::Error),
    /// The other side does not speak TLS, or breaks its rules. The alert was sent, as far as the
    /// socket took it at once.
    Tls(rustls::Error),
    /// Of a resumable link: the other side sent something that is no record.
    NoRecord(&'static str),
    /// A deadline has passed.
    Timeout,
    /// poll(2) failed.
    System(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Closed => f.write_str("the other side ended the connection"),
            Error::Truncated => f.write_str("the connection ended without the end of TLS"),
            Error::Broken(e) => write!(f, "the connection broke: {e}"),
            Error::Tls(e) => write!(f, "TLS: {e}"),
            Error::NoRecord(why) => write!(f, "the other side sent {why}"),
            Error::Timeout => f.write_str("no answer in time"),
            Error::System(e) => write!(f, "poll: {e}"),
        }
    }
}
