//! five: what a person types, and what comes of it.

mod support;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;
use support::five::{ended, finish, piped};
use support::{Daemon, Five, Place, TIMEOUT, free_address, kill_and_wait, until};

const CONF: &str = "
date   stream tcp nowait @USER@ /bin/date date
cat    stream tcp nowait @USER@ /bin/cat  cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
busy   stream tcp nowait @USER@ /bin/cat  cat
       instances = 1
       banner_fail = @DIR@/later
[main]
which  stream tcp nowait @USER@ /bin/echo echo main
[*]
every  stream tcp nowait @USER@ /bin/sh sh -c \"echo $FIVED_HOST.\"
";

const H: &str = "127.0.0.1";

fn daemon() -> Daemon {
    Daemon::with(CONF).file("later", "come back later\n").start()
}

/// Exit status and standard error of five with nothing but these words.
fn output_of(f: &Five, words: &[&str]) -> (i32, String) {
    let (code, out, err) = ended(
        f.command(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("five"),
    );
    assert_eq!(out, "");
    (code, err)
}

#[test]
fn a_host_lists_its_services() {
    let d = daemon();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H]), (0, "date\ncat\nhello\nbusy\nevery\n".into(), String::new()));
    assert_eq!(f.run(&["-H", "main", H]), (0, "which\nevery\n".into(), String::new()));
    assert_eq!(f.run(&["--plain", H]).1, "date\ncat\nhello\nbusy\nevery\n");
}

#[test]
fn a_service_is_a_pipe_with_both_its_ends() {
    let d = daemon();
    let f = Five::new(&d);
    let big: Vec<u8> =
        (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).map(|b| b % 64 + 32).collect();
    for more in [&[][..], &["-x"], &["--plain"]] {
        let (code, out, err) = f.run_with(&[more, &["-q", H, "cat"]].concat(), &big);
        assert_eq!((code, err.as_str()), (0, ""), "{more:?}");
        assert!(out.as_bytes() == big, "{more:?}: {} bytes of {}", out.len(), big.len());
    }
}

/// Asks, waits for the answer, and asks again: whoever copies into a pipe must not hold it while it
/// waits for the next bytes.
#[test]
fn questions_and_answers_take_turns() {
    let d = daemon();
    let f = Five::new(&d);
    for more in [&[][..], &["-x"], &["--plain"]] {
        let mut call = f.start(&[more, &["-q", H, "cat"]].concat());
        let (mut to, mut from) =
            (call.stdin.take().expect("piped"), call.stdout.take().expect("piped"));
        let (answered, answers) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut part = [0; 64];
            // As ssh does it: who waits in poll(2) comes to read(2) after whoever wrote has gone
            // on.
            while poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
                .is_ok()
            {
                let Ok(n @ 1..) = from.read(&mut part) else { break };
                let _ = answered.send(part[..n].to_vec());
            }
        });
        for n in 0..50 {
            let question = format!("question {n}\n").into_bytes();
            to.write_all(&question).expect("written");
            let mut answer = Vec::new();
            while answer.len() < question.len() {
                match answers.recv_timeout(TIMEOUT) {
                    Ok(part) => answer.extend(part),
                    Err(e) => {
                        let _ = call.kill();
                        panic!("{more:?}: question {n}: {e}");
                    }
                }
            }
            assert_eq!(answer, question, "{more:?}");
        }
        drop(to);
        assert_eq!(ended(call).0, 0, "{more:?}");
    }
}

#[test]
fn files_are_handed_over_as_they_are() {
    let d = daemon();
    let f = Five::new(&d);
    let (from, to) = (d.place.write("from", &"x".repeat(1_000_000), 0o644), d.place.at("to"));
    for _ in 0..2 {
        let out = std::fs::File::create(&to).expect("file");
        let mut c = f.command(&["--accept-new", "-p", &f.port(), H, "cat"]);
        let c = c
            .stdin(std::fs::File::open(&from).expect("file"))
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .expect("five");
        assert_eq!(ended(c).0, 0);
        assert_eq!(std::fs::read(&to).expect("file").len(), 1_000_000);
    }
}

#[test]
fn no_input_is_an_end_at_once() {
    let d = daemon();
    let f = Five::new(&d);
    // Its standard input stays open all the time.
    let child = f.start(&["-n", H, "cat"]);
    let mut child = child;
    let stdin = child.stdin.take();
    assert_eq!(ended(child).0, 0);
    drop(stdin);
}

#[test]
fn a_service_that_ends_does_not_wait_for_input() {
    let d = daemon();
    let f = Five::new(&d);
    for more in [&[][..], &["--plain"]] {
        let mut child = f.start(&[more, &["-q", H, "hello"]].concat());
        let stdin = child.stdin.take();
        let (code, out, _) = ended(child);
        assert_eq!((code, out.as_str()), (0, "hello\n"), "{more:?}");
        drop(stdin);
    }
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let d = daemon();
    let f = Five::new(&d);
    let hint =
        "five: nosuch: Service not available (nobody is logged in: -l USER may change that)\n";
    assert_eq!(f.run(&["-q", H, "date"]).0, 0);
    assert_eq!(f.run(&[H, "nosuch"]), (254, String::new(), hint.into()));
    assert_eq!(f.run(&["-q", H, "nosuch"]), (254, String::new(), String::new()));
    let holds = f.start(&["-q", H, "busy"]);
    d.service("cat");
    assert_eq!(
        f.run(&[H, "busy"]),
        (254, String::new(), "five: busy: Service busy\ncome back later\n".into())
    );
    assert_eq!(
        f.run(&["--plain", H, "busy"]),
        (254, String::new(), "five: busy: Service busy\ncome back later\n".into())
    );
    assert_eq!(finish(holds, b"").0, 0);
    assert_eq!(
        f.run(&["-H", "other", H, "date"]),
        (254, String::new(), "five: date: no virtual host other there\n".into())
    );
    // Who asks for the list has named no service.
    let text = format!("five: {H}:{}: no virtual host other there\n", f.port());
    assert_eq!(f.run(&["-H", "other", H]), (254, String::new(), text));
}

#[test]
fn virtual_hosts_are_a_calls_own() {
    let d = daemon();
    let f = Five::new(&d);
    for (words, text) in [
        (&["-H", "MAIN", H, "every"][..], "main.\n"),
        (&[H, "every"], ".\n"),
        (&["-H", "main", H, "which"], "main\n"),
    ] {
        assert_eq!(f.run(&[&["-q"], words].concat()), (0, text.into(), String::new()));
    }
    assert_eq!(f.sessions().len(), 1);
}

/// What the session's own host has of that name is another service.
#[test]
fn a_virtual_host_that_is_not_there_starts_nothing() {
    let d = daemon();
    let f = Five::new(&d);
    let missing = |words: &[&str]| {
        let (code, out, err) = f.run(&[words, &["-H", "other", H, "every"]].concat());
        assert_eq!((code, &*out), (254, ""), "{err}");
        assert!(err.ends_with("five: every: no virtual host other there\n"), "{err}");
    };
    // As the session's first call, and later; twice, as it is asked for again.
    for _ in 0..2 {
        missing(&[]);
    }
    assert_eq!(f.sessions().len(), 1);
    missing(&["-x"]);
    // One that is there has been asked for before.
    for _ in 0..2 {
        assert_eq!(f.run(&["-H", "main", H, "every"]), (0, "main.\n".into(), String::new()));
    }
    missing(&[]);
    d.wait_logs("EXIT ", 2);
    assert_eq!(d.log().matches("START ").count(), 2, "{}", d.log());
}

#[test]
fn nobody_reads_the_output() {
    let d = daemon();
    let f = Five::new(&d);
    for more in ["-q", "--plain"] {
        let mut child = f.start(&[more, H, "cat"]);
        let mut stdin = child.stdin.take().expect("piped");
        let mut out = child.stdout.take().expect("piped");
        let writer = thread::spawn(move || while stdin.write_all(&[b'y'; 65536]).is_ok() {});
        out.read_exact(&mut [0; 10]).expect("some of it");
        drop(out);
        // As of any program: SIGPIPE.
        assert_eq!(ended(child).0, 128 + 13, "{more}");
        writer.join().expect("writer");
    }
}

#[test]
fn each_way_of_not_connecting_has_its_message() {
    let place = Place::new();
    let free = free_address();
    let f = Five::at(&place, free);
    let port = f.port();
    let (code, err) = output_of(&f, &["-p", &port, H, "date"]);
    assert_eq!(code, 255);
    assert_eq!(
        err,
        format!(
            "five: {H}:{port}: no connection (Connection refused): is fived running there? give its port with -p\n"
        )
    );
    let (code, err) = output_of(&f, &["no-such-host.invalid", "date"]);
    assert!(code == 255 && err.starts_with("five: no-such-host.invalid: no such host ("), "{err}");
    let (code, err) = output_of(&f, &["-p", &port, H, &"x".repeat(256)]);
    assert!(
        code == 255
            && err.contains(
                "x\": expected the name of a service, 1 to 255 bytes without control characters\n"
            ),
        "{err}"
    );
    let (code, err) = output_of(&f, &["-p", "0", H]);
    assert!(
        code == 255
            && err.starts_with("five: -p 0: expected a number from 1 to 65535\nusage: five "),
        "{err}"
    );
}

/// A server that answers everybody with this and reads what comes until it has seen a line.
fn server(answer: &'static [u8]) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let serves = listener.try_clone().expect("clone");
    thread::spawn(move || {
        for mut client in serves.incoming().flatten() {
            let mut byte = [0];
            while client.read(&mut byte).is_ok_and(|n| n == 1) && byte[0] != b'\n' {}
            let _ = client.write_all(answer);
        }
    });
    listener
}

#[test]
fn a_server_that_is_not_fived_is_reported() {
    let place = Place::new();
    for (answer, text) in [
        (
            &b"SSH-2.0-x\r\n"[..],
            "this is not fived, it says \"SSH-2.0-x\": give fived's port with -p",
        ),
        (
            b"",
            "this is not fived, it ends the connection without a word: give fived's port with -p; for xinetd use --plain",
        ),
        (
            b"-Service busy\r\n",
            "SSL was refused: Service busy: the server has as many sessions as it takes, try again later",
        ),
        (
            b"-Service not available\r\n",
            "a tcpmux server that speaks no SSL (-Service not available): use --plain, which does not encrypt",
        ),
    ] {
        let l = server(answer);
        let f = Five::at(&place, l.local_addr().expect("address"));
        let port = f.port();
        assert_eq!(
            output_of(&f, &["-p", &port, H, "date"]),
            (255, format!("five: {H}:{port}: {text}\n"))
        );
    }
}

#[test]
fn xinetds_nul_is_not_the_services() {
    let place = Place::new();
    for (answer, text) in
        [(&b"+Go\r\n\0hello"[..], "hello"), (b"+Go\r\n\0\0", "\0"), (b"+\r\nhello", "hello")]
    {
        let l = server(answer);
        let f = Five::at(&place, l.local_addr().expect("address"));
        let child = f.start(&["--plain", H, "x"]);
        assert_eq!(finish(child, b""), (0, text.into(), String::new()));
    }
    let l = server(b"-Service name not found\r\n\0");
    let f = Five::at(&place, l.local_addr().expect("address"));
    let not_found =
        |name: &str| (254, String::new(), format!("five: {name}: Service name not found\n"));
    assert_eq!(f.run(&["--plain", H, "x"]), not_found("x"));
    // It knows no HELP.
    assert_eq!(f.run(&["--plain", H]), not_found("HELP"));
}

#[test]
fn the_configuration_says_what_is_usual() {
    let d = daemon();
    let port = d.address().port();
    let f = Five::new(&d).config(&format!("[127.0.0.1]\nport = {port}\nhost = main\n"));
    assert_eq!(output_of(&f, &["-n", "--accept-new", "-q", H, "date"]).0, 254);
    let c = f.command(&["-n", H, "which"]).stdout(Stdio::piped()).spawn().expect("five");
    assert_eq!(ended(c).1, "main\n");
    let f = Five::new(&d).config("[127.0.0.1]\nport = none\ncolour = red\n");
    let path = f.config_path("config");
    let text = format!(
        "five: {path}:2: none: expected a number from 1 to 65535\nfive: {path}:3: colour: expected one of the keys hostname, user, port, identity, host, \
         pin, persist, forward, offer, mptcp or via\n"
    );
    assert_eq!(output_of(&f, &[H, "which"]), (255, text));
}

#[test]
fn the_default_virtual_host_can_be_typed() {
    let d = daemon();
    let f = Five::new(&d).config("host = main\n");
    assert_eq!(f.run(&["-q", "-n", H, "every"]).1, "main.\n");
    assert_eq!(f.run(&["-q", "-n", "-H", "", H, "every"]).1, ".\n");
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let d = daemon();
    let f = Five::new(&d).config("host = main\n");
    let path = f.config_path("config");
    let change =
        |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
    let refused = |mode: u32| {
        let why = format!("others can write it (mode {mode:04o}): run `chmod go-w` on it");
        assert_eq!(output_of(&f, &[H, "which"]), (255, format!("five: {path}: {why}\n")));
    };
    change(0o646);
    refused(0o646);
    if support::root() {
        // A group of a user's own may: where each user has one, editors make files so.
        change(0o664);
        assert_eq!(f.run(&["-q", "-n", H, "every"]).1, "main.\n");
        std::os::unix::fs::chown(&path, None, Some(65_534)).expect("group");
        refused(0o664);
    }
    change(0o644);
    if support::root() {
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("owner");
        let why = "it belongs to another user (uid 65534), who could change what it says";
        assert_eq!(output_of(&f, &[H, "which"]), (255, format!("five: {path}: {why}\n")));
    }
    // Where somebody wants none, as with ssh(1).
    std::fs::remove_file(&path).expect("config");
    std::os::unix::fs::symlink("/dev/null", &path).expect("link");
    assert_eq!(f.run(&["-q", "-n", H, "every"]).1, ".\n");
}

#[test]
fn a_call_that_is_killed_ends_its_service() {
    let d = daemon();
    let f = Five::new(&d);
    let mut child = f.start(&[H, "cat"]);
    d.service("cat");
    kill_and_wait(&mut child);
    until("the service ends", || d.services().is_empty());
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn a_full_output_is_reported() {
    let d = daemon();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    for words in [&[H, "hello"][..], &["--plain", H, "hello"], &[H], &["-V"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut c = f.command(&[&["-p", &f.port()], words].concat());
        let (code, _, err) = ended(
            c.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().expect("five"),
        );
        assert!(
            code == 255 && err.contains("standard output: No space left on device"),
            "{code} {err}"
        );
    }
}

#[test]
fn a_word_that_is_no_text_is_not_taken_for_another() {
    let d = daemon();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let mut word = d.place.at("new").into_bytes();
    word.extend_from_slice(b"\xe9:cat");
    let mut c = f.command(&["-p", &f.port(), H, "-O", "forward", "-L"]);
    c.arg(OsStr::from_bytes(&word)).stdin(Stdio::null());
    let (code, _, err) = ended(piped(&mut c));
    assert_eq!(code, 255);
    assert!(err.contains("\u{fffd}:cat: expected UTF-8"), "{err}");
    let names = std::fs::read_dir(d.place.at("")).expect("directory");
    assert!(names.flatten().all(|n| !n.file_name().to_string_lossy().starts_with("new")));
}
