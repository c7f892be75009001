//! What the service `metrics` of a daemon tells.

#![allow(dead_code)] // Each test file uses its own part of this.

use super::support::*;
use std::collections::BTreeMap;

/// Head and body of the answer to a request of HTTP.
pub fn http(d: &Daemon, request: &str) -> (String, String) {
    let got = d.connect().send(format!("metrics\r\n{request}")).read_all();
    let got = String::from_utf8(got).expect("UTF-8");
    let got = got.strip_prefix(GO).unwrap_or_else(|| panic!("{got}"));
    let (head, body) = got.split_once("\r\n\r\n").expect("a head");
    (head.into(), body.into())
}

/// Every sample by its name and labels. Each line is checked.
pub fn samples(d: &Daemon) -> BTreeMap<String, f64> {
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
pub fn text(d: &Daemon) -> String {
    http(d, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").1
}

pub fn sum(all: &BTreeMap<String, f64>, start: &str, part: &str) -> f64 {
    all.iter().filter(|(k, _)| k.starts_with(start) && k.contains(part)).map(|(_, v)| v).sum()
}
