//! Names of addresses, where a rule asks for them: looked up by a child that has no rights,
//! remembered for a while.
//!
//! What a name server says is a stranger's word: a child as net's user reads it, and this process
//! only compares what the child printed. Whoever has an address can make its look-up slow. So
//! nobody waits longer than [`TIME`]; a source has at most [`OF_ONE`] look-ups, one more has no
//! answer; and of too many that wait, the one that has waited longest has none.

use super::children::Role;
use super::context::{Context, Timer};
use super::descriptors::NotStarted;
use super::lookup;
use crate::policy::{PeerName, Source};
use crate::sys::process::Exit;
use crate::sys::socket;
use crate::sys::spawn::Child;
use crate::wire::orders::{Data, Named};
use crate::wire::roles;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long whoever asks waits at most.
const TIME: Duration = Duration::from_secs(3);
/// When it is tried again what could not be started for want of descriptors or processes.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an answer is good, and that there was none; how many are kept. An order that was given
/// by an answer may come so much later.
const GOOD: Duration = Duration::from_secs(60);
const UNKNOWN_GOOD: Duration = Duration::from_secs(10);
const KEPT: usize = 4096;
const GRACE: Duration = Duration::from_secs(5);
/// Children at once, addresses that wait for one, and both of one source.
const RUNNING: usize = 64;
const WAITING: usize = 1024;
const OF_ONE: u32 = 4;
/// Bytes of a name (RFC 1035).
const NAME_MAX: usize = 255;

/// Who wants to know.
#[derive(Debug, Clone, Copy)]
pub enum Asker {
    /// A client of a net process.
    Net { net: usize, client: u32, round: u32 },
    /// A session, by its token.
    Session(usize),
    /// A client at a port of a service's own, by its number (`ports`).
    Port(u64),
}

/// An address whose name is looked up, or will be.
struct Asked {
    since: Duration,
    askers: Vec<Asker>,
}

/// A child that looks up.
struct LookUp {
    address: IpAddr,
    pipe: OwnedFd,
    child: Child,
}

#[derive(Default)]
pub struct Names {
    known: HashMap<IpAddr, (Duration, PeerName)>,
    by_end: BTreeSet<(Duration, IpAddr)>,
    asked: HashMap<IpAddr, Asked>,
    /// How many of `asked` are of one source.
    sources: HashMap<Source, u32>,
    queue: VecDeque<IpAddr>,
    running: HashMap<i32, LookUp>,
    /// The system had no room: none is started before it is tried again.
    paused: bool,
    answers: Vec<(Asker, PeerName)>,
}

impl Names {
    fn remember(&mut self, address: IpAddr, name: &PeerName, now: Duration) {
        if let Some((end, _)) = self.known.remove(&address) {
            self.by_end.remove(&(end, address));
        }
        while self.by_end.len() >= KEPT
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.known.remove(&first);
        }
        let end = now + if *name == PeerName::Unknown { UNKNOWN_GOOD } else { GOOD };
        self.known.insert(address, (end, name.clone()));
        self.by_end.insert((end, address));
    }

    /// Who waited for this one.
    fn take(&mut self, address: IpAddr) -> Option<Asked> {
        let asked = self.asked.remove(&address)?;
        let source = Source::of(address);
        if let Some(n) = self.sources.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                self.sources.remove(&source);
            }
        }
        Some(asked)
    }

    /// What is known of the name of an address.
    pub fn known(&self, now: Duration, address: IpAddr) -> PeerName {
        match self.known.get(&address) {
            Some((end, name)) if *end + GRACE > now => name.clone(),
            _ => PeerName::NotAsked,
        }
    }

    /// Names that were asked for, and who asked.
    pub fn answers(&mut self) -> Vec<(Asker, PeerName)> {
        std::mem::take(&mut self.answers)
    }

    /// Somebody wants to know the name of an address.
    pub fn ask(&mut self, cx: &mut Context, asker: Asker, address: IpAddr) {
        if let Some((end, name)) = self.known.get(&address)
            && *end > cx.now
        {
            return self.answers.push((asker, name.clone()));
        }
        if let Some(asked) = self.asked.get_mut(&address) {
            return asked.askers.push(asker);
        }
        let of_one = self.sources.entry(Source::of(address)).or_default();
        if *of_one >= OF_ONE {
            return self.answers.push((asker, PeerName::Unknown));
        }
        *of_one += 1;
        let since = cx.now;
        self.asked.insert(address, Asked { since, askers: vec![asker] });
        self.queue.push_back(address);
        cx.after(TIME, Timer::NameLate { address, since });
        if self.queue.len() > WAITING
            && let Some(first) = self.queue.pop_front()
        {
            self.named(cx, first, &PeerName::Unknown);
        }
        self.look_up(cx);
    }

    fn look_up(&mut self, cx: &mut Context) {
        while self.running.len() < RUNNING
            && !self.paused
            && let Some(address) = self.queue.pop_front()
        {
            match LookUp::start(cx, address) {
                Ok(look_up) => drop(self.running.insert(look_up.child.pid, look_up)),
                Err(e) if e.is_scarcity() => {
                    // It keeps its turn, for as long as anybody waits for a name.
                    self.queue.push_front(address);
                    self.paused = true;
                    cx.note_not_started("names", &e);
                    return cx.after(AGAIN, Timer::NamesAgain);
                }
                Err(e) => {
                    cx.note_not_started("names", &e);
                    self.named(cx, address, &PeerName::Unknown);
                }
            }
        }
    }

    /// It is tried again.
    pub fn resume(&mut self, cx: &mut Context) {
        self.paused = false;
        self.look_up(cx);
    }

    /// A look-up has ended; what it printed is the name.
    pub fn ended(&mut self, cx: &mut Context, pid: i32, exit: Exit) {
        let Some(LookUp { address, pipe, .. }) = self.running.remove(&pid) else { return };
        let mut bytes = [0; NAME_MAX + 1];
        let n = socket::receive(pipe.as_fd(), &mut bytes).unwrap_or(0);
        let name = match (exit, std::str::from_utf8(&bytes[..n])) {
            (Exit::Status(0), Ok("")) => PeerName::None,
            (Exit::Status(0), Ok(name)) if n <= NAME_MAX => PeerName::Is(name.into()),
            _ => PeerName::Unknown,
        };
        self.named(cx, address, &name);
        self.look_up(cx);
    }

    /// Whoever waited has waited long enough.
    pub fn late(&mut self, cx: &Context, address: IpAddr, since: Duration) {
        if self.asked.get(&address).is_none_or(|a| a.since != since) {
            return;
        }
        self.queue.retain(|a| *a != address);
        for l in self.running.values().filter(|l| l.address == address) {
            // One that has ended just now has been heard too late.
            l.child.kill();
        }
        self.named(cx, address, &PeerName::Unknown);
    }

    /// All who have asked are told. An answer that comes after its time counts for those who ask
    /// later.
    fn named(&mut self, cx: &Context, address: IpAddr, name: &PeerName) {
        let asked = self.take(address);
        if asked.is_none() && *name == PeerName::Unknown {
            return;
        }
        self.remember(address, name, cx.now);
        let askers = asked.into_iter().flat_map(|a| a.askers);
        self.answers.extend(askers.map(|asker| (asker, name.clone())));
    }
}

impl LookUp {
    fn start(cx: &mut Context, address: IpAddr) -> Result<LookUp, NotStarted> {
        let asked = roles::LookUp::Address(address);
        let (child, pipe) = lookup::start(cx, &asked, Role::Name)?;
        Ok(LookUp { address, pipe, child })
    }
}

/// As it is said to net.
pub fn said(name: &PeerName) -> Named {
    match name {
        PeerName::Is(n) => Named::Is(Data::cut(n.as_bytes())),
        PeerName::None => Named::None,
        PeerName::Unknown | PeerName::NotAsked => Named::Unknown,
    }
}
