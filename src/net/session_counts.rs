//! How many sessions there are, in all and from each source. A session is counted before it
//! begins, and until it has ended.
//!
//! The parent counts too, over all net processes (`parent::sessions::counts`): this count refuses a
//! session before it has cost anything.
//!
//! A session that is lost counts. So that its client can come back where all places are taken, one
//! connection more is admitted for each lost session, and for some that stand but can be resumed:
//! whether they are lost may be known to their clients alone. It may do nothing but resume one.
//!
//! Where `max_sessions` stand, an idle session makes room (`idle_sessions`). It counts no more from
//! then on, and ends as soon as its thread has noticed.

#[cfg(test)]
mod tests;

use super::idle_sessions::{Idle, IdleSessions, Noticed, SessionNumber};
use crate::policy::{DIALOGUES_MAX, Peer, STANDING_MAX, Settings, Source};
use crate::wire::orders::Reason;
use mio::Waker;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `max_sessions`
    All,
    /// `max_sessions_per_source`
    Source,
    /// No descriptor is left.
    Descriptors,
    /// A session waits for the answers to as many starts as it may.
    Starts,
    /// As many streams have dialogues as its session or its source may have.
    Dialogues,
}

impl Full {
    /// What the record of a refusal says about it.
    pub fn reason(self) -> Reason {
        match self {
            Full::All => Reason::Sessions,
            Full::Source => Reason::SourceSessions,
            Full::Descriptors => Reason::Descriptors,
            Full::Starts => Reason::Starts,
            Full::Dialogues => Reason::Dialogues,
        }
    }
}

/// Sessions of all, or of one source.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    /// Spare ones do not count.
    sessions: u32,
    /// How many of these stand and can be resumed.
    resumable: u32,
    /// How many of these are lost.
    lost: u32,
    /// Connections that may only resume a session.
    spare: u32,
    /// Streams with a thread of their own. They belong to their session, so no limit on sessions
    /// counts them; but the process does not end before they have.
    branches: u32,
}

impl Count {
    fn is_empty(&self) -> bool {
        self.sessions == 0 && self.spare == 0 && self.branches == 0
    }

    fn is_full(&self, most: u32) -> bool {
        self.sessions >= most
    }

    fn has_spare(&self) -> bool {
        self.spare < self.lost.saturating_add(self.resumable.min(STANDING_MAX))
    }

    fn change(&mut self, what: What, more: bool) {
        let change =
            |n: &mut u32| *n = if more { n.saturating_add(1) } else { n.saturating_sub(1) };
        match what {
            What::Session => change(&mut self.sessions),
            What::Resumable => {
                change(&mut self.sessions);
                change(&mut self.resumable);
            }
            What::Lost => {
                change(&mut self.sessions);
                change(&mut self.lost);
            }
            What::Spare(_) => change(&mut self.spare),
            What::Branch => change(&mut self.branches),
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    all: Count,
    sources: HashMap<Source, Count>,
    /// The number of the session that was counted last.
    last: SessionNumber,
    idle: IdleSessions<What>,
    /// Those that had to make room and have not ended yet.
    evicted: HashSet<SessionNumber>,
    /// Wakes the loop of a draining process when the last of all has ended.
    waker: Option<Arc<Waker>>,
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.evicted.is_empty()
    }

    /// An idle session makes room for one of this source. False: none does. No more than
    /// `max_sessions` may be about to end.
    fn make_room(&mut self, newcomer: Source, settings: &Settings) -> bool {
        if self.evicted.len() >= settings.max_sessions as usize {
            return false;
        }
        let Some((number, Idle { source, what, .. })) = self.idle.evict(newcomer) else {
            return false;
        };
        self.change(source, what, false);
        self.evicted.insert(number)
    }

    fn change(&mut self, source: Source, what: What, more: bool) {
        self.all.change(what, more);
        let of = self.sources.entry(source).or_default();
        of.change(what, more);
        if of.is_empty() {
            self.sources.remove(&source);
        }
    }

    /// May this source have one more stream with a thread of its own?
    fn may_branch(&self, source: Source) -> bool {
        let here = self.sources.get(&source).map_or(0, |of| of.branches);
        here < DIALOGUES_MAX.saturating_sub(self.all.branches)
    }
}

/// What takes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Session,
    /// A session that outlives its connection.
    Resumable,
    /// One whose connection is lost.
    Lost,
    /// A connection that may only resume a session, because of this limit.
    Spare(Full),
    /// A stream with a thread of its own.
    Branch,
}

/// The counts; the loop and the threads of all sessions share them.
#[derive(Debug, Clone, Default)]
pub struct SessionCounts(Arc<Mutex<Counts>>);

impl SessionCounts {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is there no session, and no stream with a thread of its own?
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// From now on the end of the last one wakes whoever waits for that.
    pub fn wake_when_empty(&self, waker: Arc<Waker>) {
        self.lock().waker = Some(waker);
    }

    /// Counts a session of this client. `resumes`: it may be one that only resumes another.
    pub fn admit(
        &self,
        peer: Peer,
        settings: &Settings,
        resumes: bool,
    ) -> Result<CountGuard, Full> {
        let source = Source::of(peer);
        let mut c = self.lock();
        let here = c.sources.get(&source).copied().unwrap_or_default();
        let full = if here.is_full(settings.max_sessions_per_source) {
            Some((Full::Source, here.has_spare()))
        } else if c.all.is_full(settings.max_sessions) {
            Some((Full::All, c.all.has_spare()))
        } else {
            None
        };
        let what = match full {
            None => What::Session,
            Some((Full::All, _)) if c.make_room(source, settings) => What::Session,
            Some((limit, true)) if resumes => What::Spare(limit),
            Some((limit, _)) => return Err(limit),
        };
        c.change(source, what, true);
        c.last = c.last.next();
        Ok(CountGuard {
            counts: self.clone(),
            taken: Taken::By(c.last, source, what),
            room: Room::Never,
            taken_out: Arc::default(),
        })
    }

    /// No descriptor is left for a client of this address: an idle session makes room for whoever
    /// comes next.
    pub fn free_descriptors(&self, peer: Peer, settings: &Settings) {
        self.lock().make_room(Source::of(peer), settings);
    }

    /// Counts a stream of the session `of` with a thread of its own. Its session counts the holders
    /// of `session`. None: its source has too many.
    pub fn branch(&self, session: &Arc<()>, of: &CountGuard) -> Option<CountGuard> {
        let (number, source) = (of.number(), of.source());
        let mut c = self.lock();
        if !c.may_branch(source) {
            return None;
        }
        c.change(source, What::Branch, true);
        let taken = Taken::ByBranch { _session: session.clone(), number, source };
        let taken_out = of.taken_out.clone();
        Some(CountGuard { counts: self.clone(), taken, room: Room::Never, taken_out })
    }
}

/// A session, or a stream with a thread of its own, is counted until this is dropped.
#[derive(Debug)]
pub struct CountGuard {
    counts: SessionCounts,
    taken: Taken,
    room: Room,
    /// A stream's thread has taken the session out of those that make room: shared with it.
    taken_out: Arc<AtomicBool>,
}

/// Does a session make room for others?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Never,
    IfItMust,
    /// It had to: it may not have noticed yet, or ends.
    Made,
}

#[derive(Debug)]
enum Taken {
    By(SessionNumber, Source, What),
    /// A stream with a thread of its own.
    ByBranch {
        _session: Arc<()>,
        /// The session's.
        number: SessionNumber,
        source: Source,
    },
}

impl CountGuard {
    /// The limit because of which this session may only resume another one; None: it may do all.
    pub fn spare(&self) -> Option<Full> {
        match self.taken {
            Taken::By(.., What::Spare(limit)) => Some(limit),
            Taken::By(..) | Taken::ByBranch { .. } => None,
        }
    }

    /// The session's.
    fn number(&self) -> SessionNumber {
        match self.taken {
            Taken::By(number, ..) | Taken::ByBranch { number, .. } => number,
        }
    }

    fn source(&self) -> Source {
        match self.taken {
            Taken::By(_, source, _) | Taken::ByBranch { source, .. } => source,
        }
    }

    /// The session makes room for others if it must: nobody has logged in, and no service runs.
    pub fn may_go(&mut self, noticed: Noticed) {
        let again = self.room == Room::IfItMust && self.taken_out.swap(false, Ordering::AcqRel);
        if self.room != Room::Never && !again || self.spare().is_some() {
            return;
        }
        if let Taken::By(number, source, what) = self.taken {
            self.room = Room::IfItMust;
            self.counts.lock().idle.insert(number, source, noticed, what);
        }
    }

    /// From now on it does not make room, nor does the session of a stream. False: it had to, and
    /// ends.
    pub fn stays(&mut self) -> bool {
        let is_stream = matches!(self.taken, Taken::ByBranch { .. });
        if is_stream || self.room == Room::IfItMust {
            let (number, mut c) = (self.number(), self.counts.lock());
            c.idle.remove(number);
            let had_to = c.evicted.contains(&number);
            self.room = if had_to { Room::Made } else { Room::Never };
            self.taken_out.store(is_stream && !had_to, Ordering::Release);
        }
        self.room != Room::Made
    }

    /// Does it end because it had to make room?
    pub fn is_evicted(&self) -> bool {
        match (self.room, &self.taken) {
            (Room::IfItMust, Taken::By(number, ..)) => self.counts.lock().evicted.contains(number),
            (room, _) => room == Room::Made,
        }
    }

    /// The session outlives its connection from now on.
    pub fn is_resumable(&mut self) {
        self.is_lost(false);
    }

    /// Such a session has lost its connection; or it has one again.
    pub fn is_lost(&mut self, lost: bool) {
        if let Taken::By(_, source, _) = self.taken {
            self.becomes(source, if lost { What::Lost } else { What::Resumable });
        }
    }

    /// The session's client has this address now. No limit is checked: the session is there.
    pub fn moves(&mut self, peer: Peer) {
        if let Taken::By(.., what) = self.taken {
            self.becomes(Source::of(peer), what);
        }
    }

    /// Afterwards it stays, until it [may go](CountGuard::may_go) again.
    fn becomes(&mut self, source: Source, what: What) {
        let counts = self.stays();
        if let Taken::By(_, old, was) = &mut self.taken {
            if counts {
                let mut c = self.counts.lock();
                c.change(*old, *was, false);
                c.change(source, what, true);
            }
            (*old, *was) = (source, what);
        }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        let mut c = self.counts.lock();
        match self.taken {
            Taken::By(number, source, what) => {
                c.idle.remove(number);
                if !c.evicted.remove(&number) {
                    c.change(source, what, false);
                }
            }
            Taken::ByBranch { source, .. } => c.change(source, What::Branch, false),
        }
        let waker = c.waker.clone().filter(|_| c.is_empty());
        drop(c);
        if let Some(Err(e)) = waker.map(|w| w.wake()) {
            crate::log::warn(&format!("net: the end of the last session: {e}"));
        }
    }
}
