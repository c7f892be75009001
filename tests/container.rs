//! fived as the first process of a container: nothing can be written, there is no log of the
//! system, no other process that would reap, and perhaps no IPv6 and no account.

mod support;
#[path = "support/tls.rs"]
mod tls;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tls::Tls;

/// As a container's engine does: processes of its own, everything read-only, no /dev/log.
const ENGINE: &str = "
mount --make-rprivate /
for at in $(findmnt -rno TARGET | grep -v '^/proc' ; echo /tmp /run); do
    mount -o remount,bind,ro $at 2>/dev/null || { mount --bind $at $at && mount -o remount,bind,ro $at; }
done 2>/dev/null
for at in / /tmp /run /dev/shm /var/lib; do
    if touch $at/fived-can-write 2>/dev/null; then echo \"$at can be written\" >&2; exit 3; fi
done
exec \"$0\" \"$@\"";

/// As that user, if words say so. None: this cannot be done here.
fn contained(conf: &str, user: &[&str]) -> Option<Daemon> {
    if !(root() && installed("unshare") && installed("findmnt") && installed("setpriv")) {
        skip("needs root, unshare, findmnt and setpriv");
        return None;
    }
    let words = ["-m", "-p", "-i", "--fork", "--mount-proc", "--kill-child", "sh", "-c", ENGINE];
    let engine = [&["unshare"], &words[..], user].concat();
    let d = Daemon::with(conf).under(&engine);
    Some(if user.is_empty() { d.start() } else { d.stateless().start() })
}

/// What the engine sends is for the first process, which is a child of what stands for it here.
fn end(mut d: Daemon) {
    let [first] = proc::children(d.parent_pid())[..] else { panic!("one first process") };
    kill(Pid::from_raw(first), Signal::SIGTERM).expect("kill");
    assert_eq!(d.wait(), 0, "{}", d.log());
}

#[test]
fn the_first_process_of_a_read_only_container_serves_reaps_and_ends() {
    let Some(d) = contained(
        "
hello stream tcp nowait @USER@ /bin/echo echo hello
parent stream tcp nowait @USER@ /bin/sh sh -c 'echo $PPID'
orphans stream tcp nowait @USER@ /bin/sh sh -c 'sleep 0.1 & sleep 0.2 & echo left'
zombies stream tcp nowait @USER@ /bin/sh sh -c 'grep -l ^State:.Z /proc/[0-9]*/status | wc -l'
children stream tcp nowait @USER@ /bin/sh sh -c 'grep -l ^Name:.sleep /proc/[0-9]*/status | wc -l'
",
        &[],
    ) else {
        return;
    };
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    same(d.ask("parent\r\n"), "+Go\r\n1\n");
    let mut c = Tls::start(d.connect().0, "nobody.example");
    c.send(b"hello\r\n");
    assert_eq!(c.read_all(), b"+Go\r\nhello\n");
    for _ in 0..5 {
        // The children have the connection too, so its end is theirs.
        same(d.ask("orphans\r\n"), "+Go\r\nleft\n");
    }
    for what in ["children\r\n", "zombies\r\n"] {
        until("all that ended was reaped", || d.ask(what) == b"+Go\r\n0\n");
    }
    end(d);
}

/// While services come and go there is always one that has ended and was not reaped yet.
#[test]
fn the_first_process_reaps_orphans_however_busy_it_is() {
    let conf = "
cps = UNLIMITED
max_services_per_source = 1000
max_sessions_per_source = 1000
hello stream tcp nowait @USER@ /bin/echo echo hello
orphans stream tcp nowait @USER@ /bin/sh sh -c 'for n in 1 2 3 4 5 6 7 8 9 10; do : & done'
zombies stream tcp nowait @USER@ /bin/sh sh -c 'grep -ls ^State:.Z /proc/[0-9]*/status | wc -l'
";
    let Some(d) = contained(conf, &[]) else { return };
    std::thread::scope(|all| {
        for _ in 0..8 {
            all.spawn(|| (0..300).for_each(|_| same(d.ask("hello\r\n"), "+Go\r\nhello\n")));
        }
        (0..60).for_each(|_| same(d.ask("orphans\r\n"), "+Go\r\n"));
        let answer = String::from_utf8(d.ask("zombies\r\n")).expect("text");
        let zombies = answer.strip_prefix("+Go\r\n").and_then(|n| n.trim().parse::<usize>().ok());
        assert!(zombies.is_some_and(|n| n < 200), "{answer}");
    });
    until("all that ended was reaped", || d.ask("zombies\r\n") == b"+Go\r\n0\n");
    end(d);
}

/// As an engine does that gives each container a user id of its own, and the group 0.
#[test]
fn the_first_process_may_be_any_user() {
    let conf = "
id stream tcp nowait 54321 /bin/sh sh -c 'echo $PPID $(id -u) $(id -g)'
orphans stream tcp nowait 54321 /bin/sh sh -c 'sleep 0.1 & echo left'
zombies stream tcp nowait 54321 /bin/sh sh -c 'grep -l ^State:.Z /proc/[0-9]*/status | wc -l'
children stream tcp nowait 54321 /bin/sh sh -c 'grep -l ^Name:.sleep /proc/[0-9]*/status | wc -l'
";
    let user = ["setpriv", "--reuid=54321", "--regid=0", "--clear-groups", "--bounding-set=-all"];
    let Some(d) = contained(conf, &user) else { return };
    same(d.ask("id\r\n"), "+Go\r\n1 54321 0\n");
    let mut c = Tls::start(d.connect().0, "nobody.example");
    c.send(b"id\r\n");
    assert_eq!(c.read_all(), b"+Go\r\n1 54321 0\n");
    same(d.ask("orphans\r\n"), "+Go\r\nleft\n");
    for what in ["children\r\n", "zombies\r\n"] {
        until("all that ended was reaped", || d.ask(what) == b"+Go\r\n0\n");
    }
    end(d);
}

#[test]
fn a_user_without_an_account_serves_as_that_user() {
    if !(root() && installed("setpriv")) {
        return skip("needs root and setpriv");
    }
    let conf = "id stream tcp nowait 54321 /usr/bin/id id -u\n";
    let who = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let d = Daemon::with(conf).under(&who).stateless().start();
    same(d.ask("id\r\n"), "+Go\r\n54321\n");
}

#[test]
fn without_ipv6_the_default_is_ipv4() {
    if !(root() && installed("unshare") && installed("nc")) {
        return skip("needs root, unshare and nc");
    }
    let place = Place::new();
    place.write("f.conf", "hello stream tcp nowait nobody /bin/echo echo hello\n", 0o644);
    let script = format!(
        "ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1; cd {}
         '{}' -f f.conf 2>log & pid=$!
         for n in $(seq 600); do grep -q ^listening log && break; sleep 0.1; done
         printf 'hello\\r\\n' | nc -w 60 127.0.0.1 1; kill $pid; wait $pid; cat log >&2",
        place.path.display(),
        env!("CARGO_BIN_EXE_fived"),
    );
    let out = std::process::Command::new("unshare").args(["-n", "sh", "-c", &script]).output();
    let out = out.expect("unshare");
    let log = String::from_utf8_lossy(&out.stderr);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "+Go\r\nhello\n", "{log}");
}
