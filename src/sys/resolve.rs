//! The name of an address (getnameinfo(3)).

use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The host name that the system's resolver has for an address, if that name has this address too: whoever owns an address
/// may say any name of it, but only a name's owner can say its addresses. Waits for the resolver.
pub fn name_of(address: IpAddr) -> Option<String> {
    let name = reverse(address)?;
    let confirmed = (name.as_str(), 0).to_socket_addrs().ok()?.any(|a| a.ip().to_canonical() == address.to_canonical());
    confirmed.then_some(name)
}

fn reverse(address: IpAddr) -> Option<String> {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage};
    let storage = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut host = [0u8; libc::NI_MAXHOST as usize];
    // SAFETY: the address is a valid sockaddr of the length given; the buffer is ours and of the length given; no service is
    // asked for.
    let failed = unsafe {
        libc::getnameinfo(storage.as_ptr(), storage.len(), host.as_mut_ptr().cast(), host.len() as u32, std::ptr::null_mut(), 0, libc::NI_NAMEREQD)
    };
    if failed != 0 {
        return None;
    }
    CStr::from_bytes_until_nul(&host).ok()?.to_str().ok().map(|n| n.trim_end_matches('.').to_ascii_lowercase())
}
