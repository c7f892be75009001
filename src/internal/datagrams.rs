//! The internal services as rows of `dgram`: one process for as long as datagrams arrive, or, where
//! the parent decides about each sender, one for what the first sender in the queue has sent.
//!
//! They cannot be made to send more than was sent to them, nor to answer one another: an answer is
//! never longer than its request, and nothing is sent to the ports of services that answer
//! everything, nor to addresses that are many hosts', nor where such an address was asked. It comes
//! from the address that was asked.

use super::rfcs::{PRINTABLE, time};
use crate::sys::poll::{self, Poll};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, datagram, queue_head, socket};
use crate::wire::internal::Internal;
use std::io::{self, Stdin};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// After this time without a datagram the process ends.
const IDLE: Duration = Duration::from_secs(60);
/// Services that answer whatever they are sent: echo, daytime, qotd, chargen, time. Port 0 is
/// nobody's.
const ANSWERING: [u16; 6] = [0, 7, 13, 17, 19, 37];
/// Bytes of a datagram.
const LARGEST: usize = 65_536;
/// Bytes of chargen's answer (RFC 864).
const CHARGEN_MAX: usize = 512;

/// Is the standard input a socket of datagrams?
pub fn are_served() -> bool {
    socket::is_datagram(io::stdin().as_fd())
}

/// Answers until nothing has arrived for [`IDLE`], or until SIGTERM: what the parent sends when it
/// ends, or has another table. What has arrived by then and was not read stays in the queue.
pub fn serve(service: Internal) -> io::Result<()> {
    // Never dropped: that would let the signal end the process, which has its own end.
    let stop = ManuallyDrop::new(Signals::new(&[Signal::TERM])?);
    let mut server = Server::new(service)?;
    loop {
        let mut both = [Poll::new(server.0.as_fd(), true, false), Poll::readable_of(&*stop)];
        if poll::wait(&mut both, Some(IDLE))? == 0 || both[1].readable() {
            return Ok(());
        }
        server.next();
    }
}

/// Answers what its first sender has sent, this many datagrams at most, and waits for nothing: the
/// parent has decided about that sender, and decides about whoever is next in the queue.
pub fn serve_one_sender(service: Internal, most: u32) -> io::Result<()> {
    let mut server = Server::new(service)?;
    let mut sender = None;
    for _ in 0..most {
        match queue_head::datagram(server.0.as_fd()) {
            Ok(Some(next)) if *sender.get_or_insert(next.from.ip()) == next.from.ip() => {
                server.next();
            }
            Ok(_) => break,
            // It came for an earlier answer.
            Err(_) => {}
        }
    }
    Ok(())
}

/// The socket, the service, and where a datagram is read into.
struct Server(Stdin, Internal, Vec<u8>);

impl Server {
    fn new(service: Internal) -> io::Result<Server> {
        let input = io::stdin();
        datagram::note_destinations(input.as_fd())?;
        Ok(Server(input, service, vec![0; LARGEST]))
    }

    /// Answers the next datagram, if there is one that may be answered.
    fn next(&mut self) {
        let Server(socket, service, buffer) = self;
        // An error came for an earlier answer, or the datagram was damaged.
        let Ok(asked) = datagram::receive(socket.as_fd(), buffer) else { return };
        let request = &buffer[..asked.length];
        let may = may_get(asked.from) && !is_many(asked.to);
        if let Some(answer) = answer(*service, request).filter(|a| a.len() <= request.len() && may)
        {
            // A client that cannot be reached has no answer. Nor does the system send one from, or
            // to, the broadcast address of a network.
            let _ = datagram::answer(socket.as_fd(), &answer, &asked);
        }
    }
}

fn answer(service: Internal, request: &[u8]) -> Option<Vec<u8>> {
    match service {
        Internal::Echo => Some(request.to_vec()),
        Internal::Chargen => Some(characters(request.len().min(CHARGEN_MAX))),
        Internal::Daytime => Some(format!("{}\r\n", clock::daytime()).into_bytes()),
        Internal::Time => Some(time().to_be_bytes().to_vec()),
        Internal::Discard | Internal::Status | Internal::Metrics => None,
    }
}

/// RFC 864's characters, this many.
fn characters(n: usize) -> Vec<u8> {
    (0..n).map(|i| b' ' + (i % usize::from(PRINTABLE)) as u8).collect()
}

/// May an answer be sent there?
fn may_get(a: SocketAddr) -> bool {
    !is_many(a.ip()) && !ANSWERING.contains(&a.port())
}

/// Is it no single host's address?
fn is_many(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_longer_than_its_request_and_none_goes_to_who_answers_all() {
        assert_eq!(answer(Internal::Echo, b"abc"), Some(b"abc".to_vec()));
        assert_eq!(answer(Internal::Chargen, b"abc").map(|a| a.len()), Some(3));
        assert_eq!(answer(Internal::Chargen, &[0; 9000]).map(|a| a.len()), Some(CHARGEN_MAX));
        assert!(answer(Internal::Discard, b"abc").is_none());
        for port in [0, 7, 13, 17, 19, 37] {
            assert!(!may_get(([10, 0, 0, 1], port).into()), "{port}");
        }
        for bad in
            ["255.255.255.255:9999", "224.0.0.1:9999", "[ff02::1]:9999", "[::ffff:224.0.0.1]:9999"]
        {
            assert!(!may_get(bad.parse().expect("an address")), "{bad}");
        }
        assert!(may_get("10.0.0.1:9999".parse().expect("an address")));
    }
}
