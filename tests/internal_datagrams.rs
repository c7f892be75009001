//! The internal services as rows of `dgram`: how long their processes stay, and from which address
//! they answer.

mod support;

use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::*;

const ECHO: &str = "shutdown_timeout = 600\necho dgram udp wait @USER@ internal\n port = ";

/// A client of that address alone: it gets an answer from nowhere else.
fn client(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let s = UdpSocket::bind((any, 0)).expect("bind");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    s.connect(to).expect("connect");
    s
}

#[track_caller]
fn echo(s: &UdpSocket, text: &str) {
    s.send(text.as_bytes()).expect("send");
    let mut buffer = [0; 99];
    let n = s.recv(&mut buffer).expect("an answer");
    same(&buffer[..n], text);
}

/// Sends a datagram now and then, so that the service is never idle for long, until `done`.
fn keep_busy<T>(to: SocketAddr, done: impl FnOnce() -> T) -> T {
    let (s, over) = (client(to), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Nobody may be there any more.
                let _ = s.send(b"again");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let result = done();
        over.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn an_idle_one_keeps_fived_from_no_end() {
    for (signal, has_started) in
        [Signal::SIGTERM, Signal::SIGUSR2].into_iter().flat_map(|s| [(s, true), (s, false)])
    {
        let mut d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n")).start();
        let at = d.port(0);
        echo(&client(at), "one");
        // It may answer before fived knows that it has started.
        if has_started {
            d.wait_log("START service=echo");
        }
        let status = keep_busy(at, || {
            d.signal(signal);
            d.wait()
        });
        assert_eq!(status, 0);
        let line = d.wait_log("EXIT service=echo");
        assert!(line.contains(" status=0 "), "{line}");
    }
}

#[test]
fn an_external_program_has_until_shutdown_timeout() {
    let text = "import os, socket\ns = socket.socket(fileno=0)\nfor _ in range(2):\n b, a = s.recvfrom(99)\n s.sendto(b, a)\n";
    let mut d = Daemon::with(
        "shutdown_timeout = 600\nown dgram udp wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = 127.0.0.1:0\n",
    )
    .file("own", text)
    .start();
    let c = client(d.port(0));
    echo(&c, "one");
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    echo(&c, "two");
    assert_eq!(d.wait(), 0);
    assert!(d.wait_log("EXIT service=own").contains(" status=0 "));
}

#[test]
fn a_reload_ends_one_and_loses_no_datagram() {
    let d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n")).start();
    let at = d.port(0);
    let c = client(at);
    for n in 1..=3 {
        echo(&c, &format!("before {n}"));
        d.wait_logs("START service=echo", n);
        d.reload(&format!("{ECHO}127.0.0.1:0\n nice = {n}\n"));
        d.wait_logs("EXIT service=echo", n);
        assert!(!d.log().contains("its program"), "{}", d.log());
    }
    echo(&c, "again");
    // Its row is gone: nobody answers there any more, and others may have the port.
    keep_busy(at, || {
        d.reload("");
        d.wait_logs("EXIT service=echo", 4);
        until("the port is free", || UdpSocket::bind(at).is_ok());
    });
}

#[test]
fn a_reload_leaves_one_whose_row_is_the_same() {
    let d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n")).start();
    let c = client(d.port(0));
    echo(&c, "one");
    for n in 0..3 {
        let other = format!("other{n} stream tcp nowait @USER@ internal echo\n");
        let line = d.reload(&format!("{ECHO}127.0.0.1:0\n{other}[x]\n{other}"));
        assert!(line.ends_with("services=3"), "{line}");
        echo(&c, "two");
    }
    let log = d.log();
    assert!(log.matches("START ").count() == 1 && !log.contains("EXIT "), "{log}");
}

/// A client from that address of the loopback.
fn client_from(ip: &str, to: SocketAddr) -> UdpSocket {
    let s = UdpSocket::bind((ip, 0)).expect("bind");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    s.connect(to).expect("connect");
    s
}

#[track_caller]
fn has_no_answer(s: &UdpSocket) {
    s.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    assert!(s.recv(&mut [0; 99]).is_err());
}

#[test]
fn the_rules_are_asked_about_each_sender() {
    for rule in ["only_from = 127.0.0.1", "no_access = 127.0.0.2 127.0.0.3"] {
        let d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n {rule}\n")).start();
        let at = d.port(0);
        let (friend, stranger) = (client_from("127.0.0.1", at), client_from("127.0.0.2", at));
        for n in 1..=3 {
            echo(&friend, "friend");
            stranger.send(b"stranger").expect("send");
            let lines = d.wait_logs("REFUSE service=echo", n);
            assert!(lines[n - 1].contains(" from=127.0.0.2 reason=address"), "{lines:?}");
        }
        // Those that wait together are decided apart, too.
        for _ in 0..5 {
            friend.send(b"friend").expect("send");
            stranger.send(b"stranger").expect("send");
        }
        for _ in 0..5 {
            let mut buffer = [0; 99];
            let n = friend.recv(&mut buffer).expect("an answer");
            same(&buffer[..n], "friend");
        }
        has_no_answer(&stranger);
    }
}

#[test]
fn who_touches_a_sensor_has_no_answer_any_more() {
    let sensor =
        "trap stream tcp nowait @USER@ internal sensor\n port = 127.0.0.1:0\n deny_time = 60\n";
    let d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n{sensor}")).start();
    let [at, trap] = d.ports();
    let (friend, stranger) = (client_from("127.0.0.1", at), client_from("127.0.0.2", at));
    echo(&friend, "one");
    echo(&stranger, "one");
    d.wait_logs("EXIT service=echo", 2);
    connect_from("127.0.0.2".parse().expect("an address"), trap).read_all();
    d.wait_log("PENALTY from=127.0.0.2");
    stranger.send(b"two").expect("send");
    d.wait_log("REFUSE service=echo");
    echo(&friend, "two");
    has_no_answer(&stranger);
    // The penalty stays without the row.
    d.reload(&format!("{ECHO}{at}\n"));
    stranger.send(b"three").expect("send");
    d.wait_logs("REFUSE service=echo", 2);
    echo(&friend, "three");
    stranger.send(b"four").expect("send");
    has_no_answer(&stranger);
}

#[test]
fn limits_of_starts_count_each_datagram() {
    for (wait, cps) in [("wait.2", ""), ("wait", " cps = 2 60\n")] {
        let row = format!("echo dgram udp {wait} @USER@ internal\n port = 127.0.0.1:0\n{cps}");
        let d = Daemon::with(&row).start();
        let c = client(d.port(0));
        // `cps` looks at one second.
        for _ in 0..3 {
            c.send(b"again").expect("send");
        }
        for _ in 0..2 {
            assert_eq!(c.recv(&mut [0; 9]).expect("an answer"), 5);
        }
        assert!(d.wait_log("REFUSE service=echo").contains(" reason=cps"));
        has_no_answer(&c);
    }
}

/// The socket is the same, or another at the same port: no process of the old row is in the way.
#[test]
fn a_port_may_be_written_in_another_way() {
    // The system could give one of its own range to somebody else, at another address.
    let number = free_port();
    let d = Daemon::with(&format!("{ECHO}127.0.0.1:{number}\n")).start();
    let c = client(d.port(0));
    echo(&c, "one");
    let ways = [
        ("udp", format!("127.0.0.1:{number}")),
        ("udp", format!("[::ffff:127.0.0.1]:{number}")),
        ("udp4", format!("127.0.0.1:{number}")),
        ("udp4", number.to_string()),
        ("udp", number.to_string()),
        ("udp46", format!("[::]:{number}")),
        ("udp", format!("0.0.0.0:{number}")),
        ("udp", format!("127.0.0.1:{number}")),
    ];
    for (columns, port) in ways {
        let row = ECHO.replace("udp", columns);
        let line = d.reload(&format!("{row}{port}\n"));
        assert!(line.ends_with("services=1"), "{columns} {port}: {line}\n{}", d.log());
        // A datagram that came to a socket that was closed then has no answer.
        until("an answer", || {
            c.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
            c.send(b"two").is_ok() && c.recv(&mut [0; 9]).is_ok_and(|n| n == 3)
        });
    }
}

/// Where a socket that is bound to every address listens, as clients of `ip` see it.
fn at(d: &Daemon, ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, d.port(0).port())
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let both = ["127.0.0.1", "127.0.0.2", "::1"];
    for (columns, port, asked) in [
        ("udp", "0", &both[..]),
        ("udp4", "0.0.0.0:0", &both[..2]),
        ("udp6", "[::]:0", &both[2..]),
        ("udp", "127.0.0.2:0", &both[1..2]),
    ] {
        let conf = format!("echo dgram {columns} wait @USER@ internal\n port = {port}\n");
        let d = Daemon::with(&conf).start();
        for ip in asked.iter().map(|ip| ip.parse().expect("an address")) {
            if UdpSocket::bind((ip, 0)).is_err() {
                skip("needs IPv6");
                continue;
            }
            // The first is sent before its process runs, the second is not.
            let c = client(at(&d, ip));
            echo(&c, "one");
            echo(&c, "two");
        }
    }
}

/// Many hosts may have got it, and each would answer.
#[test]
fn what_was_sent_to_many_has_no_answer() {
    for port in ["0", "0.0.0.0:0"] {
        let columns = if port == "0" { "udp" } else { "udp4" };
        let conf = format!("echo dgram {columns} wait @USER@ internal\n port = {port}\n");
        let d = Daemon::with(&conf).start();
        let s = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        s.set_broadcast(true).expect("set");
        // The broadcast address of loopback's own network, and the group of all hosts.
        for many in [[127, 255, 255, 255], [224, 0, 0, 1]] {
            let sent = s.send_to(b"many", at(&d, many.into()));
            assert!(sent.is_ok() || many[0] == 224, "{sent:?}: only the group may have no route");
        }
        d.wait_log("START service=echo");
        s.send_to(b"one", at(&d, Ipv4Addr::LOCALHOST.into())).expect("send");
        let mut buffer = [0; 99];
        let (n, _) = s.recv_from(&mut buffer).expect("an answer");
        same(&buffer[..n], "one");
    }
}

/// The next program reads control messages that it asked for, and no others.
#[test]
fn the_next_program_gets_the_socket_as_it_was_made() {
    let text = "import socket\ns = socket.socket(fileno=0)\nb, a = s.recvfrom(99)\nat = (41, 49) if s.family == socket.AF_INET6 else (0, 8)\ns.sendto(b'%d' % s.getsockopt(*at), a)\n";
    let rows = [
        "own dgram udp wait @USER@ internal echo\n port = 0\n",
        "own dgram udp wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = 0\n",
    ];
    let d = Daemon::with(rows[0]).file("own", text).start();
    let c = client(at(&d, Ipv4Addr::LOCALHOST.into()));
    echo(&c, "one");
    d.reload(rows[1]);
    d.wait_log("EXIT service=own");
    c.send(b"two").expect("send");
    let mut buffer = [0; 99];
    let n = c.recv(&mut buffer).expect("an answer");
    same(&buffer[..n], "0");
}

/// One that came as the row was taken away is served under the old table, and nothing after it.
#[test]
fn a_start_during_a_reload_serves_no_more_than_the_new_table_says() {
    let d = Daemon::with(&format!("{ECHO}127.0.0.1:0\n")).start();
    let (at, parent) = (d.port(0), nix::unistd::Pid::from_raw(d.parent_pid()));
    let c = client(at);
    d.place.write("fived.conf", "listen = 127.0.0.1:0\n", 0o644);
    // It sees both at once.
    nix::sys::signal::kill(parent, Signal::SIGSTOP).expect("kill");
    c.send(b"one").expect("send");
    nix::sys::signal::kill(parent, Signal::SIGHUP).expect("kill");
    nix::sys::signal::kill(parent, Signal::SIGCONT).expect("kill");
    d.wait_log("RELOAD ");
    until("nobody is served there any more", || {
        let _ = c.send(b"again");
        UdpSocket::bind(at).is_ok()
    });
}

#[test]
fn the_log_says_which_ports_are_those_of_udp() {
    let conf = format!(
        "{ECHO}127.0.0.1:0\nhello stream tcp nowait @USER@ /bin/echo echo\n port = 127.0.0.1:0\n"
    );
    let d = Daemon::with(&conf).start();
    let [udp, tcp] = d.ports();
    let log = d.log();
    for line in [format!("listening on {udp} (udp)\n"), format!("listening on {tcp}\n")] {
        assert!(log.contains(&line), "{line}{log}");
    }
}
