//! The relays: services that ran already, to which net copies a client's bytes. One entry each,
//! from its `START` line to its `EXIT` line. The process that copies tells when one is over; when
//! that process ends, so do those that it has not told of.
//!
//! | file | noun |
//! |---|---|
//! | `redirect` | the way of a request for a service that runs already |
//! | `threads` | the threads of net processes that relay |

pub mod redirect;
pub mod threads;

use super::arrival::Record;
use super::backend::targets::Target;
use super::config::Config;
use super::context::{Context, Timer};
use super::lines;
use super::reports::tallies::Counted;
use super::tokens::{RelayThreadToken, SessionToken};
use crate::policy::{Service, ServiceId, Ticket};
use crate::sys::shared::Shared;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// Who copies, and tells of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A thread of a net process: a plain client's.
    Thread(RelayThreadToken),
    /// A session: that of its connection, or of one of its streams.
    Session(SessionToken),
}

/// A relay.
pub struct Relay {
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub ticket: Ticket,
    /// None: the table does not have its service.
    pub counted: Option<Counted>,
    pub record: Record,
    pub to: Target,
    pub started: Duration,
    /// With `server_timeout`: when it ends, and a copy of the upstream's socket, to end it by.
    pub until: Option<(Duration, Shared)>,
    pub owner: Owner,
}

impl Relay {
    pub fn service(&self) -> Option<&Service> {
        self.config.table.service(self.service)
    }
}

/// See the module.
#[derive(Default)]
pub struct Relays {
    all: HashMap<u32, Relay>,
    last: u32,
}

impl Relays {
    /// The number of a relay that may begin later: not 0, and not one that is `used`.
    pub fn number(&mut self, used: impl Fn(u32) -> bool) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.all.contains_key(&self.last) && !used(self.last) {
                return self.last;
            }
        }
    }

    /// Records a relay that begins, and logs it.
    pub fn begin(&mut self, cx: &mut Context, number: u32, relay: Relay) {
        if let Some((until, _)) = &relay.until {
            cx.at(*until, Timer::RelayLate { relay: number });
        }
        if let Some(service) = relay.service() {
            lines::start_at(service, &relay.to, &relay.record);
        }
        self.all.insert(number, relay);
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Relay)> {
        self.all.iter().map(|(number, relay)| (*number, relay))
    }

    pub fn get(&self, number: u32) -> Option<&Relay> {
        self.all.get(&number)
    }

    /// Records that a relay is over, and logs it. `traffic`: bytes to the upstream and from it, if
    /// they are known. None: this owner has no such relay.
    pub fn end(
        &mut self,
        cx: &mut Context,
        number: u32,
        owner: Owner,
        traffic: Option<(u64, u64)>,
    ) -> Option<Ticket> {
        self.all.get(&number).filter(|r| r.owner == owner)?;
        let mut relay = self.all.remove(&number)?;
        drop(relay.counted.take());
        if let Some((until, _)) = &relay.until {
            cx.cancel(*until, Timer::RelayLate { relay: number });
        }
        if let Some(service) = relay.service() {
            let late = relay.until.as_ref().is_some_and(|(until, _)| *until <= cx.now);
            let how = (cx.now.saturating_sub(relay.started), late);
            lines::relay_exit(service, &relay.to, &relay.record, how, traffic);
        }
        Some(relay.ticket)
    }

    /// The process or session that copied has ended, and so have all its relays.
    pub fn end_all(&mut self, cx: &mut Context, owner: Owner) -> Vec<(u32, Ticket)> {
        let of: Vec<u32> =
            self.all.iter().filter(|(_, r)| r.owner == owner).map(|(number, _)| *number).collect();
        of.into_iter().filter_map(|n| Some((n, self.end(cx, n, owner, None)?))).collect()
    }

    /// What ends a relay of limited time, and who copies.
    pub fn ends(&self, number: u32) -> Option<(&Shared, Owner)> {
        let relay = self.all.get(&number)?;
        relay.until.as_ref().map(|(_, end)| (end, relay.owner))
    }
}
