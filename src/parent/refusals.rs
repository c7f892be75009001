//! The log's lines about datagrams that were refused. Anybody can send datagrams, with any address
//! of a sender and as many as the network carries, so such lines are bounded: each port has a few
//! of them for each reason in each [`WINDOW`], and then one that counts those that were left out.

use super::arrival::{From, Record, StartError};
use super::context::{Context, Timer};
use super::lines;
use crate::policy::Service;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one port for one reason in that time.
const LINES_MAX: u32 = 5;

/// Of one port and one reason, in this window.
#[derive(Default)]
struct Count {
    logged: u32,
    /// How many lines were left out, and whose they are.
    more: u64,
    service: String,
    host: String,
}

/// See the module.
#[derive(Default)]
pub struct Refusals(BTreeMap<(usize, &'static str), Count>);

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
        match record.from {
            From::Wait(port) => {
                if self.0.is_empty() {
                    cx.after(WINDOW, Timer::RefusalsOver);
                }
                self.add(port, s, record, no);
            }
            From::Net(_) | From::Session(_) | From::Port => lines::refused(s, record, no),
        }
    }

    fn add(&mut self, port: usize, s: &Service, record: &Record, no: &StartError) {
        let count = self.0.entry((port, no.reason)).or_default();
        if count.logged < LINES_MAX {
            count.logged += 1;
            lines::refused(s, record, no);
        } else {
            if count.more == 0 {
                (count.service, count.host) = (s.name.clone(), record.host.clone());
            }
            count.more = count.more.saturating_add(1);
        }
    }

    /// The window is over: logs how many lines were left out.
    pub fn over(&mut self) {
        for ((_, reason), c) in std::mem::take(&mut self.0).iter().filter(|(_, c)| c.more > 0) {
            lines::refused_more(&c.service, &c.host, reason, c.more);
        }
    }
}
