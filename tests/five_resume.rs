//! five's sessions outlive their connections.

#[path = "support/cutter.rs"]
mod cutter;
#[path = "support/dialogue.rs"]
mod dialogue;
mod support;

use cutter::{Cut, Cutter};
use dialogue::Dialogue;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::thread;
use std::time::Duration;
use support::five::{ended, finish};
use support::*;

const CONF: &str = "
passwords = @DIR@/passwd
cat    stream tcp nowait @USER@ /bin/cat cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
who    stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER\"'
";
const H: &str = "127.0.0.1";

/// A daemon, and a way to it that can be cut.
fn world(settings: &str) -> (Daemon, Cutter) {
    let d =
        Daemon::with(&format!("{settings}{CONF}")).file("passwd", &passwords(&["demo"])).start();
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

/// How many cuts there are, how many bytes go in each direction meanwhile, and how many calls have
/// a part of them where there are many.
fn size() -> (u64, u64, u64) {
    match trial_size("cuts", 150, 500) as u64 {
        cuts @ 500.. => (cuts, 1 << 30, 100),
        cuts => (cuts, 20_000_000, 30),
    }
}

/// Bytes that look random; the same ones for the same seed.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self, to: &mut [u8]) {
        for part in to.chunks_mut(4) {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            part.copy_from_slice(&((self.0 >> 32) as u32).to_be_bytes()[..part.len()]);
        }
    }
}

/// Sends all of them, in pieces of which none is like the others.
fn send_all(mut to: ChildStdin, mut bytes: Bytes, mut left: u64) {
    let mut piece = vec![0; 65536];
    while left > 0 {
        let n = left.min(4 + bytes.0 % 16_380 * 4);
        let piece = &mut piece[..n as usize];
        bytes.next(piece);
        to.write_all(piece).expect("written");
        left -= n;
    }
}

/// Exactly these must come, then the end.
fn receive_all(mut from: ChildStdout, mut bytes: Bytes, all: u64) {
    let (mut came, mut wanted) = (vec![0; 65536], vec![0; 65536]);
    let mut at = 0;
    while at < all {
        let n = (all - at).min(65536) as usize;
        from.read_exact(&mut came[..n]).unwrap_or_else(|e| panic!("after {at} of {all}: {e}"));
        bytes.next(&mut wanted[..n]);
        assert!(came[..n] == wanted[..n], "other bytes, after {at} of {all}");
        at += n as u64;
    }
    assert_eq!(from.read(&mut came).expect("read"), 0, "more bytes than were sent");
}

/// So many calls at once, each in both directions, on a way that is cut again and again: no byte is
/// lost or doubled, and no call ends.
fn cut_again_and_again(calls: u64) {
    let (d, cutter) = world("max_streams_anonymous = 120\n");
    let f = five(&d, &cutter);
    let mut keeper = start(&f, &["-q", H, "cat"]);
    let (cuts, bytes, _) = size();
    cutter.delay(Duration::from_millis(20));
    cutter.cut_every(2 * bytes / cuts);
    cutter.cut(Cut::Reset);
    let all = bytes / calls / 4 * 4;
    thread::scope(|scope| {
        for seed in 0..calls {
            let f = &f;
            scope.spawn(move || {
                let mut child = f.start(&["-q", H, "cat"]);
                let to = child.stdin.take().expect("piped");
                let from = child.stdout.take().expect("piped");
                scope.spawn(move || send_all(to, Bytes(seed), all));
                receive_all(from, Bytes(seed), all);
                assert!(child.wait().expect("wait").success());
            });
        }
    });
    assert!(cutter.cuts() as u64 >= cuts / 2, "{} cuts", cutter.cuts());
    cutter.cut_every(0);
    keeper.echo("still here");
    assert_eq!(d.log().matches("MULTIPLEX").count(), 0);
    let (cuts, made) = (cutter.cuts(), cutter.made());
    let bytes = all * calls;
    trial(
        "cuts",
        format!("{cuts} cuts, {made} connections, {bytes} bytes each way, {calls} calls"),
    );
}

#[test]
fn any_number_of_cuts_loses_and_doubles_nothing() {
    cut_again_and_again(1);
}

#[test]
fn any_number_of_cuts_ends_no_stream_of_many() {
    cut_again_and_again(size().2);
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
    cutter.refuse_new(true);
    cutter.cut(Cut::Reset);
    until("it is noticed", || state(&f) == "away");
    let (code, _, err) = f.run(&["-O", "resume", H]);
    assert_eq!(code, 255);
    let place = format!("{H}:{}", f.port());
    assert!(err.starts_with(&format!("five: {place}: ")) && err.len() > 40, "{err}");
    assert_eq!(err.matches(&place).count(), 1, "{err}");
    dialogue.send("while it is away");
    let (pid, before) = (f.holder(), proc::ticks(f.holder()));
    thread::sleep(std::time::Duration::from_millis(1000));
    assert!(proc::ticks(pid) - before <= 20, "it turns without a reason");
    let mut waits = f.start(&["-q", H, "hello"]);
    cutter.refuse_new(false);
    assert_eq!(f.run(&["-O", "resume", H]), (0, String::new(), String::new()));
    assert_eq!(state(&f), "up");
    dialogue.expect("while it is away");
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
fn a_session_outlives_a_reload_after_which_the_server_makes_no_more() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    let mut dialogue = start(&f, &["-q", H, "cat"]);
    d.reload(&format!("resume_timeout = 0\n{CONF}"));
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
    cutter.cut(Cut::Reset);
    dialogue.echo("still here");
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n", "a new one");
}

#[test]
fn a_session_that_is_away_for_too_long_is_lost() {
    let (d, cutter) = world("resume_timeout_anonymous = 2\n");
    let f = five(&d, &cutter);
    let call = f.standing_call(&[]);
    cutter.refuse_new(true);
    cutter.cut(Cut::Reset);
    let (code, _, err) = finish(call, b"");
    assert_eq!(code, 255);
    let why = "the session was lost: away for longer than the server keeps it (2 s): ";
    let why = format!("five: {H}:{}: {why}", f.port());
    // The place is not said again.
    let its = |l: &str| l.strip_prefix(&why).is_some_and(|rest| !rest.contains(H));
    assert!(err.lines().any(its), "{err}");
    cutter.refuse_new(false);
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn a_session_that_the_server_has_no_longer_is_lost_at_once() {
    let (d, cutter) = world("resume_timeout_anonymous = 1\n");
    let f = five(&d, &cutter);
    let call = f.standing_call(&[]);
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
    let last =
        Daemon::with(CONF).file("passwd", &passwords(&["demo"])).listen("127.0.0.13:0").start();
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

/// Waits until a call has printed this; what it has printed since.
fn told(call: &mut Child, part: &str) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    let err = call.stderr.as_mut().expect("piped");
    while !text.contains(part) {
        assert_eq!(err.read(&mut byte).expect("read"), 1, "{text}");
        text.push(byte[0].into());
    }
    text
}

#[test]
fn a_call_that_waits_is_told_why_and_how_to_end_that() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    let _dialogue = start(&f, &["-q", H, "cat"]);
    cutter.refuse_new(true);
    cutter.cut(Cut::Reset);
    until("it is noticed", || state(&f) == "away");
    let mut call = f.start(&["-n", H, "hello"]);
    let told = told(&mut call, "\n");
    let expected = "waiting until the session can be resumed (five -O exit ends it): ";
    let (before, why) = told.split_once(expected).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(before, format!("five: {H}:{}: ", f.port()));
    assert!(why.len() > 10 && !why.contains(H), "{told}");
    cutter.refuse_new(false);
    assert_eq!(ended(call).1, "hello\n");
}

#[test]
fn calls_that_wait_for_the_same_are_one_message() {
    let (d, cutter) = world("");
    let f = five(&d, &cutter);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:hello"]);
    cutter.refuse_new(true);
    cutter.cut(Cut::Reset);
    until("it is noticed", || state(&f) == "away");
    let connect = |_| std::net::TcpStream::connect(addresses[0].as_str()).expect("connect");
    let apps: Vec<_> = (0..3).map(connect).collect();
    const WAITS: &str = "(five -O exit ends it)";
    let first = told(&mut child, WAITS);
    let calls = || f.run(&["-O", "list", H]).1.matches("service=hello").count();
    until("all have come", || calls() == 3);
    cutter.refuse_new(false);
    for mut app in apps {
        let mut all = String::new();
        app.read_to_string(&mut all).expect("answer");
        assert_eq!(all, "hello\n");
    }
    child.kill().expect("kill");
    let rest = ended(child).2;
    assert_eq!(rest.matches(WAITS).count(), 0, "{first}{rest}");
}

/// Nobody tries for minutes to come back to a server that somebody has ended, by Control-C too.
#[test]
fn a_server_that_ends_at_once_tells_its_sessions() {
    for signals in [&[Signal::SIGINT][..], &[Signal::SIGTERM, Signal::SIGTERM]] {
        let conf = format!("shutdown_timeout = 600\n{CONF}");
        let mut d = Daemon::with(&conf).file("passwd", &passwords(&["demo"])).start();
        let f = Five::new(&d);
        let call = f.standing_call(&[]);
        for signal in signals {
            d.signal(*signal);
            until("taken", || d.exited().is_some() || d.log().contains("stopping"));
        }
        assert_eq!(d.wait(), 0);
        let (code, _, err) = ended(call);
        assert_eq!(code, 255, "{err}");
        until("no holder waits for it", || f.sessions().is_empty());
    }
}

/// It is no server that was switched off: nobody waits for it without knowing that.
#[test]
fn a_server_that_comes_back_with_another_key_is_reported() {
    let at = free_address();
    let mut d =
        Daemon::with(CONF).file("passwd", &passwords(&["demo"])).listen(&at.to_string()).start();
    let f = Five::new(&d);
    let _dialogue = start(&f, &["-q", H, "cat"]);
    d.switch_off();
    until("it is noticed", || state(&f) == "away");
    // It hears first that there is no server, then what the server is.
    let mut call = f.start(&["-n", H, "hello"]);
    told(&mut call, "(five -O exit ends it): no connection (");
    let _other =
        Daemon::with(CONF).file("passwd", &passwords(&["demo"])).listen(&at.to_string()).start();
    told(&mut call, "HAS CHANGED");
    let mut quiet = f.start(&["-q", "-n", H, "hello"]);
    told(&mut quiet, "HAS CHANGED");
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    for call in [call, quiet] {
        let (code, out, err) = ended(call);
        assert_eq!((code, out.as_str()), (255, ""), "{err}");
    }
}

/// As a captive portal that comes and goes.
#[test]
fn a_warning_is_printed_once_for_each_call_that_waits() {
    let at = free_address();
    let started = |conf: &str| {
        Daemon::with(conf)
            .file("passwd", &passwords(&["demo"]))
            .stateless()
            .listen(&at.to_string())
            .start()
    };
    let place = Place::new();
    let with_state = |name| format!("state_directory = {}\n{CONF}", place.at(name));
    let mut d = started(&with_state("meant"));
    let f = Five::new(&d);
    let _dialogue = start(&f, &["-q", H, "cat"]);
    d.switch_off();
    let mut other = started(&with_state("other"));
    let mut first = f.start(&["-n", H, "hello"]);
    told(&mut first, "HAS CHANGED");
    other.switch_off();
    until("it is gone", || f.run(&["-O", "resume", H]).2.contains("no connection ("));
    // What this one is told the first one would be told, too.
    let mut second = f.start(&["-n", H, "hello"]);
    told(&mut second, "(five -O exit ends it): no connection (");
    let _other = started(&with_state("other"));
    told(&mut second, "HAS CHANGED");
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    let (_, _, err) = ended(first);
    assert!(!err.contains("HAS CHANGED"), "{err}");
}

#[test]
fn a_server_that_keeps_no_sessions_any_more_has_lost_this_one() {
    let at = free_address();
    let mut d =
        Daemon::with(CONF).file("passwd", &passwords(&["demo"])).listen(&at.to_string()).start();
    let f = Five::new(&d);
    let call = f.standing_call(&[]);
    d.switch_off();
    // With the same key.
    let conf = format!("state_directory = {}\nresume_timeout = 0\n{CONF}", d.place.at("state"));
    let again = Daemon::with(&conf)
        .file("passwd", &passwords(&["demo"]))
        .stateless()
        .listen(&at.to_string());
    let _again = again.start();
    let (code, _, err) = finish(call, b"");
    assert_eq!(code, 255);
    assert!(err.contains("the session was lost: the server has it no longer"), "{err}");
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}
