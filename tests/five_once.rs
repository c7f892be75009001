//! A call is never made again once its request may have reached a service, whatever ends.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use support::five::{finish, piped};
use support::*;

const CONF: &str = "listen = 127.0.0.1:0 @DIR@/fived
append stream tcp nowait @USER@ /bin/sh sh -c 'echo x >>@DIR@/lines; cat'
hello stream tcp nowait @USER@ /bin/echo echo hello
[www]
append stream tcp nowait @USER@ /bin/sh sh -c 'echo x >>@DIR@/lines; cat'
";

fn at_a_path() -> Daemon {
    let d = Daemon::with(CONF).listen("").start();
    d.wait_log(&format!("listening on {}", d.place.at("fived")));
    std::fs::write(d.place.at("lines"), "").expect("a file");
    let all = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(d.place.at("lines"), all).expect("chmod");
    d
}

/// How many services have been started.
fn lines(d: &Daemon) -> usize {
    std::fs::read(d.place.at("lines")).expect("a file").len() / 2
}

/// Net ends as it makes a call of the system for the nth time, before that does anything.
struct Killed(Child);

impl Killed {
    /// What ended the net before may be at work still: where the one that is there now ends
    /// before it is traced, the next one is.
    fn net(d: &Daemon, call: &str, n: usize) -> Killed {
        let mut net = d.net_pid();
        let mut killed = Killed::at(net, call, n);
        until("net is traced", || {
            if killed.0.try_wait().expect("wait").is_some() {
                net = d.net_pid();
                killed = Killed::at(net, call, n);
            }
            proc::traced(net)
        });
        killed
    }

    fn at(pid: i32, call: &str, n: usize) -> Killed {
        let mut c = Command::new("strace");
        c.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
        c.args([&format!("inject={call}:signal=KILL:when={n}"), "-p", &pid.to_string()]);
        Killed(c.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace"))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may not come to its end if a thread of what it traces does not.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Net acknowledges a call before it asks for its service: if it ends in between, five knows that
/// the service may have been started.
#[test]
fn a_call_is_made_once_wherever_net_ends() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    let d = at_a_path();
    let f = Five::new(&d);
    let (path, port) = (d.place.at("fived"), f.port());
    let host = ["--accept-new", "-p", &port, "127.0.0.1"];
    let mut served = [0, 0];
    for words in [&host[..], &[&["-H", "www"], &host[..]].concat(), &[&path]] {
        for (call, n) in ["sendto", "sendmsg"].into_iter().flat_map(|c| (1..5).map(move |n| (c, n)))
        {
            if words[0] != path {
                assert_eq!(f.run(&["-q", "127.0.0.1", "hello"]).0, 0);
            }
            let before = lines(&d);
            let killed = Killed::net(&d, call, n);
            let (status, out, err) =
                finish(piped(&mut f.command(&[words, &["append"]].concat())), b"x");
            drop(killed);
            let (what, started) = (format!("{words:?} {call} {n}: {err}"), lines(&d) - before);
            // A call that succeeds has been made, and one that fails never twice.
            match status {
                0 => assert!((started, &*out) == (1, "x"), "{what}{started}"),
                255 => assert!(started <= 1, "{what}{started}"),
                _ => panic!("{status} {what}"),
            }
            served[usize::from(status == 0)] += 1;
            until("net is there again, or still", || d.nets().len() == 1);
        }
    }
    assert!(served[0] > 3 && served[1] > 3, "{served:?}");
}
