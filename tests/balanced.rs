//! fived(8), MANY COMPUTERS: several fiveds behind a real HAProxy, with the files of that section.

#[path = "support/cutter.rs"]
mod cutter;
#[path = "support/dialogue.rs"]
mod dialogue;
#[path = "support/resume_client.rs"]
mod resume_client;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;

use cutter::{Cut, Cutter};
use dialogue::Dialogue;
use resume_client::Session;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use support::*;
use tls::Tls;

/// HAProxy connects from there.
const FROM: &str = "proxy_from = 127.0.0.1\n";
const WHO: &str = "who stream tcp nowait @USER@ /bin/sh sh -c 'echo $TCPREMOTEIP $TCPREMOTEPORT $TCPLOCALIP $TCPLOCALPORT $REMOTE_ADDR; exec cat'\n";
const CAT: &str = "cat stream tcp nowait @USER@ /bin/cat cat\n";
/// What HAProxy asks for instead of HELP, so that the log has its checks.
const CHECK: &str = "check stream tcp nowait @USER@ /bin/echo echo well\n only_from = 127.0.0.1\n";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A marked block of that section, with these texts in place of those there.
fn of_the_manual(kind: &str, has: &str, changes: &[(&str, &str)]) -> String {
    let blocks = page::blocks("man/fived.8").into_iter();
    let block = blocks.filter(|b| b.kind == kind && b.body.contains(has)).map(|b| b.body).next();
    let mut text = block.expect("a block");
    for (there, here) in changes {
        assert!(text.contains(there), "{there} in {text}");
        text = text.replace(there, here);
    }
    text
}

/// HAProxy before these two, with its configuration in fived(8) but for these changes.
fn haproxy(d: [&Daemon; 2], changes: &[(&str, &str)]) -> (Running, SocketAddr) {
    let [a, b] = d.map(|d| format!("{} ", d.address()));
    let addresses = [("bind :1\n", "bind fd@3\n"), ("10.0.0.11:1 ", &a), ("10.0.0.12:1 ", &b)];
    let text = of_the_manual("haproxy", "", &[&addresses, changes].concat());
    let file = d[0].place.write("haproxy.cfg", &text, 0o644);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    let mut command = Command::new("sh");
    command.args(["-c", "exec haproxy -db -f \"$0\" 3<&0 </dev/null", &file]);
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    (Running(command.spawn().expect("sh")), address)
}

/// None: there is no HAProxy here.
fn two(conf: &str) -> Option<[Daemon; 2]> {
    if !installed("haproxy") {
        skip("haproxy is not installed");
        return None;
    }
    Some([conf; 2].map(|conf| Daemon::with(conf).start()))
}

/// A client of the balancer who has this address.
fn from(ip: &str, balancer: SocketAddr) -> Client {
    connect_from(ip.parse().expect("an address"), balancer)
}

#[test]
fn haproxy_says_who_the_client_is() {
    let Some(d) = two(&format!("{FROM}{WHO}{CHECK}")) else { return };
    for version in ["send-proxy", "send-proxy-v2"] {
        let before = d.each_ref().map(|d| d.log().matches("START service=check").count());
        let changes = [("send-proxy-v2", version), ("HELP\\r\\n", "check\\r\\n")];
        let (_haproxy, address) = haproxy(d.each_ref(), &changes);
        for (d, before) in d.iter().zip(before) {
            // Its own look at the server, of which it says LOCAL or UNKNOWN.
            let line = d.wait_logs("START service=check", before + 1).pop().expect("a line");
            assert!(line.contains(" from=127.0.0.1 "), "{line}");
        }
        for ip in ["127.0.0.5", "127.0.0.6"] {
            let mut c = from(ip, address);
            let own = c.0.local_addr().expect("an address").port();
            let seen = format!("{GO}{ip} {own} 127.0.0.1 {} {ip}\nearly", address.port());
            same(c.send("who\r\nearly").half_close().read_all(), &seen);
            let mut c = Tls::start(from(ip, address).0, "localhost");
            let own = c.0.sock.local_addr().expect("an address").port();
            c.send(b"who\r\n");
            let seen = format!("{GO}{ip} {own} 127.0.0.1 {} {ip}\n", address.port());
            c.expect(seen.as_bytes());
        }
    }
    let all = d.each_ref().map(Daemon::log).concat();
    assert!(!all.contains("REFUSE") && !all.contains("WARN"), "{all}");
}

#[test]
fn rules_and_penalties_behind_haproxy_are_about_the_client() {
    let trap = "trap stream tcp nowait @USER@ internal sensor\n deny_time = 60\n tcpmux = yes\n";
    let near = "near stream tcp nowait @USER@ /bin/echo echo near\n only_from = 127.0.0.5\n";
    let Some([d, _]) = two(&format!("{FROM}{WHO}{trap}{near}")) else { return };
    let (_haproxy, address) = haproxy([&d, &d], &[]);
    let ask = |ip: &str, name: &str| from(ip, address).send(format!("{name}\r\n")).read_any();
    same(ask("127.0.0.5", "near"), format!("{GO}near\n"));
    same(ask("127.0.0.6", "near"), NOT_AVAILABLE);
    ask("127.0.0.6", "trap");
    d.wait_log("PENALTY from=127.0.0.6");
    let mut c = Tls::start(from("127.0.0.6", address).0, "localhost");
    c.send(b"who\r\n");
    c.expect(NOT_AVAILABLE.as_bytes());
    // Neither another client of the balancer is barred, nor the balancer.
    for ip in ["127.0.0.5", "127.0.0.1"] {
        from(ip, address).send("who\r\n").expect(format!("{GO}{ip} "));
    }
}

/// Reads a header of version 2 about a client with an IPv4 address, and says who is named.
fn tells(name: &'static str) -> SocketAddr {
    upstream::tcp(move |mut s: TcpStream| {
        let mut head = [0; 28];
        s.read_exact(&mut head).expect("a header");
        let client = &head[16..20];
        let _ = s.write_all(format!("{name} {client:?}\n").as_bytes());
    })
}

#[test]
fn the_files_of_the_manual_lead_to_every_upstream_which_hears_of_the_client() {
    if !root() {
        return skip("needs root: a row runs as whoever logged in");
    }
    let [one, two_] = ["one", "two"].map(|name| tells(name).to_string());
    let conf = of_the_manual(
        "conf",
        "proxy_from = 10.0.0.5",
        &[("10.0.0.5 10.0.0.6", "127.0.0.1"), ("10.0.0.21:5432", &one), ("10.0.0.22:5432", &two_)],
    );
    let Some(d) = two(&conf) else { return };
    let (_haproxy, address) = haproxy(d.each_ref(), &[]);
    for ip in ["127.0.0.5", "127.0.0.6"] {
        let told = |_| from(ip, address).send("db\r\n").read_all();
        let mut told: Vec<_> = (0..4).map(told).collect();
        told.sort();
        let last = &ip[8..];
        let of = |name| format!("{GO}{name} [127, 0, 0, {last}]\n").into_bytes();
        assert_eq!(told, [of("one"), of("one"), of("two"), of("two")]);
    }
    same(from("127.0.0.5", address).send("shell\r\n").read_any(), NOT_AVAILABLE);
}

/// `balance source`: whoever comes back reaches the same fived, which has his session; who comes
/// from another address may reach another one, which does not.
#[test]
fn sessions_are_resumed_behind_haproxy() {
    let Some(d) = two(&format!("{FROM}{CAT}")) else { return };
    let (_haproxy, address) = haproxy(d.each_ref(), &[]);
    let tls = |ip: &str| Tls::start(from(ip, address).0, "localhost");
    let begun = || d.each_ref().map(|d| d.log().matches("SESSION from=").count());
    let mut at: [Option<String>; 2] = [None, None];
    for n in 2..250 {
        let (ip, before) = (format!("127.0.0.{n}"), begun());
        let mut s = Session::begin(tls(&ip));
        s.open(1, "cat\r\none");
        s.expect(1, "+Go\r\none");
        until("the session is in a log", || begun() != before);
        let here = usize::from(begun()[1] > before[1]);
        s.lose();
        s.send(1, b"two");
        s.resume(from(&ip, address).0);
        s.expect(1, "two");
        let end = format!(" from={ip}");
        let resumed = |l: &str| l.starts_with("RESUME session=") && l.ends_with(&end);
        until("it is in the log", || d[here].log().lines().any(resumed));
        if let Some(other) = &at[1 - here] {
            s.lose();
            same(s.claim(&mut tls(other)), "- No such session\r\n");
            return;
        }
        at[here] = Some(ip);
    }
    panic!("all addresses reached the same fived");
}

#[test]
fn five_comes_back_to_its_session_behind_haproxy() {
    let Some(d) = two(&format!("{FROM}{CAT}")) else { return };
    let (_haproxy, address) = haproxy(d.each_ref(), &[]);
    let cutter = Cutter::new(address);
    let five = Five::at(&d[0].place, cutter.address);
    let mut dialogue = Dialogue::new(five.start(&["-q", "127.0.0.1", "cat"]));
    dialogue.echo("ready");
    for how in [Cut::Reset, Cut::Close] {
        cutter.cut(how);
        dialogue.echo("still here");
    }
    let resumed = || d.each_ref().map(|d| d.log().matches("RESUME session=").count());
    until("both are in the log", || resumed().iter().sum::<usize>() == 2);
    assert!(resumed().contains(&0), "{:?}", resumed());
}

#[test]
fn clients_of_a_fived_that_is_away_reach_the_other() {
    let Some([mut one, other]) = two(&format!("{FROM}{WHO}{CHECK}")) else { return };
    let changes = [("HELP\\r\\n", "check\\r\\n")];
    let (_haproxy, address) = haproxy([&one, &other], &changes);
    one.wait_log("START service=check");
    one.signal(nix::sys::signal::Signal::SIGINT);
    one.wait();
    for n in 2..10 {
        let ip = format!("127.0.0.{n}");
        let seen = format!("{GO}{ip} ");
        until("the other serves", || {
            let got = from(&ip, address).send("who\r\n").half_close().read_any();
            got.starts_with(seen.as_bytes())
        });
    }
    other.wait_logs("START service=who", 8);
}

/// As a `tcpSocket` probe of Kubernetes does it, or any other monitor that only connects: it closes
/// at once, with an end or with a reset, also where the PROXY protocol is expected from there.
#[test]
fn who_connects_and_sends_nothing_leaves_no_line() {
    for conf in [WHO.to_string(), format!("{FROM}{WHO}")] {
        let d = Daemon::with(&conf).start();
        let before = d.log();
        for n in 0..40 {
            let probe = TcpStream::connect(d.address()).expect("connect");
            if n % 2 == 0 {
                reset(&probe);
            }
        }
        // Whoever comes later is served later; then the log has all there is to say.
        let mut c = d.connect_from("127.0.0.9");
        c.send("who\r\n").expect(GO);
        drop(c);
        d.wait_log("EXIT service=who");
        let log = d.log();
        let more = log.strip_prefix(&before).expect("the lines before");
        assert_eq!(more.lines().count(), 2, "{more}");
    }
}
