//! Descriptors run out in the parent, or in net: whoever comes is told `-Service busy`, nobody who is there loses anything, and all is as
//! before when some are free again.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::process::Command;
use support::*;
use tls::Tls;

const CONF: &str = "max_sessions_per_source = 1000\nmax_services_per_source = 1000\nhello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

fn in_tls(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "nobody.example")
}

/// So many descriptors for each of fived's processes; of the parent's, 24 are taken.
const FEW: [&str; 4] = ["bash", "-c", "ulimit -n 64; for n in {10..33}; do eval \"exec $n</dev/null\"; done; exec \"$@\"", "bash"];

#[test]
fn the_parent_without_descriptors_is_busy_and_nobody_is_lost() {
    if !installed("bash") {
        return skip("needs bash");
    }
    let d = Daemon::with(CONF).under(&FEW).start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later: Vec<Tls> = (0..3).map(|_| in_tls(&d)).collect();
    // Each session is a channel of the parent's.
    let mut sessions = Vec::new();
    until("the parent is short of them", || {
        let mut c = d.connect();
        c.send("HOST\r\n");
        let line = first_line(&mut c);
        assert!(["+ Success\r\n", BUSY].contains(&line.as_str()), "{line:?}");
        sessions.push(c);
        d.log().contains("WARN descriptors: ")
    });
    assert!(sessions.len() > 3, "{}", sessions.len());
    for _ in 0..20 {
        let answer = String::from_utf8(d.ask("hello\r\n")).expect("ASCII");
        assert!([BUSY, HELLO].contains(&answer.as_str()), "{answer:?}");
    }
    for c in &mut later {
        c.send(b"hello\r\n");
        // To its close_notify: an end without one is an error.
        let answer = String::from_utf8(c.read_all()).expect("ASCII");
        assert!([BUSY, HELLO].contains(&answer.as_str()), "{answer:?}");
    }
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    assert_eq!(d.net_pid(), net, "nobody died of it");
    drop(sessions);
    until("all is as before", || d.ask("hello\r\n") == HELLO.as_bytes());
    let mut c = in_tls(&d);
    c.send(b"hello\r\n");
    same(c.read_all(), HELLO);
    assert!(!d.log().contains("is none") && !d.log().contains("reason=nonsense"), "{}", d.log());
}

/// Sets the limit of a process that runs; what it may be raised to stays.
fn allow(pid: i32, descriptors: u64) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={descriptors}:")]).status();
    assert!(done.expect("prlimit").success());
}

#[test]
fn an_order_that_came_without_its_descriptors_is_no_fault_of_net_s() {
    if !installed("prlimit") || !root() {
        return skip("needs root and prlimit");
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later = in_tls(&d);
    // From now on it can have none at all.
    allow(d.parent_pid(), 3);
    for _ in 0..5 {
        let mut c = d.connect();
        c.send("hello\r\n");
        // Its own socket is what was lost.
        same(c.read_any(), "");
    }
    later.send(b"hello\r\n");
    same(later.read_all(), BUSY);
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    d.wait_log("WARN descriptors: ");
    allow(d.parent_pid(), 1024);
    same(d.ask("hello\r\n"), HELLO);
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

#[test]
fn a_session_for_whose_service_net_has_no_descriptor_is_told() {
    if !installed("prlimit") || !root() {
        return skip("needs root and prlimit");
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=48:48"]).start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later = in_tls(&d);
    let mut sessions = Vec::new();
    until("net has none left", || {
        let mut c = d.connect();
        c.send("HOST\r\n");
        sessions.push(c);
        proc::descriptors(net).len() >= 47
    });
    later.send(b"hello\r\n");
    same(later.read_all(), BUSY);
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    drop(sessions);
    until("all is as before", || d.ask("hello\r\n") == HELLO.as_bytes());
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

/// A line, or what came of it before the end.
fn first_line(c: &mut Client) -> String {
    use std::io::Read;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") && matches!(c.0.read(&mut byte), Ok(1)) {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("ASCII")
}
