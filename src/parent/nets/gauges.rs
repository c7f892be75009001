//! What net processes count while they work (`sys::gauges`), for the services `status` and
//! `metrics`. A net process that somebody else controls can only count wrongly.

use super::net::Net;
use crate::log;
use crate::parent::context::Context;
use crate::parent::descriptors::own;
use crate::parent::nets::Nets;
use crate::parent::tokens::NetToken;
use crate::sys::gauges::Now;
use crate::sys::processes;
use crate::wire::orders::ToNet;
use std::os::fd::AsFd;
use std::rc::Rc;

impl Nets {
    /// Hands a new net process the page where it counts.
    pub fn begin_counting(&mut self, cx: &Context, token: NetToken) {
        match own::gauges() {
            Ok((gauges, fd)) => {
                self.tell(cx, token, &ToNet::Gauges, Some(fd.as_fd()));
                if let Some(net) = self.all.get_mut(&token) {
                    net.gauges = Some(Rc::new(gauges));
                }
            }
            Err(e) => {
                log::warn(&format!("net: what it relays is not counted: {e}"));
                self.tell(cx, token, &ToNet::Gauges, None);
            }
        }
    }

    /// A net process has ended: what it has counted stays counted.
    pub fn keep_counted(&mut self, cx: &mut Context, net: &Net) {
        net.gauges.iter().for_each(|gauges| gauges.note_end());
        let last = net.gauges.as_ref().map_or(Now::default(), |gauges| gauges.now());
        let (to, from) = (self.ended.to, self.ended.from);
        self.ended.to = to.saturating_add(last.to);
        self.ended.from = from.saturating_add(last.from);
        self.ended.empty = self.ended.empty.saturating_add(last.empty);
        cx.counters.not_logged(last.unreported);
        net.warn_of_unreported();
    }

    /// What all net processes count now, and what those had counted that have ended.
    pub fn gauges(&self) -> Now {
        let all = self.all.values().filter_map(|net| net.gauges.as_ref());
        all.map(|gauges| gauges.now()).fold(self.ended, |sum, n| Now {
            to: sum.to.saturating_add(n.to),
            from: sum.from.saturating_add(n.from),
            waiting: sum.waiting.saturating_add(n.waiting),
            multiplexed: sum.multiplexed.saturating_add(n.multiplexed),
            unreported: sum.unreported.saturating_add(n.unreported),
            empty: sum.empty.saturating_add(n.empty),
        })
    }

    /// How many descriptors all of them have. One that has just ended has none.
    pub fn descriptors(&self) -> u64 {
        self.all.values().filter_map(|net| processes::descriptors(Some(net.child.pid)).ok()).sum()
    }
}

impl Net {
    /// It has ended. Some refusals were answered and could not be reported, so the log lacks them.
    pub fn warn_of_unreported(&self) {
        if let Some(n @ 1..) = self.gauges.as_ref().map(|g| g.now().unreported) {
            log::warn(&format!(
                "net: {n} refusals not logged: it ended before it could report them"
            ));
        }
    }
}
