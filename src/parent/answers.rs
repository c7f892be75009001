//! What becomes of a request is told to whoever asked: to net, to a session, to a port, or to the
//! client itself.

use super::arrival::{Requester, StartOutcome, StreamTag};
use super::descriptors::own;
use super::ports::waits::NotStarted;
use super::run::Parent;
use crate::wire::orders::{self, DATA_MAX, Data, Extras, Why};
use std::os::fd::{AsFd, BorrowedFd};

impl Parent {
    /// Tells the requester.
    pub fn answer(&mut self, o: StartOutcome) {
        match (o.requester, o.result) {
            // What runs has the client's own socket; where nothing can be told any more the
            // connection just ends.
            (Requester::Net(_) | Requester::Port(_) | Requester::Wait(_), Ok(())) => {}
            (Requester::Net(_) | Requester::Port(_), Err(None)) => {}
            (Requester::Wait(port), Err(why)) => {
                let why = match why {
                    Some(Why::NotAvailable) => NotStarted::Denied,
                    Some(Why::Busy) => NotStarted::Busy,
                    Some(Why::Failed) | None => NotStarted::Failed,
                };
                self.ports.not_started(&mut self.cx, port, why);
            }
            (Requester::Port(net), Err(Some(why))) => {
                // Where there is a text, what the client still sends is discarded for a while,
                // so that no reset overtakes the text. That is not done for whom the row does not
                // let in: it would cost something for each of them.
                let client = o.returned.client.filter(|_| !o.text.is_empty());
                if let Some(client) = client
                    && self.nets.send(net, &client, &o.text).is_ok()
                    && why != Why::NotAvailable
                {
                    self.nets.close_lingering(&self.cx, &client);
                }
            }
            (Requester::Net(net), Err(Some(why))) => {
                self.nets.refuse(&self.cx, net, o.service, why, o.returned.client.as_ref());
            }
            (Requester::Session(stream), Ok(()) | Err(None)) => {
                self.tell_program_started(stream, &o);
            }
            (Requester::Session(StreamTag { session, tag }), Err(Some(why))) => {
                if let (Some(client), Some(net)) =
                    (&o.returned.client, self.sessions.net_of(session))
                {
                    self.nets.refuse(&self.cx, net, o.service, why, Some(client));
                }
                let refused = orders::Answer::Refused { tag, service: o.service.0, why };
                self.sessions.tell(&self.cx, session, &refused);
            }
        }
    }

    /// Tells a session that its service runs. Where there is no descriptor for what the client gets
    /// first, it gets no connection either, which net takes for a lack of them.
    fn tell_program_started(&mut self, StreamTag { session, tag }: StreamTag, o: &StartOutcome) {
        let (net_ends, text) = (&o.returned.net_ends, &o.text);
        let file = (text.len() > DATA_MAX).then(|| own::file(text));
        let (greeting, with, extras) = match &file {
            Some(Err(e)) => {
                ::log::debug!("a file for a greeting: {e}");
                (Data::default(), Vec::new(), Extras::default())
            }
            file => {
                let greeting = if file.is_none() { Data::truncate(text) } else { Data::default() };
                let file = file.as_ref().and_then(|f| f.as_ref().ok());
                let own = net_ends.connection.as_ref().map(AsFd::as_fd);
                let others = [net_ends.second.as_ref(), file];
                let others = others.into_iter().flatten().map(AsFd::as_fd);
                let all: Vec<BorrowedFd> = own.into_iter().chain(others).collect();
                (greeting, all, net_ends.extras(o.returned.tells_end))
            }
        };
        let started = orders::Answer::Started { tag, relay: 0, greeting, extras };
        self.sessions.tell_with(&self.cx, session, &started, &with);
    }
}
