//! Datagrams that are answered from the address that they were sent to (ip(7), ipv6(7)).
//!
//! A socket that is bound to every address would answer from the one that the route chooses, and
//! the client would not take that for its answer.

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of what the kernel writes to a datagram besides (cmsg(3)), as far as there is room: with
/// every option of IPv4 that a program can have set (2.5 KiB of headers more may come with IPv6).
pub const CONTROL_MAX: usize = 1024;

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    pub from: SocketAddr,
    /// Where it was sent to. On an IPv6 socket IPv4 addresses are mapped ones, here and in `from`.
    pub to: IpAddr,
}

/// From now on [`receive`] learns where a datagram was sent to, also where it has arrived already.
pub fn note_destinations(socket: BorrowedFd) -> io::Result<()> {
    match local(socket)? {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        // On such a socket this holds for IPv4, too.
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// The next datagram. Errors: `WouldBlock`, there is none; `InvalidData`, it came before
/// [`note_destinations`]; others: an error that came for an earlier answer.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = vec![0; CONTROL_MAX];
    let mut parts = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let got = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
    let to = got.cmsgs()?.find_map(|c| match c {
        // Not `ipi_spec_dst`: that is unknown of a datagram that came before the option was set.
        ControlMessageOwned::Ipv4PacketInfo(i) => {
            Some(Ipv4Addr::from_bits(u32::from_be(i.ipi_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(i) => Some(Ipv6Addr::from(i.ipi6_addr.s6_addr).into()),
        _ => None,
    });
    let from = got.address.as_ref().and_then(internet);
    let (from, to) = from.zip(to).ok_or(ErrorKind::InvalidData)?;
    Ok(Received { length: got.bytes, from, to })
}

/// Answers a datagram, from the address that it was sent to. Errors: the system's, EINVAL if that
/// address is no single computer's, such as the broadcast address of a network.
pub fn answer(socket: BorrowedFd, bytes: &[u8], asked: &Received) -> io::Result<()> {
    let (parts, to) = ([IoSlice::new(bytes)], SockaddrStorage::from(asked.from));
    let send = |source: ControlMessage| {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg(socket.as_raw_fd(), &parts, &[source], flags, Some(&to))
    };
    // The interface is the one that the route, or a link-local address of the client, says.
    match asked.to {
        IpAddr::V4(ip) => {
            let address = |ip: Ipv4Addr| libc::in_addr { s_addr: ip.to_bits().to_be() };
            send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address(ip),
                ipi_addr: address(Ipv4Addr::UNSPECIFIED),
            }))
        }
        IpAddr::V6(ip) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
            ipi6_ifindex: 0,
        })),
    }?;
    Ok(())
}

fn local(socket: BorrowedFd) -> io::Result<SocketAddr> {
    let address: SockaddrStorage = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    internet(&address).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// As the socket has it: a mapped address stays one.
fn internet(a: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = a.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()));
    v4.or_else(|| a.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn an_answer_comes_from_where_the_datagram_was_sent_to() {
        for (bound, asked) in
            [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.2"), ("[::]:0", "::1")]
        {
            let Ok(s) = UdpSocket::bind(bound) else { continue };
            let to: IpAddr = asked.parse().expect("an address");
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let c = UdpSocket::bind(any).expect("bind");
            let to = SocketAddr::new(to, s.local_addr().expect("bound").port());
            if c.connect(to).is_err() {
                continue;
            }
            // It arrives before the option is set.
            c.send(b"early").expect("send");
            note_destinations(s.as_fd()).expect("set");
            let mut buffer = [0; 9];
            let got = receive(s.as_fd(), &mut buffer).expect("a datagram");
            assert_eq!((got.length, got.to.to_canonical()), (5, to.ip()), "{bound}");
            answer(s.as_fd(), &buffer[..5], &got).expect("answer");
            assert_eq!(c.recv(&mut buffer).expect("answer"), 5);
            let none = receive(s.as_fd(), &mut buffer).map_err(|e| e.kind());
            assert_eq!(none, Err(ErrorKind::WouldBlock));
        }
    }
}
