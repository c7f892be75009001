//! TCP connections that are pending, and the clients that wait for them. A client that breaks
//! its own connection ends its wait. Nothing of it is read, and one that has only finished sending
//! still waits for an answer.

use super::targets::Target;
use crate::parent::context::{Context, Timer};
use crate::sys::clock;
use crate::sys::dial;
use crate::sys::poll::{self, Poll};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One of them.
pub struct PendingConnection<T> {
    pub what: T,
    pub target: Target,
    pub socket: OwnedFd,
    until: Duration,
    /// The token of the client's own socket.
    client: Option<Token>,
}

/// How the wait for one has ended.
pub enum WaitEnd {
    Connected,
    Refused(io::Error),
    ClientGone,
}

/// Something that a client waits for.
pub trait Awaited {
    /// The client's own socket.
    fn client(&self) -> Option<BorrowedFd<'_>>;
}

/// See the module.
pub struct PendingConnections<T> {
    all: HashMap<Token, PendingConnection<T>>,
    /// Whose client has this token.
    clients: HashMap<Token, Token>,
}

impl<T> Default for PendingConnections<T> {
    fn default() -> PendingConnections<T> {
        PendingConnections { all: HashMap::new(), clients: HashMap::new() }
    }
}

impl<T: Awaited> PendingConnections<T> {
    pub fn has(&self, token: Token) -> bool {
        self.all.contains_key(&token) || self.clients.contains_key(&token)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.all.iter().map(|(token, w)| (*token, &w.what))
    }

    /// One is pending, for this long at most. Err: the poll does not take it.
    pub fn add(
        &mut self,
        cx: &mut Context,
        what: T,
        target: Target,
        socket: OwnedFd,
        timeout: Duration,
    ) -> Result<(), (T, io::Error)> {
        let token = cx.new_token();
        let fd = socket.as_raw_fd();
        if let Err(e) = cx.registry().register(&mut SourceFd(&fd), token, Interest::WRITABLE) {
            return Err((what, e));
        }
        let client = what.client().and_then(|client| {
            let token = cx.new_token();
            // That a connection is broken is always told.
            let (fd, least) = (client.as_raw_fd(), Interest::PRIORITY);
            cx.registry().register(&mut SourceFd(&fd), token, least).ok().map(|()| token)
        });
        if let Some(client) = client {
            self.clients.insert(client, token);
        }
        let until = clock::monotonic() + timeout;
        cx.at(until, Timer::ConnectLate { token });
        self.all.insert(token, PendingConnection { what, target, socket, until, client });
        Ok(())
    }

    /// The poll says something of a connection or of a client. None: nothing that matters.
    pub fn ready(
        &mut self,
        cx: &mut Context,
        token: Token,
    ) -> Option<(PendingConnection<T>, WaitEnd)> {
        if let Some(of) = self.clients.get(&token).copied() {
            let gone = self.all.get(&of)?.what.client().is_none_or(is_gone);
            return gone.then(|| self.take(cx, of)).flatten().map(|w| (w, WaitEnd::ClientGone));
        }
        let news = match dial::look(self.all.get(&token)?.socket.as_fd()) {
            Ok(true) => WaitEnd::Connected,
            Ok(false) => return None,
            Err(e) => WaitEnd::Refused(e),
        };
        self.take(cx, token).map(|w| (w, news))
    }

    /// Takes one. The poll must not know its descriptors then: others will have them for long.
    pub fn take(&mut self, cx: &mut Context, token: Token) -> Option<PendingConnection<T>> {
        let w = self.all.remove(&token)?;
        cx.cancel(w.until, Timer::ConnectLate { token });
        let forget = |fd: BorrowedFd| {
            if let Err(e) = cx.registry().deregister(&mut SourceFd(&fd.as_raw_fd())) {
                ::log::debug!("a connection that was waited for: {e}");
            }
        };
        forget(w.socket.as_fd());
        if let Some(client) = w.client {
            self.clients.remove(&client);
            w.what.client().into_iter().for_each(forget);
        }
        Some(w)
    }
}

fn is_gone(client: BorrowedFd) -> bool {
    let mut polls = [Poll::hangup(client)];
    poll::wait(&mut polls, Some(Duration::ZERO)).is_ok_and(|n| n > 0 && polls[0].hung())
}
