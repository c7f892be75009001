//! One source, an address of a stranger, takes what it may; whoever comes from elsewhere is served
//! throughout.

#[path = "support/scrape.rs"]
mod scrape;
mod support;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";
/// Another source than 127.0.0.1, from which tests connect if they do not say otherwise.
const HONEST: &str = "127.0.0.2";

#[test]
fn one_source_runs_no_more_services_than_its_own() {
    let d = Daemon::with(&format!("max_services = 5\nmax_services_per_source = 3\n{CONF}")).start();
    let mut taken: Vec<Client> = (0..3).map(|_| d.connect().cat()).collect();
    same(d.ask("hello\r\n"), BUSY);
    assert!(
        d.wait_log("REFUSE service=hello")
            .contains("from=127.0.0.1 reason=max_services_per_source")
    );
    same(d.connect_from(HONEST).send("hello\r\n").read_all(), HELLO);
    // A reload forgets none of them.
    d.reload(&format!("max_services = 5\nmax_services_per_source = 3\n{CONF}"));
    same(d.ask("cat\r\n"), BUSY);
    taken.extend((0..2).map(|_| d.connect_from(HONEST).cat()));
    same(d.connect_from("127.0.0.3").send("hello\r\n").read_all(), BUSY);
    assert!(d.wait_log("from=127.0.0.3").contains("reason=max_services session"));
    drop(taken);
    until("there is room again", || d.ask("hello\r\n") == HELLO.as_bytes());
}

#[test]
fn one_source_that_waits_too_often_loses_its_oldest() {
    let d = Daemon::with(&format!("max_connections = 10\n{CONF}")).start();
    let mut honest = d.connect_from(HONEST);
    honest.send("hel");
    let mut flood: Vec<Client> = (0..50).map(|_| d.connect()).collect();
    // The first of them went; the last waits.
    same(flood[0].read_any(), "");
    assert!(d.wait_log("REFUSE service= ").contains("from=127.0.0.1 reason=connections"));
    assert!(flood[49].silent(100));
    same(honest.send("lo\r\n").read_all(), HELLO);
    same(d.connect_from("127.0.0.3").send("hello\r\n").read_all(), HELLO);
    same(flood[49].send("hello\r\n").read_all(), HELLO);
}

#[test]
fn one_source_that_takes_all_descriptors_loses_its_oldest() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=40:40"]).start();
    let mut honest = d.connect_from(HONEST);
    honest.send("hel");
    let mut flood: Vec<Client> = (0..100).map(|_| d.connect()).collect();
    same(flood[0].read_any(), "");
    same(d.connect_from("127.0.0.3").send("hello\r\n").read_all(), HELLO);
    same(honest.send("lo\r\n").read_all(), HELLO);
}

#[test]
fn one_source_that_takes_no_answers_loses_its_oldest() {
    let conf: String = (0..36_000)
        .map(|n| format!("{n}-{} stream tcp nowait @USER@ /bin/cat\n", "n".repeat(200)))
        .collect();
    let d = Daemon::with(&conf).start();
    // Of 7.6 MB the system holds some, and two of the answers are all that net does.
    let mut deaf: Vec<Client> = (0..8).map(|_| d.connect()).collect();
    for c in &mut deaf {
        c.send("HELP\r\n").expect("0-n");
    }
    let mut honest = d.connect_from(HONEST);
    honest.send("HELP\r\n");
    assert!(honest.read_all().split(|b| *b == b'\n').count() > 36_000);
}

const HOST: &str = "+ Success\r\nWhich VHOST? ";

#[test]
fn one_source_has_no_more_sessions_than_its_own() {
    let d = Daemon::with(&format!("max_sessions = 5\nmax_sessions_per_source = 3\n{CONF}")).start();
    let mut taken: Vec<Client> = (0..3).map(|_| d.connect()).collect();
    for c in &mut taken {
        c.send("HOST\r\n").expect(HOST);
    }
    same(d.ask("HOST\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=").contains("from=127.0.0.1 reason=sessions_per_source"));
    same(d.ask("hello\r\n"), HELLO);
    for _ in 0..2 {
        let mut c = d.connect_from(HONEST);
        c.send("HOST\r\n").expect(HOST);
        taken.push(c);
    }
    // Whoever has most makes room (idle_sessions); where nobody has more, nobody does.
    let mut c = d.connect_from("127.0.0.3");
    c.send("HOST\r\n").expect(HOST);
    assert!(d.wait_log("END ").contains("from=127.0.0.1 reason=evicted"));
    same(d.connect_from(HONEST).send("HOST\r\n").read_all(), BUSY);
    assert!(d.wait_log("REFUSE service= host= from=127.0.0.2").contains("reason=sessions"));
    drop((taken, c));
    until("there is room again", || d.ask("HOST\r\n\r\nhello\r\n").ends_with(HELLO.as_bytes()));
}

#[test]
fn sessions_of_an_older_table_count_too() {
    let conf = format!("max_sessions_per_source = 2\n{CONF}");
    let d = Daemon::with(&conf).start();
    let mut old: Vec<Client> = (0..2).map(|_| d.connect()).collect();
    for c in &mut old {
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        // A stream with a service keeps its session when a new table stands.
        c.send([&yamux_raw::header(0, yamux_raw::SYN, 1, 5)[..], b"cat\r\n"].concat())
            .expect(yamux_raw::header(1, yamux_raw::ACK, 1, 0));
    }
    d.wait_logs("START service=cat", 2);
    d.reload(&conf);
    let auth = |from: &str| d.connect_from(from).send("AUTH\r\nx\r\ny\r\nhello\r\n").read_any();
    until("the new table serves", || d.nets().len() == 2 && auth("127.0.0.1") == BUSY.as_bytes());
    assert!(d.wait_log("REFUSE service= ").contains("from=127.0.0.1 reason=sessions_per_source"));
    assert!(auth(HONEST).ends_with(HELLO.as_bytes()));
    drop(old);
    until("there is room again", || auth("127.0.0.1").ends_with(HELLO.as_bytes()));
}

#[test]
fn an_anonymous_session_without_a_stream_ends() {
    let d = Daemon::with(&format!("login_timeout = 3\n{CONF}")).start();
    let (mut idle, mut busy) = (d.connect(), d.connect());
    for c in [&mut idle, &mut busy] {
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    }
    let mut busy = yamux_raw::Raw(busy.0);
    busy.data(yamux_raw::SYN, 1, "cat\r\n");
    same(busy.until(yamux_raw::DATA, 0, 1).payload, GO);
    let mut idle = yamux_raw::Raw(idle.0);
    idle.until(yamux_raw::GO_AWAY, 0, 0);
    drop(idle);
    let line = d.wait_log("END session=");
    assert!(line.contains("reason=timeout"), "{line}");
    // The other is older than that by now; its time begins when its stream has ended.
    busy.data(yamux_raw::FIN, 1, "still here");
    assert!(String::from_utf8_lossy(&busy.stream(1).0).ends_with("still here"));
    busy.until(yamux_raw::GO_AWAY, 0, 0);
    drop(busy);
    assert!(d.wait_logs("END session=", 2)[1].contains("reason=timeout"));
}

/// Sends to stream 1 whatever its window takes. Returns how much it took at a time, at most, when
/// that was more than the first window, or when so many bytes were sent.
fn taken_at_a_time(r: &mut yamux_raw::Raw<std::net::TcpStream>, bytes: u32) -> u32 {
    let (mut window, mut most, mut sent) = (FIRST_WINDOW - "sink\r\n".len() as u32, 0, 0);
    while most <= FIRST_WINDOW && sent < bytes {
        most = most.max(window);
        while window > 0 {
            let piece = window.min(16 * 1024);
            r.data(0, 1, vec![b'x'; piece as usize]);
            (window, sent) = (window - piece, sent + piece);
        }
        window += r.until(yamux_raw::WINDOW, 0, 1).length;
    }
    most
}

const FIRST_WINDOW: u32 = 256 * 1024;

#[test]
fn windows_grow_only_where_somebody_had_logged_in() {
    let sink = "sink stream tcp nowait @USER@ /bin/sh sh -c 'exec cat >/dev/null'\n";
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\n{sink}"))
        .file("passwd", &passwords(&["demo"]))
        .start();
    let session = |login: &str, answer: &str| {
        let mut c = d.connect();
        c.send(format!("{login}MULTIPLEX\r\n")).expect(format!("{answer}+ Success\r\n"));
        let mut r = yamux_raw::Raw(c.0);
        r.data(yamux_raw::SYN, 1, "sink\r\n");
        same(r.until(yamux_raw::DATA, 0, 1).payload, GO);
        r
    };
    let answer =
        "+ Success\r\nEnter Username: Enter Password: Authentication as demo successful\r\n";
    let mut known = session("AUTH\r\ndemo\r\ndemopass\r\n", answer);
    assert!(taken_at_a_time(&mut known, 1 << 30) > FIRST_WINDOW);
    assert!(taken_at_a_time(&mut session("", ""), 16 << 20) <= FIRST_WINDOW);
}

/// Of the refusals of this source for this reason: how many have a line, and how many the log only
/// counts.
fn refused(log: &str, source: &str, reason: &str) -> (usize, usize) {
    let of = format!(" from={source} reason={reason}");
    let refused = log.lines().filter(|l| l.starts_with("REFUSE") && l.contains(&of));
    let (counts, lines): (Vec<_>, Vec<_>) = refused.partition(|l| l.contains(" more="));
    let more = |l: &&str| l.split(" more=").nth(1).and_then(|n| n.parse::<usize>().ok());
    // A busy machine may take longer than one window.
    assert!(lines.len() <= 100 * counts.len().max(1), "{log}");
    (lines.len(), counts.iter().map(|l| more(l).expect("a number")).sum())
}

/// A client makes thousands of requests a second, and each that is refused would have its line.
#[test]
fn one_source_does_not_fill_the_log() {
    let conf =
        "no stream tcp nowait @USER@ internal echo\n port = 127.0.0.1:0\n only_from = 10.0.0.1\n";
    let mut d = Daemon::with(&format!("max_streams_anonymous = 1000\n{CONF}{conf}")).start();
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut c = yamux_raw::Raw(c.0);
    for n in 0..500 {
        c.data(yamux_raw::SYN | yamux_raw::FIN, 2 * n + 1, "nobody\r\n");
    }
    c.data(yamux_raw::SYN, 1001, "cat\r\n").until(yamux_raw::DATA, 0, 1001);
    for _ in 0..300 {
        same(d.connect_from("127.0.0.3").send("nobody\r\n").read_all(), NOT_AVAILABLE);
        same(connect_from("127.0.0.4".parse().expect("address"), d.port(0)).read_all(), "");
    }
    // Others have their lines, and so have other reasons.
    let mut other = d.connect_from(HONEST);
    other.send("HOST\r\n\r\nnobody\r\n");
    same(other.read_all(), format!("{HOST}Host  selected\r\n{NOT_AVAILABLE}"));
    d.wait_log("REFUSE service=nobody host= from=127.0.0.2 reason=unknown");
    c.data(yamux_raw::SYN, 1003, "x".repeat(256)).until(yamux_raw::DATA, 0, 1003);
    d.wait_log("from=127.0.0.1 reason=too-long");
    same(d.connect_from("127.0.0.3").send("no\r\n").read_all(), NOT_AVAILABLE);
    d.wait_log("REFUSE service=no host= from=127.0.0.3 reason=address");
    d.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(d.wait(), 0);
    let log = d.log();
    for (source, reason, all) in [
        ("127.0.0.1", "unknown", 500),
        ("127.0.0.3", "unknown", 300),
        ("127.0.0.4", "address", 300),
    ] {
        let (lines, more) = refused(&log, source, reason);
        assert!(lines + more == all && more > 0, "{source}: {lines} {more} {log}");
    }
}

/// Has everything been read that came to this port from there?
fn is_read(port: SocketAddr, from: &str) -> bool {
    let (IpAddr::V4(to), IpAddr::V4(from)) = (port.ip(), from.parse().expect("address")) else {
        panic!("IPv4");
    };
    let hex = |a: Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(a.octets()));
    let (to, from) = (format!("{}:{:04X}", hex(to), port.port()), hex(from));
    let all = std::fs::read_to_string("/proc/net/tcp").expect("tcp");
    // Local and remote address, state, queues, ..., inode: none before it is accepted.
    all.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).any(|l| {
        l[1] == to && l[2].starts_with(&from) && l[4].ends_with(":00000000") && l[9] != "0"
    })
}

/// What the parent has not been told of yet, because it is busy: sources take turns.
#[test]
fn one_source_that_asks_for_much_keeps_no_other_waiting() {
    // Fewer than may wait for one user's starts, where those are slow.
    const FLOOD: usize = 240;
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let mut d = Daemon::with(&format!("max_services_per_source = 1000\n{CONF}")).start();
    let net = d.net_pid();
    d.signal(Signal::SIGSTOP);
    let mut flood: Vec<Client> = (0..FLOOD).map(|_| d.connect()).collect();
    for c in &mut flood {
        c.send("hello\r\n");
    }
    // Some are in the channel.
    until("net has read them", || proc::descriptors(net).len() > FLOOD * 9 / 10);
    let mut honest = d.connect_from(HONEST);
    honest.send("hello\r\n");
    until("net has read it", || is_read(d.address(), HONEST));
    d.signal(Signal::SIGCONT);
    same(honest.read_all(), HELLO);
    flood.iter_mut().for_each(|c| same(c.read_all(), HELLO));
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    let log = d.log();
    let place = log.lines().filter(|l| l.starts_with("START")).position(|l| l.contains(HONEST));
    assert!(place.is_some_and(|n| n < 100), "{place:?}");
}

/// The same of what is asked besides services: the names of clients' addresses, and sessions.
#[test]
fn one_source_whose_names_are_not_asked_for_yet_leaves_sessions_to_others() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    const FLOOD: usize = 250;
    let conf = format!(
        "metrics stream tcp nowait @USER@ internal\nnamed stream tcp nowait @USER@ /bin/echo echo named\n no_access = .example.org\n{CONF}"
    );
    // Net holds 100 of such orders then.
    let d = Daemon::with(&conf).under(&["prlimit", "--nofile=800:800"]).start();
    d.signal(Signal::SIGSTOP);
    let mut flood: Vec<Client> = (0..FLOOD).map(|_| d.connect()).collect();
    for c in &mut flood {
        c.send("named\r\n");
    }
    let net = d.net_pid();
    until("net holds as many as it may", || proc::descriptors(net).len() > FLOOD);
    let mut honest = d.connect_from(HONEST);
    honest.send("HOST\r\n");
    until("net has read it", || is_read(d.address(), HONEST));
    d.signal(Signal::SIGCONT);
    same(honest.send("\r\nhello\r\n").read_all(), format!("{HOST}Host  selected\r\n{HELLO}"));
    let busy = flood.iter_mut().filter_map(|c| (c.read_all() == BUSY.as_bytes()).then_some(()));
    let busy = busy.count();
    // They have no lines of their own, and are counted.
    let counted = || {
        let log = d.log();
        let heads = log.lines().filter_map(|l| Some(l.split_once(" refusals not logged")?.0));
        heads.filter_map(|head| head.rsplit(' ').next()?.parse::<usize>().ok()).sum::<usize>()
    };
    until("all are counted", || counted() >= busy);
    assert!(busy > FLOOD / 4 && counted() == busy, "{busy} {}", counted());
    let (all, labels) = (scrape::samples(&d), "reason=\"not-logged\"");
    assert_eq!(scrape::sum(&all, "fived_refusals_total", labels), busy as f64, "{all:?}");
}

/// Places for descriptors that are on their way: streams keep theirs although they were reset.
#[test]
fn one_source_whose_streams_are_gone_leaves_descriptors_to_others() {
    use yamux_raw::{ACK, PING, RST, Raw, SYN, WINDOW};
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=256:256"]).start();
    let session = |from: &str| {
        let mut c = d.connect_from(from);
        c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
        Raw(c.0)
    };
    let (mut flood, mut honest) = ([(); 3].map(|()| session("127.0.0.1")), session(HONEST));
    d.wait_logs("SESSION ", 4);
    d.signal(Signal::SIGSTOP);
    for c in &mut flood {
        for id in (1..150).step_by(2) {
            c.data(SYN, id, "hello\r\n").frame(WINDOW, RST, id, 0);
        }
        c.frame(PING, SYN, 0, 7).until(PING, ACK, 0);
    }
    honest.data(SYN, 1, "hello\r\n").frame(PING, SYN, 0, 7).until(PING, ACK, 0);
    d.signal(Signal::SIGCONT);
    same(honest.stream(1).0, HELLO);
}
