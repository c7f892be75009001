//! Clients at ports of services' own: each is accepted, waits for what its service depends on, and
//! arrives (`pipeline`).

use super::accept::Came;
use super::name_unknown;
use crate::parent::arrival::{Arrival, LocalClient, StartError};
use crate::parent::context::Timer;
use crate::parent::lookups::names::Asker;
use crate::parent::run::Parent;
use crate::parent::tokens::PortToken;
use crate::sys::foreign;
use crate::sys::shared::Whose;

impl Parent {
    /// Accepts one client at a port of a service's own. False: there is none now.
    pub fn port_client(&mut self, token: PortToken) -> bool {
        // A process beside this one closes each connection of a Unix socket.
        let full = foreign::is_held_up(Whose::Anybody) && !self.ports.has_address(token);
        if full || self.waits_for_net(token) {
            self.cx.retries.add(token.into());
            return false;
        }
        let (names, now) = (&self.names, self.cx.now);
        let came = self.ports.accept(&mut self.cx, token, |address| names.known(now, address));
        match came {
            Came::Client(a) => {
                if let Some(a) = self.ask_balancer(a) {
                    self.came_to_port(a);
                }
            }
            Came::Unnamed(client, addresses) => {
                self.local_client(LocalClient::new(client, &addresses));
            }
            Came::Gone => {}
            Came::Lost(peer) => self.refuse_nameless(peer, "connections"),
            Came::Nobody => return false,
            Came::Scarce => {
                self.cx.retries.add(token.into());
                return false;
            }
        }
        true
    }

    /// A client at a service's own port waits for the name of its address. A datagram waits for a
    /// moment only, and not for a name that an earlier one has waited for in vain.
    fn ask_port_client_name(&mut self, a: Arrival) {
        let Some(address) = a.who.facts.peer.address() else { return };
        let max_wait = self.max_wait(&a);
        if max_wait.is_some() && self.names.is_asked(address) {
            return self.refuse(a, name_unknown());
        }
        let number = match self.ports.name(a) {
            Ok(number) => number,
            Err(a) if max_wait.is_some() => return self.refuse(*a, name_unknown()),
            Err(a) => return self.refuse(*a, StartError::busy("connections", None)),
        };
        if let Some(max_wait) = max_wait {
            self.cx.after(max_wait, Timer::NameSlow { number });
        }
        self.names.ask(&mut self.cx, Asker::Port(number), address);
    }

    /// A client has come to a port: it arrives, once the name of its address and its user are known
    /// as far as its service depends on them.
    pub fn came_to_port(&mut self, a: Box<Arrival>) {
        match a.config.table.service_asks_name(a.service, &a.who.facts) {
            true => self.ask_port_client_name(*a),
            false => self.identify(a),
        }
    }
}
