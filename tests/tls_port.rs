//! `tls_port`: a service after a TLS handshake at a port of its own, no request and no
//! reply line; rows of several hosts may share the port.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use support::*;
use tls::Tls;

const WHO: &str = "/bin/sh sh -c 'echo $FIVED_SERVICE $FIVED_HOST $SSL_PROTOCOL $SSL_TLS_SNI_SERVERNAME $TCPREMOTEIP; exec cat'";

fn row(name: &str, rest: &str) -> String {
    format!("{name} stream tcp nowait @USER@ {WHO}\n tls_port = 127.0.0.1:0\n{rest}")
}

fn at(d: &Daemon, n: usize, name: &str) -> Tls {
    Tls::start(Client::connect(d.port(n)).0, name)
}

/// What `openssl s_client` gets there that sends these bytes and then its end.
fn openssl(address: SocketAddr, options: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-tls1_3", "-connect", &address.to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("input");
    let out = child.wait_with_output().expect("openssl");
    drop(stdin);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn openssl_gets_the_service_without_a_request_and_a_reply_line() {
    if !installed("openssl") {
        return skip("needs openssl");
    }
    let rest = " banner = @DIR@/banner\n require = tls\n tcpmux = no\n";
    let bye = "bye stream tcp nowait @USER@ /bin/sh sh -c 'read a; echo got $a $TCPREMOTEIP'\n tls_port = 127.0.0.1:0\n";
    let d =
        Daemon::with(&(bye.to_string() + &row("who", rest))).file("banner", "welcome\n").start();
    let hello = openssl(d.port(0), &["-servername", "x.example"], "hello\n");
    same(hello, "got hello 127.0.0.1\n");
    // As with any application protocol that the client offers.
    same(openssl(d.port(0), &["-alpn", "imap"], "again\n"), "got again 127.0.0.1\n");
    let mut c = at(&d, 1, "localhost");
    c.expect(b"welcome\nwho TLSv1.3 localhost 127.0.0.1\n");
    c.send(b"no request\r\n");
    c.expect(b"no request\r\n");
    c.half_close();
    same(c.read_all(), "");
    // Its name does not lead there, and nobody names a service at the port.
    same(d.ask("who\r\n"), NOT_AVAILABLE);
    let line = d.wait_log("EXIT service=who");
    assert!(line.contains(" status=0 "), "{line}");
    let line = d.wait_logs("START service=bye", 2).remove(0);
    assert!(line.contains(" from=127.0.0.1 session=1"), "{line}");
}

#[test]
fn a_redirect_there_begins_with_its_banners_alone_too() {
    let to = upstream::counts("up");
    let of =
        |more| format!("stream tcp nowait @USER@ redirect {to}\n tls_port = 127.0.0.1:0\n{more}");
    let banners = " banner = @DIR@/banner\n banner_success = @DIR@/banner\n reply = Yes\n";
    let conf = format!("one {}two {}", of(""), of(banners));
    let d = Daemon::with(&conf).file("banner", "welcome\n").start();
    for (n, banner) in [(0, ""), (1, "welcome\nwelcome\n")] {
        let mut c = at(&d, n, "localhost");
        c.expect(format!("{banner}this is up\n").as_bytes());
        c.send(b"x");
        c.half_close();
        same(c.read_all(), "1 bytes: x");
    }
    // By name, inside TLS, there is a reply.
    let mut c = Tls::start(d.connect().0, "localhost");
    c.send(b"one\r\n");
    c.expect(b"+Go\r\nthis is up\n");
}

#[test]
fn the_server_name_chooses_among_the_hosts_that_share_the_port() {
    let host = |host: &str, rest: &str| format!("[{host}]\n{}", row("web", rest));
    let shared = host("a.example b.example", "") + &host("c.example", "") + "[d.example]\n";
    let d = Daemon::with(&shared).start();
    let answer = |d: &Daemon, name: &str, host: &str| {
        at(d, 0, name).expect(format!("web {host} TLSv1.3 {name} 127.0.0.1\n").as_bytes());
    };
    answer(&d, "c.example", "c.example");
    // The host's first name.
    answer(&d, "b.example", "a.example");
    // A host without a row there, and no host at all: the first row, for the default host has none.
    answer(&d, "d.example", "a.example");
    answer(&d, "unknown.example", "a.example");
    let mut none = Tls::start(Client::connect(d.port(0)).0, "127.0.0.1");
    none.expect(b"web a.example TLSv1.3 127.0.0.1\n");
    d.wait_log("START service=");
    assert_eq!(d.ports_named(), 1, "{}", d.log());
    let d = Daemon::with(&(row("web", "") + &shared)).start();
    for name in ["d.example", "unknown.example"] {
        at(&d, 0, name).expect(format!("web TLSv1.3 {name} 127.0.0.1\n").as_bytes());
    }
    answer(&d, "c.example", "c.example");
    assert!(d.wait_log("START service=web host=c.example").contains("from="));
    assert_eq!(d.ports_named(), 1, "{}", d.log());
    // The row of all hosts is the default host's, too, and goes before the first.
    let d = Daemon::with(&(shared + "[*]\n" + &row("web", ""))).start();
    at(&d, 0, "unknown.example").expect(b"web TLSv1.3 unknown.example 127.0.0.1\n");
    answer(&d, "d.example", "d.example");
}

#[test]
fn a_refused_client_is_closed_after_its_banner() {
    let rest = " instances = 1\n banner_fail = @DIR@/full\n log_on_success += TRAFFIC\n";
    let far = "far stream tcp nowait @USER@ internal echo\n tls_port = 127.0.0.1:0\n only_from = 192.0.2.1\n banner_fail = @DIR@/full\n";
    let missing = "missing stream tcp nowait @USER@ /no/such/program\n tls_port = 127.0.0.1:0\n banner_fail = @DIR@/full\n";
    let d = Daemon::with(&(row("one", rest) + far + missing)).file("full", "full\n").start();
    let mut first = at(&d, 0, "localhost");
    first.expect(b"one TLSv1.3 localhost 127.0.0.1\n");
    same(at(&d, 0, "localhost").read_all(), "full\n");
    assert!(d.wait_log("REFUSE service=one").contains("reason=instances"));
    same(at(&d, 1, "localhost").read_all(), "");
    assert!(d.wait_log("REFUSE service=far").contains("reason=address"));
    same(at(&d, 2, "localhost").read_all(), "full\n");
    assert!(d.wait_log("REFUSE service=missing").contains("reason=failed"));
    first.half_close();
    same(first.read_all(), "");
    let line = d.wait_log("EXIT service=one");
    assert!(line.contains(" in=0 out=32 "), "{line}");
    at(&d, 0, "localhost").expect(b"one ");
}

#[test]
fn who_says_nothing_or_no_tls_has_no_service() {
    let settings = "request_timeout = 3\n";
    let d = Daemon::with(&format!("{settings}{}", row("who", ""))).start();
    let address = d.port(0);
    Client::connect(address).end();
    // An alert, or nothing.
    let mut c = Client::connect(address);
    c.try_send(b"who\r\n");
    let said = c.read_any();
    assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    let line = d.wait_log("END session=");
    assert!(line.contains("reason=tls"), "{line}");
    // Half a handshake.
    let mut c = Client::connect(address);
    c.send([0x16, 3, 1, 2, 0, 1]);
    c.read_any();
    assert!(d.wait_logs("END session=", 2)[1].contains("reason=timeout"), "{}", d.log());
    assert!(!d.log().contains("START"), "{}", d.log());
}

#[test]
fn mistakes_are_reported() {
    let at = |port: &str| format!("stream tcp nowait @USER@ internal echo\n tls_port = {port}\n");
    let first = format!("a {}", at("127.0.0.1:1101"));
    for (rest, what) in [
        (
            format!("b {}", at("127.0.0.1:1101")),
            "tls_port: 127.0.0.1:1101: expected each address and port once, found it at",
        ),
        (
            format!("b {}", at("127.0.0.1:1101").replace("tls_", "")),
            "port: 127.0.0.1:1101: expected each address and port once, found it at",
        ),
        (
            format!("[h]\nb {0}c {0}", at("127.0.0.1:1101")),
            "fived.conf:7: tls_port: 127.0.0.1:1101: expected each",
        ),
        (
            format!("[h]\nb {}", at("1101")) + &format!("[i]\nb {}", at("0.0.0.0:1101")),
            "expected each",
        ),
        (format!("b {} require = login\n", at("1102")), "b: expected a row that needs no login"),
        (format!("b {} users = alice\n", at("1102")), "b: expected a row that needs no login"),
        (
            "b stream tcp nowait * /bin/cat\n tls_port = 1102\n".into(),
            "b: expected a row that needs no login",
        ),
        (
            format!("b {} port = 1103\n require = tls\n", at("1102")),
            "b: expected a row that everybody may use",
        ),
        (
            format!("b {}", at("no-such-service")),
            "tls_port: expected a number or a name of services(5)",
        ),
    ] {
        let (code, _, err) = Place::new().fived(&(first.clone() + &rest), &["-t"]);
        assert!(code == 1 && err.contains(what), "{rest}: {err}");
    }
    let fine = first + &format!("[h]\nb {} require = tls\n", at("127.0.0.1:1101"));
    let (code, _, err) = Place::new().fived(&fine, &["-t"]);
    assert_eq!((code, err.as_str()), (0, ""), "{fine}");
    let (_, out, _) = Place::new().fived(&fine, &["-T"]);
    assert!(out.contains("tls_port = 127.0.0.1:1101\n"), "{out}");
}

#[test]
fn a_port_that_is_taken_refuses_the_start_and_leaves_the_old_table() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("its address");
    let row_at = |address: SocketAddr| row("b", "").replace("127.0.0.1:0", &address.to_string());
    let (code, err) = Daemon::with(&row_at(busy)).fails();
    assert_eq!(code, 111);
    assert!(err.contains(&format!("{busy}: Address already in use")), "{err}");
    let d = Daemon::with(&row("a", "")).start();
    let answer = d.reload(&(row("a", "") + &row_at(busy)));
    assert!(answer.contains("refused mistakes=1"), "{answer}");
    let line = d.wait_log(&format!("tls_port: {busy}: Address already in use"));
    assert!(line.starts_with("WARN "), "{line}");
    at(&d, 0, "localhost").expect(b"a TLSv1.3");
}

#[test]
fn a_reload_moves_ports_and_keeps_what_stays() {
    let d = Daemon::with(&(row("stays", "") + &row("goes", ""))).start();
    let [stays, goes] = d.ports();
    let mut before = at(&d, 1, "localhost");
    before.expect(b"goes TLSv1.3");
    // Whoever has come and said nothing is served by the net process that accepted it.
    let waits = TcpStream::connect(goes).expect("connect");
    let to = |address: SocketAddr, key: &str| {
        let row = row("goes", "").replace("127.0.0.1:0", &address.to_string());
        row.replace("tls_port", key)
    };
    d.reload(&(row("other", "") + &row("stays", "")));
    until("the port is closed", || TcpStream::connect(goes).is_err());
    Tls::start(waits, "localhost").expect(b"goes TLSv1.3");
    Tls::start(Client::connect(stays).0, "localhost").expect(b"stays TLSv1.3");
    before.send(b"still here");
    d.port(2);
    // Back, and then without TLS.
    d.reload(&(to(goes, "tls_port") + &row("stays", "")));
    Tls::start(Client::connect(goes).0, "localhost").expect(b"goes TLSv1.3");
    d.reload(&(row("stays", "") + &to(goes, "port")));
    until("a plain service is there", || {
        let mut c = Client::connect(goes);
        c.try_send(b"x\n");
        c.half_close();
        c.read_any().starts_with(b"goes 127.0.0.1\nx\n")
    });
    Tls::start(Client::connect(stays).0, "localhost").expect(b"stays TLSv1.3");
}

#[test]
fn a_net_process_that_is_killed_is_replaced_and_the_port_stays() {
    let d = Daemon::with(&row("who", "")).start();
    let address = d.port(0);
    let net = d.net_pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(net), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    Tls::start(Client::connect(address).0, "localhost").expect(b"who TLSv1.3");
    assert_ne!(d.net_pid(), net);
}

/// An upstream that has finished still reads: a client whose connection then ends without TLS's end
/// is a reset for it, and the log says why. One that ends in order is an end.
#[test]
fn a_truncation_after_the_upstream_has_finished_is_logged() {
    let (heard, hears) = std::sync::mpsc::channel();
    let to = upstream::tcp(move |mut s| {
        s.write_all(b"that is all").expect("said");
        s.shutdown(Shutdown::Write).expect("half-close");
        let mut all = Vec::new();
        let end = s.read_to_end(&mut all).map_err(|e| e.kind());
        heard.send((String::from_utf8(all).expect("text"), end.map(drop))).expect("heard");
    });
    let row = format!("web stream tcp nowait @USER@ redirect {to}\n tls_port = 127.0.0.1:0\n");
    let d = Daemon::with(&row).start();
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    for (n, in_order, end) in [(0, false, reset), (1, true, Ok(()))] {
        let mut c = at(&d, 0, "localhost");
        c.expect(b"that is all");
        same(c.read_all(), "");
        c.send(b"part");
        if in_order {
            c.half_close();
        }
        c.0.sock.shutdown(Shutdown::Write).expect("the end of TCP");
        let got = hears.recv_timeout(TIMEOUT).expect("the upstream's end");
        assert_eq!(got, ("part".to_string(), end));
        let line = d.wait_logs("END session=", n + 1).remove(n);
        let reason = if in_order { " reason=closed " } else { " reason=truncated " };
        assert!(line.contains(reason), "{line}");
    }
}
