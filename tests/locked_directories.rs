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
