//! SPEC 8, metrics: fived's counts for Prometheus.

mod support;
use std::collections::BTreeMap;
use support::*;

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
