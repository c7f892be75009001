//! The threads of net processes that copy for plain clients (`relays`), each with a channel of its
//! own: it is handed both ends of a connection, and tells when a relay is over. They begin with the
//! first relays, so where no row has any they do not exist.

use crate::parent::channel::{Broken, Channel};
use crate::parent::context::Context;
use crate::parent::descriptors::own;
use crate::parent::nets::Nets;
use crate::parent::tokens::{NetToken, RelayThreadToken};
use crate::sys::shared::Shared;
use crate::sys::{local, process};
use crate::wire::orders::{FromRelays, RelayEnd, ToNet, ToRelays};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

/// Threads of one net process at most; no more than processors.
const THREADS: usize = 4;

struct Thread {
    net: NetToken,
    channel: Channel,
    /// How many relays it has.
    relays: usize,
    /// The last of them, which waits for another one for a moment: two go in one message.
    single: Option<Single>,
}

struct Single {
    relay: u32,
    ends: [Shared; 2],
    /// It was handed over in this order, and not in an earlier one.
    fresh: bool,
}

/// See the module.
pub struct RelayThreads {
    all: BTreeMap<RelayThreadToken, Thread>,
    most: usize,
    /// Threads with a relay that waits.
    singles: usize,
    failed: Vec<(RelayThreadToken, Broken)>,
}

impl RelayThreads {
    pub fn new() -> RelayThreads {
        let processors = process::processors();
        let most = processors.clamp(1, THREADS);
        RelayThreads { all: BTreeMap::new(), most, singles: 0, failed: Vec::new() }
    }

    pub fn has(&self, token: RelayThreadToken) -> bool {
        self.all.contains_key(&token)
    }

    /// Those of a net process.
    pub fn of_net(&self, net: NetToken) -> Vec<RelayThreadToken> {
        self.all.iter().filter(|(_, t)| t.net == net).map(|(token, _)| *token).collect()
    }

    /// The net process whose thread that is.
    pub fn net_of(&self, token: RelayThreadToken) -> Option<NetToken> {
        self.all.get(&token).map(|t| t.net)
    }

    /// Has that net process a relay?
    pub fn for_net(&self, net: NetToken) -> bool {
        self.all.values().any(|t| t.net == net && t.relays > 0)
    }

    /// The thread of that net process that has fewest relays; a new one while all have some and
    /// there may be more. Errors: there is none, and none can be made.
    pub fn choose(
        &mut self,
        cx: &mut Context,
        nets: &mut Nets,
        net: NetToken,
    ) -> io::Result<RelayThreadToken> {
        let own = self.all.iter().filter(|(_, t)| t.net == net);
        if let Some((token, _)) = own.clone().find(|(_, t)| t.single.is_some()) {
            return Ok(*token);
        }
        let least = own.clone().min_by_key(|(_, t)| t.relays).map(|(token, t)| (*token, t.relays));
        match least {
            Some((token, relays)) if relays == 0 || own.count() >= self.most => Ok(token),
            some => self.begin(cx, nets, net).or_else(|e| some.map(|s| s.0).ok_or(e)),
        }
    }

    fn begin(
        &mut self,
        cx: &mut Context,
        nets: &mut Nets,
        net: NetToken,
    ) -> io::Result<RelayThreadToken> {
        let (ours, theirs) = own::channel()?;
        let (token, channel) = cx.channel(local::without_rights(ours))?;
        nets.tell(cx, net, &ToNet::Relays, Some(theirs.as_fd()));
        self.all.insert(token, Thread { net, channel, relays: 0, single: None });
        Ok(token)
    }

    /// Hands a relay to a thread: the client's socket and the upstream's. It may wait for the next
    /// one until [`RelayThreads::settle`] sends it.
    pub fn hand(&mut self, cx: &Context, token: RelayThreadToken, relay: u32, ends: [Shared; 2]) {
        let Some(thread) = self.all.get_mut(&token) else { return };
        thread.relays += 1;
        let sent = match thread.single.take() {
            None => {
                thread.single = Some(Single { relay, ends, fresh: true });
                self.singles += 1;
                return;
            }
            Some(first) => {
                self.singles -= 1;
                let two = ToRelays::BeginTwo { relays: [first.relay, relay] };
                let with = [&first.ends, &ends].map(|ends| ends.each_ref().map(AsFd::as_fd));
                thread.channel.send(cx.registry(), &two, with.as_flattened())
            }
        };
        self.failed.extend(sent.err().map(|why| (token, why)));
    }

    /// Sends the relays that have waited since before the last order, or all: they wait for no
    /// other work.
    pub fn settle(&mut self, cx: &Context, all: bool) {
        if self.singles == 0 {
            return;
        }
        for (token, thread) in &mut self.all {
            let fresh = |s: &mut Single| std::mem::take(&mut s.fresh) && !all;
            let Some(single) = thread.single.take_if(|s| !fresh(s)) else { continue };
            self.singles -= 1;
            let Single { relay, ends, .. } = single;
            let (order, with) = (ToRelays::Begin { relay }, ends.each_ref().map(AsFd::as_fd));
            let sent = thread.channel.send(cx.registry(), &order, &with);
            self.failed.extend(sent.err().map(|why| (*token, why)));
        }
    }

    /// The next relays that a thread tells to be over. None: it tells of none now.
    pub fn over(
        &mut self,
        cx: &mut Context,
        token: RelayThreadToken,
    ) -> Result<Option<Vec<RelayEnd>>, Broken> {
        let Some(thread) = self.all.get_mut(&token) else { return Ok(None) };
        let Some((FromRelays::Ended(all), _)) = thread.channel.receive(&())? else {
            return Ok(None);
        };
        thread.relays = thread.relays.checked_sub(all.len()).ok_or(Broken::Forbidden)?;
        cx.counters.orders += 1;
        Ok(Some(all))
    }

    /// Sends what the channel of a thread holds.
    pub fn flush(&mut self, cx: &Context, token: RelayThreadToken) -> Result<(), Broken> {
        self.all.get_mut(&token).map_or(Ok(()), |t| t.channel.flush(cx.registry()))
    }

    /// Those to which nothing can be handed any more.
    pub fn failed(&mut self) -> Vec<(RelayThreadToken, Broken)> {
        std::mem::take(&mut self.failed)
    }

    /// The channel of a thread cannot be used any more. Returns its net process.
    pub fn forget(&mut self, token: RelayThreadToken) -> Option<NetToken> {
        let thread = self.all.remove(&token)?;
        self.singles -= usize::from(thread.single.is_some());
        Some(thread.net)
    }
}
