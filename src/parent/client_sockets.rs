//! Between whom a connection is that a net process has handed over. The parent never waits for its
//! socket's lock, which whoever has the socket too can keep: net says the addresses, and the kernel
//! confirms them without the lock (`sys::inet_diag`). What it does not confirm is asked for by a
//! process beside this one (`sys::bounded_calls`): Multipath TCP, a client that has gone, a socket
//! of another network namespace, a kernel that cannot say.

use super::channel::Broken;
use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::inet_diag::InetDiag;
use crate::sys::{origin_mark, socket};
use crate::wire::orders::AddressPair;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// A call that takes longer than this waits for somebody who keeps a lock.
const HELD_UP_MAX: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub struct ClientSockets {
    diag: Option<InetDiag>,
    /// The network namespaces that clients can come from: this process's own, and those of sockets
    /// that the service manager has handed over.
    networks: Vec<u64>,
}

impl ClientSockets {
    /// `networks`: those of such sockets.
    pub fn new(networks: impl Iterator<Item = u64>) -> ClientSockets {
        let networks = networks.chain(socket::own_network()).collect();
        ClientSockets { diag: InetDiag::open(), networks }
    }

    /// The addresses of an internet connection. `said`: as net says them; `calls`: that net's.
    /// None: the client has gone. Err: it is no client's, because the parent itself has connected
    /// it, or it was made elsewhere. (Any user of the computer can make one in a network namespace
    /// of their own, between any addresses, and hand it to a net process that they control.)
    pub fn addresses(
        &mut self,
        calls: &mut BoundedCalls,
        connection: BorrowedFd,
        said: Option<AddressPair>,
    ) -> Result<Option<AddressPair>, Broken> {
        let confirms = |said: &AddressPair| {
            let diag = self.diag.as_ref();
            diag.is_some_and(|diag| diag.is_between(connection, said.client, said.local))
        };
        if let Some(said) = said.filter(confirms) {
            let ours = origin_mark::is_set(connection);
            return if ours { Err(Broken::Forbidden) } else { Ok(Some(said)) };
        }
        if !socket::is_stream(connection) {
            return Err(Broken::Forbidden);
        }
        let asked = calls.make(&[connection], |with| {
            let with = with[0];
            (socket::peer(with), socket::local(with), origin_mark::is_set(with))
        });
        let Some((peer, local, ours)) = asked else {
            let kept = calls.held_up_for() > HELD_UP_MAX;
            return if kept { Err(Broken::Forbidden) } else { Ok(None) };
        };
        let network = socket::network(connection);
        if ours || network.is_some_and(|n| !self.networks.contains(&n)) {
            return Err(Broken::Forbidden);
        }
        let own = peer.ok().zip(local.ok()).map(|(client, local)| AddressPair { client, local });
        Ok(own)
    }
}
