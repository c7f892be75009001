use super::copy::{Copied, bytes::State};
use super::*;
use crate::sys::poll;
use crate::sys::{clock, socket};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Waits for the socket and nothing else.
struct Alone;

impl Wait for Alone {
    type End = Error;

    fn wait(&self, fd: BorrowedFd, interest: Interest, until: Duration) -> Result<(), Error> {
        let left = until.saturating_sub(clock::monotonic());
        match poll::wait(&mut [interest.of(fd)], Some(left)) {
            Ok(0) => Err(Error::Timeout),
            Ok(_) => Ok(()),
            Err(e) => Err(Error::System(e)),
        }
    }
}

fn soon() -> Duration {
    clock::monotonic() + Duration::from_secs(20)
}

fn line(link: &mut Link) -> Result<BoundedLine, Error> {
    link.read_line(&Alone, 16, soon())
}

fn plain() -> (Link, Link) {
    let (a, b) = socket::pair().expect("pair");
    (Link::plain(a), Link::plain(b))
}

/// Two ends after the handshake.
fn encrypted() -> (Link, Link) {
    let made = rcgen::generate_simple_self_signed(["five.example".into()]).expect("certificate");
    let (cert, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let provider = Arc::new(default_provider());
    let versions = [&rustls::version::TLS13];
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("root");
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert], PrivateKeyDer::Pkcs8(key.into()))
        .expect("certificate");
    let name = ServerName::try_from("five.example").expect("name");
    let (mut a, mut b) = plain();
    a.encrypt(ClientConnection::new(Arc::new(client), name).expect("client"));
    b.encrypt(ServerConnection::new(Arc::new(server)).expect("server"));
    std::thread::scope(|scope| {
        let shaken = scope.spawn(|| b.handshake(&Alone, soon()));
        a.handshake(&Alone, soon()).expect("client's handshake");
        a.flush(&Alone, soon()).expect("its last message");
        shaken.join().expect("no panic").expect("server's handshake");
    });
    (a, b)
}

#[test]
fn of_a_plain_connection_exactly_the_line_is_taken() {
    let (mut a, mut b) = plain();
    b.write_all(&Alone, b"one\r\nrest", soon()).expect("write");
    assert_eq!(line(&mut a).expect("a line"), BoundedLine::Line(b"one".to_vec()));
    let mut rest = [0; 9];
    assert_eq!(socket::receive(a.socket(), &mut rest).expect("the rest"), 4);
    assert!(a.tls().is_none() && !a.holds() && rest.starts_with(b"rest"));
    assert!(matches!(a.read_line(&Alone, 9, clock::monotonic()), Err(Error::Timeout)));
    b.write_all(&Alone, &[b'x'; 40], soon()).expect("write");
    assert!(matches!(line(&mut a).expect("more than a line"), BoundedLine::TooLong(_)));
}

#[test]
fn the_end_of_tls_is_told_from_the_end_of_its_connection() {
    for in_order in [true, false] {
        let (mut a, mut b) = encrypted();
        let exported = |l: &Link| l.export(b"EXPORTER-test").expect("exported").expect("TLS");
        assert_eq!(exported(&a), exported(&b));
        b.write_all(&Alone, b"one\ntwo\n", soon()).expect("write");
        if in_order {
            assert!(b.finish());
        } else {
            socket::shutdown_write(b.socket()).expect("shutdown");
        }
        for text in ["one", "two"] {
            assert_eq!(line(&mut a).expect("a line"), BoundedLine::Line(text.into()));
        }
        let end = line(&mut a).expect_err("an end");
        assert!(matches!((&end, in_order), (Error::Closed, true) | (Error::Truncated, false)));
        assert_eq!(a.is_over(), in_order);
        // The other direction still works.
        a.write_all(&Alone, b"back\n", soon()).expect("write");
        assert_eq!(line(&mut b).expect("a line"), BoundedLine::Line(b"back".to_vec()));
    }
}

/// The socket has no more, and poll(2) would report nothing.
#[test]
fn the_end_of_tls_that_comes_with_the_last_bytes_is_still_to_be_handled() {
    let (mut a, mut b) = encrypted();
    b.write_all(&Alone, b"bye", soon()).expect("write");
    b.send_close_notify();
    while !a.is_over() {
        match a.received().expect("bytes") {
            Received::Bytes(bytes) => {
                let n = bytes.len();
                a.consume(n);
                assert!(a.may_have_more());
            }
            Received::Nothing => {
                Alone.wait(a.socket(), Interest::Read, soon()).expect("more");
                a.receive().expect("a read");
            }
            Received::End => {}
        }
    }
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let (mut a, _b) = encrypted();
    let (mut c, d) = plain();
    std::mem::swap(&mut a.socket, &mut c.socket);
    socket::send(d.socket(), b"this is no record of TLS\n").expect("send");
    a.receive().expect_err("no TLS");
    let mut alert = [0; 64];
    assert!(socket::receive(d.socket(), &mut alert).expect("an alert") > 0);
}

/// So that its receiver passes it on with one system call.
#[test]
fn a_frame_of_the_full_length_comes_in_one_part() {
    for resumable in [false, true] {
        let (mut a, mut b) = encrypted();
        if resumable {
            a.begin_records();
            b.begin_records();
        }
        let mut queue = SendQueue::new();
        queue.burst(1, |to| to.resize(5 * FRAME, 7)).1.for_each(drop);
        let mut parts = Vec::new();
        while parts.len() < 5 {
            while !queue.is_sent() {
                a.send_queue(&mut queue).expect("a link that takes them");
            }
            a.send_queued().expect("a link that takes them");
            b.receive().expect("some bytes");
            while let Received::Bytes(bytes) = b.received().expect("some bytes") {
                let n = bytes.len();
                parts.push(n);
                b.consume(n);
            }
        }
        assert_eq!(parts, [FRAME; 5], "resumable: {resumable}");
    }
}

/// The link was read until its buffer was full, so TCP was told that more follows; but that was
/// all. The local end takes the last part of it in a later turn, in which nothing is received.
#[test]
fn a_local_end_that_was_full_gets_all_that_has_come() {
    const BYTES: usize = 128 * 1024;
    let (mut a, mut b) = plain();
    socket::set_send_buffer(b.socket(), 4 * BYTES).expect("a buffer");
    b.write_all(&Alone, &[7; BYTES], soon()).expect("write");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let to = listener.local_addr().expect("it is bound");
    let local = std::net::TcpStream::connect(to).expect("it listens");
    socket::set_send_buffer(local.as_fd(), 20_000).expect("a buffer");
    let mut far = listener.accept().expect("a client").0;
    far.set_nonblocking(true).expect("set");
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let idle = Some(Duration::from_millis(1));
            copy::bytes::copy(
                &mut a,
                local.as_fd(),
                &mut State::new(Breaks::End, Tally::default()),
                idle,
            )
        });
        let (mut bytes, mut got) = (vec![0; BYTES], 0);
        loop {
            let over = copying.is_finished();
            while let Ok(n) = far.read(&mut bytes) {
                got += n;
            }
            if over {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let copied = copying.join().expect("no panic").expect("nothing broke");
        assert_eq!((copied, got), (Copied::Idle, BYTES));
    });
}
