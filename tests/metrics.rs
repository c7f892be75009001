//! SPEC 8, metrics: fived's counts for Prometheus.

mod support;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use support::*;
use yamux_client::Client as Mux;

const ROWS: &str = "metrics stream tcp nowait @USER@ internal\n\
    echo stream tcp nowait @USER@ internal\n\
    closed stream tcp nowait @USER@ internal echo\n no_access = 0.0.0.0/0\n";

fn http(d: &Daemon, request: &str) -> (String, String) {
    let got = d.connect().send(format!("metrics\r\n{request}")).read_all();
    let got = String::from_utf8(got).expect("UTF-8");
    let got = got.strip_prefix(GO).unwrap_or_else(|| panic!("{got}"));
    let (head, body) = got.split_once("\r\n\r\n").expect("a head");
    (head.into(), body.into())
}

/// Every sample by its name and labels. Each line is checked.
fn samples(d: &Daemon) -> BTreeMap<String, f64> {
    let (head, body) = http(d, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    let (mut all, mut family, mut helped) = (BTreeMap::new(), String::new(), String::new());
    assert!(body.ends_with('\n'));
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').expect("a text").0.into();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name, helped, "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            family = name.into();
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let name = key.split('{').next().expect("a name");
            let of_family = ["", "_bucket", "_sum", "_count"];
            assert!(of_family.iter().any(|end| name == format!("{family}{end}")), "{line}");
            if let Some(labels) = key.strip_prefix(&format!("{name}{{")) {
                for label in labels.strip_suffix('}').expect("an end").split(',') {
                    let (label, text) = label.split_once("=\"").expect("a label");
                    assert!(label.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
                    assert_eq!(text.find('"'), Some(text.len() - 1), "{line}");
                }
            }
            let value = value.parse().expect("a number");
            assert!(all.insert(key.to_string(), value).is_none(), "twice: {line}");
        }
    }
    all
}

/// The whole text.
fn text(d: &Daemon) -> String {
    http(d, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").1
}

fn sum(all: &BTreeMap<String, f64>, start: &str, part: &str) -> f64 {
    all.iter().filter(|(k, _)| k.starts_with(start) && k.contains(part)).map(|(_, v)| v).sum()
}

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
    ] {
        let (head, body) = http(&d, request);
        assert_eq!(head.split(' ').nth(1), Some(status), "{request:?}: {head}");
        assert!(status != "200" || body.is_empty(), "{body}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(8200));
    assert!(http(&d, &long).0.starts_with("HTTP/1.1 431 "));
}

/// Bytes to services and from them, as `metrics` and as `status` tell them.
fn relayed(d: &Daemon) -> [u64; 2] {
    let all = samples(d);
    let counted = ["in", "out"]
        .map(|way| all[&format!("fived_relayed_bytes_total{{direction=\"{way}\"}}")] as u64);
    let status = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
    let counts = ["bytes_in=", "bytes_out="].map(|name| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a line");
        line.parse::<u64>().expect("a number")
    });
    assert_eq!(counted, counts);
    counted
}

#[test]
fn relayed_bytes_are_counted_while_they_are_relayed() {
    let upstream = upstream::echo();
    let d = Daemon::with(&format!(
        "{ROWS}status stream tcp nowait @USER@ internal\nup stream tcp nowait @USER@ redirect {upstream}\n"
    ))
    .start();
    assert_eq!(relayed(&d), [0, 0]);
    // By a thread that relays.
    let mut c = d.connect();
    c.send("up\r\n").expect(GO).send([b'x'; 1000]).expect([b'x'; 1000]);
    assert_eq!(relayed(&d), [1000, 1000]);
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
    let [to, from] = relayed(&d);
    assert!(to == 1500 && (1500..1600).contains(&from), "{to} {from}");
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
    assert_eq!(relayed(&d), [to, from]);
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

/// Runs promtool with this input. Returns whether it found nothing, and what it says.
fn promtool(words: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let out = child.wait_with_output().expect("it ends");
    let messages = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&messages).into_owned())
}

#[test]
fn promtool_finds_nothing() {
    if !installed("promtool") {
        return skip("needs promtool (package prometheus)");
    }
    let d = Daemon::with(ROWS).start();
    d.ask("echo\r\n");
    d.ask("stranger\r\n");
    d.wait_logs("REFUSE", 1);
    assert_eq!(promtool(&["check", "metrics"], &text(&d)), (true, String::new()));
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/fived-prometheus.rules.yml");
    let (good, messages) = promtool(&["check", "rules", rules], "");
    assert!(good, "{messages}");
}

/// The dashboard and the alert rules ask for nothing that fived does not tell.
#[test]
fn the_examples_name_only_metrics_that_exist() {
    let d = Daemon::with(ROWS).start();
    let text = text(&d);
    let mut known = BTreeSet::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type");
        known.insert(name.to_string());
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
    }
    for file in ["fived-grafana.json", "fived-prometheus.rules.yml"] {
        let path = format!("{}/etc/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("a file");
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let named: BTreeSet<_> = text.split(word).filter(|w| w.starts_with("fived_")).collect();
        assert!(named.len() >= 5, "{file}: {named:?}");
        let unknown: Vec<_> = named.iter().filter(|n| !known.contains(**n)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    let dashboard = format!("{}/etc/fived-grafana.json", env!("CARGO_MANIFEST_DIR"));
    if !installed("python3") {
        return skip("needs python3");
    }
    let read = Command::new("python3").args(["-m", "json.tool", &dashboard]).output();
    assert!(read.expect("python3").status.success(), "{dashboard} is no JSON");
}

/// Ended with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_scrapes_it() {
    if !installed("prometheus") {
        return skip("needs prometheus");
    }
    let d = Daemon::with(&ROWS.replace("internal\necho", "internal\n port = 127.0.0.1:0\necho"))
        .start();
    let at = d.port(0);
    let conf = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: fived\n  static_configs:\n  - targets: ['{at}']\n"
    );
    let conf = d.place.write("prometheus.yml", &conf, 0o644);
    let mut child = Command::new("prometheus")
        .arg(format!("--config.file={conf}"))
        .arg(format!("--storage.tsdb.path={}", d.place.at("tsdb")))
        .arg("--web.listen-address=127.0.0.1:0")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("prometheus");
    let mut messages = BufReader::new(child.stderr.take().expect("piped")).lines();
    let _prometheus = Prometheus(child);
    let web: SocketAddr = messages
        .by_ref()
        .map_while(Result::ok)
        .find_map(|l| {
            let at = l.split("msg=\"Listening on\" address=").nth(1)?;
            at.split(' ').next()?.parse().ok()
        })
        .expect("where it listens");
    // It must not wait for somebody to read what it logs.
    std::thread::spawn(move || messages.for_each(drop));
    let asked = |query: &str| {
        let mut s = TcpStream::connect(web).expect("connect");
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nHost: here\r\n\r\n");
        s.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        s.read_to_string(&mut answer).expect("an answer");
        answer
    };
    until("it has scraped", || asked("fived_build_info").contains("\"version\""));
    assert!(asked("up").contains(",\"1\"]"), "{}", asked("up"));
    assert!(asked("fived_start_seconds_count").contains("\"value\""));
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
