//! The channels of streams that change their own facts: the parent sends each on the channel of the
//! session, whose thread hands it to the stream's.

use crate::net::descriptors::Reservation;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};

/// A stream's thread waits for its channel. When this goes it learns that there is none.
pub struct Branching {
    channel: Sender<OwnedFd>,
    _place: Reservation,
}

impl Branching {
    /// With the place of its descriptor. Returned too: where the stream's thread waits.
    pub fn new(place: Reservation) -> (Branching, Receiver<OwnedFd>) {
        let (channel, asked) = mpsc::channel();
        (Branching { channel, _place: place }, asked)
    }

    /// The parent has made the channel. If the stream's thread has ended, it is closed.
    pub fn came(self, channel: OwnedFd) {
        let _ = self.channel.send(channel);
    }
}
