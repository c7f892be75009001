//! Ports of services' own: no request, no reply line, the row's rules and limits.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use support::*;

fn at(d: &Daemon, n: usize) -> Client {
    Client::connect((std::net::Ipv4Addr::LOCALHOST, d.port(n).port()).into())
}

#[test]
fn a_service_begins_as_soon_as_a_client_connects() {
    let d = Daemon::with(
        "who stream tcp nowait @USER@ /bin/sh sh -c 'echo $PROTO $TCPREMOTEIP $TCPLOCALPORT $FIVED_SERVICE $FIVED_SESSION; exec cat'\n port = 127.0.0.1:0\n banner = @DIR@/banner\n",
    )
    .file("banner", "welcome\n")
    .start();
    let port = d.port(0).port();
    let mut c = at(&d, 0);
    c.expect(format!("welcome\nTCP 127.0.0.1 {port} who 1\n"));
    c.send("no request\r\n").expect("no request\r\n").half_close().end();
    let line = d.wait_log("START service=who");
    assert!(line.contains(" from=127.0.0.1 session=1"), "{line}");
    // By its name, too, with a reply.
    let mut named = d.connect();
    named.send("who\r\n").expect("+Go\r\nwelcome\nTCP 127.0.0.1 ");
}

#[test]
fn without_a_name_only_the_port_leads_to_it() {
    let d = Daemon::with(
        "hidden stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n tcpmux = no\nhello stream tcp nowait @USER@ /bin/echo echo hello\n",
    )
    .start();
    same(d.ask("hidden\r\n"), "-Service not available\r\n");
    assert!(!d.help().contains(&"hidden".to_string()));
    at(&d, 0).send("x").expect("x");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}

#[test]
fn rows_without_a_name_to_be_reached_by_may_share_it_and_differ_by_their_ports() {
    if !has_ipv6() {
        return;
    }
    let row = |name: &str, port: &str, says: &str| {
        format!(
            "{name} stream tcp nowait @USER@ /bin/sh sh -c 'echo {says}; cat'\n port = {port}\n tcpmux = no\n instances = 1\n"
        )
    };
    // LOGIN is a built-in, and a port of its own is something else.
    let rows = row("login", "127.0.0.1:0", "one")
        + &row("login", "[::1]:0", "two")
        + "tcpmux/+hello stream tcp nowait @USER@ /bin/echo echo hello\n"
        + &row("hello", "127.0.0.2:0", "three")
        + "hello stream tcp nowait @USER@ /bin/echo echo off\n tcpmux = no\n disable = yes\n";
    let d = Daemon::with(&rows).start();
    let mut held = d.ports::<3>().map(Client::connect);
    for (c, says) in held.iter_mut().zip(["one", "two", "three"]) {
        c.expect(format!("{says}\n"));
    }
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    assert_eq!(at_all(&d), ["", "", ""], "each has its own limit");
}

/// What clients at each of three ports are told.
fn at_all(d: &Daemon) -> [String; 3] {
    let told = |a| String::from_utf8_lossy(&Client::connect(a).read_all()).into_owned();
    d.ports::<3>().map(told)
}

#[test]
fn a_refused_client_is_closed_after_its_banner() {
    let d = Daemon::with(
        "far stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n only_from = 192.0.2.1\n banner_fail = @DIR@/no\n\
         one stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n instances = 1\n banner_fail = @DIR@/no\n\
         gone stream tcp nowait @USER@ /no/such/program\n port = 127.0.0.1:0\n banner_fail = @DIR@/no\n",
    )
    .file("no", "not now\n")
    .start();
    // A hidden service is not told from none.
    assert_eq!(at(&d, 0).read_any(), b"");
    assert!(d.wait_log("REFUSE service=far").contains("reason=address"));
    let mut first = at(&d, 1);
    first.send("x").expect("x");
    for _ in 0..20 {
        // What it has sent does not make the answer a reset.
        let mut second = at(&d, 1);
        second.send("unread").half_close();
        same(second.read_all(), "not now\n");
    }
    assert!(d.wait_log("REFUSE service=one").contains("reason=instances"));
    first.send("y").expect("y");
    same(at(&d, 2).read_all(), "not now\n");
    assert!(d.wait_log("REFUSE service=gone").contains("reason=failed"));
}

/// More of them than the parent would hold for a net process that is slow to take them: they wait
/// in the backlog instead.
#[test]
fn a_crowd_that_is_refused_with_a_banner_is_taken_as_net_can_take_it() {
    const PORTS: usize = 3;
    const EACH: usize = 2300;
    let backlog: usize = read("/proc/sys/net/core/somaxconn").trim().parse().expect("a number");
    if !descriptors(10_000) || backlog < EACH {
        return skip("needs 10000 descriptors and a backlog of 2300");
    }
    let row = |n| format!("no{n} stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n");
    let rows: String = (0..PORTS).map(row).collect();
    let conf = format!(
        "max_connections = 20000\nbacklog = 4096\ninstances = 1\nbanner_fail = @DIR@/no\n{rows}"
    );
    let d = Daemon::with(&conf).file("no", "not now\n").start();
    let (net, ports) = (d.net_pid(), d.ports::<PORTS>());
    let mut session = d.connect();
    session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut first = ports.map(Client::connect);
    for c in &mut first {
        c.send("x").expect("x");
    }
    let Some(held) = proc::hold(net) else { return };
    let mut crowd = Vec::new();
    for n in 0..PORTS * EACH {
        crowd.push(Client::connect(ports[n % PORTS]));
    }
    // What the last of all has sent does not make the answer a reset.
    crowd.last_mut().expect("a crowd").send("unread").half_close();
    drop(held);
    same(crowd.last_mut().expect("a crowd").read_all(), "not now\n");
    assert!(session.silent(10), "its session stands");
    assert_eq!(d.net_pid(), net, "no other one was started");
}

#[test]
fn the_rules_and_limits_of_a_row_hold_at_its_port() {
    let row = |name: &str, rule: &str| {
        format!("{name} stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n {rule}\n")
    };
    // Of this computer, as for fived.
    let mut date = std::process::Command::new("date");
    let hour = date.arg("+%H").env_remove("TZ").output().expect("date").stdout;
    let day = matches!(String::from_utf8_lossy(&hour).trim().parse(), Ok(6..18));
    let closed = if day { "access_times = 20:00-21:00" } else { "access_times = 12:00-13:00" };
    let d = Daemon::with(
        &(row("hours", closed)
            + &row("denied", "no_access = 127.0.0.0/8")
            + &row("rate", "cps = 1 600")
            + &row("source", "per_source = 1")),
    )
    .start();
    let mut held = [at(&d, 2), at(&d, 3)];
    held.iter_mut().for_each(|c| {
        c.send("x").expect("x");
    });
    for (n, why) in ["hours", "address", "cps", "per_source"].into_iter().enumerate() {
        at(&d, n).end();
        let name = ["hours", "denied", "rate", "source"][n];
        let line = d.wait_log(&format!("REFUSE service={name} "));
        assert!(line.contains(&format!(" from=127.0.0.1 reason={why} ")), "{line}");
    }
}

#[test]
fn no_address_is_every_address_and_a_family_is_that_family() {
    if !has_ipv6() {
        return;
    }
    let d = Daemon::with("all stream tcp nowait @USER@ internal echo\n port = 0\n").start();
    let port = d.port(0).port();
    for host in ["127.0.0.1", "[::1]"] {
        let mut c = Client::connect(format!("{host}:{port}").parse().expect("address"));
        c.send("x").expect("x");
    }
    // The same port for each family; the system could give `port` to a client between two reloads.
    let port = free_port();
    d.reload(&format!("all stream tcp nowait @USER@ internal echo\n port = {port}\n"));
    d.wait_log(&format!("listening on [::]:{port}"));
    let conf = format!(
        "four stream tcp4 nowait @USER@ /bin/echo echo four\n port = {port}\nsix stream tcp6 nowait @USER@ /bin/echo echo six\n port = {port}\n"
    );
    d.reload(&conf);
    until("the port is the rows' of each family", || {
        let ask = |host: &str| {
            let mut all = String::new();
            let _ = TcpStream::connect(format!("{host}:{port}"))
                .and_then(|mut s| s.read_to_string(&mut all));
            all
        };
        ask("127.0.0.1") == "four\n" && ask("[::1]") == "six\n"
    });
}

/// As under inetd and xinetd: programs that know sockaddr_in alone would take the addresses of a
/// socket of IPv6 for other ones, or refuse the client. IPv6 clients have the same port.
#[test]
fn a_client_of_ipv4_has_a_socket_of_ipv4_at_a_port_of_both_families() {
    if !has_ipv6() {
        return;
    }
    let conf = "listen = [::]:0\n\
        who stream tcp nowait @USER@ /usr/bin/python3 python3 @DIR@/who.py\n port = 0\n";
    let program = "import socket\ns = socket.socket(fileno=0)\n\
        print(s.family.name, s.getpeername()[0], s.getsockname()[0])\n";
    let d = Daemon::with(conf).file("who.py", program).listen("").start();
    let ports = [d.listening(2)[0].port(), d.listening(2)[1].port()];
    for (port, request, reply) in [(ports[0], "who\r\n", "+Go\r\n"), (ports[1], "", "")] {
        for (host, said) in
            [("127.0.0.1", "AF_INET 127.0.0.1 127.0.0.1\n"), ("[::1]", "AF_INET6 ::1 ::1\n")]
        {
            let mut c = Client::connect(format!("{host}:{port}").parse().expect("address"));
            c.send(request).expect(format!("{reply}{said}")).end();
        }
    }
}

#[test]
fn a_reload_moves_ports_and_keeps_what_stays() {
    const ROW: &str = "echo stream tcp nowait @USER@ internal\n port = ";
    let (a, b) = (free_address(), free_address());
    let d = Daemon::with(&format!("{ROW}{a}\n")).start();
    let mut old = Client::connect(a);
    old.send("before").expect("before");
    d.reload(&format!("{ROW}{a} {b}\n"));
    d.wait_log(&format!("listening on {b}"));
    Client::connect(b).send("new").expect("new");
    Client::connect(a).send("kept").expect("kept");
    d.reload(&format!("{ROW}{b}\n"));
    until("the port is given up", || TcpStream::connect(a).is_err());
    old.send("still").expect("still");
    // What cannot be bound leaves all as it was.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = taken.local_addr().expect("address");
    d.reload(&format!("{ROW}{there}\n"));
    d.wait_log("refused mistakes=1");
    Client::connect(b).send("as before").expect("as before");
}

#[test]
fn free_ports_of_two_rows_stay_with_their_rows_at_a_reload() {
    let row = |name: &str| {
        format!("{name} stream tcp nowait @USER@ /bin/echo echo {name}\n port = 127.0.0.1:0\n")
    };
    let d = Daemon::with(&(row("a") + &row("b"))).start();
    let has = |n: usize, name: &str| same(at(&d, n).read_all(), format!("{name}\n"));
    has(0, "a");
    has(1, "b");
    d.reload(&(row("b") + &row("c") + &row("a")));
    has(0, "a");
    has(1, "b");
    has(2, "c");
    let gone = d.port(0);
    d.reload(&(row("c") + &row("b")));
    until("the port is given up", || TcpStream::connect(gone).is_err());
    has(1, "b");
    has(2, "c");
}

#[test]
fn another_backlog_is_given_to_the_listener_that_stands() {
    let free = free_address();
    let row = |backlog: u32| {
        format!(
            "day stream tcp nowait @USER@ internal daytime\n port = {free}\n backlog = {backlog}\n"
        )
    };
    let d = Daemon::with(&row(100)).start();
    d.reload(&row(200));
    Client::connect(free).read_all();
    // A new one would have lost who waited at the old one.
    assert_eq!(d.log().matches(&format!("listening on {free}")).count(), 1, "{}", d.log());
}

#[test]
fn fived_may_move_to_a_port_that_a_row_gives_up() {
    let (a, b) = (free_address(), free_address());
    let conf = |own: SocketAddr, row: SocketAddr| {
        format!(
            "listen = {own}\nhello stream tcp nowait @USER@ /bin/echo echo hello\n port = {row}\n"
        )
    };
    let d = Daemon::with(&conf(a, b)).listen("").start();
    assert!(!d.reload(&conf(b, a)).contains("refused"));
    until("fived listens there", || {
        let mut c = Client::connect(b);
        c.send("hello\r\n");
        c.read_any() == b"+Go\r\nhello\n"
    });
    until("the row is there", || Client::connect(a).read_any() == b"hello\n");
}

#[test]
fn fived_and_a_row_never_share_a_port() {
    let there = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address");
    let row = |port: &str| format!("echo stream tcp nowait @USER@ internal\n port = {port}\n");
    let said = |d: support::Builder, own: &str| {
        let (code, text) = d.fails();
        assert_eq!(code, 1, "{text}");
        let what = format!("expected a port that `listen` and -l leave, found {own}\n");
        assert!(text.contains(&what), "{text}");
    };
    let there = there.to_string();
    said(Daemon::with(&row(&there)).listen(&there), &there);
    for (own, port) in [("0.0.0.0:7001", "7001"), ("[::]:7001", "0.0.0.0:7001")] {
        said(Daemon::with(&format!("listen = {own}\n{}", row(port))).listen(""), own);
    }
}

/// -l replaces `listen`: what that says, or would say by default, takes no port then.
#[test]
fn where_l_is_given_a_row_may_have_the_port_of_listen() {
    let row =
        |at: &str| format!("hello stream tcp nowait @USER@ /bin/echo echo hello\n port = {at}\n");
    // Without `listen`, its default is `[::]:1`.
    for words in [&["-t"][..], &["-T"]] {
        let (code, _, err) =
            Place::new().fived(&row("1"), &[words, &["-l", "127.0.0.1:7777"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
        let (code, _, err) = Place::new().fived(&row("1"), words);
        assert!(code == 1 && err.contains("leave, found [::]:1\n"), "{words:?}: {err}");
    }
    let at = free_address();
    let conf = format!("listen = {at}\n{}", row(&at.to_string()));
    let d = Daemon::with(&conf).start();
    same(Client::connect(at).read_all(), "hello\n");
    let line = d.reload(&format!("{conf}more stream tcp nowait @USER@ /bin/echo echo more\n"));
    assert!(line.ends_with(" services=2"), "{line}");
}

/// Who comes between the last look and the close is lost: here they have all come before.
#[test]
fn who_waits_at_a_port_that_is_given_up_is_served() {
    let (stays, goes) = (free_address(), free_address());
    let row = |ports: &str| {
        let own = "state_directory = @DIR@/state\necho stream tcp nowait @USER@ internal\n";
        format!("{own} port = {ports}\n")
    };
    let confs = [row(&stays.to_string()), row(&format!("{stays} {goes}"))];
    let d = Daemon::with(confs[1].split_once('\n').expect("a row").1).start();
    for n in 0..20 {
        let conf = &confs[n % 2];
        d.signal(Signal::SIGSTOP);
        let at = if n % 2 == 0 { goes } else { stays };
        let mut come: Vec<Client> = (0..8).map(|_| Client::connect(at)).collect();
        d.place.write("fived.conf", conf, 0o644);
        d.signal(Signal::SIGHUP);
        d.signal(Signal::SIGCONT);
        d.wait_logs("RELOAD file=", n + 1);
        for c in &mut come {
            same(c.send("x").half_close().read_all(), "x");
        }
        if n % 2 == 0 {
            until("the port is closed", || TcpStream::connect(goes).is_err());
        }
    }
}

#[test]
fn a_port_that_is_taken_refuses_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("address");
    let (code, text) =
        Daemon::with(&format!("echo stream tcp nowait @USER@ internal\n port = {at}\n")).fails();
    assert_eq!(code, 111, "{text}");
    assert!(text.contains(&format!("{at}: ")), "{text}");
}

#[test]
fn mistakes_are_reported() {
    let conf = "listen = 127.0.0.1:7001\n\
        a stream tcp nowait @USER@ internal echo\n port = nonsense-service\n\
        b stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:7000 70000 ::1:5 1.2.3.4.5:6\n\
        c stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:7000\n\
        d stream tcp4 nowait @USER@ internal echo\n port = [::1]:7002\n\
        e stream tcp nowait @USER@ internal echo\n port = 7003\n require = tls\n\
        f stream tcp nowait * internal echo\n port = 7004\n\
        g stream tcp nowait @USER@ internal echo\n tcpmux = no\n\
        h stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:7001\n\
        i stream tcp nowait @USER@ internal echo\n port = 7005\nj stream tcp4 nowait @USER@ internal echo\n port = 7005\n";
    let (code, text) = Daemon::with(conf).listen("").fails();
    assert_eq!(code, 1, "{text}");
    for (line, what) in [
        (6, "port: expected PORT, ADDRESS:PORT, [IPV6-ADDRESS]:PORT or /PATH, found \"70000\""),
        (6, "port: expected PORT, ADDRESS:PORT, [IPV6-ADDRESS]:PORT or /PATH, found \"::1:5\""),
    ] {
        assert!(text.contains(&format!(":{line}: {what}")), "{what}: {text}");
    }
    let conf = conf.replace(" 70000 ::1:5 1.2.3.4.5:6", "");
    let (code, text) = Daemon::with(&conf).listen("").fails();
    assert_eq!(code, 1, "{text}");
    for what in [
        "port: expected a number or a name of services(5), found \"nonsense-service\"",
        "127.0.0.1:7000: expected each address and port once, found it at ",
        "[::1]:7002: expected an address of tcp4, found ::1",
        "e: expected a row that everybody may use (nobody logs in or encrypts at a port of its own), found `require` at ",
        "f: expected a row that everybody may use (nobody logs in or encrypts at a port of its own), found the user `*`",
        "g: expected a `port`",
        "127.0.0.1:7001: expected a port that `listen` and -l leave, found 127.0.0.1:7001",
        "7005: expected each address and port once",
    ] {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert_eq!(text.lines().filter(|l| l.contains(": expected ")).count(), 8, "{text}");
}

#[test]
fn many_clients_at_once_all_have_their_service() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let d = Daemon::with(
        "echo stream tcp nowait @USER@ internal\n port = 127.0.0.1:0\n backlog = 512\n",
    )
    .start();
    let to = d.port(0);
    let all: Vec<TcpStream> = (0..150).map(|_| TcpStream::connect(to).expect("connect")).collect();
    for (n, mut s) in all.into_iter().enumerate() {
        s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        s.write_all(&[n as u8]).expect("send");
        let mut back = [0];
        s.read_exact(&mut back).expect("its own byte");
        assert_eq!(back[0], n as u8);
    }
}

#[test]
fn a_thousand_ports_wake_nobody_while_no_client_comes() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let row = |n: usize| {
        format!("p{n} stream tcp nowait @USER@ /bin/cat cat\n port = 127.0.0.1:0\n tcpmux = no\n")
    };
    let d = Daemon::with(&(0..1000).map(row).collect::<String>()).start();
    at(&d, 999).send("hello").expect("hello").half_close().end();
    // Each line: a process, and how often one of its threads was woken or stopped running.
    let counts = || -> Vec<String> {
        let all = [vec![d.parent_pid()], proc::descendants(d.parent_pid())].concat();
        let threads = |pid: i32| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
            let status = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("status"));
            let mut lines: Vec<String> = tasks
                .filter_map(|t| status(t.ok()?).ok())
                .flat_map(|s| s.lines().map(String::from).collect::<Vec<_>>())
                .filter(|l| l.contains("ctxt_switches") || l.starts_with("Name:"))
                .collect();
            lines.insert(0, format!("pid {pid}"));
            lines
        };
        all.into_iter().flat_map(threads).collect()
    };
    // Soon after the last client there is nothing left to do, and no timer is set.
    let seconds = trial_size("quiet", 4, 120);
    let mut before = counts();
    for _ in 0..15 {
        std::thread::sleep(std::time::Duration::from_secs(seconds as u64));
        let now = counts();
        if now == before {
            let threads = now.iter().filter(|line| line.starts_with("Name:")).count();
            return trial("quiet", format!("{seconds} s, {threads} threads, woken 0 times"));
        }
        before = now;
    }
    panic!("somebody is woken in every {seconds} seconds: {before:?}");
}

#[test]
fn an_ipv4_address_within_ipv6_is_that_ipv4_address() {
    let d = Daemon::with(
        "own stream tcp nowait @USER@ /bin/echo echo own\n port = [::ffff:127.0.0.1]:0\n",
    )
    .start();
    assert!(d.port(0).is_ipv4(), "{}", d.log());
    at(&d, 0).expect("own\n").end();
    let six = "own stream tcp6 nowait @USER@ internal echo\n port = [::ffff:127.0.0.1]:7\n";
    let (code, _, err) = Place::new().fived(six, &["-t"]);
    assert!(code == 1 && err.contains("expected an address of tcp6, found 127.0.0.1"), "{err}");
}

#[test]
fn what_is_decided_of_rows_that_have_ports_alone() {
    let conf = "own stream tcp nowait @USER@ internal echo\n port = 1079\n tcpmux = no\n only_from = 10.0.0.0/8\n\
        tls stream tcp nowait @USER@ internal echo\n tls_port = 1080\n tcpmux = no\n require = tls\n\
        off dgram udp wait @USER@ internal echo\n port = 1081\n disable = yes\n";
    let place = Place::new();
    for (query, answer, rest) in [
        ("service=own,addr=10.1.2.3", "allow own ", ":1"),
        ("service=OWN,addr=192.0.2.1", "deny own ", ":4 address"),
        ("service=tls", "allow tls ", ":5"),
        ("service=off", "deny off ", ":11 disabled"),
        ("service=none", "deny none - unknown", ""),
    ] {
        let text = place.decide(conf, query);
        let text = text.trim_end();
        assert!(text.starts_with(answer) && text.ends_with(rest), "{query}: {text}");
    }
}

/// Who came first is not served first, where one source has hundreds of connections.
#[test]
fn one_source_keeps_no_other_waiting_at_a_port() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let conf = "hello stream tcp nowait @USER@ /bin/echo echo hello\n port = 127.0.0.1:0\n";
    let mut d = Daemon::with(&format!("max_services_per_source = 1000\n{conf}")).start();
    d.signal(Signal::SIGSTOP);
    // Fewer than may wait for one user's starts, where those are slow.
    let mut flood: Vec<Client> = (0..200).map(|_| at(&d, 0)).collect();
    let (from, to) = ("127.0.0.2", (std::net::Ipv4Addr::LOCALHOST, d.port(0).port()).into());
    let mut honest = connect_from(from.parse().expect("address"), to);
    d.signal(Signal::SIGCONT);
    same(honest.read_all(), "hello\n");
    flood.iter_mut().for_each(|c| same(c.read_all(), "hello\n"));
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    let log = d.log();
    let place = log.lines().filter(|l| l.starts_with("START")).position(|l| l.contains(from));
    assert!(place.is_some_and(|n| n < 60), "{place:?}");
}

/// Have all connections been accepted that wait there? Those that listen are the first in the list,
/// which may be long.
fn are_accepted(port: SocketAddr) -> bool {
    let local = format!(":{:04X}", port.port());
    let list = BufReader::new(std::fs::File::open("/proc/net/tcp").expect("tcp"));
    let listener = list.lines().map_while(Result::ok).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1].ends_with(&local) && words[3] == "0A").then(|| words[4].to_string())
    });
    listener.expect("a listener").ends_with(":00000000")
}

/// Nor is it served first where all of them were accepted before the other one came.
#[test]
fn one_source_that_was_there_alone_keeps_no_other_waiting_at_a_port() {
    const FLOOD: usize = 1500;
    let up = upstream::tcp(|mut client| drop(client.write_all(b"hello\n")));
    let conf = format!("hello stream tcp nowait @USER@ redirect {up}\n port = 127.0.0.1:0\n");
    let mut d = Daemon::with(&format!("max_services_per_source = 5000\n{conf}")).start();
    let started = |d: &Daemon, from: &str| {
        let of = |l: &&str| l.starts_with("START") && l.contains(&format!(" from={from} "));
        d.log().lines().filter(of).count()
    };
    // Mostly the first flood is not over before the other one comes.
    for n in 1..100 {
        let (source, from) = (format!("127.1.0.{n}"), format!("127.2.0.{n}"));
        let connect = |from: &str| connect_from(from.parse().expect("address"), d.port(0));
        d.signal(Signal::SIGSTOP);
        let mut flood: Vec<Client> = (0..FLOOD).map(|_| connect(&source)).collect();
        d.signal(Signal::SIGCONT);
        until("all are accepted", || are_accepted(d.port(0)));
        d.signal(Signal::SIGSTOP);
        let before = started(&d, &source);
        let mut honest = connect(&from);
        d.signal(Signal::SIGCONT);
        same(honest.read_all(), "hello\n");
        flood.iter_mut().for_each(|c| same(c.read_all(), "hello\n"));
        drop((flood, honest));
        if before > FLOOD / 2 {
            continue;
        }
        d.signal(Signal::SIGTERM);
        assert_eq!(d.wait(), 0);
        let log = d.log();
        let place = log.lines().filter(|l| l.starts_with("START")).position(|l| l.contains(&from));
        let place = place.map(|place| place - (n - 1) * (FLOOD + 1));
        assert!(place.is_some_and(|place| place < before + 200), "{place:?} {before}");
        return;
    }
    panic!("each flood was over too soon");
}
