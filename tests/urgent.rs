//! TCP urgent data (MSG_OOB): a byte of a request, or of a session's dialogue, that comes so counts
//! as any other, and what follows one waits for nothing.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use nix::sys::socket::{MsgFlags, send};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;
use support::*;

const CONF: &str = "
cat    stream tcp nowait @USER@ /bin/cat  cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
";
const HELLO: &str = "+Go\r\nhello\n";
const REST: &str = "all of it, and the end\r\n";
/// Between two parts, so that the server looks at each by itself. Neither order is a fault.
const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(10)];

/// A client that sends the text, the byte at that place as urgent data.
fn urgent_at(d: &Daemon, text: &str, at: usize, pause: Duration) -> Client {
    let c = d.connect();
    let bytes = text.as_bytes();
    let parts = [
        (&bytes[..at], MsgFlags::empty()),
        (&bytes[at..=at], MsgFlags::MSG_OOB),
        (&bytes[at + 1..], MsgFlags::empty()),
    ];
    for (part, how) in parts.into_iter().filter(|(part, _)| !part.is_empty()) {
        assert_eq!(send(c.0.as_raw_fd(), part, how).expect("send"), part.len());
        sleep(pause);
    }
    c
}

/// Multipath TCP has no such option: its listeners make other sockets.
fn both_kinds(test: impl Fn(&Daemon)) {
    for mptcp in ["no", "yes"] {
        test(&Daemon::with(&format!("mptcp = {mptcp}\n{CONF}")).start());
    }
}

#[test]
fn a_request_with_an_urgent_byte_anywhere_gets_its_service_and_the_service_all_the_rest() {
    both_kinds(|d| {
        for (pause, at) in PAUSES.iter().flat_map(|p| (0.."cat\r\n".len()).map(move |at| (p, at))) {
            let mut c = urgent_at(d, &format!("cat\r\n{REST}"), at, *pause);
            c.half_close();
            same(c.read_all(), format!("{GO}{REST}"));
        }
        // The whole line at once: its last byte is the urgent one.
        let c = &mut d.connect();
        send(c.0.as_raw_fd(), b"hello\r\n", MsgFlags::MSG_OOB).expect("send");
        same(c.read_all(), HELLO);
    });
}

#[test]
fn a_refusal_is_the_same_and_the_log_names_all_of_the_name() {
    both_kinds(|d| {
        let name = "a-name";
        for pause in PAUSES {
            for at in 0..name.len() + 2 {
                let mut c = urgent_at(d, &format!("{name}\r\n"), at, pause);
                same(c.read_all(), NOT_AVAILABLE);
            }
            let mut c = urgent_at(d, &"x".repeat(300), 200, pause);
            same(c.read_all(), TOO_LONG);
            let mut c = urgent_at(d, "help\r\n", 2, pause);
            assert!(c.read_all().starts_with(b"cat\r\nhello\r\n"));
        }
        d.wait_logs(&format!("REFUSE service={name} "), 2 * (name.len() + 2));
    });
}

#[test]
fn a_request_that_stays_a_part_ends_with_its_client() {
    both_kinds(|d| {
        for pause in PAUSES {
            urgent_at(d, "hel", 1, pause).half_close().end();
            urgent_at(d, "h", 0, pause).half_close().end();
        }
    });
}

#[test]
fn every_byte_of_a_request_may_be_urgent() {
    let d = Daemon::with(CONF).start();
    // Linux drops the first where the second comes before anybody has looked, and nothing tells a
    // client of that look: where the machine was too slow for one pause, the next one is longer.
    let asks = |pause: u64| {
        let mut c = d.connect();
        for byte in "hello\r\n".bytes() {
            send(c.0.as_raw_fd(), &[byte], MsgFlags::MSG_OOB).expect("send");
            sleep(Duration::from_millis(pause));
        }
        c.half_close().read_all() == HELLO.as_bytes()
    };
    assert!([50, 200, 1000, 3000].into_iter().any(asks));
}

#[test]
fn a_dialogue_with_an_urgent_byte_anywhere_goes_on() {
    let d = Daemon::with(&format!("[inner]\n{CONF}")).start();
    let text = format!("HOST\r\ninner\r\ncat\r\n{REST}");
    for (pause, at) in
        PAUSES.iter().flat_map(|p| (0..text.len() - REST.len()).map(move |at| (p, at)))
    {
        let mut c = urgent_at(&d, &text, at, *pause);
        c.half_close();
        let all = String::from_utf8(c.read_all()).expect("text");
        assert!(all.ends_with(&format!("{GO}{REST}")), "urgent at {at}: {all:?}");
    }
    for at in 0.."SSL\r\n".len() {
        let mut c = urgent_at(&d, "SSL\r\n", at, PAUSES[1]);
        c.expect("+ Success\r\n");
    }
}

/// What is urgent after the request is out of band for the service, as inetd has it, whatever came
/// before.
#[test]
fn a_service_gets_its_socket_as_from_inetd() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let script = "import os, select, socket
s = socket.socket(fileno=0)
os.write(1, b'%d' % s.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE))
select.select([], [], [s])
os.write(1, s.recv(1, socket.MSG_OOB))
for _ in range(7): os.write(1, s.recv(1, socket.MSG_WAITALL))
";
    let row = "told stream tcp nowait @USER@ /usr/bin/env env python3 @DIR@/told.py\n";
    let d = Daemon::with(row).file("told.py", script).start();
    // The second: the line was taken out in parts.
    for (before, urgent) in [("", ""), ("", "t"), ("HOST\r\n\r\n", ""), ("HOST\r\n\r\n", "t")] {
        let mut c = d.connect();
        c.send(before);
        if !urgent.is_empty() {
            send(c.0.as_raw_fd(), urgent.as_bytes(), MsgFlags::MSG_OOB).expect("send");
        }
        c.send(&"told\r\n"[urgent.len()..]);
        let mut answer = Vec::new();
        while !answer.ends_with(b"+Go\r\n") {
            let mut byte = [0];
            c.0.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        c.send("for");
        send(c.0.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("send");
        c.send("ever");
        same(c.read_all(), "0!forever");
    }
}

/// A read ends before an urgent byte, however much follows it.
#[test]
fn what_follows_an_urgent_byte_is_relayed_at_once() {
    let sends = |to: i32| {
        for (part, how) in [("abc", MsgFlags::empty()), ("d", MsgFlags::MSG_OOB)] {
            send(to, part.as_bytes(), how).expect("send");
        }
        send(to, b"efg", MsgFlags::empty()).expect("send");
    };
    let (to, from) = (
        upstream::echo(),
        upstream::tcp(move |mut s| {
            sends(s.as_raw_fd());
            let _ = s.read(&mut [0]);
        }),
    );
    let place = Place::new();
    let path = place.at("up.sock");
    upstream::unix(&path, 0o666, move |mut s| {
        sends(s.as_raw_fd());
        let _ = s.read(&mut [0]);
    });
    let row = |name, up: &str| format!("{name} stream tcp nowait @USER@ redirect {up}\n");
    let conf = row("to", &to.to_string()) + &row("from", &from.to_string()) + &row("local", &path);
    let d = Daemon::with(&conf).start();
    for _ in 0..20 {
        let mut c = d.connect();
        c.send("to\r\n").expect(GO);
        sends(c.0.as_raw_fd());
        c.expect("abcefg");
        d.connect().send("from\r\n").expect(format!("{GO}abcefg"));
        d.connect().send("local\r\n").expect(format!("{GO}abcefg"));
    }
}
