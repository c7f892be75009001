//! The name of an address (getnameinfo(3)), and the addresses of a name (getaddrinfo(3)).

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The host name that the resolver gives for an address, if the name has this address, too: the
/// owner of an address can give it any name, but only the owner of a name can give it an address.
/// Waits for the resolver. Errors: it did not answer, neither with a name nor that there is none.
pub fn name_of(address: IpAddr) -> io::Result<Option<String>> {
    let Some(name) = reverse(address)? else { return Ok(None) };
    let confirmed = (name.as_str(), 0)
        .to_socket_addrs()?
        .any(|a| a.ip().to_canonical() == address.to_canonical());
    Ok(confirmed.then_some(name))
}

/// The addresses that the system's resolver has for a host, each once. Waits for the resolver.
/// Errors: it gave none.
pub fn addresses_of(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    for address in (name, 0).to_socket_addrs()? {
        let ip = address.ip();
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    Ok(all)
}

fn reverse(address: IpAddr) -> io::Result<Option<String>> {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage};
    let storage = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut host = [0u8; libc::NI_MAXHOST as usize];
    // SAFETY: the address is a valid sockaddr of the length given; the buffer is ours and of the
    // length given; no service is asked for.
    let failed = unsafe {
        libc::getnameinfo(
            storage.as_ptr(),
            storage.len(),
            host.as_mut_ptr().cast(),
            host.len() as u32,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    match failed {
        0 => {}
        libc::EAI_NONAME => return Ok(None),
        e => return Err(io::Error::other(format!("getnameinfo: error {e}"))),
    }
    let name = CStr::from_bytes_until_nul(&host).ok().and_then(|n| n.to_str().ok());
    Ok(name.map(|n| n.trim_end_matches('.').to_ascii_lowercase()))
}
