//! A port of this computer that a test forwards: whoever connects to its port has a service of fived's, through whatever
//! is between. So any program that speaks TCP is a peer in the tests.

#![allow(dead_code)] // Each test file uses its own part of this.

use super::tls::Tls;
use super::yamux_client::{Client as Mux, Stream};
use super::{Client, Daemon};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One end that is written, and can be finished.
pub trait Sink: Write + Send {
    fn finish(&mut self);
}

pub type Ends = (Box<dyn Read + Send>, Box<dyn Sink>);

impl Sink for TcpStream {
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// A plain connection to fived's own port.
pub fn plain(to: SocketAddr) -> Ends {
    let c = TcpStream::connect(to).expect("connect");
    (Box::new(c.try_clone().expect("clone")), Box::new(c))
}

/// The same inside TLS.
pub fn encrypted(to: SocketAddr) -> Ends {
    let Tls(stream) = Tls::start(Client::connect(to).0, "x.example");
    stream.sock.set_read_timeout(None).expect("timeout");
    let conn = Arc::new(Mutex::new(stream.conn));
    let tcp = stream.sock;
    let other = tcp.try_clone().expect("clone");
    (
        Box::new(TlsReader { conn: conn.clone(), tcp, raw: Default::default() }),
        Box::new(TlsWriter { conn, tcp: other }),
    )
}

/// A stream of a MULTIPLEX session inside TLS, the same session for all.
pub fn multiplexed(to: SocketAddr) -> impl Fn(SocketAddr) -> Ends + Send + 'static {
    let mut c = Tls::start(Client::connect(to).0, "x.example");
    c.send(b"MULTIPLEX\r\n");
    c.expect(b"+ Success\r\n");
    let mux = Mux::new(c.0);
    move |_| {
        let (from, to) = mux.open().both();
        (Box::new(from), Box::new(to))
    }
}

impl Sink for Stream {
    fn finish(&mut self) {
        Stream::finish(self);
    }
}

struct TlsReader {
    conn: Arc<Mutex<rustls::ClientConnection>>,
    tcp: TcpStream,
    /// What has come and was not decrypted yet: rustls takes no more while plaintext waits.
    raw: std::collections::VecDeque<u8>,
}

struct TlsWriter {
    conn: Arc<Mutex<rustls::ClientConnection>>,
    tcp: TcpStream,
}

impl Read for TlsReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut part = [0; 16384];
        loop {
            let mut conn = self.conn.lock().expect("lock");
            match conn.reader().read(out) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.raw.is_empty() {
                drop(conn);
                let n = self.tcp.read(&mut part)?;
                self.raw.extend(&part[..n]);
                conn = self.conn.lock().expect("lock");
            }
            conn.read_tls(&mut self.raw)?;
            conn.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for TlsWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut conn = self.conn.lock().expect("lock");
        let n = conn.writer().write(bytes)?;
        while conn.wants_write() {
            conn.write_tls(&mut self.tcp)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for TlsWriter {
    fn finish(&mut self) {
        let mut conn = self.conn.lock().expect("lock");
        conn.send_close_notify();
        while conn.wants_write() && conn.write_tls(&mut self.tcp).is_ok() {}
    }
}

/// A port of this computer that leads to that service. Its threads end with the test.
pub fn forward(
    d: &Daemon,
    service: &str,
    open: impl Fn(SocketAddr) -> Ends + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (to, service) = (d.address(), service.to_string());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            relay(client, open(to), &service);
        }
    });
    port
}

fn relay(mut client: TcpStream, (mut from, mut to): Ends, service: &str) {
    let mut back = client.try_clone().expect("clone");
    to.write_all(format!("{service}\r\n").as_bytes()).expect("request");
    thread::spawn(move || {
        let mut go = [0; 5];
        if from.read_exact(&mut go).is_ok() && &go == b"+Go\r\n" {
            let _ = io::copy(&mut from, &mut back);
        }
        let _ = back.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut client, &mut to);
        to.finish();
    });
}
