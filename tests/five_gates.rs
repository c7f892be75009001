//! five through other servers (-J, `via`): each of these fiveds is at an address of its own, and of
//! the last one the caller knows no more than its name.

mod support;
#[path = "support/upstream.rs"]
mod upstream;
use std::io::{Read, Write};
use support::five::{finish, piped};
use support::*;

const LAST: &str = "
passwords = @DIR@/passwd
who  stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER\"'
cat  stream tcp nowait @USER@ /bin/cat cat
";

/// Two gates, and the server that is reached through both.
struct World {
    last: Daemon,
    second: Daemon,
    first: Daemon,
}

impl World {
    fn new() -> World {
        let last =
            Daemon::with(LAST).file("passwd", &passwords(&["demo"])).listen("127.0.0.13:0").start();
        let second = gate("127.0.0.12", &last);
        let first = gate("127.0.0.11", &second);
        World { last, second, first }
    }

    /// A person who knows the gates as servers, and is beside the last one.
    fn five(&self) -> Five {
        Five::new(&self.last)
    }

    /// -J's word for this daemon.
    fn hop(d: &Daemon) -> String {
        format!("{}/inner", d.address())
    }

    fn way(&self) -> String {
        format!("{},{}", World::hop(&self.first), World::hop(&self.second))
    }
}

fn gate(address: &str, to: &Daemon) -> Daemon {
    Daemon::with(&format!("inner stream tcp nowait @USER@ redirect {}\n", to.address()))
        .listen(&format!("{address}:0"))
        .start()
}

/// How many connections came to the gate, and how many went through it. The first one went twice:
/// the key after it was not known yet.
fn passed(d: &Daemon) -> (usize, usize) {
    d.wait_logs("START service=inner", 2);
    let of = |what| d.log().matches(what).count();
    (of("SESSION from="), of("START service=inner"))
}

const H: &str = "127.0.0.13";

#[test]
fn a_session_two_gates_away_is_held_and_so_is_each_hop() {
    let w = World::new();
    let (f, way) = (w.five(), w.way());
    // The way is part of what names a session.
    let (code, out, err) = f.run(&["-q", "-J", &way, H, "who"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "user=\n", ""));
    assert_eq!(f.run(&["-O", "check", H]).0, 255, "that is the direct one");
    let (code, out, _) = f.run(&["-J", &way, "-O", "check", H]);
    assert_eq!(code, 0);
    let place = w.last.address();
    assert!(out.starts_with(&format!("session={place} via={way} pid=")), "{out}");
    assert_eq!(f.sessions().len(), 3, "one each");
    let before = [&w.first, &w.second].map(passed);
    // It is used again; it can be left without ending the gates' sessions.
    let mut call = f.start(&["-q", "-J", &way, H, "cat"]);
    call.stdin.as_mut().expect("piped").write_all(b"one").expect("written");
    let mut answer = [0; 3];
    call.stdout.as_mut().expect("piped").read_exact(&mut answer).expect("an answer");
    assert_eq!([&w.first, &w.second].map(passed), before);
    assert_eq!(finish(call, b""), (0, String::new(), String::new()));
    assert_eq!(f.run(&["-J", &way, "-O", "exit", H]).0, 0);
    assert_eq!(f.sessions().len(), 2, "the gates' sessions stay");
}

#[test]
fn trust_and_login_are_between_the_two_ends() {
    let w = World::new();
    let f = w.five();
    // The askpass program's answer is the last server's password; the gates are asked nothing.
    let ask = w.last.place.write("ask", "#!/bin/sh\necho demopass\n", 0o755);
    let f = f.env("SSH_ASKPASS", &ask);
    let (code, out, err) = f.run(&["-q", "-J", &w.way(), &format!("demo@{H}"), "who"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "user=demo\n", ""));
    w.last.wait_log("user=demo");
    assert!(!w.first.log().contains("demo"));
    // Each server's key is known by its own name.
    let known = std::fs::read_to_string(f.config_path("known_hosts")).expect("known_hosts");
    for d in [&w.first, &w.second, &w.last] {
        let line = d.wait_log("made ");
        let key = line.rsplit(' ').next().expect("a key");
        assert!(known.contains(&format!("{} {key}\n", d.address())), "{known}");
    }
    // A gate that leads elsewhere is found out.
    let wrong = gate("127.0.0.14", &w.second);
    let (code, out, err) = f.run(&["-J", &World::hop(&wrong), H, "who"]);
    assert_eq!((code, out.as_str()), (255, ""));
    assert!(err.contains(&format!("THE KEY OF {} HAS CHANGED", w.last.address())), "{err}");
}

#[test]
fn the_configuration_says_the_way_and_the_command_line_another() {
    let w = World::new();
    let f = w.five().config(&format!("[far]\nhostname = {H}\nvia = {}\n", w.way()));
    assert_eq!(f.run(&["-q", "far", "who"]).1, "user=\n");
    let before = passed(&w.first);
    assert!(before.1 > 0, "it leads through the gate");
    assert_eq!(f.run(&["-q", "-J", "none", "far", "who"]).0, 0);
    assert_eq!(passed(&w.first), before);
    assert_eq!(
        f.run(&["-q", "-O", "check", "-J", "none", "far"]).0,
        0,
        "the direct one stands beside it"
    );
    assert_eq!(f.sessions().len(), 4);
}

#[test]
fn a_gate_that_leads_nowhere_says_so() {
    let w = World::new();
    let f = w.five();
    let at = w.first.address();
    let (code, out, err) = f.run(&["-J", &format!("{at}/nope"), H, "who"]);
    let why = format!(
        "five: {at}: no way through its service nope: Service not available (nobody is logged in: -l USER may change that)\n"
    );
    assert_eq!((code, out.as_str()), (255, ""));
    assert!(err.ends_with(&why), "{err}");
    let dead =
        Daemon::with(&format!("inner stream tcp nowait @USER@ redirect {}\n", upstream::nobody()))
            .start();
    let (code, out, err) = f.run(&["-J", &format!("{}/inner", dead.address()), H, "who"]);
    assert_eq!((code, out.as_str()), (255, ""));
    assert!(err.contains("no way through its service inner: Service failed"), "{err}");
}

#[test]
fn who_waits_for_a_stream_of_a_gate_hears_why() {
    let last =
        Daemon::with(LAST).file("passwd", &passwords(&["demo"])).listen("127.0.0.13:0").start();
    let inner = format!("inner stream tcp nowait @USER@ redirect {}", last.address());
    let first = Daemon::with(&format!("max_streams_anonymous = 1\n{LAST}{inner}\n"))
        .listen("127.0.0.11:0")
        .start();
    let (f, g) = (Five::new(&last), Five::at(&last.place, first.address()));
    let held = g.standing_call(&[]);
    let file = last.place.at("said");
    let into = format!("exec \"$0\" \"$@\" 2>{file}");
    let words = ["-n", "-J", &World::hop(&first), H, "who"];
    let call = piped(&mut f.command_by("sh", &["-c", &into], &words));
    let said = || std::fs::read_to_string(&file).unwrap_or_default();
    let why = format!(
        "five: {}: the server takes no more streams: waiting for one to end",
        first.address()
    );
    until("it says why", || said().contains(&why));
    assert_eq!(finish(held, b"").0, 0);
    assert_eq!(finish(call, b"").1, "user=\n");
}
