//! The service `metrics`: answers one request of HTTP/1.1 (RFC 9112), and ends. The text is the
//! parent's; the request is read here, by a process that is the row's user.

use crate::sys::clock;
use crate::sys::poll::{self, Poll};
use crate::wire::exposition::CONTENT_TYPE;
use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::time::Duration;

/// Bytes of a request line and its fields.
const HEAD_MAX: usize = 8192;
/// How long the client may take to send them.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the client's request. Returns the answer to it.
pub fn answer(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let until = clock::monotonic() + REQUEST_TIMEOUT;
    while lines(&head).is_none() {
        let left = until.saturating_sub(clock::monotonic());
        let mut input = io::stdin().lock();
        let late = poll::wait(&mut [Poll::new(io::stdin().as_fd(), true, false)], Some(left))? == 0;
        if late {
            return Ok(reply("408 Request Timeout", "", b"", true));
        }
        let got = input.fill_buf()?;
        if got.is_empty() {
            break;
        }
        let n = got.len();
        head.extend_from_slice(got);
        input.consume(n);
        if head.len() > HEAD_MAX {
            return Ok(reply("431 Request Header Fields Too Large", "", b"", true));
        }
    }
    Ok(respond(&head, text))
}

/// The request line and its fields, without their ends, up to the empty line after them. None: that
/// has not come. Empty lines before the request line do not count, and a line may end in LF alone
/// (RFC 9112, 2.2).
fn lines(head: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    for line in head.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n")?;
        match line.strip_suffix(b"\r").unwrap_or(line) {
            b"" if lines.is_empty() => {}
            b"" => return Some(lines),
            line => lines.push(line),
        }
    }
    None
}

/// The answer to a request.
pub fn respond(head: &[u8], text: &[u8]) -> Vec<u8> {
    let Some((method, path)) = request(head) else {
        return reply("400 Bad Request", "", b"", true);
    };
    let with_body = method != "HEAD";
    match (method, path) {
        ("GET" | "HEAD", "/" | "/metrics") => reply("200 OK", "", text, with_body),
        ("GET" | "HEAD", _) => reply("404 Not Found", "", b"", with_body),
        _ => reply("405 Method Not Allowed", "Allow: GET, HEAD\r\n", b"", true),
    }
}

/// The method, and the target's path. None: it is no request.
fn request(head: &[u8]) -> Option<(&str, &str)> {
    let lines = lines(head)?;
    // A CR within a line ends it for some readers, and not for others.
    if lines.iter().any(|line| line.contains(&b'\r')) {
        return None;
    }
    let mut lines = lines.into_iter().map(std::str::from_utf8);
    let words: Vec<&str> = lines.next()?.ok()?.split(' ').collect();
    let [method, target, version] = words[..] else { return None };
    let mut hosts = 0;
    for line in lines {
        let (name, _) = line.ok()?.split_once(':').filter(|(name, _)| is_token(name))?;
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    let has_host = match version {
        "HTTP/1.1" => hosts == 1,
        "HTTP/1.0" => hosts <= 1,
        _ => false,
    };
    // Only a proxy is sent the whole URL, but a server must understand it too.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = path.split('?').next().unwrap_or_default();
    let good = has_host && is_token(method) && !target.is_empty();
    good.then_some((method, path))
}

fn is_token(word: &str) -> bool {
    let may = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !word.is_empty() && word.bytes().all(may)
}

/// An answer; without a text, the status is what it says.
fn reply(status: &str, field: &str, text: &[u8], with_body: bool) -> Vec<u8> {
    let line = format!("{status}\n");
    let (content, body) = match text {
        b"" => ("text/plain; charset=utf-8", line.as_bytes()),
        text => (CONTENT_TYPE, text),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {length}\r\n\
         {field}Connection: close\r\n\r\n"
    );
    [head.as_bytes(), if with_body { body } else { b"" }].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_status() {
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("GET / HTTP/1.0\r\n\r\n", "200"),
            ("GET http://a/metrics?x=y HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("GET /other HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
            ("GET /metrics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
            ("GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", "400"),
            ("GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("GET / HTTP/1.1\nHost: a\n\n", "200"),
            ("GET / HTTP/1.1\nHost: a\n\r\nmore", "200"),
            ("GET / HTTP/1.1\r\nHost: a\rx: b\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\rHost: a\r\r\r\n", "400"),
            ("", "400"),
        ] {
            let got = String::from_utf8(respond(request.as_bytes(), b"x 1\n")).expect("ASCII");
            assert_eq!(got.split(' ').nth(1), Some(status), "{request:?}: {got}");
            assert_eq!(got.ends_with("\r\n\r\nx 1\n"), status == "200", "{request:?}: {got}");
        }
        let head = respond(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"x 1\n");
        let head = String::from_utf8(head).expect("ASCII");
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
