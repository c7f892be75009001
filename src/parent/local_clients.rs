//! Clients of this computer that connect to Unix sockets. The system says which user each is, so
//! the user is logged in from the beginning. A user who was not looked up a moment ago is looked up
//! by a child before anything else happens (`accounts`); a user without an account stays nobody. If
//! nobody can be asked, or there is no answer, a user who was known is as before.

use super::arrival::{Arrival, LocalClient};
use super::config::catalog::Missing;
use super::run::{AwaitsAccount, Parent};
use super::sessions::session::local_user;
use super::tokens::PortToken;
use crate::policy::Peer;
use crate::wire::orders::{Data, KnownLogin, ToNet};
use std::os::fd::AsFd;
use std::rc::Rc;

impl Arrival {
    /// Notes the user who has connected, if it is known who that is.
    pub fn identified(mut self) -> Arrival {
        if let Some(user) = local_user(&self.config, self.who.facts.peer) {
            self.who.facts.login = Some(user.login);
            self.who.account = Some((user.account, user.method));
        }
        self
    }
}

impl Parent {
    /// A client at a port of a service's own arrives, once it is known which user it is.
    pub fn identify(&mut self, a: Box<Arrival>) {
        let unknown = match a.who.facts.peer {
            Peer::User(uid) if !a.config.catalog.is_fresh(uid, self.cx.now) => uid,
            _ => return self.arrive(a.identified(), None),
        };
        let config = a.config.clone();
        self.look_up_account(Missing::Uid(unknown), &config, AwaitsAccount::Identify(a));
    }

    /// Do the clients at this port wait for net? Where only a net process can take them, or a load
    /// balancer's among them, while none takes any; where it relays for them, while there is none;
    /// where it may have to close their connections, while it has not read what it was sent before.
    pub fn waits_for_net(&mut self, token: PortToken) -> bool {
        let some = !self.cx.config.table.settings.proxy_from.is_empty();
        let balancers = some && self.ports.is_internet_stream(token);
        if balancers || self.ports.listeners.is_own(token) {
            return self.nets.takes_clients().is_none();
        }
        if self.ports.is_relayed(&self.cx, token) && self.nets.for_relay(None).is_none() {
            return true;
        }
        self.nets.is_behind() && self.ports.may_linger(&self.cx, token)
    }

    /// Hands such a client to the net process that serves, with the user who it is.
    pub fn local_client(&mut self, mut client: LocalClient) {
        let Peer::User(uid) = client.peer else { return };
        let Some((net, config)) = self.nets.takes_clients() else {
            return self.refuse_nameless(client.peer, "connections");
        };
        let asked = client.asked_for.as_ref().is_some_and(|c| Rc::ptr_eq(c, &config));
        if !asked && !config.catalog.is_fresh(uid, self.cx.now) {
            client.asked_for = Some(config.clone());
            let then = AwaitsAccount::LocalClient(client);
            return self.look_up_account(Missing::Uid(uid), &config, then);
        }
        let user = local_user(&config, client.peer);
        let login = user.map(|u| KnownLogin {
            name: Data::truncate(u.login.name.as_bytes()),
            superuser: u.login.superuser,
            groups: u.login.groups.0,
        });
        let order = ToNet::Client { uid, login };
        self.nets.tell(&self.cx, net, &order, Some(client.socket.as_fd()));
    }

    /// Logs and counts a client that has named no service and cannot be served: its connection just
    /// ends.
    pub(super) fn refuse_nameless(&mut self, client: Peer, reason: &'static str) {
        self.services.refusals.nameless(&mut self.cx, client, reason);
    }
}
