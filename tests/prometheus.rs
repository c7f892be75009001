//! Metrics: what Prometheus and its tools make of them, and the examples of etc/.

#[path = "support/scrape.rs"]
mod scrape;
mod support;

use scrape::text;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use support::*;

const ROWS: &str = "metrics stream tcp nowait @USER@ internal\n\
    echo stream tcp nowait @USER@ internal\n\
    closed stream tcp nowait @USER@ internal echo\n no_access = 0.0.0.0/0\n";

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
    // The reasons by which it chooses are those of the log.
    let page = page::page("fived.8");
    let reasons = page.split("REFUSE service= host= from= reason= session=").nth(1).expect("them");
    let rules = page::text("etc/fived-prometheus.rules.yml");
    let chosen = rules.split("reason=~\"").skip(1).filter_map(|r| r.split('"').next());
    let chosen: Vec<&str> = chosen.flat_map(|r| r.split('|')).collect();
    assert!(chosen.len() > 10, "{chosen:?}");
    for reason in chosen {
        // The page has some reasons beside others, with commas.
        let known = [' ', ','].iter().any(|end| reasons.contains(&format!(" {reason}{end}")));
        assert!(known, "{reason}");
    }
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

/// What Grafana asks Prometheus, with a value for each variable.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = page::text("etc/fived-grafana.json");
    let all = dashboard.lines().filter_map(|l| l.trim().strip_prefix("\"expr\": \""));
    let all: Vec<_> = all
        .map(|l| l.trim_end_matches(',').trim_end_matches('"').replace("\\\"", "\""))
        .map(|e| e.replace("$instance", ".*").replace("$__rate_interval", "5m"))
        .collect();
    assert!(all.len() > 10 && all.iter().all(|e| !e.contains('$')), "{all:?}");
    all
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
    // What the dashboard asks for is valid.
    for expression in dashboard_expressions() {
        let query: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
        let answer = asked(&query);
        assert!(answer.contains("\"status\":\"success\""), "{expression}: {answer}");
    }
}
