//! Metrics: fived's counts for Prometheus.

#[path = "support/resume_client.rs"]
mod resume_client;
#[path = "support/scrape.rs"]
mod scrape;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use nix::sys::signal::Signal;
use resume_client::Session;
use scrape::{http, samples, sum, text};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;

const ROWS: &str = "metrics stream tcp nowait @USER@ internal\n\
    echo stream tcp nowait @USER@ internal\n\
    closed stream tcp nowait @USER@ internal echo\n no_access = 0.0.0.0/0\n";

#[test]
fn counts_follow_what_happens() {
    let d = Daemon::with(ROWS).start();
    let before = samples(&d);
    assert_eq!(sum(&before, "fived_starts_total", "\"echo\""), 0.0);
    assert_eq!(before["fived_last_reload_good"], 1.0);
    assert!(before["fived_start_time_seconds"] > 1e9);
    let mut c = d.connect();
    c.send("echo\r\nx").expect("+Go\r\nx");
    d.ask("closed\r\n");
    d.wait_log("REFUSE service=closed");
    let now = samples(&d);
    assert_eq!(sum(&now, "fived_starts_total", "\"echo\""), 1.0, "{now:?}");
    assert_eq!(sum(&now, "fived_services_running", "\"echo\""), 1.0, "{now:?}");
    assert_eq!(sum(&now, "fived_refusals_total", "\"closed\""), 1.0, "{now:?}");
    assert_eq!(now["fived_requests_total{outcome=\"refused\"}"], 1.0);
    let count = now["fived_start_seconds_count"];
    assert_eq!(now["fived_start_seconds_bucket{le=\"+Inf\"}"], count);
    assert!(count >= 2.0, "{now:?}");
    assert!(now["fived_start_seconds_sum"] > 0.0, "{now:?}");
    c.half_close().end();
    d.wait_log("EXIT service=echo");
    assert_eq!(sum(&samples(&d), "fived_services_running", "\"echo\""), 0.0);
}

#[test]
fn logins_penalties_sessions_and_reloads_are_counted() {
    let trap = "trap stream tcp nowait @USER@ internal sensor\n deny_time = 60\n tcpmux = yes\n";
    let conf = format!("passwords = @DIR@/passwd\n{ROWS}{trap}");
    let d = Daemon::with(&conf).file("passwd", &passwords(&["demo"])).start();
    let now = |name: &str| samples(&d).get(name).copied().unwrap_or_default();
    let from = |ip: &str, words: &str| d.connect_from(ip).send(words).half_close().read_any();
    from("127.0.0.5", "AUTH\r\ndemo\r\ndemopass\r\nnothing\r\n");
    assert_eq!(now("fived_penalties_total{reason=\"login\"}"), 0.0);
    from("127.0.0.6", "AUTH\r\nstranger\r\nstrange\r\nnothing\r\n");
    from("127.0.0.7", "trap\r\n");
    d.wait_logs("PENALTY ", 2);
    for name in [
        "fived_logins_total{method=\"password\",result=\"yes\"}",
        "fived_logins_total{method=\"password\",result=\"no\"}",
        "fived_penalties_total{reason=\"login\"}",
        "fived_penalties_total{reason=\"sensor\"}",
        "fived_refusals_total{service=\"trap\",host=\"\",reason=\"sensor\"}",
    ] {
        assert_eq!(now(name), 1.0, "{name}: {:?}", samples(&d));
    }
    let kinds = |wanted: [f64; 3]| {
        let all = ["plain", "encrypted", "lost"];
        let names = all.map(|kind| format!("fived_sessions{{kind=\"{kind}\"}}"));
        until(&format!("{wanted:?}"), || names.each_ref().map(|n| now(n)) == wanted);
    };
    kinds([0.0; 3]);
    let mut plain = d.connect();
    plain.send("HOST\r\n").expect("+ Success\r\n");
    kinds([1.0, 0.0, 0.0]);
    let mut session = Session::begin(Tls::start(d.connect().0, "localhost"));
    kinds([1.0, 1.0, 0.0]);
    drop(plain);
    session.lose();
    until("it is lost", || now("fived_sessions{kind=\"lost\"}") == 1.0);
    session.resume(d.connect().0);
    kinds([0.0, 1.0, 0.0]);
    let read = now("fived_last_reload_time_seconds");
    assert_eq!(now("fived_last_reload_good"), 1.0);
    assert!(read >= now("fived_start_time_seconds"), "{read}");
    until("another second has begun", || {
        d.reload("nonsense\n");
        now("fived_last_reload_time_seconds") > read
    });
    assert_eq!(now("fived_last_reload_good"), 0.0);
    let all = text(&d);
    assert!(!all.contains("strange"), "{all}");
}

/// fived(8) names each metric, and no other.
#[test]
fn the_manual_names_what_there_is() {
    let d = Daemon::with(ROWS).start();
    let all = text(&d);
    let told: BTreeSet<_> = all.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    let told: BTreeSet<_> = told.iter().filter_map(|l| l.split(' ').next()).collect();
    let page = page::text("man/fived.8");
    let section = page.split(".Ss Metrics\n").nth(1).and_then(|p| p.split("\n.Sh ").next());
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let section = section.expect("a section");
    let named = section.split(word).filter(|w| w.starts_with("fived_"));
    assert_eq!(told, named.collect());
}

#[test]
fn the_manual_names_all_labels() {
    let d = Daemon::with(ROWS).start();
    d.ask("echo\r\n");
    d.ask("stranger\r\n");
    d.wait_logs("REFUSE", 1);
    let (all, page) = (text(&d), page::page("fived.8"));
    let mut seen = BTreeSet::new();
    for sample in all.lines().filter(|l| !l.starts_with('#') && !l.contains("{le=")) {
        let Some((name, labels)) = sample.split_once('{') else { continue };
        let row = page.split(&format!(".It Li {name} Ta Cm ")).nth(1);
        let row = row.and_then(|r| r.lines().next()).unwrap_or_else(|| panic!("{name}"));
        let labels = labels.rsplit_once('}').expect("an end").0;
        for label in labels.split("\",").filter_map(|l| l.split('=').next()) {
            assert!(row.split(' ').any(|word| word == label), "{name} {label}: {row}");
            seen.insert(label.to_string());
        }
    }
    assert!(seen.len() > 7, "{seen:?}");
}

/// Of a client that is gone when the parent comes to its request nobody can say who it was.
#[test]
fn a_client_that_is_gone_is_counted_and_logged() {
    let d = Daemon::with(ROWS).start();
    same(d.ask("echo\r\n"), GO);
    d.wait_log("EXIT service=echo");
    let net = d.net_pid();
    d.signal(Signal::SIGSTOP);
    let mut plain = d.connect();
    plain.send("ec");
    until("net has the client", || plain.is_at(net));
    plain.send("ho\r\n");
    until("the order is given", || !plain.is_at(net));
    let mut session = d.connect();
    session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    [plain, session].iter().for_each(|client| reset(&client.0));
    d.signal(Signal::SIGCONT);
    let lines = d.wait_logs("REFUSE", 2);
    for (line, service) in lines.iter().zip(["echo", ""]) {
        let wanted = format!("REFUSE service={service} host= reason=gone");
        assert!(line.ends_with(&wanted), "{line}");
    }
    let all = samples(&d);
    for service in ["echo", ""] {
        let labels = format!("{{service=\"{service}\",host=\"\",reason=\"gone\"}}");
        assert_eq!(sum(&all, "fived_refusals_total", &labels), 1.0, "{all:?}");
    }
}

#[test]
fn a_stranger_s_names_make_no_label() {
    let d = Daemon::with(ROWS).start();
    for n in 0..5 {
        d.ask(format!("stranger{n}\r\n"));
    }
    d.wait_logs("REFUSE", 5);
    let all = samples(&d);
    assert!(!all.keys().any(|k| k.contains("stranger")), "{all:?}");
    assert_eq!(sum(&all, "fived_refusals_total", "service=\"\""), 5.0, "{all:?}");
}

#[test]
fn a_reload_keeps_the_counts_of_names_that_stay() {
    let d = Daemon::with(ROWS).start();
    d.ask("echo\r\n");
    d.ask("closed\r\n");
    d.wait_log("REFUSE service=closed");
    d.reload(&ROWS[..ROWS.find("closed").expect("the row")]);
    let all = samples(&d);
    assert_eq!(sum(&all, "fived_starts_total", "\"echo\""), 1.0, "{all:?}");
    assert!(!all.keys().any(|k| k.contains("closed")), "{all:?}");
    assert_eq!(all["fived_last_reload_good"], 1.0);
    d.reload("nonsense\n");
    assert_eq!(samples(&d)["fived_last_reload_good"], 0.0);
}

#[test]
fn it_speaks_http() {
    let d = Daemon::with(ROWS).start();
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
        // RFC 9112, 2.2: empty lines before the request, and lines that end in LF alone.
        ("\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("HEAD / HTTP/1.1\nHost: a\n\n", "200"),
        ("\nHEAD / HTTP/1.1\r\nHost: a\n\r\n", "200"),
        ("HEAD / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "400"),
    ] {
        let (head, body) = http(&d, request);
        assert_eq!(head.split(' ').nth(1), Some(status), "{request:?}: {head}");
        assert!(status != "200" || body.is_empty(), "{body}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(8200));
    assert!(http(&d, &long).0.starts_with("HTTP/1.1 431 "));
}

/// Bytes to services and from them, as `metrics` tells them.
fn relayed(d: &Daemon) -> [u64; 2] {
    let all = samples(d);
    ["in", "out"]
        .map(|way| all[&format!("fived_relayed_bytes_total{{direction=\"{way}\"}}")] as u64)
}

/// These are told, by `status` too. A client has its bytes before they are counted.
fn are_relayed(d: &Daemon, bytes: [u64; 2]) {
    until("they are counted", || relayed(d) == bytes);
    let status = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
    let counts = ["bytes_in=", "bytes_out="].map(|name| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line");
        line.parse::<u64>().expect("a number")
    });
    assert_eq!(counts, bytes);
}

#[test]
fn relayed_bytes_are_counted_while_they_are_relayed() {
    let upstream = upstream::echo();
    let d = Daemon::with(&format!(
        "{ROWS}status stream tcp nowait @USER@ internal\nup stream tcp nowait @USER@ redirect {upstream}\n"
    ))
    .start();
    are_relayed(&d, [0, 0]);
    // By a thread that relays.
    let mut c = d.connect();
    c.send("up\r\n").expect(GO).send([b'x'; 1000]).expect([b'x'; 1000]);
    are_relayed(&d, [1000, 1000]);
    // By a session, whose end of the program's connection is counted.
    let mut plain = d.connect();
    plain.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(plain.0);
    let mut stream = mux.ask("echo\r\n");
    stream.expect(GO);
    stream.write_all(&[b'y'; 500]).expect("written");
    stream.expect([b'y'; 500]);
    let all = samples(&d);
    assert_eq!(all["fived_sessions{kind=\"multiplexed\"}"], 1.0, "{all:?}");
    let are_all = |[to, from]: [u64; 2]| to == 1500 && (1500..1600).contains(&from);
    until("they are counted", || are_all(relayed(&d)));
    let all = relayed(&d);
    // What was relayed stays counted, also when the process that did it ends.
    c.half_close().end();
    drop((stream, mux));
    d.wait_log("EXIT service=up");
    d.wait_log("END session=");
    d.reload(&format!("{ROWS}status stream tcp nowait @USER@ internal\n"));
    until("the first net process has ended", || {
        let status = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
        status.matches("net=").count() == 1
    });
    are_relayed(&d, all);
    assert_eq!(samples(&d)["fived_sessions{kind=\"multiplexed\"}"], 0.0);
}

#[test]
fn what_waits_and_what_is_open_is_told() {
    let d = Daemon::with(ROWS).start();
    let before = samples(&d);
    assert!(before["fived_descriptors{process=\"parent\"}"] > 3.0, "{before:?}");
    assert!(before["fived_descriptors{process=\"net\"}"] > 3.0, "{before:?}");
    assert!(before["fived_descriptors_max"] > before["fived_descriptors{process=\"net\"}"]);
    let clients: Vec<_> = (0..30).map(|_| d.connect()).collect();
    until("they wait", || samples(&d)["fived_waiting_clients"] == 30.0);
    let more = samples(&d)["fived_descriptors{process=\"net\"}"];
    // Who scrapes may have had one himself, each time.
    assert!(more >= before["fived_descriptors{process=\"net\"}"] + 25.0, "{more}");
    drop(clients);
    until("they have gone", || samples(&d)["fived_waiting_clients"] == 0.0);
}

/// More rows than the parent composes at a time: each service is there once, and so it is for all
/// who ask at the same time, and for `status`.
#[test]
fn thousands_of_services_are_told_in_parts() {
    const ALL: usize = 600;
    let rows: String =
        (0..ALL).map(|i| format!("s{i} stream tcp nowait @USER@ internal echo\n")).collect();
    let settings = "cps = UNLIMITED\nmax_services_per_source = 1000\n";
    let status = "status stream tcp nowait @USER@ internal\n";
    let d = Daemon::with(&format!("{settings}{ROWS}{status}{rows}")).start();
    for i in 0..ALL {
        assert_eq!(d.ask(format!("s{i}\r\n")), GO.as_bytes());
    }
    let of_services = |all: &BTreeMap<String, f64>| {
        let one = |i| format!("fived_starts_total{{service=\"s{i}\",host=\"\"}}");
        assert!((0..ALL).all(|i| all.get(&one(i)) == Some(&1.0)));
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| samples(&d))).collect();
        all.into_iter().for_each(|one| of_services(&one.join().expect("samples")));
    });
    let held: Vec<_> = (0..300)
        .map(|i| {
            let mut c = d.connect();
            c.send(format!("s{i}\r\n")).expect(GO);
            c
        })
        .collect();
    // On a busy machine a start may not be over yet when its `+Go` has come.
    until("all are told", || {
        let status = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
        assert_eq!(status.lines().last(), Some("penalties=0"));
        let told: BTreeSet<_> = status.lines().filter(|l| l.starts_with("service=s")).collect();
        told.len() > held.len()
    });
    until("those that have ended are not counted", || {
        sum(&samples(&d), "fived_services_running", "service=\"s") == held.len() as f64
    });
}
