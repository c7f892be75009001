//! five and this computer: its directories, the programs that help it with keys, holders that are
//! stopped or drain, forwards that are refused.

mod support;

use fived::wire::yamux::PIECE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::five::{ended, finish, piped};
use support::{Daemon, Five, Place, installed, kill_and_wait, root, skip, until};

const CONF: &str = "
authorized_keys = @KEYS@/%u
hello  stream tcp nowait @USER@ /bin/echo echo hello
who    stream tcp nowait @USER@ /bin/sh sh -c 'echo \"user=$FIVED_USER\"'
ready  stream tcp nowait @USER@ /bin/sh sh -c \"echo ready; exec cat\"
";
const H: &str = "127.0.0.1";

/// A key of this person's that may log in as `user`.
fn key(d: &Daemon, f: &Five, user: &str) -> String {
    let path = format!("{}/.ssh/id_ed25519", f.home);
    std::fs::create_dir_all(format!("{}/.ssh", f.home)).expect(".ssh");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]).status();
    assert!(made.expect("ssh-keygen").success());
    d.place.write_keys(user, &std::fs::read_to_string(format!("{path}.pub")).expect("public key"));
    path
}

/// Programs that are found before the system's.
fn before(d: &Daemon, f: Five, name: &str, text: &str) -> Five {
    std::fs::create_dir_all(d.place.at("bin")).expect("bin");
    d.place.write(&format!("bin/{name}"), text, 0o755);
    let path = format!("{}:{}", d.place.at("bin"), std::env::var("PATH").expect("PATH"));
    f.env("PATH", &path)
}

/// Stops a process, which the kernel does when it next looks at it.
fn stop(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("kill");
    until("it is stopped", || state(pid) == Some('T'));
}

/// As proc(5) has it: R, S, T, ...
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_runtime_directory_that_is_anothers_is_not_used() {
    if !root() {
        return skip("needs root for a directory of somebody else's");
    }
    let d = Daemon::with(CONF).start();
    let other = d.place.at("other");
    std::fs::create_dir(&other).expect("directory");
    let own = format!("/tmp/five-{}", nix::unistd::geteuid());
    for (mode, owner) in [(0o700, 65_534), (0o777, 0), (0o1777, 0)] {
        std::os::unix::fs::chown(&other, Some(owner), None).expect("owner");
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(mode)).expect("mode");
        for directory in [other.clone(), d.place.at("other/new"), "/nonexistent/run".into()] {
            let f = Five::new(&d).env("XDG_RUNTIME_DIR", &directory);
            let (code, out, err) = f.run(&["-v", H, "hello"]);
            assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
            assert!(err.contains(&format!("five: XDG_RUNTIME_DIR {directory}: not a directory of this user alone: it is not used\n")));
            assert!(
                std::fs::read_dir(&other).expect("directory").next().is_none()
                    && !Path::new("/nonexistent").exists()
            );
            // It is where the manual says.
            assert_eq!(std::fs::metadata(&own).expect("directory").mode() & 0o777, 0o700);
            assert_eq!(f.run(&["-O", "exit", H]).0, 0);
        }
    }
}

/// Anybody can make a directory of that name in /tmp before this user does, and root may enter it.
#[test]
fn nor_is_a_directory_in_tmp_that_is_anothers() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    let d = Daemon::with(CONF).start();
    let own = format!("/tmp/five-{}", nix::unistd::geteuid());
    let f = Five::new(&d).env("XDG_RUNTIME_DIR", "").env("OWN", &own);
    for (owner, mode) in [(65_534, 700), (0, 711)] {
        // Others of this test's user may use the real one meanwhile.
        let mounts = format!(
            "mkdir -p -m 700 $OWN && mount -t tmpfs -o uid={owner},mode={mode} none $OWN && exec \"$@\""
        );
        let words = ["-m", "sh", "-c", &mounts, "sh", "setsid"];
        let child = piped(&mut f.command_by("unshare", &words, &[H, "hello"]));
        let (code, out, err) = finish(child, b"");
        assert_eq!((code, &*out), (255, ""), "{owner} {mode}: {err}");
        let why = "must be a directory of yours with mode 0700: sessions are found there; set XDG_RUNTIME_DIR, or use -x";
        assert_eq!(err, format!("five: {own}: {why}\n"));
    }
}

#[test]
fn no_helper_hangs_on_a_dead_agent() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = key(&d, &f, "demo");
    // One takes connections and says nothing; at the other's even connecting waits.
    let (silent, full) = (d.place.at("silent"), d.place.at("full"));
    let _silent = UnixListener::bind(&silent).expect("agent");
    let listener = UnixListener::bind(&full).expect("agent");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("backlog"))
        .expect("listen");
    let _waits = UnixStream::connect(&full).expect("one waits");
    let start = |agent: &str, words: &[&str]| {
        Five::new(&d)
            .env("SSH_AUTH_SOCK", agent)
            .start(&[&["-x", "-q", "-l", "demo"], words, &[H, "who"]].concat())
    };
    let all = [start(&silent, &[]), start(&full, &[]), start(&silent, &["-i", &path])];
    for child in all {
        assert_eq!(finish(child, b""), (0, "user=demo\n".into(), String::new()));
    }
}

#[test]
fn children_are_reaped_whatever_was_inherited() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    key(&d, &f, "demo");
    let real =
        Command::new("sh").args(["-c", "command -v ssh-keygen"]).output().expect("sh").stdout;
    let real = String::from_utf8(real).expect("path");
    let f = before(
        &d,
        f,
        "ssh-keygen",
        &format!(
            "#!/bin/sh\ngrep SigIgn /proc/self/status >@DIR@/ignored\nexec {} \"$@\"\n",
            real.trim()
        ),
    );
    let before = ["--ignore-signal=CHLD", "setsid", "-w"];
    let mut c = f.command_by("env", &before, &["-q", "-l", "demo", H, "who"]);
    assert_eq!(finish(piped(&mut c), b""), (0, "user=demo\n".into(), String::new()));
    let ignored = std::fs::read_to_string(d.place.at("ignored")).expect("SigIgn");
    let mask = u64::from_str_radix(ignored.trim().rsplit(['\t', ' ']).next().expect("mask"), 16)
        .expect("mask");
    assert_eq!(mask & 1 << (Signal::SIGCHLD as u64 - 1), 0, "{ignored}");
}

#[test]
fn signing_leaves_no_files_whatever_ends_it() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    key(&d, &f, "demo");
    let f = before(
        &d,
        f,
        "ssh-keygen",
        "#!/bin/sh\necho $$ >@DIR@/keygen.new\nmv @DIR@/keygen.new @DIR@/keygen\nexec sleep 60\n",
    );
    let (pid_file, directory) = (d.place.at("keygen"), d.place.at("tmp"));
    std::fs::create_dir(&directory).expect("TMPDIR");
    let f = f.env("TMPDIR", &directory);
    for signal in support::signals::ending() {
        let child = f.start(&["-x", "-l", "demo", H, "who"]);
        until("ssh-keygen runs", || Path::new(&pid_file).exists());
        assert_eq!(std::fs::read_dir(&directory).expect("TMPDIR").count(), 1);
        support::signals::send(&child, signal);
        assert_eq!(ended(child).0, 128 + signal);
        assert_eq!(std::fs::read_dir(&directory).expect("TMPDIR").count(), 0, "{signal}");
        let keygen = std::fs::read_to_string(&pid_file).expect("pid").trim().parse().expect("pid");
        assert!(!support::proc::alive(keygen), "{signal}");
        std::fs::remove_file(&pid_file).expect("pid");
    }
    // Who was started so that SIGHUP does not end it goes on.
    let before = ["--ignore-signal=HUP", "setsid"];
    let child = piped(&mut f.command_by("env", &before, &["-x", "-l", "demo", H, "who"]));
    until("ssh-keygen runs", || Path::new(&pid_file).exists());
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGHUP).expect("kill");
    kill(pid, Signal::SIGTERM).expect("kill");
    assert_eq!(ended(child).0, 128 + Signal::SIGTERM as i32);
}

#[test]
fn an_interrupt_at_the_passphrase_leaves_no_files() {
    if !(installed("ssh-keygen") && installed("script")) {
        return skip("needs ssh-keygen and script");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = key(&d, &f, "demo");
    let locked = Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "open sesame", "-f", &path])
        .stdout(Stdio::null())
        .status();
    assert!(locked.expect("ssh-keygen").success());
    let directory = d.place.at("tmp");
    std::fs::create_dir(&directory).expect("TMPDIR");
    let f = f.env("TMPDIR", &directory);
    let words = ["--accept-new", "-q", "-p", &f.port(), "-l", "demo", H, "who"];
    let (code, shown) = f.on_terminal(&words, "\u{3}\n");
    assert_eq!(code, 128 + Signal::SIGINT as i32, "{shown}");
    assert_eq!(std::fs::read_dir(&directory).expect("TMPDIR").count(), 0, "{shown}");
    // Nothing of it is in the way of the next.
    let (code, shown) = f.on_terminal(&words, "open sesame\n");
    assert!(code == 0 && shown.contains("user=demo") && !shown.contains("sesame"), "{shown}");
}

#[test]
fn a_users_name_may_have_a_blank_and_an_at() {
    if !installed("ssh-keygen") {
        return skip("needs ssh-keygen");
    }
    let d = Daemon::with(CONF).start();
    for user in ["de mo", "me@corp", " a  b"] {
        let f = Five::new(&d);
        let _ = std::fs::remove_dir_all(format!("{}/.ssh", f.home));
        key(&d, &f, user);
        assert_eq!(
            f.run(&["-q", "-x", &format!("{user}@{H}"), "who"]),
            (0, format!("user={user}\n"), String::new())
        );
        assert_eq!(f.run(&["-q", "-x", "-l", user, H, "who"]).1, format!("user={user}\n"));
    }
}

#[test]
fn calls_report_a_stopped_holder_too() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let (mut forwards, all) = f.forwards(&["-L", &format!("{}:ready", d.place.at("pipe"))]);
    let pid = f.holder();
    d.wait_logs("START", 1);
    stop(pid);
    let began = Instant::now();
    let calls: Vec<Child> =
        [&[H, "hello"][..], &[H], &["-O", "check", H]].iter().map(|words| f.start(words)).collect();
    let mut app = UnixStream::connect(&all[0]).expect("forward");
    for child in calls {
        let (code, out, err) = ended(child);
        assert_eq!((code, out.as_str()), (255, ""));
        let expected = format!(
            "five: {H}:{}: the holder of the session does not answer: its process {pid} was stopped, kill -CONT {pid} lets it go on\n",
            f.port()
        );
        assert_eq!(err, expected);
    }
    // Its connection ends, too.
    assert_eq!(app.read(&mut [0; 9]).expect("an end"), 0);
    assert!(began.elapsed() < Duration::from_secs(40));
    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("kill");
    // What was given up is not begun afterwards.
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
    assert_eq!(f.holder(), pid);
    assert_eq!(d.wait_logs("START", 2).len(), 2, "{}", d.log());
    kill_and_wait(&mut forwards);
}

#[test]
fn a_waiting_call_reports_a_stopped_holder() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    // The holder has the limit of the call that makes it.
    let before = ["-c", "ulimit -n 22 && exec setsid \"$@\"", "sh"];
    let mut first = piped(&mut f.command_by("sh", &before, &["-q", H, "ready"]));
    first.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("an answer");
    let (pid, second) = (f.holder(), f.open_call(&["-q"]));
    let mut c = f.command(&["-v", "-p", &f.port(), H, "hello"]);
    let mut third =
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("five");
    let (mut answer, mut byte) = (String::new(), [0]);
    while !answer.ends_with('\n') {
        third.stderr.as_mut().expect("piped").read_exact(&mut byte).expect("a line");
        answer.push(byte[0].into());
    }
    assert!(answer.contains("using the session"), "{answer}");
    // It has handed its call over when it sleeps: it waits for an answer.
    until("it waits", || state(third.id() as i32) == Some('S'));
    assert!(third.try_wait().expect("wait").is_none());
    stop(pid);
    until("it gives up", || third.try_wait().expect("wait").is_some());
    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("kill");
    assert_eq!((finish(first, b"").0, finish(second, b"").0), (0, 0));
    // Until the holder had room it had the standard error of this one, too.
    let (code, _, err) = ended(third);
    assert!(code == 255 && err.contains(&format!("its process {pid} was stopped")), "{err}");
    // What was given up is not begun afterwards.
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
    assert_eq!(d.wait_logs("START service=hello", 1).len(), 1, "{}", d.log());
}

#[test]
fn who_waits_for_another_to_make_the_session_says_so() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let lock = std::fs::File::open(format!("{}.lock", f.sessions()[0])).expect("lock");
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    lock.lock().expect("lock");
    let mut child = f.start(&[H, "hello"]);
    let expected =
        format!("five: {H}:{}: another five is making the session: waiting for it\n", f.port());
    let mut answer = vec![0; expected.len()];
    child.stderr.as_mut().expect("piped").read_exact(&mut answer).expect("a line");
    assert_eq!(String::from_utf8_lossy(&answer), expected);
    drop(lock);
    assert_eq!(finish(child, b""), (0, "hello\n".into(), String::new()));
}

/// As while somebody is asked for a password, and has gone away.
#[test]
fn who_waits_for_another_for_long_makes_a_session_of_its_own() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let lock = std::fs::File::open(format!("{}.lock", f.sessions()[0])).expect("lock");
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    lock.lock().expect("lock");
    let begun = Instant::now();
    let (code, out, err) = finish(f.start(&[H, "hello"]), b"");
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
    assert!(err.ends_with("not made after 25 s: this call makes a session of its own\n"), "{err}");
    assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(f.run(&["-O", "check", H]).0, 255);
}

#[test]
fn who_waits_for_another_ends_with_it_if_the_server_does_not_answer() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind((H, 0)).expect("bind");
    let f = Five::at(&place, silent.local_addr().expect("address"));
    let begun = Instant::now();
    let all: Vec<Child> = (0..3).map(|_| f.start(&[H, "hello"])).collect();
    let why = format!("five: {H}:{}: no answer within 20 s", f.port());
    for child in all {
        let (code, _, err) = finish(child, b"");
        assert!(code == 255 && err.contains(&why), "{err}");
    }
    // Not each after the other, 20 s each.
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());
}

#[test]
fn orders_find_a_session_that_drains() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (old, pid) = (f.open_call(&["-q"]), f.holder());
    d.reload(&CONF.replace("echo hello", "echo hullo"));
    let check = || f.run(&["-O", "check", H]);
    until("the session drains", || check().1.contains(" state=draining streams=1 waiting=0\n"));
    let (code, out, _) = check();
    assert!(
        code == 0 && out.lines().count() == 1 && out.contains(&format!(" pid={pid} ")),
        "{out}"
    );
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hullo\n");
    let new = f.open_call(&["-q"]);
    let (code, out, _) = check();
    let states: Vec<&str> = out.split(' ').filter(|w| w.starts_with("state=")).collect();
    assert_eq!((code, states.as_slice()), (0, &["state=up", "state=draining"][..]), "{out}");
    assert_eq!(f.run(&["-O", "list", H]).1.matches("service=ready ").count(), 2);
    // Its last call ends it.
    assert_eq!(finish(old, b"").0, 0);
    until("the old one is gone", || check().1.lines().count() == 1);
    assert_eq!(f.sessions().len(), 1);
    // Another one that drains; all of them are ended.
    d.reload(CONF);
    until("the session drains", || check().1.contains(" state=draining "));
    let third = f.open_call(&["-q"]);
    assert_eq!(f.run(&["-O", "exit", H]), (0, String::new(), String::new()));
    assert_eq!((ended(new).0, ended(third).0, check().0), (255, 255, 255));
    assert!(f.sessions().is_empty());
}

#[test]
fn a_forward_that_is_refused_names_its_service() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (mut child, all) = f.forwards(&[
        "-L",
        &format!("{}:nosuch", d.place.at("a")),
        "-L",
        &format!("{}:hello", d.place.at("b")),
    ]);
    for (path, answer) in [(&all[0], ""), (&all[1], "hello\n")] {
        let mut text = String::new();
        UnixStream::connect(path).expect("forward").read_to_string(&mut text).expect("an end");
        assert_eq!(text, answer);
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
    let mut err = String::new();
    child.stderr.as_mut().expect("piped").read_to_string(&mut err).expect("read");
    child.wait().expect("wait");
    let expected = format!(
        "five: {}: nosuch: Service not available (nobody is logged in: -l USER may change that)\n",
        all[0]
    );
    assert!(err.contains(&expected), "{err}");
}

/// As bash has it: `five ... >/dev/udp/HOST/PORT`. Each write is a datagram of its own.
#[test]
fn output_that_goes_to_a_socket_of_datagrams() {
    let d = Daemon::with("much stream tcp nowait @USER@ /usr/bin/head head -c 4000000 /dev/zero\n");
    let d = d.start();
    let f = Five::new(&d);
    let to = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let from = UdpSocket::bind("127.0.0.1:0").expect("bind");
    from.connect(to.local_addr().expect("it is bound")).expect("connect");
    let mut five = f.command(&["--accept-new", "-q", "-p", &f.port(), H, "much"]);
    let five = five.stdout(OwnedFd::from(from)).stderr(Stdio::piped()).spawn().expect("five");
    let out = five.wait_with_output().expect("five");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // What the system has not dropped.
    let mut bytes = [0; 65_536];
    assert!(to.recv(&mut bytes).expect("a datagram") <= PIECE);
}
