//! Services that the client of this session offers: the streams by which it does so, and those that
//! are opened for the clients of such a service.

use super::client_here::ClientHere;
use super::{Multiplexer, StreamState, Streams};
use crate::link::Tally;
use crate::link::pump::LocalEnd;
use crate::net::counted::Counted;
use crate::sys::flow::Flow;
use crate::sys::socket;
use crate::wire::orders::{Ask, OWN_CONNECTION, OfferAsk, OfferClient};
use crate::wire::yamux::StreamId;
use std::os::fd::{AsFd, OwnedFd};

impl Multiplexer<'_> {
    /// The parent sends a client of an offered service, or takes it back.
    pub(super) fn offered(&mut self, client: u32, what: OfferClient, connection: Option<OwnedFd>) {
        match what {
            OfferClient::Open { first, greeting } => {
                let comes = greeting.is_some();
                let here = connection.zip(greeting);
                let here = here.map(|(connection, greeting)| ClientHere::new(connection, greeting));
                if comes && here.is_none() {
                    // No descriptor was left for it.
                    self.tell(&Ask::Offer(OfferAsk::Returned { client }));
                }
                self.ask_for(client, first.bytes(), here);
            }
            OfferClient::Connect { relay } => self.connect_client(client, relay, connection),
            OfferClient::Cancel => {
                if let Some(id) = self.asking(client)
                    && let Some(stream) = self.streams.pump.reset_at_once(id)
                {
                    Streams::report(&self.session.channel, &stream);
                }
            }
        }
    }

    /// Opens a stream for a client of an offered service, which begins with these bytes.
    fn ask_for(&mut self, client: u32, first: &[u8], here: Option<ClientHere>) {
        let opened = self.session.reserve().map(|place| {
            self.streams.pump.open(StreamState::Asking { client, here, _place: place })
        });
        match opened {
            Some(Ok(id)) => self.streams.pump.send_data(id, first),
            Some(Err(_)) | None => {
                // A client that has sent go-away offers nothing any more, until its offers end.
                let busy = !self.streams.pump.mux().peer_went_away();
                self.tell(&Ask::Offer(OfferAsk::Refused { client, busy }));
            }
        }
    }

    /// The peer has taken a stream that was opened for a client. The parent is told before the
    /// client sees anything.
    pub(super) fn accepted(&mut self, id: StreamId) {
        let Some(StreamState::Asking { client, here, .. }) = self.streams.pump.owner(id) else {
            return;
        };
        let (client, here) = (*client, here.take());
        self.tell(&Ask::Offer(OfferAsk::Taken { client }));
        let Some(here) = here else { return };
        let counted = Counted::Offered(client);
        match here.greet() {
            Some(connection) => self.copy_client(id, connection, Some(counted)),
            None => {
                drop(self.streams.pump.reset_at_once(id));
                self.send_tally(counted, Tally::default());
            }
        }
    }

    /// The peer has finished sending on a stream that was opened for a client. If it has not taken
    /// the stream before that, it never will.
    pub(super) fn asked_in_vain(&mut self, id: StreamId) {
        if !self.streams.pump.mux().is_acknowledged(id)
            && let Some(stream) = self.streams.pump.reset_at_once(id)
        {
            Streams::report(&self.session.channel, &stream);
        }
    }

    /// The client's connection has come: the stream is copied to and from it.
    fn connect_client(&mut self, client: u32, relay: u32, connection: Option<OwnedFd>) {
        let counted = (relay != 0).then_some(Counted::Offered(relay));
        let (id, connection) = match (self.asking(client), connection) {
            (Some(id), Some(connection)) => (id, connection),
            (id, connection) => {
                // The stream has ended, or no descriptor was left for the connection.
                connection.iter().for_each(|connection| socket::abort(connection.as_fd()));
                if let Some(id) = id {
                    drop(self.streams.pump.reset_at_once(id));
                }
                if let Some(counted) = counted {
                    self.send_tally(counted, Tally::default());
                }
                return;
            }
        };
        self.copy_client(id, connection, counted);
    }

    fn copy_client(&mut self, id: StreamId, connection: OwnedFd, counted: Option<Counted>) {
        // Small writes go at once. A client in a session has no TCP socket here.
        let _ = socket::set_nodelay(connection.as_fd(), true);
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::Running { tag: OWN_CONNECTION, counted };
        }
        self.streams.pump.pass_resets(id);
        // A client in a session is counted there.
        let tally = counted.map_or_else(Tally::of_no_service, |_| Tally::of_client());
        self.streams.pump.count(id, tally);
        self.streams.pump.attach(id, LocalEnd::Socket(Flow::of_socket(connection)));
        self.streams.pump.release(id);
    }

    /// The stream that was opened for this client, which is not connected yet.
    fn asking(&mut self, wanted: u32) -> Option<StreamId> {
        let its =
            |s: &StreamState| matches!(s, StreamState::Asking { client, .. } if *client == wanted);
        self.streams.pump.owners().find(|(_, s)| its(s)).map(|(id, _)| id)
    }

    /// A stream offers a service from now on.
    pub(super) fn offers(&mut self, id: StreamId, offer: u32) {
        if let Some(stage) = self.streams.pump.owner(id) {
            *stage = StreamState::Offering(offer);
            self.streams.pump.detach(id);
        }
    }

    /// The client has ended the stream by which it offered a service.
    pub(super) fn offer_finished(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.pump.close(id) {
            Streams::report(&self.session.channel, &stream);
        }
    }

    /// Tells the parent something. This fails if the parent is gone, which is noticed elsewhere.
    pub(super) fn tell(&mut self, ask: &Ask) {
        let _ = self.session.channel.send(ask);
    }
}
