//! A client or a server that has vanished, its power cut, occupies nobody for ever: the kernel asks
//! whether it is still there.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::net::{TcpListener, TcpStream};
use support::*;
use tls::Tls;

/// TCP connections of this computer: their two ports, and the kernel's timer for each. Connections
/// to `[::]:PORT` are in the second file.
fn connections() -> Vec<(u16, u16, u8)> {
    let files =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|f| fs::read_to_string(f).unwrap_or_default());
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (state, timer) = (words.get(3)?, words.get(5)?.split(':').next()?);
        (*state == "01").then_some(())?;
        Some((port(words[1])?, port(words[2])?, u8::from_str_radix(timer, 16).ok()?))
    };
    files.iter().flat_map(|text| text.lines().filter_map(one)).collect()
}

/// The end of a connection that has this port, and leads to that one, is kept alive.
fn kept_alive(from: u16, to: u16) {
    /// A kernel's word for the timer of keepalive.
    const KEEPALIVE: u8 = 2;
    let is = |(a, b, timer): &(u16, u16, u8)| (*a, *b, *timer) == (from, to, KEEPALIVE);
    until("the timer of keepalive runs", || connections().iter().any(is));
}

/// The server's end of this connection is kept alive.
fn client_kept_alive(tcp: &TcpStream) {
    let [here, there] = [tcp.local_addr(), tcp.peer_addr()].map(|a| a.expect("a port").port());
    kept_alive(there, here);
}

#[test]
fn the_kernel_asks_every_client_and_every_server() {
    for mptcp in ["yes", "no"] {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = upstream.local_addr().expect("it is bound");
        let conf = format!(
            "mptcp = {mptcp}\n\
             cat stream tcp nowait @USER@ /bin/cat cat\n    port = 127.0.0.1:0\n    tls_port = 127.0.0.1:0\n\
             to stream tcp nowait @USER@ redirect {server}\n"
        );
        let d = Daemon::with(&conf).start();
        let ports = d.listening(3);
        let (mut plain, mut own) = (d.connect(), Client::connect(ports[1]));
        let mut encrypted = Tls::start(d.connect().0, "localhost");
        let mut at_port = Tls::start(Client::connect(ports[2]).0, "localhost");
        let mut redirected = d.connect();
        plain.send("cat\r\nx").expect("+Go\r\nx");
        own.send("x").expect("x");
        encrypted.send(b"cat\r\nx");
        encrypted.expect(b"+Go\r\nx");
        at_port.send(b"x");
        at_port.expect(b"x");
        redirected.send("to\r\n").expect("+Go\r\n");
        let (_to, from) = upstream.accept().expect("a connection");
        for tcp in [&plain.0, &own.0, &encrypted.0.sock, &at_port.0.sock, &redirected.0] {
            client_kept_alive(tcp);
        }
        kept_alive(from.port(), server.port());
    }
}

#[test]
fn clients_of_a_socket_of_systemd_too() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n")
        .listen("")
        .under(&["sh", "-c", shell])
        .stdin(listener.into())
        .start();
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx");
    client_kept_alive(&c.0);
}
