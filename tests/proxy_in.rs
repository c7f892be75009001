//! `proxy_from`: a load balancer says who its client is (PROXY protocol), nobody else can,
//! and that client is who counts.

#[path = "support/scrape.rs"]
mod scrape;
mod support;
#[path = "support/tls.rs"]
mod tls;

use fived::wire::orders::{AddressPair, ClientAddresses, FromNet, Message};
use nix::sys::signal::Signal;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;

/// Balancers at 127.0.0.9; everybody else is a client.
const FROM: &str = "proxy_from = 127.0.0.9\n";
/// The balancer's header about a client at 192.0.2.7.
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 99\r\n";
/// What [`WHO`] says of that client.
const SEEN: &str = "192.0.2.7 4711 192.0.2.1 99 192.0.2.7\n";

fn who(name: &str, rest: &str) -> String {
    format!(
        "{name} stream tcp nowait @USER@ /bin/sh sh -c 'echo $TCPREMOTEIP $TCPREMOTEPORT $TCPLOCALIP $TCPLOCALPORT $REMOTE_ADDR; exec cat'\n{rest}"
    )
}

/// Version 2 of a header: command, family, and what comes after the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// The same client as [`V1`], and what else a balancer may say.
fn v2_client() -> Vec<u8> {
    let addresses = b"\xc0\0\x02\x07\xc0\0\x02\x01\x12\x67\0\x63";
    v2(0x21, 0x11, &[&addresses[..], b"\x02\0\x09localhost\x04\0\x02ab"].concat())
}

fn balancer(d: &Daemon) -> Client {
    d.connect_from("127.0.0.9")
}

fn at(to: SocketAddr) -> Client {
    connect_from("127.0.0.9".parse().expect("an address"), to)
}

/// Sends one byte after the other, each on its way alone.
fn piecemeal(c: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        c.send([*byte]);
        std::thread::yield_now();
    }
}

#[test]
fn the_client_is_who_the_balancer_says() {
    let d = Daemon::with(&(FROM.to_string() + &who("who", ""))).start();
    for header in [V1.as_bytes().to_vec(), v2_client()] {
        // All at once: what comes after the header is the request, and what comes after that is
        // the service's.
        let all = [&header[..], b"who\r\nearly"].concat();
        let got = balancer(&d).send(&all).half_close().read_all();
        same(got, format!("{GO}{SEEN}early"));
        let mut c = balancer(&d);
        piecemeal(&mut c, &all);
        same(c.half_close().read_all(), format!("{GO}{SEEN}early"));
    }
    for line in d.wait_logs("START service=who", 4) {
        assert!(line.contains(" from=192.0.2.7 "), "{line}");
    }
    let six = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 99\r\nwho\r\n";
    let seen = "2001:db8::7 4711 2001:db8::1 99 2001:db8::7\n";
    same(balancer(&d).send(six).half_close().read_all(), format!("{GO}{seen}"));
}

/// The balancer is gone before the parent learns who its client is.
#[test]
fn a_balancer_that_is_gone_is_counted_for_the_port_it_came_to() {
    let d = Daemon::with(&(FROM.to_string() + &who("who", " port = 127.0.0.1:0\n"))).start();
    let (net, port) = (d.net_pid(), d.port(0));
    let mut c = at(port);
    until("net has the client", || c.is_at(net));
    d.signal(Signal::SIGSTOP);
    c.send(V1);
    until("the order is given", || !c.is_at(net));
    reset(&c.0);
    d.signal(Signal::SIGCONT);
    same(d.wait_log("REFUSE "), "REFUSE service=who host= reason=gone");
}

/// It is looked every few seconds whether somebody listens: that is counted, and has no line in the
/// log, however early the connection ends and wherever it came to.
#[test]
fn health_checks_are_counted_and_not_logged() {
    let rows = "metrics stream tcp nowait @USER@ internal\nsafe stream tcp nowait @USER@ internal echo\n tls_port = 127.0.0.1:0\n";
    let d = Daemon::with(&format!("{FROM}{}{rows}", who("who", " port = 127.0.0.1:0\n"))).start();
    let (port, tls) = (d.port(0), d.port(1));
    let mut wanted = 0.0;
    for to in [port, tls, d.address()] {
        drop(at(to));
        reset(&at(to).0);
        // It is gone before anybody has accepted it.
        d.signal(Signal::SIGSTOP);
        reset(&at(to).0);
        d.signal(Signal::SIGCONT);
        wanted += 3.0;
    }
    for to in [tls, d.address()] {
        drop(Client::connect(to));
        wanted += 1.0;
    }
    let count = || scrape::samples(&d)["fived_empty_connections_total"];
    until("all are counted", || count() == wanted);
    // What a process has counted that has ended stays counted.
    let before = d.net_pid();
    d.signal(Signal::SIGHUP);
    until("another net", || d.net_pid() != before);
    assert_eq!(count(), wanted);
    let log = d.log();
    assert!(!log.contains("REFUSE") && !log.contains("WARN"), "{log}");
    assert!(!log.contains("START service=who"), "{log}");
}

#[test]
fn a_client_whose_port_a_reload_has_taken_away_is_logged() {
    let rows = "metrics stream tcp nowait @USER@ internal\n";
    let d = Daemon::with(&format!("{FROM}{rows}{}", who("who", " port = 127.0.0.1:0\n"))).start();
    let (net, port) = (d.net_pid(), d.port(0));
    let mut c = at(port);
    until("net has the client", || c.is_at(net));
    d.reload(&format!("{FROM}{rows}"));
    same(c.send(V1).read_all(), "");
    same(d.wait_log("REFUSE "), "REFUSE service= host= from=192.0.2.7 reason=unknown");
    let name = "fived_refusals_total{service=\"\",host=\"\",reason=\"unknown\"}";
    assert_eq!(scrape::samples(&d)[name], 1.0);
}

/// Header and request in one segment, which is one read of fived's; and one after the other.
#[test]
fn what_comes_with_the_header_is_the_request() {
    let d = Daemon::with(&format!("{FROM}cat stream tcp nowait @USER@ /bin/cat cat\n")).start();
    // As much as a balancer may say beside the addresses.
    let more = [&v2_client()[16..28], &[4, 0x0f, 0xf1], &[0; 4081]].concat();
    let long = v2(0x21, 0x11, &more);
    for header in [v2_client(), long] {
        let ask = |request: &str| [&header[..], request.as_bytes()].concat();
        let mut c = balancer(&d);
        c.send(ask("cat\r\nrest")).expect("+Go\r\nrest").half_close().end();
        let list = balancer(&d).send(ask("HELP\r\n")).half_close().read_all();
        assert!(list.starts_with(b"cat\r\n"), "{list:?}");
        let refused = balancer(&d).send(ask("unknown\r\n")).half_close().read_all();
        assert!(refused.starts_with(b"-"), "{refused:?}");
        let mut c = balancer(&d);
        c.send(ask("MULTIPLEX\r\n")).expect("+ Success\r\n");
        let mut c = balancer(&d);
        c.send(ask("ca")).send("t\r\nrest").expect("+Go\r\nrest").half_close().end();
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_is_its_own_client() {
    let d = Daemon::with(&(FROM.to_string() + &who("who", ""))).start();
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ::1 ::1 1 1\r\n".to_vec(),
        v2(0x20, 0, b""),
        v2(0x20, 0x11, b"\xc0\0\x02\x07\xc0\0\x02\x01\x12\x67\0\x63"),
        v2(0x21, 0, b"\x04\0\0"),
    ];
    for header in headers {
        let mut c = balancer(&d);
        let own = c.0.local_addr().expect("an address").port();
        let here = d.address().port();
        let got = c.send([&header[..], b"who\r\n"].concat()).half_close().read_all();
        same(got, format!("{GO}127.0.0.9 {own} 127.0.0.1 {here} 127.0.0.9\n"));
    }
}

#[test]
fn nobody_else_can_say_who_he_is() {
    let d = Daemon::with(&(FROM.to_string() + &who("who", ""))).start();
    same(d.ask(format!("{V1}who\r\n")), NOT_AVAILABLE);
    same(d.ask([&v2_client()[..], b"who\r\n"].concat()), NOT_AVAILABLE);
    for line in d.wait_logs("REFUSE ", 2) {
        assert!(line.contains(" from=127.0.0.1 reason=unknown"), "{line}");
    }
    let mut c = d.connect();
    let own = c.0.local_addr().expect("an address").port();
    let here = d.address().port();
    same(
        c.send("who\r\n").half_close().read_all(),
        format!("{GO}127.0.0.1 {own} 127.0.0.1 {here} 127.0.0.1\n"),
    );
}

#[test]
fn a_balancer_without_a_header_is_closed() {
    let conf = format!("{FROM}request_timeout = 3\n{}", who("who", " port = 127.0.0.1:0\n"));
    let d = Daemon::with(&conf).start();
    let wrong = [
        b"who\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\nwho\r\n".to_vec(),
        b"PROXY TCP4 0.0.0.0 192.0.2.1 1 1\r\nwho\r\n".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        v2(0x11, 0x11, b"\xc0\0\x02\x07\xc0\0\x02\x01\x12\x67\0\x63"),
        v2(0x21, 0x11, b""),
        v2(0x21, 0x12, b""),
        v2(0x21, 0x11, b"\xc0\0\x02\x07"),
        v2(0x21, 0x11, &[1; 5000]),
    ];
    let mut n = 0;
    for to in [d.address(), d.port(0)] {
        for bytes in &wrong {
            same(at(to).send(bytes).read_any(), "");
            n += 1;
        }
        // In time, too: neither a part of one nor silence.
        let (mut part, mut silent) = (at(to), at(to));
        part.send(&V1[..20]);
        same(part.read_any(), "");
        same(silent.read_any(), "");
        // A part, and its end.
        same(at(to).send(&V1[..20]).half_close().read_any(), "");
        n += 3;
    }
    for line in d.wait_logs("REFUSE ", n) {
        assert!(line.contains(" from=127.0.0.9 reason=proxy"), "{line}");
    }
    // Who only looks whether somebody listens is told so, and nobody else hears of it.
    for to in [d.address(), d.port(0)] {
        same(at(to).half_close().read_any(), "");
    }
    same(balancer(&d).send(format!("{V1}who\r\n")).half_close().read_all(), format!("{GO}{SEEN}"));
    d.wait_log("START service=who");
    assert_eq!(d.log().matches("REFUSE ").count(), n, "{}", d.log());
    assert_eq!(d.log().matches("START ").count(), 1, "{}", d.log());
}

#[test]
fn rules_and_penalties_are_about_the_client() {
    let trap = "trap stream tcp nowait @USER@ internal sensor\n deny_time = 60\n tcpmux = yes\n";
    let near = who("near", " only_from = 192.0.2.7\n") + &who("own", " only_from = 127.0.0.9\n");
    let d = Daemon::with(&format!("{FROM}{trap}{}{near}", who("who", ""))).start();
    let ask = |from: &str, name: &str| {
        let header = format!("PROXY TCP4 {from} 192.0.2.1 4711 99\r\n{name}\r\n");
        balancer(&d).send(header).half_close().read_all()
    };
    same(ask("192.0.2.7", "near"), format!("{GO}{SEEN}"));
    same(ask("192.0.2.8", "near"), NOT_AVAILABLE);
    same(ask("192.0.2.7", "own"), NOT_AVAILABLE);
    let line = d.wait_log("REFUSE service=own");
    assert!(line.contains(" from=192.0.2.7 reason=address"), "{line}");
    // Who touches the sensor is barred, and not the balancer with all its clients.
    ask("192.0.2.8", "trap");
    d.wait_log("PENALTY from=192.0.2.8");
    same(ask("192.0.2.8", "who"), NOT_AVAILABLE);
    same(ask("192.0.2.7", "who"), format!("{GO}{SEEN}"));
    d.connect().send("who\r\n").expect(format!("{GO}127.0.0.1 "));
}

#[test]
fn limits_count_the_client() {
    let conf = format!("{FROM}max_sessions_per_source = 1\n{}", who("who", " per_source = 1\n"));
    let d = Daemon::with(&conf).start();
    let from = |n: u8| {
        let mut c = balancer(&d);
        c.send(format!("PROXY TCP4 192.0.2.{n} 192.0.2.1 4711 99\r\n"));
        c
    };
    let question = "+ Success\r\nWhich VHOST? ";
    let (mut one, mut two, mut again) = (from(1), from(2), from(1));
    one.send("HOST\r\n").expect(question);
    two.send("HOST\r\n").expect(question);
    same(again.send("HOST\r\n").read_any(), BUSY);
    let line = d.wait_log("reason=sessions_per_source");
    assert!(line.contains(" from=192.0.2.1 "), "{line}");

    let (mut one, mut two, mut again) = (from(1), from(2), from(1));
    one.send("who\r\n").expect(format!("{GO}192.0.2.1 "));
    two.send("who\r\n").expect(format!("{GO}192.0.2.2 "));
    same(again.send("who\r\n").read_any(), BUSY);
}

/// Of the clients that wait the one has to go whose source has most of them, and that is no
/// balancer.
#[test]
fn who_waits_counts_for_himself() {
    let d = Daemon::with(&format!("{FROM}max_connections = 4\n{}", who("who", ""))).start();
    let from = |n: u8| {
        let mut c = balancer(&d);
        c.send(format!("PROXY TCP4 192.0.2.{n} 192.0.2.1 4711 99\r\nwh"));
        // Net has read it when it has answered who came later.
        d.ask("HELP\r\n");
        c
    };
    let mut honest = from(1);
    let mut many: Vec<Client> = (0..3).map(|_| from(2)).collect();
    let line = d.wait_log("REFUSE ");
    assert!(line.contains(" from=192.0.2.2 reason=connections"), "{line}");
    same(many[0].read_any(), "");
    honest.send("o\r\n").expect(format!("{GO}192.0.2.1 "));
}

#[test]
fn tls_begins_after_the_header() {
    let tls_port = who("at", " tls_port = 127.0.0.1:0\n require = tls\n");
    let d = Daemon::with(&format!("{FROM}{}{tls_port}", who("who", ""))).start();
    for header in [V1.as_bytes().to_vec(), v2_client()] {
        let mut c = balancer(&d);
        c.send(&header);
        let mut c = Tls::start(c.0, "localhost");
        c.send(b"who\r\n");
        c.expect(&[GO.as_bytes(), SEEN.as_bytes()].concat());
        let mut c = at(d.port(0));
        c.send(&header);
        let mut c = Tls::start(c.0, "localhost");
        c.expect(SEEN.as_bytes());
    }
    // Without the header it is a handshake for anybody else, and for a balancer nothing.
    let mut c = Tls::start(d.connect().0, "localhost");
    c.send(b"who\r\n");
    c.expect(format!("{GO}127.0.0.1 ").as_bytes());
    let line = d.wait_log("SESSION from=192.0.2.7");
    assert!(line.contains("session="), "{line}");
}

#[test]
fn a_port_of_its_own_hears_the_header_too() {
    let only = who("only", " port = 127.0.0.1:0\n only_from = 192.0.2.0/24\n tcpmux = no\n");
    let d = Daemon::with(&format!("{FROM}{}{only}", who("at", " port = 127.0.0.1:0\n"))).start();
    let here = d.ports::<2>();
    for header in [V1.as_bytes().to_vec(), v2_client()] {
        let got = at(here[0]).send([&header[..], b"early"].concat()).half_close().read_all();
        same(got, format!("{SEEN}early"));
        let mut c = at(here[1]);
        piecemeal(&mut c, &header);
        same(c.half_close().read_all(), SEEN);
    }
    let line = d.wait_log("START service=at");
    assert!(line.contains(" from=192.0.2.7"), "{line}");
    let beyond = "PROXY TCP4 198.51.100.7 192.0.2.1 4711 99\r\n";
    same(at(here[1]).send(beyond).read_any(), "");
    let line = d.wait_log("REFUSE service=only");
    assert!(line.contains(" from=198.51.100.7 reason=address"), "{line}");
    // Of anybody else no byte is read: it is the service's.
    let mut c = Client::connect(here[0]);
    let (own, port) = (c.0.local_addr().expect("an address").port(), here[0].port());
    let seen = format!("127.0.0.1 {own} 127.0.0.1 {port} 127.0.0.1\n");
    same(c.send(V1).half_close().read_all(), format!("{seen}{V1}"));
}

/// More of them than the parent would hold for a net process that is slow to take them: they wait
/// in the backlog instead.
#[test]
fn a_crowd_at_ports_of_their_own_is_taken_as_net_can_take_it() {
    const PORTS: usize = 3;
    const EACH: usize = 2300;
    /// One that stands for longer has not answered, and is replaced.
    const HELD_MAX: Duration = Duration::from_secs(4);
    let backlog: usize = read("/proc/sys/net/core/somaxconn").trim().parse().expect("a number");
    if !descriptors(10_000) || backlog < EACH {
        return skip("needs 10000 descriptors and a backlog of 2300");
    }
    let rows: String =
        (0..PORTS).map(|n| who(&format!("own{n}"), " port = 127.0.0.1:0\n")).collect();
    let conf = format!(
        "{FROM}max_connections = 20000\nbacklog = 4096\nlog_on_success =\ncps = UNLIMITED\n{rows}"
    );
    for _ in 0..3 {
        let d = Daemon::with(&conf).start();
        let (net, ports) = (d.net_pid(), d.ports::<PORTS>());
        let mut session = d.connect();
        session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        let since = Instant::now();
        let Some(held) = proc::hold(net) else { return };
        let crowd: Vec<_> = (0..PORTS * EACH).map(|n| at(ports[n % PORTS])).collect();
        drop(held);
        if since.elapsed() > HELD_MAX {
            continue;
        }
        // The last of all is served.
        let mut last = at(ports[0]);
        last.send(V1).expect(SEEN);
        assert!(session.silent(10), "its session stands");
        assert_eq!(d.net_pid(), net, "{}", d.log());
        assert!(!d.log().contains("WARN"), "{}", d.log());
        drop(crowd);
        return;
    }
    skip("this computer is too busy: the crowd takes seconds to come");
}

#[test]
fn an_upstream_hears_of_the_client_too() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("bind");
    let to = upstream.local_addr().expect("an address");
    let row = |name: &str, version: &str| {
        format!("{name} stream tcp nowait @USER@ redirect {to}\n proxy = {version}\n")
    };
    let d = Daemon::with(&format!("{FROM}{}{}", row("one", "v1"), row("two", "v2"))).start();
    let told = |bytes: &[u8]| {
        let mut c = balancer(&d);
        c.send(bytes);
        let mut all = Vec::new();
        let (mut server, _) = upstream.accept().expect("accept");
        c.half_close();
        server.read_to_end(&mut all).expect("read");
        all
    };
    same(told(&[&v2_client()[..], b"one\r\nhello"].concat()), format!("{V1}hello"));
    // LOCAL, with no address at all (CVE-2024-23327 of Envoy).
    let got = told(&[&v2(0x20, 0, b"")[..], b"two\r\n"].concat());
    same(&got[12..20], [0x21, 0x11, got[14], got[15], 127, 0, 0, 9]);
}

#[test]
fn a_reload_changes_who_is_a_balancer() {
    let row = who("who", " port = 127.0.0.1:0\n");
    let d = Daemon::with(&row).start();
    let port = d.port(0);
    same(balancer(&d).send(format!("{V1}who\r\n")).half_close().read_all(), NOT_AVAILABLE);
    // For a moment the net process of the old table still accepts clients.
    let becomes = |wanted: &str| {
        until(wanted, || {
            let got = balancer(&d).send(format!("{V1}who\r\n")).half_close().read_any();
            got == wanted.as_bytes()
        });
    };
    d.reload(&(FROM.to_string() + &row));
    becomes(&format!("{GO}{SEEN}"));
    same(at(port).send(V1).half_close().read_all(), SEEN);
    d.reload(&row);
    becomes(NOT_AVAILABLE);
}

#[test]
fn proxy_from_is_addresses_and_never_everybody() {
    for (words, wrong) in [
        ("0.0.0.0/0", "proxy_from"),
        ("::/0", "::/0"),
        ("balancer.example", "balancer.example"),
        ("10.0.0.0/33", "33"),
        ("127.0.0.1:5", "127.0.0.1:5"),
    ] {
        let conf = format!("proxy_from = {words}\n");
        let (code, out, err) = Place::new().fived(&conf, &["-t"]);
        assert!(code == 1 && (out + &err).contains(wrong), "{words}: {err}");
        assert!(!err.contains("a host name"), "a name is nobody's address: {err}");
    }
    let (code, out, err) =
        Place::new().fived("proxy_from = 10. 2001:db8::/32\nproxy_from += 192.0.2.1\n", &["-T"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("proxy_from = 10.0.0.0/8 2001:db8::/32 192.0.2.1/32\n"), "{out}");
}

/// A captured net that says of a connection who its client is: arguments are net's pid, where to
/// connect from, and the order.
const LIE: &str = "import array, ctypes, os, socket, struct, sys
pid = int(sys.argv[1])
p, libc = os.pidfd_open(pid), ctypes.CDLL(None)
is_channel = lambda s: s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_SEQPACKET
all = sorted(int(f) for f in os.listdir(f'/proc/{pid}/fd') if int(f) > 2)
all = [f for f in all if os.readlink(f'/proc/{pid}/fd/{f}').startswith('socket:')]
own = [s for s in (socket.socket(fileno=libc.syscall(438, p, f, 0)) for f in all) if is_channel(s)][0]
c, s = client(pid, sys.argv[2])
order = bytes.fromhex(sys.argv[3])
own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
s.close()
c.settimeout(20)
print(c.recv(100))
";

#[test]
fn the_parent_believes_only_what_is_said_of_a_balancers_connection() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&(FROM.to_string() + &who("who", ""))).start();
    let net = d.net_pid();
    let said = AddressPair {
        client: "192.0.2.7:4711".parse().expect("an address"),
        local: "192.0.2.1:99".parse().expect("an address"),
    };
    let order = FromNet::Start {
        service: 0,
        host: 0,
        addresses: ClientAddresses { own: None, proxied: Some(said) },
    }
    .encode();
    let order: String = order.iter().map(|b| format!("{b:02x}")).collect();
    let lie = |from: &str| {
        let script = format!("{}{LIE}", include_str!("support/client_of_net.py"));
        let words = ["-c", &script, &net.to_string(), from, &order];
        let out = Command::new("python3").args(words).output();
        String::from_utf8(out.expect("python3").stdout).expect("text")
    };
    // This is what net may say.
    assert!(lie("127.0.0.9").starts_with("b'+Go"), "{}", d.log());
    let line = d.wait_log("START service=who");
    assert!(line.contains(" from=192.0.2.7 "), "{line}");
    assert_eq!(lie("127.0.0.8").trim(), "b''");
    d.wait_log(&format!("WARN net: pid {net}: a forbidden order; fived ends it"));
    assert_eq!(d.log().matches("START ").count(), 1, "{}", d.log());
}
