//! A daemon that runs already is given the connection itself.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;

const ROW: &str = "chat stream tcp nowait @USER@ handover @DIR@/chat.sock\n";
const GIVEN: &str = "/run/chat.sock";

/// The row and the daemon that fived.conf(5) shows, with the socket in the test's directory.
fn manual(kind: &str) -> String {
    let all = page::blocks("man/fived.conf.5");
    let block = all.iter().find(|b| b.kind == kind && b.body.contains(GIVEN)).expect("a block");
    block.body.replace(GIVEN, "@DIR@/chat.sock").replace(" nobody ", " @USER@ ")
}

/// The daemon of the manual, ended with the test.
struct Python(Child);

impl Python {
    fn start(d: &Daemon) -> Python {
        let path = d.place.write("daemon.py", &manual("daemon"), 0o755);
        let child = Python(Command::new("python3").arg(path).spawn().expect("python3"));
        let socket = d.place.path.join("chat.sock");
        until("the daemon listens", || UnixStream::connect(&socket).is_ok());
        child
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon of our own.
fn listen(d: &Daemon, mode: u32) -> UnixListener {
    let path = d.place.path.join("chat.sock");
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("bind");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
    listener
}

/// What comes there: the text, the connection, and the user who sent both.
fn take(listener: &UnixListener) -> (String, Client, u32) {
    use nix::sys::socket::{getsockopt, sockopt};
    let (from, _) = listener.accept().expect("accept");
    let uid = getsockopt(&from, sockopt::PeerCredentials).expect("credentials").uid();
    let (text, fd) = receive(from.as_raw_fd());
    (text, Client::of(std::net::TcpStream::from(fd)), uid)
}

fn receive(from: i32) -> (String, OwnedFd) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut text = [0; 8192];
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([i32; 2]);
    let got = recvmsg::<()>(from, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .expect("a message");
    let fds: Vec<i32> = got
        .cmsgs()
        .expect("whole")
        .filter_map(|c| if let ControlMessageOwned::ScmRights(f) = c { Some(f) } else { None })
        .flatten()
        .collect();
    let n = got.bytes;
    assert_eq!(fds.len(), 1);
    // SAFETY: it has just come, and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    (String::from_utf8(text[..n].to_vec()).expect("UTF-8"), fd)
}

#[test]
fn the_daemon_of_the_manual_takes_connections_comes_and_goes() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let row = manual("conf");
    assert_eq!(Place::new().fived(&row, &["-t"]).0, 0, "{row}");
    let d = Daemon::with(&row).start();
    same(d.ask("chat\r\n"), FAILED);
    let line = d.wait_log("REFUSE service=chat");
    assert!(
        line.contains("reason=failed") && line.contains("chat.sock: connect: No such"),
        "{line}"
    );
    for (n, answer) in ["+Go\r\nHello 127.0.0.1\n"; 2].into_iter().enumerate() {
        let python = Python::start(&d);
        same(d.ask("chat\r\n"), answer);
        let mut secret = Tls::start(d.connect().0, "localhost");
        secret.send(b"chat\r\n");
        same(secret.read_all(), answer);
        let mut inside = Tls::start(d.connect().0, "localhost");
        inside.send(b"MULTIPLEX\r\n");
        inside.expect(b"+ Success\r\n");
        let mux = Mux::new(inside.0);
        for _ in 0..3 {
            same(mux.ask("chat\r\n").read_all(), answer);
        }
        drop(python);
        same(d.ask("chat\r\n"), FAILED);
        let refused = || d.log().matches("connect: Connection refused").count();
        until("the log tells of it", || refused() == n + 1);
    }
}

#[test]
fn run_of_it_ends_with_0() {
    let d = Daemon::with(ROW).start();
    let listener = listen(&d, 0o666);
    let mut c = d.connect();
    c.send(b"RUN\r\nchat\r\n\0\0\0\x01x\x01\0\0\0");
    let (text, mut given, _) = take(&listener);
    assert!(text.ends_with("FIVED_SESSION=1\nFIVED_RUN=1\n"), "{text}");
    same(given.read_all(), "x");
    given.send("bye");
    drop(given);
    same(c.read_all(), b"+ Success\r\n+Go\r\n\0\0\0\x03bye\x01\0\0\0\x03\0\0\x04\0\0\0\0");
}

/// A connection that the daemon breaks ends in no way that looks like an end in order.
#[test]
fn a_reset_of_the_daemons_reaches_the_client() {
    use std::io::Read;
    use yamux_raw::{RST, Raw, SYN};
    let d = Daemon::with(ROW).start();
    let listener = listen(&d, 0o666);
    let breaks = || {
        let (_, mut given, _) = take(&listener);
        given.send("partial");
        // What is not read yet is enough for a reset; this one comes whatever was read.
        reset(&given.0);
    };
    for request in ["chat\r\n", "RUN\r\nchat\r\n"] {
        let mut c = d.connect();
        c.send(request);
        breaks();
        let mut got = Vec::new();
        c.0.read_to_end(&mut got).expect_err("a reset");
        assert!(got.ends_with(b"partial"), "{got:?}");
        let mut t = Tls::start(d.connect().0, "localhost");
        t.send(request.as_bytes());
        breaks();
        let mut got = Vec::new();
        t.0.read_to_end(&mut got).expect_err("a truncation");
        assert!(got.ends_with(b"partial"), "{got:?}");
        let mut m = d.connect();
        m.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        let mut raw = Raw(m.0);
        raw.data(SYN, 1, request);
        breaks();
        let (got, flag) = raw.stream(1);
        assert!(got.ends_with(b"partial") && flag == RST, "{got:?} {flag}");
    }
}

#[test]
fn the_message_tells_of_the_connection_and_the_socket_is_the_clients_own() {
    let d = Daemon::with(&format!(
        "{ROW} env = SECRET=1\n port = 127.0.0.1:0\n banner = @DIR@/banner\n"
    ))
    .file("banner", "welcome\n")
    .start();
    let listener = listen(&d, 0o666);
    let mut c = d.connect();
    // What comes right after the request is the daemon's.
    c.send("chat\r\nfirst words").expect("+Go\r\nwelcome\n");
    let (text, mut connection, uid) = take(&listener);
    assert_eq!(uid, nix::unistd::User::from_name(&user()).unwrap().unwrap().uid.as_raw());
    let (client, server) = (c.0.local_addr().unwrap(), c.0.peer_addr().unwrap());
    assert_eq!(connection.0.peer_addr().unwrap(), client);
    let (port, local) = (client.port(), server.port());
    same(
        text,
        format!(
            "PROTO=TCP\nTCPLOCALIP=127.0.0.1\nTCPLOCALPORT={local}\nTCPREMOTEIP=127.0.0.1\nTCPREMOTEPORT={port}\nREMOTE_ADDR=127.0.0.1\nREMOTE_PORT={port}\nREMOTE_HOST=127.0.0.1\nFIVED_SERVICE=chat\nFIVED_HOST=\nFIVED_SESSION=1\n"
        ),
    );
    connection.expect("first words").send("here").half_close();
    c.expect("here").half_close();
    connection.end();
    let line = d.wait_log("START service=chat");
    let socket = d.place.at("chat.sock");
    assert!(line.contains(&format!(" to={socket} from=127.0.0.1 session=1")), "{line}");
    // fived keeps nothing of it: the client sees the daemon's end.
    drop(connection);
    c.end();
    // At its own port, without a request and a reply line.
    let mut c = Client::connect(d.port(0));
    c.expect("welcome\n");
    let (text, mut connection, _) = take(&listener);
    assert!(text.contains(&format!("TCPLOCALPORT={}\n", c.0.peer_addr().unwrap().port())));
    connection.send("by port");
    drop(connection);
    same(c.read_all(), "by port");
    assert!(!d.log().contains("EXIT "), "{}", d.log());
}

#[test]
fn a_session_inside_tls_is_told_of_it() {
    let d = Daemon::with(&format!("[main]\n{ROW}")).start();
    let listener = listen(&d, 0o666);
    let mut c = Tls::start(d.connect().0, "main");
    c.send(b"chat\r\n");
    c.expect(b"+Go\r\n");
    let (text, mut connection, _) = take(&listener);
    let tail = "FIVED_HOST=main\nFIVED_SESSION=1\nSSL_PROTOCOL=TLSv1.3\nSSL_CIPHER=";
    assert!(text.contains(tail) && text.ends_with("\nSSL_TLS_SNI_SERVERNAME=main\n"), "{text}");
    connection.send("secret words");
    c.expect(b"secret words");
    c.send(b"answer");
    connection.expect("answer");
    drop(connection);
    same(c.read_all(), "");
}

#[test]
fn it_is_the_rows_user_who_connects() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with(ROW).start();
    let listener = listen(&d, 0o600);
    same(d.ask("chat\r\n"), FAILED);
    assert!(d.wait_log("REFUSE service=chat").contains("Permission denied"), "{}", d.log());
    drop(listener);
    // A file that is no socket, and a socket of datagrams.
    fs::remove_file(d.place.path.join("chat.sock")).unwrap();
    let path = d.place.write("chat.sock", "text", 0o666);
    same(d.ask("chat\r\n"), FAILED);
    fs::remove_file(&path).unwrap();
    let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    same(d.ask("chat\r\n"), FAILED);
}

#[test]
fn a_daemon_that_keeps_messages_apart_is_given_one() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
    use nix::sys::socket::{accept, bind, listen, socket};
    let d = Daemon::with(ROW).start();
    let path = d.place.path.join("chat.sock");
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let listener = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("address")).expect("bind");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("mode");
    // One more than this number may wait.
    listen(&listener, Backlog::new(0).expect("backlog")).expect("listen");
    let mut c = d.connect();
    c.send("chat\r\n").expect(GO);
    same(d.ask("chat\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=chat").contains("reason=backlog"), "{}", d.log());
    let from = accept(listener.as_raw_fd()).expect("accept");
    // SAFETY: it was just made, and is nobody else's.
    let from = unsafe { OwnedFd::from_raw_fd(from) };
    let (text, fd) = receive(from.as_raw_fd());
    assert!(text.starts_with("PROTO=TCP\n"), "{text}");
    Client::of(std::net::TcpStream::from(fd)).send("packet");
    c.expect("packet");
}

#[test]
fn limits_that_need_its_end_are_mistakes() {
    let limits = " instances = 3\n server_timeout = 5\n per_source = 2\n";
    let (code, _, err) = Place::new().fived(&format!("{ROW}{limits}"), &["-t"]);
    assert_eq!(code, 1);
    for (line, name) in [(2, "instances"), (4, "per_source"), (3, "server_timeout")] {
        assert!(err.contains(&format!("fived.conf:{line}: {name}: expected UNLIMITED")), "{err}");
    }
    let rows = format!("instances = 4\n{ROW} instances = UNLIMITED\n");
    assert_eq!(Place::new().fived(&rows, &["-t"]).0, 0);
    for (words, what) in [
        ("handover", "found 0 words"),
        ("handover /a /b", "found 2 words"),
        ("handover chat.sock", "expected the absolute path of a Unix socket"),
        (&format!("handover /{}", "x".repeat(107)), "107 bytes at most"),
    ] {
        let row = format!("chat stream tcp nowait @USER@ {words}\n");
        let (code, _, err) = Place::new().fived(&row, &["-t"]);
        assert!(code == 1 && err.contains(what), "{words}: {err}");
    }
    let (code, out, _) = Place::new().fived(ROW, &["-T"]);
    assert!(code == 0 && out.contains(" handover /"), "{out}");
}
