//! The parent's end of a channel: orders in, answers out, never waiting for the other end.

use crate::sys::message::{self, Fds};
use crate::sys::socket;
use crate::wire::orders::{Message, ORDER};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Answers that the other end has yet to take, at most. One that asks without reading is ended.
const HELD_MAX: usize = 4096;

/// Why a channel is of no more use.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other end has gone.
    Closed,
    /// It said what is no order.
    Nonsense,
}

pub struct Channel {
    fd: OwnedFd,
    token: Token,
    held: VecDeque<([u8; ORDER], Option<OwnedFd>)>,
}

impl Channel {
    pub fn new(fd: OwnedFd, token: Token, registry: &Registry) -> io::Result<Channel> {
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Channel { fd, token, held: VecDeque::new() })
    }

    /// The next order. None: there is none now.
    pub fn receive<M: Message>(&self) -> Result<Option<(M, Fds)>, Broken> {
        let mut bytes = [0; ORDER];
        match message::receive_message(self.fd.as_fd(), &mut bytes, false) {
            Ok((0, _)) => Err(Broken::Closed),
            Ok((n, fds)) => M::decode(&bytes[..n]).map(|m| Some((m, fds))).ok_or(Broken::Nonsense),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(Broken::Nonsense),
            Err(_) => Err(Broken::Closed),
        }
    }

    /// Says something, now or as soon as the other end reads.
    pub fn send(&mut self, registry: &Registry, answer: &impl Message, with: Option<BorrowedFd>) -> Result<(), Broken> {
        let bytes = answer.encode();
        if self.held.is_empty() {
            match message::send_message(self.fd.as_fd(), &bytes, with.as_slice(), false) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.watch(registry, true)?,
                // Gone: what it said before is still to be read, and then its end.
                Err(_) => return Ok(()),
            }
        }
        if self.held.len() >= HELD_MAX {
            return Err(Broken::Nonsense);
        }
        let with = with.map(|fd| fd.try_clone_to_owned()).transpose().map_err(|_| Broken::Closed)?;
        self.held.push_back((bytes, with));
        Ok(())
    }

    /// Nothing more will be said: the other end hears so once it has read all that was. False: some of that is still held.
    pub fn finish(&self) -> bool {
        if self.held.is_empty() {
            // One that is gone has heard enough.
            let _ = socket::shutdown_write(self.fd.as_fd());
        }
        self.held.is_empty()
    }

    /// Says what was held, as far as the other end takes it.
    pub fn flush(&mut self, registry: &Registry) -> Result<(), Broken> {
        if self.held.is_empty() {
            return Ok(());
        }
        while let Some((bytes, with)) = self.held.front() {
            match message::send_message(self.fd.as_fd(), bytes, with.as_ref().map(AsFd::as_fd).as_slice(), false) {
                Ok(()) => drop(self.held.pop_front()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => self.held.clear(),
            }
        }
        self.watch(registry, false)
    }

    fn watch(&self, registry: &Registry, writable: bool) -> Result<(), Broken> {
        let interest = if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        registry.reregister(&mut SourceFd(&self.fd.as_raw_fd()), self.token, interest).map_err(|_| Broken::Closed)
    }
}
