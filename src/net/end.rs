//! Why a session ends, and what ends its waits: its client, the deadline, or the parent.

use super::channel::{Channel, ChannelError};
use crate::link::{Error, Interest, Wait};
use crate::sys::clock;
use crate::sys::poll::{self, Poll};
use crate::wire::orders::Data;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Why a session ends; as the log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client has closed the connection, or its service has ended.
    Closed,
    /// The connection failed.
    Broken,
    /// The connection ended without TLS's close_notify.
    Truncated,
    Timeout,
    /// fived itself ends, or a new table is in force.
    Drained,
    /// The client does not speak TLS, or the handshake failed.
    Tls,
    /// The client sent a frame or a record that breaks the protocol.
    Protocol,
    /// The client failed to log in too often.
    Tries,
    /// The client was refused something, and that ends the session.
    Refused,
    /// No descriptor or memory is left, or the parent is gone.
    System,
    /// There are too many sessions: the parent has refused this one.
    Full,
    /// Its connection was lost, and no other came in time; or there were too many such sessions.
    Lost,
    /// Another session has its connection.
    Resumed,
    /// It was idle, and had to make room for another one.
    Evicted,
}

impl End {
    pub fn as_str(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Broken => "broken",
            End::Truncated => "truncated",
            End::Timeout => "timeout",
            End::Drained => "drained",
            End::Tls => "tls",
            End::Protocol => "protocol",
            End::Tries => "tries",
            End::Refused | End::Full => "refused",
            End::System => "system",
            End::Lost => "lost",
            End::Resumed => "resumed",
            End::Evicted => "evicted",
        }
    }

    /// As orders have it.
    pub fn data(self) -> Data {
        Data::truncate(self.as_str().as_bytes())
    }
}

impl From<ChannelError> for End {
    fn from(error: ChannelError) -> End {
        match error {
            ChannelError::Closed => End::System,
            ChannelError::Full => End::Full,
        }
    }
}

impl From<Error> for End {
    fn from(e: Error) -> End {
        match e {
            Error::Closed => End::Closed,
            Error::Truncated => End::Truncated,
            Error::Broken(_) => End::Broken,
            Error::Tls(_) => End::Tls,
            Error::NoRecord(_) => End::Protocol,
            Error::Timeout => End::Timeout,
            Error::System(_) => End::System,
        }
    }
}

/// Every wait also ends when fived ends.
impl Wait for Channel {
    type End = End;

    fn wait(&self, socket: BorrowedFd, interest: Interest, until: Duration) -> Result<(), End> {
        loop {
            if self.exits() {
                return Err(End::Drained);
            }
            let left = until.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Err(End::Timeout);
            }
            let mut polls = [interest.of(socket), Poll::new(self.as_fd(), true, false)];
            poll::wait(&mut polls, Some(left)).map_err(|_| End::System)?;
            let [ready, channel] = polls;
            if channel.readable() {
                // No order waits for an answer now: keep what comes.
                self.receive_pending()?;
            }
            if ready.readable() || ready.writable() {
                return Ok(());
            }
        }
    }
}
