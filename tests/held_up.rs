//! A service that hangs on its way to exec, here in a working directory whose file system does not
//! answer, holds up nobody else.

mod support;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use support::*;

/// A file system (fuse(4)) that answers nothing; its end lets go of everybody.
struct Hung {
    at: String,
    _device: File,
    _place: Place,
}

impl Hung {
    fn new() -> Option<Hung> {
        let place = Place::new();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let at = place.at("hung");
        std::fs::create_dir(&at).expect("directory");
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hung"), &*at, Some("fuse"), MsFlags::empty(), Some(&*options)).ok()?;
        Some(Hung { at, _device: device, _place: place })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        umount2(&*self.at, MntFlags::MNT_DETACH).expect("umount");
    }
}

const STUCK: &str = "stuck\r\n";
const HELLO: &str = "+Go\r\nhello\n";

/// With `stuck`, which hangs, and `hello` of another user, which does not.
fn daemon(settings: &str) -> Option<(Daemon, Hung)> {
    if !root() {
        skip("needs root");
        return None;
    }
    let Some(hung) = Hung::new() else {
        // No package brings it.
        eprintln!("SKIPPED: this kernel has no fuse");
        return None;
    };
    let hello = "hello stream tcp nowait root /bin/echo echo hello\n";
    let stuck =
        format!("stuck stream tcp nowait daemon /bin/true true\n directory = {}\n", hung.at);
    Some((Daemon::with(&format!("{settings}{hello}{stuck}")).start(), hung))
}

#[test]
fn a_start_that_hangs_holds_up_no_other() {
    let Some((d, _hung)) = daemon("") else { return };
    let mut stuck: Vec<Client> = (0..12).map(|_| d.connect()).collect();
    for c in &mut stuck {
        c.send(STUCK);
        // Each is late when the next begins.
        (0..2).for_each(|_| same(d.ask("hello\r\n"), HELLO));
    }
    until("all are late", || d.ask(STUCK) == b"-Service busy\r\n");
    same(d.ask("hello\r\n"), HELLO);
    d.wait_log("reason=processes");
    // Whoever hangs for too long is killed.
    stuck.iter_mut().for_each(|c| same(c.read_all(), "-Service failed\r\n"));
    assert!(
        d.wait_log("REFUSE service=stuck host= from=127.0.0.1 reason=failed").contains("stopped")
    );
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
