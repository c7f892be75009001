//! Between whom a connection is, as the parent knows it from the connection's own socket: it
//! believes no process that reads what strangers send.

use crate::sys::local::{self, Credentials};
use crate::wire::peer::Peer;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// See the module.
#[derive(Debug, Clone)]
pub enum Addresses {
    /// The client's address, and this computer's that it connected to; both canonical.
    Internet { peer: SocketAddr, local: SocketAddr },
    /// A client that connected to a Unix socket.
    Unix(Rc<UnixClient>),
    /// The program gets the socket itself and accepts its clients by itself (`wait`). Its address;
    /// None: a Unix socket.
    Listener(Option<SocketAddr>),
}

/// A process that connected to a Unix socket.
#[derive(Debug)]
pub struct UnixClient {
    /// The user and group that it ran as when it connected.
    pub ran_as: Credentials,
    /// Where its own socket is. None: nowhere.
    pub path: Option<Vec<u8>>,
}

impl Addresses {
    /// Those of a Unix socket's connection that a net process has handed over. `own_paths`: those
    /// where fived itself listens, of each table under which the client can have come. Errors: it
    /// did not come to one of these, or the system's. `InvalidInput`: it is no client's. (A net
    /// process can make pairs of Unix sockets, and be its own client.)
    pub fn of_own_path(connection: BorrowedFd, own_paths: &[&[String]]) -> io::Result<Addresses> {
        let ours = |path: &Vec<u8>| {
            own_paths.iter().flat_map(|of| of.iter()).any(|d| d.as_bytes() == path)
        };
        match local::own_path(connection) {
            Some(path) if ours(&path) => Addresses::of_unix(connection),
            Some(_) => Err(io::ErrorKind::NotFound.into()),
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Those of a connection that the parent has accepted at a Unix socket.
    pub fn of_unix(connection: BorrowedFd) -> io::Result<Addresses> {
        let ran_as = local::credentials(connection)?;
        Ok(Addresses::Unix(Rc::new(UnixClient { ran_as, path: local::peer_path(connection) })))
    }

    /// The client, as rules, limits and the log know it.
    pub fn peer(&self) -> Peer {
        match self {
            Addresses::Internet { peer, .. } => (*peer).into(),
            Addresses::Unix(client) => Peer::User(client.ran_as.uid),
            Addresses::Listener(_) => Peer::Nobody,
        }
    }

    /// The client's address, and this computer's. None: not of the internet.
    pub fn internet(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Addresses::Internet { peer, local } => Some((*peer, *local)),
            Addresses::Unix(_) | Addresses::Listener(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_net_process_cannot_be_a_client_of_its_own() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let path = std::env::temp_dir().join(format!("fived-addresses-{}", std::process::id()));
        let own_paths = [path.to_str().expect("text").to_string()];
        assert!(Addresses::of_own_path(ours.as_fd(), &[&own_paths[..]]).is_err());
        let listener = UnixListener::bind(&path).expect("bind");
        let _client = UnixStream::connect(&path).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        std::fs::remove_file(&path).expect("remove");
        assert!(Addresses::of_own_path(accepted.as_fd(), &[]).is_err());
        let uid = crate::sys::identity::effective_uid();
        let found = Addresses::of_own_path(accepted.as_fd(), &[&own_paths[..]]).expect("a client");
        assert_eq!((found.peer(), found.internet()), (Peer::User(uid), None));
    }
}
