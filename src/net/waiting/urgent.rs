//! Looks at a request in its client's socket, urgent bytes too.
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

use crate::net::clients::Client;
use crate::sys::socket;
use crate::wire::request::NAME_MAX;
use std::io;
use std::os::fd::AsFd;

/// The first byte of a TLS record that carries a handshake (RFC 8446, 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// More than the longest line: a full buffer without a line's end is a line that is too long.
pub(super) type Buffer = [u8; NAME_MAX + 3];

/// Has urgent bytes in line with the others from now on.
pub(super) fn receive_inline(client: &mut Client) {
    if client.urgent.is_none() {
        if let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), true) {
            log::debug!("urgent data: {e}");
        }
        client.urgent = Some(Vec::new());
    }
}

/// The socket is a service's from now on: as [`receive_inline`] found it.
pub(super) fn restore(client: &mut Client) {
    if client.urgent.take().is_some()
        && let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), false)
    {
        log::debug!("urgent data: {e}");
    }
}

/// What has come of the request, and perhaps what follows it; 0: the client has finished. Where an
/// urgent byte came: only once the line is whole, or too long.
pub(super) fn peek(client: &mut Client, bytes: &mut Buffer) -> io::Result<usize> {
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
