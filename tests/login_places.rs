//! Who waits for whom at a login. Nobody keeps others from logging in by saying nothing, and no try
//! hangs for ever.

mod support;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

const ROW: &str = "who stream tcp nowait @USER@ /bin/sh sh -c 'echo user=$FIVED_USER'\n";
const ASKED: &str = "+ Success\r\nEnter Username: Enter Password: ";
const YES: &str = "+ Success\r\nEnter Username: Enter Password: Authentication as demo successful\r\n+Go\r\nuser=demo\n";

/// So many clients that have said a name, and now say nothing.
fn idle(d: &Daemon, n: usize) -> Vec<Client> {
    let dialogue = |_| {
        let mut c = d.connect();
        c.send("AUTH\r\ndemo\r\n").expect(ASKED);
        c
    };
    (0..n).map(dialogue).collect()
}

fn login_from(d: &Daemon, source: &str) {
    let mut c = d.connect_from(source);
    c.send("AUTH\ndemo\ndemopass\nwho\n").half_close();
    same(c.read_all(), YES);
}

#[test]
fn idle_dialogues_keep_no_place_to_hash_in() {
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\n{ROW}"))
        .file("passwd", &passwords(&["demo"]))
        .start();
    let mut idle = idle(&d, 20);
    login_from(&d, "127.0.0.2");
    login_from(&d, "127.0.0.1");
    // They can go on, too.
    let mut last = idle.pop().expect("one");
    last.send("demopass\r\nwho\r\n")
        .expect("Authentication as demo successful\r\n+Go\r\nuser=demo\n");
}

/// A good line for PUBKEY, or one that is answered by a result all the same: that a key is looked
/// at is what counts here.
fn key_is_looked_at(d: &Daemon, source: &str) {
    let mut c = d.connect_from(source);
    c.send("PUBKEY\r\ndemo AAAA\r\n").half_close();
    let answer = String::from_utf8(c.read_all()).expect("text");
    assert!(answer.ends_with("- Authentication failed\r\n"), "{answer:?}");
    d.wait_log(&format!("LOGIN user=demo method=pubkey result=bad-signature from={source}"));
}

#[test]
fn idle_dialogues_of_checkpassword_keep_no_place() {
    let script = "#!/bin/sh\nx=$(tr '\\000' '|' <&3)\n[ \"$x\" = 'demo|demopass||' ]\n";
    let conf = format!("checkpassword = @DIR@/check\nmax_sessions_per_source = 200\n{ROW}");
    let d = Daemon::with(&conf).file("check", script).start();
    let _idle = idle(&d, 70);
    key_is_looked_at(&d, "127.0.0.2");
    login_from(&d, "127.0.0.3");
}

/// Sends a password at once; how many of these are tried is told by the first that is refused.
fn tries(d: &Daemon, name: &str, most: usize) -> Vec<Client> {
    let mut all = Vec::new();
    while all.len() < most {
        let mut c = d.connect();
        let mut first = [0; 2];
        c.send(format!("AUTH\r\n{name}\r\nx\r\n"));
        std::io::Read::read_exact(&mut c.0, &mut first).expect("an answer");
        if &first == b"- " {
            same(c.read_all(), "Try again later (1 s)\r\n");
            break;
        }
        c.expect(&ASKED[2..]);
        all.push(c);
    }
    all
}

/// Programs that hang take the places of their source alone.
#[test]
fn programs_that_hang_keep_only_their_source_waiting() {
    let script = "#!/bin/sh\nx=$(tr '\\000' '|' <&3)\ncase $x in 'demo|demopass||') exit 0;; 'hang|'*) : >>@DIR@/hangs; exec sleep 1000;; esac\nexit 1\n";
    let conf = format!("checkpassword = @DIR@/check\nmax_sessions_per_source = 200\n{ROW}");
    let d = Daemon::with(&conf).file("check", script).start();
    // Some run, some wait; whoever is one too many is told so before anything is asked.
    let all = tries(&d, "hang", 60);
    assert!((16 + 32..60).contains(&all.len()), "{} were asked", all.len());
    // A stream of a session is told the same.
    let mut mux = d.connect();
    mux.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut mux = yamux_raw::Raw(mux.0);
    mux.data(yamux_raw::SYN | yamux_raw::FIN, 1, "AUTH\r\n");
    same(mux.stream(1).0, "- Try again later (1 s)\r\n");
    login_from(&d, "127.0.0.3");
    key_is_looked_at(&d, "127.0.0.2");
}

/// Else a source could have as many passwords tried in spite of its penalty as may wait.
#[test]
fn tries_that_wait_are_not_made_once_their_source_has_a_penalty() {
    let script = "#!/bin/sh\necho >>@DIR@/tried\nread x <@DIR@/gate\nexit 1\n";
    let conf = format!("checkpassword = @DIR@/check\nmax_sessions_per_source = 200\n{ROW}");
    let b = Daemon::with(&conf).file("check", script);
    let gate = b.place.at("gate");
    nix::unistd::mkfifo(&*gate, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("mkfifo");
    let mut gate = File::options().read(true).write(true).open(gate).expect("open");
    let d = b.start();
    let all = tries(&d, "demo", 60);
    let tried = || read(&d.place.at("tried")).lines().count();
    until("as many run as may", || tried() == 16);
    gate.write_all(&[b'\n'; 16]).expect("write");
    const FAILED: &str = "- Authentication failed\r\n";
    let answer = |mut c: Client| String::from_utf8(c.read_any_of(FAILED.len())).expect("text");
    let (failed, later): (Vec<_>, Vec<_>) = all.into_iter().map(answer).partition(|a| a == FAILED);
    assert!(failed.len() == 16 && later.len() >= 32, "{failed:?} {later:?}");
    let is_told = |a: &String| a.starts_with("- Try again later (") && !a.contains("(1 s)");
    assert!(later.iter().all(is_told), "{later:?}");
    assert_eq!(tried(), 16);
}

#[test]
fn a_try_that_hangs_is_ended_with_what_it_has_started() {
    let script = "#!/bin/sh\necho $$ >@DIR@/hangs\nexec sleep 1000\n";
    let conf = format!("checkpassword = @DIR@/check\nlogin_timeout = 6\n{ROW}");
    let d = Daemon::with(&conf).file("check", script).start();
    let mut c = d.connect();
    c.send("AUTH\r\ndemo\r\nx\r\n").expect(ASKED).expect("- Authentication failed\r\n");
    d.wait_log("LOGIN user=demo method=password result=timeout from=127.0.0.1");
    let pid = std::fs::read_to_string(d.place.at("hangs"))
        .expect("it ran")
        .trim()
        .parse()
        .expect("a number");
    until("the program has ended", || !proc::alive(pid));
    assert!(!d.log().contains("PENALTY"), "{}", d.log());
}

/// PAM's own files and modules, in a mount namespace of fived's. None: not here.
fn pam(lines: &str, check: &str) -> Option<Daemon> {
    pam_with("", lines, check)
}

fn pam_with(settings: &str, lines: &str, check: &str) -> Option<Daemon> {
    pam_built(settings, lines, |b| drop(b.place.write("check", check, 0o755)))
}

/// `prepare` writes what `lines` name.
fn pam_built(settings: &str, lines: &str, prepare: impl Fn(&Builder)) -> Option<Daemon> {
    let modules = |e: &std::fs::DirEntry| e.path().join("security/pam_exec.so").exists();
    if !(root()
        && std::fs::read_dir("/usr/lib").is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| modules(&e)))))
    {
        skip("needs root, and the modules of PAM");
        return None;
    }
    let mount = "mount --bind @DIR@/pam.d /etc/pam.d && exec \"$0\" \"$@\"";
    let conf = format!("pam = fived\nmax_sessions_per_source = 300\n{settings}{ROW}");
    let b = Daemon::with(&conf).file("module.c", include_str!("support/pam_module.c"));
    b.place.write("pam.d/fived", lines, 0o644);
    prepare(&b);
    Some(b.under(&["unshare", "-m", "sh", "-c", mount]).start())
}

/// The same, with a module of the tests' own, whose argument is `does` in the phase `auth`, and
/// `then` in the phase `account`.
fn own_module(settings: &str, does: &str, then: &str) -> Option<Daemon> {
    let library = ["/lib", "/usr/lib"].iter().flat_map(std::fs::read_dir).flatten().flatten();
    let library = library.map(|e| e.path().join("libpam.so.0")).find(|l| l.exists());
    let (true, Some(library)) = (installed("cc"), library) else {
        skip("needs cc, and the library of PAM");
        return None;
    };
    let lines =
        format!("auth required @DIR@/module {does}\naccount required @DIR@/module {then}\n");
    pam_built(settings, &lines, |b| {
        let out = Command::new("cc")
            .args(["-shared", "-fPIC", "-o", &b.place.at("module")])
            .args([&b.place.at("module.c"), library.to_str().expect("a path")])
            .output()
            .expect("cc");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    })
}

/// A module may decide that the user is another one than the client has named. The client is not
/// logged in as the user whom it named, nor as the other.
#[test]
fn whom_pam_takes_for_another_user_is_not_logged_in() {
    for (does, then) in [("renames", ""), ("", "renames")] {
        let Some(d) = own_module("", does, then) else { return };
        let mut c = d.connect();
        c.send("AUTH\r\ndemo\r\ndemopass\r\n").expect(ASKED).expect("- Authentication failed\r\n");
        d.wait_log("LOGIN user=demo method=password result=no");
    }
}

/// What a module has left behind does not keep the client waiting, even if it has a copy of all
/// that the login process had.
#[test]
fn a_process_that_a_module_of_pam_leaves_behind_delays_no_answer() {
    let Some(d) = own_module("", "leaves", "") else { return };
    let before = Instant::now();
    login_from(&d, "127.0.0.1");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}

/// Only the login process itself says that a login succeeds.
#[test]
fn a_module_of_pam_that_ends_the_process_logs_nobody_in() {
    let Some(d) = own_module("", "ends", "") else { return };
    let mut c = d.connect();
    c.send("AUTH\r\ndemo\r\ndemopass\r\n").expect(ASKED).expect("- Authentication failed\r\n");
    d.wait_log("LOGIN user=demo method=password result=later");
}

#[test]
fn idle_dialogues_of_pam_keep_nobody_waiting() {
    let check = "#!/bin/sh\n[ $PAM_TYPE = auth ] || exit 0\n[ \"$(tr -d '\\000')\" = demopass ]\n";
    let exec = "required pam_exec.so quiet expose_authtok @DIR@/check\n";
    let Some(d) = pam(&format!("auth {exec}account {exec}"), check) else { return };
    let mut all = idle(&d, 70);
    key_is_looked_at(&d, "127.0.0.2");
    login_from(&d, "127.0.0.3");
    login_from(&d, "127.0.0.1");
    // The oldest made room, and are told no more than anybody who failed; the youngest go on.
    let mut last = all.pop().expect("one");
    last.send("demopass\r\nwho\r\n")
        .expect("Authentication as demo successful\r\n+Go\r\nuser=demo\n");
    all[0].send("demopass\r\n").expect("- Authentication failed\r\n");
    d.wait_log("LOGIN user=demo method=password result=later from=127.0.0.1");
    // Whoever goes without a word has failed nothing.
    drop(all);
    d.wait_logs("LOGIN user=demo method=password result=later from=127.0.0.1", 69);
    assert!(!d.log().contains("PENALTY from=127.0.0.1"), "{}", d.log());
}

/// Whatever ends fived: no process of it is left that waits for a module.
#[test]
fn modules_of_pam_that_hang_end_with_fived() {
    for (signal, status) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 0), (Signal::SIGKILL, 137)] {
        let Some(mut d) = own_module("shutdown_timeout = 600\n", "hangs", "") else { return };
        let mut c = d.connect();
        c.send("AUTH\r\ndemo\r\ndemopass\r\n").expect(ASKED);
        let all = || proc::descendants(d.parent_pid());
        let hangs = |p: &i32| proc::try_status(*p, "Name").is_some_and(|name| name == "hangs");
        until("it hangs", || all().iter().any(hangs));
        let all = all();
        d.signal(signal);
        drop(c);
        assert_eq!(d.wait(), status);
        until("all of fived is gone", || all.iter().all(|p| !proc::alive(*p)));
    }
}

/// A module that never returns is ended at the deadline with what it has started. Meanwhile others
/// log in, by a password and by a key; and then its source can, too.
#[test]
fn modules_of_pam_that_hang_are_ended_and_nobody_waits_for_them() {
    let check = "#!/bin/sh\n[ $PAM_TYPE = auth ] || exit 0\ncase $(tr -d '\\000') in demopass) exit 0;; hang) echo $$ >>@DIR@/hangs; exec sleep 1000;; esac\nexit 1\n";
    let exec = "required pam_exec.so quiet expose_authtok @DIR@/check\n";
    let Some(d) = pam_with("login_timeout = 12\n", &format!("auth {exec}account {exec}"), check)
    else {
        return;
    };
    let mut hang: Vec<Client> = (0..20)
        .map(|_| {
            let mut c = d.connect();
            c.send("AUTH\r\ndemo\r\nhang\r\n").expect(ASKED);
            c
        })
        .collect();
    let hung = || std::fs::read_to_string(d.place.at("hangs")).unwrap_or_default();
    until("all hang", || hung().lines().count() == hang.len());
    key_is_looked_at(&d, "127.0.0.2");
    login_from(&d, "127.0.0.3");
    for c in &mut hang {
        c.expect("- Authentication failed\r\n");
    }
    for pid in hung().lines().map(|n| n.parse().expect("a number")) {
        until("the program has ended", || !proc::alive(pid));
    }
    d.wait_log("LOGIN user=demo method=password result=timeout from=127.0.0.1");
    until("its source has its places back", || {
        let mut c = d.connect();
        c.send("AUTH\ndemo\ndemopass\nwho\n").half_close();
        c.read_all() == YES.as_bytes()
    });
}

/// Whoever asks the parent for anything waits for those that it starts in one turn.
#[test]
fn tries_are_started_a_few_at_a_time() {
    if !installed("strace") {
        return skip("needs strace");
    }
    let d = Daemon::with("checkpassword = /bin/sleep 1\n").start();
    let calls = Calls::of_parent(&d, &["-e", "trace=clone,epoll_wait"]);
    let sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let mut all: Vec<Client> =
        (0..48).map(|n| d.connect_from(sources[n % sources.len()])).collect();
    for c in &mut all {
        c.send("AUTH\r\ndemo\r\nword\r\n");
    }
    d.wait_logs("LOGIN user=demo", all.len());
    let calls = calls.end();
    let started = |turn: &str| turn.matches("clone(").count();
    let most = calls.split("epoll_wait(").map(started).max().expect("a turn");
    assert!((1..=8).contains(&most), "{most} in one turn");
}
