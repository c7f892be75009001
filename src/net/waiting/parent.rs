//! Orders from the parent, and the loop's orders to the parent.

use super::{CHANNEL, DISCARD_BYTES, DISCARD_TIME, Loop, Phase};
use crate::net::clients::{Client, ClientState, NameLookup};
use crate::net::order_queue::Lost;
use crate::net::request::{self, Refusal};
use crate::net::sources::Slot;
use crate::policy::{Facts, GroupSet, Login, Peer, ServiceId};
use crate::sys::message::{self, FDS_MAX, Failed, Fds};
use crate::sys::shared::Shared;
use crate::sys::{local, reserve, socket};
use crate::wire::orders::{FromNet, KnownLogin, Message, Named, ORDER, ToNet, Why};
use crate::wire::reply;
use mio::Interest;
use mio::unix::SourceFd;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

impl Loop {
    pub(super) fn report_refusal(&mut self, facts: &Facts, why: Option<Refusal>, name: &[u8]) {
        if let Some(why) = why {
            let order = FromNet::Refused(request::refused(facts, why, name));
            self.send_order(&order, Some(facts.peer), &[]);
        }
    }

    /// Sends an order. `of`: the client whose source it counts for. False: it cannot be sent now. A
    /// parent that is gone is noticed where its orders are read.
    pub(super) fn send_order(
        &mut self,
        order: &FromNet,
        of: Option<Peer>,
        with: &[BorrowedFd],
    ) -> bool {
        self.order_queue.send(order, of, with).is_ok()
    }

    /// Sends the orders that the channel did not take at once. Where too many are held, requests
    /// are refused.
    pub(super) fn flush_orders(&mut self) {
        if let Err(e) = self.order_queue.flush() {
            log::debug!("sending held orders: {e}");
        }
        for lost in self.order_queue.lost() {
            match lost {
                Lost::Start { service, client } => {
                    self.refuse(client, ServiceId(service), Why::Busy)
                }
                Lost::Name { client, generation } => self.not_named(client as Slot, generation),
            }
        }
        if self.order_queue.has_backlog() != self.watched {
            self.watched = !self.watched;
            let interest = if self.watched {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let fd = self.order_queue.channel().as_raw_fd();
            if let Err(e) = self.poll.registry().reregister(&mut SourceFd(&fd), CHANNEL, interest) {
                log::debug!("polling the orders channel: {e}");
            }
        }
    }

    /// Has the parent close sockets that can have descriptors in their queues.
    pub(super) fn return_sockets(&mut self) {
        while let Some(socket) = self.returned.next() {
            self.order_queue.request(&FromNet::Close, Peer::Nobody, socket.into());
            self.send_order(&FromNet::Close, None, &[]);
        }
    }

    /// Asks the parent for the name of a client's address, once.
    pub(super) fn ask_name(&mut self, slot: Slot) {
        self.watch(slot, Interest::READABLE);
        let Some(client) = self.clients.get(slot) else { return };
        if !matches!(client.name, NameLookup::NotAsked) {
            return;
        }
        client.name = NameLookup::Asked;
        let (generation, addresses) = (client.generation, client.addresses());
        let order = FromNet::Name { client: slot as u32, generation, addresses };
        let (peer, socket) = (client.peer, client.socket.as_fd());
        if self.order_queue.send(&order, Some(peer), &[socket]).is_err() {
            self.not_named(slot, generation);
        }
    }

    /// The parent has answered: the name of a client's address, or that there is none.
    pub(super) fn named(&mut self, slot: Slot, generation: u32, name: Named) {
        if let Some(client) = self.asks_name(slot, generation) {
            client.name = NameLookup::Answered(request::named(name));
            self.request(slot);
        }
    }

    /// The parent was not asked after all, and no answer will come.
    fn not_named(&mut self, slot: Slot, generation: u32) {
        if self.asks_name(slot, generation).is_some() {
            self.answer_and_close(slot, reply::BUSY.to_vec());
        }
    }

    /// The client for which the parent was asked for a name, if it still waits.
    fn asks_name(&mut self, slot: Slot, generation: u32) -> Option<&mut Client> {
        let client = self.clients.get(slot)?;
        let is_that = client.generation == generation && client.state == ClientState::Request;
        is_that.then_some(client)
    }

    pub(super) fn receive_orders(&mut self) -> io::Result<()> {
        let mut bytes = [0; ORDER];
        loop {
            // A client's socket that comes back must not be lost for want of a number.
            while !reserve::are_free(self.order_queue.channel(), FDS_MAX) {
                if !self.evict() {
                    self.orders_unread = true;
                    return Ok(());
                }
            }
            let (n, fds) = match message::receive(self.order_queue.channel(), &mut bytes) {
                Ok(got) => got,
                Err(e) => match Failed::of(&e) {
                    Failed::Full => return Ok(()),
                    Failed::Scarce => {
                        self.orders_unread = true;
                        return Ok(());
                    }
                    Failed::Gone => (0, Default::default()),
                    Failed::Broken => return Err(e),
                },
            };
            if n == 0 {
                // The parent is gone, or has nothing more to send. What runs is finished; no new
                // client is accepted.
                self.drain(true);
                self.phase = Phase::ParentGone;
                let fd = self.order_queue.channel().as_raw_fd();
                return self.poll.registry().deregister(&mut SourceFd(&fd));
            }
            let order = ToNet::accept(&bytes[..n], fds.count(), &()).ok_or_else(forbidden)?;
            self.carry_out(order, fds)?;
        }
    }

    /// Carries out one order, with the descriptors that came with it.
    fn carry_out(&mut self, order: ToNet, mut fds: Fds) -> io::Result<()> {
        let with = fds.take();
        with.iter().for_each(|fd| self.world.descriptors.note(fd));
        match (order, with) {
            (ToNet::Listener { tls_port }, Some(socket)) => {
                self.listen(socket.our_own(), tls_port)?
            }
            (ToNet::Refuse { service, why }, Some(socket)) => {
                self.refuse(socket, ServiceId(service), why)
            }
            (ToNet::Client { uid, login }, Some(socket)) => {
                self.local_client(socket, uid, login.map(logged_in))
            }
            (ToNet::Header, Some(socket)) => self.read_header(socket),
            (ToNet::Linger, Some(socket)) => self.answer_returned(socket, Vec::new()),
            (ToNet::Relays, Some(channel)) => self.relays(channel.our_own()),
            (
                ToNet::Header
                | ToNet::Linger
                | ToNet::Refuse { .. }
                | ToNet::Client { .. }
                | ToNet::Relays,
                None,
            ) if fds.lost() => log::debug!("no descriptor was left for what came with an order"),
            (ToNet::Name { client, generation, name }, None) => {
                self.named(client as Slot, generation, name)
            }
            (ToNet::Drain { last }, None) => self.drain(last),
            (ToNet::Ping, None) => drop(self.send_order(&FromNet::Pong, None, &[])),
            _ => return Err(forbidden()),
        }
        Ok(())
    }

    /// The parent could not start what the client asked for.
    pub(super) fn refuse(&mut self, socket: Shared, service: ServiceId, why: Why) {
        let bytes = request::not_started(&self.world, service, why);
        self.answer_returned(socket, bytes);
    }

    /// Sends an answer to a client whose socket had been given to the parent or a session, then
    /// closes it.
    pub(super) fn answer_returned(&mut self, socket: Shared, bytes: Vec<u8>) {
        let Some(peer) = peer_of(socket.as_fd()) else { return };
        let state = ClientState::Discard { left: DISCARD_BYTES };
        let slot = self.admit(socket, peer, state, self.now + DISCARD_TIME);
        self.answer_and_close(slot, bytes);
    }
}

/// What the parent knows of a user who is logged in from the beginning.
fn logged_in(known: KnownLogin) -> Login {
    let name = String::from_utf8_lossy(known.name.bytes()).into_owned();
    Login { name, groups: GroupSet(known.groups), superuser: known.superuser }
}

/// Who is at the other end. None: nobody any more.
pub(super) fn peer_of(socket: BorrowedFd) -> Option<Peer> {
    match socket::peer(socket) {
        Ok(address) => Some(address.into()),
        Err(e) if socket::is_of_another_family(&e) => local::peer_uid(socket).ok().map(Peer::User),
        Err(_) => None,
    }
}

fn forbidden() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the parent sent a forbidden order")
}
