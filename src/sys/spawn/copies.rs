//! Which children may have copies of other starts' connections.
//!
//! A child copies the descriptor table up to its own place, and then closes all that is not its own
//! (see `child`). Such a copy must not be the last one: a service that started meanwhile may have
//! set SO_LINGER and ended, and then that close would wait as long as the service likes (see
//! `shared`). So this process keeps its own copy of a connection until no child that may have one
//! is left.

use super::super::shared::{Shared, Whose};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies kept at a time. There are more only while somebody with the rights of root keeps a child
/// from its first steps: then the oldest one goes.
const KEPT_MAX: usize = 16;

/// The starts that are under way, and the connections that are kept because of them.
#[derive(Debug, Default)]
pub(super) struct Copies {
    under_way: Vec<UnderWay>,
    /// Starts that were begun so far.
    begun: u64,
    /// With how many starts had been begun when this one was finished.
    kept: Vec<(u64, Shared)>,
}

#[derive(Debug)]
struct UnderWay {
    /// The descriptor of its place.
    fd: RawFd,
    number: u64,
    /// Whose its connection is.
    whose: Whose,
    has_no_copies: Arc<AtomicBool>,
}

impl Copies {
    /// How many starts are under way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// A start in this place. Its child says with what is returned that it has no copies (any more)
    /// and will make none.
    pub fn begin(&mut self, fd: RawFd, whose: Whose) -> Arc<AtomicBool> {
        let has_no_copies = Arc::new(AtomicBool::new(false));
        let (number, told) = (self.begun, has_no_copies.clone());
        self.begun += 1;
        self.under_way.push(UnderWay { fd, number, whose, has_no_copies: told });
        has_no_copies
    }

    /// The start in this place is finished, and what is there will go.
    pub fn finish(&mut self, place: RawFd, connection: BorrowedFd) {
        let at = self.under_way.iter().position(|u| u.fd == place);
        let whose = at.map_or(Whose::Anybody, |at| self.under_way.remove(at).whose);
        self.let_go();
        if self.oldest().is_some() {
            if self.kept.len() >= KEPT_MAX {
                self.kept.remove(0);
            }
            // Without a descriptor for it, it goes at once.
            let copy = Shared::copy(connection).ok();
            self.kept.extend(copy.map(|copy| (self.begun, copy.of(whose))));
        }
    }

    /// Lets go of what no child has any more.
    pub fn let_go(&mut self) {
        if !self.kept.is_empty() {
            let oldest = self.oldest().unwrap_or(u64::MAX);
            self.kept.retain(|(begun, _)| *begun > oldest);
        }
    }

    /// The oldest start whose child may have copies.
    fn oldest(&self) -> Option<u64> {
        let may = |u: &&UnderWay| !u.has_no_copies.load(Ordering::Acquire);
        self.under_way.iter().filter(may).map(|u| u.number).min()
    }
}
