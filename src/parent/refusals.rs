//! The log's lines about refusals. Anybody can send datagrams, with any address of a sender and as
//! many as the network carries, and ask for as much as fived can refuse; so such lines are bounded.
//! Each port of datagrams, and each source, has a few of them for each reason in each [`WINDOW`],
//! and then one that counts those that were left out. Where a `wait` port's program may not be
//! started for now, what waits there is tried again every second, and served in the end: that is
//! one refusal until the program is started.

use super::arrival::{Record, Requester, StartError};
use super::context::{Context, Timer};
use super::lines;
use super::tokens::PortToken;
use crate::policy::{Peer, Service, Source};
use crate::wire::orders::Why;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one port, or of one source, for one reason in that time.
const LINES_OF_PORT: u32 = 5;
const LINES_OF_SOURCE: u32 = 100;
/// Ports and sources that are counted, each for each reason; others are counted together.
const COUNTS_MAX: usize = 10_000;

/// Whose lines are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// The datagrams' that come to this port.
    Port(PortToken),
    /// The clients' of this source.
    Source(Source),
    /// All others', and those of nobody knows whom.
    Others,
}

/// Of one reason, in this window.
#[derive(Default)]
struct Count {
    logged: u32,
    /// How many lines were left out, and what the first of them said.
    more: u64,
    service: String,
    host: String,
    from: Option<Peer>,
}

/// See the module.
#[derive(Default)]
pub struct Refusals {
    counts: BTreeMap<(Whose, &'static str), Count>,
    /// The ports where a limit keeps the program from being started, and the reason that was
    /// logged.
    waiting: BTreeMap<PortToken, &'static str>,
}

impl Refusals {
    /// Counts and logs an arrival that is refused.
    pub fn refused(
        &mut self,
        cx: &mut Context,
        service: Option<&Service>,
        record: &Record,
        error: &StartError,
    ) {
        if let (Requester::Wait(port), Some(Why::Busy)) = (record.requester, error.reply)
            && self.still_waits(port, error.reason)
        {
            return;
        }
        let names = service.map(|s| (s.name.as_str(), record.host.as_str()));
        cx.counters.refuse(names, error.reason);
        let Some(s) = service else { return };
        let logged = match record.requester {
            Requester::Wait(port) => {
                self.has_line(cx, (Whose::Port(port), error.reason), names, None)
            }
            Requester::Session(_) | Requester::Net(_) | Requester::Port(_) => {
                self.of_client(cx, record.peer, error.reason, names)
            }
        };
        if logged {
            lines::refused(s, record, error);
        }
    }

    /// What waits at a port is refused for a limit. True: so it was before, and no program has been
    /// started since.
    fn still_waits(&mut self, port: PortToken, reason: &'static str) -> bool {
        if self.waiting.len() >= COUNTS_MAX {
            // Of ports that are not there any more.
            self.waiting.clear();
        }
        self.waiting.insert(port, reason) == Some(reason)
    }

    /// A program was started.
    pub fn started(&mut self, record: &Record) {
        if let Requester::Wait(port) = record.requester {
            self.waiting.remove(&port);
        }
    }

    /// Counts and logs the refusal of a client that has named no service.
    pub fn nameless(&mut self, cx: &mut Context, client: Peer, reason: &'static str) {
        cx.counters.refuse(None, reason);
        if self.of_client(cx, client, reason, None) {
            lines::of_none(client, reason);
        }
    }

    /// Counts and logs a client that was gone before its socket could say who it was. `names`: of
    /// the service that it asked for, and its host; None: it asked for a session.
    pub fn gone(&mut self, cx: &mut Context, names: Option<(&str, &str)>) {
        let reason = "gone";
        cx.counters.refuse(names, reason);
        if self.has_line(cx, (Whose::Others, reason), names, None) {
            let (service, host) = names.unwrap_or_default();
            lines::gone(service, host, reason);
        }
    }

    /// Has a refusal of this client a line of its own? Else it is counted. `names`: of the service
    /// and its host.
    pub fn of_client(
        &mut self,
        cx: &mut Context,
        peer: Peer,
        reason: &'static str,
        names: Option<(&str, &str)>,
    ) -> bool {
        self.has_line(cx, (Whose::Source(Source::of(peer)), reason), names, Some(peer))
    }

    fn has_line(
        &mut self,
        cx: &mut Context,
        key: (Whose, &'static str),
        names: Option<(&str, &str)>,
        from: Option<Peer>,
    ) -> bool {
        if self.counts.is_empty() {
            cx.after(WINDOW, Timer::RefusalsOver);
        }
        let (whose, reason) = key;
        let known = self.counts.len() < COUNTS_MAX || self.counts.contains_key(&key);
        let whose = if known { whose } else { Whose::Others };
        let most = if let Whose::Port(_) = whose { LINES_OF_PORT } else { LINES_OF_SOURCE };
        let count = self.counts.entry((whose, reason)).or_default();
        if count.logged < most {
            count.logged += 1;
            return true;
        }
        if count.more == 0 {
            let (service, host) = names.unwrap_or_default();
            (count.service, count.host) = (service.into(), host.into());
            count.from = from.filter(|_| whose != Whose::Others);
        }
        count.more = count.more.saturating_add(1);
        false
    }

    /// The window is over: logs how many lines were left out.
    pub fn over(&mut self) {
        for ((_, reason), c) in std::mem::take(&mut self.counts).iter().filter(|(_, c)| c.more > 0)
        {
            lines::refused_more((&c.service, &c.host), c.from, reason, c.more);
        }
    }
}
