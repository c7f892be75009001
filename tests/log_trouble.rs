//! A log that cannot be written: a disk that is full, a syslog that comes, goes, and does not read.
//! Everybody is served all the same, and each line is written or counted as lost.

#[path = "support/listed.rs"]
mod listed;
mod support;

use listed::Listed;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n log_on_success =\n";

/// A fived whose own mounts these are.
fn with_mounts(log_type: &str, mounts: &str) -> Option<Daemon> {
    if !root() || !installed("unshare") {
        skip("needs root and unshare");
        return None;
    }
    let script = format!("set -e; {mounts}; exec \"$0\" \"$@\"");
    let d = Daemon::with(&format!("log_type = {log_type}\n{CONF}"));
    Some(d.under(&["unshare", "-m", "sh", "-c", &script]).start_unlogged())
}

/// Each of these requests has a line of its own in the log: each source may have a hundred.
fn ask(d: &Daemon, numbers: std::ops::Range<usize>) {
    let filling = "x".repeat(200);
    for n in numbers {
        let mut c = d.connect_from(&format!("127.1.{}.{}", n / 10_000, 1 + n / 100 % 100));
        same(c.send(format!("{n}-{filling}\r\n")).read_all(), NOT_AVAILABLE);
    }
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
}

/// The requests that these lines are about, and how many lines are lost.
fn written_and_lost(lines: &[String]) -> (BTreeSet<usize>, usize) {
    let (mut numbers, mut lost) = (BTreeSet::new(), 0);
    for line in lines {
        if let Some((_, after)) = line.split_once("REFUSE service=") {
            assert!(line.ends_with(" reason=unknown"), "torn: {line}");
            let number = after.split('-').next().and_then(|n| n.parse().ok());
            assert!(numbers.insert(number.expect("a number")), "twice: {line}");
        } else if let Some((_, after)) = line.split_once("WARN lost ") {
            let count = after.strip_suffix(" lines").and_then(|n| n.parse::<usize>().ok());
            lost += count.unwrap_or_else(|| panic!("torn: {line}"));
        }
    }
    (numbers, lost)
}

#[test]
fn a_full_disk_holds_up_nobody_and_each_line_is_there_or_counted() {
    let n = trial_size("full-disk", 300, 10_000);
    let mounts = "mkdir @DIR@/small && mount -t tmpfs -o size=128k tmpfs @DIR@/small";
    let Some(d) = with_mounts("FILE @DIR@/small/log", mounts) else { return };
    let at = |name: &str| {
        format!("/proc/{}/root{}", d.parent_pid(), d.place.at(&format!("small/{name}")))
    };
    let lines = || -> Vec<String> {
        let text = std::fs::read_to_string(at("log")).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')).map(String::from).collect()
    };
    ask(&d, 0..5);
    let ballast = vec![0; 1 << 20];
    let full = std::fs::write(at("ballast"), &ballast);
    assert!(full.is_err(), "the disk is full");
    ask(&d, 5..n - 5);
    let written = lines();
    std::fs::remove_file(at("ballast")).expect("removed");
    // What it holds is written with the next line; then there is room for as much again.
    ask(&d, n - 5..n);
    let mut told_of = (BTreeSet::new(), 0);
    until("each line is there or counted", || {
        told_of = written_and_lost(&lines());
        told_of.0.len() + told_of.1 == n
    });
    assert!(told_of.0.contains(&0) && written.len() < n, "{told_of:?}");
    let (there, lost) = (told_of.0.len(), told_of.1);
    trial(
        "full-disk",
        format!(
            "{n} requests answered while the disk was full, {there} lines written, {lost} lost and counted"
        ),
    );
}

/// In place of `/dev`, one with the same devices and no `/dev/log` yet.
const DEVICES: &str = "mkdir @DIR@/dev; mount -t tmpfs tmpfs @DIR@/dev
for f in null zero full random urandom tty; do touch @DIR@/dev/$f; mount --bind /dev/$f @DIR@/dev/$f; done
mount --move @DIR@/dev /dev";

/// A limit of the size of files (RLIMIT_FSIZE) sends a signal to who writes more (SIGXFSZ).
#[test]
fn a_log_at_the_limit_of_the_size_of_files_ends_nobody() {
    let d = Daemon::with(&format!(
        "log_type = FILE @DIR@/log\n{CONF}ignored stream tcp nowait @USER@ /bin/grep\
         \u{20}grep SigIgn /proc/self/status\n log_on_success =\n"
    ));
    let limited = "ulimit -f 4; exec \"$0\" \"$@\"";
    let d = d.under(&["sh", "-c", limited]).start_unlogged();
    ask(&d, 0..40);
    // The services have that limit too, and the signal has its usual effect there.
    same(d.ask("ignored\r\n"), "+Go\r\nSigIgn:\t0000000000000000\n");
    let log = || std::fs::read_to_string(d.place.at("log")).unwrap_or_default();
    let lines: Vec<String> = log().split_inclusive('\n').map(String::from).collect();
    let whole: Vec<String> =
        lines.iter().filter_map(|l| l.strip_suffix('\n')).map(String::from).collect();
    assert!(log().len() <= 2048 && !written_and_lost(&whole).0.is_empty(), "{lines:?}");
}

#[test]
fn syslog_is_told_which_lines_are_warnings() {
    for (level, of_warnings, of_others) in [("info", 28, 30), ("err", 27, 27)] {
        let Some(d) = with_mounts(&format!("SYSLOG daemon {level}"), DEVICES) else { return };
        // It has its signals then.
        ask(&d, 0..1);
        let path = format!("/proc/{}/root/dev/log", d.parent_pid());
        let syslog = UnixDatagram::bind(path).expect("syslog");
        syslog.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        std::fs::write(d.place.at("fived.conf"), "broken\n").expect("written");
        d.signal(Signal::SIGHUP);
        let (mut packet, mut warnings) = ([0; 4096], 0);
        loop {
            let n = syslog.recv(&mut packet).expect("a line");
            let line = String::from_utf8_lossy(&packet[..n]).into_owned();
            let (begin, text) = line.split_once(": ").expect("a beginning");
            let warns = text.starts_with("WARN ");
            let priority = if warns { of_warnings } else { of_others };
            assert_eq!(begin, format!("<{priority}>fived[{}]", d.parent_pid()), "{line}");
            warnings += usize::from(warns);
            if text.starts_with("RELOAD ") {
                break;
            }
        }
        // That there was no syslog at the start, and the mistake.
        assert_eq!(warnings, 2);
    }
}

#[test]
fn a_syslog_that_comes_and_goes_holds_up_nobody_and_each_line_is_there_or_counted() {
    let n = 4 * trial_size("syslog", 60, 2500);
    let Some(d) = with_mounts("SYSLOG daemon info", DEVICES) else { return };
    let path = format!("/proc/{}/root/dev/log", d.parent_pid());
    let mut lines = Vec::new();
    let bind = || {
        let syslog = UnixDatagram::bind(&path).expect("syslog");
        syslog.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        syslog
    };
    // Waits for what so many requests leave: a line that comes to one that is away is lost.
    let take = |syslog: &UnixDatagram, lines: &mut Vec<String>, n: usize| {
        let mut packet = [0; 4096];
        until("each line is there or counted", || {
            while let Ok(n) = syslog.recv(&mut packet) {
                lines.push(String::from_utf8_lossy(&packet[..n]).trim_end().into());
            }
            let (there, lost) = written_and_lost(lines);
            there.len() + lost == n
        });
        written_and_lost(lines)
    };
    // Away; there, and not read; away again; there.
    ask(&d, 0..n / 4);
    let syslog = bind();
    ask(&d, n / 4..n / 2);
    take(&syslog, &mut lines, n / 2);
    std::fs::remove_file(&path).expect("removed");
    drop(syslog);
    ask(&d, n / 2..n * 3 / 4);
    let syslog = bind();
    ask(&d, n * 3 / 4..n);
    let (there, lost) = take(&syslog, &mut lines, n);
    let there = there.len();
    trial(
        "syslog",
        format!(
            "{n} requests answered while syslog came, went and did not read, {there} lines came, {lost} were lost and counted"
        ),
    );
}

/// Nobody would hear of it in the log.
#[test]
fn a_syslog_that_is_not_there_is_a_warning() {
    let (code, out, err) = Place::new().fived("log_type = SYSLOG daemon\n", &["-t"]);
    assert_eq!((code, out.as_str()), (0, "configuration OK\n"));
    let missing = err.contains(":1: log_type: /dev/log: No such file or directory");
    assert_eq!(missing, !std::path::Path::new("/dev/log").exists(), "{err}");
}

/// A service may have that socket, too, and fill it, or make it smaller, at any moment (socket(7),
/// SO_SNDBUF): whatever poll(2) has said, a write would wait for whoever reads there.
#[test]
fn a_socket_that_services_have_is_written_without_waiting() {
    if !root() || !installed("strace") || !installed("python3") {
        return skip("needs root, strace and python3");
    }
    const SOCKET: &str = "import os, socket, sys
ours, theirs = socket.socketpair()
if os.fork() == 0:
    theirs.close()
    while data := ours.recv(4096):
        os.write(2, data)
    os._exit(0)
os.dup2(theirs.fileno(), 2)
os.execv(sys.argv[1], sys.argv[1:])";
    let conf = "hello stream tcp nowait nobody /bin/echo echo hello\n stderr = log\n";
    let d = Daemon::with(conf).under(&["python3", "-c", SOCKET]).start();
    let calls = Calls::of_parent(&d, &["-y"]);
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    d.wait_log("EXIT service=hello");
    let calls = calls.end();
    let written: Vec<&str> = calls.lines().filter(|l| l.contains("(2<socket:")).collect();
    let waits = |l: &&&str| !l.starts_with("sendto(") || !l.contains("MSG_DONTWAIT");
    assert!(!written.is_empty(), "{calls}");
    assert_eq!(written.iter().find(waits), None);
}

/// Whoever may list the log's directory can keep its lock: nobody makes a file there meanwhile.
#[test]
fn whoever_keeps_the_lock_of_its_directory_keeps_nobody_else_waiting() {
    if !Listed::can_be() {
        return;
    }
    let d = Daemon::with(
        "log_type = FILE @DIR@/logs/log\nhello stream tcp nowait @USER@ /bin/echo echo hello\n",
    );
    let directory = d.place.at("logs");
    std::fs::create_dir(&directory).expect("directory");
    let d = d.start_unlogged();
    let (log, rotated) = (d.place.at("logs/log"), d.place.at("logs/log.1"));
    until("there is a log", || std::fs::rename(&log, &rotated).is_ok());
    let listed = Listed::new(&d.place, &directory);
    d.signal(Signal::SIGHUP);
    for _ in 0..4 {
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    until("the log says so", || read(&rotated).contains("the lock of its directory"));
    drop(listed);
    until("it is opened again", || {
        d.signal(Signal::SIGHUP);
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
        read(&log).contains("RELOAD ")
    });
}
