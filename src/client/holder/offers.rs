//! Services that this computer serves: those of the configuration, of callers (-R) and of -O.
//!
//! An offer is a call whose stream stays open without a service: one that a caller has asked for
//! ends with that caller. For each client of such a service the server opens a stream, whose first
//! line says which service it wants. The holder connects to what serves it, and only then takes the
//! stream.

use super::call::{Call, Step};
use super::callers::NOBODY;
use super::state::Holder;
use crate::client::error::reason;
use crate::client::offer::{CANCELLED, Offer, Offered, Origin, Progress};
use crate::client::request::Request;
use crate::link::pump::LocalEnd;
use crate::sys::flow::Flow;
use crate::wire::handover::{Notice, OverWhen};
use crate::wire::line::{Fed, Line};
use crate::wire::offer::{Client, LINE_MAX};
use crate::wire::run::Way;
use crate::wire::yamux::StreamId;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Clients of all offers at a time, at most.
const CLIENTS_MAX: u32 = 256;
/// How long what serves an offer may take to accept a connection, and the server to say what a
/// stream is for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The tag of an offer that its caller makes on another session now: no call of a caller's has it.
const RETURNED: u32 = 0;

impl Holder {
    /// Offers what the configuration says.
    pub fn offer_all(&mut self, offers: Vec<Offer>, host: &str) {
        for offer in offers {
            let offered = Offered { offer, origin: Origin::Configuration };
            self.offer((NOBODY, 0), host.to_string(), offered);
        }
    }

    /// Somebody offers a service: a caller with its tag, or the configuration.
    pub(super) fn offer(&mut self, (caller, tag): (u32, u32), host: String, offered: Offered) {
        let service = offered.offer.service.clone();
        let same = |c: &Call| c.offers().is_some_and(|o| o.service.eq_ignore_ascii_case(&service));
        let all = self.pump.streams().map(|(_, s)| &s.owner);
        if all.chain(self.waiting.iter().map(|p| &p.call)).any(same) {
            let text = "this session offers that service already (-O list shows it)".into();
            return self.offer_refused(caller, tag, &offered, text);
        }
        self.pump.mux_mut().set_max_streams(CLIENTS_MAX);
        let request =
            Request { host, service: Some(service), way: Way::Plain, offered: Some(offered) };
        let over = OverWhen::ServiceEnds;
        self.take_call(Call::new(
            caller,
            tag,
            over,
            request,
            (LocalEnd::None, None),
            Vec::new(),
            self.now,
        ));
    }

    /// The server has taken an offer.
    pub(super) fn offer_stands(&mut self, id: StreamId) {
        let Some(call) = self.pump.owner(id) else { return };
        call.step = Step::Started;
        let (caller, tag) = (call.caller, call.tag);
        if tag == 0 {
            // It stands by itself from now on.
            call.caller = NOBODY;
            return self.callers.send(caller, &Notice::Done);
        }
        self.callers.send(caller, &Notice::Started { tag });
    }

    /// Whoever asked for an offer hears why it does not stand: of those of the configuration the
    /// caller for whom the session was made.
    pub(super) fn offer_refused(&self, caller: u32, tag: u32, offered: &Offered, text: String) {
        let (caller, text) = match offered.origin {
            Origin::Configuration => {
                (super::callers::FIRST, format!("-R {}: {text}", offered.offer.text()))
            }
            Origin::Order | Origin::Caller => (caller, text),
        };
        self.callers.send(caller, &Notice::Refused { tag, text });
    }

    /// The server takes no new streams any more: a caller makes its offers again on a new session,
    /// and leaves this one when they stand there. Until then they go on here, as the others do.
    pub(super) fn return_offers(&mut self) {
        let of_caller = |c: &Call| {
            c.request.origin() == Some(Origin::Caller) && c.is_answered() && c.tag != RETURNED
        };
        let all: Vec<StreamId> =
            self.pump.streams().filter(|(_, s)| of_caller(&s.owner)).map(|(id, _)| id).collect();
        for id in all {
            if let Some(call) = self.pump.owner(id) {
                let tag = std::mem::replace(&mut call.tag, RETURNED);
                let caller = call.caller;
                self.callers.send(caller, &Notice::Gone { tag });
            }
        }
    }

    /// An offer's stream has ended, or must end: its caller makes it again.
    pub(super) fn offer_ended(&mut self, id: StreamId) {
        if let Some(stream) = self.pump.close(id) {
            let call = &stream.owner;
            self.callers.send(call.caller, &Notice::Gone { tag: call.tag });
        }
    }

    /// -O cancel. Clients that are served go on to their end.
    pub(super) fn withdraw(&mut self, offer: &Offer) -> Result<(), String> {
        // One that its caller makes on another session is found there.
        let its = |c: &Call| {
            let returned = c.request.origin() == Some(Origin::Caller) && c.tag == RETURNED;
            c.offers() == Some(offer) && !returned
        };
        let all: Vec<StreamId> =
            self.pump.streams().filter(|(_, s)| its(&s.owner)).map(|(id, _)| id).collect();
        if all.is_empty() {
            return Err("the session has no such offer (-O list shows them)".into());
        }
        for id in all {
            if let Some(stream) = self.pump.close(id) {
                let call = &stream.owner;
                let text = CANCELLED.into();
                self.callers.send(call.caller, &Notice::Refused { tag: call.tag, text });
            }
        }
        self.idle = self.now;
        Ok(())
    }

    /// Is there an offer that must be served until it is cancelled?
    pub(super) fn offers_keep_the_holder(&self) -> bool {
        self.pump.streams().any(|(_, s)| s.owner.request.origin() == Some(Origin::Order))
    }

    // The clients.

    /// The server has opened a stream.
    pub(super) fn client_came(&mut self, id: StreamId) {
        if !self.has_room_for_applications() {
            drop(self.pump.reset(id));
            return;
        }
        let request = Request {
            host: String::new(),
            service: Some(String::new()),
            way: Way::Plain,
            offered: None,
        };
        let over = OverWhen::ServiceEnds;
        let mut call =
            Call::new(NOBODY, 0, over, request, (LocalEnd::None, None), Vec::new(), self.now);
        call.step = Step::Naming(Line::new(LINE_MAX));
        self.pump.adopt(id, call);
    }

    /// Bytes of the line that says which service a client wants.
    pub(super) fn client_named(&mut self, id: StreamId) {
        let Some((call, bytes)) = self.pump.held(id) else { return };
        let Step::Naming(line) = &mut call.step else { return };
        let (taken, client) = match line.feed(bytes) {
            Fed::More => (bytes.len(), None),
            Fed::TooLong => return self.give_up(id),
            Fed::Line { text, taken } => (taken, Some(Client::read(text))),
        };
        self.pump.take(id, taken);
        match client {
            None => {}
            Some(None) => self.give_up(id),
            Some(Some(client)) => self.connect_client(id, &client.service),
        }
    }

    fn connect_client(&mut self, id: StreamId, service: &str) {
        let begun = self.offer_of(service).and_then(|call| Some(call.offers()?.connect()));
        match begun {
            Some(Ok(Progress::Connected(fd))) => self.client_connected(id, service, fd),
            Some(Ok(Progress::Connecting(attempt))) => {
                if let Some(call) = self.pump.owner(id) {
                    (call.step, call.request.service) = (Step::Connecting, Some(service.into()));
                    self.connecting.push((id, attempt));
                }
            }
            Some(Err(e)) => self.client_failed(id, service, &reason(&e)),
            None => self.give_up(id),
        }
    }

    /// What serves an offer does not take a client: the server tells that one that the service has
    /// failed, and whoever offers it hears why, until another client is taken.
    fn client_failed(&mut self, id: StreamId, service: &str, why: &str) {
        if let Some(call) = self.offer_of(service)
            && let Some(offer) = call.offers().cloned()
            && !std::mem::replace(&mut call.fails, true)
        {
            let text =
                format!("-R {}: no connection ({why}): its clients are refused", offer.text());
            let caller = call.caller;
            self.callers.send(caller, &Notice::Refused { tag: 0, text });
        }
        self.give_up(id);
    }

    /// The call that offers a service.
    fn offer_of(&mut self, service: &str) -> Option<&mut Call> {
        let its = |c: &Call| c.offers().is_some_and(|o| o.service.eq_ignore_ascii_case(service));
        let id = self.pump.streams().find(|(_, s)| its(&s.owner)).map(|(id, _)| id)?;
        self.pump.owner(id)
    }

    fn client_connected(&mut self, id: StreamId, service: &str, fd: OwnedFd) {
        self.offer_of(service).into_iter().for_each(|call| call.fails = false);
        let Some(call) = self.pump.owner(id) else { return };
        (call.step, call.request.service) = (Step::Serving, Some(service.into()));
        self.pump.mux_mut().accept(id);
        self.pump.pass_resets(id);
        self.pump.attach(id, LocalEnd::Socket(Flow::of_socket(fd)));
        self.pump.release(id);
    }

    /// Looks at the connections that have yet to be accepted, and gives up clients that have waited
    /// for too long.
    pub(super) fn look_at_clients(&mut self) {
        for (id, attempt) in std::mem::take(&mut self.connecting) {
            // The stream may have ended meanwhile.
            let Some(call) = self.pump.owner(id) else { continue };
            let service = call.request.name().to_string();
            match attempt.progress() {
                Ok(Progress::Connecting(attempt)) => self.connecting.push((id, attempt)),
                Ok(Progress::Connected(fd)) => self.client_connected(id, &service, fd),
                Err(e) => self.client_failed(id, &service, &reason(&e)),
            }
        }
        let now = self.now;
        let late = |c: &Call| c.is_unconnected() && c.began + CONNECT_TIMEOUT <= now;
        let name = |c: &Call| c.request.name().to_string();
        let all: Vec<(StreamId, String)> = self
            .pump
            .streams()
            .filter(|(_, s)| late(&s.owner))
            .map(|(id, s)| (id, name(&s.owner)))
            .collect();
        let why = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
        all.into_iter().for_each(|(id, service)| self.client_failed(id, &service, &why));
    }

    /// When the next of them is given up.
    pub(super) fn clients_deadline(&self) -> Option<Duration> {
        let waits = self.pump.streams().filter(|(_, s)| s.owner.is_unconnected());
        waits.map(|(_, s)| s.owner.began + CONNECT_TIMEOUT).min()
    }
}
