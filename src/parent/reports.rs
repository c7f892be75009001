//! What fived tells about itself: the services `status` and `metrics`, and SIGUSR1's lines. There
//! may be thousands of rows, and the parent serves everybody, so it composes [`ROWS`] of them in a
//! turn of its loop, and what came meanwhile is served in between.
//!
//! The service's process is started at once. It waits at its end of a channel until the text is
//! complete and has come as a file. All who ask while a text of their kind is not begun get the
//! same one, so that there are never more than two of a kind, however many ask.
//!
//! | file | noun |
//! |---|---|
//! | `reporting` | who asks, and what a turn of the loop composes |
//! | `state` | the text of `status` |
//! | `metrics` | that of `metrics` |
//! | `tallies` | its counts |

mod metrics;
mod reporting;
mod state;
pub mod tallies;

use super::descriptors::own;
use super::lines;
use super::tokens::SessionToken;
use crate::log;
use crate::sys::memfd::Unsealed;
use crate::sys::message;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::vec::IntoIter;
use tallies::Place;

/// Rows that a turn of the loop composes at most: less than 0.1 ms of work.
pub const ROWS: usize = 256;
/// Lines of the log that one SIGUSR1 may take; the service `status` has them all.
const LOG_LINES: usize = 400;

/// What is told.
pub enum Kind {
    Status,
    Metrics,
}

/// What is to be composed next. None: nothing.
pub enum Next {
    Status(Option<StatePart>),
    Metrics(Option<MetricsPart>),
}

/// What of the metrics is told next.
pub enum MetricsPart {
    Counts,
    /// Rows of services: which metric, and which row was told last.
    Services(Metric, Option<Place>),
    Starts,
    Sessions(Count),
    Rest(Kinds),
}

/// A metric that has a row for each service of each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Starts,
    Refusals,
    Now,
}

/// How many sessions there are, by kind.
#[derive(Debug, Default)]
pub struct Kinds {
    pub plain: usize,
    pub encrypted: usize,
    pub lost: usize,
}

/// The sessions, while they are counted: those that are still to be counted.
pub struct Count {
    pub rest: IntoIter<SessionToken>,
    pub kinds: Kinds,
}

/// What of the state is told next: rows by the numbers by which the parent knows them.
pub enum StatePart {
    Begin,
    Counters(Count),
    Sessions(IntoIter<SessionToken>),
    Services(IntoIter<i32>),
    Relays(IntoIter<u32>),
    Offers(IntoIter<u32>),
    Penalties,
}

/// Who is told.
pub enum To {
    /// Processes of the service: the text so far, and the ends at which they wait for it.
    Services(Unsealed, Vec<OwnedFd>),
    /// The log: how many lines it has got so far, and how many were left out.
    Log { written: usize, more: usize },
}

/// One of them.
pub struct Report {
    next: Next,
    begun: bool,
    to: To,
}

/// See the module.
#[derive(Default)]
pub struct Reports(VecDeque<Report>);

impl Reports {
    /// Is nothing to be composed?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whoever is at the other end of this channel is told. Err: no descriptor is left.
    pub fn tell(&mut self, kind: Kind, end: OwnedFd) -> io::Result<()> {
        for report in self.0.iter_mut().filter(|report| !report.begun) {
            if let (Kind::Status, Next::Status(_), To::Services(_, ends))
            | (Kind::Metrics, Next::Metrics(_), To::Services(_, ends)) =
                (&kind, &report.next, &mut report.to)
            {
                ends.push(end);
                return Ok(());
            }
        }
        let next = match kind {
            Kind::Status => Next::Status(Some(StatePart::Begin)),
            Kind::Metrics => Next::Metrics(Some(MetricsPart::Counts)),
        };
        let to = To::Services(own::unsealed()?, vec![end]);
        self.0.push_back(Report { next, begun: false, to });
        Ok(())
    }

    /// The log is told the state, unless that has yet to begin already.
    pub fn log(&mut self) {
        let waits = |r: &Report| matches!(r.to, To::Log { .. }) && !r.begun;
        if !self.0.iter().any(waits) {
            let next = Next::Status(Some(StatePart::Begin));
            let to = To::Log { written: 0, more: 0 };
            self.0.push_back(Report { next, begun: false, to });
        }
    }

    /// The report that has waited longest: what of it is to be composed now, and to whom it goes.
    pub fn take(&mut self) -> Option<(Next, To)> {
        self.0.pop_front().map(|report| (report.next, report.to))
    }

    /// These rows of it are composed. With nothing next, it is complete.
    pub fn composed(&mut self, text: &str, next: Next, mut to: To) {
        if let Err(e) = to.add(text) {
            // Those who wait see their channel close.
            return log::warn(&format!("status: memory file: {e}"));
        }
        match next {
            Next::Status(None) | Next::Metrics(None) => to.finish(),
            next => self.0.push_front(Report { next, begun: true, to }),
        }
    }
}

impl To {
    fn add(&mut self, text: &str) -> io::Result<()> {
        match self {
            To::Services(file, _) => file.write(text.as_bytes()),
            To::Log { written, more } => {
                let (now, later) = (LOG_LINES - *written, text.lines().count());
                text.lines().take(now).for_each(lines::state);
                *written += now.min(later);
                *more += later.saturating_sub(now);
                Ok(())
            }
        }
    }

    fn finish(self) {
        match self {
            To::Services(file, ends) => match file.seal() {
                Ok(file) => ends.iter().for_each(|end| {
                    // Nobody waits there any more if this fails: it is the first message.
                    let _ = message::send(end.as_fd(), b"+", &[file.as_fd()]);
                }),
                Err(e) => log::warn(&format!("status: memory file: {e}")),
            },
            To::Log { more: 0, .. } => {}
            To::Log { more, .. } => lines::state(&format!("and {more} lines more")),
        }
    }
}

/// Does `each` for the next [`ROWS`] rows. Returns the rest, if there are more.
pub fn rows<T>(mut rows: IntoIter<T>, each: impl FnMut(T)) -> Option<IntoIter<T>> {
    rows.by_ref().take(ROWS).for_each(each);
    (rows.len() > 0).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{memfd, socket};

    #[test]
    fn a_turn_does_a_bounded_number_of_rows() {
        let (mut rest, mut turns) = (Some((0..ROWS * 2 + 1).collect::<Vec<_>>().into_iter()), 0);
        while let Some(all) = rest {
            let mut done = 0;
            rest = rows(all, |_| done += 1);
            assert!(done <= ROWS, "{done}");
            turns += 1;
        }
        assert_eq!(turns, 3);
    }

    #[test]
    fn all_who_ask_before_a_text_is_begun_get_the_same_one() {
        let mut all = Reports::default();
        let ask = |all: &mut Reports| {
            let (near, far) = socket::seqpacket().expect("a channel");
            all.tell(Kind::Metrics, near).expect("memory");
            far
        };
        let first: Vec<_> = (0..3).map(|_| ask(&mut all)).collect();
        assert_eq!(all.0.len(), 1);
        let (_, to) = all.take().expect("one");
        all.composed("a ", Next::Metrics(Some(MetricsPart::Starts)), to);
        let later = [ask(&mut all), ask(&mut all)];
        assert_eq!(all.0.len(), 2);
        let (next, to) = all.take().expect("the one that is begun");
        assert!(matches!(next, Next::Metrics(Some(MetricsPart::Starts))));
        all.composed("b", Next::Metrics(None), to);
        for end in first {
            let got = message::receive(end.as_fd(), &mut [0]);
            let file = got.expect("a message").1.take().expect("a file");
            assert_eq!(memfd::read(file.as_fd()).expect("a text"), b"a b");
        }
        let got = message::receive(later[0].as_fd(), &mut [0]);
        assert!(got.is_err(), "its own is not complete");
    }
}
