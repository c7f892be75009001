//! RUN, through the real program: standard error and the end of a service apart from its output; on
//! a plain connection, inside TLS, in a stream, and in a stream with facts of its own.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;
use yamux_raw::{FIN, RST, Raw, SYN};

/// What the server sent after its answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    out: String,
    errors: String,
    /// The kinds in their order, those of neighbouring data once.
    kinds: Vec<u8>,
    status: Option<u32>,
}

/// Decodes what came: an answer of lines, then whole records.
fn ran(bytes: &[u8], answer: &str) -> Ran {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = bytes.strip_prefix(answer.as_bytes()).unwrap_or_else(|| panic!("{text:?}"));
    let mut ran = Ran::default();
    while let [kind, a, b, c, more @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        assert!(more.len() >= length, "cut: {text:?}");
        let (data, after) = more.split_at(length);
        let words = String::from_utf8_lossy(data);
        match kind {
            0 => ran.out += &words,
            1 => assert!(data.is_empty()),
            2 => ran.errors += &words,
            3 => ran.status = Some(u32::from_be_bytes(data.try_into().expect("four bytes"))),
            _ => panic!("kind {kind}: {text:?}"),
        }
        if ran.kinds.last() != Some(kind) {
            ran.kinds.push(*kind);
        }
        rest = after;
    }
    assert_eq!(rest, b"", "{text:?}");
    ran
}

const GO: &str = "+ Success\r\n+Go\r\n";

fn input(bytes: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (bytes.len() as u32).to_be_bytes();
    [&[0, a, b, c], bytes].concat()
}

const END: [u8; 4] = [1, 0, 0, 0];

/// What ps(1) calls the process of a terminal.
const TERMINAL: &str = "fived-terminal";

/// Where RUN is asked for.
#[derive(Debug, Clone, Copy)]
enum On {
    Connection,
    Tls,
    Stream,
    /// In a stream that has chosen a host before: a session in a thread of its own serves it.
    Branch,
}

const ALL: [On; 4] = [On::Connection, On::Tls, On::Stream, On::Branch];

/// Sends these bytes at once; all that comes back until the end.
fn ask(d: &Daemon, on: On, bytes: &[u8]) -> Vec<u8> {
    match on {
        On::Connection => {
            let mut c = d.connect();
            c.send(bytes);
            c.read_all()
        }
        On::Tls => {
            let mut c = Tls::start(d.connect().0, "localhost");
            c.send(bytes);
            c.read_all()
        }
        On::Stream => Mux::new(d.connect().multiplex()).ask(bytes).read_all(),
        On::Branch => {
            let all =
                Mux::new(d.connect().multiplex()).ask([b"HOST\r\n\r\n", bytes].concat()).read_all();
            let before = b"+ Success\r\nWhich VHOST? Host  selected\r\n";
            all.strip_prefix(before).unwrap_or_else(|| panic!("{all:?}")).to_vec()
        }
    }
}

/// Runs that service with that input.
fn run(d: &Daemon, on: On, name: &str, bytes: &[u8]) -> Ran {
    let request = [format!("RUN\r\n{name}\r\n").as_bytes(), &input(bytes), &END].concat();
    ran(&ask(d, on, &request), GO)
}

const CONF: &str = "cat stream tcp nowait @USER@ /bin/cat cat
both stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 3'
killed stream tcp nowait @USER@ /bin/sh sh -c 'kill -TERM $$'
env stream tcp nowait @USER@ /bin/sh sh -c 'echo run=$FIVED_RUN term=$TERM; test -t 0 || echo none'
late stream tcp nowait @USER@ /bin/sh sh -c 'exec >&- 2>&-; sleep 0.3; exit 4'
child stream tcp nowait @USER@ /bin/sh sh -c '(sleep 0.3; echo later; echo last >&2) & exit 5'
logged stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 6'
 stderr = null
told stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo a word of it >&2; exit 8'
 stderr = log
missing stream tcp nowait @USER@ /no/such/program x
secret stream tcp nowait @USER@ /bin/cat cat
 require = login
tcpmux/own stream tcp nowait @USER@ /bin/sh sh -c 'printf \"+mine\\r\\nout\\n\"; echo err >&2; exit 7'
tcpmux/refuses stream tcp nowait @USER@ /bin/sh sh -c 'printf \"%s\\r\\n\" -no'
banner stream tcp nowait @USER@ /bin/sh sh -c 'echo x'
 banner_success = @DIR@/banner
 reply = Welcome
long stream tcp nowait @USER@ /bin/echo echo x
 banner_success = @DIR@/long
";

fn daemon() -> Daemon {
    Daemon::with(CONF).file("banner", "be nice\n").file("long", &"long\n".repeat(400)).start()
}

#[test]
fn output_errors_and_end_come_apart() {
    let d = daemon();
    for on in ALL {
        let both = run(&d, on, "both", b"");
        assert_eq!((both.out.as_str(), both.errors.as_str()), ("out\n", "err\n"), "{on:?}");
        assert_eq!((both.status, both.kinds.last()), (Some(3), Some(&3)), "{on:?}");
        let killed = run(&d, on, "killed", b"");
        assert_eq!((killed.status, killed.kinds), (Some(256 + 15), vec![1, 3]), "{on:?}");
        let cat = run(&d, on, "cat", b"one\ntwo\n");
        assert_eq!((cat.out.as_str(), cat.status), ("one\ntwo\n", Some(0)), "{on:?}");
        assert_eq!(run(&d, on, "env", b"").out, "run=1 term=\nnone\n", "{on:?}");
        // A terminal that the row does not give changes nothing.
        assert_eq!(run(&d, on, "env pty xterm 24 80", b"").out, "run=1 term=\nnone\n", "{on:?}");
        let logged = run(&d, on, "logged", b"");
        assert_eq!((logged.out.as_str(), logged.errors.as_str()), ("out\n", ""), "{on:?}");
        assert_eq!((logged.status, logged.kinds), (Some(6), vec![0, 1, 3]), "{on:?}");
        let told = run(&d, on, "told", b"");
        assert_eq!((told.out.as_str(), told.errors.as_str()), ("out\n", ""), "{on:?}");
        assert_eq!((told.status, told.kinds), (Some(8), vec![0, 1, 3]), "{on:?}");
    }
    d.wait_logs("a word of it", ALL.len());
}

#[test]
fn the_end_comes_last_whichever_comes_first() {
    let d = daemon();
    for on in ALL {
        // The output ends long before the process.
        let late = run(&d, on, "late", b"");
        assert_eq!((late.status, late.kinds), (Some(4), vec![1, 3]), "{on:?}");
        // The process ends before its output, which a child of it still has.
        let child = run(&d, on, "child", b"");
        assert_eq!((child.out.as_str(), child.errors.as_str()), ("later\n", "last\n"), "{on:?}");
        assert_eq!((child.status, child.kinds.last()), (Some(5), Some(&3)), "{on:?}");
    }
}

#[test]
fn it_is_refused_as_a_request_is() {
    let d = daemon();
    for on in ALL {
        let refused = |name: &str| ask(&d, on, format!("RUN\r\n{name}\r\n").as_bytes());
        let after = |line: &str| format!("+ Success\r\n{line}");
        for name in ["nothing", "HELP", "auth", "RUN", "", "secret", "cat pty xterm 24 x"] {
            same(refused(name), after(NOT_AVAILABLE));
        }
        same(refused("missing"), after("-Service failed\r\n"));
        same(refused(&"x".repeat(600)), after(TOO_LONG));
        // The name's own bound, whatever else is on the line.
        for terminal in ["", " pty xterm 24 80"] {
            same(refused(&format!("{}{terminal}", "x".repeat(255))), after(NOT_AVAILABLE));
            same(refused(&format!("{}{terminal}", "x".repeat(256))), after(TOO_LONG));
        }
    }
    assert!(d.ask("HELP\r\n").ends_with(b"\r\nPUBKEY\r\nRUN\r\nSSL\r\n"));
}

#[test]
fn what_goes_before_is_no_record() {
    let d = daemon();
    for on in ALL {
        let request = |name: &str| [format!("RUN\r\n{name}\r\n").as_bytes(), &END].concat();
        let own = ran(&ask(&d, on, &request("own")), "+ Success\r\n+mine\r\n");
        assert_eq!((own.out.as_str(), own.errors.as_str()), ("out\n", "err\n"), "{on:?}");
        assert_eq!(own.status, Some(7), "{on:?}");
        let refuses = ran(&ask(&d, on, &request("refuses")), "+ Success\r\n-no\r\n");
        assert_eq!(refuses.status, Some(0), "{on:?}");
        let banner = ran(&ask(&d, on, &request("banner")), "+ Success\r\n+Welcome\r\nbe nice\n");
        assert_eq!((banner.out.as_str(), banner.status), ("x\n", Some(0)), "{on:?}");
        // Longer than an order has room for.
        let long = format!("{GO}{}", "long\n".repeat(400));
        let long = ran(&ask(&d, on, &request("long")), &long);
        assert_eq!((long.out.as_str(), long.status), ("x\n", Some(0)), "{on:?}");
    }
}

#[test]
fn what_is_no_record_ends_it_by_a_reset() {
    let d = daemon();
    for bytes in [&b"9\0\0\0"[..], b"\x03\0\0\x04\0\0\0\0", b"\x01\0\0\0\0\0\0\x01x"] {
        let mut c = d.connect();
        c.send([b"RUN\r\ncat\r\n", bytes].concat());
        let broken = c.0.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
        let mut raw = Raw(d.connect().multiplex());
        raw.data(SYN, 1, [b"RUN\r\ncat\r\n", bytes].concat());
        assert_eq!(raw.stream(1).1, RST);
    }
    // A record that is cut off, too.
    for bytes in [&b"\0\0\0\x05ab"[..], b"\0\0"] {
        let bytes = [b"RUN\r\ncat\r\n", bytes].concat();
        let mut c = d.connect();
        c.send(&bytes).half_close();
        let broken = c.0.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
        let mut raw = Raw(d.connect().multiplex());
        raw.data(SYN | yamux_raw::FIN, 1, &bytes);
        assert_eq!(raw.stream(1).1, RST);
    }
    until("its service has ended", || d.services().is_empty());
}

#[test]
fn records_are_split_anywhere_and_large() {
    let d = daemon();
    let text: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    for on in ALL {
        let cat = run(&d, on, "cat", text.as_bytes());
        assert!(cat.out == text && cat.status == Some(0), "{on:?}: {} bytes", cat.out.len());
    }
    let mut c = d.connect();
    for byte in [&b"RUN\r\ncat\r\n"[..], &input(b"drip"), &[0, 0, 0, 0], &END].concat() {
        c.send([byte]);
    }
    assert_eq!(ran(&c.read_all(), GO).out, "drip");
}

#[test]
fn servers_that_run_already_end_with_0() {
    let here = upstream::tcp(|mut c: TcpStream| {
        let mut all = Vec::new();
        let _ = c.read_to_end(&mut all);
        let _ = c.write_all(&all);
    });
    let conf = format!("echo stream tcp nowait @USER@ redirect {here}\n[local]\n");
    let d = Daemon::with(&conf).start();
    for on in ALL {
        let echo = run(&d, on, "echo", b"there and back");
        assert_eq!((echo.out.as_str(), echo.status), ("there and back", Some(0)), "{on:?}");
        assert_eq!(echo.kinds, [0, 1, 3], "{on:?}");
    }
}

/// As [`ask`], and the end may be a reset.
fn ask_to_the_break(d: &Daemon, on: On, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = match on {
        On::Connection => {
            let mut c = d.connect();
            c.send(bytes);
            c.0.read_to_end(&mut all)
        }
        On::Tls => {
            let mut c = Tls::start(d.connect().0, "localhost");
            c.send(bytes);
            c.0.read_to_end(&mut all)
        }
        On::Stream => Mux::new(d.connect().multiplex()).ask(bytes).read_to_end(&mut all),
        On::Branch => {
            let bytes = [b"HOST\r\n\r\n", bytes].concat();
            let end = Mux::new(d.connect().multiplex()).ask(bytes).read_to_end(&mut all);
            let before = b"+ Success\r\nWhich VHOST? Host  selected\r\n";
            all = all.strip_prefix(before).unwrap_or_else(|| panic!("{all:?}")).to_vec();
            end
        }
    };
    all
}

#[test]
fn servers_that_server_timeout_ends_have_not_ended_well() {
    let up = upstream::echo();
    let place = Place::new();
    let path = place.at("up");
    upstream::unix(&path, 0o666, |mut c: UnixStream| {
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = c.read(&mut bytes) {
            let _ = c.write_all(&bytes[..n]);
        }
    });
    let conf = format!(
        "tcp stream tcp nowait @USER@ redirect {up}\n server_timeout = 1\n\
         unix stream tcp nowait @USER@ redirect {path}\n server_timeout = 1\n[local]\n"
    );
    let d = Daemon::with(&conf).start();
    for (on, name) in ALL.into_iter().flat_map(|on| [(on, "tcp"), (on, "unix")]) {
        let request = [format!("RUN\r\n{name}\r\n").as_bytes(), &input(b"x")].concat();
        let ran = ran(&ask_to_the_break(&d, on, &request), GO);
        assert_eq!((ran.out.as_str(), ran.status), ("x", None), "{on:?} {name}");
    }
}

/// A server that has ended its output still reads. It must not take input that was cut off for all
/// of it.
#[test]
fn servers_do_not_take_a_part_of_the_input_for_all_of_it() {
    let (told, hears) = std::sync::mpsc::channel();
    let up = upstream::tcp(move |mut c: TcpStream| {
        let mut byte = [0];
        let _ = c.read_exact(&mut byte);
        let _ = c.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = told.send(c.read_to_end(&mut all).map_err(|e| e.kind()));
    });
    let conf = format!("half stream tcp nowait @USER@ redirect {up}\n[local]\n");
    let d = Daemon::with(&conf).start();
    for on in ALL {
        let request = [&b"RUN\r\nhalf\r\n"[..], &input(b"1")].concat();
        let cut = ran(&ask(&d, on, &request), GO);
        assert_eq!((cut.status, cut.kinds), (Some(0), vec![1, 3]), "{on:?}");
        let heard = hears.recv_timeout(TIMEOUT).expect("the server's end");
        assert_eq!(heard, Err(std::io::ErrorKind::ConnectionReset), "{on:?}");
        // All of it: an end as any other.
        let all = ran(&ask(&d, on, &[&request[..], &END].concat()), GO);
        assert_eq!((all.status, all.kinds), (Some(0), vec![1, 3]), "{on:?}");
        assert_eq!(hears.recv_timeout(TIMEOUT).expect("the server's end"), Ok(0), "{on:?}");
    }
    // The end of the client's connection is one of the input, too; the server waits for it.
    let (told, hears) = std::sync::mpsc::channel();
    let up = upstream::tcp(move |mut c: TcpStream| {
        let mut all = Vec::new();
        let _ = told.send(c.read_to_end(&mut all).map_err(|e| e.kind()));
    });
    let d = Daemon::with(&format!("all stream tcp nowait @USER@ redirect {up}\n")).start();
    let mut c = d.connect();
    c.send([&b"RUN\r\nall\r\n"[..], &input(b"1")].concat()).half_close();
    assert_eq!(ran(&c.read_all(), GO).status, Some(0));
    assert_eq!(hears.recv_timeout(TIMEOUT).expect("the server's end"), Ok(1));
}

#[test]
fn a_silent_one_costs_no_thread_and_goes_on() {
    let d = daemon();
    // It is parked after a second; the loop of the net process has threads of its own.
    let threads = || proc::threads(d.net_pid());
    let (mut c, before) = loop {
        let (began, mut c) = (Instant::now(), d.connect());
        c.send("RUN\r\ncat\r\n").expect(GO);
        let before = threads();
        if began.elapsed() < Duration::from_millis(900) {
            break (c, before);
        }
        // Too slow: it may be parked already.
        drop(c);
        until("its service has ended", || d.services().is_empty());
    };
    until("its thread has ended", || threads() < before);
    c.send(input(b"x")).expect([&[0, 0, 0, 1], &b"x"[..]].concat());
    until("its thread has ended", || threads() < before);
    // Its end alone wakes it, too.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(d.service("cat")),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("a signal");
    let over = ran(&c.read_all(), "");
    assert_eq!((over.status, over.kinds), (Some(256 + 9), vec![1, 3]));
}

#[test]
fn if_the_parent_dies_nobody_is_told_that_it_ended_well() {
    let d = daemon();
    let mut alone = d.connect();
    alone.send("RUN\r\ncat\r\n").expect(GO);
    let mut raw = Raw(d.connect().multiplex());
    raw.data(SYN, 1, b"RUN\r\ncat\r\n");
    // Net knows, too, that it runs.
    let mut all = Vec::new();
    while !all.ends_with(b"+Go\r\n") {
        all.extend(raw.next().payload);
    }
    d.signal(nix::sys::signal::Signal::SIGKILL);
    let last = [&input(b"the last words")[..], &END].concat();
    raw.data(0, 1, &last);
    let (rest, how) = raw.stream(1);
    assert_eq!(how, RST);
    all.extend(rest);
    let records = ran(&all, GO);
    assert_eq!((records.out.as_str(), records.status), ("the last words", None));
    alone.send(&last);
    let mut all = Vec::new();
    let _ = alone.0.read_to_end(&mut all);
    let records = ran(&all, "");
    assert_eq!((records.out.as_str(), records.status), ("the last words", None));
}

/// Reads records until their output has that text; all of it so far.
fn shown(c: &mut impl Read, what: &str) -> String {
    let mut all = String::new();
    while !all.contains(what) {
        let mut head = [0; 4];
        c.read_exact(&mut head).unwrap_or_else(|e| panic!("{e}: {all:?}"));
        let mut data = vec![0; u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize];
        c.read_exact(&mut data).expect("a record");
        assert_eq!(head[0], 0, "{all:?}");
        all += &String::from_utf8_lossy(&data);
    }
    all
}

#[test]
fn a_terminal_is_the_service_s_own() {
    let d = Daemon::with(
        "sh stream tcp nowait @USER@ /bin/sh sh
 pty = yes
cat stream tcp nowait @USER@ /bin/cat cat
 pty = yes
echo stream tcp nowait @USER@ internal
 pty = yes
",
    )
    .start();
    for on in ALL {
        let request = [b"RUN\r\necho pty xterm 24 80\r\n", &input(b"x\n")[..], &END].concat();
        assert_eq!(ran(&ask(&d, on, &request), GO).out, "x\n", "no program: {on:?}");
        let lines = "RUN\r\nsh pty xterm+x 24 300\r\n";
        let script = "stty -echo; echo $TERM $(stty size) $(ps -o tty= -p $$) $(tty); \
                      [ -O $(tty) ] && echo own; echo err >&2; exit 9\n";
        let bytes = [lines.as_bytes(), &input(script.as_bytes())].concat();
        let answer = ask(&d, on, &bytes);
        let told = [GO.as_bytes(), &[0; 4]].concat();
        assert!(answer.starts_with(&told), "it has a terminal: {on:?}");
        let sh = ran(&answer, GO);
        let tty = sh.out.split("/dev/").nth(1).unwrap_or_default().split('\r').next();
        let tty = tty.unwrap_or_default();
        let wanted = format!("xterm+x 24 300 {tty} /dev/{tty}\r\nown\r\nerr\r\n");
        assert!(tty.starts_with("pts/") && sh.out.contains(&wanted), "{on:?}: {}", sh.out);
        assert_eq!((sh.status, sh.kinds), (Some(9), vec![0, 1, 3]), "{on:?}");
        // Control-D ends a line discipline's input; without a terminal nothing of that is there.
        for (typed, out) in [("x\n", "x\r\nx\r\n"), ("x", "xx")] {
            let request =
                [b"RUN\r\ncat pty vt100 0 0\r\n", &input(typed.as_bytes())[..], &END].concat();
            let cat = ran(&ask(&d, on, &request), GO);
            assert_eq!((cat.out.as_str(), cat.status), (out, Some(0)), "{on:?}");
        }
        // Whoever reads bytes after that gets it again.
        let script = b"stty -echo; cat; stty -icanon; echo keys; head -c 1 | od -An -tx1; exit 8\n";
        let request = [b"RUN\r\nsh pty xterm 24 80\r\n", &input(script)[..], &END].concat();
        let keys = ran(&ask(&d, on, &request), GO);
        assert!(keys.out.ends_with("keys\r\n 04\r\n"), "{on:?}: {}", keys.out);
        assert_eq!(keys.status, Some(8));
        let plain = [b"RUN\r\ncat\r\n", &input(b"x\n")[..], &END].concat();
        let plain = ask(&d, on, &plain);
        assert!(!plain.starts_with(&told) && ran(&plain, GO).out == "x\n", "{on:?}");
    }
}

#[test]
fn signals_and_sizes_reach_a_terminal() {
    let d = Daemon::with(
        "sh stream tcp nowait @USER@ /bin/sh sh
 pty = yes
cat stream tcp nowait @USER@ /bin/cat cat
 pty = yes
sizes stream tcp nowait @USER@ /bin/sh sh -c 'trap \"stty size\" WINCH; echo on; while :; do sleep 0.1; done'
 pty = yes
",
    )
    .start();
    let mut c = d.connect();
    c.send("RUN\r\nsizes pty xterm 24 80\r\n").expect(GO);
    shown(&mut c.0, "on\r\n");
    c.send(b"\x02\0\0\x04\0\x32\0\x84");
    shown(&mut c.0, "50 132\r\n");
    // Control-C
    c.send(input(b"\x03"));
    assert_eq!(ran(&c.read_all(), "").status, Some(256 + 2));

    let mut c = d.connect();
    c.send("RUN\r\nsh pty xterm 24 80\r\n").expect(GO);
    c.send(input(b"echo on and$((1 + 1))\n"));
    shown(&mut c.0, "on and2\r\n");
    // The client goes: the terminal hangs up.
    drop(c);
    until("the shell has ended", || d.services().is_empty());
    d.wait_log("EXIT service=sh pid=");
    // It does not take that for the end of its input.
    for n in 1..=20 {
        let mut c = d.connect();
        c.send("RUN\r\ncat pty xterm 24 80\r\n").expect(GO);
        c.send(input(b"on\n"));
        shown(&mut c.0, "on\r\non\r\n");
        drop(c);
        d.wait_logs("EXIT service=cat", n);
    }
    let hung_up = |l: &&str| l.starts_with("EXIT service=cat") && l.contains(" signal=1 ");
    assert_eq!(d.log().lines().filter(hung_up).count(), 20, "{}", d.log());
}

/// Whoever else has a terminal can keep its process from going on, as ptrace(2) does here.
#[test]
fn a_user_with_many_terminals_that_cannot_end_gets_no_more() {
    if !root() {
        return skip("needs root");
    }
    let row = |name, user| format!("{name} stream tcp nowait {user} /bin/cat cat\n pty = yes\n");
    let d = Daemon::with(&[row("cat", "nobody"), row("other", "daemon")].concat()).start();
    let line = |name: &str| format!("RUN\r\n{name} pty xterm 24 80\r\n");
    let begins = |name: &str| {
        let mut c = d.connect();
        c.send(line(name)).expect("+ Success\r\n");
        (c.read_any_of(5) == b"+Go\r\n").then_some(c)
    };
    let is_terminal = |pid: &i32| proc::arguments(*pid).first().is_some_and(|a| a == TERMINAL);
    let mut held: Vec<(i32, proc::Held)> = Vec::new();
    let mut hold = || {
        let mut all = proc::children(d.parent_pid()).into_iter().filter(is_terminal);
        let new = all.find(|pid| held.iter().all(|(of, _)| of != pid)).expect("its process");
        proc::hold(new).map(|hold| held.push((new, hold))).is_some()
    };
    // Of these nobody counts bytes: their net process ends.
    let lost: Vec<Client> = (0..16).map_while(|_| begins("cat").filter(|_| hold())).collect();
    if lost.len() < 16 {
        return;
    }
    let net = nix::unistd::Pid::from_raw(d.net_pid());
    nix::sys::signal::kill(net, nix::sys::signal::Signal::SIGKILL).expect("kill");
    d.wait_log("WARN net: pid ");
    // The session of these goes on.
    let mut session = d.connect();
    session.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut session = Raw(session.0);
    for id in (1..33).step_by(2) {
        session.data(SYN, id, line("cat"));
        let mut said = Vec::new();
        while !said.ends_with(b"+Go\r\n") && !said.ends_with(&[0; 4]) {
            said.extend(session.until(yamux_raw::DATA, 0, id).payload);
        }
        assert!(hold());
        session.data(RST, id, "");
    }
    // One that began while the parent did not know of all those ends yet ends by itself.
    until("no more begin", || begins("cat").is_none());
    d.wait_log("REFUSE service=cat host= from=127.0.0.1 reason=processes");
    assert!(begins("other").is_some(), "others have theirs");
    drop(held);
    until("they have ended", || begins("cat").is_some());
}

/// The end of the input is Control-D, and not the end of the terminal; that its client is gone is.
#[test]
fn a_terminal_outlives_the_end_of_its_input_but_not_its_client() {
    let d = Daemon::with(
        "listen = 127.0.0.1:0 @DIR@/fived
silent stream tcp nowait @USER@ /bin/sh sh -c 'cat; exec sleep 600'
 pty = yes
deaf stream tcp nowait @USER@ /bin/sh sh -c 'stty -echo; echo deaf; exec sleep 600'
 pty = yes
rest stream tcp nowait @USER@ /bin/sh sh -c 'cat; until [ -e @DIR@/go ]; do sleep 0.05; done; echo rest'
 pty = yes
",
    )
    .listen("")
    .start();
    let request =
        |name: &str| [format!("RUN\r\n{name} pty xterm 24 80\r\n").as_bytes(), &END].concat();
    let given = [GO.as_bytes(), &[0; 4]].concat();
    let gone = |how| until(&format!("the terminal hangs up: {how}"), || d.services().is_empty());
    // It closes its connection. Nothing is left there that it has not read.
    let mut c = d.connect();
    c.send(request("silent")).expect(&given);
    drop(c);
    gone("TCP");
    let mut c = Tls::start(d.connect().0, "localhost");
    c.send(&request("silent"));
    c.expect(&given);
    c.half_close();
    drop(c);
    gone("TLS");
    // So it does while the terminal takes no more.
    let mut c = d.connect();
    c.send("RUN\r\ndeaf pty xterm 24 80\r\n").expect(GO);
    shown(&mut c.0, "deaf\r\n");
    c.send(input(&b"x\n".repeat(40_000)));
    drop(c);
    gone("more input than it takes");
    let mut c = UnixStream::connect(d.place.at("fived")).expect("connect");
    c.write_all(&request("silent")).expect("a request");
    let mut answer = vec![0; given.len()];
    c.read_exact(&mut answer).expect("an answer");
    drop(c);
    gone("a Unix socket");
    // So it does where its client sends no more, and has not said that this is the end of its input.
    let endless = "RUN\r\nsilent pty xterm 24 80\r\n";
    let mut c = d.connect();
    c.send(endless).expect(&given).half_close();
    gone("FIN on a connection");
    let mut mux = Raw(d.connect().multiplex());
    mux.data(SYN, 1, endless);
    d.service("sh");
    mux.data(FIN, 1, b"");
    gone("FIN in a stream");
    // One that has only finished sending gets the rest.
    let mut mux = Raw(d.connect().multiplex());
    mux.data(SYN, 1, request("rest"));
    mux.data(FIN, 1, b"");
    let mut c = d.connect();
    c.send(request("rest")).half_close();
    c.expect(&given);
    std::fs::write(d.place.at("go"), "").expect("a file");
    let all = ran(&c.read_all(), "");
    assert_eq!((all.out.as_str(), all.status), ("rest\r\n", Some(0)));
    let (all, how) = mux.stream(1);
    let all = ran(&all, GO);
    assert_eq!((all.out.as_str(), all.status, how), ("rest\r\n", Some(0), FIN));
}

#[test]
fn a_client_that_does_not_read_stops_its_service_alone() {
    let d = Daemon::with(
        "flood stream tcp nowait @USER@ /bin/sh sh -c 'yes out & yes err >&2'
small stream tcp nowait @USER@ /bin/echo echo small
",
    )
    .start();
    let mux = Mux::new(d.connect().multiplex());
    let flood = mux.ask("RUN\r\nflood\r\n");
    let mut alone = d.connect();
    alone.send("RUN\r\nflood\r\n");
    for _ in 0..3 {
        let small = ran(&mux.ask([&b"RUN\r\nsmall\r\n"[..], &END].concat()).read_all(), GO);
        assert_eq!((small.out.as_str(), small.status), ("small\n", Some(0)));
    }
    std::thread::sleep(Duration::from_millis(300));
    let rss = proc::rss(d.net_pid());
    assert!(rss < 64 * 1024, "{rss} KiB");
    drop((flood, alone));
    drop(mux);
    until("they have ended", || d.services().is_empty());
}

/// On a connection of its own, while nobody reads its output: a reload tells the session something.
#[test]
fn a_reload_leaves_the_input_of_who_reads_no_output_yet() {
    let conf = "much stream tcp nowait @USER@ /bin/sh sh -c 'head -c 20000000 /dev/zero & cat >/dev/null; wait; exit 3'\n";
    let d = Daemon::with(conf).start();
    let (mut c, piece) = (d.connect(), input(&[7; 60_000]));
    c.send("RUN\r\nmuch\r\n").expect(GO);
    c.send(piece.repeat(50));
    std::thread::sleep(Duration::from_millis(300));
    let before = d.net_pid();
    d.reload(conf);
    until("another net serves", || d.nets().iter().any(|n| *n != before));
    // More than all buffers on the way hold.
    c.0.set_write_timeout(Some(Duration::from_secs(20))).expect("timeout");
    c.send(piece.repeat(800)).send(END);
    let all = ran(&c.read_all(), "");
    assert_eq!((all.out.len(), all.status), (20_000_000, Some(3)));
}

/// On a connection of its own, where the client is slower than the service.
#[test]
fn standard_error_does_not_wait_for_the_end_of_the_output() {
    const OUTPUT: usize = 40_000_000;
    let d = Daemon::with(&format!(
        "w stream tcp nowait @USER@ /bin/sh sh -c 'head -c {OUTPUT} /dev/zero & sleep 0.3; echo err >&2; wait'\n"
    ))
    .start();
    // On a slow machine the service may write it when its output is over.
    until("it comes before that", || {
        let mut c = d.connect();
        c.send("RUN\r\nw\r\n").expect(GO);
        std::thread::sleep(Duration::from_millis(600));
        let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
        while let Ok(n @ 1..) = c.0.read(&mut part) {
            bytes.extend_from_slice(&part[..n]);
            std::thread::sleep(Duration::from_millis(2));
        }
        let all = ran(&bytes, "");
        assert_eq!((all.out.len(), all.errors.as_str()), (OUTPUT, "err\n"));
        all.kinds == [0, 2, 0, 1, 3]
    });
}

/// Fills its connection until nobody has taken anything for a while, and ends without having read
/// its input: the system throws away what has not been received when the last copy of its socket is
/// closed. Its standard error says how many bytes it has written.
const FILL: &str = "fill stream tcp nowait @USER@ /usr/bin/perl perl -MFcntl -MSocket -e \
'setsockopt(STDOUT, SOL_SOCKET, SO_SNDBUF, 8192); fcntl(STDOUT, F_SETFL, O_NONBLOCK); \
while ($in_vain < 6) { $n = syswrite(STDOUT, q(x) x 4096); $all += $n; \
if ($n) { $in_vain = 0 } else { $in_vain++; select(undef, undef, undef, 0.05) } } print STDERR $all'
";

/// A session that asks for so many of them, and reads nothing before it is told to.
fn fills(d: &Daemon, from: &str, login: &str, streams: u32) -> Raw<TcpStream> {
    let mut c = d.connect_from(from);
    c.send(format!("{login}MULTIPLEX\r\n"));
    let mut all = String::new();
    while !all.ends_with("+ Success\r\n") || !all.contains("ful") && !login.is_empty() {
        let mut byte = [0];
        c.0.read_exact(&mut byte).expect("an answer");
        all.push(byte[0].into());
    }
    let mut raw = Raw(c.0);
    for n in 0..streams {
        raw.data(SYN, 2 * n + 1, [b"RUN\r\nfill\r\n", &input(b"unread")[..]].concat());
    }
    raw
}

/// Reads all of its streams: whether each ended as if all had come. What it has got then is all.
#[track_caller]
fn whole(raw: &mut Raw<TcpStream>, streams: u32) -> Vec<bool> {
    let mut got = vec![Vec::new(); streams as usize];
    let mut ends = vec![0; streams as usize];
    while ends.contains(&0) {
        let frame = raw.next();
        let Some(n) = frame.stream.checked_sub(1).map(|n| n as usize / 2) else { continue };
        got[n].extend(&frame.payload);
        ends[n] = frame.flags & (FIN | RST);
        if !frame.payload.is_empty() {
            raw.frame(yamux_raw::WINDOW, 0, frame.stream, frame.length);
        }
    }
    let of = |(bytes, end): (&Vec<u8>, &u16)| {
        if *end == RST {
            return false;
        }
        let all = ran(bytes, GO);
        assert_eq!(all.status, Some(0));
        assert_eq!(all.out.len().to_string(), all.errors);
        true
    };
    got.iter().zip(&ends).map(of).collect()
}

/// Output that nobody has taken yet is kept for few at a time. Whose is given up depends on who has
/// most of it, in all sessions, and nobody is told of the end of a service whose output was lost.
#[test]
fn one_source_or_user_takes_no_output_from_others() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let users = passwords(&["alice", "bob"]);
    let login = |user: &str| format!("AUTH\r\n{user}\r\ndemopass\r\n");
    let settings = "passwords = @DIR@/passwd\nmax_services_per_source = 2000\n";
    let d = Daemon::with(&[settings, FILL].concat()).file("passwd", &users).start();
    let mut ended = 0;
    let mut filled = |from: &str, login: &str, streams: u32| {
        let raw = fills(&d, from, login, streams);
        ended += streams as usize;
        (raw, ended)
    };
    let (mut alone, _) = filled("127.0.0.1", "", 4);
    let (mut honest, n) = filled("127.0.0.2", &login("alice"), 4);
    d.wait_logs("EXIT service=fill ", n);
    // A stranger, and a user at the honest one's own address.
    let mut strangers: Vec<_> = (0..60).map(|_| filled("127.0.0.3", "", 3)).collect();
    let mut users: Vec<_> = (0..60).map(|_| filled("127.0.0.2", &login("bob"), 3)).collect();
    let n = users.last().expect("one").1;
    d.wait_logs("EXIT service=fill ", n);
    assert_eq!(whole(&mut alone, 4), [true; 4]);
    assert_eq!(whole(&mut honest, 4), [true; 4]);
    for all in [&mut strangers, &mut users] {
        // Those that ended first; which these are, the system decides.
        assert!(all.iter_mut().take(20).any(|(raw, _)| whole(raw, 3).contains(&false)));
        assert!(all.iter_mut().rev().take(20).any(|(raw, _)| whole(raw, 3).contains(&true)));
    }
}
