//! The offers: which session's user offers which service; and the clients that wait until one of
//! those who offer it takes them.
//!
//! An offer is one of a service's name in a host, so that it outlives a reload. Whether its user
//! may still offer what a client asks for is decided again for each client, by the table that the
//! client came with.
//!
//! | file | noun |
//! |---|---|
//! | `offer` | one offer |
//! | `offerers` | whose turn it is |
//! | `waiting` | a client that waits |
//! | `search` | who is asked next |
//! | `index` | which clients wait for which session |
//! | `streams` | which source has how many streams |
//! | `delivery` | the way of a request for a service that is offered |

mod delivery;
mod index;
pub mod offer;
mod offerers;
mod search;
mod streams;
mod waiting;

use super::arrival::Arrival;
use super::context::{Context, Timer};
use super::queue::Queue;
use super::sessions::session::{SessionRecord, User};
use super::tokens::{NetToken, SessionToken};
use crate::policy::{Permit, Service, ServiceId, Source};
use index::Index;
use offer::Offer;
use offerers::{Name, Offerers, Rank, name};
use search::{Candidate, OfUser, Row, Search};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use streams::OfferStreams;
use waiting::{AfterCancel, CameThrough, Declined, Step, Waiting};

/// Offers at most: of one session, of one user in all sessions, and in all.
const OF_SESSION: usize = 64;
const OF_USER: usize = 256;
const IN_ALL: usize = 4096;
/// How long one that took nobody is asked last.
const LAST_FOR: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub struct Offers {
    all: BTreeMap<u32, Offer>,
    offerers: HashMap<Name, Offerers>,
    last: u32,
    /// The offers of each session.
    of_sessions: HashMap<SessionToken, Vec<u32>>,
    /// By the numbers that their relays will have.
    waiting: HashMap<u32, Box<Waiting>>,
    /// Those by the session that was asked, and by the session or net process that they came
    /// through.
    asked: Index<SessionToken>,
    came: Index<CameThrough>,
    pub streams: OfferStreams,
    /// Those that may have to go to another session, because one was lost or resumed.
    unsettled: Queue<u32>,
}

impl Offers {
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.all.keys().copied()
    }

    pub fn get(&self, offer: u32) -> Option<&Offer> {
        self.all.get(&offer)
    }

    /// Notes an offer: its number. `root`: the session; `stream`: what is known about the stream
    /// that makes it. None: its session offers the service already, or there are too many offers.
    pub fn add(
        &mut self,
        root: SessionToken,
        stream: &SessionRecord,
        user: Rc<User>,
        service: ServiceId,
        now: Duration,
    ) -> Option<u32> {
        let config = stream.config.clone();
        let name = name(&config.table, config.table.service(service)?);
        let of_session = self.of_sessions.get(&root).map_or(&[][..], |all| all);
        let of_user = self.all.values().filter(|o| o.user.login.name == user.login.name).count();
        if of_session.iter().any(|n| self.all.get(n).is_some_and(|o| o.name == name))
            || of_session.len() >= OF_SESSION
            || of_user >= OF_USER
            || self.all.len() >= IN_ALL
        {
            return None;
        }
        let number = next(&mut self.last, |n| self.all.contains_key(&n));
        self.offerers.entry(name.clone()).or_default().add(&user.login.name, number);
        self.of_sessions.entry(root).or_default().push(number);
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
    pub fn end(&mut self, offer: u32, root: SessionToken) -> Option<Offer> {
        self.all.get(&offer).filter(|o| o.session == root)?;
        let ended = self.all.remove(&offer)?;
        if let Some(row) = self.offerers.get_mut(&ended.name)
            && row.remove(&ended.user.login.name, offer)
        {
            self.offerers.remove(&ended.name);
        }
        if let Some(all) = self.of_sessions.get_mut(&root) {
            all.retain(|n| *n != offer);
            if all.is_empty() {
                self.of_sessions.remove(&root);
            }
        }
        Some(ended)
    }

    /// All of a session.
    pub fn of_session(&self, root: SessionToken) -> Vec<u32> {
        self.of_sessions.get(&root).cloned().unwrap_or_default()
    }

    /// A client asks for this service: it waits, and nobody was asked yet. `is_up`: does this
    /// session, read what it is sent?
    pub fn wait(
        &mut self,
        permit: Permit,
        arrival: Arrival,
        is_up: impl Fn(SessionToken) -> bool,
        now: Duration,
    ) -> Box<Waiting> {
        let table = &arrival.config.table;
        let search = match table.service(arrival.service) {
            None => Search::new(Row::default(), Vec::new(), now, Duration::ZERO),
            Some(service) => {
                let row = Row::new(name(table, service));
                let rest = self.of_users(&row, service, is_up, now);
                Search::new(row, rest, now, service.attributes.connect_timeout)
            }
        };
        Box::new(Waiting { permit, arrival, step: Step::Asked, search })
    }

    /// The offers of each user who may be asked: those whose session is up first, and last those
    /// that took nobody of late.
    fn of_users(
        &self,
        row: &Row,
        service: &Service,
        is_up: impl Fn(SessionToken) -> bool,
        now: Duration,
    ) -> Vec<OfUser> {
        let may = |n: &u32| self.all.get(n).is_some_and(|o| o.may_offer(service));
        let rank = |n: &u32| self.all.get(n).map(|o| (!is_up(o.session), o.last_until > now));
        let of = |(user, mut offers): (&Rc<str>, Vec<u32>)| {
            offers.retain(may);
            offers.sort_by_key(rank);
            OfUser { user: user.clone(), offers: offers.into(), asked: 0 }
        };
        self.offerers.get(&**row).into_iter().flat_map(|row| row.offers().map(of)).collect()
    }

    /// The next who can be asked takes its turn, and the client waits under this number. Err:
    /// nobody is left.
    pub fn ask<'a>(
        &'a mut self,
        cx: &mut Context,
        number: u32,
        mut w: Box<Waiting>,
        is_up: impl Fn(SessionToken) -> bool,
    ) -> Result<&'a mut Waiting, Box<Waiting>> {
        let source = w.source();
        let about = |offer| self.candidate(offer, source, &is_up, cx.now);
        let row = self.offerers.get(&*w.search.row);
        let rank = |user: &str| row.map_or(Rank::default(), |row| row.rank(user, cx.now));
        if !w.search.next(&self.asked, about, rank, cx.now) {
            // Somebody may have offered it after the client came.
            let Waiting { arrival: a, search, .. } = &mut *w;
            let service = a.config.table.service(a.service);
            let all = service.map(|s| self.of_users(&search.row, s, &is_up, cx.now));
            let since = |offer| Some(self.all.get(&offer)?.since);
            let more = search.learn(all.unwrap_or_default(), since, cx.now);
            if !more || !search.next(&self.asked, about, rank, cx.now) {
                return Err(w);
            }
        }
        if let Some(row) = self.offerers.get_mut(&*w.search.row) {
            row.asked(w.search.user(), w.search.offer, (w.search.asked_at, number));
        }
        w.step = Step::Asked;
        cx.at(w.search.until, Timer::OfferLate { client: number });
        self.asked.add(w.search.session, number);
        self.streams.begin(number, w.search.session, source);
        if let Some(through) = w.came_through() {
            self.came.add(through, number);
        }
        Ok(self.waiting.entry(number).or_insert(w))
    }

    /// What is known of an offer, for a client of that source.
    fn candidate(
        &self,
        offer: u32,
        source: Source,
        is_up: impl Fn(SessionToken) -> bool,
        now: Duration,
    ) -> Option<Candidate> {
        let o = self.all.get(&offer)?;
        let (session, number) = (o.session, o.number);
        let most = o.config.table.settings.max_streams as usize;
        let has_share = self.streams.may(session, source, most);
        let (is_up, is_late) = (is_up(session), o.last_until > now);
        Some(Candidate { session, number, most, has_share, is_up, is_late })
    }

    /// A session is lost: the clients that wait for it may go to others.
    pub fn lost(&mut self, session: SessionToken) {
        self.asked.of(session).for_each(|client| self.unsettled.add(client));
    }

    /// A session reads again what it is sent: the clients that wait for lost ones may go to it.
    pub fn is_back(&mut self, session: SessionToken, is_lost: impl Fn(SessionToken) -> bool) {
        if self.of_sessions.contains_key(&session) {
            let waiting = self.asked.of_such(is_lost);
            waiting.for_each(|client| self.unsettled.add(client));
        }
    }

    /// May clients have to go to other sessions?
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// One of those clients. Some(true): it waits for a lost session, while another that may be
    /// asked is up. (One that is only slow to read keeps its clients: else two of them would pass
    /// all clients to each other.) None: there are no more.
    pub fn next_unsettled(
        &mut self,
        is_lost: impl Fn(SessionToken) -> bool,
        is_up: impl Fn(SessionToken) -> bool,
        now: Duration,
    ) -> Option<(u32, bool)> {
        let client = self.unsettled.next()?;
        let goes = self.waiting.get(&client).is_some_and(|w| {
            let about = |offer| self.candidate(offer, w.source(), &is_up, now);
            w.step == Step::Asked
                && is_lost(w.search.session)
                && w.search.has_one_up(&self.asked, about, now)
        });
        Some((client, goes))
    }

    /// This session has the client's connection no more, if it had it. Returned: the client, if it
    /// waits no more.
    pub fn returned(
        &mut self,
        cx: &mut Context,
        number: u32,
        session: SessionToken,
    ) -> Option<(Box<Waiting>, AfterCancel)> {
        let w = self.waiting.get_mut(&number).filter(|w| w.search.session == session)?;
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
        then: AfterCancel,
    ) -> Option<(Box<Waiting>, AfterCancel)> {
        let w = self.waiting.get_mut(&number)?;
        if w.step == Step::Asked {
            return self.take(cx, number, None).map(|w| (w, then));
        }
        cx.cancel(w.search.until, Timer::OfferLate { client: number });
        w.step = Step::Cancelled(then);
        None
    }

    /// The client waits no more, or for the next. `session`: that which was asked; None: whoever
    /// was. None: no such client waits for it.
    pub fn take(
        &mut self,
        cx: &mut Context,
        number: u32,
        session: Option<SessionToken>,
    ) -> Option<Box<Waiting>> {
        let w = self.waiting.get(&number)?;
        if session.is_some_and(|s| s != w.search.session) {
            return None;
        }
        cx.cancel(w.search.until, Timer::OfferLate { client: number });
        self.asked.remove(w.search.session, number);
        self.streams.end(number);
        if let Some(row) = self.offerers.get_mut(&*w.search.row) {
            row.answered(w.search.user(), (w.search.asked_at, number));
        }
        if let Some(through) = w.came_through() {
            self.came.remove(through, number);
        }
        self.waiting.remove(&number)
    }

    /// Whoever was asked did not take the client. It is asked last for a while, and so are all
    /// sessions of its user if it did not answer.
    pub fn refused(&mut self, w: &mut Waiting, why: Declined, now: Duration) {
        w.search.busy &= why == Declined::NoRoom;
        let Some(offer) = self.all.get_mut(&w.search.offer) else { return };
        offer.last_until = now + LAST_FOR;
        w.search.reasons.push(format!("session {}: {}", offer.number, why.as_str()));
        if why == Declined::Late
            && let Some(row) = self.offerers.get_mut(&*w.search.row)
        {
            row.late(&offer.user.login.name, now + LAST_FOR);
        }
    }

    /// The clients whose connections that session has.
    pub fn handed_to(&self, session: SessionToken) -> Vec<u32> {
        let has = |n: &u32| self.waiting.get(n).is_some_and(|w| w.step != Step::Asked);
        self.asked.of(session).filter(has).collect()
    }

    /// The clients that wait for that session because of this offer of its.
    pub fn waiting_for_offer(&self, offer: u32, session: SessionToken) -> Vec<u32> {
        let waits = |w: &Waiting| w.search.offer == offer && !matches!(w.step, Step::Cancelled(_));
        let of_offer = |n: &u32| self.waiting.get(n).is_some_and(|w| waits(w));
        self.asked.of(session).filter(of_offer).collect()
    }

    /// The clients that wait for that session, and those that came through it.
    pub fn waiting_for(&self, session: SessionToken) -> (Vec<u32>, Vec<u32>) {
        (self.asked.of(session).collect(), self.came.of(CameThrough::Session(session)).collect())
    }

    /// The session that was asked to take this client.
    pub fn session_of(&self, client: u32) -> Option<SessionToken> {
        self.waiting.get(&client).map(|w| w.search.session)
    }

    /// Does a client wait under this number?
    pub fn waits(&self, number: u32) -> bool {
        self.waiting.contains_key(&number)
    }

    /// Does a client of that net process wait?
    pub fn for_net(&self, net: NetToken) -> bool {
        self.came.count(CameThrough::Net(net)) > 0
    }

    /// Does no client wait?
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
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
