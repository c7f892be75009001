//! Whether streams may still be opened: from the first frame to both sides' go-away.

use std::time::Duration;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// None any more: the peer has sent go-away, or a client's numbers are used up. This side may
    /// still send its own go-away.
    PeerGoAway,
    /// A server has sent go-away, and the client is not known to have read it: streams that it
    /// opened before it knew are served. Ends with the answer to the ping that went after go-away,
    /// or at that time.
    GoAwayUnread {
        ping: u32,
        until: Duration,
    },
    /// None any more: this side has sent go-away.
    Closed,
}

impl Phase {
    /// Is a stream reset that the peer opens?
    pub fn is_closed(self) -> bool {
        matches!(self, Phase::PeerGoAway | Phase::Closed)
    }

    /// When this phase ends although nothing comes.
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Phase::GoAwayUnread { until, .. } => Some(until),
            Phase::Open | Phase::PeerGoAway | Phase::Closed => None,
        }
    }

    /// What it is at this time.
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
