//! The request of a client that waits: looked at in its socket until its line is whole, and only
//! then taken out.
//!
//! A byte of a request may come as TCP urgent data (MSG_OOB, send(2)). A socket leaves such a byte
//! out of what is read, and every look stops in front of it. So where the poll tells of one, or a
//! request that is to be refused may lack one, the socket is told to have it in line. A look stops
//! there still: what is in front of it is taken out and kept with the client, at most a line. Who
//! sends no urgent byte costs no system call for it.
//!
//! A service gets its socket as from inetd, with the option off: an urgent byte after the request
//! is there for whoever asks for it. (One in front of a request that is allowed without it stays
//! out of band as well.)

use super::{Judged, Loop, Slot, Where, request, session};
use crate::net::clients::Client;
use crate::sys::{poll, socket};
use crate::wire::line::{Fed, Line};
use crate::wire::request::NAME_MAX;
use mio::Interest;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// The first byte of a TLS record that carries a handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// More than the longest line: a full buffer without a line's end is a line that is too long.
type Buffer = [u8; NAME_MAX + 3];

impl Loop {
    /// Looks whether the request is here.
    pub(super) fn request(&mut self, slot: Slot) {
        let mut bytes: Buffer = [0; NAME_MAX + 3];
        let Some(client) = self.clients.get(slot) else { return };
        let (peer, closed, client_name) = (client.peer, client.closed, client.name.clone());
        let n = match look(client, &mut bytes) {
            Ok(0) => return self.close(slot),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return self.watch(slot, Interest::READABLE);
            }
            Err(_) => return self.close(slot),
        };
        if bytes[0] == TLS_HANDSHAKE {
            return self.session(slot, session::First::Tls);
        }
        let mut line = Line::new(NAME_MAX);
        let facts = self.facts(peer, client_name);
        let (judged, text, taken) = match line.feed(&bytes[..n]) {
            Fed::More if closed => return self.close(slot),
            Fed::More => return self.watch(slot, Interest::READABLE),
            Fed::TooLong => (request::too_long(), &[][..], 0),
            Fed::Line { text, taken } => {
                (request::judge(&self.world, &facts, Where::Connection, text), text, taken)
            }
        };
        match judged {
            Judged::Help(bytes) => self.say(slot, bytes),
            Judged::Refuse { .. } if self.lacks_urgent(slot) => self.request(slot),
            Judged::Refuse { bytes, why } => {
                self.note(&facts, peer, why, text);
                self.say(slot, bytes);
            }
            Judged::Builtin(b) => {
                if self.take_line(slot, taken) {
                    self.session(slot, session::First::Builtin(b));
                }
            }
            Judged::LookUp => self.ask_name(slot),
            Judged::Start(service) => {
                if self.take_line(slot, taken) {
                    self.start(slot, service, facts.host);
                }
            }
        }
    }

    /// May the request that was looked at lack an urgent byte, its first? Then it is looked at
    /// again; true once for a client.
    fn lacks_urgent(&mut self, slot: Slot) -> bool {
        let Some(client) = self.clients.get(slot) else { return false };
        let lacks = client.urgent.is_none() && poll::is_urgent(client.socket.as_fd());
        if lacks {
            take_urgent(client);
        }
        lacks
    }

    /// Takes the line that was looked at out of the socket. False: the client went.
    fn take_line(&mut self, slot: Slot, taken: usize) -> bool {
        let mut bytes: Buffer = [0; NAME_MAX + 3];
        let took = self.clients.get(slot).is_some_and(|c| {
            let left = taken - c.urgent.as_ref().map_or(0, Vec::len);
            socket::receive(c.socket.as_fd(), &mut bytes[..left]).is_ok_and(|n| n == left)
        });
        if !took {
            self.close(slot);
        }
        took
    }
}

/// Has urgent bytes in line with the others from now on.
pub(super) fn take_urgent(client: &mut Client) {
    if client.urgent.is_none() {
        if let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), true) {
            log::debug!("urgent data: {e}");
        }
        client.urgent = Some(Vec::new());
    }
}

/// The socket is a service's from now on: as [`take_urgent`] found it.
pub(super) fn leave_urgent(client: &mut Client) {
    if client.urgent.take().is_some()
        && let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), false)
    {
        log::debug!("urgent data: {e}");
    }
}

/// What has come of the request, and perhaps what follows it; 0: the client has finished. Where an
/// urgent byte came: only once the line is whole, or too long.
fn look(client: &mut Client, bytes: &mut Buffer) -> io::Result<usize> {
    let fd = client.socket.as_fd();
    let Some(head) = &mut client.urgent else { return socket::peek(fd, bytes) };
    loop {
        let held = head.len();
        bytes[..held].copy_from_slice(head);
        let new = socket::peek(fd, &mut bytes[held..])?;
        let all = held + new;
        let over = all == bytes.len() || bytes[0] == TLS_HANDSHAKE;
        if new == 0 || over || bytes[held..all].contains(&b'\n') {
            return Ok(if new == 0 { 0 } else { all });
        }
        let took = socket::receive(fd, &mut bytes[held..all])?;
        head.extend_from_slice(&bytes[held..held + took]);
    }
}
