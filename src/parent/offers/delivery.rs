//! The way of a request for a service that is offered, after its permit: one of the sessions that
//! offer it is asked to take the client, and then is handed the client's connection.

use super::offer::Offer;
use super::waiting::{AfterCancel, Declined, Step, Waiting};
use crate::parent::addresses::Addresses;
use crate::parent::arrival::{Arrival, StartError};
use crate::parent::backend::targets::Target;
use crate::parent::channel::Broken;
use crate::parent::lines;
use crate::parent::relays::Owner;
use crate::parent::relays::redirect::{Greeting, RelayParts};
use crate::parent::run::Parent;
use crate::parent::tokens::SessionToken;
use crate::policy::{HostId, Permit, ServiceId};
use crate::sys::shared::Shared;
use crate::wire::offer;
use crate::wire::orders::{self, Answer, Data, OfferAsk, OfferClient};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// Clients that a turn of the loop sends from a session to another, at most.
const SETTLED: usize = 64;

/// What a client's connection consists of: what the session that offers the service is handed, and
/// the end that the client's own session keeps, where the client is in one.
struct ConnectionEnds {
    handed: Shared,
    kept: Option<Shared>,
}

impl Parent {
    /// An order of a session about a service that it offers. Err: it must not give it.
    pub fn offer_order(&mut self, token: SessionToken, ask: OfferAsk) -> Result<(), Broken> {
        match ask {
            OfferAsk::Begin { service, host } => {
                self.offer(token, ServiceId(service), HostId(host))?;
            }
            OfferAsk::End { offer } => self.offer_ended(token, offer)?,
            OfferAsk::Taken { client } => self.offer_taken(token, client),
            OfferAsk::Refused { client, busy } => self.offer_refused(token, client, busy),
            OfferAsk::Returned { client } => self.offer_returned(token, client),
        }
        Ok(())
    }

    /// The user of a stream offers a service. Err: net must not have asked.
    fn offer(
        &mut self,
        token: SessionToken,
        service: ServiceId,
        host: HostId,
    ) -> Result<(), Broken> {
        // The session may have ended before its stream has noticed.
        let root = self.sessions.root(token);
        let now = self.cx.now;
        let stream = self.sessions.get_mut(token).ok_or(Broken::Closed)?;
        let login = stream.user.as_ref().map(|u| &u.login);
        let may = stream.config.table.may_offer(service, host, login);
        let user = stream.user.clone().filter(|_| may).ok_or(Broken::Forbidden)?;
        let stream = self.sessions.get_mut(token).ok_or(Broken::Closed)?;
        let offer = root.and_then(|root| self.offers.add(root, stream, user, service, now));
        if let Some(offer) = offer.and_then(|n| self.offers.get(n)) {
            lines::offer(offer);
        }
        let answer = match offer {
            Some(offer) => Answer::Offered { offer },
            None => Answer::NotOffered,
        };
        self.sessions.tell(&self.cx, token, &answer);
        Ok(())
    }

    /// An offer of that session has ended. Err: it is another session's. One that has ended already
    /// did so with its session, which a stream's thread may notice later.
    fn offer_ended(&mut self, token: SessionToken, offer: u32) -> Result<(), Broken> {
        let Some(root) = self.sessions.root(token) else { return Ok(()) };
        if self.offers.get(offer).is_none() {
            return Ok(());
        }
        let ended = self.offers.end(offer, root).ok_or(Broken::Forbidden)?;
        self.log_ended(&ended);
        // Those that wait for its session wait in vain: the next is asked.
        for client in self.offers.waiting_for_offer(offer, root) {
            self.offer_cancel(client, AfterCancel::AskAnother);
        }
        Ok(())
    }

    fn log_ended(&self, offer: &Offer) {
        lines::withdraw(offer, self.cx.now.saturating_sub(offer.since));
    }

    /// A permitted arrival of an offered service: whoever has the turn is asked.
    pub fn offered(&mut self, permit: Permit, a: Arrival) {
        let sessions = &self.sessions;
        let w = self.offers.wait(permit, a, |token| sessions.reads(token), self.cx.now);
        self.ask_next(w);
    }

    /// A session that reads what it is sent is handed the client's connection with the question,
    /// if there is one already: then it serves the client as soon as it takes it. Nothing is made
    /// for a client before it is taken, and nothing is left with a session that may not read it.
    fn ask_next(&mut self, mut w: Box<Waiting>) {
        let Some(first) = first_line(&w.arrival) else {
            w.search.reasons.push("the user's name is too long to be told".into());
            w.search.busy = false;
            return self.nobody_took(w);
        };
        let client = self.relays.number(|n| self.offers.waits(n));
        let sessions = &self.sessions;
        let is_up = |token| sessions.reads(token);
        let w = match self.offers.ask(&mut self.cx, client, w, is_up) {
            Ok(w) => w,
            Err(w) => return self.nobody_took(w),
        };
        let greeting =
            ready_greeting(&w.arrival, &first).filter(|_| self.sessions.reads(w.search.session));
        let mut with = Vec::new();
        if let (Some(connection), Some(_)) = (&w.arrival.client, &greeting) {
            w.step = Step::Handed;
            with.push(connection.as_fd());
        }
        let what = OfferClient::Open { first, greeting };
        let ask = Answer::OfferClient { client, what };
        self.sessions.tell_with(&self.cx, w.search.session, &ask, &with);
    }

    fn nobody_took(&mut self, w: Box<Waiting>) {
        let Waiting { permit, arrival, search, .. } = *w;
        self.services.release(permit);
        let (reasons, busy) = (search.reasons, search.busy);
        let error = match reasons.is_empty() {
            true => "nobody offers it".into(),
            false if busy => StartError::busy("max_streams", Some(reasons.join("; "))),
            false => StartError::from(reasons.join("; ")),
        };
        self.refuse(arrival, error);
    }

    /// The session did not take the client: the next is asked. One that no longer waits for that
    /// session is no fault of its net process, which had not read that yet.
    fn offer_refused(&mut self, token: SessionToken, client: u32, busy: bool) {
        if let Some(w) = self.offers.take(&mut self.cx, client, Some(token)) {
            if let Step::Cancelled(then) = w.step {
                return self.cancelled(w, then);
            }
            self.ask_another(w, if busy { Declined::NoRoom } else { Declined::Refused });
        }
    }

    /// The session has the client's connection no more, and may still take the client.
    fn offer_returned(&mut self, token: SessionToken, client: u32) {
        if let Some((w, then)) = self.offers.returned(&mut self.cx, client, token) {
            self.cancelled(w, then);
        }
    }

    /// A session without a connection may not read for long what it is sent: it gives all clients
    /// back whose connections it has.
    pub fn offers_returned(&mut self, token: SessionToken) {
        for client in self.offers.handed_to(token) {
            self.offer_returned(token, client);
        }
    }

    /// A session has a connection again, or has read what it had been sent.
    pub fn offers_back(&mut self, token: SessionToken) {
        self.offers.is_back(token, |token| self.sessions.is_lost(token));
    }

    /// Sessions have lost their connections or have one again: clients do not wait for a lost one
    /// while another can take them. A turn of the loop settles a few of them, because thousands may
    /// wait, and others must not wait for these.
    pub fn settle_offers(&mut self) {
        for _ in 0..SETTLED {
            let (sessions, now) = (&self.sessions, self.cx.now);
            let (is_lost, is_up) = (|t| sessions.is_lost(t), |t| sessions.reads(t));
            let next = self.offers.next_unsettled(is_lost, is_up, now);
            let Some((client, goes)) = next else { return };
            if goes {
                self.offer_moves(client);
            }
        }
    }

    fn offer_moves(&mut self, client: u32) {
        let Some(session) = self.offers.session_of(client) else { return };
        self.sessions.tell(&self.cx, session, &cancel(client));
        if let Some(mut w) = self.offers.take(&mut self.cx, client, None) {
            w.search.put_back();
            self.ask_next(w);
        }
    }

    /// The session has not answered in time.
    pub fn offer_late(&mut self, client: u32) {
        self.offer_cancel(client, AfterCancel::AskAnother);
    }

    fn offer_cancel(&mut self, client: u32, then: AfterCancel) {
        let Some(session) = self.offers.session_of(client) else { return };
        self.sessions.tell(&self.cx, session, &cancel(client));
        if let Some((w, then)) = self.offers.cancel(&mut self.cx, client, then) {
            self.cancelled(w, then);
        }
    }

    /// The session that was asked cannot take the client any more.
    fn cancelled(&mut self, w: Box<Waiting>, then: AfterCancel) {
        match then {
            AfterCancel::AskAnother => self.ask_another(w, Declined::Late),
            AfterCancel::Gone => {
                self.services.release(w.permit);
                let error = StartError::gone();
                self.refuse(w.arrival, error);
            }
        }
    }

    fn ask_another(&mut self, mut w: Box<Waiting>, why: Declined) {
        self.offers.refused(&mut w, why, self.cx.now);
        self.ask_next(w);
    }

    /// The session takes the client, and is handed its connection, if it does not serve it already.
    fn offer_taken(&mut self, token: SessionToken, client: u32) {
        let Some(w) = self.offers.take(&mut self.cx, client, Some(token)) else { return };
        let source = w.source();
        let Waiting { permit, arrival: mut a, search, step } = *w;
        let number = self.offers.get(search.offer).map_or(0, |o| o.number);
        if step != Step::Asked {
            let config = a.config.clone();
            let at = config.table.service(a.service).and_then(|s| self.ends_at(s));
            let until = at.zip(a.client.take());
            self.offers.streams.begin(client, token, source);
            self.begin_relay(
                permit,
                &a,
                Target::Offer(number),
                client,
                Owner::Session(token),
                until,
            );
            return self.tell_started(&a, 0, Greeting::Sent, None, None);
        }
        let (RelayParts { owner, until, greeting }, ends) = match self.parts_for(&mut a, token) {
            Ok(parts) => parts,
            Err(error) => {
                self.sessions.tell(&self.cx, token, &cancel(client));
                self.services.release(permit);
                return self.refuse(a, error);
            }
        };
        let ends_at = until.as_ref().map(|(at, _)| *at);
        self.offers.streams.begin(client, token, source);
        self.begin_relay(permit, &a, Target::Offer(number), client, owner, until);
        // One process counts the bytes: the client's session, or that of the offer.
        let (counts, other) = if ends.kept.is_some() { (0, client) } else { (client, 0) };
        let connect = Answer::OfferClient { client, what: OfferClient::Connect { relay: counts } };
        self.sessions.tell_with(&self.cx, token, &connect, &[ends.handed.as_fd()]);
        let net_end = ends.kept.as_ref().map(AsFd::as_fd);
        self.tell_started(&a, other, greeting, net_end, ends_at);
    }

    /// What can fail, before anybody learns that the service has begun. `token`: the session that
    /// takes the client.
    fn parts_for(
        &mut self,
        a: &mut Arrival,
        token: SessionToken,
    ) -> Result<(RelayParts, ConnectionEnds), StartError> {
        let config = a.config.clone();
        let service = config.table.service(a.service).ok_or("no such service")?;
        if let Some(client) = &a.client {
            let parts = self.relay_parts(service, a, Owner::Session(token), client.as_fd())?;
            let handed = a.client.take().ok_or("no connection")?;
            return Ok((parts, ConnectionEnds { handed, kept: None }));
        }
        let owner = self.relayed_by(a)?;
        let (kept, handed) =
            self.pairs.between_sessions(&self.cx.descriptors).map_err(StartError::no_descriptor)?;
        if self.cx.is_scarce(&handed) {
            return Err(StartError::busy("descriptors", None));
        }
        let kept = Shared::from(kept);
        let parts = self.relay_parts(service, a, owner, kept.as_fd())?;
        Ok((parts, ConnectionEnds { handed, kept: Some(kept) }))
    }

    /// A session is over, or a stream that had facts of its own: so are its offers, and clients
    /// that wait for it are sent to others.
    pub fn offers_over(&mut self, token: SessionToken) {
        for offer in self.offers.of_session(token) {
            if let Some(ended) = self.offers.end(offer, token) {
                self.log_ended(&ended);
            }
        }
        let (for_it, through_it) = self.offers.waiting_for(token);
        through_it.into_iter().for_each(|client| self.offer_cancel(client, AfterCancel::Gone));
        for client in for_it {
            if let Some(w) = self.offers.take(&mut self.cx, client, None) {
                match w.step {
                    Step::Cancelled(AfterCancel::Gone) => self.cancelled(w, AfterCancel::Gone),
                    Step::Asked | Step::Handed | Step::Cancelled(AfterCancel::AskAnother) => {
                        self.ask_another(w, Declined::SessionEnded);
                    }
                }
            }
        }
    }
}

/// Nobody waits for this client any more.
fn cancel(client: u32) -> Answer {
    Answer::OfferClient { client, what: OfferClient::Cancel }
}

/// What a client gets first whose connection the parent has, if it can go with the question.
fn ready_greeting(a: &Arrival, first: &Data) -> Option<Data> {
    a.client.as_ref()?;
    let text = a.config.table.service(a.service)?.greeting(a.who.facts.reached);
    orders::offer::fits(first, &text).then(|| Data::truncate(&text))
}

/// What the stream for this client begins with. None: it does not fit.
fn first_line(a: &Arrival) -> Option<Data> {
    let client = offer::Client {
        service: a.config.table.service(a.service)?.name.clone(),
        // A client of a Unix socket is one of this computer, and has no port.
        address: match &a.who.addresses {
            Addresses::Internet { peer, .. } => *peer,
            Addresses::Unix(_) | Addresses::Listener(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        },
        user: a.who.facts.login.as_ref().map(|l| l.name.clone()),
    };
    Data::new(&client.line()?)
}
