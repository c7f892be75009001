//! A request to the service `metrics`, of any bytes: the answer is one of HTTP/1.1, tells the metrics only where they were asked for, and is
//! as long as it says.
#![no_main]

use fived::internal::http;
use libfuzzer_sys::fuzz_target;

const TEXT: &[u8] = b"a_metric 1\n";

fuzz_target!(|head: &[u8]| {
    let answer = http::respond(head, TEXT);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let (head_of_it, body) = answer.split_at(end);
    let text = std::str::from_utf8(head_of_it).expect("ASCII");
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)).expect("a status");
    assert!(["200", "400", "404", "405"].contains(&status), "{text}");
    let length: usize = text.lines().find_map(|l| l.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok()).expect("a length");
    // Empty lines may precede the request's.
    let begins = head.iter().position(|b| !b"\r\n".contains(b)).unwrap_or(head.len());
    let asks_for_head = head[begins..].starts_with(b"HEAD ") && status != "400";
    assert!(body.is_empty() && asks_for_head || body.len() == length, "{text}");
    assert_eq!(body == TEXT, status == "200" && !asks_for_head);
    // Whoever is told has asked with a whole request; a line may end in LF alone.
    assert!(status != "200" || head.windows(2).any(|w| w == b"\n\n") || head.windows(3).any(|w| w == b"\n\r\n"));
});
