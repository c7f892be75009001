//! An offer: a session's user serves a service of that name, as long as the offer stands.

use super::offerers::Name;
use crate::parent::config::Config;
use crate::parent::sessions::session::User;
use crate::parent::tokens::SessionToken;
use crate::policy::{HostScope, Peer, Service, ServiceId};
use std::rc::Rc;
use std::time::Duration;

/// See the module.
pub struct Offer {
    pub name: Name,
    pub config: Rc<Config>,
    pub service: ServiceId,
    pub user: Rc<User>,
    /// Its session's token and number, and where that came from.
    pub session: SessionToken,
    pub number: u64,
    pub from: Peer,
    pub since: Duration,
    /// Until then it is asked last.
    pub last_until: Duration,
}

impl Offer {
    /// The host of the service that is offered; `*`: every host has it.
    pub fn host(&self) -> &str {
        let table = &self.config.table;
        match table.service(self.service).map(|s| s.host) {
            Some(HostScope::All) => "*",
            Some(HostScope::Host(id)) => table.host(id).map_or("", |h| h.name.as_str()),
            None => "",
        }
    }

    /// May its user offer this service? Groups are compared by their names: the service may be of a
    /// newer table. If a group was not known when the user logged in, the user counts
    /// as a member where that refuses the user, and not where it would admit the user.
    pub fn may_offer(&self, service: &Service) -> bool {
        let (login, known) = (&self.user.login, self.config.table.groups());
        let by = &service.attributes.offered_by;
        by.allow_member(&login.name, |group, _| {
            known.iter().position(|g| g == group).map(|i| login.groups.contains(i))
        })
    }
}
