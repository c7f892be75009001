//! Whoever may list a directory can keep its lock, and a process that is to make a file there waits
//! for that, and then whoever lists it, or looks for a name that nobody has looked for lately.

#[path = "support/listed.rs"]
mod listed;
mod support;

use listed::Listed;
use nix::sys::signal::Signal;
use std::process::{Child, Command};
use support::*;

const HELLO: &str = "+Go\r\nhello\n";
const ROW: &str = "hello stream tcp nowait nobody /bin/echo echo hello\n";

/// Somebody who waits for the lock of a directory, as long as the other one has it.
struct Locked {
    listed: Option<Listed>,
    waits: Child,
}

impl Locked {
    fn new(d: &Daemon, directory: &str) -> Locked {
        let listed = Some(Listed::new(&d.place, directory));
        let waits = Command::new("mkdir").arg(format!("{directory}/x")).spawn().expect("mkdir");
        until("it waits", || proc::status(waits.id() as i32, "State").starts_with('D'));
        Locked { listed, waits }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.listed.take();
        let ended = self.waits.wait();
        assert!(ended.is_ok(), "{ended:?}");
    }
}

/// Everybody may list /proc, and a process that was just made is a name there.
#[test]
fn whoever_keeps_proc_locked_keeps_nobody_waiting_for_ever() {
    // The address sanitizer looks there itself, at the beginning of each process.
    if cfg!(asan) || !Listed::can_be() {
        return;
    }
    let conf = format!("{ROW}metrics stream tcp nowait nobody internal\n");
    // A /proc of its own, which concerns nobody else.
    let own = "mount -t proc proc /proc && exec \"$@\"";
    let d = Daemon::with(&conf).under(&["unshare", "-m", "sh", "-c", own, "sh"]).start();
    same(d.ask("hello\r\n"), HELLO);
    let _locked = Locked::new(&d, &format!("/proc/{}/root/proc", d.parent_pid()));
    // Those that are started meanwhile find nothing there, either: a network process, and the
    // helpers of a reload.
    assert!(d.reload(&conf).contains("services=2"));
    same(d.ask("hello\r\n"), HELLO);
    let before = d.net_pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), Signal::SIGKILL).expect("kill");
    until("another net serves", || matches!(d.nets()[..], [net] if net != before));
    same(d.ask("hello\r\n"), HELLO);
}

#[test]
fn whoever_keeps_a_directory_of_the_configuration_locked_keeps_nobody_waiting() {
    if !Listed::can_be() {
        return;
    }
    let conf = format!("{ROW}includedir @DIR@/rows\n");
    let d = Daemon::with(&conf);
    let rows = d.place.at("rows");
    std::fs::create_dir(&rows).expect("directory");
    let d = d.start();
    {
        let _locked = Locked::new(&d, &rows);
        assert!(d.reload(&conf).contains("refused"));
        d.wait_log("rows: the system has not answered in time");
        same(d.ask("hello\r\n"), HELLO);
    }
    assert!(d.reload(&conf).contains("services=1"));
}

#[test]
fn whoever_keeps_a_directory_of_certificates_or_passwords_locked_keeps_nobody_waiting() {
    if !Listed::can_be() {
        return;
    }
    let d = Daemon::with(ROW);
    let keys = d.place.at("keys");
    std::fs::create_dir(&keys).expect("directory");
    let d = d.start();
    let _locked = Locked::new(&d, &keys);
    // Each is a name that nobody has looked for.
    for (setting, outcome) in [
        ("certificate = @DIR@/keys/cert", "refused"),
        ("state_directory = @DIR@/keys", "refused"),
        ("passwords = @DIR@/keys/passwords", "services=1"),
        ("checkpassword = @DIR@/keys/check", "services=1"),
    ] {
        let own = format!(
            "{setting}\n{ROW}row stream tcp4 nowait nobody /bin/echo echo\n tls_port = 127.0.0.1:0\n"
        );
        let outcome = outcome.replace("=1", "=2");
        assert!(d.reload(&own).contains(&outcome), "{setting}");
        same(d.ask("hello\r\n"), HELLO);
    }
    let told = |what: &str| {
        d.log().contains(&format!("{}: the system has not answered in time", d.place.at(what)))
    };
    assert!(told("keys/cert") && told("keys/passwords") && told("keys/check"), "{}", d.log());
}

/// Who logs in says whose keys are looked for, and a user's directory is that user's own.
#[test]
fn whoever_keeps_a_directory_of_keys_locked_keeps_nobody_else_from_logging_in() {
    if !Listed::can_be() {
        return;
    }
    let d = Daemon::with(&format!("authorized_keys = @DIR@/%u/keys\n{ROW}"));
    for user in ["a", "b"] {
        std::fs::create_dir(d.place.at(user)).expect("directory");
    }
    let d = d.start();
    let locked = Locked::new(&d, &d.place.at("a"));
    let ask = |user: &str, from: &str| {
        let mut c = d.connect_from(from);
        c.send(format!("PUBKEY\r\n{user} AAAA\r\n"));
        c
    };
    let waiting = || {
        let is = |pid: &i32| {
            proc::try_status(*pid, "Name").is_some_and(|name| name == "fived-login")
                && proc::try_status(*pid, "State").is_some_and(|state| state.starts_with('D'))
        };
        proc::children(d.parent_pid()).iter().filter(|pid| is(pid)).count()
    };
    // As many as there are places for this work.
    let all: Vec<Client> = (0..64).map(|n| ask("a", ["127.0.0.1", "127.0.0.2"][n / 32])).collect();
    until("it keeps as many waiting as it may", || waiting() >= 8);
    for n in 3..30 {
        let mut other = ask("b", &format!("127.0.0.{n}"));
        let answer = String::from_utf8(other.half_close().read_all()).expect("text");
        assert!(answer.ends_with("- Authentication failed\r\n"), "{answer:?}");
    }
    assert_eq!(waiting(), 8);
    drop(locked);
    drop(all);
    until("all of them end", || waiting() == 0);
}

/// Everybody may list /dev, and as long as there is no syslog its name is looked for there.
#[test]
fn whoever_keeps_dev_locked_keeps_nobody_waiting_for_syslog() {
    if !Listed::can_be() {
        return;
    }
    let own = "mkdir @DIR@/dev; mount -t tmpfs tmpfs @DIR@/dev
        for f in null zero random urandom; do
            touch @DIR@/dev/$f; mount --bind /dev/$f @DIR@/dev/$f
        done
        mount --move @DIR@/dev /dev && exec \"$@\"";
    let d = Daemon::with(&format!("log_type = SYSLOG daemon\n{ROW}"));
    let d = d.under(&["unshare", "-m", "sh", "-c", own, "sh"]).start_unlogged();
    same(d.ask("hello\r\n"), HELLO);
    let _locked = Locked::new(&d, &format!("/proc/{}/root/dev", d.parent_pid()));
    (0..3).for_each(|_| same(d.ask("hello\r\n"), HELLO));
}
