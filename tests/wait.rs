//! Rows whose program gets the socket itself, `stream` and `dgram` with `wait`.

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};
use support::*;

/// A program in Python: `s` is the socket that it got.
fn python(kind: &str, text: &str) -> String {
    format!(
        "import os, socket\ns = socket.socket(fileno=0)\nassert s.type == socket.{kind}, s.type\n{text}"
    )
}

fn row(name: &str, columns: &str, file: &str, more: &str) -> String {
    format!(
        "{name} {columns} @USER@ /usr/bin/env env python3 @DIR@/{file}\n port = 127.0.0.1:0\n{more}"
    )
}

/// A socket that waits for an answer for some seconds.
fn udp() -> UdpSocket {
    let s = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    s
}

fn answer(s: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let (n, _) = s.recv_from(&mut buffer).expect("an answer");
    buffer[..n].to_vec()
}

fn no_answer(s: &UdpSocket) -> bool {
    s.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    s.recv_from(&mut [0; 64]).is_err()
}

#[test]
fn a_stream_program_accepts_by_itself_and_is_started_once() {
    let text = "for n in range(3):\n c, _ = s.accept()\n c.sendall(b'%d %s %s %s\\n' % (n, os.environb[b'PROTO'], os.environb[b'TCPLOCALPORT'], str('TCPREMOTEIP' in os.environ).encode()))\n c.close()\n";
    let d = Daemon::with(&row("own", "stream tcp wait", "own", ""))
        .file("own", &python("SOCK_STREAM", text))
        .start();
    let at = d.port(0);
    for n in 0..3 {
        let expected = format!("{n} TCP {} False\n", at.port());
        Client::connect(at).expect(expected).end();
    }
    d.wait_log("EXIT service=own");
    let line = d.wait_log("START service=own");
    assert!(!line.contains("from="), "{line}");
    // The next client starts it again.
    Client::connect(at).expect(format!("0 TCP {} False\n", at.port())).end();
    d.wait_logs("START service=own", 2);
}

#[test]
fn a_datagram_program_gets_the_first_datagram_and_all_that_follow() {
    let text = "for _ in range(2):\n b, a = s.recvfrom(99)\n s.sendto(b'%d %s %s ' % (os.getpid(), os.environb[b'PROTO'], os.environb[b'UDPLOCALPORT']) + b, a)\n";
    let d = Daemon::with(&row("own", "dgram udp wait", "own", ""))
        .file("own", &python("SOCK_DGRAM", text))
        .start();
    let (at, c) = (d.port(0), udp());
    c.send_to(b"one", at).expect("send");
    let first = String::from_utf8(answer(&c)).expect("text");
    assert!(first.ends_with(&format!(" UDP {} one", at.port())), "{first}");
    c.send_to(b"two", at).expect("send");
    let second = String::from_utf8(answer(&c)).expect("text");
    assert_eq!(first.split(' ').next(), second.split(' ').next(), "one program");
    d.wait_log("EXIT service=own");
    let line = d.wait_log("START service=own");
    assert!(line.contains(" from=127.0.0.1"), "{line}");
    c.send_to(b"three", at).expect("send");
    assert!(answer(&c).ends_with(b" three"));
}

#[test]
fn each_datagram_that_waits_when_a_program_ends_gets_the_next_program() {
    let d = Daemon::with(&row("own", "dgram udp wait", "own", ""))
        .file("own", &python("SOCK_DGRAM", "b, a = s.recvfrom(99)\ns.sendto(b, a)\n"))
        .start();
    let (at, c) = (d.port(0), udp());
    for n in 0..6 {
        c.send_to(&[n], at).expect("send");
    }
    for n in 0..6 {
        assert_eq!(answer(&c), [n]);
    }
    d.wait_logs("EXIT service=own", 6);
    let log = d.log();
    let of_own = log.lines().filter(|l| l.contains(" service=own "));
    let verbs: Vec<_> = of_own.filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(verbs, ["START", "EXIT"].repeat(6), "{log}");
    // Nothing was left, and the port is watched again.
    c.send_to(b"after", at).expect("send");
    assert_eq!(answer(&c), b"after");
}

#[test]
fn a_load_balancer_at_a_program_that_accepts_by_itself_is_warned_of() {
    let rows =
        row("own", "stream tcp wait", "own", "") + &row("other", "dgram udp wait", "own", "");
    let d = Daemon::with(&format!("proxy_from = 127.0.0.9\n{rows}")).start();
    let line = d.wait_log("its program accepts by itself");
    assert!(line.starts_with("WARN ") && line.contains(": own: "), "{line}");
    // Warnings come before the first address that it listens on.
    assert!(!d.log().contains(": other: "), "{}", d.log());
    let log = Daemon::with(&rows).start().log();
    assert!(!log.contains("its program accepts by itself"), "{log}");
}

#[test]
fn a_datagram_of_one_who_may_not_is_dropped_and_logged() {
    let conf = "echo dgram udp wait @USER@ internal\n port = 127.0.0.1:0\n only_from = 127.0.0.2\n";
    let d = Daemon::with(conf).start();
    let (at, stranger) = (d.port(0), udp());
    let friend = UdpSocket::bind("127.0.0.2:0").expect("bind");
    friend.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    stranger.send_to(b"let me in", at).expect("send");
    let line = d.wait_log("REFUSE service=echo");
    assert!(line.contains(" from=127.0.0.1") && line.contains(" reason=address"), "{line}");
    friend.send_to(b"hello", at).expect("send");
    assert_eq!(answer(&friend), b"hello");
    assert!(no_answer(&stranger));
}

#[test]
fn refused_datagrams_cannot_fill_the_log_and_are_all_counted() {
    let conf = "echo dgram udp wait @USER@ internal\n port = 127.0.0.1:0\n only_from = 127.0.0.2\n";
    let mut d = Daemon::with(conf).start();
    let (at, stranger) = (d.port(0), udp());
    let friend = UdpSocket::bind("127.0.0.2:0").expect("bind");
    friend.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    // No more than the kernel keeps for the socket.
    for _ in 0..150 {
        stranger.send_to(b"x", at).expect("send");
    }
    friend.send_to(b"all seen", at).expect("send");
    assert_eq!(answer(&friend), b"all seen");
    d.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(d.wait(), 0);
    let log = d.log();
    let refused = log.lines().filter(|l| l.starts_with("REFUSE service=echo "));
    let (counts, lines): (Vec<_>, Vec<_>) = refused.partition(|l| l.contains(" more="));
    let more = |l: &&str| l.split(" more=").nth(1).and_then(|n| n.parse::<usize>().ok());
    let more: usize = counts.iter().map(|l| more(l).expect("a number")).sum();
    // A busy machine may take longer than one window.
    assert!(!counts.is_empty() && lines.len() <= 5 * counts.len(), "{log}");
    assert!(counts[0].contains(" reason=address "), "{log}");
    assert_eq!(lines.len() + more, 150, "{log}");
}

#[test]
fn what_was_not_started_is_no_program_that_left_anything() {
    let text = "b, a = s.recvfrom(99)\ns.sendto(b, a)\n";
    let conf = row("echo", "dgram udp wait", "echo", " cps = 1 2\n")
        + "none dgram udp wait no_such_user /bin/true true\n port = 127.0.0.1:0\n";
    let d = Daemon::with(&conf).file("echo", &python("SOCK_DGRAM", text)).start();
    let (at, c) = (d.ports::<2>(), udp());
    c.send_to(b"x", at[1]).expect("send");
    // The second comes too soon, on a slow machine a later one, and is served when the limit allows it.
    until("one comes too soon", || {
        c.send_to(b"one", at[0]).expect("send");
        assert_eq!(answer(&c), b"one");
        d.log().contains("REFUSE service=echo host= from=127.0.0.1 reason=cps")
    });
    d.wait_logs("REFUSE service=none", 3);
    assert!(!d.log().contains("its program ended"), "{}", d.log());
}

#[test]
fn internal_datagram_services_answer_no_more_than_they_were_sent() {
    let rows: String = ["echo", "discard", "chargen", "daytime", "time"]
        .map(|n| format!("{n} dgram udp wait @USER@ internal\n port = 127.0.0.1:0\n"))
        .concat();
    let d = Daemon::with(&rows).start();
    let (at, c) = (d.ports::<5>(), udp());
    c.send_to(b"abc", at[0]).expect("send");
    assert_eq!(answer(&c), b"abc");
    c.send_to(&[0; 100], at[2]).expect("send");
    assert_eq!(answer(&c).len(), 100);
    c.send_to(&[0; 100], at[3]).expect("send");
    assert!(answer(&c).ends_with(b"\r\n"));
    c.send_to(&[0; 4], at[4]).expect("send");
    assert_eq!(answer(&c).len(), 4);
    for n in [1, 3, 4] {
        c.send_to(b"x", at[n]).expect("send");
    }
    d.wait_logs("START service=", 5);
    assert!(no_answer(&c));
}

#[test]
fn a_program_that_takes_nothing_is_started_again_ever_less_often() {
    let conf = row("bad", "dgram udp wait", "bad", "")
        + "stuck stream tcp wait @USER@ /bin/false false\n port = 127.0.0.1:0\n"
        + &row("good", "stream tcp wait", "good", "");
    let take = "c, _ = s.accept()\nc.sendall(b'served\\n')\n";
    let d = Daemon::with(&conf)
        .file("bad", &python("SOCK_DGRAM", ""))
        .file("good", &python("SOCK_STREAM", take))
        .start();
    let at = d.ports::<3>();
    udp().send_to(b"x", at[0]).expect("send");
    let _stuck = Client::connect(at[1]);
    let began = Instant::now();
    for name in ["bad", "stuck"] {
        d.wait_logs(&format!("START service={name}"), 4);
        let line = d.wait_log(&format!(": {name}: its program ended"));
        assert!(line.starts_with("WARN ") && line.contains("again after 1 s"), "{line}");
    }
    assert!(began.elapsed() > Duration::from_secs(2), "twice at once, then after 1 and 2 s");
    // One that serves a client and ends is never late, whoever waits meanwhile.
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(at[2])).collect();
    clients.iter_mut().for_each(|c| {
        c.expect("served\n").end();
    });
    assert!(!d.log().contains(": good: its program"), "{}", d.log());
}

#[test]
fn one_source_at_its_limit_keeps_a_datagram_program_from_nobody() {
    let conf = "max_services_per_source = 1\nper_source = 1\necho dgram udp wait @USER@ internal\n port = 127.0.0.1:0\ncat stream tcp nowait @USER@ /bin/cat cat\n";
    let d = Daemon::with(conf).start();
    let at = d.port(0);
    let mut full = d.connect();
    full.send("cat\r\nx").expect("+Go\r\nx");
    let c = udp();
    c.send_to(b"one", at).expect("send");
    assert_eq!(answer(&c), b"one");
    assert!(!d.log().contains("REFUSE"), "{}", d.log());
}

#[test]
fn a_program_is_started_so_often_a_minute_and_no_more() {
    let text = "b, a = s.recvfrom(99)\ns.sendto(b, a)\n";
    let conf = row("own", "dgram udp wait.2", "own", "");
    let d = Daemon::with(&conf).file("own", &python("SOCK_DGRAM", text)).start();
    let (at, c) = (d.port(0), udp());
    for text in [b"one", b"two"] {
        c.send_to(text, at).expect("send");
        assert_eq!(answer(&c), text);
    }
    // It stays in the queue, and fived tries again every second: it was not refused so often.
    c.send_to(b"three", at).expect("send");
    d.wait_log("REFUSE service=own host= from=127.0.0.1 reason=cps");
    std::thread::sleep(Duration::from_millis(2500));
    for (line, n) in [("START service=own", 2), ("REFUSE service=own", 1)] {
        assert_eq!(d.log().matches(line).count(), n, "{}", d.log());
    }
}

/// Each time that a limit keeps the program from being started there is one line.
#[test]
fn a_program_that_is_started_again_may_be_refused_again() {
    let text = "b, a = s.recvfrom(99)\ns.sendto(b, a)\n";
    let conf = row("own", "dgram udp wait", "own", " cps = 1 2\n");
    let d = Daemon::with(&conf).file("own", &python("SOCK_DGRAM", text)).start();
    let (at, c) = (d.port(0), udp());
    let refused = || d.log().matches("REFUSE service=own host= from=127.0.0.1 reason=cps").count();
    for n in 1..=2 {
        // On a slow machine not even the second may come too soon.
        until("one comes too soon", || {
            c.send_to(b"x", at).expect("send");
            assert_eq!(answer(&c), b"x");
            refused() == n
        });
    }
}

#[test]
fn the_environment_tells_of_the_port_and_of_no_client() {
    let take = [
        (
            "own",
            "dgram udp wait",
            "SOCK_DGRAM",
            "b, a = s.recvfrom(99)\nsay = lambda t: s.sendto(t, a)\n",
        ),
        ("two", "stream tcp wait", "SOCK_STREAM", "c, _ = s.accept()\nsay = c.sendall\n"),
    ];
    // Python adds LC_CTYPE.
    let told = "all = [k + b'=' + v + b'\\n' for k, v in os.environb.items() if k != b'LC_CTYPE']\nsay(b''.join(sorted(all)))\n";
    let rows: String =
        take.iter().map(|(name, columns, ..)| row(name, columns, name, "")).collect();
    let mut b = Daemon::with(&rows).env("FIVED_TEST_LEAK", "1");
    for (name, _, kind, text) in take {
        b = b.file(name, &python(kind, &format!("{text}{told}")));
    }
    let d = b.start();
    let ([udp_port, tcp_port], c) = (d.ports::<2>(), udp());
    c.send_to(b"x", udp_port).expect("send");
    let said = [answer(&c), Client::connect(tcp_port).read_all()];
    let me = nix::unistd::User::from_name(&user()).expect("passwd").expect("user");
    for (n, (said, port)) in said.iter().zip([udp_port, tcp_port]).enumerate() {
        let (kind, name) = (["UDP", "TCP"][n], ["own", "two"][n]);
        let wanted = [
            "FIVED_HOST=".to_string(),
            format!("FIVED_SERVICE={name}"),
            format!("FIVED_SESSION={}", n + 1),
            format!("HOME={}", me.dir.display()),
            format!("LOGNAME={}", me.name),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            format!("PROTO={kind}"),
            format!("SHELL={}", me.shell.display()),
            format!("{kind}LOCALIP=127.0.0.1"),
            format!("{kind}LOCALPORT={}", port.port()),
            format!("USER={}", me.name),
        ];
        let mut wanted = wanted.map(|line| line + "\n");
        wanted.sort();
        same(said, wanted.concat());
    }
}

#[test]
fn each_port_of_a_row_has_a_program_of_its_own() {
    let text = "c, _ = s.accept()\nc.sendall(b'hello\\n')\nc.recv(1)\n";
    let conf = row("two", "stream tcp wait", "two", "").replace(":0\n", ":0 127.0.0.2:0\n");
    let d = Daemon::with(&conf).file("two", &python("SOCK_STREAM", text)).start();
    let mut both = d.ports::<2>().map(Client::connect);
    both.iter_mut().for_each(|c| {
        c.expect("hello\n");
    });
    assert!(!d.log().contains("REFUSE"), "{}", d.log());
}

#[test]
fn a_reload_keeps_the_program_and_its_socket() {
    let text = "while True:\n c, _ = s.accept()\n c.sendall(b'%d\\n' % os.getpid())\n c.close()\n";
    let conf = row("own", "stream tcp wait", "own", "");
    let d = Daemon::with(&conf).file("own", &python("SOCK_STREAM", text)).start();
    let at = d.port(0);
    let pid = Client::connect(at).read_all();
    d.reload(&(conf + "more stream tcp nowait @USER@ /bin/true true\n"));
    same(Client::connect(at).read_all(), pid);
    assert_eq!(d.wait_logs("START service=own", 1).len(), 1);
}

#[test]
fn a_port_may_be_written_in_another_way_at_a_reload() {
    let text = "while True:\n c, _ = s.accept()\n c.sendall(b'%d\\n' % os.getpid())\n c.close()\n";
    let conf = row("own", "stream tcp wait", "own", "");
    let d = Daemon::with(&conf).file("own", &python("SOCK_STREAM", text)).start();
    let at = d.port(0);
    let pid = Client::connect(at).read_all();
    for (columns, port) in [
        ("tcp", at.to_string()),
        ("tcp4", at.to_string()),
        ("tcp", format!("[::ffff:{}]:{}", at.ip(), at.port())),
    ] {
        let conf = conf.replace("tcp", columns).replace("127.0.0.1:0", &port);
        let line = d.reload(&conf);
        assert!(line.ends_with("services=1"), "{columns} {port}: {line}\n{}", d.log());
        same(Client::connect(at).read_all(), &pid);
    }
    assert_eq!(d.wait_logs("START service=own", 1).len(), 1);
}

#[test]
fn a_port_may_change_between_a_program_and_fived_at_a_reload() {
    let at = free_address();
    // It has had the socket, and leaves it as it is given.
    let take = "for n in range(2):\n c, _ = s.accept()\n c.sendall(b'program\\n')\n c.close()\n";
    let wait = row("own", "stream tcp wait", "own", "").replace("127.0.0.1:0", &at.to_string());
    let nowait = format!("own stream tcp nowait @USER@ /bin/echo echo fived\n port = {at}\n");
    let d = Daemon::with(&wait).file("own", &python("SOCK_STREAM", take)).start();
    for round in 0..2 {
        (0..2).for_each(|_| same(Client::connect(at).read_all(), "program\n"));
        // The program has ended, once in each round; fived's own two, in each round before.
        d.wait_logs("EXIT service=own", 3 * round + 1);
        let reloads = 2 * round;
        d.reload(&nowait);
        d.wait_logs("RELOAD file=", reloads + 1);
        // Twice: what fived is to accept next is never held up by what the program did.
        (0..2).for_each(|_| same(Client::connect(at).read_all(), "fived\n"));
        d.reload(&wait);
        d.wait_logs("RELOAD file=", reloads + 2);
    }
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn what_is_printed_of_such_rows_is_read_again() {
    let place = Place::new();
    for columns in ["stream tcp wait:7", "stream tcp4 wait", "dgram udp6 wait"] {
        let (code, out, err) =
            place.fived(&format!("own {columns} @USER@ /bin/true true\n port = 9\n"), &["-T"]);
        assert_eq!((code, err.as_str()), (0, ""), "{columns}");
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()), "{columns}");
    }
}

#[test]
fn what_such_rows_cannot_have_is_a_mistake() {
    let own = "own stream tcp wait @USER@ /bin/true true\n port = 127.0.0.1:0\n";
    for (conf, what) in [
        ("own dgram udp nowait @USER@ /bin/true true\n port = 9\n", "nowait: expected wait"),
        ("own stream udp wait @USER@ /bin/true true\n port = 9\n", "udp: expected tcp"),
        ("own stream tcp wait @USER@ /bin/true true\n", "own: expected a `port`"),
        ("own stream tcp wait @USER@ internal echo\n port = 9\n", "own: expected a program"),
        (&*format!("{own} only_from = 127.0.0.1\n"), "only_from: expected a row of `nowait`"),
        ("chat stream tcp wait @USER@ handover /run/x\n", "found `handover`"),
        (&*format!("{own} instances = 5\n"), "instances: expected 1 for each port"),
        (&*format!("{own} per_source = 2\n"), "per_source: expected none (the program itself"),
        (&*format!("{own} lingering_close = yes\n"), "lingering_close: expected none"),
        (&*format!("{own} proxy = v1\n"), "proxy: expected a row of `redirect`"),
        (&*format!("{own} connect_timeout = 9\n"), "connect_timeout: expected a row of `redirect`"),
        (&*format!("{own} tcpmux = yes\n"), "tcpmux: expected no name"),
        (&*format!("{own} banner = /etc/hostname\n"), "banner: expected a row of `nowait`"),
        (&*format!("{own} banner_fail = /etc/hostname\n"), "banner_fail: expected a row of"),
    ] {
        let (_, text) = Daemon::with(conf).fails();
        assert!(text.contains(what), "{conf}{text}");
        let lines = text.lines().filter(|l| l.contains("fived.conf:")).count();
        assert_eq!(lines, 1, "{conf}{text}");
    }
}

#[test]
fn what_such_rows_cannot_have_is_no_mistake_while_they_are_switched_off() {
    for row in [
        "own stream tcp wait @USER@ /bin/true true\n",
        "own stream tcp wait @USER@ /bin/true true\n port = 9\n only_from = 127.0.0.1\n libwrap = yes\n",
        "own stream tcp wait @USER@ internal echo\n port = 9\n",
        "own dgram udp4 wait @USER@ internal sensor\n port = '[::1]:9' /run/x\n tls_port = 9\n",
        "own stream unix nowait @USER@ /bin/true true\n port = 9\n",
        "own stream unix nowait @USER@ /bin/true true\n port = /run/x\n socket_owner = no-such-user\n",
        "own stream tcp nowait @USER@ /bin/true true\n port = 9\n require = login\n",
    ] {
        let place = Place::new();
        let (code, out, err) = place.fived(&format!("{row} disable = yes\n"), &["-T"]);
        assert_eq!((code, err.as_str()), (0, ""), "{row}");
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()), "{row}");
        assert_eq!(place.fived(row, &["-t"]).0, 1, "{row}");
    }
}

#[test]
fn what_only_rows_of_another_kind_have_is_a_mistake_and_inherited_has_no_effect() {
    let program = "own stream tcp nowait @USER@ /bin/true true\n";
    let offer = "own stream tcp nowait - offer\n offered_by = alice\n";
    let redirect = "own stream tcp nowait @USER@ redirect 127.0.0.1:9\n";
    for (row, line, mistake) in [
        (program, "proxy = v1", true),
        (program, "connect_timeout = 9", true),
        (program, "socket_mode = 0600", true),
        (program, "socket_owner = root", true),
        (redirect, "socket_owner = root", true),
        (redirect, "proxy = v1", false),
        (redirect, "connect_timeout = 9", false),
        (offer, "proxy = v1", true),
        (offer, "connect_timeout = 9", false),
        (program, "proxy = no", false),
        (program, "socket_mode = 0666", false),
    ] {
        let place = Place::new();
        let (code, _, err) = place.fived(&format!("{row} {line}\n"), &["-t"]);
        assert_eq!(
            (code, err.contains("expected a row of `")),
            (mistake.into(), mistake),
            "{line}: {err}"
        );
        let (code, out, err) = place.fived(&format!("{line}\n{row}"), &["-T"]);
        assert_eq!((code, err.as_str()), (0, ""), "{row}");
        assert_eq!(out.contains(&format!("\t{line}\n")), !mistake, "{row} {line} {out}");
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()), "{row}");
    }
}

#[test]
fn what_such_rows_inherit_and_cannot_have_has_no_effect() {
    let defaults =
        "instances = 5\nper_source = 2\nlingering_close = yes\nproxy = v1\nserver_timeout = 9\n";
    let banners =
        ["banner", "banner_success", "banner_fail"].map(|b| format!("{b} = /etc/hostname\n"));
    for row in [
        "own dgram udp wait @USER@ /bin/true true\n port = 1079\n",
        "own stream tcp wait @USER@ /bin/true true\n port = 1079 1080\n instances = 2\n",
        "own stream tcp nowait @USER@ handover /run/chat.sock\n instances = UNLIMITED\n",
    ] {
        let place = Place::new();
        let [file, section @ ..] = &banners;
        let conf = format!("{defaults}{file}[*]\n{}{row}", section.concat());
        let (code, out, err) = place.fived(&conf, &["-T"]);
        assert_eq!((code, err.as_str()), (0, ""), "{row}");
        assert_eq!(out.contains("\tbanner"), row.contains("nowait"), "{row}{out}");
        for line in ["\tper_source = UNLIMITED\n", "\tlingering_close = no\n"] {
            assert!(out.contains(line), "{row}{out}");
        }
        assert!(!out.contains("\tproxy = v1\n"), "{out}");
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()), "{row}");
    }
}
