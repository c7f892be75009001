//! Clients' sockets that the parent hands to a net process: to be answered, to be
//! closed after what they still send was discarded, or to be relayed.

use super::net::{ProcessState, State};
use crate::parent::config::Config;
use crate::parent::context::Context;
use crate::parent::nets::Nets;
use crate::parent::tokens::NetToken;
use crate::policy::ServiceId;
use crate::sys::shared::Shared;
use crate::sys::socket;
use crate::wire::orders::{ToNet, Why};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

impl Nets {
    /// The net process that serves, and its configuration, if it is there and reads its orders:
    /// clients are given to no other.
    pub fn takes_clients(&self) -> Option<(NetToken, Rc<Config>)> {
        let (token, net) = self
            .all
            .iter()
            .find(|(_, n)| n.state == State::Serving && n.process == ProcessState::Running)?;
        let takes = !net.channel.is_behind() && net.channel.is_open();
        takes.then(|| (*token, net.config.clone()))
    }

    /// The service of a plain connection was refused: net answers the client.
    pub fn refuse(
        &mut self,
        cx: &Context,
        token: NetToken,
        service: ServiceId,
        why: Why,
        client: Option<&Shared>,
    ) {
        // A net process that drains may be allowed to end before the answers to its orders come: a
        // start that is late is not waited for. Another one answers then; it has another table, in
        // which this service's number means nothing.
        let (token, service) = match self.takes_relays(token) {
            true => (token, service.0),
            false => (self.for_relay(None).unwrap_or(token), u32::MAX),
        };
        self.tell(cx, token, &ToNet::Refuse { service, why }, client.map(AsFd::as_fd));
    }

    /// Has a net process do the lingering close of a client's socket that no service has had. Where
    /// there is no such process now, the connection just ends.
    pub fn close_lingering(&mut self, cx: &Context, socket: &Shared) {
        if let Some(token) = self.for_relay(None) {
            self.tell(cx, token, &ToNet::Linger, Some(socket.as_fd()));
        }
    }

    /// Sends to a client whose socket that net process has, too, if one is named: whoever keeps its
    /// lock is waited for as `BoundedCalls` does. (The parent has given it to a service, too, if
    /// such a process has handed it over more than once.)
    pub fn send(
        &mut self,
        net: Option<NetToken>,
        client: &Shared,
        text: &[u8],
    ) -> io::Result<usize> {
        let text = text.to_vec();
        let send = move |to: BorrowedFd| {
            let sent = socket::send(to, &text)?;
            // What follows must not wait until the client has acknowledged this.
            let _ = socket::set_nodelay(to, true);
            Ok(sent)
        };
        let Some(net) = net else { return send(client.as_fd()) };
        // Where it has ended another one's calls are made so.
        let net = if self.has(net) { Some(net) } else { self.for_relay(None) };
        let calls = net.and_then(|net| self.calls(net));
        let sent = calls.and_then(|calls| calls.make(&[client.as_fd()], move |to| send(to[0])));
        sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Has it read what it was sent before, or is it gone?
    pub fn takes_more(&self, token: NetToken) -> bool {
        self.all.get(&token).is_none_or(|net| !net.channel.is_behind())
    }

    /// Has the net process that closes connections so not read what it was sent before?
    pub fn is_behind(&self) -> bool {
        self.for_relay(None).is_some_and(|token| !self.takes_more(token))
    }

    /// The net process that gets a relay: the one that serves, else the preferred one, else any
    /// that lives.
    pub fn for_relay(&self, preferred: Option<NetToken>) -> Option<NetToken> {
        let lives = |token: &NetToken| self.takes_relays(*token);
        let some = self.serving().filter(lives).or(preferred.filter(lives));
        some.or_else(|| self.tokens().into_iter().find(lives))
    }
}
