//! Ports that nobody has, for those who must name one before it is listened at.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// One that the system gives to nobody who asks for any, neither to a listener at port 0 nor to a
/// client: below its range of these (ip_local_port_range in ip(7)). No other test has it, and hardly
/// another run.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let next = || 20_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
    let nobodys = |port: &u16| {
        let any = (Ipv6Addr::UNSPECIFIED, *port);
        TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok()
    };
    let all = std::iter::repeat_with(|| next() as u16);
    all.take(12_000).find(nobodys).expect("a free port below the system's own range")
}

/// One at 127.0.0.1.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
