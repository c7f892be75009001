//! TLS on one side, a service's socket on the other: one thread copies both ways and never waits in
//! a write.

use super::transport::{Encrypted, End};
use crate::sys::poll::{self, Poll};
use crate::sys::socket;
use std::io::{BufRead, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes that are taken from the service at once.
const TAKE: usize = 128 * 1024;
/// How long the buffer is kept when nothing moves.
const LINGER: Duration = Duration::from_millis(50);

struct Relay<'a> {
    client: &'a mut Encrypted,
    service: &'a OwnedFd,
    buffer: Vec<u8>,
    /// The service has finished; so has the client.
    service_done: bool,
    client_done: bool,
    /// The service takes no more.
    deaf: bool,
    /// The service's socket was full.
    full: bool,
    to: u64,
    from: u64,
}

/// Relays until both have finished, or one is gone. Returns why, the bytes to the service, and
/// those from it.
pub fn run(client: &mut Encrypted, service: &OwnedFd) -> (End, u64, u64) {
    let mut r = Relay {
        client,
        service,
        buffer: Vec::new(),
        service_done: false,
        client_done: false,
        deaf: false,
        full: false,
        to: 0,
        from: 0,
    };
    let end = r.run().err().unwrap_or(End::Closed);
    if end != End::Closed {
        // What was cut off must not look like an end.
        socket::cut(service.as_fd());
    }
    (end, r.to, r.from)
}

impl Relay<'_> {
    fn run(&mut self) -> Result<(), End> {
        // What came with the handshake may be all there is.
        self.feed_service()?;
        loop {
            let sent = self.client.give_out()?;
            if self.service_done && sent && (self.client_done && !self.full || self.deaf) {
                return Ok(());
            }
            let (client, service) = (
                Poll::new(
                    self.client.socket.as_fd(),
                    !self.full && !self.client.eof && !self.client_done,
                    !sent,
                ),
                Poll::new(self.service.as_fd(), !self.service_done && sent, self.full),
            );
            // A service that has finished and then goes for good is noticed by its hanging up.
            let service = if self.service_done && !self.full && !self.deaf {
                Poll::hangup(self.service.as_fd())
            } else {
                service
            };
            let mut polls = [client, service];
            let linger = (!self.buffer.is_empty()).then_some(LINGER);
            if poll::wait(&mut polls, linger).map_err(|_| End::System)? == 0 {
                self.buffer = Vec::new();
                continue;
            }
            let [c, s] = polls;
            let (client_speaks, service_takes, service_speaks, service_gone) =
                (c.readable(), s.writable(), s.readable(), s.hung());
            if client_speaks {
                self.client.take_in()?;
                self.feed_service()?;
            } else if service_takes {
                self.full = false;
                self.feed_service()?;
            }
            if service_speaks {
                self.hear_service()?;
            }
            if self.service_done && service_gone {
                self.deaf = true;
            }
        }
    }

    /// Gives the service what the client has said.
    fn feed_service(&mut self) -> Result<(), End> {
        while !self.full && !self.client_done {
            let sent = !self.client.tls.wants_write();
            let mut reader = self.client.tls.reader();
            let bytes = match reader.fill_buf() {
                Ok([]) => {
                    self.client_done = true;
                    // It may be gone already.
                    let _ = socket::shutdown_write(self.service.as_fd());
                    return Ok(());
                }
                Ok(bytes) => bytes,
                Err(e) if e.kind() == ErrorKind::WouldBlock && !self.client.eof => return Ok(()),
                Err(_) if self.service_done && sent => {
                    // The client has all that the service had to say, and went. That is no
                    // truncation; a service that still reads is told all the same that this was no
                    // end in order.
                    self.deaf = true;
                    socket::cut(self.service.as_fd());
                    return Ok(());
                }
                Err(_) => return Err(End::Truncated),
            };
            let n = match self
                .deaf
                .then_some(bytes.len())
                .map_or_else(|| socket::send(self.service.as_fd(), bytes), Ok)
            {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.full = true;
                    return Ok(());
                }
                Err(_) => {
                    // Nobody reads any more: the rest is thrown away.
                    self.deaf = true;
                    bytes.len()
                }
            };
            reader.consume(n);
            self.to += if self.deaf { 0 } else { n as u64 };
        }
        Ok(())
    }

    /// Encrypts what the service has said.
    fn hear_service(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; TAKE];
        }
        let n = match socket::receive(self.service.as_fd(), &mut self.buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        if n == 0 {
            self.service_done = true;
            socket::acknowledge(self.service.as_fd());
            self.client.tls.send_close_notify();
            return Ok(());
        }
        self.from += n as u64;
        self.client.tls.writer().write_all(&self.buffer[..n]).map_err(|_| End::Broken)
    }
}
