//! What the orders about services of RUN say.

#[cfg(doc)]
use super::Answer;
use super::Data;
use crate::wire::run::{Size, Status, Terminal, Way};
use std::time::Duration;

/// In place of a status: nobody is told how the service ended.
const NOT_TOLD: u32 = u32::MAX;

/// The flags of [`Extras`], and how many bits each of the numbers after them has.
const FLAGS: u32 = 4;
const GREETING: u32 = 20;
const ENDS_AT: u32 = 64 - FLAGS - GREETING;

/// What net is told of a service besides its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extras {
    /// [`Answer::Ended`] will tell how it ended. If not, it ends with its connection, and well.
    pub tells_end: bool,
    /// The second descriptor is net's end of its standard error.
    pub errors: bool,
    /// It has a terminal, whose process has the other end of its connection. The second descriptor
    /// is a channel that tells that process the terminal's sizes ([`Size::bytes`]).
    pub terminal: bool,
    /// Its server was running already: if that breaks its connection, so does the client's.
    pub server: bool,
    /// The first bytes of its connection are fived's own: this many, less than 2^20.
    pub greeting: u32,
    /// With `server_timeout`, of a server that was running already: when the parent ends it, to the
    /// millisecond.
    pub ends_at: Option<Duration>,
}

impl Extras {
    pub(super) fn number(self) -> u64 {
        let flags = [self.tells_end, self.errors, self.terminal, self.server];
        let flags = flags.iter().rev().fold(0, |n, flag| n << 1 | u64::from(*flag));
        let greeting = u64::from(self.greeting).min((1 << GREETING) - 1);
        // 40 bits are 34 years since the system was started.
        let ends_at =
            self.ends_at.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        flags | greeting << FLAGS | ends_at.min((1 << ENDS_AT) - 1) << (FLAGS + GREETING)
    }

    pub(super) fn from_number(n: u64) -> Extras {
        let flag = |at: u32| n >> at & 1 == 1;
        let ends_at = n >> (FLAGS + GREETING);
        Extras {
            tells_end: flag(0),
            errors: flag(1),
            terminal: flag(2),
            server: flag(3),
            greeting: (n >> FLAGS) as u32 & ((1 << GREETING) - 1),
            ends_at: (ends_at > 0).then(|| Duration::from_millis(ends_at)),
        }
    }
}

/// The way that a service is asked for, as a number and bytes.
pub(super) fn way_number(way: &Way) -> u64 {
    match way {
        Way::Plain => 0,
        Way::Run => 1,
        Way::Terminal(t) => 2 | u64::from(t.size.rows) << 32 | u64::from(t.size.columns) << 48,
    }
}

pub(super) fn way_of(n: u64, data: &Data) -> Option<Way> {
    // Each is cut to its 16 bits.
    let size = Size { rows: (n >> 32) as u16, columns: (n >> 48) as u16 };
    match (n as u32, n >> 32) {
        (0, 0) => Some(Way::Plain),
        (1, 0) => Some(Way::Run),
        (2, _) => Terminal::new(data.text()?, size).map(Way::Terminal),
        _ => None,
    }
}

/// How a service ended; None: nobody is told.
pub(super) fn status_number(status: Option<Status>) -> u32 {
    status.map_or(NOT_TOLD, Status::number)
}

pub(super) fn status_of(number: u32) -> Option<Option<Status>> {
    match number {
        NOT_TOLD => Some(None),
        number => Status::from_number(number).map(Some),
    }
}
