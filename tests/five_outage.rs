//! five while the network is away, and while its computer sleeps: two computers, as network
//! namespaces with a link between them.
//!
//! In `make test` the network is away for a few seconds, and `keepalive` is as much shorter.

#[path = "support/computers.rs"]
mod computers;
#[path = "support/dialogue.rs"]
mod dialogue;
mod support;

use computers::Link;
use dialogue::Dialogue;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::thread::sleep;
use std::time::Duration;
use support::{Daemon, Five, trial, trial_size};

const CONF: &str = "
cat    stream tcp nowait @USER@ /bin/cat cat
ready  stream tcp nowait @USER@ /bin/sh  sh -c \"echo ready; exec cat\"
zeros  stream tcp nowait @USER@ /bin/sh  sh -c \"echo ready; while dd if=/dev/zero bs=1000 count=20 2>/dev/null; do sleep 0.1; done\"
";
/// The server's address on the link.
const H: &str = "10.77.0.1";

/// How long the network is away, and is that long beside the usual `keepalive`? The server keeps a lost
/// session of somebody who has not logged in for 60 s.
fn outage() -> (Duration, bool) {
    let seconds = trial_size("outage", 4, 45);
    (Duration::from_secs(seconds as u64), seconds > 30)
}

fn daemon(l: &Link) -> Daemon {
    let keepalive = if outage().1 { "" } else { "keepalive = 4\n" };
    l.serve(Daemon::with(&format!("{keepalive}{CONF}")).listen(&format!("{H}:0")))
}

/// A service that answers. As long as it runs, its session lives, since no other stream would
/// keep it.
fn start(l: &Link, f: &Five, service: &str) -> Dialogue {
    let mut dialogue = Dialogue::new(l.five(f, &["-q", H, service]));
    dialogue.expect("ready");
    dialogue
}

/// The link is down at this computer while one service sends, one is written to, and a call is
/// made.
fn link_down_at(computer: fn(&Link) -> &str) {
    let Some(l) = Link::new("10.77.0") else { return };
    let d = daemon(&l);
    let f = Five::at(&d.place, d.address());
    let (mut silent, mut sends) = (start(&l, &f, "ready"), start(&l, &f, "zeros"));
    l.set(computer(&l), "down");
    silent.send("while the link is down");
    let mut call = l.five(&f, &[H, "cat"]);
    let mut messages = BufReader::new(call.stderr.take().expect("piped"));
    call.stdin.take().expect("piped").write_all(b"a new call").expect("written");
    let mut line = String::new();
    messages.read_line(&mut line).expect("a line");
    assert!(line.contains(": waiting until the session can be resumed (five -O exit"), "{line}");
    sleep(outage().0);
    l.set(computer(&l), "up");
    silent.expect("while the link is down");
    silent.echo("still here");
    // More than was in any buffer.
    sends.out.read_exact(&mut vec![0; 1_000_000]).expect("more of it");
    let out = call.wait_with_output().expect("five");
    assert_eq!(
        (out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()),
        (Some(0), "a new call")
    );
    let (seconds, at) = (outage().0.as_secs(), computer(&l));
    trial("outage", format!("{seconds} s without a link at {at}, every stream goes on"));
}

#[test]
fn a_link_that_is_down_at_the_server_is_a_pause() {
    link_down_at(|l| &l.server);
}

#[test]
fn a_link_that_is_down_at_the_client_is_a_pause() {
    link_down_at(|l| &l.client);
}

/// The lid is closed: the holder stands still, and so does the network.
#[test]
fn a_computer_that_slept_goes_on() {
    let Some(l) = Link::new("10.77.0") else { return };
    let d = daemon(&l);
    let f = Five::at(&d.place, d.address());
    let mut silent = start(&l, &f, "ready");
    let holder = Pid::from_raw(f.holder());
    l.set(&l.client, "down");
    kill(holder, Signal::SIGSTOP).expect("stopped");
    sleep(outage().0);
    kill(holder, Signal::SIGCONT).expect("continued");
    l.set(&l.client, "up");
    silent.echo("still here");
    let seconds = outage().0.as_secs();
    trial("outage", format!("{seconds} s asleep without a link, the stream goes on"));
}
