//! SPEC 7.2: five's sessions outlive their connections.

#[path = "support/cutter.rs"]
mod cutter;
#[path = "support/dialogue.rs"]
mod dialogue;
mod support;

use cutter::{Cut, Cutter};
use dialogue::Dialogue;
use std::io::{Read, Write};
use std::thread;
use support::five::{ended, finish};
use support::*;

/// `demopass`
const PASSWD: &str = "demo:$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.\n";
const CONF: &str = "
passwords = @DIR@/passwd
cat    stream tcp nowait @USER@ /bin/cat cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
who    stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER\"'
";
const H: &str = "127.0.0.1";

/// A daemon, and a way to it that can be cut.
fn world(settings: &str) -> (Daemon, Cutter) {
    let d = Daemon::with(&format!("{settings}{CONF}")).file("passwd", PASSWD).start();
    let cutter = Cutter::new(d.address());
    (d, cutter)
}

/// A person at the other end of the way.
fn five(d: &Daemon, cutter: &Cutter) -> Five {
    Five::at(&d.place, cutter.address)
}

/// A call of a service that sends back what it is sent.
fn start(f: &Five, words: &[&str]) -> Dialogue {
    let mut dialogue = Dialogue::new(f.start(words));
    dialogue.echo("ready");
    dialogue
}

/// `state=` of the session.
fn state(f: &Five) -> String {
    let (code, out, err) = f.run(&["-O", "check", H]);
    assert_eq!(code, 0, "{out}{err}");
    let state = out.split_whitespace().find_map(|w| w.strip_prefix("state=")).expect("a state");
    state.into()
}

#[test]
fn any_number_of_cuts_loses_and_doubles_nothing() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    let mut keeper = start(&f, &["-q", H, "cat"]);
    cutter.cut_every(1_000_000);
    cutter.cut(Cut::Reset);
    // Each in both directions at once.
    thread::scope(|scope| {
        for seed in 0..3u64 {
            let f = &f;
            scope.spawn(move || {
                let mut n = seed;
                let bytes: Vec<u8> = std::iter::repeat_with(|| {
                    n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (n >> 33) as u8
                })
                .take(6_000_000)
                .collect();
                let mut child = f.start(&["-q", H, "cat"]);
                let mut to = child.stdin.take().expect("piped");
                let mut from = child.stdout.take().expect("piped");
                let sent = bytes.clone();
                scope.spawn(move || to.write_all(&sent).expect("written"));
                let mut back = Vec::new();
                from.read_to_end(&mut back).expect("read");
                assert!(child.wait().expect("wait").success());
                assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
            });
        }
    });
    assert!(cutter.cuts() > 15, "{} cuts", cutter.cuts());
    keeper.echo("still here");
    assert_eq!(d.log().matches("MULTIPLEX").count(), 0);
}

#[test]
fn a_connection_that_is_silent_is_given_up() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    let mut dialogue = start(&f, &["-q", H, "cat"]);
    cutter.cut(Cut::Stall);
    dialogue.echo("over another one");
    assert_eq!(f.run(&["-q", H, "hello"]), (0, "hello\n".into(), String::new()));
    assert_eq!(d.wait_logs("RESUME session=", 1).len(), 1);
}

#[test]
fn it_is_away_and_comes_back_when_it_is_told_to() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    let mut dialogue = start(&f, &["-v", H, "cat"]);
    cutter.dark(true);
    cutter.cut(Cut::Reset);
    until("it is noticed", || state(&f) == "away");
    let (code, _, err) = f.run(&["-O", "resume", H]);
    assert_eq!(code, 255);
    assert!(err.starts_with(&format!("five: {H}:{}: ", f.port())) && err.len() > 40, "{err}");
    dialogue.send("into the dark");
    let (pid, before) = (f.holder(), proc::ticks(f.holder()));
    thread::sleep(std::time::Duration::from_millis(1000));
    assert!(proc::ticks(pid) - before <= 20, "it turns without a reason");
    let mut waits = f.start(&["-q", H, "hello"]);
    cutter.dark(false);
    assert_eq!(f.run(&["-O", "resume", H]), (0, String::new(), String::new()));
    assert_eq!(state(&f), "up");
    dialogue.expect("into the dark");
    dialogue.echo("still here");
    drop(waits.stdin.take());
    assert_eq!(ended(waits), (0, "hello\n".into(), String::new()));
    drop(dialogue.child.stdin.take());
    let mut steps = String::new();
    dialogue.child.stderr.take().expect("piped").read_to_string(&mut steps).expect("read");
    assert!(steps.contains("five: the session has lost its connection ("), "{steps}");
    assert!(steps.contains("five: the session is resumed, after "), "{steps}");
    assert_eq!(f.run(&["-O", "resume", H]).0, 0, "it is up already");
}

#[test]
fn nobody_types_a_password_twice() {
    let (d, cutter) = world("");
    let asked = d.place.at("asked");
    let ask = d.place.write("ask", &format!("#!/bin/sh\necho x >>{asked}\necho demopass\n"), 0o755);
    let f = five(&d, &cutter).env("SSH_ASKPASS", &ask);
    let user = format!("demo@{H}");
    let mut dialogue = start(&f, &["-q", &user, "cat"]);
    for how in [Cut::Reset, Cut::Close] {
        cutter.cut(how);
        dialogue.echo("still here");
        assert_eq!(f.run(&["-q", &user, "who"]).1, "user=demo\n");
    }
    assert_eq!(std::fs::read_to_string(asked).expect("asked"), "x\n");
}

#[test]
fn a_server_that_keeps_no_sessions_is_used_as_before() {
    let (d, cutter) = world("resume_timeout = 0\n");
    let asked = d.place.at("asked");
    let ask = d.place.write("ask", &format!("#!/bin/sh\necho x >>{asked}\necho demopass\n"), 0o755);
    let f = five(&d, &cutter).env("SSH_ASKPASS", &ask);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let made = cutter.made();
    let user = format!("demo@{H}");
    let mut dialogue = start(&f, &["-q", &user, "cat"]);
    assert_eq!(cutter.made() - made, 2, "one connection more");
    assert_eq!(std::fs::read_to_string(asked).expect("asked"), "x\n", "and no question more");
    assert!(f.run(&["-O", "resume", &user]).2.contains("the server keeps no sessions that lose"));
    cutter.cut(Cut::Reset);
    let mut rest = String::new();
    dialogue.out.read_to_string(&mut rest).expect("the end");
    assert_eq!(dialogue.child.wait().expect("wait").code(), Some(255));
    assert_eq!(f.run(&["-q", &user, "who"]).1, "user=demo\n", "the next one is made");
}

#[test]
fn a_session_that_is_away_for_too_long_is_lost() {
    let (d, cutter) = world("resume_timeout_anonymous = 2\n");
    let f = five(&d, &cutter);
    let mut call = f.start(&[H, "cat"]);
    call.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
    call.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
    cutter.dark(true);
    cutter.cut(Cut::Reset);
    let (code, _, err) = finish(call, b"");
    assert_eq!(code, 255);
    let why = format!("five: {H}:{}: the session was lost: ", f.port());
    assert!(err.lines().any(|l| l.starts_with(&why) && l.ends_with("(2 s)")), "{err}");
    cutter.dark(false);
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn a_session_that_the_server_has_no_longer_is_lost_at_once() {
    let (d, cutter) = world("resume_timeout_anonymous = 1\n");
    let f = five(&d, &cutter);
    let mut call = f.start(&[H, "cat"]);
    call.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
    call.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
    // Only the server notices.
    let holder = nix::unistd::Pid::from_raw(f.holder());
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
    cutter.cut(Cut::Reset);
    d.wait_log("END session=2");
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGCONT).expect("continued");
    let (code, _, err) = finish(call, b"");
    assert_eq!(code, 255);
    let why = format!("five: {H}:{}: the session was lost: ", f.port());
    assert!(err.lines().any(|l| l.starts_with(&why)), "{err}");
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn a_session_goes_on_through_gates_too() {
    let last = Daemon::with(CONF).file("passwd", PASSWD).listen("127.0.0.13:0").start();
    let inner = Cutter::new(last.address());
    let gate =
        Daemon::with(&format!("inner stream tcp nowait @USER@ redirect {}\n", inner.address))
            .start();
    let outer = Cutter::new(gate.address());
    let f = Five::new(&last);
    let way = format!("{}/inner", outer.address);
    let mut dialogue = start(&f, &["-q", "-J", &way, "127.0.0.13", "cat"]);
    for cutter in [&inner, &outer, &inner] {
        cutter.cut(Cut::Reset);
        dialogue.echo("still here");
    }
    let port = outer.address.port().to_string();
    let mut exit = f.command(&["-q", "-p", &port, "-O", "exit", H]);
    assert!(exit.status().expect("five").success());
    dialogue.echo("the gate's session is made again");
}
