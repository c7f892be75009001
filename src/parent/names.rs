//! Names of addresses, where a rule asks for them: looked up by a child that has no rights,
//! remembered for a while.
//!
//! What a name server says is a stranger's word: a child as net's user reads it, and this process
//! only compares what the child printed. Whoever has an address can make its look-up slow. So
//! nobody waits longer than [`TIME`]; a source has at most [`OF_ONE`] look-ups, one more has no
//! answer; and of too many that wait, the one that has waited longest has none.

use super::catalog::{self, INTERNAL};
use super::children::Role;
use super::descriptors::NotStarted;
use super::run::{Parent, Timer};
use crate::policy::{PeerName, Source};
use crate::sys::identity::Identity;
use crate::sys::process::Exit;
use crate::sys::spawn::{CList, Child, Env, Launch, Stderr};
use crate::sys::{process, socket};
use crate::wire::orders::{Answer, Data, Named, ToNet};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The internal role that looks a name up; no row can name it.
pub const LOOK_UP: &str = "name";
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
pub enum Asker {
    /// A client of a net process.
    Net { net: usize, client: u32, round: u32 },
    /// A session, by its token.
    Session(usize),
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
}

impl Parent {
    /// What is known of the name of an address.
    pub fn known_name(&self, address: IpAddr) -> PeerName {
        match self.names.known.get(&address) {
            Some((end, name)) if *end + GRACE > self.now => name.clone(),
            _ => PeerName::NotAsked,
        }
    }

    /// Somebody wants to know the name of an address.
    pub fn ask_name(&mut self, asker: Asker, address: IpAddr) {
        if let Some((end, name)) = self.names.known.get(&address)
            && *end > self.now
        {
            let name = name.clone();
            return self.tell_name(&asker, &name);
        }
        if let Some(asked) = self.names.asked.get_mut(&address) {
            return asked.askers.push(asker);
        }
        let of_one = self.names.sources.entry(Source::of(address)).or_default();
        if *of_one >= OF_ONE {
            return self.tell_name(&asker, &PeerName::Unknown);
        }
        *of_one += 1;
        let since = self.now;
        self.names.asked.insert(address, Asked { since, askers: vec![asker] });
        self.names.queue.push_back(address);
        self.at(since + TIME, Timer::NameLate { address, since });
        if self.names.queue.len() > WAITING
            && let Some(first) = self.names.queue.pop_front()
        {
            self.named(first, &PeerName::Unknown);
        }
        self.look_up();
    }

    fn look_up(&mut self) {
        while self.names.running.len() < RUNNING
            && !self.names.paused
            && let Some(address) = self.names.queue.pop_front()
        {
            match self.start_look_up(address) {
                Ok(look_up) => drop(self.names.running.insert(look_up.child.pid, look_up)),
                Err(e) if e.for_want_of_room() => {
                    // It keeps its turn, for as long as anybody waits for a name.
                    self.names.queue.push_front(address);
                    self.names.paused = true;
                    self.note_not_started("names", &e);
                    return self.at(self.now + AGAIN, Timer::NamesAgain);
                }
                Err(e) => {
                    self.note_not_started("names", &e);
                    self.named(address, &PeerName::Unknown);
                }
            }
        }
    }

    /// It is tried again.
    pub fn resume_look_ups(&mut self) {
        self.names.paused = false;
        self.look_up();
    }

    fn start_look_up(&mut self, address: IpAddr) -> Result<LookUp, NotStarted> {
        let (ours, theirs) = self.descriptors.reserve().but(socket::pair())?;
        let null = process::null()?;
        let argv = CList::new([INTERNAL, LOOK_UP])?;
        let mut env = Env::new();
        env.push("FIVED_ADDRESS", address.to_string().as_bytes())?;
        let env = env.finish();
        let identity = self.config.own_users.map(|o| o.helper).map(|(uid, gid)| Identity {
            uid,
            gid,
            groups: Vec::new(),
        });
        let launch = Launch {
            identity: identity.as_ref(),
            stderr: Stderr::Null,
            connection: theirs.as_fd(),
            ..catalog::role(&argv, &env, &null)
        };
        let child = self.spawner.start(&launch)?;
        self.children.add(child.pid, Role::Name);
        Ok(LookUp { address, pipe: ours, child })
    }

    /// A look-up has ended; what it printed is the name.
    pub fn look_up_ended(&mut self, pid: i32, exit: Exit) {
        let Some(LookUp { address, pipe, .. }) = self.names.running.remove(&pid) else { return };
        let mut bytes = [0; NAME_MAX + 1];
        let n = socket::receive(pipe.as_fd(), &mut bytes).unwrap_or(0);
        let name = match (exit, std::str::from_utf8(&bytes[..n])) {
            (Exit::Status(0), Ok("")) => PeerName::None,
            (Exit::Status(0), Ok(name)) if n <= NAME_MAX => PeerName::Is(name.into()),
            _ => PeerName::Unknown,
        };
        self.named(address, &name);
        self.look_up();
    }

    /// Whoever waited has waited long enough.
    pub fn name_late(&mut self, address: IpAddr, since: Duration) {
        if self.names.asked.get(&address).is_none_or(|a| a.since != since) {
            return;
        }
        self.names.queue.retain(|a| *a != address);
        for l in self.names.running.values().filter(|l| l.address == address) {
            // One that has ended just now has been heard too late.
            l.child.kill();
        }
        self.named(address, &PeerName::Unknown);
    }

    /// Tells all who have asked. An answer that comes after its time counts for those who ask
    /// later.
    fn named(&mut self, address: IpAddr, name: &PeerName) {
        let asked = self.names.take(address);
        if asked.is_none() && *name == PeerName::Unknown {
            return;
        }
        self.names.remember(address, name, self.now);
        asked.into_iter().flat_map(|a| a.askers).for_each(|asker| self.tell_name(&asker, name));
    }

    fn tell_name(&mut self, asker: &Asker, name: &PeerName) {
        let said = match name {
            PeerName::Is(n) => Named::Is(Data::cut(n.as_bytes())),
            PeerName::None => Named::None,
            PeerName::Unknown | PeerName::NotAsked => Named::Unknown,
        };
        let registry = self.poll.registry();
        let (token, sent) = match *asker {
            Asker::Net { net, client, round } => {
                let Some(n) = self.nets.get_mut(&net) else { return };
                (net, n.channel.send(registry, &ToNet::Name { client, round, name: said }, None))
            }
            Asker::Session(token) => {
                let Some(s) = self.sessions.get_mut(&token) else { return };
                s.name = name.clone();
                (token, s.channel.send(registry, &Answer::Name(said), None))
            }
        };
        if let Err(why) = sent {
            self.broken(token, why);
        }
    }
}
