//! The names of clients' addresses, for rules that ask for them: looked up by a child that has no
//! rights, and kept for a while.
//!
//! A name server's answer is a stranger's text: the child reads it, as the helper's user, and the
//! parent only compares what the child printed. The owner of an address can make its look-up slow.
//! So nobody waits longer than [`ANSWER_TIMEOUT`], and a source has at most [`PER_SOURCE_MAX`]
//! look-ups at a time: the name of one more is unknown. Where more than [`WAITING_MAX`] addresses
//! wait, the one that has waited longest is answered with an unknown name.

use crate::parent::children::Role;
use crate::parent::context::{Context, Timer};
use crate::parent::lookups::LookUps;
use crate::parent::tokens::{NetToken, SessionToken};
use crate::policy::{Peer, PeerName, Source};
use crate::sys::process::Exit;
use crate::wire::orders::{Data, Named};
use crate::wire::roles::LookUp;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How long whoever asks waits at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// After this time a child is started again that could not be started for lack of descriptors or
/// processes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long an answer is kept.
const TTL: Duration = Duration::from_secs(60);
/// How long it is kept that an address has no known name.
const UNKNOWN_TTL: Duration = Duration::from_secs(10);
/// How much longer an answer counts for the parent: net may have decided by it just before it
/// expired, and its order comes later.
const GRACE: Duration = Duration::from_secs(5);
/// Answers kept.
const CACHE_MAX: usize = 4096;
/// Children at a time.
const RUNNING_MAX: usize = 64;
/// Addresses that wait for a child.
const WAITING_MAX: usize = 1024;
/// Addresses of one source that wait or are looked up.
const PER_SOURCE_MAX: u32 = 4;
/// Bytes of a name (RFC 1035).
const NAME_MAX: usize = 255;

/// Who asked for a name.
#[derive(Debug, Clone, Copy)]
pub enum Asker {
    /// A client of a net process.
    Net { net: NetToken, client: u32, generation: u32 },
    /// A session.
    Session(SessionToken),
    /// A client at a service's own port, by its number (`ports`).
    Port(u64),
}

/// An address whose name is being looked up, or waits to be.
struct Pending {
    since: Duration,
    askers: Vec<Asker>,
}

impl Pending {
    /// `clients`: so many can there be. Err: so many wait already. (A net process that somebody
    /// else controls can ask as often as it likes.)
    fn add(&mut self, asker: Asker, clients: usize) -> Result<(), Asker> {
        if self.askers.len() >= clients {
            return Err(asker);
        }
        self.askers.push(asker);
        Ok(())
    }
}

#[derive(Default)]
pub struct Names {
    known: HashMap<IpAddr, (Duration, PeerName)>,
    by_end: BTreeSet<(Duration, IpAddr)>,
    pending: HashMap<IpAddr, Pending>,
    /// How many of `pending` are of one source.
    sources: HashMap<Source, u32>,
    queue: VecDeque<IpAddr>,
    /// The addresses whose names are looked up now.
    running: LookUps<IpAddr>,
    /// The system lacked descriptors or processes: no child is started until the next attempt
    /// ([`Names::resume`]).
    paused: bool,
    /// The answers that are ready: those for each net process apart, for many of its clients may
    /// have waited for one name.
    answers: BTreeMap<Option<NetToken>, VecDeque<(Asker, PeerName)>>,
}

impl Names {
    fn remember(&mut self, address: IpAddr, name: &PeerName, now: Duration) {
        if let Some((end, _)) = self.known.remove(&address) {
            self.by_end.remove(&(end, address));
        }
        while self.by_end.len() >= CACHE_MAX
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.known.remove(&first);
        }
        let end = now + if *name == PeerName::Unknown { UNKNOWN_TTL } else { TTL };
        self.known.insert(address, (end, name.clone()));
        self.by_end.insert((end, address));
    }

    /// Takes an address that was pending, with those who asked for its name.
    fn take(&mut self, address: IpAddr) -> Option<Pending> {
        let pending = self.pending.remove(&address)?;
        let source = Source::of(address.into());
        if let Some(n) = self.sources.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                self.sources.remove(&source);
            }
        }
        Some(pending)
    }

    /// The name of a client's address, as far as the parent knows it now.
    pub fn known(&self, now: Duration, client: Peer) -> PeerName {
        match client.address().and_then(|address| self.known.get(&address)) {
            Some((end, name)) if *end + GRACE > now => name.clone(),
            _ => PeerName::NotAsked,
        }
    }

    /// Is the name of that address being looked up?
    pub fn is_asked(&self, address: IpAddr) -> bool {
        self.pending.contains_key(&address)
    }

    /// The next answer that is ready, with who asked for it: a client of a net process only if that
    /// process `takes` an order now.
    pub fn next_answer(&mut self, takes: impl Fn(NetToken) -> bool) -> Option<(Asker, PeerName)> {
        let mut all = self.answers.iter_mut();
        let (&net, waiting) = all.find(|(net, _)| net.is_none_or(&takes))?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.answers.remove(&net);
        }
        next
    }

    fn tell(&mut self, asker: Asker, name: PeerName) {
        let net = match asker {
            Asker::Net { net, .. } => Some(net),
            Asker::Session(_) | Asker::Port(_) => None,
        };
        self.answers.entry(net).or_default().push_back((asker, name));
    }

    /// Asks for the name of an address. The answer comes out of
    /// [`Names::next_answer`].
    pub fn ask(&mut self, cx: &mut Context, asker: Asker, address: IpAddr) {
        if let Some((end, name)) = self.known.get(&address)
            && *end > cx.now
        {
            let name = name.clone();
            return self.tell(asker, name);
        }
        if let Some(pending) = self.pending.get_mut(&address) {
            let settings = &cx.config.table.settings;
            let clients = settings.max_connections.saturating_add(settings.max_sessions);
            if let Err(asker) = pending.add(asker, clients as usize) {
                self.tell(asker, PeerName::Unknown);
            }
            return;
        }
        let of_source = self.sources.entry(Source::of(address.into())).or_default();
        if *of_source >= PER_SOURCE_MAX {
            return self.tell(asker, PeerName::Unknown);
        }
        *of_source += 1;
        let since = cx.now;
        self.pending.insert(address, Pending { since, askers: vec![asker] });
        self.queue.push_back(address);
        cx.after(ANSWER_TIMEOUT, Timer::NameLate { address, since });
        if self.queue.len() > WAITING_MAX
            && let Some(first) = self.queue.pop_front()
        {
            self.answer(cx, first, &PeerName::Unknown);
        }
        self.look_up(cx);
    }

    fn look_up(&mut self, cx: &mut Context) {
        while self.running.len() < RUNNING_MAX
            && !self.paused
            && let Some(address) = self.queue.pop_front()
        {
            match self.running.start(cx, Role::Name, &LookUp::Address(address), address) {
                Ok(_) => {}
                Err((_, e)) if e.is_scarcity() => {
                    // It stays first in the queue, until its time is over.
                    self.queue.push_front(address);
                    self.paused = true;
                    cx.note_not_started("names", &e);
                    return cx.after(RETRY_AFTER, Timer::NamesAgain);
                }
                Err((_, e)) => {
                    cx.note_not_started("names", &e);
                    self.answer(cx, address, &PeerName::Unknown);
                }
            }
        }
    }

    /// Starts look-ups again after a pause.
    pub fn resume(&mut self, cx: &mut Context) {
        self.paused = false;
        self.look_up(cx);
    }

    /// The child of a look-up has ended; its output is the name.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) {
        let Some((address, answer)) = self.running.ended(cx, pid, exit) else { return };
        let name = match answer.map(String::from_utf8) {
            Some(Ok(name)) if name.is_empty() => PeerName::None,
            Some(Ok(name)) if name.len() <= NAME_MAX => PeerName::Is(name),
            Some(_) | None => PeerName::Unknown,
        };
        self.answer(cx, address, &name);
        self.look_up(cx);
    }

    /// A name has not come in time: those who asked since then get an unknown one.
    pub fn late(&mut self, cx: &Context, address: IpAddr, since: Duration) {
        if self.pending.get(&address).is_none_or(|p| p.since != since) {
            return;
        }
        self.queue.retain(|a| *a != address);
        self.running.kill(|of| *of == address);
        self.answer(cx, address, &PeerName::Unknown);
    }

    /// Keeps a name, and answers all who asked for it. A name that comes too late is kept for those
    /// who ask next.
    fn answer(&mut self, cx: &Context, address: IpAddr, name: &PeerName) {
        let pending = self.take(address);
        if pending.is_none() && *name == PeerName::Unknown {
            return;
        }
        self.remember(address, name, cx.now);
        let askers = pending.into_iter().flat_map(|p| p.askers);
        askers.for_each(|asker| self.tell(asker, name.clone()));
    }
}

/// A name as the orders to net have it.
pub fn for_net(name: &PeerName) -> Named {
    match name {
        PeerName::Is(n) => Named::Is(Data::truncate(n.as_bytes())),
        PeerName::None => Named::None,
        PeerName::Unknown | PeerName::NotAsked => Named::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_are_kept_and_the_first_to_expire_goes() {
        let (mut names, s) = (Names::default(), Duration::from_secs);
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let most = CACHE_MAX as u32;
        for n in 0..most {
            names.remember(address(n), &PeerName::None, s(1));
        }
        // Where nothing is known, that is forgotten sooner.
        names.remember(address(most), &PeerName::Unknown, s(2));
        names.remember(address(most + 1), &PeerName::None, s(2));
        assert_eq!((names.known.len(), names.by_end.len()), (CACHE_MAX, CACHE_MAX));
        let known = |n: u32| names.known(s(3), address(n).into());
        assert_eq!(known(0), PeerName::NotAsked);
        assert_eq!(known(most), PeerName::NotAsked);
        assert_eq!((known(1), known(most + 1)), (PeerName::None, PeerName::None));
        // For a moment longer, since net may have decided by it.
        let at = |now: u64| names.known(s(now), address(1).into());
        assert_eq!((at(65), at(66)), (PeerName::None, PeerName::NotAsked));
    }

    #[test]
    fn whoever_asks_again_and_again_does_not_fill_the_memory() {
        let mut pending = Pending { since: Duration::ZERO, askers: Vec::new() };
        let asker = |n| Asker::Session(SessionToken::of_number(n));
        assert!((0..9).all(|n| pending.add(asker(n), 9).is_ok()));
        assert!(pending.add(asker(0), 9).is_err());
        assert_eq!(pending.askers.len(), 9);
    }
}
