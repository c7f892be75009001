//! The offers: which session's user offers which service; and the clients that wait until one of
//! those who offer it takes them.
//!
//! An offer is one of a service's name in a host, so that it outlives a reload. Whether its user
//! may still offer what a client asks for is decided again for each client, by the table that the
//! client came with.

use super::arrival::{Arrival, From};
use super::config::Config;
use super::context::{Context, Timer};
use super::session::{SessionRecord, User};
use crate::policy::{HostScope, Peer, Permit, Service, ServiceId, Table};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Offers at most: of one session, of one user in all sessions, and in all.
const OF_SESSION: usize = 64;
const OF_USER: usize = 256;
const IN_ALL: usize = 4096;
/// For so long one that took nobody is asked last.
const LAST_FOR: Duration = Duration::from_secs(5);

/// A service, by its host's name (`*`: every host's) and its own in lower case.
type Name = (String, String);

/// An offer.
pub struct Offer {
    name: Name,
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub user: Rc<User>,
    /// Its session's token and number, and where that came from.
    pub session: usize,
    pub number: u64,
    pub from: Peer,
    pub since: Duration,
    last_until: Duration,
}

/// Those who offer a service, the oldest offer first, and whose turn was last.
#[derive(Default)]
struct Offerers {
    offers: Vec<u32>,
    last: u32,
}

/// What becomes of a client whose session was told that it waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next is asked. It did not answer in time.
    Another,
    /// It is gone.
    Gone,
}

/// What the session that was asked has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It gets the client's connection once it takes the client.
    Asked,
    /// The client's connection. When it takes the client it serves it at once, and nobody else may
    /// have the client before it has said that it does not.
    Handed,
    /// The same, and it was told that the client waits no more.
    Cancelled(Then),
}

/// A client that waits.
pub struct Waiting {
    pub permit: Permit,
    pub arrival: Arrival,
    pub step: Step,
    /// The offer that was asked last, and those that can be asked yet.
    pub offer: u32,
    rest: VecDeque<u32>,
    /// The session that was asked, by its token, and until when it may answer.
    pub session: usize,
    until: Duration,
    /// What those said that were asked.
    pub reasons: Vec<String>,
    /// Did all of them only lack room?
    pub busy: bool,
}

/// See the module.
#[derive(Default)]
pub struct Offers {
    all: BTreeMap<u32, Offer>,
    offerers: HashMap<Name, Offerers>,
    last: u32,
    /// By the numbers that their relays will have.
    waiting: HashMap<u32, Box<Waiting>>,
}

impl Offers {
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.all.keys().copied()
    }

    pub fn get(&self, offer: u32) -> Option<&Offer> {
        self.all.get(&offer)
    }

    /// Notes an offer: its number. `root`: the session, by its token; `stream`: what is known about
    /// the stream that makes it. None: its session offers the service already, or there are too
    /// many offers.
    pub fn add(
        &mut self,
        (root, stream): (usize, &SessionRecord),
        user: Rc<User>,
        service: ServiceId,
        now: Duration,
    ) -> Option<u32> {
        let config = stream.config.clone();
        let name = name(&config.table, config.table.service(service)?);
        let of_session = || self.all.values().filter(|o| o.session == root);
        let of_user = self.all.values().filter(|o| o.user.login.name == user.login.name).count();
        if of_session().any(|o| o.name == name)
            || of_session().count() >= OF_SESSION
            || of_user >= OF_USER
            || self.all.len() >= IN_ALL
        {
            return None;
        }
        let number = next(&mut self.last, |n| self.all.contains_key(&n));
        self.offerers.entry(name.clone()).or_default().offers.push(number);
        let offer = Offer {
            name,
            config,
            service,
            user,
            session: root,
            number: stream.number,
            from: stream.addresses.peer(),
            since: now,
            last_until: Duration::ZERO,
        };
        self.all.insert(number, offer);
        Some(number)
    }

    /// One has ended. None: this session has no such offer.
    pub fn end(&mut self, offer: u32, root: usize) -> Option<Offer> {
        self.all.get(&offer).filter(|o| o.session == root)?;
        let ended = self.all.remove(&offer)?;
        if let Some(row) = self.offerers.get_mut(&ended.name) {
            row.offers.retain(|n| *n != offer);
            if row.offers.is_empty() {
                self.offerers.remove(&ended.name);
            }
        }
        Some(ended)
    }

    /// All of a session.
    pub fn of_session(&self, root: usize) -> Vec<u32> {
        self.all.iter().filter(|(_, o)| o.session == root).map(|(n, _)| *n).collect()
    }

    /// A client asks for this service: it waits, and nobody was asked yet. `is_up`: does this
    /// session, by its token, read what it is sent?
    pub fn wait(
        &mut self,
        (permit, arrival): (Permit, Arrival),
        is_up: impl Fn(usize) -> bool,
        now: Duration,
    ) -> Box<Waiting> {
        let rest = self.turn(&arrival, is_up, now);
        Box::new(Waiting {
            permit,
            arrival,
            step: Step::Asked,
            offer: 0,
            rest,
            session: 0,
            until: now,
            reasons: Vec::new(),
            busy: true,
        })
    }

    /// Those who may be asked, in the order in which they are: those whose session is up first, and
    /// last those that took nobody of late.
    fn turn(&mut self, a: &Arrival, is_up: impl Fn(usize) -> bool, now: Duration) -> VecDeque<u32> {
        let Some(service) = a.config.table.service(a.service) else { return VecDeque::new() };
        let Some(row) = self.offerers.get_mut(&name(&a.config.table, service)) else {
            return VecDeque::new();
        };
        let after = row.offers.partition_point(|n| *n <= row.last);
        let (before, after) = row.offers.split_at(after);
        let may = |n: &u32| self.all.get(n).is_some_and(|o| o.may_offer(service));
        let mut order: Vec<u32> = after.iter().chain(before).copied().filter(may).collect();
        let rank = |n: &u32| self.all.get(n).map(|o| (!is_up(o.session), o.last_until > now));
        order.sort_by_key(rank);
        row.last = order.first().copied().unwrap_or(row.last);
        order.into()
    }

    /// The next who can be asked takes its turn, and the client waits under this number. Err:
    /// nobody is left.
    pub fn ask<'a>(
        &'a mut self,
        cx: &mut Context,
        number: u32,
        mut w: Box<Waiting>,
    ) -> Result<&'a mut Waiting, Box<Waiting>> {
        let (offer, session) = loop {
            let Some(next) = w.rest.pop_front() else { return Err(w) };
            let Some(offer) = self.all.get(&next) else { continue };
            // More it could not take anyway.
            let most = offer.config.table.settings.max_streams as usize;
            if self.waiting.values().filter(|w| w.session == offer.session).count() < most {
                break (next, offer.session);
            }
            w.reasons.push(format!("session {}: too many clients wait for it", offer.number));
        };
        let service = w.arrival.config.table.service(w.arrival.service);
        let timeout = service.map_or(Duration::ZERO, |s| s.attributes.connect_timeout);
        (w.offer, w.session, w.until) = (offer, session, cx.now + timeout);
        w.step = Step::Asked;
        cx.at(w.until, Timer::OfferLate { client: number });
        Ok(self.waiting.entry(number).or_insert(w))
    }

    /// The clients that wait for a session without a connection, while another that may be asked
    /// has one.
    pub fn stranded(&self, is_up: impl Fn(usize) -> bool) -> Vec<u32> {
        let up = |n: &u32| self.all.get(n).is_some_and(|o| is_up(o.session));
        let stranded =
            |w: &Waiting| w.step == Step::Asked && !is_up(w.session) && w.rest.iter().any(up);
        self.waiting.iter().filter(|(_, w)| stranded(w)).map(|(n, _)| *n).collect()
    }

    /// Such a client goes to those first whose session is up, and then to the others again.
    pub fn turn_again(&self, w: &mut Waiting, is_up: impl Fn(usize) -> bool) {
        w.rest.push_back(w.offer);
        let down = |n: &u32| self.all.get(n).is_none_or(|o| !is_up(o.session));
        w.rest.make_contiguous().sort_by_key(down);
    }

    /// This session has the client's connection no more, if it had it. Returned: the client, if it
    /// waits no more.
    pub fn returned(
        &mut self,
        cx: &mut Context,
        number: u32,
        session: usize,
    ) -> Option<(Box<Waiting>, Then)> {
        let w = self.waiting.get_mut(&number).filter(|w| w.session == session)?;
        match std::mem::replace(&mut w.step, Step::Asked) {
            Step::Asked | Step::Handed => None,
            Step::Cancelled(then) => self.take(cx, number, None).map(|w| (w, then)),
        }
    }

    /// The client is not to be taken any more. Returned: the client, unless that must be known to
    /// its session first.
    pub fn cancel(
        &mut self,
        cx: &mut Context,
        number: u32,
        then: Then,
    ) -> Option<(Box<Waiting>, Then)> {
        let w = self.waiting.get_mut(&number)?;
        if w.step == Step::Asked {
            return self.take(cx, number, None).map(|w| (w, then));
        }
        cx.cancel(w.until, Timer::OfferLate { client: number });
        w.step = Step::Cancelled(then);
        None
    }

    /// The client waits no more, or for the next. `session`: that which was asked; None: whoever
    /// was. None: no such client waits for it.
    pub fn take(
        &mut self,
        cx: &mut Context,
        number: u32,
        session: Option<usize>,
    ) -> Option<Box<Waiting>> {
        let w = self.waiting.get(&number)?;
        if session.is_some_and(|s| s != w.session) {
            return None;
        }
        cx.cancel(w.until, Timer::OfferLate { client: number });
        self.waiting.remove(&number)
    }

    /// Whoever was asked did not take the client, and why; `full`: for lack of room. It is asked
    /// last for a while.
    pub fn refused(&mut self, w: &mut Waiting, why: &str, full: bool, now: Duration) {
        w.busy &= full;
        if let Some(offer) = self.all.get_mut(&w.offer) {
            offer.last_until = now + LAST_FOR;
            w.reasons.push(format!("session {}: {why}", offer.number));
        }
    }

    /// The clients whose connections that session has.
    pub fn handed_to(&self, session: usize) -> Vec<u32> {
        let its = |w: &Waiting| w.session == session && w.step != Step::Asked;
        self.waiting.iter().filter(|(_, w)| its(w)).map(|(n, _)| *n).collect()
    }

    /// The clients that wait for that session, and those that came through it.
    pub fn waiting_for(&self, session: usize) -> (Vec<u32>, Vec<u32>) {
        let by = |its: &dyn Fn(&Waiting) -> bool| {
            self.waiting.iter().filter(|(_, w)| its(w)).map(|(n, _)| *n).collect()
        };
        let through =
            |w: &Waiting| matches!(w.arrival.who.from, From::Session(s) if s.0 == session);
        (by(&|w| w.session == session), by(&through))
    }

    /// The session that was asked to take this client.
    pub fn session_of(&self, client: u32) -> Option<usize> {
        self.waiting.get(&client).map(|w| w.session)
    }

    /// Does a client wait under this number?
    pub fn waits(&self, number: u32) -> bool {
        self.waiting.contains_key(&number)
    }

    /// Does a client of that net process wait?
    pub fn for_net(&self, net: usize) -> bool {
        self.waiting.values().any(|w| matches!(w.arrival.who.from, From::Net(n) if n == net))
    }

    /// Does no client wait?
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Offer {
    /// The host of the service that is offered; `*`: every host has it.
    pub fn host(&self) -> &str {
        let table = &self.config.table;
        match table.service(self.service).map(|s| s.host) {
            Some(HostScope::All) => "*",
            Some(HostScope::Host(id)) => table.host(id).map_or("", |h| h.name.as_str()),
            None => "",
        }
    }

    /// May its user offer this service? Groups are compared by their names: the service may be of a
    /// newer table. If a group was not known when the user logged in, the user counts
    /// as a member where that refuses the user, and not where it would admit the user.
    fn may_offer(&self, service: &Service) -> bool {
        let (login, known) = (&self.user.login, self.config.table.groups());
        let by = &service.attributes.offered_by;
        by.allow_member(&login.name, |group, _| {
            known.iter().position(|g| g == group).map(|i| login.groups.contains(i))
        })
    }
}

fn name(table: &Table, service: &Service) -> Name {
    let host = match service.host {
        HostScope::All => "*",
        HostScope::Host(id) => table.host(id).map_or("", |h| h.name.as_str()),
    };
    (host.to_ascii_lowercase(), service.name.to_ascii_lowercase())
}

/// The next number, which is not 0 and not used.
fn next(last: &mut u32, used: impl Fn(u32) -> bool) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if *last != 0 && !used(*last) {
            return *last;
        }
    }
}
