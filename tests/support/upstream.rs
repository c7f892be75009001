//! Servers that run already, for redirected services: each connection in a thread of its own.

#![allow(dead_code)] // Each test file uses its own part of this.

use super::support::TIMEOUT;
use nix::sys::socket::Backlog;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

/// More connections at a time than any test makes.
const BACKLOG: i32 = 4096;

/// One that does this with each connection, on a free port of the loopback.
pub fn tcp(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    tcp_at("127.0.0.1:0", serve)
}

fn tcp_at(address: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a port");
    // Of a flood that its queue has no room for the kernel may forget connections that the other
    // side takes for made (tcp_syncookies, tcp(7)), and nobody would ever send anything on them.
    nix::sys::socket::listen(&listener, Backlog::new(BACKLOG).expect("a number")).expect("listen");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The same at a path, with that mode.
pub fn unix(path: &str, mode: u32, serve: impl Fn(UnixStream) + Clone + Send + 'static) {
    use std::os::unix::fs::PermissionsExt;
    let listener = UnixListener::bind(path).expect("a socket");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            std::thread::spawn(move || serve(stream));
        }
    });
}

/// Says its name, reads to the end, says how much that was, and ends: a half-close each way.
pub fn counts(name: &'static str) -> SocketAddr {
    at("127.0.0.1:0", name)
}

/// The same at that address.
pub fn at(address: &str, name: &'static str) -> SocketAddr {
    tcp_at(address, move |mut s| {
        let _ = s.write_all(format!("this is {name}\n").as_bytes());
        let mut all = Vec::new();
        let _ = s.read_to_end(&mut all);
        let _ = s.write_all(
            format!("{} bytes: {}", all.len(), String::from_utf8_lossy(&all)).as_bytes(),
        );
    })
}

/// Says back what it hears.
pub fn echo() -> SocketAddr {
    tcp(|mut s| {
        let mut half = s.try_clone().expect("a copy");
        let _ = std::io::copy(&mut half, &mut s);
    })
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    super::support::free_address()
}
