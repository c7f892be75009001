//! What a program of `wait` can do to the socket that it gets, and for how long it has it: a port
//! is lost to nobody, and belongs to one at a time.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use support::*;

/// A row whose program is this Python text: `s` is the socket that it got.
fn row(name: &str, kind: &str, port: &str) -> String {
    format!(
        "{name} {kind} wait @USER@ /usr/bin/env env python3 @DIR@/{name}\n port = 127.0.0.1:{port}\n"
    )
}

fn python(text: &str) -> String {
    format!("import ctypes, os, socket, struct\ns = socket.socket(fileno=0)\n{text}")
}

/// A program that serves everybody until it is ended.
const STAYS: &str =
    "while True:\n c, _ = s.accept()\n c.sendall(b'%d\\n' % os.getpid())\n c.close()\n";

/// What a socket of its own is answered there.
fn asked(at: SocketAddr) -> Vec<u8> {
    let s = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    s.send_to(b"hello", at).expect("send");
    let mut buffer = [0; 64];
    let (n, _) = s.recv_from(&mut buffer).expect("an answer");
    buffer[..n].to_vec()
}

#[test]
fn a_socket_that_its_program_made_useless_is_bound_again() {
    let locked = "f = (ctypes.c_uint8 * 8)(6)\ns.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HL', 1, ctypes.addressof(f)))\ns.setsockopt(socket.SOL_SOCKET, 44, 1)\n";
    let (accept, receive) =
        ("c, _ = s.accept()\nc.sendall(b'served')\nc.close()\n", "b, a = s.recvfrom(99)\n");
    let d = Daemon::with(
        &(row("down", "stream tcp", "0")
            + &row("bound", "dgram udp", "0")
            + &row("gone", "dgram udp", "0")
            + &row("mute", "dgram udp", "0")
            + &row("filter", "dgram udp", "0")),
    )
    .file("down", &python(&format!("{accept}s.shutdown(socket.SHUT_RDWR)\n")))
    .file("bound", &python(&format!("{receive}s.connect(a)\ns.send(b)\n")))
    .file(
        "gone",
        &python(&format!(
            "{receive}s.sendto(b, a)\ntry: s.shutdown(socket.SHUT_RDWR)\nexcept OSError: pass\n"
        )),
    )
    .file(
        "mute",
        &python(&format!(
            "{receive}s.sendto(b, a)\ntry: s.shutdown(socket.SHUT_WR)\nexcept OSError: pass\n"
        )),
    )
    .file("filter", &python(&format!("{receive}s.sendto(b, a)\n{locked}")))
    .start();
    let at = d.ports::<5>();
    for round in 1..4 {
        same(Client::connect(at[0]).read_any(), "served");
        for at in &at[1..] {
            same(asked(*at), "hello");
        }
        // Each has ended, and fived has looked at what it left.
        let lines = d.wait_logs("; fived opens it again", 5 * round);
        assert!(
            lines.iter().all(|l| l.starts_with("WARN ") && l.contains(": port: ")),
            "{lines:?}"
        );
    }
    assert_eq!(d.log().matches("this socket down; fived opens").count(), 9, "{}", d.log());
}

#[test]
fn an_option_that_a_program_left_is_undone_for_the_next() {
    let text = "b, a = s.recvfrom(99)\nn = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)\ns.sendto(b'%d %d' % (n.count(0), s.getsockopt(0, 2)), a)\ns.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 1, 0))\ns.setsockopt(0, 2, 9)\nf = (ctypes.c_uint8 * 8)(6)\ns.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HL', 1, ctypes.addressof(f)))\n";
    let d = Daemon::with(&row("own", "dgram udp", "0")).file("own", &python(text)).start();
    let at = d.port(0);
    let first = asked(at);
    d.wait_logs("EXIT service=own", 1);
    same(asked(at), first);
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

/// The options by which the kernel writes to a datagram what else it knows of it: more than anybody
/// who asks for one thing has room for.
const NOTES: &str = "for l, o in [(1, 40), (1, 37), (0, 6), (0, 7), (0, 8), (0, 12), (0, 13), (0, 18), (0, 20), (0, 23), (0, 25), (17, 104)]:\n s.setsockopt(l, o, 8 if o == 37 else 1)\n";

#[test]
fn what_the_kernel_writes_to_a_datagram_keeps_nobody_from_seeing_it() {
    // One ends, the other leaves a process behind that does it later, when fived has looked at what
    // its program left.
    let left = format!("b, a = s.recvfrom(99)\ns.sendto(b, a)\n{NOTES}");
    let later = "b, a = s.recvfrom(99)\ns.sendto(b, a)\nif b == b'first' and os.fork() == 0:\n import time\n time.sleep(1)\n for l, o in [(0, 12), (0, 13)]: s.setsockopt(l, o, 1)\n s.sendto(b'done', a)\n time.sleep(5)\n";
    let d = Daemon::with(&(row("left", "dgram udp", "0") + &row("later", "dgram udp", "0")))
        .file("left", &python(&left))
        .file("later", &python(later))
        .start();
    let [at, later] = d.ports();
    for n in 1..4 {
        same(asked(at), "hello");
        d.wait_logs("EXIT service=left", n);
    }
    let s = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    s.send_to(b"first", later).expect("send");
    for text in ["first", "done"] {
        let mut buffer = [0; 64];
        let n = s.recv(&mut buffer).expect("an answer");
        same(&buffer[..n], text);
    }
    same(asked(later), "hello");
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

/// A client of a Unix socket: what it is told.
fn told(path: &str) -> String {
    let mut text = String::new();
    // fived may be about to bind it.
    until("it listens", || {
        let s = UnixStream::connect(path).and_then(|s| {
            s.set_read_timeout(Some(TIMEOUT))?;
            Ok(s)
        });
        s.is_ok_and(|mut s| s.read_to_string(&mut text).is_ok())
    });
    text
}

const SHUTS_DOWN: &str =
    "c, _ = s.accept()\nc.sendall(b'served')\nc.close()\ns.shutdown(socket.SHUT_RDWR)\n";
const AT_PATH: &str =
    "down stream unix wait @USER@ /usr/bin/env env python3 @DIR@/down\n port = @DIR@/s\n";

#[test]
fn a_unix_socket_that_its_program_shut_down_is_bound_again() {
    let d = Daemon::with(AT_PATH).file("down", &python(SHUTS_DOWN)).start();
    for round in 1..4 {
        assert_eq!(told(&d.place.at("s")), "served");
        d.wait_logs("its program shut this socket down; fived opens it again", round);
    }
    d.wait_logs("EXIT service=down", 3);
    assert_eq!(d.wait_logs("START service=down", 3).len(), 3, "{}", d.log());
    let left = std::fs::read_dir(d.place.at("")).expect("directory");
    let left: Vec<_> = left.map(|e| e.expect("entry").file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".fived-")), "{left:?}");
}

#[test]
fn one_of_the_service_manager_that_its_program_shut_down_is_left_alone() {
    let activated = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let b = Daemon::with(&format!("listen = 127.0.0.1:0\n{AT_PATH}")).listen("");
    let b = b.file("down", &python(SHUTS_DOWN)).under(&["sh", "-c", activated]);
    let socket = UnixListener::bind(b.place.at("s")).expect("bind");
    let d = b.stdin(socket.into()).start();
    assert_eq!(told(&d.place.at("s")), "served");
    let line = d.wait_log("its program shut this socket down; ");
    assert!(line.starts_with("WARN ") && line.contains("service manager"), "{line}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(d.wait_logs("START service=down", 1).len(), 1, "{}", d.log());
}

#[test]
fn a_row_that_comes_back_takes_over_its_program_and_nobody_else_its_port() {
    let port = free_port();
    let (at, wait) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        row("own", "stream tcp", &port.to_string()),
    );
    let other = format!("other stream tcp nowait @USER@ /bin/echo echo fived\n port = {at}\n");
    let d = Daemon::with(&wait).file("own", &python(STAYS)).start();
    let pid = Client::connect(at).read_all();
    let same_program = || same(Client::connect(at).read_all(), &pid);
    let nothing = "more stream tcp nowait @USER@ /bin/true true\n";
    assert!(!d.reload(nothing).contains("refused"), "{}", d.log());
    same_program();
    // Another row cannot have the port while the program has it, whether or not there is its row.
    let refused = |line: String| {
        assert!(line.contains("refused mistakes=1"), "{line}");
        let log = d.log();
        let line = log.lines().rfind(|l| l.starts_with("WARN ")).expect("a line");
        let what = format!(": port: {at}: the program that was started for ");
        assert!(line.contains(&what) && line.contains("fived.conf:3 has this port"), "{line}");
    };
    refused(d.reload(&other));
    same_program();
    assert!(!d.reload(&wait).contains("refused"), "{}", d.log());
    same_program();
    refused(d.reload(&other));
    same_program();
    assert_eq!(d.wait_logs("START service=own", 1).len(), 1);
    let pid: i32 = String::from_utf8_lossy(&pid).trim().parse().expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    d.wait_log("EXIT service=own");
    assert!(!d.reload(&other).contains("refused"), "{}", d.log());
    same(Client::connect(at).read_all(), "fived\n");
}

#[test]
fn fived_itself_and_tls_are_told_too_which_row_has_a_port() {
    let port = free_port();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let conf = |listen: &str, rows: &str| format!("listen = {listen}\n{rows}");
    let own = row("own", "stream tcp", &port.to_string());
    let d = Daemon::with(&conf("127.0.0.1:0", &own)).listen("").file("own", &python(STAYS)).start();
    Client::connect(at).read_all();
    let more = "more stream tcp nowait @USER@ /bin/true true\n";
    let tls = conf("127.0.0.1:0", &format!("{more} tls_port = {at}\n"));
    for (conf, word) in [(tls, "tls_port"), (conf(&at.to_string(), more), "listen")] {
        let line = d.reload(&conf);
        assert!(line.contains("refused mistakes=1"), "{line}");
        let line = d.wait_log(&format!("{word}: {at}: "));
        let what = "the program that was started for ";
        assert!(line.contains(what) && line.contains("fived.conf:4 has this port"), "{line}");
    }
}

#[test]
fn a_program_that_nobody_needs_any_more_frees_its_port() {
    let port = free_port();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let d = Daemon::with(&row("own", "stream tcp", &port.to_string()))
        .file("own", &python(STAYS))
        .start();
    let pid = Client::connect(at).read_all();
    d.reload("more stream tcp nowait @USER@ /bin/true true\n");
    let pid: i32 = String::from_utf8_lossy(&pid).trim().parse().expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    until("the port is free", || TcpListener::bind(at).is_ok());
}

#[test]
fn programs_are_asked_to_end_with_fived_and_the_next_one_has_their_ports() {
    let port = free_port();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let conf = format!("shutdown_timeout = 1\n{}", row("own", "stream tcp", &port.to_string()));
    let mut d = Daemon::with(&conf).file("own", &python(STAYS)).start();
    Client::connect(at).read_all();
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    let line = d.wait_log("EXIT service=own");
    assert!(line.contains(" signal=15"), "{line}");
    TcpListener::bind(at).expect("it is free");
    // One that ignores it keeps the port, and the next fived says which row wants it.
    let deaf = format!("import signal\nsignal.signal(15, signal.SIG_IGN)\n{STAYS}");
    let mut d = Daemon::with(&conf).file("own", &python(&deaf)).start();
    let pid = Client::connect(at).read_all();
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    let pid: i32 = String::from_utf8_lossy(&pid).trim().parse().expect("a number");
    let line = d.wait_log("has not ended yet");
    assert!(line.contains(&format!(": own: its program, pid {pid}, ")), "{line}");
    let (code, err) = Daemon::with(&conf).fails();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    let what = format!("fived.conf:4: port: {at}: Address already in use");
    assert!(code == 111 && err.contains(&what) && err.contains("an earlier fived"), "{err}");
}

#[test]
fn every_address_that_cannot_be_bound_is_told_with_its_line() {
    let taken = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [a, b, c] = taken.each_ref().map(|l| l.local_addr().expect("address"));
    let rows = format!(
        "one stream tcp nowait @USER@ /bin/true true\n port = {a}\n\
         two stream tcp nowait @USER@ /bin/true true\n tls_port = {b}\n\
         six stream tcp nowait @USER@ /bin/true true\n port = 192.0.2.1:4321\n"
    );
    let check = |text: &str, mark: &str| {
        for what in [
            format!("fived.conf:3: port: {a}: Address already in use"),
            format!("fived.conf:5: tls_port: {b}: Address already in use"),
            "fived.conf:7: port: 192.0.2.1:4321: Cannot assign requested address".to_string(),
        ] {
            let line = text.lines().find(|l| l.contains(&what));
            assert!(line.is_some_and(|l| l.starts_with(mark)), "{what}: {text}");
        }
    };
    let (code, err) = Daemon::with(&rows).listen(&c.to_string()).fails();
    assert_eq!(code, 111, "{err}");
    check(&err, "/");
    assert!(err.contains(&format!("-l: listen: {c}: Address already in use")), "{err}");
    let d = Daemon::with("").start();
    let answer = d.reload(&rows);
    assert!(answer.contains("refused mistakes=3"), "{answer}");
    check(&d.log(), "WARN /");
}
