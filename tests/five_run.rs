//! A service's exit status is five's, and its standard error is five's.

mod support;
#[path = "support/tls.rs"]
mod tls;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use support::*;
use tls::Tls;

const CONF: &str = "both stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 3'
killed stream tcp nowait @USER@ /bin/sh sh -c 'kill -TERM $$'
cat stream tcp nowait @USER@ /bin/cat cat
backup stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; echo 7; exit 9'
far stream tcp nowait @USER@ /bin/sh sh -c 'exec 1>&-; sleep 0.3; echo late >&2; exit 5'
flood stream tcp nowait @USER@ /bin/sh sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" e >&2; head -c 3000000 /dev/zero'
tcpmux/own stream tcp nowait @USER@ /bin/sh sh -c 'printf \"+mine\\r\\nout\\n\"; exit 4'
tcpmux/no stream tcp nowait @USER@ /bin/sh sh -c 'printf \"%s\\r\\n\" \"-not now\"'
tcpmux/more stream tcp nowait @USER@ /bin/sh sh -c 'printf \"%s\\r\\nmore\\n\" \"-not now\"; echo err >&2; exit 3'
[main]
own stream tcp nowait @USER@ /bin/sh sh -c 'echo own; echo err >&2; exit 6'
";

#[test]
fn its_exit_status_and_its_standard_error_are_five_s() {
    let d = Daemon::with(CONF).start();
    let five = Five::new(&d);
    let ran =
        |words: &[&str], input: &[u8]| five.run_with(&[&["localhost"], words].concat(), input);
    let is = |(status, out, err): (i32, String, String)| (status, out, err);
    // It learns the server's key, and says so.
    assert_eq!(ran(&["cat"], b"").0, 0);
    for words in [&["both"][..], &["-x", "both"]] {
        assert_eq!(is(ran(words, b"")), (3, "out\n".into(), "err\n".into()), "{words:?}");
    }
    assert_eq!(is(ran(&["killed"], b"")), (128 + 15, String::new(), String::new()));
    assert_eq!(is(ran(&["cat"], b"x\ny")), (0, "x\ny".into(), String::new()));
    assert_eq!(is(ran(&["far"], b"")), (5, String::new(), "late\n".into()));
    assert_eq!(is(ran(&["-H", "main", "own"], b"")), (6, "own\n".into(), "err\n".into()));
    assert_eq!(is(ran(&["own"], b"")), (4, "out\n".into(), String::new()));
    let (status, out, err) = ran(&["flood"], b"");
    assert_eq!((status, out.len(), err.len()), (0, 3_000_000, 3_000_000));
    // Its own statuses: refused, and no session or wrong use.
    for name in ["nothing", "HELP", "no"] {
        assert_eq!(ran(&[name], b"").0, 254, "{name}");
    }
    // What a service says after its own refusal is shown with that, and nothing but text.
    for words in [&["more"][..], &["-x", "more"]] {
        let (status, out, err) = ran(words, b"");
        assert_eq!((status, &*out), (254, ""), "{words:?}");
        assert!(err.starts_with("five: more: not now\n") && !err.contains('?'), "{err:?}");
        let mut lines: Vec<_> = err.lines().skip(1).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "more"], "{err:?}");
    }
    assert_eq!(ran(&["cat", "more"], b"").0, 255);
    let plain = ran(&["--plain", "both"], b"");
    assert_eq!(is(plain), (0, "out\nerr\n".into(), String::new()));
}

/// The system resets the connection of a program that leaves input unread, and throws away what it
/// has written and nobody has received yet.
#[test]
fn a_service_that_leaves_its_input_unread_loses_no_output() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let conf = "big stream tcp nowait @USER@ /usr/bin/head head -c 8000000 /dev/zero
shut stream tcp nowait @USER@ /usr/bin/perl perl -e 'print q(x) x 8000000; $| = 1; shutdown(STDOUT, 1)'
";
    let d = Daemon::with(conf).start();
    let five = Five::new(&d);
    assert_eq!(five.run(&["localhost", "big"]).0, 0);
    for words in [&["big"][..], &["-x", "big"], &["shut"]] {
        for _ in 0..3 {
            let ran = five.run_with(&[&["localhost"], words].concat(), b"quit\n");
            assert_eq!((ran.0, ran.1.len(), ran.2), (0, 8_000_000, String::new()), "{words:?}");
        }
    }
}

#[test]
fn an_input_that_cannot_be_read_is_not_taken_for_its_end() {
    let d = Daemon::with(CONF).start();
    let five = Five::new(&d);
    assert_eq!(five.run(&["localhost", "cat"]).0, 0);
    // The holder reads a directory, five itself a device.
    for (path, why) in [("/", "Is a directory"), ("/dev/loop-control", "Invalid argument")] {
        let Ok(input) = std::fs::File::open(path) else { continue };
        for plain in [&[][..], &["--plain"]] {
            let mut command = five.command(&["-p", &five.port(), "localhost", "cat"]);
            let input = input.try_clone().expect("descriptor");
            let ran = command.args(plain).stdin(input).output().expect("five");
            let told = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(255), "{path}: {told}");
            assert!(told.contains(&format!("standard input: {why}")), "{path}: {told}");
        }
    }
}

#[test]
fn scripts_see_it() {
    let d = Daemon::with(CONF).start();
    let five = Five::new(&d);
    let script = |text: &str| {
        let mut shell = five.program("bash");
        shell.args(["-c", text]).env("FIVE", env!("CARGO_BIN_EXE_five")).env("P", five.port());
        let out = shell.output().expect("bash");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    if !installed("bash") {
        return skip("needs bash");
    }
    let call = "$FIVE -p $P --accept-new -l '' localhost";
    let text = format!("set -o pipefail; echo x | {call} backup | cat; echo $?");
    assert_eq!(script(&text), (Some(0), "7\n9\n".into()));
    let text = format!("{call} backup </dev/null || exit; echo not reached");
    assert_eq!(script(&text), (Some(9), "7\n".into()));
    // Refused, ended by a signal, and no session.
    let text = format!("{call} nothing 2>/dev/null; echo $?; {call} killed; echo $?");
    assert_eq!(script(&text), (Some(0), "254\n143\n".into()));
    let text = format!("set -o pipefail; echo x | {call} nothing 2>/dev/null | cat");
    assert_eq!(script(&text), (Some(254), String::new()));
    let nobody = free_address();
    let text = format!("$FIVE -q -p {} 127.0.0.1 backup </dev/null || exit", nobody.port());
    assert_eq!(script(&text), (Some(255), String::new()));
    // Standard error goes where the caller's goes, and closing it harms nobody.
    let text = format!("{call} both 2>&1 >/dev/null; {call} both 2>&-; echo $?");
    assert_eq!(script(&text), (Some(0), "err\nout\n3\n".into()));
}

const BANNERS: &str =
    "always stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 3'
 banner = @DIR@/banner
good stream tcp nowait @USER@ /bin/cat cat
 banner_success = @DIR@/large
each stream tcp nowait @USER@ /bin/cat cat
 banner = @DIR@/banner
 banner_success = @DIR@/large
 banner_fail = @DIR@/bad
silent stream tcp nowait @USER@ /bin/sh sh -c 'cat >/dev/null; exit 4'
 banner = @DIR@/banner
errors stream tcp nowait @USER@ /bin/sh sh -c 'echo err >&2; exit 5'
 banner = @DIR@/banner
terminal stream tcp nowait @USER@ /bin/sh sh -c 'tty; exit 6'
 pty = yes
 banner = @DIR@/banner
web stream tcp nowait @USER@ redirect @UP@
 banner = @DIR@/banner
missing stream tcp nowait @USER@ /no/such/program x
 banner = @DIR@/banner
 banner_success = @DIR@/large
 banner_fail = @DIR@/bad
";

#[test]
fn a_banner_is_written_before_the_output() {
    let (banner, large) = ("be nice\n\u{4}\u{ff}\n", "long\n".repeat(3000));
    let up = TcpListener::bind("127.0.0.1:0").expect("listen");
    let conf = BANNERS.replace("@UP@", &up.local_addr().expect("address").to_string());
    thread::spawn(move || {
        for tcp in up.incoming() {
            // What is left unread would be a reset, which is passed on.
            let _ = tcp.and_then(|mut tcp| {
                tcp.write_all(b"up\n")?;
                tcp.read_to_end(&mut Vec::new())
            });
        }
    });
    for settings in ["", "resume_timeout_anonymous = 0\n"] {
        let d = Daemon::with(&(settings.to_string() + &conf));
        let d = d.file("banner", banner).file("large", &large).file("bad", "try later\n").start();
        let five = Five::new(&d);
        assert_eq!(five.run(&["-q", "localhost", "silent"]).0, 4);
        let all = [
            ("always", format!("{banner}out\n"), "err\n", 3),
            ("good", format!("{large}hey\n"), "", 0),
            ("each", format!("{banner}{large}hey\n"), "", 0),
            ("silent", banner.to_string(), "", 4),
            ("errors", banner.to_string(), "err\n", 5),
            ("web", format!("{banner}up\n"), "", 0),
        ];
        for (name, out, err, status) in all {
            for before in [&[][..], &["-x"]] {
                let (s, o, e) = five.run_with(&[before, &["localhost", name]].concat(), b"hey\n");
                assert_eq!((s, &*e), (status, err), "{settings}{before:?} {name}: {o}");
                assert!(o == out, "{settings}{before:?} {name}: {} bytes", o.len());
            }
            // The same bytes as without records.
            let plain = five.run_with(&["--plain", "localhost", name], b"hey\n").1;
            assert!(plain.starts_with(&out), "{name}: {plain}");
        }
        let (status, out, _) = five.run(&["-t", "localhost", "terminal"]);
        assert!(status == 6 && out.starts_with(&format!("{banner}/dev/pts/")), "{status} {out}");
        let (status, out, err) = five.run(&["localhost", "missing"]);
        assert_eq!((status, &*out), (254, ""), "{err}");
        let why = "five: missing: Service failed (the server's log says why)\n";
        assert!(err.contains(why) && err.contains("try later"), "{err}");
        assert!(!err.contains("long"), "{err}");
    }
}

/// A server as it was before RUN: it stands before a fived, and changes the word into one that
/// nobody knows. Where it is, and how often it has seen the word.
fn without_run(d: &Daemon) -> (SocketAddr, Arc<AtomicUsize>) {
    let cert = CertificateDer::from_pem_file(d.place.at("state/cert.pem")).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(d.place.at("state/key.pem")).expect("key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("certificate and key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, behind) = (listener.local_addr().expect("address"), d.address());
    let (config, seen) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
    let its = seen.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (config, seen) = (config.clone(), its.clone());
            // It ends with either side.
            thread::spawn(move || relay(client, behind, config, &seen));
        }
    });
    (address, seen)
}

fn relay(
    mut client: TcpStream,
    to: SocketAddr,
    config: Arc<ServerConfig>,
    seen: &AtomicUsize,
) -> io::Result<()> {
    client.read_exact(&mut [0; b"SSL\r\n".len()])?;
    client.write_all(b"+ Success\r\n")?;
    let server = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(server, client);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    let mut server = Tls::start(TcpStream::connect(to)?, "localhost").0;
    // One thread has both directions, and looks at each in turn.
    let turn = Some(Duration::from_millis(2));
    client.sock.set_read_timeout(turn)?;
    server.sock.set_read_timeout(turn)?;
    let mut bytes = vec![0; 65_536];
    loop {
        let n = read(&mut client, &mut bytes)?;
        if let Some(at) = bytes[..n].windows(5).position(|w| w == b"RUN\r\n") {
            bytes[at..at + 3].copy_from_slice(b"OLD");
            seen.fetch_add(1, Ordering::SeqCst);
        }
        server.write_all(&bytes[..n])?;
        let n = read(&mut server, &mut bytes)?;
        client.write_all(&bytes[..n])?;
    }
}

/// What has come; nothing, if nothing has. Err: the end.
fn read(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    match from.read(bytes) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(0),
        read => read,
    }
}

#[test]
fn a_server_without_run_gets_the_plain_request() {
    let d = Daemon::with(&format!("resume_timeout = 0\n{CONF}")).start();
    let (address, seen) = without_run(&d);
    let five = Five::at(&d.place, address);
    let ran = |words: &[&str], input: &[u8]| {
        five.run_with(&[&["-q", "127.0.0.1"], words].concat(), input)
    };
    // What was sent before the answer is not lost.
    assert_eq!(ran(&["cat"], b"x\ny"), (0, "x\ny".into(), String::new()));
    let tried = seen.load(Ordering::SeqCst);
    assert!(tried > 0);
    for words in [&["both"][..], &["-t", "both"]] {
        assert_eq!(ran(words, b""), (0, "out\nerr\n".into(), String::new()), "{words:?}");
    }
    assert_eq!(ran(&["killed"], b"").0, 0);
    assert_eq!(ran(&["nothing"], b"").0, 254);
    assert_eq!(seen.load(Ordering::SeqCst), tried, "a session tries it once");
    assert_eq!(ran(&["-x", "both"], b""), (0, "out\nerr\n".into(), String::new()));
    assert!(seen.load(Ordering::SeqCst) > tried);
}

/// The server has ended the session in order, and five has all that the service wrote: whoever
/// reads it takes his time.
#[test]
fn output_that_has_come_is_delivered_after_the_session() {
    let conf = "listen = 127.0.0.1:0 @DIR@/fived
slow stream tcp nowait @USER@ /bin/sh sh -c 'echo ready; until [ -e @DIR@/go ]; do sleep 0.02; done; head -c 200000 /dev/zero; echo err >&2; exit 4'
";
    for settings in ["", "resume_timeout = 0\n"] {
        let conf = format!("{settings}{conf}");
        for kind in ["shared", "unshared", "path"] {
            let d = Daemon::with(&conf).listen("").start();
            let (five, path) = (Five::new(&d), d.place.at("fived"));
            d.wait_log(&format!("listening on {path}"));
            let mut child = match kind {
                "shared" => five.start(&["-q", "localhost", "slow"]),
                "unshared" => five.start(&["-q", "-x", "localhost", "slow"]),
                _ => five::piped(&mut five.command(&["-q", &path, "slow"])),
            };
            drop(child.stdin.take());
            let mut out = child.stdout.take().expect("piped");
            out.read_exact(&mut [0; 6]).expect("it has begun");
            d.reload(&conf);
            std::fs::write(d.place.at("go"), "").expect("go");
            d.wait_log("END session=");
            thread::sleep(Duration::from_millis(100));
            let mut all = Vec::new();
            out.read_to_end(&mut all).expect("the rest");
            let (status, _, err) = five::ended(child);
            let got = (status, all.len(), &*err);
            assert_eq!(got, (4, 200_000, "err\n"), "{settings}{kind}");
        }
    }
}

/// Nobody else waits for that reader, and nothing is left of him who does not read at all.
#[test]
fn a_slow_reader_after_the_session_holds_up_nobody() {
    let conf = "resume_timeout = 0
shutdown_timeout = 1
large stream tcp nowait @USER@ /bin/sh sh -c 'head -c 200000 /dev/zero; exit 4'
ready stream tcp nowait @USER@ /bin/sh sh -c 'echo ready; exec cat'
";
    let mut d = Daemon::with(conf).start();
    let five = Five::new(&d);
    let (mut open, holder) = (five.open_call(&["-q"]), five.holder());
    let host = d.address().ip().to_string();
    let large = || {
        let mut child = five.start(&["-q", &host, "large"]);
        drop(child.stdin.take());
        let mut out = child.stdout.take().expect("piped");
        out.read_exact(&mut [0; 6]).expect("it has begun");
        (child, out)
    };
    let (reads, leaves, killed) = (large(), large(), large());
    d.wait_logs("EXIT service=large", 3);
    d.signal(nix::sys::signal::Signal::SIGTERM);
    let _input = open.stdin.take();
    assert_eq!(five::ended(open).0, 255);
    assert_eq!(d.wait(), 0);
    drop(leaves.1);
    assert_eq!(five::ended(leaves.0).0, 128 + 13);
    signals::send(&killed.0, 9);
    assert_eq!(five::ended(killed.0).0, 128 + 9);
    let (child, mut out) = reads;
    let mut all = Vec::new();
    out.read_to_end(&mut all).expect("the rest");
    assert_eq!((five::ended(child).0, all.len()), (4, 200_000 - 6));
    until("the holder has ended", || !proc::alive(holder));
    assert!(five.sessions().is_empty());
}

/// A program may finish its output first, and read on.
#[test]
fn a_program_that_ends_its_output_first_gets_all_of_its_input() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let d = Daemon::with(
        "half stream tcp nowait @USER@ /usr/bin/perl perl -e 'shutdown(STDOUT, 1); \
         while ($r = sysread(STDIN, $b, 65536)) { $n += $r } print STDERR $n'\n",
    )
    .start();
    let f = Five::new(&d);
    let ended = f.run_with(&["-q", "127.0.0.1", "half"], &[1; 3_000_000]);
    assert_eq!(ended, (0, String::new(), "3000000".into()));
}
