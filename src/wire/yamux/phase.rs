//! Whether streams may still be opened, from the first frame to the go-away of both sides, and why
//! nothing more is read.

use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No more: the peer has sent go-away, or all of a client's numbers are used. This side may
    /// still send its own go-away.
    PeerGoAway,
    /// A server has sent go-away, and does not know yet whether the client has read it: streams
    /// that the client opened before are served. This ends with the answer to the ping that
    /// followed go-away, or at that time.
    GoAwayUnread {
        ping: u32,
        until: Duration,
    },
    /// No more: this side has sent go-away.
    Closed,
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The peer broke the protocol.
    Protocol,
    /// Nothing came for too long. The peer may come back on another connection.
    Silence,
}

impl Phase {
    /// Is a stream that the peer opens now reset?
    pub fn is_closed(self) -> bool {
        matches!(self, Phase::PeerGoAway | Phase::Closed)
    }

    /// When this phase ends if nothing comes.
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Phase::GoAwayUnread { until, .. } => Some(until),
            Phase::Open | Phase::PeerGoAway | Phase::Closed => None,
        }
    }

    /// The phase at this time.
    pub fn at(self, now: Duration) -> Phase {
        if self.deadline().is_some_and(|until| until <= now) { Phase::Closed } else { self }
    }

    /// The peer has answered a ping.
    pub fn answered(self, value: u32) -> Phase {
        match self {
            Phase::GoAwayUnread { ping, .. } if ping == value => Phase::Closed,
            other => other,
        }
    }

    /// The peer has sent go-away.
    pub fn peer_sent_go_away(self) -> Phase {
        match self {
            Phase::Open | Phase::PeerGoAway => Phase::PeerGoAway,
            Phase::GoAwayUnread { .. } | Phase::Closed => Phase::Closed,
        }
    }
}
