//! Peeks at a request in its client's socket, urgent bytes included.
//!
//! A byte of a request may come as TCP urgent data (MSG_OOB, send(2)). A socket leaves such a byte
//! out of what is read, and every peek stops in front of it. So where the poll reports one, or a
//! request that would be refused may lack one, the socket is told to keep it in line
//! (SO_OOBINLINE). A peek still stops there: what comes before the byte is read and kept with the
//! client, one line at most. A client that sends no urgent byte costs no system call for this.
//!
//! Where a client can send descriptors ([`Client::sends_rights`]), urgent bytes are kept in line
//! from the beginning, so that a peek finds what came with them.
//!
//! A service gets its socket as from inetd, with the option off: it can receive an urgent byte
//! after the request in its own way. (An urgent byte before a request that
//! is allowed without it stays out of band, too.)

use crate::net::clients::Client;
use crate::sys::{passed_rights, socket};
use crate::wire::request::NAME_MAX;
use std::io;
use std::os::fd::AsFd;

/// The first byte of a TLS record that carries a handshake (RFC 8446, 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// Longer than the longest line: a full buffer without a line end is a line that is too long.
pub(super) type Buffer = [u8; NAME_MAX + 3];

/// From now on urgent bytes are read in line with the others.
pub(super) fn receive_inline(client: &mut Client) {
    if client.urgent.is_none() {
        if let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), true) {
            log::debug!("SO_OOBINLINE: {e}");
        }
        client.urgent = Some(Vec::new());
    }
}

/// The socket goes to a service: undoes [`receive_inline`].
pub(super) fn restore(client: &mut Client) {
    if client.urgent.take().is_some()
        && let Err(e) = socket::set_urgent_inline(client.socket.as_fd(), false)
    {
        log::debug!("SO_OOBINLINE: {e}");
    }
}

/// What has come of the request, and perhaps what follows it; 0: the client has finished. After
/// [`receive_inline`] it returns only when the line is complete, or too long. Errors: also that
/// descriptors have come with it.
pub(super) fn peek(client: &mut Client, bytes: &mut Buffer) -> io::Result<usize> {
    let look = if client.sends_rights() { passed_rights::peek } else { socket::peek };
    let fd = client.socket.as_fd();
    let Some(head) = &mut client.urgent else { return look(fd, bytes) };
    loop {
        let held = head.len();
        bytes[..held].copy_from_slice(head);
        let new = look(fd, &mut bytes[held..])?;
        let all = held + new;
        let over = all == bytes.len() || bytes[0] == TLS_HANDSHAKE;
        if new == 0 || over || bytes[held..all].contains(&b'\n') {
            return Ok(if new == 0 { 0 } else { all });
        }
        let took = socket::receive(fd, &mut bytes[held..all])?;
        head.extend_from_slice(&bytes[held..held + took]);
    }
}
