//! The channels of sessions to the parent, which makes them: some before they are needed, and one
//! more whenever a session begins and none is unused.

use super::descriptors::{Descriptors, Reservation};
use crate::sys::shared::Shared;
use crate::sys::socket;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many unused ones are kept, at most. There are more if clients leave before theirs has come.
const UNUSED_MAX: usize = 32;

/// See the module.
pub struct Channels {
    state: Mutex<State>,
    came: Condvar,
    none: Arc<Shared>,
}

#[derive(Default)]
struct State {
    unused: Vec<OwnedFd>,
    /// Those that the parent was asked for, in that order, by their numbers.
    asked: VecDeque<u64>,
    /// What has come of those that were asked for. None: there is no descriptor for it.
    come: HashMap<u64, Option<OwnedFd>>,
    number: u64,
    /// The parent is gone.
    closed: bool,
}

/// A session's channel.
pub enum Coming {
    Here(OwnedFd),
    Asked(Asked),
}

/// A channel that the parent was asked for. Nobody waits for it any more once this is dropped.
pub struct Asked {
    number: u64,
    all: Arc<Channels>,
    _place: Reservation,
}

impl Channels {
    pub fn new() -> io::Result<Channels> {
        let (none, _) = socket::seqpacket()?;
        Ok(Channels { state: Mutex::default(), came: Condvar::new(), none: Arc::new(none.into()) })
    }

    /// In place of a channel that there is not: its other end is closed.
    pub fn none(&self) -> &Arc<Shared> {
        &self.none
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel for a session, and whether the parent must be asked for it. None: no descriptor is
    /// left. `open` is any descriptor that is open.
    pub fn next(
        self: &Arc<Self>,
        descriptors: &Arc<Descriptors>,
        open: BorrowedFd,
    ) -> Option<(Coming, bool)> {
        let mut state = self.state();
        if let Some(fd) = state.unused.pop() {
            if descriptors.is_reserved(&fd) {
                state.unused.push(fd);
                return None;
            }
            return Some((Coming::Here(fd), false));
        }
        let place = descriptors.reserve(open)?;
        state.number += 1;
        let number = state.number;
        state.asked.push_back(number);
        drop(state);
        Some((Coming::Asked(Asked { number, all: self.clone(), _place: place }), true))
    }

    /// The parent has sent one. None: it has no descriptor for the one that was asked for first.
    pub fn add(&self, fd: Option<Shared>) {
        let fd = fd.map(Shared::our_own);
        let mut state = self.state();
        match (state.asked.pop_front(), fd) {
            (Some(number), fd) => {
                state.come.insert(number, fd);
                self.came.notify_all();
            }
            (None, Some(fd)) => state.keep(fd),
            (None, None) => {}
        }
    }

    /// The parent is gone: nobody waits any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.came.notify_all();
    }
}

impl State {
    /// It is closed, if as many are kept as may be.
    fn keep(&mut self, fd: OwnedFd) {
        if self.unused.len() < UNUSED_MAX {
            self.unused.push(fd);
        }
    }
}

impl Asked {
    /// Waits until it has come. None: there is none.
    pub fn wait(self) -> Option<OwnedFd> {
        let state = self.all.state();
        let waits = |s: &mut State| !s.closed && !s.come.contains_key(&self.number);
        let state = self.all.came.wait_while(state, waits);
        state.unwrap_or_else(PoisonError::into_inner).come.remove(&self.number).flatten()
    }

    /// Has it come, or is there none?
    pub fn has_come(&self) -> bool {
        let state = self.all.state();
        state.closed || state.come.contains_key(&self.number)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.all.state();
        let fd = state.come.remove(&self.number).flatten();
        // What comes in its place is for the next one.
        state.asked.retain(|n| *n != self.number);
        if let Some(fd) = fd {
            state.keep(fd);
        }
    }
}

impl Coming {
    /// The channel, once it has come. None: there is none.
    pub fn wait(self) -> Option<OwnedFd> {
        match self {
            Coming::Here(fd) => Some(fd),
            Coming::Asked(asked) => asked.wait(),
        }
    }

    /// Has it come, or is there none?
    pub fn has_come(&self) -> bool {
        match self {
            Coming::Here(_) => true,
            Coming::Asked(asked) => asked.has_come(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn who_asked_first_gets_what_comes_first_and_nobody_waits_in_vain() {
        let (all, descriptors) =
            (Arc::new(Channels::new().expect("a pair")), Arc::new(Descriptors::new()));
        let came = || all.add(Some(Shared::from(socket::seqpacket().expect("a pair").0)));
        let ask = || match all.next(&descriptors, all.none().as_fd()) {
            Some((coming @ Coming::Asked(_), true)) => coming,
            Some((coming @ Coming::Here(_), false)) => coming,
            _ => panic!("asked for what is here, or not asked for what is not"),
        };
        let [first, second, third, fourth] = [ask(), ask(), ask(), ask()];
        assert!(!first.has_come());
        came();
        assert!(first.has_come() && !second.has_come());
        // The client has gone: what was asked for is for the next one.
        drop(second);
        came();
        assert!(third.has_come() && first.wait().is_some());
        all.add(None);
        assert!(fourth.has_come() && fourth.wait().is_none() && third.wait().is_some());
        // The answer to what nobody waits for.
        came();
        assert!(matches!(ask(), Coming::Here(_)));
        let late = ask();
        all.close();
        assert!(late.has_come() && late.wait().is_none());
    }

    #[test]
    fn unused_ones_are_bounded() {
        let all = Channels::new().expect("a pair");
        for _ in 0..UNUSED_MAX + 3 {
            all.add(Some(Shared::from(socket::seqpacket().expect("a pair").0)));
        }
        assert_eq!(all.state().unused.len(), UNUSED_MAX);
    }
}
