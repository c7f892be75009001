//! Those who asked for a reload (`fived --reload`), until they are told what came of it.

use crate::sys::outcome::{Asker, REPEAT};
use std::time::Duration;

/// Askers that wait for the new net process at a time. One more is answered as soon as the
/// configuration has been read. Also askers for whom one reload is to be begun.
pub const ASKERS_MAX: usize = 64;
/// An asker who comes so soon after a reload may be one of many, whose signals were lost while that
/// reload kept the parent busy.
const SOON: Duration = Duration::from_secs(1);
/// All of them have repeated their signals by then: one more reload is enough for all.
pub const GATHERING: Duration = REPEAT.saturating_mul(2);

/// See the module.
#[derive(Default)]
pub struct Reloads {
    /// The next reload is for them. None before them is an answer to their question.
    pub asking: Vec<Asker>,
    /// How many services the new table has, until the log says that it is served.
    pub loaded: Option<usize>,
    /// They wait until the new table is served, each with the warnings of its reload.
    pub waiting: Vec<(Asker, Vec<String>)>,
    /// When the configuration was read last.
    pub last: Option<Duration>,
    /// Those who are to share a reload have had time to say so.
    pub gathered: bool,
    /// A reload took place in this turn of the loop, which may have taken seconds.
    pub done: bool,
}

impl Reloads {
    /// Has it asked already? Then it has repeated its signal before it was acknowledged.
    pub fn has(&self, asker: Asker) -> bool {
        self.asking.contains(&asker) || self.waiting.iter().any(|(a, _)| *a == asker)
    }

    /// Is somebody still to be told that the new table is served?
    pub fn is_under_way(&self) -> bool {
        self.loaded.is_some() || !self.waiting.is_empty()
    }

    /// May one reload be enough for this asker and others?
    pub fn may_gather(&self, now: Duration) -> bool {
        self.asking.len() < ASKERS_MAX && self.last.is_some_and(|at| now < at + SOON)
    }
}
