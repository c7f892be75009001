//! How many sessions there are, in all and from each source. A session is counted before it
//! begins, and until it has ended.
//!
//! The parent counts too, over all net processes (`parent::session_counts`): this count refuses a
//! session before it has cost anything.

use crate::policy::{Peer, Settings, Source};
use crate::wire::orders::Reason;
use std::collections::HashMap;
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
}

impl Full {
    /// What the record of a refusal says about it.
    pub fn reason(self) -> Reason {
        match self {
            Full::All => Reason::Sessions,
            Full::Source => Reason::SourceSessions,
            Full::Descriptors => Reason::Descriptors,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    sessions: u32,
    sources: HashMap<Source, u32>,
    /// Streams with a thread of their own. They belong to their session, so no limit counts them;
    /// but the process does not end before they have.
    branches: u32,
}

/// The counts; the loop and the threads of all sessions share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<Counts>>);

impl Sessions {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is there no session, and no stream with a thread of its own?
    pub fn is_empty(&self) -> bool {
        let c = self.counts();
        c.sessions == 0 && c.branches == 0
    }

    /// Counts a session of this client.
    pub fn admit(&self, peer: Peer, settings: &Settings) -> Result<CountGuard, Full> {
        let source = Source::of(peer);
        let mut c = self.counts();
        if c.sources.get(&source).is_some_and(|n| *n >= settings.max_sessions_per_source) {
            return Err(Full::Source);
        }
        if c.sessions >= settings.max_sessions {
            return Err(Full::All);
        }
        c.sessions += 1;
        *c.sources.entry(source).or_default() += 1;
        Ok(CountGuard { of: self.clone(), source: Some(source), _session: None })
    }

    /// Counts a stream with a thread of its own. Its session counts the holders of `session`.
    pub fn branch(&self, session: &Arc<()>) -> CountGuard {
        self.counts().branches += 1;
        CountGuard { of: self.clone(), source: None, _session: Some(session.clone()) }
    }
}

/// A session, or a stream with a thread of its own, is counted until this is dropped.
#[derive(Debug)]
pub struct CountGuard {
    of: Sessions,
    /// None: a stream with a thread of its own.
    source: Option<Source>,
    _session: Option<Arc<()>>,
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        let mut c = self.of.counts();
        let Some(source) = self.source else {
            c.branches -= 1;
            return;
        };
        c.sessions -= 1;
        if let Some(n) = c.sources.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                c.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_own_bound_and_all_have_one() {
        let settings =
            Settings { max_sessions: 3, max_sessions_per_source: 2, ..Settings::default() };
        let (all, a) = (Sessions::default(), |n: u8| Peer::User(n.into()));
        let places = [all.admit(a(1), &settings), all.admit(a(1), &settings)];
        assert_eq!(all.admit(a(1), &settings).expect_err("full"), Full::Source);
        let other = all.admit(a(2), &settings);
        assert_eq!(all.admit(a(3), &settings).expect_err("full"), Full::All);
        let branch = all.branch(&Arc::default());
        drop((places, other));
        assert!(!all.is_empty());
        drop(branch);
        assert!(all.is_empty() && all.counts().sources.is_empty());
        assert!(all.admit(a(1), &settings).is_ok());
    }
}
