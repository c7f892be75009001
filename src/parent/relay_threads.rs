//! The threads of net processes that copy for plain clients (`relays`), each with a channel of its
//! own: it is handed both ends of a connection, and tells when a relay is over. They begin with the
//! first relays, so where no row has any they do not exist.

use super::channel::{Broken, Channel};
use super::context::Context;
use super::descriptors::own;
use super::nets::Nets;
use crate::wire::orders::{FromRelays, Over, ToNet, ToRelays};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Threads of one net process at most; no more than processors.
const THREADS: usize = 4;

struct Thread {
    net: usize,
    channel: Channel,
    /// How many relays it has.
    relays: usize,
}

/// See the module.
pub struct RelayThreads {
    all: BTreeMap<usize, Thread>,
    most: usize,
    failed: Vec<(usize, Broken)>,
}

impl RelayThreads {
    pub fn new() -> RelayThreads {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let most = processors.clamp(1, THREADS);
        RelayThreads { all: BTreeMap::new(), most, failed: Vec::new() }
    }

    pub fn has(&self, token: usize) -> bool {
        self.all.contains_key(&token)
    }

    /// Those of a net process.
    pub fn of_net(&self, net: usize) -> Vec<usize> {
        self.all.iter().filter(|(_, t)| t.net == net).map(|(token, _)| *token).collect()
    }

    /// Has that net process a relay?
    pub fn for_net(&self, net: usize) -> bool {
        self.all.values().any(|t| t.net == net && t.relays > 0)
    }

    /// The thread of that net process that has fewest relays; a new one while all have some and
    /// there may be more. Errors: there is none, and none can be made.
    pub fn choose(&mut self, cx: &mut Context, nets: &mut Nets, net: usize) -> io::Result<usize> {
        let own = self.all.iter().filter(|(_, t)| t.net == net);
        let least = own.clone().min_by_key(|(_, t)| t.relays).map(|(token, t)| (*token, t.relays));
        match least {
            Some((token, relays)) if relays == 0 || own.count() >= self.most => Ok(token),
            some => self.begin(cx, nets, net).or_else(|e| some.map(|s| s.0).ok_or(e)),
        }
    }

    fn begin(&mut self, cx: &mut Context, nets: &mut Nets, net: usize) -> io::Result<usize> {
        let (ours, theirs) = own::channel()?;
        let (token, channel) = cx.channel(ours)?;
        nets.tell(cx, net, &ToNet::Relays, Some(theirs.as_fd()));
        self.all.insert(token, Thread { net, channel, relays: 0 });
        Ok(token)
    }

    /// Hands a relay to a thread: the client's socket and the upstream's.
    pub fn hand(&mut self, cx: &Context, token: usize, relay: u32, ends: [BorrowedFd; 2]) {
        let Some(thread) = self.all.get_mut(&token) else { return };
        thread.relays += 1;
        if let Err(why) = thread.channel.send(cx.registry(), &ToRelays::Begin { relay }, &ends) {
            self.failed.push((token, why));
        }
    }

    /// The next relays that a thread tells to be over. None: it tells of none now.
    pub fn over(&mut self, cx: &mut Context, token: usize) -> Result<Option<Vec<Over>>, Broken> {
        let Some(thread) = self.all.get_mut(&token) else { return Ok(None) };
        let Some((FromRelays::Over(all), _)) = thread.channel.receive(&())? else {
            return Ok(None);
        };
        thread.relays = thread.relays.checked_sub(all.len()).ok_or(Broken::Forbidden)?;
        cx.counters.orders += 1;
        Ok(Some(all))
    }

    /// Sends what the channel of a thread holds.
    pub fn flush(&mut self, cx: &Context, token: usize) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |t| t.channel.flush(cx.registry()))
    }

    /// Those to which nothing can be handed any more.
    pub fn failed(&mut self) -> Vec<(usize, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// The channel of a thread cannot be used any more. Returns its net process.
    pub fn forget(&mut self, token: usize) -> Option<usize> {
        self.all.remove(&token).map(|t| t.net)
    }
}
