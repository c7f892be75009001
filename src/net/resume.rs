//! How a session that outlives its connections gets another one.
//!
//! The new connection is a session's too, as any other, until its client says which session is to
//! go on there (`builtins::resume`). The parent checks the proof and asks the session that is meant
//! ([`NewConnection`]). That takes the connection over as it is, with its TLS, if both are in the
//! same net process: it is put among the [`Connections`] for that. After a reload they may be in
//! two; then it gets one end of a socket pair, and the process that has the connection copies.

use super::channel::{Channel, NewConnection};
use super::connections::Connections;
use super::session_state::Session;
use crate::link::{Link, Records};
use crate::sys::socket;
use crate::wire::orders::{Ask, Resumption};
use crate::wire::resume;
use std::rc::Rc;

/// A new connection, for a session that can go on there.
pub struct Found {
    resumption: Resumption,
    link: Link,
}

impl NewConnection {
    /// Finds the connection, if the client can have had as much as it says. None: it was refused.
    pub fn find(
        self,
        connections: &Connections,
        channel: &Channel,
        records: Option<&Records>,
    ) -> Option<Found> {
        let NewConnection { resumption, relay, lost } = self;
        let accepted = records.is_some_and(|r| r.accepts(resumption.received));
        let link = accepted.then(|| match relay {
            Some(pair) => Some(Link::plain(pair)),
            None if lost => None,
            None => connections.take(resumption.connection),
        });
        match link.flatten() {
            Some(link) => Some(Found { resumption, link }),
            None => {
                // This fails if the parent is gone, which is noticed elsewhere.
                let _ = channel.send(&Ask::Resumed { taken: false });
                None
            }
        }
    }
}

impl Found {
    /// The session goes on there: its connection, and its client's new address.
    pub fn accept<L>(self, s: &mut Session<Rc<Channel>, L>, records: Box<Records>) -> Link {
        let Found { resumption, mut link } = self;
        // The parent must know the new address before a request from there comes. This fails if the
        // parent is gone, which is noticed elsewhere.
        let _ = s.channel.send(&Ask::Resumed { taken: true });
        s.moved(resumption.from, resumption.challenge);
        let line = resume::resumed(records.received());
        let soon = s.soon();
        if link.write_all(&*s.channel, line.as_bytes(), soon).is_err() {
            // That it is broken is noticed where it is used.
            socket::abort(link.socket());
        }
        link.read_ahead();
        link.resume(records, resumption.received).expect("it was asked whether it accepts that");
        link
    }
}
