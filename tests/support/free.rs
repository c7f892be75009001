//! Ports and addresses that nobody has, for those who must name one before it is listened at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// One that the system gives to nobody who asks for any, neither to a listener at port 0 nor to a
/// client: below its range of these (ip_local_port_range in ip(7)). No other test has it, and hardly
/// another run.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let next = || 20_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
    let nobodys = |port: &u16| {
        let at = |ip: IpAddr| TcpListener::bind((ip, *port)).and(UdpSocket::bind((ip, *port)));
        match at(Ipv6Addr::UNSPECIFIED.into()) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
                at(Ipv4Addr::UNSPECIFIED.into()).is_ok()
            }
            bound => bound.is_ok(),
        }
    };
    let all = std::iter::repeat_with(|| next() as u16);
    all.take(12_000).find(nobodys).expect("a free port below the system's own range")
}

/// One at 127.0.0.1.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// The first three numbers of addresses of the loopback that no other test program has, and hardly
/// another run: for those who must have a certain port there.
pub fn own_network() -> String {
    let [.., second, third] = std::process::id().to_be_bytes();
    format!("127.{}.{third}", second | 128)
}
