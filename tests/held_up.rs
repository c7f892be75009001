//! A service that hangs on its way to exec, here in a working directory whose file system does not
//! answer, holds up nobody else.

#[path = "support/hung.rs"]
mod hung;
mod support;

use hung::{Hung, answers_after};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::*;

const STUCK: &str = "stuck\r\n";
const HELLO: &str = "+Go\r\nhello\n";

fn hung() -> Option<Hung> {
    if !root() {
        skip("needs root");
        return None;
    }
    let hung = Hung::new();
    if hung.is_none() {
        // No package brings it.
        eprintln!("SKIPPED: this kernel has no fuse");
    }
    hung
}

/// A row of this user, which hangs.
fn row(name: &str, user: &str, hung: &Hung) -> String {
    format!("{name} stream tcp nowait {user} /bin/true true\n directory = {}\n", hung.at)
}

const OTHER: &str = "hello stream tcp nowait root /bin/echo echo hello\n";

/// With `stuck`, which hangs, and `hello` of another user, which does not.
fn daemon(settings: &str) -> Option<(Daemon, Hung)> {
    let hung = hung()?;
    let stuck = row("stuck", "daemon", &hung);
    Some((Daemon::with(&format!("{settings}{OTHER}{stuck}")).start(), hung))
}

/// They hang until the test has seen what it is about: nobody can kill them.
#[test]
fn a_start_that_hangs_holds_up_no_other() {
    let Some((d, hung)) = daemon("") else { return };
    let asked = answers_after(&hung.device, None);
    let mut stuck: Vec<Client> = (0..12).map(|_| d.connect()).collect();
    for c in &mut stuck {
        c.send(STUCK);
        // Each is late when the next begins.
        (0..2).for_each(|_| same(d.ask("hello\r\n"), HELLO));
    }
    until("all hang", || asked.load(Relaxed) == stuck.len());
    same(d.ask(STUCK), BUSY);
    same(d.ask("hello\r\n"), HELLO);
    d.wait_log("REFUSE service=stuck host= from=127.0.0.1 reason=processes");
    // They hang until the file system is ended, although it is in use (EBUSY).
    let _ = umount2(&*hung.at, MntFlags::MNT_FORCE);
    stuck.iter_mut().for_each(|c| same(c.read_all(), FAILED));
    until("nothing is left of them", || d.services().is_empty());
}

/// Starts that had no processor do not hang: neither had fived.
#[test]
fn a_computer_that_stood_still_is_not_busy() {
    let once = || {
        let (d, hung) = daemon("")?;
        let asked = answers_after(&hung.device, None);
        let mut stuck: Vec<Client> = (0..12).map(|_| d.connect()).collect();
        for c in &mut stuck {
            c.send(STUCK);
        }
        until("all wait", || asked.load(Relaxed) == stuck.len());
        d.signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(1500));
        let mut next = d.connect();
        next.send(STUCK);
        let mut other = d.connect();
        other.send("hello\r\n");
        d.signal(Signal::SIGCONT);
        same(other.read_all(), HELLO);
        // It has its turn when the file system is ended, and is not there any more.
        let _ = umount2(&*hung.at, MntFlags::MNT_FORCE);
        let answer = next.read_all();
        assert!(answer == FAILED.as_bytes() || answer == BUSY.as_bytes(), "{answer:?}");
        Some(answer)
    };
    // Where it took long before and after, they did hang for too long.
    let waited = (0..4).any(|_| once().is_none_or(|answer| answer == FAILED.as_bytes()));
    assert!(waited, "it was refused each time");
}

#[test]
fn a_start_that_hangs_for_too_long_is_killed() {
    let Some((d, _hung)) = daemon("") else { return };
    same(d.ask(STUCK), FAILED);
    let line = d.wait_log("REFUSE service=stuck host= from=127.0.0.1 reason=failed");
    assert!(line.contains("stopped"), "{line}");
    until("nothing is left of it", || d.services().is_empty());
}

/// The loop waits once in vain for a child of a user whose file system is slow; then it knows.
#[test]
fn starts_that_are_slow_hold_up_nobody_but_their_user() {
    let Some((d, hung)) = daemon("") else { return };
    if !installed("strace") {
        return skip("needs strace");
    }
    answers_after(&hung.device, Some(Duration::from_millis(60)));
    let waits = Calls::of_parent(&d, &["-e", "trace=futex"]);
    // More at once than may be pending: the others have their turn, and none is refused.
    for _ in 0..3 {
        let mut slow: Vec<Client> = (0..40).map(|_| d.connect()).collect();
        for c in &mut slow {
            c.send(STUCK);
        }
        same(d.ask("hello\r\n"), HELLO);
        slow.iter_mut().for_each(|c| same(c.read_all(), "+Go\r\n"));
    }
    let waits = waits.end();
    let in_vain = waits.lines().filter(|l| l.contains("ETIMEDOUT")).count();
    // None, where it was so late itself that there was nothing to wait for.
    assert!(in_vain < 10, "{in_vain} of 120");
}

/// More than may be pending, and fewer than may wait, of one client; then one of another.
fn whoever_asks_for_much_keeps_no_other_out(d: &Daemon, slow: &str, answer: &str) {
    let mut many: Vec<Client> = (0..200).map(|_| d.connect()).collect();
    for c in &mut many {
        c.send(slow);
    }
    let mut other = d.connect_from("127.0.0.2");
    other.send(slow);
    same(other.read_all(), answer);
    many.iter_mut().for_each(|c| same(c.read_all(), answer));
}

const MANY: &str = "max_services_per_source = 1000\n";

#[test]
fn whoever_asks_for_much_of_a_slow_user_s_keeps_no_other_out() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let Some((d, hung)) = daemon(MANY) else { return };
    answers_after(&hung.device, Some(Duration::from_millis(60)));
    whoever_asks_for_much_keeps_no_other_out(&d, STUCK, "+Go\r\n");
}

#[test]
fn connections_that_are_slow_keep_no_other_out() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let Some(hung) = hung() else { return };
    // What it answers is no socket.
    answers_after(&hung.device, Some(Duration::from_millis(60)));
    let row = format!("up stream tcp nowait daemon redirect {}/socket\n", hung.at);
    let d = Daemon::with(&format!("{MANY}{row}")).start();
    whoever_asks_for_much_keeps_no_other_out(&d, "up\r\n", "-Service failed\r\n");
}

#[test]
fn users_whose_starts_hang_for_ever_leave_places_for_others() {
    const USERS: [&str; 8] = ["daemon", "bin", "sys", "games", "man", "lp", "mail", "news"];
    let Some(hung) = hung() else { return };
    answers_after(&hung.device, None);
    let rows = USERS.map(|user| row(user, user, &hung)).concat();
    let d = Daemon::with(&format!("{OTHER}{rows}")).start();
    let mut stuck = Vec::new();
    for user in USERS {
        for _ in 0..14 {
            let mut c = d.connect();
            c.send(format!("{user}\r\n"));
            stuck.push(c);
        }
        d.wait_log(&format!("REFUSE service={user} host= from=127.0.0.1 reason=processes"));
        same(d.ask("hello\r\n"), HELLO);
    }
    // They hang until the file system is ended, although it is in use (EBUSY).
    let _ = umount2(&*hung.at, MntFlags::MNT_FORCE);
    drop(stuck);
    until("nothing is left of them", || d.services().is_empty());
}

#[test]
fn it_ends_although_a_start_hangs() {
    let Some((mut d, _hung)) = daemon("shutdown_timeout = 600\n") else { return };
    let mut stuck = d.connect();
    stuck.send(STUCK);
    until("it is on its way", || !d.services().is_empty());
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    stuck.end();
}

#[test]
fn it_ends_although_starts_cannot_be_killed() {
    let Some((mut d, hung)) = daemon("shutdown_timeout = 600\n") else { return };
    let asked = answers_after(&hung.device, None);
    let mut stuck = d.connect();
    stuck.send(STUCK);
    until("it hangs", || asked.load(Relaxed) == 1);
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    d.wait_log("1 starts hang before their exec");
    let _ = umount2(&*hung.at, MntFlags::MNT_FORCE);
    stuck.end();
}

#[test]
fn a_program_on_a_file_system_that_does_not_answer() {
    let Some((d, hung)) = daemon("") else { return };
    let row = "hello stream tcp nowait root /bin/echo echo hello\nstuck stream tcp nowait daemon @DIR@/x\n";
    for script in [format!("{}/program", hung.at), "@DIR@/y".into()] {
        // The row's program is there, a script, or its interpreter is.
        let conf = row.replace("@DIR@/x", &script);
        d.place.write("y", &format!("#!{}/program\n", hung.at), 0o755);
        d.reload(&conf);
        let mut stuck = d.connect();
        stuck.send(STUCK);
        (0..3).for_each(|_| same(d.ask("hello\r\n"), HELLO));
        same(stuck.read_all(), "-Service failed\r\n");
    }
    d.wait_log("no answer within");
}

/// A child that has left fived's memory may still wait on its way to its end: the end of a session
/// waits for the lock of its terminal, which any process of its user can keep.
#[test]
fn no_child_is_waited_for_until_it_has_ended() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    let d =
        Daemon::with("x stream tcp nowait nobody /bin/true true\n directory = /none\n pty = yes\n")
            .start();
    let calls = Calls::of_parent(&d, &["-e", "trace=wait4,waitid"]);
    same(d.ask("x\r\n"), FAILED);
    d.wait_log("REFUSE service=x");
    // A call that waits has no end there.
    until("it was asked how it ended", || {
        let calls_before = calls.until_now();
        std::thread::sleep(Duration::from_millis(100));
        let told = calls_before.contains("waitid(") && calls_before.ends_with('\n');
        told && calls.until_now() == calls_before
    });
    let calls = calls.end();
    assert_eq!(calls.lines().find(|l| l.starts_with("wait") && !l.contains("WNOHANG")), None);
}
