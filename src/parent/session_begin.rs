//! How a session begins: with the first order of a channel that was unused (`unused_channels`).

use super::channel::{Broken, next};
use super::run::Parent;
use crate::wire::orders::Ask;
use std::os::fd::AsFd;

impl Parent {
    /// The first order of a channel: its session begins. Ok(false): there is none now.
    pub fn begin_order(&mut self, token: usize) -> Result<bool, Broken> {
        let Some(net) = self.unused_channels.net_of(token) else { return Ok(false) };
        let Some(config) = self.nets.orders_count_of(net) else { return Ok(false) };
        let Some((ask, mut fds)) = self.unused_channels.order(&mut self.cx, token)? else {
            return Ok(false);
        };
        let Ask::Begin { tls_port, proxied } = ask else { return Err(Broken::Forbidden) };
        self.cx.counters.orders += 1;
        if fds.lost() {
            // The client's connection was closed with the descriptor that could not be received.
            self.cx.out_of_descriptors();
            return Err(Broken::Closed);
        }
        let client = next(&mut fds)?;
        self.nets.admit(net, client.as_fd(), tls_port)?;
        let Some(at) = self.addresses(&config, client.as_fd(), proxied)? else {
            self.client_gone(&config, None);
            return Err(Broken::Closed);
        };
        let Some(channel) = self.unused_channels.take(token) else { return Ok(false) };
        self.unused_channels.add_ahead(&mut self.cx, &mut self.nets, net);
        let name = self.names.known(self.cx.now, at.peer());
        let place = (net, self.nets.drains(net), tls_port);
        self.sessions.begin(&mut self.cx, place, config, (at, name), &client, (token, channel));
        // More may have come with it.
        self.may_have_orders(token);
        Ok(false)
    }

    /// A channel on which no session has begun has closed, or cannot be used.
    pub fn unused_over(&mut self, token: usize, why: &Broken) {
        let net = self.unused_channels.net_of(token);
        self.unused_channels.take(token);
        if let (Some(net), Broken::Forbidden) = (net, why) {
            self.net_broken(net, why);
        }
    }

    /// The sessions that a net process has begun, which has ended, begin. Its other channels close.
    pub fn last_begins(&mut self, net: usize) {
        for token in self.unused_channels.of_net(net) {
            // Err: nothing was asked for there.
            let _ = self.begin_order(token);
        }
        self.unused_channels.forget(net);
    }
}
