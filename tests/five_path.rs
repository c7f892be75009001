//! `five /path NAME`, where fived listens at a Unix socket, tells the service's end as `five HOST NAME`
//! does.

mod support;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::five::{ended, finish, piped};
use support::*;
use yamux_raw::{ACK, FIN, Frame, SYN, WINDOW};

const CONF: &str = "listen = 127.0.0.1:0 @DIR@/fived
both stream tcp nowait @USER@ /bin/sh sh -c 'echo out; echo err >&2; exit 3'
killed stream tcp nowait @USER@ /bin/sh sh -c 'kill -TERM $$'
cat stream tcp nowait @USER@ /bin/cat cat
backup stream tcp nowait @USER@ /bin/sh sh -c 'wc -c; exit 9'
env stream tcp nowait @USER@ /usr/bin/env env
far stream tcp nowait @USER@ /bin/sh sh -c 'exec 1>&-; sleep 0.3; echo late >&2; exit 5'
flood stream tcp nowait @USER@ /bin/sh sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" e >&2; head -c 3000000 /dev/zero'
zeros stream tcp nowait @USER@ /bin/cat cat /dev/zero
ready stream tcp nowait @USER@ /bin/sh sh -c 'echo ready; exec cat'
late stream tcp nowait @USER@ /bin/sh sh -c 'echo late; exec sleep 600'
what stream tcp nowait @USER@ /bin/sh sh -c 'tty; stty size; echo term=$TERM; exit 7'
 pty = yes
none stream tcp nowait @USER@ /bin/sh sh -c 'tty; exit 8'
[www]
own stream tcp nowait @USER@ /bin/sh sh -c 'echo own; echo err >&2; exit 6'
";

fn at_a_path(conf: &str) -> Daemon {
    let d = Daemon::with(conf).listen("").start();
    d.wait_log(&format!("listening on {}", d.place.at("fived")));
    d
}

/// five, called with these words alone; running.
fn start(f: &Five, words: &[&str]) -> Child {
    piped(&mut f.command(words))
}

/// The same, to its end.
fn ran(f: &Five, words: &[&str], input: &[u8]) -> (i32, String, String) {
    finish(start(f, words), input)
}

fn is(status: i32, out: &str, err: &str) -> (i32, String, String) {
    (status, out.into(), err.into())
}

#[test]
fn its_exit_status_and_its_standard_error_are_five_s() {
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    let run = |name: &str, input: &[u8]| ran(&f, &[&path, name], input);
    assert_eq!(run("both", b""), is(3, "out\n", "err\n"));
    assert_eq!(run("killed", b""), is(128 + 15, "", ""));
    assert_eq!(run("cat", b"x\ny"), is(0, "x\ny", ""));
    assert_eq!(run("far", b""), is(5, "", "late\n"));
    let (status, out, err) = run("flood", b"");
    assert_eq!((status, out.len(), err.len()), (0, 3_000_000, 3_000_000));
    // Its input ends before its output, however much there is.
    let much = vec![b'x'; 3_000_000];
    assert_eq!(run("backup", &much), is(9, "3000000\n", ""));
    let (status, out, err) = run("cat", &much);
    assert_eq!((status, out.len(), &*err), (0, much.len(), ""));
    assert_eq!(ran(&f, &["-n", &path, "cat"], b"not read"), is(0, "", ""));
    assert_eq!(ran(&f, &["-x", &path, "both"], b""), is(3, "out\n", "err\n"));
    // Its own statuses: refused, and no session or wrong use.
    for name in ["nothing", "HELP", "own"] {
        let expected = format!("five: {name}: Service not available\n");
        assert_eq!(run(name, b""), is(254, "", &expected));
    }
    assert_eq!(ran(&f, &["-q", &path, "nothing"], b""), is(254, "", ""));
    let gone = d.place.at("nowhere");
    let (status, out, err) = ran(&f, &[&gone, "both"], b"");
    assert!(status == 255 && out.is_empty(), "{out}");
    assert!(err.starts_with(&format!("five: {gone}: no connection (No such file")), "{err}");
    assert_eq!(ran(&f, &[&path, "both", "more"], b"").0, 255);
    let (status, _, err) = ran(&f, &["-v", &path, "both"], b"");
    assert!(status == 3 && err.contains(&format!("five: connecting to {path}\n")), "{err}");
    // Nothing of a call is left: no socket, and so nothing that another call could use.
    assert!(f.sessions().is_empty());
}

#[test]
fn scripts_see_it() {
    if !installed("bash") {
        return skip("needs bash");
    }
    let d = at_a_path(CONF);
    let f = Five::new(&d);
    let script = |text: &str| {
        let mut shell = f.program("bash");
        shell.args(["-c", text]).env("FIVE", env!("CARGO_BIN_EXE_five"));
        shell.env("AT", d.place.at("fived"));
        let out = shell.output().expect("bash");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let text = "$FIVE $AT backup </dev/null || exit; echo not reached";
    assert_eq!(script(text), (Some(9), "0\n".into()));
    let text = "$FIVE $AT both 2>&1 >/dev/null; $FIVE $AT both 2>&-; echo $?";
    assert_eq!(script(text), (Some(0), "err\nout\n3\n".into()));
    // Who reads no more of its output ends it.
    let text = "$FIVE $AT zeros </dev/null | head -c 3 | wc -c; echo ${PIPESTATUS[0]}";
    assert_eq!(script(text), (Some(0), "3\n141\n".into()));
    until("the service has ended", || d.services().is_empty());
}

#[test]
fn the_service_is_told_who_called_and_how() {
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    let (uid, pid) = (nix::unistd::geteuid(), std::process::id());
    let name = nix::unistd::User::from_uid(uid).expect("passwd").expect("a user").name;
    // Neither a home nor a directory for sockets is needed.
    let mut c = f.command(&[&path, "env"]);
    c.env("HOME", "/nonexistent").env("XDG_RUNTIME_DIR", format!("/nonexistent/{pid}"));
    let (status, out, err) = finish(piped(&mut c), b"");
    assert_eq!((status, &*err), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    for expected in [
        "FIVED_RUN=1",
        "FIVED_AUTH=peer",
        &format!("FIVED_USER={name}"),
        &format!("REMOTE_USER={name}"),
        "PROTO=IPC",
        &format!("IPCREMOTEEUID={uid}"),
        "FIVED_SERVICE=env",
    ] {
        assert!(lines.contains(&expected), "{expected}: {out}");
    }
}

#[test]
fn a_virtual_host_is_chosen_there_too() {
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    assert_eq!(ran(&f, &["-H", "www", &path, "own"], b""), is(6, "own\n", "err\n"));
    assert_eq!(ran(&f, &["-H", "www", &path], b""), is(0, "own\n", ""));
    let expected = is(254, "", "five: own: no virtual host other there\n");
    assert_eq!(ran(&f, &["-H", "other", &path, "own"], b""), expected);
    // A login, a way and a session that others find are for other computers.
    for words in [&["-l", "demo"][..], &["-i", "/x"], &["-p", "1"], &["-R", "x:/y"], &["-4"]] {
        let (code, _, err) = ran(&f, &[words, &[&path, "cat"]].concat(), b"");
        assert!(code == 255 && err.contains("a socket of this computer excludes"), "{err}");
    }
    let (code, _, err) = ran(&f, &["--plain", "-H", "www", &path, "own"], b"");
    assert!(code == 255 && err.contains("--plain excludes"), "{err}");
}

#[test]
fn plainly_it_is_as_before() {
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    assert_eq!(ran(&f, &["--plain", &path, "both"], b""), is(0, "out\nerr\n", ""));
    let (_, out, _) = ran(&f, &["--plain", &path, "env"], b"");
    assert!(out.contains("FIVED_AUTH=peer\n") && !out.contains("FIVED_RUN"), "{out}");
    assert_eq!(ran(&f, &["--plain", "-t", &path, "cat"], b"").0, 255);
    // A list and forwards without a service need no session.
    assert!(ran(&f, &[&path], b"").1.starts_with("both\nkilled\ncat\n"));
    let forward = d.place.at("app");
    let child = start(&f, &["-N", "-L", &format!("{forward}:both"), &path]);
    let ask = || {
        let mut all = String::new();
        let asked = UnixStream::connect(&forward).and_then(|mut app| app.read_to_string(&mut all));
        asked.map(|_| all)
    };
    until("it forwards", || ask().is_ok_and(|all| all == "out\nerr\n"));
    signals::send(&child, 15);
    assert_eq!(ended(child).0, 128 + 15);
    assert!(!d.log().contains("SESSION "), "{}", d.log());
}

#[test]
fn forwards_beside_a_service_are_streams_of_its_session() {
    let d = at_a_path(CONF);
    let (path, f, forward) = (d.place.at("fived"), Five::new(&d), d.place.at("app"));
    let mut child = start(&f, &["-q", "-L", &format!("{forward}:both"), &path, "ready"]);
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("an answer");
    for _ in 0..2 {
        let mut all = String::new();
        UnixStream::connect(&forward).expect("it listens").read_to_string(&mut all).expect("read");
        assert_eq!(all, "out\nerr\n");
    }
    assert_eq!(finish(child, b"x"), is(0, "x", ""));
    assert_eq!(d.log().matches("SESSION ").count(), 1, "{}", d.log());
}

#[test]
fn signals_of_five_end_the_service() {
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    for signal in [1, 2, 15, 9] {
        let mut child = start(&f, &[&path, "ready"]);
        child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("an answer");
        signals::send(&child, signal);
        assert_eq!(ended(child).0, 128 + signal);
        until("the service has ended", || d.services().is_empty());
    }
}

#[test]
fn a_session_that_breaks_or_that_there_is_no_room_for() {
    let d = at_a_path(&format!("max_sessions_per_source = 1\n{CONF}"));
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    let mut child = start(&f, &[&path, "ready"]);
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("an answer");
    // It is not taken for a server that has no sessions.
    let (status, out, err) = ran(&f, &[&path, "both"], b"");
    let busy = "MULTIPLEX was refused: Service busy: the server has as many sessions as it takes, try again later";
    assert_eq!((status, out, err), is(255, "", &format!("five: {path}: {busy}\n")));
    assert_eq!(ran(&f, &["--plain", &path, "both"], b"").0, 0);
    kill(Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill");
    let (status, out, err) = finish(child, b"");
    assert!(status == 255 && out.is_empty(), "{out}");
    assert!(err.starts_with(&format!("five: {path}: ")), "{err}");
    d.wait_log("WARN net: pid ");
    until("there is room again", || ran(&f, &[&path, "both"], b"").0 == 3);
}

#[test]
fn a_server_that_ends_cuts_the_call_off() {
    // Its input has ended before, or has not.
    for ends in [true, false] {
        let d = at_a_path(&format!("shutdown_timeout = 1\n{CONF}"));
        let (path, f) = (d.place.at("fived"), Five::new(&d));
        let mut child = start(&f, &[&path, "late"]);
        let input = child.stdin.take().filter(|_| !ends);
        child.stdout.as_mut().expect("piped").read_exact(&mut [0; 5]).expect("an answer");
        d.signal(Signal::SIGTERM);
        let expected = format!("five: {path}: the server ended the session\n");
        assert_eq!(ended(child), is(255, "", &expected), "ends: {ends}");
        drop(input);
    }
}

#[test]
fn a_terminal_is_asked_for_as_with_a_host() {
    if !installed("script") {
        return skip("needs script");
    }
    let d = at_a_path(CONF);
    let (path, f) = (d.place.at("fived"), Five::new(&d));
    let (status, shown) = f.on_terminal(&[&path, "what"], "");
    assert!(status == 7 && shown.starts_with("/dev/pts/"), "{status} {shown}");
    let (status, shown) = f.on_terminal(&["-T", &path, "what"], "");
    assert!(status == 7 && shown.starts_with("not a tty"), "{status} {shown}");
    let (status, shown) = f.on_terminal(&[&path, "none"], "");
    assert!(status == 8 && shown.starts_with("not a tty"), "{status} {shown}");
    let (status, out, _) = ran(&f, &["-t", &path, "what"], b"");
    assert!(status == 7 && out.starts_with("/dev/pts/"), "{status} {out}");
    assert!(ran(&f, &[&path, "what"], b"").1.starts_with("not a tty"));
}

/// A tcpmux server that knows one service, `upper`, and no built-ins, as inetd behind a relay; what
/// was asked for, and how it answers anything else.
fn elsewhere(path: &str, otherwise: &'static str) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixListener::bind(path).expect("bind");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let its = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut from = BufReader::new(client.try_clone().expect("a descriptor"));
            let (mut name, mut to) = (String::new(), client);
            let _ = from.read_line(&mut name);
            its.lock().expect("nobody has panicked").push(name.trim_end().to_string());
            if name != "upper\r\n" {
                // What was sent ahead is left unread.
                let _ = to.write_all(otherwise.as_bytes());
                continue;
            }
            let _ = to.write_all(b"+Go\r\n");
            let mut text = String::new();
            let _ = from.read_to_string(&mut text);
            let _ = to.write_all(text.to_uppercase().as_bytes());
        }
    });
    asked
}

#[test]
fn a_server_without_sessions_gets_the_plain_request() {
    let place = Place::new();
    let (path, f) = (place.at("inetd"), Five::at(&place, free_address()));
    let asked = elsewhere(&path, NOT_AVAILABLE);
    let take = || std::mem::take(&mut *asked.lock().expect("nobody has panicked"));
    // Nothing of the input is lost, and it is asked once, on another connection.
    assert_eq!(ran(&f, &[&path, "upper"], b"one\ntwo"), is(0, "ONE\nTWO", ""));
    assert_eq!(take(), ["MULTIPLEX", "upper"]);
    let much = "x".repeat(1_000_000);
    assert!(ran(&f, &["-t", &path, "upper"], much.as_bytes()).1 == much.to_uppercase());
    assert_eq!(ran(&f, &["-n", &path, "upper"], b"x"), is(0, "", ""));
    let (status, _, err) = ran(&f, &["-v", &path, "upper"], b"");
    assert!(status == 0 && err.contains("the server has no sessions"), "{err}");
    take();
    let expected = is(254, "", "five: lower: Service not available\n");
    assert_eq!(ran(&f, &[&path, "lower"], b""), expected);
    assert_eq!(take(), ["MULTIPLEX", "lower"]);
    // A virtual host that is not chosen would be another service.
    for words in [&["-H", "www", &path, "upper"][..], &["-H", "www", &path]] {
        let (status, out, err) = ran(&f, words, b"");
        assert_eq!((status, &*out), (255, ""));
        let expected = format!("five: {path}: this is not fived, it knows no MULTIPLEX: ");
        assert!(err.starts_with(&expected), "{err}");
        assert_eq!(take(), ["MULTIPLEX"]);
    }
    // Forwards beside the service are plain, too.
    let forward = place.at("app");
    let mut child = start(&f, &["-q", "-L", &format!("{forward}:upper"), &path, "upper"]);
    until("both are asked for", || asked.lock().expect("nobody has panicked").len() == 2);
    drop(child.stdin.as_mut().expect("piped").write_all(b"a"));
    let stdin = child.stdin.take();
    // This server has one client at a time.
    drop(stdin);
    assert_eq!(ended(child), is(0, "A", ""));
}

/// Who closes without a word may be fived itself, in need: a plain request would hide how the
/// service ended.
#[test]
fn only_a_refusal_makes_it_plain() {
    let place = Place::new();
    let f = Five::at(&place, free_address());
    for (n, answer, told) in [
        (
            1,
            "",
            "this is not fived, it ends the connection without a word: for xinetd use --plain, ",
        ),
        (2, "220 mail ready\r\n", "this is not fived, it says \"220 mail ready\"\n"),
        (3, "-Service busy\r\n", "MULTIPLEX was refused: Service busy: "),
        (4, "-go away\r\n", "MULTIPLEX was refused: go away\n"),
    ] {
        let path = place.at(&format!("server{n}"));
        let asked = elsewhere(&path, answer);
        let (status, out, err) = ran(&f, &[&path, "upper"], b"");
        assert_eq!((status, &*out), (255, ""), "{answer}");
        assert!(err.starts_with(&format!("five: {path}: {told}")), "{err}");
        assert_eq!(*asked.lock().expect("nobody has panicked"), ["MULTIPLEX"], "{answer}");
    }
}

/// The kernel tells when a server on this computer has gone, so one that says nothing for a while
/// is not taken for one behind a network that is down.
#[test]
fn a_server_that_is_slow_is_waited_for() {
    let place = Place::new();
    let (path, f) = (place.at("slow"), Five::at(&place, free_address()));
    let listener = UnixListener::bind(&path).expect("bind");
    std::thread::spawn(move || {
        for (n, mut client) in listener.incoming().flatten().enumerate() {
            if n > 0 {
                let _ = client.write_all(b"-go away\r\n");
                continue;
            }
            let _ = client.write_all(b"+ Success\r\n");
            std::thread::sleep(Duration::from_secs(6));
        }
    });
    let (status, out, err) = ran(&f, &["-v", &path, "upper"], b"");
    assert_eq!((status, &*out), (255, ""), "{err}");
    assert!(!err.contains("network"), "{err}");
}

/// Sessions that end before the server has taken the call: it is made again, with the input that
/// was read already, once.
#[test]
fn input_of_a_call_that_is_made_again_is_sent_once() {
    let place = Place::new();
    let (path, f) = (place.at("ends"), Five::at(&place, free_address()));
    let listener = UnixListener::bind(&path).expect("bind");
    let (to, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten().take(4) {
            let _ = client.write_all(b"+ Success\r\n");
            let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
            // The input, and what else it sends at once; it keeps its input open.
            let _ = client.set_read_timeout(Some(TIMEOUT));
            while let Ok(n @ 1..) = client.read(&mut bytes) {
                all.extend_from_slice(&bytes[..n]);
                if all.ends_with(b"one\n") {
                    let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
                }
            }
            let _ = to.send(String::from_utf8_lossy(&all).into_owned());
        }
    });
    let mut child = start(&f, &[&path, "upper"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one\n").expect("written");
    for n in 1..=4 {
        let all = seen.recv_timeout(TIMEOUT).expect("a session");
        assert_eq!(all.matches("one\n").count(), 1, "session {n}: {all:?}");
    }
    kill_and_wait(&mut child);
}

/// A server that ends a service's stream in order, but does not say how the service ended: it may
/// have been cut off.
#[test]
fn a_service_without_a_status_is_no_success() {
    let place = Place::new();
    let (path, f) = (place.at("cut"), Five::at(&place, free_address()));
    let listener = UnixListener::bind(&path).expect("bind");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.set_read_timeout(Some(TIMEOUT));
            let mut line = [0; b"MULTIPLEX\r\n".len()];
            client.read_exact(&mut line).expect("the request");
            client.write_all(b"+ Success\r\n").expect("the answer");
            let mut raw = yamux_raw::Raw(client);
            let stream = loop {
                match raw.next() {
                    Frame { flags, stream, .. } if flags & SYN != 0 => break stream,
                    _ => {}
                }
            };
            // Its input ends before, or never.
            if raw.0.set_read_timeout(Some(Duration::from_millis(500))).is_ok() {
                while matches!(raw.try_next(), Ok(Some(frame)) if frame.flags & FIN == 0) {}
            }
            raw.frame(WINDOW, ACK, stream, 0);
            raw.data(FIN, stream, b"+ Success\r\n+Go\r\n\0\0\0\x03out");
            while let Ok(Some(_)) = raw.try_next() {}
        }
    });
    let why = "the server ended the service's stream without its exit status";
    let expected = format!("five: {path}: {why}\n");
    assert_eq!(ran(&f, &["-n", "-x", &path, "x"], b""), is(255, "out", &expected));
    let mut child = start(&f, &["-x", &path, "x"]);
    let stdin = child.stdin.take();
    assert_eq!(ended(child), is(255, "out", &expected));
    drop(stdin);
}

/// A session without a connection keeps the answer about the host for as long as it is lost, and by
/// then the server may have closed the stream: nothing was requested in it.
#[test]
fn an_answer_about_the_host_that_comes_too_late_is_asked_for_again() {
    let place = Place::new();
    let (path, f) = (place.at("late"), Five::at(&place, free_address()));
    let listener = UnixListener::bind(&path).expect("bind");
    let server = std::thread::spawn(move || {
        let mut client = listener.accept().expect("accept").0;
        client.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        let mut line = [0; b"MULTIPLEX\r\n".len()];
        client.read_exact(&mut line).expect("the request");
        client.write_all(b"+ Success\r\n").expect("the answer");
        let mut raw = yamux_raw::Raw(client);
        const CHOSEN: &str = "+ Success\r\nWhich VHOST? Host www selected\r\n";
        for (asks, answer) in [
            ("HOST\r\nwww\r\n", CHOSEN.to_string()),
            ("HOST\r\nwww\r\nRUN\r\nx\r\n", format!("{CHOSEN}+ Success\r\n-Service busy\r\n")),
        ] {
            let frame = loop {
                match raw.next() {
                    frame if frame.flags & SYN != 0 => break frame,
                    _ => {}
                }
            };
            let mut text = frame.payload;
            while text.len() < asks.len() {
                text.append(&mut raw.next().payload);
            }
            assert_eq!(String::from_utf8_lossy(&text), asks);
            raw.frame(WINDOW, ACK, frame.stream, 0).data(FIN, frame.stream, answer);
        }
        while let Ok(Some(_)) = raw.try_next() {}
    });
    let expected = is(254, "", "five: x: Service busy\n");
    assert_eq!(ran(&f, &["-x", "-H", "www", &path, "x"], b""), expected);
    server.join().expect("the server");
}
