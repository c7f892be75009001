//! DESIGN 1: the private keys are in a process of their own, which signs handshakes and does
//! nothing else; nobody waits for it but handshakes.

mod support;
#[path = "support/tls.rs"]
mod tls;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tls::Tls;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("kill");
}

fn over_tls(d: &Daemon) {
    let mut c = Tls::start(d.connect().0, "nobody.example");
    c.send(b"hello\r\n");
    same(c.read_all(), HELLO);
}

/// A handshake in a thread of its own.
fn in_background(d: &Daemon) -> std::thread::JoinHandle<()> {
    let c = d.connect();
    std::thread::spawn(move || {
        let mut c = Tls::start(c.0, "nobody.example");
        c.send(b"hello\r\n");
        same(c.read_all(), HELLO);
    })
}

/// A pair made by openssl, in @DIR@.
fn make(d: &Place, name: &str, kind: &str) {
    let script = format!(
        "cd {} && openssl req -x509 -newkey {kind} -nodes -days 9 -subj /CN={name} -keyout {name}.key -out {name}.crt 2>/dev/null && chmod 600 {name}.key && cat {name}.crt {name}.key > {name}.pem && chmod 600 {name}.pem",
        d.at("")
    );
    assert!(
        std::process::Command::new("sh").args(["-c", &script]).status().expect("openssl").success()
    );
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:prime256v1";

/// Else systemd, which ends the parent alone (`KillMode=process`), logs that a process remains.
#[test]
fn it_has_ended_before_fived_has() {
    for _ in 0..5 {
        let mut d = Daemon::with(CONF).start();
        let keys = d.keys_pid();
        d.signal(Signal::SIGTERM);
        assert_eq!(d.wait(), 0);
        assert!(!proc::alive(keys));
    }
}

#[test]
fn it_has_no_rights_and_nothing_but_its_channel() {
    let d = Daemon::with(CONF).start();
    over_tls(&d);
    let keys = d.keys_pid();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(proc::status(keys, set), "0000000000000000", "{set}");
    }
    assert_eq!(proc::status(keys, "Seccomp"), "2");
    assert_eq!(proc::status(keys, "NoNewPrivs"), "1");
    assert_eq!(
        proc::status(keys, "Groups"),
        if root() { String::new() } else { proc::status(d.parent_pid(), "Groups") }
    );
    assert_eq!(proc::limit(keys, "Max core file size"), ("0".into(), "0".into()));
    if root() {
        assert_eq!(proc::status(keys, "CapBnd"), "0000000000000000");
        let seen: Vec<_> =
            std::fs::read_dir(format!("/proc/{keys}/root/")).expect("its root").collect();
        assert!(seen.is_empty(), "{seen:?}");
        let open: Vec<_> = proc::descriptors(keys).into_iter().filter(|(n, _)| *n > 2).collect();
        assert!(open.len() == 1 && open[0].1.starts_with("socket:"), "{open:?}");
        assert!(proc::environment(keys).is_empty(), "{:?}", proc::environment(keys));
    }
    // The parent's other threads wait for the process that closes what net has handed over, and
    // reap.
    let threads = proc::thread_names(d.parent_pid());
    let others = ["fived-foreign", "fived-reaps"];
    assert!(threads.iter().skip(1).all(|name| others.contains(&&name[..])), "{threads:?}");
}

#[test]
fn one_that_stands_still_holds_up_nobody_and_is_replaced() {
    let d = Daemon::with(CONF).start();
    let old = d.keys_pid();
    signal(old, Signal::SIGSTOP);
    let waiting: Vec<_> = (0..20).map(|_| in_background(&d)).collect();
    d.wait_logs("SESSION ", 20);
    // All of them wait for the process that is stopped; plain services do not.
    for _ in 0..20 {
        same(d.ask("hello\r\n"), HELLO);
    }
    assert_eq!(d.keys(), [old], "nothing was waited for: it was not given up yet");
    d.wait_log("WARN keys: pid");
    waiting.into_iter().for_each(|w| w.join().expect("the handshake goes on"));
    assert_ne!(d.keys_pid(), old);
    over_tls(&d);
}

#[test]
fn what_a_dead_one_was_asked_another_signs() {
    let d = Daemon::with(CONF).start();
    for n in 1..=3 {
        let old = d.keys_pid();
        signal(old, Signal::SIGSTOP);
        let waiting = in_background(&d);
        d.wait_logs("SESSION ", n);
        signal(old, Signal::SIGKILL);
        waiting.join().expect("the handshake goes on");
        until("another", || d.keys() != [old]);
    }
}

#[test]
fn one_that_dies_again_and_again_is_still_replaced() {
    let d = Daemon::with(CONF).start();
    for _ in 0..8 {
        let old = d.keys_pid();
        signal(old, Signal::SIGKILL);
        until("another", || d.keys().iter().any(|k| *k != old));
    }
    over_tls(&d);
    assert!(proc::ticks(d.parent_pid()) < 200, "it does not spin");
}

#[test]
fn each_table_has_its_own_and_it_goes_with_the_last_session() {
    let d = Daemon::with(CONF).start();
    let old = d.keys_pid();
    let mut session = Tls::start(d.connect().0, "nobody.example");
    session.send(b"cat\r\nx");
    session.expect(b"+Go\r\nx");
    d.reload(CONF);
    until("one for each table", || d.keys().len() == 2 && d.keys().contains(&old));
    over_tls(&d);
    session.send(b"still here");
    session.expect(b"still here");
    drop(session);
    until("the old one goes", || d.keys().len() == 1 && !d.keys().contains(&old));
    over_tls(&d);
}

#[test]
fn a_large_rsa_key_delays_no_other_order() {
    if !installed("openssl") {
        return skip("openssl is not installed");
    }
    let b = Daemon::with(&format!("certificate = @DIR@/large.crt\nkey = @DIR@/large.key\n{CONF}"));
    make(&b.place, "large", "rsa:4096");
    let d = b.start();
    let handshakes: Vec<_> = (0..16).map(|_| in_background(&d)).collect();
    for _ in 0..16 {
        same(d.ask("hello\r\n"), HELLO);
    }
    handshakes.into_iter().for_each(|h| h.join().expect("handshake"));
}

fn holds(memory: &[Vec<u8>], bytes: &[u8]) -> bool {
    memory.iter().any(|m| m.windows(bytes.len()).any(|w| w == bytes))
}

#[test]
fn the_parent_has_no_key_in_its_memory() {
    if !installed("openssl") || !root() {
        return skip("needs openssl and root");
    }
    let conf = format!(
        "certificate = @DIR@/a.crt\nkey = @DIR@/a.key\n{CONF}[both.example]\ncertificate = @DIR@/b.pem\n"
    );
    let b = Daemon::with(&conf);
    make(&b.place, "a", P256);
    make(&b.place, "b", P256);
    let dir = b.place.at("");
    let d = b.start();
    over_tls(&d);
    d.reload(&conf);
    over_tls(&d);
    let memory = proc::memory(d.parent_pid());
    let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).expect("file");
    for name in ["a", "b"] {
        let sh = |script: String| {
            std::process::Command::new("sh").args(["-c", &script]).output().expect("openssl").stdout
        };
        let certificate = sh(format!("openssl x509 -in {dir}/{name}.crt -outform der"));
        assert!(
            certificate.len() > 100 && holds(&memory, &certificate),
            "the test can see: the certificate is there"
        );
        let der = sh(format!("openssl ec -in {dir}/{name}.key -outform der 2>/dev/null"));
        // SEC 1: a sequence, version 1, 32 bytes of the private number.
        let number = &der[7..39];
        assert!(!holds(&memory, number), "{name}: the private number, as DER has it");
        let backwards: Vec<u8> = number.iter().rev().copied().collect();
        assert!(!holds(&memory, &backwards), "{name}: the private number, as a processor has it");
        let text = read(&format!("{name}.key"));
        let line = text.lines().nth(1).expect("base64");
        // The first bytes of all keys of this kind are the same.
        assert!(!holds(&memory, &line.as_bytes()[line.len() - 16..]), "{name}: its file");
    }
}
