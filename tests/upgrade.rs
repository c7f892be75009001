//! Another fived takes the ports (SIGUSR2), and what the old one has goes on.

#[path = "support/resume_client.rs"]
mod resume_client;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use support::*;
use tls::Tls;

const CONF: &str = "cat stream tcp nowait @USER@ /bin/cat cat\n";

#[test]
fn sessions_and_services_go_on_while_another_serves() {
    let mut old = Daemon::with(&format!("shutdown_timeout = 1\n{CONF}")).start();
    let address = old.address();
    let mut plain = old.connect();
    plain.send("cat\r\nx").expect("+Go\r\nx");
    let mut encrypted = tls(&old);
    encrypted.send(b"cat\r\nx");
    encrypted.expect(b"+Go\r\nx");
    let mut waiting = tls(&old);
    old.signal(Signal::SIGUSR2);
    old.wait_log("leaving");
    let new = Daemon::with(CONF).listen(&address.to_string()).start();
    same(new.ask("HELP\r\n"), format!("cat\r\n{BUILTINS}"));
    plain.send("y").expect("y");
    encrypted.send(b"y");
    encrypted.expect(b"y");
    // A session that had asked for nothing is served by the old one.
    waiting.send(b"cat\r\nz");
    waiting.expect(b"+Go\r\nz");
    assert_eq!(old.exited(), None);
    // SIGUSR2 twice is no end, nor is a reload.
    old.signal(Signal::SIGUSR2);
    old.signal(Signal::SIGHUP);
    encrypted.send(b"y");
    encrypted.expect(b"y");
    waiting.half_close();
    same(waiting.read_all(), "");
    encrypted.half_close();
    same(encrypted.read_all(), "");
    plain.send("y").expect("y").half_close().end();
    assert_eq!(old.wait(), 0);
    same(new.ask("HELP\r\n"), format!("cat\r\n{BUILTINS}"));
}

/// A program that answers and does not read its input is no reset for its client even then.
#[test]
fn a_lingering_close_needs_no_net_process_that_serves() {
    for signal in [Signal::SIGUSR2, Signal::SIGTERM] {
        let mut d = Daemon::with(
            "late stream tcp nowait @USER@ /bin/sh sh -c 'read line; echo answer'\n\
             \u{20}lingering_close = yes\n",
        )
        .start();
        let mut client = d.connect();
        client.send("late\r\n").expect("+Go\r\n");
        d.signal(signal);
        d.wait_log(if signal == Signal::SIGTERM { "stopping" } else { "leaving" });
        client.send(format!("now\n{}", "x".repeat(100_000))).expect("answer\n").end();
        assert_eq!(d.wait(), 0, "{signal}");
    }
}

/// It has the port, which the other fived needs.
#[test]
fn a_program_of_wait_is_asked_to_end() {
    let row = "asked stream tcp wait @USER@ /bin/sleep sleep 1000\n port = 127.0.0.1:0\n";
    let mut d = Daemon::with(&format!("{CONF}{row}")).start();
    let _client = Client::connect(d.port(0));
    d.service("sleep");
    d.signal(Signal::SIGUSR2);
    assert_eq!(d.wait(), 0);
    assert!(d.wait_log("EXIT service=asked ").contains(" signal=15 "), "{}", d.log());
}

#[test]
fn a_program_of_wait_that_stays_keeps_nobody_waiting() {
    let row = "stays stream tcp wait @USER@ /bin/sh sh @DIR@/stays\n port = 127.0.0.1:0\n";
    let script = "trap '' TERM; exec sleep 1000";
    let d = Daemon::with(&format!("{CONF}{row}")).file("stays", script).start();
    let mut encrypted = tls(&d);
    let _client = Client::connect(d.port(0));
    let stays = Pid::from_raw(d.service("sleep"));
    d.signal(Signal::SIGUSR2);
    d.wait_log("leaving");
    encrypted.send(b"cat\r\nx");
    encrypted.expect(b"+Go\r\nx");
    assert!(d.wait_log("has not ended yet").contains("stays: its program, pid "));
    kill(stays, Signal::SIGKILL).expect("a signal");
    encrypted.half_close();
    same(encrypted.read_all(), "");
}

/// The other one has the ports: nobody can ever come back to a session of the old one.
#[test]
fn a_session_without_a_connection_ends() {
    let mut old = Daemon::with(&format!("resume_timeout_anonymous = 600\n{CONF}")).start();
    let begin = || {
        let mut s = resume_client::Session::begin(tls(&old));
        s.open(1, "cat\r\nx");
        s.expect(1, "+Go\r\nx");
        s
    };
    let (mut before, mut after, mut stays) = (begin(), begin(), begin());
    before.lose();
    old.wait_log("LOST ");
    old.signal(Signal::SIGUSR2);
    assert!(old.wait_log("END ").contains(" reason=lost"));
    after.lose();
    for line in old.wait_logs("END ", 2) {
        assert!(line.contains(" reason=lost"), "{line}");
    }
    stays.send(1, b"y");
    stays.expect(1, "y");
    stays.record(2, b"");
    drop(stays);
    assert_eq!(old.wait(), 0);
}

/// A stream that changes its own facts, on its way when the session was told to go away.
#[test]
fn a_session_serves_what_was_on_its_way() {
    use yamux_raw::{GO_AWAY, Raw, SYN};
    let d = Daemon::with(&format!("{CONF}[other]\ncat stream tcp nowait @USER@ /bin/cat cat\n"));
    let d = d.start();
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut raw = Raw(c.0);
    d.signal(Signal::SIGUSR2);
    raw.until(GO_AWAY, 0, 0);
    raw.data(SYN, 1, "HOST\r\n");
    while !raw.next().payload.ends_with(b"VHOST? ") {}
    raw.data(0, 1, "other\r\ncat\r\nx");
    raw.frame(1, yamux_raw::FIN, 1, 0);
    let (got, flag) = raw.stream(1);
    assert!(got.ends_with(b"+Go\r\nx") && flag == yamux_raw::FIN, "{got:?} {flag}");
}

#[test]
fn a_term_afterwards_sets_the_usual_limit() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 1\n{CONF}")).start();
    let mut encrypted = tls(&d);
    encrypted.send(b"cat\r\nx");
    encrypted.expect(b"+Go\r\nx");
    d.signal(Signal::SIGUSR2);
    d.wait_log("leaving");
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    assert_eq!(d.wait(), 0);
}

#[test]
fn one_that_has_nothing_goes_at_once_and_gives_up_every_port() {
    let mut d = Daemon::with(&format!(
        "{CONF}echo stream tcp nowait @USER@ internal\n port = 127.0.0.1:0\n"
    ))
    .start();
    d.signal(Signal::SIGUSR2);
    assert_eq!(d.wait(), 0);
    for address in &d.addresses {
        assert!(std::net::TcpListener::bind(address).is_ok(), "{address}");
    }
}

#[test]
fn the_service_manager_gets_another_main_process() {
    let place = Place::new();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let mut d = Daemon::with(CONF).env("NOTIFY_SOCKET", &path).start();
    let mut plain = d.connect();
    plain.send("cat\r\nx").expect("+Go\r\nx");
    d.signal(Signal::SIGUSR2);
    let pid = main_pid(&socket);
    // It holds nothing of fived's, and ends when it is told to.
    until("it has let go", || holds_no_socket(pid));
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("its end");
    until("it has ended", || !proc::alive(pid));
    plain.send("y").expect("y").half_close().end();
    assert_eq!(d.wait(), 0);
}

/// It gives no signs of life.
#[test]
fn the_other_main_process_is_not_watched() {
    let place = Place::new();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let d = Daemon::with(CONF).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "60000000").start();
    let mut plain = d.connect();
    plain.send("cat\r\nx").expect("+Go\r\nx");
    d.signal(Signal::SIGUSR2);
    let mut bytes = [0; 4096];
    loop {
        let n = socket.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..n]);
        if text.starts_with("MAINPID=") {
            assert!(text.ends_with("\nWATCHDOG_USEC=0"), "{text}");
            return;
        }
    }
}

/// The service manager must not take the unit for active when nobody serves any more.
#[test]
fn the_other_main_process_ends_with_fived() {
    for how in [None, Some(Signal::SIGKILL)] {
        let place = Place::new();
        let path = place.at("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        let mut d = Daemon::with(CONF).env("NOTIFY_SOCKET", &path).start();
        let mut plain = d.connect();
        plain.send("cat\r\nx").expect("+Go\r\nx");
        d.signal(Signal::SIGUSR2);
        let pid = main_pid(&socket);
        until("it has let go", || holds_no_socket(pid));
        match how {
            Some(signal) => d.signal(signal),
            None => {
                plain.send("y").expect("y").half_close().end();
                assert_eq!(d.wait(), 0);
            }
        }
        until("it has ended", || !proc::alive(pid));
    }
}

fn main_pid(socket: &UnixDatagram) -> i32 {
    loop {
        let mut bytes = [0; 4096];
        let n = socket.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        if let Some(pid) = text.strip_prefix("MAINPID=") {
            return pid.parse().expect("a number");
        }
    }
}

fn holds_no_socket(pid: i32) -> bool {
    proc::descriptors(pid).iter().all(|(_, what)| !what.starts_with("socket:"))
}

fn tls(d: &Daemon) -> Tls {
    let tcp = std::net::TcpStream::connect(d.address()).expect("connection");
    Tls::start(tcp, "localhost")
}
