//! The calls of this process, which a holder carries out, and what the holder reports about them.
//!
//! A call is made again on a new session if the holder reports that nothing was done for it, or
//! ends before it has taken the call; never once the server has answered the request of its
//! service. A holder that has ended may have sent messages that were not received yet: its channel
//! is read to the end before anything counts as not done.

use super::call::{Call, CallEvent, RETRY_INTERVAL, TRIES_AT_ONCE, Unserved};
use super::channel::NO_ANSWER;
use super::conversation::{Conversation, Report};
use super::ended::Ended;
use super::error::Error;
use super::messages;
use super::offer::{Offer, Offered, Origin};
use super::rendezvous;
use super::request::Request;
use super::target::Target;
use super::turn::Turn;
use crate::sys::clock;
use crate::sys::poll::Poll;
use crate::wire::handover::{Ask, INPUT_MAX, Notice, OverWhen};
use crate::wire::run::{Size, Way};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How often a call is made again, unless it has waited for its turn meanwhile: each time that the
/// server reloads its configuration, its sessions end.
const TRIES_MAX: u32 = 20;

/// How often a holder that has not taken a call is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

pub struct Caller<'a> {
    target: &'a Target,
    channels: BTreeMap<u32, Conversation>,
    /// The one on which new calls are made.
    current: Option<u32>,
    calls: BTreeMap<u32, Call>,
    /// Calls that their holder has not taken yet, each with the time when it is checked whether the
    /// holder was stopped.
    unaccepted: BTreeMap<u32, Duration>,
    /// It was printed that there is no connection (whether because what answers is not trusted),
    /// and no service has answered since: many calls may wait for the same one.
    outage: Option<bool>,
    turn: Turn,
    /// Calls of applications that wait for a session. None: each opens a session itself, and ends
    /// if it cannot.
    unserved: Option<Unserved>,
    next: u32,
}

impl<'a> Caller<'a> {
    pub fn new(target: &'a Target) -> Caller<'a> {
        Caller {
            target,
            channels: BTreeMap::new(),
            current: None,
            calls: BTreeMap::new(),
            unaccepted: BTreeMap::new(),
            outage: None,
            turn: Turn::default(),
            unserved: None,
            next: 0,
        }
    }

    /// From now on calls of applications open no session: they wait until [`Caller::connect`] has
    /// made one.
    pub fn let_applications_wait(&mut self) {
        self.unserved = Some(Unserved::default());
    }

    /// Has an application begun to wait for a session since this was asked last? After which pause?
    pub fn is_session_wanted(&mut self) -> Option<Duration> {
        self.unserved.as_mut().and_then(Unserved::pause)
    }

    /// May further applications be accepted?
    pub fn has_room(&self) -> bool {
        self.unserved.as_ref().is_none_or(Unserved::has_room)
    }

    /// Opens a session, or finds one, without a call.
    pub fn connect(&mut self) -> Result<(), Error> {
        self.channel(None)?;
        self.leave_old_channels();
        Ok(())
    }

    /// Is there a session that takes new calls, as far as is known?
    pub fn has_session(&self) -> bool {
        self.current.is_some()
    }

    fn channel(&mut self, first: Option<&Request>) -> Result<u32, Error> {
        if let Some(id) = self.current {
            return Ok(id);
        }
        let channel = rendezvous::channel(self.target, first)?;
        self.next += 1;
        self.channels.insert(self.next, Conversation::new(channel));
        self.current = Some(self.next);
        Ok(self.next)
    }

    /// Makes a call, and returns its tag.
    pub fn call(
        &mut self,
        request: Request,
        over: OverWhen,
        fds: Vec<OwnedFd>,
    ) -> Result<u32, Error> {
        self.next += 1;
        let tag = self.next;
        self.submit(tag, Call::new(request, over, fds))?;
        Ok(tag)
    }

    /// Offers a service, and returns the tag of that call, which lasts as long as the offer.
    pub fn offer(&mut self, host: String, offer: Offer) -> Result<u32, Error> {
        let service = Some(offer.service.clone());
        let offered = Some(Offered { offer, origin: Origin::Caller });
        let request = Request { host, service, way: Way::Plain, offered };
        self.call(request, OverWhen::ServiceEnds, Vec::new())
    }

    /// This process's terminal has another size, which a call's service is to have, too.
    pub fn resized(&self, tag: u32, size: Size) {
        let channel = self.calls.get(&tag).and_then(|call| self.channels.get(&call.channel));
        if let Some(channel) = channel {
            channel.tell(&Ask::Resized { tag, size });
        }
    }

    fn submit(&mut self, tag: u32, mut call: Call) -> Result<(), Error> {
        loop {
            if self.current.is_none()
                && call.is_an_application_s()
                && let Some(unserved) = &mut self.unserved
            {
                unserved.push(tag, call);
                return Ok(());
            }
            call.tries += 1;
            if call.tries > TRIES_MAX {
                return Err(self.lost("every session breaks as soon as it is made".into()));
            }
            if call.tries > TRIES_AT_ONCE && self.current.is_none() {
                std::thread::sleep(RETRY_INTERVAL);
            }
            let first = Some(&call.request).filter(|request| request.offered.is_none());
            let id = self.channel(first)?;
            call.channel = id;
            // A stopped process would keep open the descriptors that it was given, and nobody would
            // see their end.
            if let Some(why) = self.channels.get(&id).and_then(Conversation::stopped) {
                return Err(self.lost(why));
            }
            match self.hand_over(tag, &call) {
                Ok(()) => {
                    self.unaccepted.insert(tag, clock::monotonic() + CHECK_INTERVAL);
                    self.calls.insert(tag, call);
                    return Ok(());
                }
                // Its holder has just ended. What it sent about other calls is still to be
                // received.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::BrokenPipe
                            | ErrorKind::ConnectionReset
                            | ErrorKind::NotConnected
                    ) =>
                {
                    self.stop_using(id)
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let stopped = self.channels.get(&id).and_then(Conversation::stopped);
                    return Err(self.lost(stopped.unwrap_or_else(|| NO_ANSWER.into())));
                }
                Err(e) => return Err(Error::system("the session's holder")(e)),
            }
        }
    }

    fn hand_over(&mut self, tag: u32, call: &Call) -> std::io::Result<()> {
        let Some(channel) = self.channels.get_mut(&call.channel) else {
            return Err(ErrorKind::NotConnected.into());
        };
        if let Some(offered) = &call.request.offered {
            let (host, offer) = (call.request.host.clone(), offered.offer.text());
            return channel.send(&Ask::Offer { tag, host, offer }, &[]);
        }
        for bytes in call.ahead.chunks(INPUT_MAX) {
            channel.send(&Ask::Input { tag, bytes: bytes.to_vec() }, &[])?;
        }
        channel.send(&call.open(tag), &call.fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())
    }

    fn lost(&self, why: String) -> Error {
        Error::Lost { what: self.target.place(), why }
    }

    /// Makes no new calls on this channel.
    fn stop_using(&mut self, channel: u32) {
        self.current = self.current.filter(|c| *c != channel);
    }

    /// What to poll for, before [`Caller::events`].
    pub fn polls(&self) -> impl Iterator<Item = Poll<'_>> {
        self.channels.values().map(Conversation::poll)
    }

    /// How long to poll at most, before [`Caller::events`].
    pub fn timeout(&self) -> Option<Duration> {
        let waits = self.unserved.as_ref().is_some_and(|u| !u.is_empty());
        if waits && self.has_session() || self.channels.values().any(Conversation::has_kept) {
            return Some(Duration::ZERO);
        }
        let next = self.unaccepted.values().copied().chain(self.turn.due()).min();
        next.map(|at| at.saturating_sub(clock::monotonic()))
    }

    /// Receives what holders have reported so far; does not wait.
    pub fn events(&mut self) -> Vec<(u32, Result<CallEvent, Error>)> {
        let mut events = Vec::new();
        self.serve_those_that_wait(&mut events);
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            self.receive_from(id, &mut events);
        }
        self.check_holders(&mut events);
        self.turn.tell(&self.target.place());
        events
    }

    /// Makes the calls of applications that waited for the session that there is now.
    fn serve_those_that_wait(&mut self, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        let Some(u) = self.unserved.as_mut().filter(|_| self.current.is_some()) else { return };
        for (tag, call) in u.take() {
            self.submit(tag, call).unwrap_or_else(|error| events.push((tag, Err(error))));
        }
    }

    /// Fails the calls that a stopped holder has not taken. A holder that runs may have no room
    /// yet, so its calls wait.
    fn check_holders(&mut self, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        if self.timeout().is_none_or(|left| !left.is_zero()) {
            return;
        }
        let now = clock::monotonic();
        let due: Vec<u32> =
            self.unaccepted.iter().filter(|(_, at)| **at <= now).map(|(tag, _)| *tag).collect();
        for tag in due {
            let channel = self.calls.get(&tag).and_then(|c| self.channels.get(&c.channel));
            match channel.and_then(Conversation::stopped) {
                None => drop(self.unaccepted.insert(tag, now + CHECK_INTERVAL)),
                Some(why) => {
                    events.push((tag, Err(self.lost(why))));
                    self.withdraw(tag);
                }
            }
        }
    }

    /// Withdraws a call that was not taken: the holder must not find it when it is continued.
    fn withdraw(&mut self, tag: u32) {
        let Some(call) = self.remove(tag) else { return };
        self.current = self.current.filter(|c| *c != call.channel);
        if self.calls.values().all(|c| c.channel != call.channel) {
            self.channels.remove(&call.channel);
        }
    }

    /// Forgets a call.
    fn remove(&mut self, tag: u32) -> Option<Call> {
        self.unaccepted.remove(&tag);
        self.calls.remove(&tag)
    }

    fn receive_from(&mut self, id: u32, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        let mut gone = Vec::new();
        while let Some(channel) = self.channels.get_mut(&id) {
            match channel.next() {
                Report::Notice(Notice::Gone { tag: 0 }) => self.stop_using(id),
                Report::Notice(Notice::Gone { tag }) => {
                    gone.extend(self.remove(tag).map(|c| (tag, c)));
                }
                Report::Notice(notice) => self.handle(notice, events),
                Report::Nothing if !gone.is_empty() && channel.more_comes() => {}
                Report::Nothing => break,
                Report::Gone => self.channel_gone(id, events),
            }
        }
        for (tag, call) in gone {
            self.retry(tag, call, events);
        }
    }

    fn handle(&mut self, notice: Notice, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        let (tag, ended) = match notice {
            Notice::Taken { tag } => {
                self.unaccepted.remove(&tag);
                // If the call has to be made again, the holder returns it.
                if let Some(call) = self.calls.get_mut(&tag) {
                    call.ahead = Vec::new();
                }
                return;
            }
            Notice::Waiting { tag } => {
                // A session that lets it wait does not break as soon as it is made.
                if let Some(call) = self.calls.get_mut(&tag) {
                    call.tries = call.tries.min(TRIES_AT_ONCE);
                }
                return self.turn.waits();
            }
            Notice::Away { distrust, text, .. } => {
                if self.outage < Some(distrust) {
                    messages::outage(&text, distrust);
                    self.outage = Some(distrust);
                }
                return;
            }
            Notice::Step { text } => return messages::step(&text),
            Notice::Input { tag, bytes } => {
                if let Some(call) = self.calls.get_mut(&tag) {
                    call.ahead.extend_from_slice(&bytes);
                }
                return;
            }
            Notice::Started { tag } => {
                self.outage = None;
                self.turn.comes();
                if let Some(call) = self.calls.get_mut(&tag) {
                    (call.fds, call.ahead, call.tries) = (Vec::new(), Vec::new(), 0);
                    events.push((tag, Ok(CallEvent::Started)));
                    self.leave_old_channels();
                }
                return;
            }
            Notice::Terminal { tag, banner } => {
                return events.push((tag, Ok(CallEvent::Terminal(banner as usize))));
            }
            // It is about no call of ours, but about the session.
            Notice::Refused { tag: 0, text } => return messages::info(&text),
            Notice::Refused { tag, text } => (tag, Ended::Refused(text)),
            Notice::Ended { tag, status } => (tag, Ended::Over(status)),
            Notice::OutputClosed { tag } => (tag, Ended::Unread),
            Notice::Lost { tag, text } => (tag, Ended::Lost(text)),
            Notice::Gone { .. } | Notice::State { .. } | Notice::Done => return,
        };
        if self.remove(tag).is_some() {
            events.push((tag, Ok(CallEvent::Ended(ended))));
            self.leave_old_channels();
        }
    }

    /// Leaves the holders of sessions that take no new calls and have none of this process. One
    /// keeps this process's offers until then: so all that are made on a new session must stand
    /// there, or be refused.
    fn leave_old_channels(&mut self) {
        let Caller { calls, channels, current, .. } = self;
        let mut offers = calls.values().filter(|c| c.request.offered.is_some());
        if offers.all(|c| c.tries == 0) {
            let used = |id| calls.values().any(|c| c.channel == id);
            channels.retain(|id, _| Some(*id) == *current || used(*id));
        }
    }

    /// The server has done nothing for this call: makes it again on a new session.
    fn retry(&mut self, tag: u32, call: Call, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        messages::step("the session is no more: a new one is made");
        self.stop_using(call.channel);
        if let Err(error) = self.submit(tag, call) {
            events.push((tag, Err(error)));
        }
    }

    /// A holder has ended, and everything that it sent was received.
    fn channel_gone(&mut self, id: u32, events: &mut Vec<(u32, Result<CallEvent, Error>)>) {
        self.stop_using(id);
        self.channels.remove(&id);
        let calls: Vec<(u32, bool)> = self
            .calls
            .iter()
            .filter(|(_, c)| c.channel == id)
            .map(|(tag, _)| (*tag, !self.unaccepted.contains_key(tag)))
            .collect();
        for (tag, taken) in calls {
            let Some(call) = self.remove(tag) else { continue };
            if taken {
                let why = "the holder of the session was ended".into();
                events.push((tag, Ok(CallEvent::Ended(Ended::Lost(why)))));
            } else {
                self.retry(tag, call, events);
            }
        }
    }
}
