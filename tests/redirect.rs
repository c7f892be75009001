//! `redirect`, services that run already. (`peer` of a real PostgreSQL is in
//! `tests/redirect_apps.rs`, with a real HAProxy.)

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};
use nix::sys::socket::{bind, getsockname, listen, socket, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;
use yamux_raw::Raw;

/// A row that redirects to these.
fn row(name: &str, upstreams: &[&dyn ToString], attributes: &str) -> String {
    let all: Vec<String> = upstreams.iter().map(|u| u.to_string()).collect();
    format!("{name} stream tcp nowait @USER@ redirect {}\n{attributes}", all.join(" "))
}

fn mux(d: &Daemon) -> Mux {
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    Mux::new(c.0)
}

fn mux_over_tls(d: &Daemon) -> Mux {
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"MULTIPLEX\r\n");
    c.expect(b"+ Success\r\n");
    Mux::new(c.0)
}

#[test]
fn every_kind_of_connection_reaches_a_running_server_and_both_half_closes_pass() {
    let up = upstream::counts("web");
    let conf = row("web", &[&up], " log_on_success = PID HOST EXIT DURATION TRAFFIC\n")
        + "[main]\n"
        + &row("own", &[&up], "");
    let d = Daemon::with(&conf).start();
    let (hello, answer) = ("this is web\n", "5 bytes: hello");
    let plain = |request: &str, before: &str| {
        let mut c = d.connect();
        c.send(request).expect(before).expect(hello).send("hello");
        assert!(c.silent(50));
        same(c.half_close().read_all(), answer);
    };
    plain("web\r\n", GO);
    plain("HOST\r\nmain\r\nown\r\n", "+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\n");

    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"web\r\nhel");
    c.expect(format!("{GO}{hello}").as_bytes());
    c.send(b"lo");
    c.half_close();
    same(c.read_all(), answer);

    for mux in [mux(&d), mux_over_tls(&d)] {
        let mut s = mux.ask("web\r\nhello");
        s.expect(GO).expect(hello);
        same(s.finish().read_all(), answer);
        let mut s = mux.ask("HOST\r\nmain\r\nown\r\nhello");
        s.expect("+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\n").expect(hello);
        same(s.finish().read_all(), answer);
        assert!(!mux.ended());
    }
    for line in d.wait_logs("START service=web ", 4) {
        let wanted = format!("START service=web host= to={up} from=127.0.0.1 session=");
        assert!(line.contains(&wanted), "{line}");
    }
    for line in d.wait_logs("EXIT service=web ", 4) {
        let wanted = format!("EXIT service=web to={up} duration=");
        assert!(line.contains(&wanted) && line.contains(" in=5 out=26 session="), "{line}");
    }
    d.wait_logs(&format!("EXIT service=own to={up} duration="), 3);
    d.wait_logs("START service=own host=main to=", 3);
}

#[test]
fn upstreams_take_turns_and_one_that_refuses_is_passed_over() {
    let (one, two) = (upstream::counts("one"), upstream::counts("two"));
    let none = upstream::nobody();
    let conf = row("web", &[&one, &two], "")
        + &row("half", &[&none, &one], "")
        + &row("none", &[&none, &"/no/such/socket"], "");
    let d = Daemon::with(&conf).start();
    let name = |service: &str| {
        let all = d.connect().send(format!("{service}\r\n")).half_close().read_all();
        let all = String::from_utf8(all).expect("text");
        all.strip_prefix("+Go\r\nthis is ").expect("an upstream")[..3].to_string()
    };
    assert_eq!([(); 4].map(|()| name("web")), ["one", "two", "one", "two"]);
    assert_eq!([(); 3].map(|()| name("half")), ["one", "one", "one"]);
    same(d.ask("none\r\n"), FAILED);
    let line = d.wait_log("REFUSE service=none");
    let (refused, missing) = (format!("{none}: Connection refused"), "/no/such/socket: ");
    assert!(line.contains(" reason=failed "), "{line}");
    assert!(line.contains(&refused) && line.contains(missing), "{line}");
    // In a session, likewise.
    same(mux(&d).ask("none\r\n").read_all(), FAILED);
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"none\r\n");
    same(c.read_all(), FAILED);
    assert!(!d.log().contains("START service=none"));
}

/// A listener that accepts nobody and whose queue is full, so that it does not answer.
fn silent() -> (OwnedFd, SocketAddr, Vec<TcpStream>) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("socket");
    let any = SockaddrStorage::from("127.0.0.1:0".parse::<SocketAddr>().expect("an address"));
    bind(fd.as_raw_fd(), &any).expect("bind");
    listen(&fd, Backlog::new(0).expect("a number")).expect("listen");
    let real: SockaddrStorage = getsockname(fd.as_raw_fd()).expect("its address");
    let address = SocketAddr::from((
        std::net::Ipv4Addr::LOCALHOST,
        real.as_sockaddr_in().expect("IPv4").port(),
    ));
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let full: Vec<TcpStream> = std::iter::from_fn(|| connect().ok()).take(50).collect();
    assert!(full.len() < 50);
    (fd, address, full)
}

#[test]
fn one_that_does_not_answer_is_passed_over_and_nobody_else_waits() {
    let (_fd, silent, _full) = silent();
    let up = upstream::counts("one");
    let conf = row("hangs", &[&silent], " connect_timeout = 1\n")
        + &row("web", &[&silent, &up], " connect_timeout = 1\n")
        + "date stream tcp nowait @USER@ /bin/echo echo today\n";
    let d = Daemon::with(&conf).start();
    let mut waits = d.connect();
    waits.send("hangs\r\n");
    let s = mux(&d);
    let mut stream = s.ask("web\r\n");
    same(d.ask("date\r\n"), "+Go\r\ntoday\n");
    stream.expect(GO).expect("this is one\n");
    same(waits.read_all(), FAILED);
    let line = d.wait_log("REFUSE service=hangs");
    assert!(line.contains(&format!("{silent}: no answer within 1 s")), "{line}");
    // It is tried last for a while: nobody waits for it, whosever turn it is.
    let does_not_wait = || {
        let began = std::time::Instant::now();
        d.connect().send("web\r\n").expect(GO).expect("this is one\n");
        began.elapsed() < Duration::from_secs(1)
    };
    until("nobody waits for it", || does_not_wait() && does_not_wait());
    let _ = s.ended();
}

#[test]
fn a_reset_of_either_end_reaches_the_other_as_a_reset() {
    let (seen, ends) = std::sync::mpsc::channel();
    let resets = upstream::tcp(|mut s| {
        s.write_all(b"x").expect("write");
        s.read_exact(&mut [0]).expect("read");
        reset(&s);
    });
    let hears = upstream::tcp(move |mut s| {
        s.write_all(b"x").expect("write");
        let _ = seen.send(s.read_to_end(&mut Vec::new()).map_err(|e| e.kind()));
    });
    let d = Daemon::with(&(row("resets", &[&resets], "") + &row("hears", &[&hears], ""))).start();
    let is_reset = |c: &mut dyn Read| {
        let e = c.read_to_end(&mut Vec::new()).expect_err("no end in order");
        assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{e}");
        e.kind()
    };
    let mut c = d.connect();
    c.send("resets\r\n").expect("+Go\r\nx").send("y");
    assert_eq!(is_reset(&mut c.0), ErrorKind::ConnectionReset);
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"resets\r\n");
    c.expect(b"+Go\r\nx");
    c.send(b"y");
    is_reset(&mut c.0);
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut raw = Raw(c.0);
    raw.data(yamux_raw::SYN, 1, "resets\r\n").data(0, 1, "y");
    assert_eq!(raw.stream(1), (b"+Go\r\nx".to_vec(), yamux_raw::RST));
    d.wait_logs("EXIT service=resets", 3);

    let heard = || ends.recv_timeout(TIMEOUT).expect("an end");
    let mut c = d.connect();
    c.send("hears\r\n").expect("+Go\r\nx");
    reset(&c.0);
    assert_eq!(heard(), Err(ErrorKind::ConnectionReset));
    // A connection with TLS that breaks off, and a stream that is reset.
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"hears\r\n");
    c.expect(b"+Go\r\nx");
    drop(c);
    assert_eq!(heard(), Err(ErrorKind::ConnectionReset));
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut raw = Raw(c.0);
    raw.data(yamux_raw::SYN, 1, "hears\r\n");
    let mut said = Vec::new();
    while said != b"+Go\r\nx" {
        said.append(&mut raw.next().payload);
    }
    raw.frame(yamux_raw::WINDOW, yamux_raw::RST, 1, 0);
    assert_eq!(heard(), Err(ErrorKind::ConnectionReset));
    d.wait_logs("EXIT service=hears", 3);
}

/// The stream's own thread says of a relay that it has ended after the session's end has ended it;
/// or the stream's request is read after that end.
#[test]
fn streams_with_facts_of_their_own_end_with_their_session_at_any_moment() {
    let up = upstream::tcp(|mut s| drop(s.read_to_end(&mut Vec::new())));
    let d = Daemon::with(&row("red", &[&up], "")).start();
    let standing = mux(&d);
    let mut kept = standing.ask("red\r\n");
    kept.expect("+Go\r\n");
    let dialogue = b"HOST\r\n\r\nred\r\n";
    let frame = yamux_raw::header(yamux_raw::DATA, yamux_raw::SYN, 1, dialogue.len() as u32);
    let all = [b"MULTIPLEX\r\n", &frame[..], dialogue].concat();
    for n in 0..400 {
        let mut c = d.connect();
        c.send(&all);
        std::thread::sleep(Duration::from_micros(n % 8 * 500));
        if n % 3 > 0 {
            reset(&c.0);
        }
    }
    let count = |of: &str| d.log().matches(of).count();
    until("all have ended", || count("SESSION from=") == count("END session=") + 1);
    until("nothing is left", || count("START service=red") == count("EXIT service=red") + 1);
    assert!(!d.log().contains("WARN"), "{}", d.log());
    kept.finish();
}

/// It ends what it says at once, and then hears the client.
#[test]
fn a_half_close_of_the_upstream_leaves_the_clients_way_open() {
    let (seen, heard) = std::sync::mpsc::channel();
    let up = upstream::tcp(move |mut s| {
        s.write_all(b"bye").and_then(|()| s.shutdown(std::net::Shutdown::Write)).expect("said");
        let mut all = String::new();
        s.read_to_string(&mut all).expect("an end");
        let _ = seen.send(all);
    });
    let d = Daemon::with(&row("bye", &[&up], "")).start();
    let heard = || heard.recv_timeout(TIMEOUT).expect("an end");
    let mut c = d.connect();
    same(c.send("bye\r\n").read_all(), "+Go\r\nbye");
    c.send("plain").half_close();
    assert_eq!(heard(), "plain");
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"bye\r\n");
    same(c.read_all(), "+Go\r\nbye");
    c.send(b"secret");
    c.half_close();
    assert_eq!(heard(), "secret");
    let m = mux(&d);
    let mut s = m.ask("bye\r\n");
    same(s.read_all(), "+Go\r\nbye");
    s.write_all(b"stream").expect("sent");
    s.finish();
    assert_eq!(heard(), "stream");
}

/// No reset overtakes what an upstream has said that is gone while its client is still sending.
#[test]
fn what_a_client_sends_after_the_upstream_has_gone_is_thrown_away() {
    let d = Daemon::with(&row("brief", &[&"@DIR@/brief"], "")).start();
    upstream::unix(&d.place.at("brief"), 0o666, |mut s| {
        // It leaves nothing unread, which would be a reset.
        s.read_exact(&mut [0; 5]).expect("all of it");
        s.write_all(b"enough").expect("said");
    });
    let mut c = d.connect();
    c.send("brief\r\nhello");
    d.wait_log("EXIT service=brief");
    c.expect("+Go\r\nenough").send("and more");
    std::thread::sleep(Duration::from_millis(50));
    c.send("and more").half_close().end();
}

#[test]
fn who_is_gone_before_an_upstream_answers_leaves_his_place_and_a_half_close_is_no_end() {
    let (_fd, silent, _full) = silent();
    let up = upstream::counts("web");
    let conf = row("hangs", &[&silent], " instances = 1\n connect_timeout = 600\n")
        + &row("own", &[&silent], " instances = 1\n connect_timeout = 600\n port = 127.0.0.1:0\n")
        + &row("late", &[&silent, &up], " connect_timeout = 1\n");
    let d = Daemon::with(&conf).start();
    for port in [d.address(), d.port(0)] {
        for n in 1..=2 {
            let mut c = Client::connect(port);
            if port == d.address() {
                c.send("hangs\r\n");
            }
            // His place is taken as soon as the next one is refused.
            let busy = || !Client::connect(port).try_send(b"hangs\r\n").read_any().is_empty();
            until("his place to be taken", || port != d.address() || busy());
            reset(&c.0);
            d.wait_logs(" reason=gone ", n + if port == d.address() { 0 } else { 2 });
        }
    }
    same(
        d.connect().send("late\r\nhello").half_close().read_all(),
        "+Go\r\nthis is web\n5 bytes: hello",
    );
}

#[test]
fn a_port_of_its_own_leads_there_without_a_word_of_fived() {
    let up = upstream::counts("web");
    let d = Daemon::with(&row("web", &[&up], " port = 127.0.0.1:0\n")).start();
    let mut c = Client::connect(d.port(0));
    same(c.send("hello").half_close().read_all(), "this is web\n5 bytes: hello");
    d.wait_log("EXIT service=web to=");
}

/// Each of their packets would interrupt whoever has the processor.
#[test]
fn the_threads_that_relay_give_way_to_others() {
    let up = upstream::echo();
    let d = Daemon::with(&row("echo", &[&up], "")).start();
    let mut c = d.connect();
    c.send("echo\r\nhello").expect("+Go\r\nhello");
    // Field 41 of proc(5).
    let policy = |stat: String| {
        let (_, rest) = stat.rsplit_once(')').expect("stat");
        rest.split_whitespace().nth(38).expect("policy").parse::<u32>().expect("a number")
    };
    // As a thread here that gives way: a container may refuse the call.
    let expected = std::thread::spawn(|| {
        fived::sys::process::give_way();
        read("/proc/thread-self/stat")
    });
    let tasks = std::fs::read_dir(format!("/proc/{}/task", d.net_pid())).expect("tasks");
    let stats = tasks.map(|t| read(&t.expect("task").path().join("stat").display().to_string()));
    let relays: Vec<u32> = stats.filter(|s| s.contains("(relays)")).map(policy).collect();
    assert_eq!(relays, [policy(expected.join().expect("a thread"))]);
}

#[test]
fn many_that_come_at_once_reach_their_own_servers() {
    // It has said all when it has said this: its bytes and its end come together.
    let up = upstream::tcp(|mut s| {
        let mut word = [0; 4];
        s.read_exact(&mut word).and_then(|()| s.write_all(&word)).expect("a word");
    });
    let d = Daemon::with(&row("web", &[&up], " port = 127.0.0.1:0\n instances = 99\n")).start();
    let address = d.port(0);
    let mut ended = 0;
    for n in [1, 2, 3, 40] {
        // They wait in the listener's queue, so fived accepts many of them in one turn.
        d.signal(Signal::SIGSTOP);
        let mut all: Vec<Client> = (0..n).map(|_| Client::connect(address)).collect();
        d.signal(Signal::SIGCONT);
        for (i, c) in all.iter_mut().enumerate().rev() {
            same(c.send(format!("{i:04}")).read_all(), format!("{i:04}"));
        }
        drop(all);
        ended += n;
        d.wait_logs("EXIT service=web ", ended);
    }
}

#[test]
fn a_long_banner_goes_before_what_the_upstream_says() {
    let up = upstream::counts("web");
    let text = "0123456789abcdef\n".repeat(900);
    let attributes = " banner = @DIR@/banner\n reply = Come in\n";
    let d = Daemon::with(&("[main]\n[*]\n".to_string() + &row("web", &[&up], attributes)))
        .file("banner", &text)
        .start();
    let wanted = format!("+Come in\r\n{text}this is web\n0 bytes: ");
    same(d.connect().send("web\r\n").half_close().read_all(), &wanted);
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"web\r\n");
    c.half_close();
    same(c.read_all(), &wanted);
    let m = mux(&d);
    same(m.ask("web\r\n").finish().read_all(), &wanted);
    let dialogue = "+ Success\r\nWhich VHOST? Host main selected\r\n";
    same(m.ask("HOST\r\nmain\r\nweb\r\n").finish().read_all(), dialogue.to_string() + &wanted);
}

#[test]
fn limits_hold_as_for_programs() {
    let up = upstream::echo();
    let conf =
        row("one", &[&up], " instances = 1\n") + &row("short", &[&up], " server_timeout = 3\n");
    let d = Daemon::with(&conf).start();
    let mut first = d.connect();
    first.send("one\r\nx").expect("+Go\r\nx");
    same(d.ask("one\r\n"), BUSY);
    same(mux(&d).ask("one\r\n").read_all(), BUSY);
    first.half_close().end();
    d.wait_log("EXIT service=one");
    let m = mux(&d);
    let mut s = m.ask("one\r\nx");
    s.expect("+Go\r\nx");
    same(d.ask("one\r\n"), BUSY);
    drop(s);
    d.wait_logs("EXIT service=one", 2);
    d.connect().send("one\r\nx").expect("+Go\r\nx").half_close().end();

    let mut c = d.connect();
    same(c.send("short\r\nx").read_all(), "+Go\r\nx");
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"short\r\nx");
    c.expect(b"+Go\r\nx");
    c.read_all();
    let m = mux(&d);
    let mut s = m.ask("short\r\nx");
    s.expect("+Go\r\nx");
    let _ = s.read_to_end(&mut Vec::new());
    let late = d.wait_logs("EXIT service=short", 3);
    assert!(late.iter().all(|l| l.contains(" reason=server_timeout ")), "{late:?}");
    // Whether or not the client has closed its connection.
    assert!(late.iter().all(|l| l.contains(" duration=3.")), "{late:?}");
    assert!(!d.wait_log("EXIT service=one").contains("reason="), "{}", d.log());
}

#[test]
fn a_client_that_takes_nothing_holds_up_no_other() {
    let pours = upstream::tcp(|mut s| while s.write_all(&[7; 65536]).is_ok() {});
    let up = upstream::echo();
    let d = Daemon::with(&(row("pours", &[&pours], "") + &row("echo", &[&up], ""))).start();
    let mut stalled: Vec<Client> = (0..8).map(|_| d.connect()).collect();
    stalled.iter_mut().for_each(|c| {
        c.send("pours\r\n").expect(GO);
    });
    let mut c = d.connect();
    c.send("echo\r\n").expect(GO);
    let text: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let (mut half, wanted) = (c.0.try_clone().expect("a copy"), text.clone());
    let sends = std::thread::spawn(move || {
        half.write_all(&text).expect("send");
        half.shutdown(std::net::Shutdown::Write).expect("half-close");
    });
    assert!(c.read_all() == wanted, "other bytes");
    sends.join().expect("sent");
    // What was not taken is held in the kernel, and a bounded part of it here.
    assert!(proc::rss(d.net_pid()) < 64 << 10);
    stalled.iter_mut().for_each(|c| c.0.read_exact(&mut [0; 100_000]).expect("more"));
    drop(stalled);
    d.wait_logs("EXIT service=pours", 8);
}

#[test]
fn large_transfers_go_through_pipes_and_are_exact_both_ways() {
    // Each word tells where it stands, and in which direction it goes.
    let text = |salt: u32| -> Vec<u8> {
        (0..5u32 << 20).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ salt).to_le_bytes()).collect()
    };
    let (there, back) = (text(1), text(2));
    fn serve(mut s: impl Read, mut half: impl Write + Send + 'static, there: &[u8], back: &[u8]) {
        let (back, mut all) = (back.to_vec(), Vec::new());
        let says = std::thread::spawn(move || half.write_all(&back).map(|()| half));
        let _ = s.read_to_end(&mut all);
        let mut half = says.join().expect("its thread").expect("sent");
        let _ = half.write_all(if all == there { b"exact" } else { b"wrong" });
    }
    let all = (there.clone(), back.clone());
    let tcp = upstream::tcp(move |s| serve(s.try_clone().expect("a copy"), s, &all.0, &all.1));
    let (place, all) = (Place::new(), (there.clone(), back.clone()));
    let path = place.at("up");
    upstream::unix(&path, 0o666, move |s| serve(s.try_clone().expect("a copy"), s, &all.0, &all.1));
    let conf = row("tcp", &[&tcp], " log_on_success = HOST TRAFFIC\n")
        + &row("unix", &[&path], " log_on_success = HOST TRAFFIC\n");
    let d = Daemon::with(&conf).start();
    let pipes =
        || proc::descriptors(d.net_pid()).iter().filter(|(_, l)| l.starts_with("pipe:")).count();
    assert_eq!(pipes(), 0);
    for service in ["tcp", "unix"] {
        let mut c = d.connect();
        c.send(format!("{service}\r\n")).expect(GO);
        let (mut half, there) = (c.0.try_clone().expect("a copy"), there.clone());
        let sent = there.len();
        let sends = std::thread::spawn(move || half.write_all(&there).expect("send"));
        // Whoever takes little is waited for, and what waits for him is in a pipe.
        let mut all = Vec::new();
        until("a pipe in use", || {
            all.extend(c.read_any_of(100_000));
            pipes() > 0
        });
        all.extend(c.read_any_of(back.len() - all.len()));
        sends.join().expect("sent");
        until("no pipe where nothing moves", || pipes() == 0);
        c.half_close();
        assert!(all == back, "{service}: other bytes");
        same(c.read_all(), "exact");
        let exit = d.wait_log(&format!("EXIT service={service} "));
        let wanted = format!(" in={sent} out={} session=", back.len() + 5);
        assert!(exit.contains(&wanted), "{exit}");
    }
}

#[test]
fn silent_ones_have_no_threads_and_no_process() {
    let up = upstream::echo();
    let d = Daemon::with(&row("echo", &[&up], "")).start();
    let before = proc::children(d.parent_pid()).len();
    let mut all: Vec<Client> = (0..60).map(|_| d.connect()).collect();
    all.iter_mut().for_each(|c| {
        c.send("echo\r\nx").expect("+Go\r\nx");
    });
    assert!(proc::threads(d.net_pid()) < 12);
    until("none is theirs", || proc::children(d.parent_pid()).len() <= before);
    all.iter_mut().for_each(|c| {
        c.send("again").expect("again");
    });
    all.iter_mut().for_each(|c| c.half_close().end());
    d.wait_logs("EXIT service=echo", 60);
}

#[test]
fn silent_ones_inside_tls_have_no_threads_and_go_on_either_way() {
    let (speak, spoken) = std::sync::mpsc::channel::<()>();
    let spoken = std::sync::Arc::new(std::sync::Mutex::new(spoken));
    // Says something when it is told to, after all of the client's bytes.
    let late = upstream::tcp(move |mut s| {
        let mut all = Vec::new();
        s.read_to_end(&mut all).expect("an end");
        spoken.lock().expect("a lock").recv().expect("a word");
        s.write_all(&all).expect("write");
    });
    let up = upstream::echo();
    let conf = row("echo", &[&up], "")
        + &row("late", &[&late], "")
        + "cat stream tcp nowait @USER@ /bin/cat cat\n";
    let d = Daemon::with(&conf).start();
    let before = proc::threads(d.net_pid());
    let tls = |request: &[u8]| {
        let mut c = Tls::start(d.connect().0, "x.example");
        c.send(request);
        c.expect(b"+Go\r\n");
        c
    };
    let mut all: Vec<Tls> =
        ["echo\r\n", "cat\r\n"].iter().cycle().take(24).map(|r| tls(r.as_bytes())).collect();
    let mut half: Vec<Tls> = (0..6).map(|_| tls(b"late\r\nhello")).collect();
    half.iter_mut().for_each(Tls::half_close);
    let mut gone: Vec<Tls> = (0..6).map(|_| tls(b"echo\r\n")).collect();
    // The others' threads are for the plain ones, and for those that are parked.
    until("they are parked", || proc::threads(d.net_pid()) <= before + 1);
    let ticks = proc::ticks(d.net_pid());
    std::thread::sleep(Duration::from_millis(500));
    assert!(proc::ticks(d.net_pid()) - ticks < 10, "it spins");
    for c in &mut all {
        c.send(b"again");
        c.expect(b"again");
    }
    half.iter().for_each(|_| speak.send(()).expect("a word"));
    for c in &mut half {
        same(c.read_all(), "hello");
    }
    // One that breaks off while it is parked.
    gone.clear();
    d.wait_logs("EXIT service=echo", 6);
    for c in &mut all {
        c.half_close();
        same(c.read_all(), "");
    }
    d.wait_logs("EXIT service=echo", 18);
    d.wait_logs("EXIT service=cat", 12);
}

#[test]
fn when_the_net_process_dies_its_relays_are_over_and_their_places_free() {
    let up = upstream::echo();
    let d = Daemon::with(&row("one", &[&up], " instances = 2\n")).start();
    let mut c = d.connect();
    c.send("one\r\nx").expect("+Go\r\nx");
    let mut t = Tls::start(d.connect().0, "x.example");
    t.send(b"one\r\nx");
    t.expect(b"+Go\r\nx");
    same(d.ask("one\r\n"), BUSY);
    let net = nix::unistd::Pid::from_raw(d.net_pid());
    nix::sys::signal::kill(net, Signal::SIGKILL).expect("kill");
    d.wait_logs("EXIT service=one", 2);
    until("another net process serves", || {
        let mut c = d.connect();
        c.try_send(b"one\r\nx");
        c.read_any_of(6) == b"+Go\r\nx"[..]
    });
}

/// After five of them have died the next one comes after a second.
#[test]
fn clients_at_a_port_wait_for_the_next_net_process() {
    let up = upstream::echo();
    let d = Daemon::with(&row("echo", &[&up], " port = 127.0.0.1:0\n")).start();
    for _ in 0..6 {
        let net = d.net_pid();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(net), Signal::SIGKILL).expect("kill");
        d.wait_log(&format!("WARN net: pid {net} ended"));
        let mut c = Client::connect(d.port(0));
        c.send("x").half_close();
        same(c.read_all(), "x");
    }
}

#[test]
fn relays_outlive_a_reload_and_end_with_fived() {
    let up = upstream::echo();
    let conf = row("echo", &[&up], "");
    let mut d = Daemon::with(&format!("shutdown_timeout = 4\n{conf}")).start();
    let mut c = d.connect();
    c.send("echo\r\nx").expect("+Go\r\nx");
    let old = d.net_pid();
    d.reload("other stream tcp nowait @USER@ /bin/echo echo other\n");
    until("the new table is served", || d.ask("echo\r\n") == NOT_AVAILABLE.as_bytes());
    c.send("still").expect("still");
    assert!(d.nets().contains(&old) && d.nets().len() == 2);
    c.half_close().end();
    d.wait_log("EXIT service=echo");
    until("the old net process has ended", || d.nets().len() == 1);

    d.reload(&format!("shutdown_timeout = 4\n{conf}"));
    let mut c = d.connect();
    until("the third table is served", || {
        c = d.connect();
        c.send("echo\r\nx").read_any_of(6) == b"+Go\r\nx"
    });
    d.signal(Signal::SIGTERM);
    c.send("still").expect("still");
    assert_eq!(d.wait(), 0);
    c.read_any();
}

#[test]
fn the_upstream_of_a_name_is_looked_up() {
    let up = upstream::counts("web");
    let name = format!("localhost:{}", up.port());
    let conf = row("web", &[&name], "") + &row("none", &[&"nothing.invalid:80"], "");
    let d = Daemon::with(&conf).start();
    d.wait_log("upstreams: nothing.invalid: no address found");
    until("its address is known", || {
        d.connect().send("web\r\n").half_close().read_any().starts_with(b"+Go\r\nthis is web\n")
    });
    same(d.ask("none\r\n"), FAILED);
    let line = d.wait_log("REFUSE service=none");
    assert!(line.contains("nothing.invalid: its address is not known"), "{line}");
}

#[test]
fn a_name_is_looked_up_again_and_keeps_its_last_address_when_it_is_gone() {
    if !(root() && installed("unshare")) {
        return skip("needs root and unshare for an /etc/hosts of its own");
    }
    let two = upstream::at("127.0.0.2:0", "two");
    let three = upstream::at(&format!("127.0.0.3:{}", two.port()), "three");
    let conf = row("web", &[&format!("up.test:{}", three.port())], "");
    let b = Daemon::with(&conf).file("hosts", "127.0.0.2 up.test\n");
    let mount = "mount --bind @DIR@/hosts /etc/hosts && exec \"$0\" \"$@\"";
    let d = b.under(&["unshare", "-m", "sh", "-c", mount]).start();
    let says = |name: &str| {
        until(name, || {
            let all = d.connect().send("web\r\n").half_close().read_any();
            all.starts_with(format!("+Go\r\nthis is {name}\n").as_bytes())
        });
    };
    says("two");
    // In place: what is mounted is this file.
    let is_at = |address: &str| {
        std::fs::write(d.place.at("hosts"), format!("{address} up.test\n")).expect("hosts");
    };
    // fived looks each name up once a minute, too.
    let minutes = trial_size("look-ups", 0, 4);
    for n in 0..minutes {
        let (address, name) = [("127.0.0.3", "three"), ("127.0.0.2", "two")][n % 2];
        is_at(address);
        std::thread::sleep(TIMEOUT);
        says(name);
    }
    trial("look-ups", format!("{minutes} addresses, each found within two minutes"));
    is_at("127.0.0.3");
    d.signal(Signal::SIGHUP);
    says("three");
    std::fs::write(d.place.at("hosts"), "127.0.0.1 localhost\n").expect("hosts");
    d.signal(Signal::SIGHUP);
    d.wait_log("WARN upstreams: up.test: no address found; fived keeps using its last ones");
    says("three");
}

#[test]
fn a_unix_upstream_is_connected_as_the_rows_user() {
    if !root() {
        return skip("needs root");
    }
    use std::os::fd::AsFd;
    let up = |mut s: std::os::unix::net::UnixStream| {
        let who = nix::sys::socket::getsockopt(&s.as_fd(), sockopt::PeerCredentials);
        let _ = s.write_all(format!("uid {}", who.expect("credentials").uid()).as_bytes());
    };
    let conf = "who stream tcp nowait nobody redirect @DIR@/open @DIR@/open\n\
                no stream tcp nowait nobody redirect @DIR@/closed\n\
                root stream tcp nowait root redirect @DIR@/closed\n";
    let d = Daemon::with(conf).start();
    upstream::unix(&d.place.at("open"), 0o666, up);
    upstream::unix(&d.place.at("closed"), 0o600, up);
    same(d.ask("who\r\n"), "+Go\r\nuid 65534");
    same(mux(&d).ask("who\r\n").read_all(), "+Go\r\nuid 65534");
    same(d.ask("root\r\n"), "+Go\r\nuid 0");
    same(d.ask("no\r\n"), FAILED);
    let line = d.wait_log("REFUSE service=no ");
    assert!(line.contains("/closed: Permission denied"), "{line}");
    // Nothing is left of the children that connected.
    until("they are reaped", || {
        proc::children(d.parent_pid()).iter().all(|p| !proc::arguments(*p).is_empty())
    });
    d.wait_log(&format!("START service=who host= to={}", d.place.at("open")));
}

#[test]
fn the_upstream_is_told_of_the_client_first() {
    let up = upstream::tcp(|mut s| {
        let mut all = Vec::new();
        let _ = s.read_to_end(&mut all);
        let _ = s.write_all(&all);
    });
    let conf = row("v1", &[&up], " proxy = v1\n") + &row("v2", &[&up], " proxy = v2\n");
    let d = Daemon::with(&format!("passwords = @DIR@/passwords\n{conf}"));
    let d = d.file("passwords", &passwords(&["demo"])).start();
    let mut c = d.connect();
    let mine = c.0.local_addr().expect("an address").port();
    let port = d.address().port();
    let all = c.send("v1\r\nhello").half_close().read_all();
    let line = format!("+Go\r\nPROXY TCP4 127.0.0.1 127.0.0.1 {mine} {port}\r\nhello");
    same(all, line);
    let mut c = Tls::start(d.connect().0, "x.example");
    c.send(b"v2\r\nhello");
    c.half_close();
    let all = c.read_all();
    assert!(all.starts_with(b"+Go\r\n\r\n\r\n\0\r\nQUIT\n\x21\x11"), "{}", all.escape_ascii());
    let has = |all: &[u8], part: &[u8]| all.windows(part.len()).any(|w| w == part);
    assert!(has(&all, b"TLSv1.3") && has(&all, b"TLS_"), "{}", all.escape_ascii());
    assert!(all.ends_with(b"hello"), "{}", all.escape_ascii());
    // Who has logged in, and the number of the session.
    let mut c = d.connect();
    let all = c.send("AUTH\r\ndemo\r\ndemopass\r\nv2\r\nhello").half_close().read_all();
    let line = d.wait_log(" user=demo");
    let number = line.split("session=").nth(1).and_then(|l| l.split(' ').next()).expect("one");
    let unique = [&[5, 0, number.len() as u8], number.as_bytes()].concat();
    assert!(has(&all, b"\x22\0\x04demo") && has(&all, &unique), "{}", all.escape_ascii());
}
