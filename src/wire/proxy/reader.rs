//! The side that gets the header. What it is given is the beginning of what has come on a
//! connection; nothing is kept between two calls, and nothing is allocated.

use super::{COMMAND, SIGNATURE, TCP4, TCP6, UNSPECIFIED};
use crate::wire::orders::AddressPair;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bytes of a line of version 1 at most, its end included.
const LINE_MAX: usize = 107;
/// Bytes of version 2 before the part whose length they say.
const FIXED: usize = 16;
/// Bytes of that part at most: the addresses, and what else the proxy says.
const REST_MAX: usize = 4096;
/// Bytes of a header at most.
pub const READ_MAX: usize = FIXED + REST_MAX;

/// The first bytes of version 1.
const BEGIN: &[u8] = b"PROXY ";
/// Version 2, command LOCAL.
const LOCAL: u8 = 0x20;
/// A stream socket that has a path, and the bytes of its two addresses.
const UNIX: u8 = 0x31;
const UNIX_BYTES: usize = 216;

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// It may become a header.
    More,
    /// It is no header, whatever follows.
    Wrong,
    /// A header of that many bytes. `addresses`: the client's, and the one it connected to. None:
    /// the proxy connects for itself, or does not know for whom, so the connection's own count.
    Header { addresses: Option<AddressPair>, length: usize },
}

/// Reads a header. `bytes`: as much as has come, [`READ_MAX`] at most; what follows the header may
/// be among it.
pub fn read(bytes: &[u8]) -> Read {
    let begins = |with: &[u8]| {
        let n = with.len().min(bytes.len());
        bytes[..n] == with[..n]
    };
    if begins(BEGIN) {
        line(bytes)
    } else if begins(&SIGNATURE) {
        binary(bytes)
    } else {
        Read::Wrong
    }
}

fn line(bytes: &[u8]) -> Read {
    let part = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = part.iter().position(|b| *b == b'\n') else {
        return if part.len() == LINE_MAX { Read::Wrong } else { Read::More };
    };
    let text = part[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(BEGIN));
    let length = end + 1;
    let text = text.and_then(|t| std::str::from_utf8(t).ok());
    let addresses = match text.and_then(|t| t.split_once(' ').or(Some((t, "")))) {
        Some(("UNKNOWN", _)) => return Read::Header { addresses: None, length },
        Some(("TCP4", rest)) => both::<Ipv4Addr>(rest),
        Some(("TCP6", rest)) => both::<Ipv6Addr>(rest),
        _ => None,
    };
    whole(addresses, length)
}

/// `ADDRESS ADDRESS PORT PORT`, with one blank between two.
fn both<A: FromStr + Into<IpAddr>>(text: &str) -> Option<AddressPair> {
    let mut words = text.split(' ');
    let mut address = || Some(words.next()?.parse::<A>().ok()?.into());
    let (client, local): (IpAddr, IpAddr) = (address()?, address()?);
    let mut port = || words.next().and_then(port);
    let (client, local) = ((client, port()?), (local, port()?));
    let all = AddressPair { client: client.into(), local: local.into() };
    words.next().is_none().then_some(all)
}

/// A port without a sign, and without zeros before it.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn binary(bytes: &[u8]) -> Read {
    // A version or a command that there is not is refused as soon as it is there.
    let command = bytes.get(SIGNATURE.len()).copied();
    if command.is_some_and(|c| c != LOCAL && c != COMMAND) {
        return Read::Wrong;
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Read::More };
    let [.., family, high, low] = *fixed;
    let count = usize::from(u16::from_be_bytes([high, low]));
    let proxied = command == Some(COMMAND);
    // How many bytes the addresses are. What comes after them is skipped: the length says where
    // it ends. Of LOCAL nothing but the length counts.
    let needs = match family {
        _ if !proxied => 0,
        UNSPECIFIED => 0,
        TCP4 => 12,
        TCP6 => 36,
        UNIX => UNIX_BYTES,
        _ => return Read::Wrong,
    };
    if count > REST_MAX || count < needs {
        return Read::Wrong;
    }
    let Some(rest) = rest.get(..count) else { return Read::More };
    let length = FIXED + count;
    match family {
        TCP4 if proxied => whole(pair::<4>(rest), length),
        TCP6 if proxied => whole(pair::<16>(rest), length),
        _ => Read::Header { addresses: None, length },
    }
}

/// Two addresses of this many bytes each, and their ports.
fn pair<const N: usize>(rest: &[u8]) -> Option<AddressPair>
where
    IpAddr: From<[u8; N]>,
{
    let (client, rest) = rest.split_first_chunk::<N>()?;
    let (local, rest) = rest.split_first_chunk::<N>()?;
    let (client_port, rest) = rest.split_first_chunk::<2>()?;
    let (local_port, _) = rest.split_first_chunk::<2>()?;
    let at = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(AddressPair { client: at(client, client_port), local: at(local, local_port) })
}

/// A header with addresses that a client can have.
fn whole(addresses: Option<AddressPair>, length: usize) -> Read {
    match addresses.map(|a| a.canonical()) {
        Some(a) if a.client.ip().is_unspecified() || is_many(a.client.ip()) => Read::Wrong,
        Some(a) if a.local.ip().is_unspecified() || is_many(a.local.ip()) => Read::Wrong,
        None => Read::Wrong,
        addresses => Read::Header { addresses, length },
    }
}

/// Is it the address of more than one computer?
fn is_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::from(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests;
