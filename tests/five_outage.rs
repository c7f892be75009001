//! five while the network is away, and while its computer sleeps: two computers, as network
//! namespaces with a link between them.
//!
//! `FIVED_TRIAL_DARK`: how many seconds it is dark, with the usual settings. Without it: some
//! seconds, and a `keepalive` as much shorter.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;
use support::{Daemon, Five, installed, root, skip};

const CONF: &str = "
cat    stream tcp nowait @USER@ /bin/cat cat
ready  stream tcp nowait @USER@ /bin/sh  sh -c \"echo ready; exec cat\"
zeros  stream tcp nowait @USER@ /bin/sh  sh -c \"echo ready; while dd if=/dev/zero bs=1000 count=20 2>/dev/null; do sleep 0.1; done\"
";
/// The server's address on the link.
const H: &str = "10.77.0.1";

/// How long it is dark, and is that a long trial?
fn dark() -> (Duration, bool) {
    let long = std::env::var("FIVED_TRIAL_DARK").ok().and_then(|n| n.parse().ok());
    (Duration::from_secs(long.unwrap_or(4)), long.is_some())
}

fn sh(script: &str) {
    let out = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// Two computers: `{name}s` serves, `{name}c` calls.
struct Link(String);

impl Link {
    /// None: not here.
    fn new() -> Option<Link> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !(root() && installed("ip")) {
            skip("needs root and ip");
            return None;
        }
        let name = format!("fvd{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let link = Link(name.clone());
        sh(&format!(
            "ip netns add {name}s; ip netns add {name}c
             ip -n {name}s link add eth0 type veth peer name eth0 netns {name}c
             ip -n {name}s addr add {H}/24 dev eth0; ip -n {name}c addr add 10.77.0.2/24 dev eth0
             for n in {name}s {name}c; do ip -n $n link set lo up; ip -n $n link set eth0 up; done"
        ));
        Some(link)
    }

    fn set(&self, side: &str, to: &str) {
        sh(&format!("ip -n {}{side} link set eth0 {to}", self.0));
    }

    fn daemon(&self) -> Daemon {
        let keepalive = if dark().1 { "" } else { "keepalive = 4\n" };
        let d = Daemon::with(&format!("{keepalive}{CONF}")).listen(&format!("{H}:0"));
        d.under(&["ip", "netns", "exec", &format!("{}s", self.0)]).start()
    }

    /// five on the other computer.
    fn start(&self, f: &Five, words: &[&str]) -> Child {
        let mut c = f.program("ip");
        c.args([
            "netns",
            "exec",
            &format!("{}c", self.0),
            "setsid",
            env!("CARGO_BIN_EXE_five"),
            "--accept-new",
            "-p",
            &f.port(),
        ]);
        c.args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("five")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = Command::new("sh")
            .args(["-c", &format!("ip netns del {0}s; ip netns del {0}c", self.0)])
            .status();
    }
}

/// A service that talks. As long as it does, its session lives: no other one has its stream.
struct Talk(Child, BufReader<std::process::ChildStdout>);

impl Talk {
    fn start(l: &Link, f: &Five, service: &str) -> Talk {
        let mut child = l.start(f, &["-q", H, service]);
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut talk = Talk(child, out);
        assert_eq!(talk.line(), "ready\n");
        talk
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        line
    }

    fn is_alive(&mut self) {
        self.0.stdin.as_mut().expect("piped").write_all(b"still here\n").expect("written");
        assert_eq!(self.line(), "still here\n");
    }

    fn flows(&mut self) {
        let mut part = vec![0; 1_000_000];
        // More than was in any buffer.
        self.1.read_exact(&mut part).expect("more of it");
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// The link is down at this side while one service sends, one is written to, and a call is made.
fn link_down_at(side: &str) {
    let Some(l) = Link::new() else { return };
    let d = l.daemon();
    let f = Five::at(&d.place, d.address());
    let (mut silent, mut sends) = (Talk::start(&l, &f, "ready"), Talk::start(&l, &f, "zeros"));
    l.set(side, "down");
    silent.0.stdin.as_mut().expect("piped").write_all(b"into the dark\n").expect("written");
    let mut call = l.start(&f, &[H, "cat"]);
    let mut said = BufReader::new(call.stderr.take().expect("piped"));
    call.stdin.take().expect("piped").write_all(b"patience").expect("written");
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert!(line.ends_with(": no answer: waiting until the network is back\n"), "{line}");
    sleep(dark().0);
    l.set(side, "up");
    assert_eq!(silent.line(), "into the dark\n");
    silent.is_alive();
    sends.flows();
    let out = call.wait_with_output().expect("five");
    assert_eq!(
        (out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()),
        (Some(0), "patience")
    );
}

#[test]
fn a_link_that_is_down_at_the_server_is_a_pause() {
    link_down_at("s");
}

#[test]
fn a_link_that_is_down_at_the_client_is_a_pause() {
    link_down_at("c");
}

/// The lid is closed: the holder stands still, and so does the network.
#[test]
fn a_computer_that_slept_goes_on() {
    let Some(l) = Link::new() else { return };
    let d = l.daemon();
    let f = Five::at(&d.place, d.address());
    let mut silent = Talk::start(&l, &f, "ready");
    let holder = Pid::from_raw(f.holder());
    l.set("c", "down");
    kill(holder, Signal::SIGSTOP).expect("stopped");
    sleep(dark().0);
    kill(holder, Signal::SIGCONT).expect("continued");
    l.set("c", "up");
    silent.is_alive();
}
