//! Channels on which no session has begun. The parent makes some for each net process before they
//! are needed, so that a session neither asks for its channel nor waits for it. Where many begin at
//! once, net asks for more.
//!
//! A session begins with the first order on such a channel ([`Ask::Begin`]).

use super::channel::{Broken, Channel};
use super::context::Context;
use super::nets::Nets;
use crate::sys::message::Fds;
use crate::sys::process;
use crate::wire::orders::{Ask, CHANNELS_MAX, SessionPhase, ToNet};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many unused channels a net process is given before it asks for any.
const AHEAD: usize = 12;
/// Of how many descriptors that the parent may have one is for an unused channel.
const DESCRIPTORS_A_CHANNEL: u64 = 64;

struct Unused {
    /// The net process that has the other end, by its token.
    net: usize,
    channel: Channel,
}

/// See the module.
#[derive(Default)]
pub struct UnusedChannels {
    /// By token.
    all: HashMap<usize, Unused>,
    /// How many of them each net process has, by its token.
    of_nets: HashMap<usize, usize>,
}

impl UnusedChannels {
    pub fn has(&self, token: usize) -> bool {
        self.all.contains_key(&token)
    }

    /// The net process that has the other end of this one.
    pub fn net_of(&self, token: usize) -> Option<usize> {
        self.all.get(&token).map(|u| u.net)
    }

    /// Those of a net process.
    pub fn of_net(&self, net: usize) -> Vec<usize> {
        self.all.iter().filter(|(_, u)| u.net == net).map(|(token, _)| *token).collect()
    }

    fn count(&self, net: usize) -> usize {
        self.of_nets.get(&net).copied().unwrap_or(0)
    }

    /// Sends a net process whole messages of them, until it has as many as it should have. Where
    /// there is no descriptor for one, net asks when it needs it.
    pub fn add_ahead(&mut self, cx: &mut Context, nets: &mut Nets, net: usize) {
        let have = |all: &Self| all.count(net) + CHANNELS_MAX;
        while have(self) <= AHEAD
            && have(self) as u64 * DESCRIPTORS_A_CHANNEL <= process::nofile()
            && self.add(cx, nets, net, CHANNELS_MAX)
        {}
    }

    /// A net process asks for one more than it has.
    pub fn asked(&mut self, cx: &mut Context, nets: &mut Nets, net: usize, max_sessions: usize) {
        let room = self.count(net) < max_sessions.saturating_add(AHEAD);
        if !room || !self.add(cx, nets, net, 1) {
            nets.tell(cx, net, &ToNet::NoChannel, None);
        }
    }

    /// Makes so many, and sends them to a net process. False: there is no descriptor for all of
    /// them.
    fn add(&mut self, cx: &mut Context, nets: &mut Nets, net: usize, n: usize) -> bool {
        let mut theirs: Vec<OwnedFd> = Vec::with_capacity(n);
        let mut ours = Vec::with_capacity(n);
        for _ in 0..n {
            let Ok((token, channel, far)) = cx.open_channel() else { return false };
            ours.push((token, channel));
            theirs.push(far);
        }
        let far: Vec<BorrowedFd> = theirs.iter().map(AsFd::as_fd).collect();
        nets.tell_with(cx, net, &ToNet::Channels, &far);
        *self.of_nets.entry(net).or_default() += n;
        self.all.extend(ours.into_iter().map(|(token, channel)| (token, Unused { net, channel })));
        true
    }

    /// The first order of a channel, with which its session begins. None: there is none now.
    pub fn order(&self, cx: &mut Context, token: usize) -> Result<Option<(Ask, Fds)>, Broken> {
        let Some(Unused { channel, .. }) = self.all.get(&token) else { return Ok(None) };
        if !cx.can_receive(channel) {
            channel.try_again();
            return Ok(None);
        }
        channel.receive::<Ask>(&SessionPhase::Unused)
    }

    /// It is used from now on, or of no use any more.
    pub fn take(&mut self, token: usize) -> Option<Channel> {
        let Unused { net, channel } = self.all.remove(&token)?;
        if let Some(n) = self.of_nets.get_mut(&net) {
            *n -= 1;
        }
        Some(channel)
    }

    /// Closes those of a net process that has ended.
    pub fn forget(&mut self, net: usize) {
        self.all.retain(|_, u| u.net != net);
        self.of_nets.remove(&net);
    }
}
