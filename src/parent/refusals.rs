//! The log's lines about refusals. Anybody can send datagrams, with any address of a sender and as
//! many as the network carries, and one session can make as many requests; so such lines are
//! bounded. Each port of datagrams, and the sessions of each source, have a few of them for each
//! reason in each [`WINDOW`], and then one that counts those that were left out. A client that
//! needs a connection for each request has a line for each.

use super::arrival::{Record, Requester, StartError};
use super::context::{Context, Timer};
use super::lines;
use crate::policy::{Peer, Service, Source};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one port, or of one source's sessions, for one reason in that time.
const LINES_OF_PORT: u32 = 5;
const LINES_OF_SOURCE: u32 = 100;
/// Ports and sources that are counted, each for each reason; others are counted together.
const COUNTS_MAX: usize = 10_000;

/// Whose lines are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// The datagrams' that come to this port.
    Port(usize),
    /// The sessions' of this source.
    Source(Source),
    /// All others'.
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
pub struct Refusals(BTreeMap<(Whose, &'static str), Count>);

impl Refusals {
    /// Counts and logs an arrival that is refused.
    pub fn refused(
        &mut self,
        cx: &mut Context,
        service: Option<&Service>,
        record: &Record,
        no: &StartError,
    ) {
        let names = service.map(|s| (s.name.as_str(), record.host.as_str()));
        cx.counters.refuse(names, no.reason);
        let Some(s) = service else { return };
        let logged = match record.from {
            Requester::Wait(port) => self.has_line(cx, (Whose::Port(port), no.reason), names, None),
            Requester::Session(_) => self.of_session(cx, record.peer, no.reason, names),
            Requester::Net(_) | Requester::Port => true,
        };
        if logged {
            lines::refused(s, record, no);
        }
    }

    /// Has a refusal in a session of this client a line of its own? Else it is counted. `names`: of
    /// the service and its host.
    pub fn of_session(
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
        if self.0.is_empty() {
            cx.after(WINDOW, Timer::RefusalsOver);
        }
        let (whose, reason) = key;
        let known = self.0.len() < COUNTS_MAX || self.0.contains_key(&key);
        let whose = if known { whose } else { Whose::Others };
        let most = if let Whose::Port(_) = whose { LINES_OF_PORT } else { LINES_OF_SOURCE };
        let count = self.0.entry((whose, reason)).or_default();
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
        for ((_, reason), c) in std::mem::take(&mut self.0).iter().filter(|(_, c)| c.more > 0) {
            lines::refused_more((&c.service, &c.host), c.from, reason, c.more);
        }
    }
}
