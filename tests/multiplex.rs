//! MULTIPLEX, through the real program: by the `yamux` crate, and by raw frames where a library
//! would not misbehave.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;
use yamux_raw::{Raw, header};

const CONF: &str = "cat stream tcp nowait @USER@ /bin/cat cat
hello stream tcp nowait @USER@ /bin/echo echo hello
who stream tcp nowait @USER@ /bin/sh sh -c 'echo host=$FIVED_HOST user=$FIVED_USER tls=$SSL_PROTOCOL'
late stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; echo after the end'
gone stream tcp nowait @USER@ /bin/sh sh -c 'echo bye'
one stream tcp nowait @USER@ /bin/cat cat
 instances = 1
sleep stream tcp nowait @USER@ /bin/sleep sleep 100
[main]
own stream tcp nowait @USER@ /bin/echo echo own
";
const HELP: &str =
    "cat\r\nhello\r\nwho\r\nlate\r\ngone\r\none\r\nsleep\r\nAUTH\r\nHOST\r\nPUBKEY\r\nRUN\r\n";
const DATA: u8 = 0;
const UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

fn raw(d: &Daemon) -> Raw<TcpStream> {
    Raw(d.connect().multiplex())
}

fn over_tls(d: &Daemon, name: &str) -> Tls {
    let mut c = Tls::start(d.connect().0, name);
    c.send(b"MULTIPLEX\r\n");
    c.expect(b"+ Success\r\n");
    c
}

#[test]
fn each_stream_is_a_connection() {
    let d = Daemon::with(CONF).start();
    for mux in [Mux::new(d.connect().multiplex()), Mux::new(over_tls(&d, "x.example").0)] {
        same(mux.ask("hello\r\n").read_all(), "+Go\r\nhello\n");
        same(mux.ask("HELP\r\n").read_all(), HELP);
        same(mux.ask("nothing\r\n").read_all(), NOT_AVAILABLE);
        same(mux.ask("SSL\r\n").read_all(), "- Not inside MULTIPLEX\r\n");
        same(mux.ask("MULTIPLEX\r\n").read_all(), "- Not inside MULTIPLEX\r\n");
        same(mux.ask(format!("{}\r\n", "x".repeat(256))).read_all(), TOO_LONG);
        let mut s = mux.open();
        s.write_all(b"late\r\nsomething").expect("write");
        s.finish();
        same(s.read_all(), "+Go\r\nafter the end\n");
        assert!(!mux.ended());
    }
}

#[test]
fn host_and_login_inside_a_stream_are_that_streams_alone() {
    let d = Daemon::with(CONF).start();
    let mux = Mux::new(d.connect().multiplex());
    same(
        mux.ask("HOST\r\nmain\r\nown\r\n").read_all(),
        "+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\nown\n",
    );
    same(mux.ask("own\r\n").read_all(), NOT_AVAILABLE);
    same(
        mux.ask("HOST\r\nmain\r\nSSL\r\n").read_all(),
        "+ Success\r\nWhich VHOST? Host main selected\r\n- Not inside MULTIPLEX\r\n",
    );
    let answer = mux.ask("AUTH\r\nx\r\ny\r\nwho\r\n").read_all();
    same(
        answer,
        "+ Success\r\nEnter Username: Enter Password: - Authentication failed\r\n+Go\r\nhost= user= tls=\n",
    );
}

#[test]
fn it_inherits_what_the_session_has() {
    let d = Daemon::with(&format!(
        "passwords = @DIR@/passwd\n{CONF}[*]\nall stream tcp nowait @USER@ /bin/sh sh -c 'echo host=$FIVED_HOST user=$FIVED_USER tls=$SSL_PROTOCOL'\n require = tls login\n"
    ));
    let d = d.file("passwd", &passwords(&["demo"])).start();
    let mut c = Tls::start(d.connect().0, "main");
    c.send(b"AUTH\r\ndemo\r\ndemopass\r\nMULTIPLEX\r\n");
    c.expect(b"+ Success\r\nEnter Username: Enter Password: Authentication as demo successful\r\n+ Success\r\n");
    let mux = Mux::new(c.0);
    let streams: Vec<_> = (0..100).map(|_| mux.ask("all\r\n")).collect();
    for mut s in streams {
        same(s.read_all(), "+Go\r\nhost=main user=demo tls=TLSv1.3\n");
    }
}

#[test]
fn every_byte_arrives_beside_a_stalled_stream() {
    let d = Daemon::with(&format!("max_streams_anonymous = 64\n{CONF}")).start();
    let body: Vec<u8> =
        (0..1_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let wanted = digest(&SHA256, &body);
    for mux in [Mux::new(d.connect().multiplex()), Mux::new(over_tls(&d, "x.example").0)] {
        // It sends nobody anything it reads, and nobody reads it: its window fills, and it stands
        // still.
        let mut stalled = mux.ask("cat\r\n");
        stalled.expect(GO);
        let mut streams: Vec<_> = (0..12).map(|_| mux.ask("cat\r\n")).collect();
        std::thread::scope(|scope| {
            for mut s in streams.drain(..) {
                let (body, wanted) = (&body, &wanted);
                scope.spawn(move || {
                    s.expect(GO);
                    let mut got = Vec::new();
                    for piece in body.chunks(50_000) {
                        s.write_all(piece).expect("write");
                        let mut part = vec![0; piece.len()];
                        std::io::Read::read_exact(&mut s, &mut part).expect("read");
                        got.extend_from_slice(&part);
                    }
                    s.finish();
                    assert!(s.read_all().is_empty());
                    assert_eq!(digest(&SHA256, &got).as_ref(), wanted.as_ref());
                });
            }
        });
        stalled.finish();
        same(stalled.read_all(), "");
    }
}

#[test]
fn frames_may_come_right_after_the_request() {
    let d = Daemon::with(CONF).start();
    let mut c = d.connect();
    let first = [
        b"MULTIPLEX\r\n".to_vec(),
        yamux_raw::header(DATA, SYN, 1, 7).to_vec(),
        b"hello\r\n".to_vec(),
    ]
    .concat();
    c.send(first).expect("+ Success\r\n");
    let (bytes, end) = Raw(c.0).stream(1);
    same(bytes, "+Go\r\nhello\n");
    assert_eq!(end, FIN);
}

#[test]
fn one_ack_one_fin_and_no_reset_after_it() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "gone\r\n").data(FIN, 1, "");
    let (mut acks, mut fins) = (0, 0);
    r.frame(PING, SYN, 0, 7);
    let mut pinged = false;
    while !(pinged && fins > 0) {
        let f = r.next();
        acks += u32::from(f.stream == 1 && f.flags & ACK != 0);
        fins += u32::from(f.stream == 1 && f.flags & FIN != 0);
        assert_eq!(f.flags & RST, 0);
        pinged |= f.kind == PING && f.flags & ACK != 0;
    }
    r.frame(PING, SYN, 0, 8);
    r.until(PING, ACK, 0);
    assert_eq!((acks, fins), (1, 1));
}

#[test]
fn input_for_a_service_that_has_ended_is_discarded() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "gone\r\n");
    let (bytes, end) = r.stream(1);
    same(bytes, "+Go\r\nbye\n");
    assert_eq!(end, FIN);
    for _ in 0..20 {
        r.data(0, 1, vec![0; 10_000]);
    }
    r.data(SYN, 3, "hello\r\n");
    same(r.stream(3).0, "+Go\r\nhello\n");
}

#[test]
fn a_reset_ends_the_service_and_nothing_else() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "cat\r\n").until(DATA, 0, 1);
    r.data(SYN, 3, "one\r\n").until(DATA, 0, 3);
    r.frame(UPDATE, RST, 1, 0);
    d.wait_log("EXIT service=cat");
    r.data(0, 3, "on\n");
    same(r.until(DATA, 0, 3).payload, "on\n");
}

/// The relay is over, and counted, before its service is known to run: its end is told of all the
/// same, while the session stands.
#[test]
fn what_was_reset_at_once_is_counted() {
    // No greeting, whose failure would say that the client has gone.
    let d = Daemon::with(
        "tcpmux/cat stream tcp nowait @USER@ /bin/cat cat\n log_on_success += TRAFFIC\n",
    )
    .start();
    let mut r = raw(&d);
    // It has a channel to the parent.
    d.wait_log("SESSION ");
    d.signal(Signal::SIGSTOP);
    for stream in (1..16).step_by(2) {
        let frames =
            [&header(DATA, SYN, stream, 6)[..], b"cat\r\nx", &header(UPDATE, RST, stream, 0)]
                .concat();
        r.send(&frames);
    }
    // Net answers only when it has read, and ordered, all before.
    r.frame(PING, SYN, 0, 7).until(PING, ACK, 0);
    d.signal(Signal::SIGCONT);
    let lines = d.wait_logs("EXIT service=cat", 8);
    // What its client took back before it ran, it was not given.
    assert!(lines.iter().all(|l| l.contains(" in=0 out=0 ")), "{lines:?}");
}

#[test]
fn traffic_is_the_service_s_alone() {
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n log_on_success += TRAFFIC\n banner = @DIR@/b\n")
        .file("b", "hm\n")
        .start();
    let mut r = raw(&d);
    r.data(SYN | FIN, 1, "cat\n12345");
    same(r.stream(1).0, "+Go\r\nhm\n12345");
    assert!(d.wait_log("EXIT service=cat").contains(" in=5 out=5 "));
}

#[test]
fn limits_hold_for_streams_as_for_connections() {
    let d = Daemon::with(CONF).start();
    let mux = Mux::new(d.connect().multiplex());
    let mut first = mux.ask("one\r\n");
    first.expect(GO);
    same(mux.ask("one\r\n").read_all(), BUSY);
    same(d.ask("one\r\n"), BUSY);
    first.finish();
    first.read_all();
    until("free again", || mux.ask("one\r\n").finish().read_all() == GO.as_bytes());
}

/// The parent closes its end of the socket pair right after its answer: the end must not overtake
/// the answer.
#[test]
fn every_refused_stream_gets_the_reason() {
    let d = Daemon::with(
        "max_streams_anonymous = 64\nfail stream tcp nowait @USER@ /nonexistent/program x\n",
    )
    .start();
    for _ in 0..5 {
        let mut r = raw(&d);
        let asked: Vec<Vec<u8>> = (0..40)
            .map(|i| [&yamux_raw::header(DATA, SYN, 2 * i + 1, 6)[..], b"fail\r\n"].concat())
            .collect();
        r.send(&asked.concat());
        let (mut answer, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), 0);
        while ended < asked.len() {
            let mut f = r.next();
            answer.entry(f.stream).or_default().append(&mut f.payload);
            ended += usize::from(f.flags & (FIN | RST) != 0);
        }
        for (stream, bytes) in answer {
            assert_eq!(String::from_utf8_lossy(&bytes), FAILED, "stream {stream}");
        }
    }
}

#[test]
fn a_stream_too_many_is_reset() {
    let d = Daemon::with(&format!("max_streams_anonymous = 2\n{CONF}")).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "sleep\r\n").data(SYN, 3, "sleep\r\n").data(SYN, 5, "hello\r\n");
    r.until(UPDATE, RST, 5);
    r.frame(UPDATE, RST, 1, 0).data(SYN, 7, "hello\r\n");
    same(r.stream(7).0, "+Go\r\nhello\n");
}

#[test]
fn what_breaks_the_protocol_ends_the_session_with_code_1() {
    let d = Daemon::with(CONF).start();
    // They stay until all were noted: of a client that is gone the parent, when it is late, learns
    // no address.
    let mut kept = Vec::new();
    // Kind, flags, stream, length of each frame of a session that must not go on.
    let breaks: [&[(u8, u16, u32, u32)]; 4] = [
        &[(UPDATE, SYN, 2, 0)],
        &[(UPDATE, SYN, 1, 0), (UPDATE, SYN, 1, 0)],
        &[(DATA, SYN, 1, u32::MAX)],
        &[(UPDATE, SYN, 1, 0), (UPDATE, 0, 1, u32::MAX)],
    ];
    for frames in breaks {
        let mut r = raw(&d);
        for &(kind, flags, stream, length) in frames {
            r.frame(kind, flags, stream, length);
        }
        r.ends(1);
        kept.push(r);
    }
    let mut r = raw(&d);
    r.send(&[1; 12]).ends(1);
    kept.push(r);
    let mut r = raw(&d);
    r.data(SYN, 1, "sleep\r\n").data(FIN, 1, "").data(FIN, 1, "").ends(1);
    kept.push(r);
    // Also when the stream is long over.
    for after in [
        yamux_raw::header(UPDATE, FIN, 1, 0).to_vec(),
        [&yamux_raw::header(DATA, 0, 1, 1)[..], b"x"].concat(),
    ] {
        let mut r = raw(&d);
        r.data(SYN | FIN, 1, "hello\r\n");
        same(r.stream(1).0, "+Go\r\nhello\n");
        r.send(&after).ends(1);
        kept.push(r);
    }
    d.wait_logs("reason=protocol", 8);
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}

#[test]
fn a_half_closed_connection_is_the_end_of_every_stream_s_input() {
    let d = Daemon::with(CONF).start();
    let check = |answer: &mut dyn FnMut() -> Option<yamux_raw::Frame>| {
        let mut all = BTreeMap::<u32, (Vec<u8>, u16)>::new();
        while let Some(mut f) = answer() {
            let stream = all.entry(f.stream).or_default();
            stream.0.append(&mut f.payload);
            stream.1 |= f.flags;
        }
        let wanted = [(1, &b"+Go\r\nafter the end\n"[..]), (3, b"+Go\r\nabc"), (5, b"")];
        assert_eq!(all, wanted.map(|(id, bytes)| (id, (bytes.to_vec(), ACK | FIN))).into());
    };
    let mut r = raw(&d);
    r.data(SYN, 1, "late\r\nsomething").data(SYN, 3, "cat\r\nabc").data(SYN, 5, "unfinis");
    r.0.shutdown(std::net::Shutdown::Write).expect("half-close");
    check(&mut || r.try_next().expect("an orderly end"));
    let mut r = Raw(over_tls(&d, "x.example").0);
    r.data(SYN, 1, "late\r\nsomething").data(SYN, 3, "cat\r\nabc").data(SYN, 5, "unfinis");
    r.0.conn.send_close_notify();
    r.0.flush().expect("close_notify");
    check(&mut || r.try_next().expect("close_notify"));
    d.wait_logs("reason=closed", 2);
}

/// An upload that is cut within a frame must not pass for whole.
#[test]
fn the_end_of_the_connection_within_a_frame_breaks_the_protocol() {
    let conf = "up stream tcp nowait @USER@ /usr/bin/perl perl -e \
        'while ($n = sysread(STDIN, $b, 9)) {} print STDERR defined $n ? q(whole) : q(cut)'\n stderr = log\n";
    if !installed("perl") || !root() {
        return skip("needs perl and root");
    }
    let frame = [&header(DATA, 0, 1, 100)[..], b"abc"].concat();
    for cut in [&frame[..], &frame[..12], &frame[..5]] {
        let d = Daemon::with(conf).start();
        let mut r = raw(&d);
        r.data(SYN, 1, "up\r\nx");
        d.wait_log("START service=up");
        r.send(cut);
        r.0.shutdown(std::net::Shutdown::Write).expect("half-close");
        r.ends(1);
        d.wait_log("reason=protocol");
        d.wait_log("EXIT service=up");
        d.wait_log("cut");
    }
}

#[test]
fn a_login_in_a_stream_is_that_stream_s_alone() {
    let d = Daemon::with(&format!(
        "max_streams_anonymous = 2\nmax_streams = 4\npasswords = @DIR@/passwd\n{CONF}"
    ));
    let d = d.file("passwd", &passwords(&["demo"])).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "sleep\r\n").data(SYN, 3, "AUTH\r\ndemo\r\nwrong\r\n");
    let mut answer = String::new();
    let mut until = |r: &mut Raw<TcpStream>, end: &str| {
        while !answer.ends_with(end) {
            answer += &String::from_utf8_lossy(&r.until(DATA, 0, 3).payload);
        }
    };
    until(&mut r, "- Authentication failed\r\n");
    r.data(SYN, 5, "sleep\r\n");
    r.until(UPDATE, RST, 5);
    r.data(0, 3, "AUTH\r\ndemo\r\ndemopass\r\n");
    until(&mut r, "Authentication as demo successful\r\n");
    // Two are open: that is all that an anonymous session may have, whoever one of them is.
    r.data(SYN, 7, "sleep\r\n");
    r.until(UPDATE, RST, 7);
}

/// Its services could send nothing more that anybody gets: they end at once, not when `keepalive`
/// notices the silence.
#[test]
fn a_client_that_closes_its_direction_with_all_windows_used_up_is_gone() {
    let d = Daemon::with("flood stream tcp nowait @USER@ /usr/bin/yes yes\n").start();
    let mut r = Raw(d.connect().multiplex());
    r.data(SYN, 1, "flood\r\n");
    // 256 KiB, for which this client never gives credit.
    let mut got = 0;
    while got < 256 * 1024 {
        let frame = r.next();
        got += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
    r.0.shutdown(std::net::Shutdown::Write).expect("shutdown");
    until("its service has ended", || d.services().is_empty());
}

/// CVE-2024-32984: a flood of pings whose answers nobody reads must not fill the memory.
#[test]
fn a_client_that_sends_requests_without_reading_is_no_longer_read() {
    let d = Daemon::with(CONF).start();
    let mut c = d.connect().multiplex();
    c.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("timeout");
    let ping = yamux_raw::header(PING, SYN, 0, 1).repeat(5000);
    let before = proc::rss(d.net_pid());
    let mut sent = 0;
    while sent < 200_000_000 && c.write_all(&ping).is_ok() {
        sent += ping.len();
    }
    assert!(sent < 200_000_000, "it reads on and on");
    let grown = proc::rss(d.net_pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}

#[test]
fn a_reload_serves_what_crosses_it_and_takes_no_new_streams_then() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "cat\r\n");
    same(r.until(DATA, 0, 1).payload, GO);
    d.reload(CONF);
    r.until(3, 0, 0);
    let asked = r.until(PING, SYN, 0).length;
    // As if it had been on its way.
    r.data(SYN | FIN, 3, "hello\r\n");
    same(r.stream(3).0, "+Go\r\nhello\n");
    r.frame(PING, ACK, 0, asked);
    r.data(SYN, 5, "hello\r\n");
    r.until(UPDATE, RST, 5);
    r.data(0, 1, "still here\n");
    same(r.until(DATA, 0, 1).payload, "still here\n");
    r.data(FIN, 1, "");
    assert!(matches!(r.stream(1), (_, FIN)));
    d.wait_log("reason=drained");
    assert_eq!(r.try_next().expect("an orderly end"), None);
}

#[test]
fn a_stream_without_a_request_is_closed() {
    let d = Daemon::with(&format!("request_timeout = 3\n{CONF}")).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "hel");
    let (bytes, end) = r.stream(1);
    assert!(bytes.is_empty() && end == FIN);
    r.data(SYN, 3, "hello\r\n");
    same(r.stream(3).0, "+Go\r\nhello\n");
}

#[test]
fn silence_is_asked_about_and_ends() {
    let d = Daemon::with(&format!("keepalive = 1\n{CONF}")).start();
    let mut r = raw(&d);
    r.until(PING, SYN, 0);
    d.wait_log("reason=timeout");
}

#[test]
fn a_client_that_goes_takes_its_services_with_it() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "cat\r\n").data(SYN, 3, "cat\r\n");
    r.until(DATA, 0, 3);
    drop(r);
    d.wait_logs("EXIT service=cat", 2);
    d.wait_log("END session=");
}

#[test]
fn a_busy_service_says_so_however_soon_its_stream_ends() {
    let d = Daemon::with(CONF).start();
    let mut r = raw(&d);
    r.data(SYN, 1, "one\r\n");
    d.service("cat");
    for id in (3..203).step_by(2) {
        r.data(SYN | FIN, id, "one\r\n");
        same(r.stream(id).0, BUSY);
    }
}

/// As many streams as may be open, each with a dialogue of its own, one after the other: net's
/// count of them and the parent's differ for a moment, again and again.
#[test]
fn dialogues_that_come_and_go_are_all_served() {
    const CALLS: u32 = 600;
    let d = Daemon::with(&format!("max_streams = 8\n{CONF}")).start();
    let mut r = raw(&d);
    let (mut answer, mut asked, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), 0, 0);
    while ended < CALLS {
        while asked < CALLS && asked - ended < 8 {
            r.data(SYN | FIN, 2 * asked + 1, "HOST\r\nmain\r\nown\r\n");
            asked += 1;
        }
        let mut frame = r.next();
        answer.entry(frame.stream).or_default().append(&mut frame.payload);
        assert_eq!(frame.flags & RST, 0, "{frame:?}");
        if frame.flags & FIN != 0 {
            same(
                &answer[&frame.stream],
                "+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\nown\n",
            );
            ended += 1;
        }
    }
}

/// Bytes that are not the same at any two places near each other.
fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// What follows a dialogue was sent before its service was there, and goes on while it comes.
#[test]
fn what_follows_a_dialogue_arrives_whole_once_and_in_order() {
    const LONG: usize = 3_000_000;
    for kind in ["inet", "unix"] {
        let conf = format!(
            "socket = {kind}\n{CONF}mcat stream tcp nowait @USER@ /bin/cat cat\nsum stream tcp nowait @USER@ /usr/bin/sha256sum sha256sum\n"
        );
        let d = Daemon::with(&conf).start();
        let mux = Mux::new(d.connect().multiplex());
        let calls: Vec<_> = (0..4)
            .map(|n| {
                let mut stream = mux.ask("HOST\r\nmain\r\nsum\r\n");
                std::thread::spawn(move || {
                    stream.write_all(&noise(LONG, n)).expect("write");
                    stream.finish().read_all()
                })
            })
            .collect();
        for (n, call) in (0..).zip(calls) {
            let sum: String = digest(&SHA256, &noise(LONG, n))
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let before = "+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\n";
            same(call.join().expect("call"), format!("{before}{sum}  -\n"));
        }
        drop(mux);

        // All of it, and its end, in one frame; or with the end much later.
        let mut r = raw(&d);
        for (id, len) in [(1, 0), (3, 1), (5, 5_000), (7, 60_000)] {
            let bytes = [&b"HOST\r\nmain\r\nmcat\r\n"[..], &noise(len, id)].concat();
            r.data(SYN | FIN, id, bytes);
            let answer = r.stream(id).0;
            assert!(answer.ends_with(&[&b"+Go\r\n"[..], &noise(len, id)].concat()), "{kind} {len}");
        }
        r.data(SYN, 9, "HOST\r\nmain\r\nmcat\r\nab");
        while !r.next().payload.ends_with(b"ab") {}
        r.data(FIN, 9, "c");
        same(r.stream(9).0, "c");
    }
}

/// One that is reset while its dialogue gets it a service, or later: the service ends.
#[test]
fn a_reset_ends_the_service_that_a_dialogue_got() {
    let d = Daemon::with(&format!("{CONF}mcat stream tcp nowait @USER@ /bin/cat cat\n")).start();
    let mut r = raw(&d);
    let asked = "HOST\r\nmain\r\nmcat\r\nab";
    r.data(SYN, 1, asked);
    while !r.next().payload.ends_with(b"ab") {}
    r.frame(UPDATE, RST, 1, 0);
    d.wait_log("EXIT service=mcat");
    for id in (3..43).step_by(2) {
        let frames = [&header(DATA, SYN, id, asked.len() as u32)[..], asked.as_bytes()].concat();
        r.send(&frames);
        // Some of them are at their service by now.
        for _ in 0..id % 8 {
            r.frame(PING, SYN, 0, id).until(PING, ACK, 0);
        }
        r.frame(UPDATE, RST, id, 0);
    }
    r.data(SYN, 43, "hello\r\n");
    same(r.stream(43).0, "+Go\r\nhello\n");
    until("all that began has ended", || {
        let log = d.log();
        let count = |word: &str| log.lines().filter(|l| l.starts_with(word)).count();
        count("START ") == count("EXIT ")
    });
}

/// Streams come and go sooner than the parent answers: what it has yet to say of them has a bound.
#[test]
fn starts_that_nobody_answers_are_bounded() {
    let d = Daemon::with(&format!("max_streams_anonymous = 1\n{CONF}")).start();
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut c = yamux_raw::Raw(c.0);
    // It has a channel to the parent.
    d.wait_log("SESSION ");
    d.signal(Signal::SIGSTOP);
    until("it has stopped", || proc::stat(d.parent_pid()).is_some_and(|s| s[0] == "T"));
    for n in 0..65 {
        c.data(yamux_raw::SYN, 2 * n + 1, "hello\r\n").frame(
            yamux_raw::WINDOW,
            yamux_raw::RST,
            2 * n + 1,
            0,
        );
    }
    c.data(yamux_raw::SYN | yamux_raw::FIN, 1001, "hello\r\n");
    same(c.stream(1001).0, BUSY);
    d.signal(Signal::SIGCONT);
    d.wait_log("REFUSE service=hello host= from=127.0.0.1 reason=starts session=1");
    let mut n = 1001;
    until("there is room again", || {
        n += 2;
        c.data(yamux_raw::SYN | yamux_raw::FIN, n, "hello\r\n");
        c.stream(n).0.starts_with(GO.as_ref())
    });
}

const TRUE: &str = "max_services_per_source = 1000\nmax_sessions_per_source = 1000
true stream tcp nowait @USER@ /bin/true true\nhello stream tcp nowait @USER@ /bin/echo echo hello\n";
/// Sessions of one source, and streams of each.
const SESSIONS: usize = 40;
const STREAMS: usize = 8;

/// Sessions of one source, each of which has asked for `true` so often, while the parent stands.
fn asking(d: &Daemon) -> Vec<Raw<TcpStream>> {
    let mut all: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut c = d.connect_from("127.0.0.2");
            c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
            Raw(c.0)
        })
        .collect();
    d.wait_logs("SESSION from=127.0.0.2", SESSIONS);
    d.signal(Signal::SIGSTOP);
    until("it has stopped", || proc::stat(d.parent_pid()).is_some_and(|s| s[0] == "T"));
    for r in &mut all {
        for n in 0..STREAMS as u32 {
            r.data(SYN, 2 * n + 1, "true\r\n");
        }
        // Net answers only when it has read, and ordered, all before.
        r.frame(PING, SYN, 0, 7).until(PING, ACK, 0);
    }
    all
}

/// By many sessions, of which each asks for much, nobody keeps others waiting: neither those who
/// come for one service, nor a session of another source.
#[test]
fn many_sessions_that_ask_for_much_keep_no_others_waiting() {
    let d = Daemon::with(TRUE).start();
    let mut other = raw(&d);
    d.wait_log("SESSION from=127.0.0.1");
    let _all = asking(&d);
    let mut plain = d.connect();
    plain.send("hello\r\n");
    other.data(SYN | FIN, 1, "hello\r\n");
    other.frame(PING, SYN, 0, 7).until(PING, ACK, 0);
    // The same loop that answers this has ordered what came before.
    same(d.ask("x\r\n"), NOT_AVAILABLE);
    d.signal(Signal::SIGCONT);
    plain.expect("+Go\r\nhello\n");
    same(other.stream(1).0, "+Go\r\nhello\n");
    d.wait_logs("START service=true", SESSIONS * STREAMS);
    let log = d.log();
    let starts = log.lines().filter(|l| l.starts_with("START "));
    let places: Vec<usize> = starts
        .enumerate()
        .filter_map(|(n, line)| line.contains("service=hello").then_some(n))
        .collect();
    // A turn for each session would be half of all.
    assert!(places.len() == 2 && places[1] < SESSIONS * STREAMS / 4, "{places:?}");
}

/// What was asked for in sessions that have ended meanwhile is not started: its connection would
/// break at once, and all others wait for it.
#[test]
fn what_sessions_that_are_gone_have_asked_for_is_not_started() {
    let d = Daemon::with(TRUE).start();
    same(d.ask("x\r\n"), NOT_AVAILABLE);
    let idle = proc::descriptors(d.net_pid()).len();
    let all = asking(&d);
    all.iter().for_each(|r| reset(&r.0));
    until("net has ended them", || proc::descriptors(d.net_pid()).len() <= idle);
    d.signal(Signal::SIGCONT);
    d.wait_logs("END session=", SESSIONS);
    d.wait_logs("REFUSE service=true host= from=127.0.0.2 reason=gone", 1);
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    d.wait_log("START service=hello");
    let log = d.log();
    assert!(!log.contains("START service=true"), "{log}");
}
