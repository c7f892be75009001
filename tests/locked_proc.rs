//! Whoever may list a directory can keep its lock, and a process that is to make a file there waits
//! for that, and then whoever looks for a name that nobody has looked for. Everybody may list /proc,
//! and a process that was just made is such a name.

#[path = "support/listed.rs"]
mod listed;
mod support;

use listed::Listed;
use std::process::Command;
use support::*;

const CONF: &str = "hello stream tcp nowait nobody /bin/echo echo hello\n\
                    metrics stream tcp nowait nobody internal\n";
const HELLO: &str = "+Go\r\nhello\n";

#[test]
fn whoever_keeps_proc_locked_keeps_nobody_waiting() {
    if !Listed::can_be() {
        return;
    }
    // A /proc of its own, which concerns nobody else.
    let own = "mount -t proc proc /proc && exec \"$@\"";
    let d = Daemon::with(CONF).under(&["unshare", "-m", "sh", "-c", own, "sh"]).start();
    same(d.ask("hello\r\n"), HELLO);
    let proc = format!("/proc/{}/root/proc", d.parent_pid());
    let _listed = Listed::new(&d.place, &proc);
    let mut makes = Command::new("mkdir").arg(format!("{proc}/x")).spawn().expect("mkdir");
    until("it waits", || proc::status(makes.id() as i32, "State").starts_with('D'));
    d.reload(CONF);
    same(d.ask("hello\r\n"), HELLO);
    makes.kill().expect("kill");
    drop(_listed);
    makes.wait().expect("mkdir");
}
