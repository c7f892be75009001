//! five: whatever ends it, or the holder of its session, by a signal: none of its sockets stays
//! behind.

mod support;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use support::five::{ended, finish, piped};
use support::signals::{ending, send, send_to};
use support::{Daemon, Five, until};

const CONF: &str = "
hello stream tcp nowait @USER@ /bin/echo echo hello
ready stream tcp nowait @USER@ /bin/sh sh -c \"echo ready; exec cat\"
zeros stream tcp nowait @USER@ /bin/cat cat /dev/zero
";
const H: &str = "127.0.0.1";

/// What the service at a forward's socket says.
fn answer(path: &str) -> String {
    let mut all = String::new();
    let asked = UnixStream::connect(path).and_then(|mut app| app.read_to_string(&mut all));
    asked.map_or_else(|e| e.to_string(), |_| all)
}

/// A five that forwards at that path.
fn forwards(f: &Five, path: &str, more: &[&str]) -> Child {
    let child = f.start(&[&["-q", "-N", "-L", &format!("{path}:hello")], more, &[H]].concat());
    until("it forwards", || answer(path) == "hello\n");
    child
}

#[track_caller]
fn gone(path: &str) {
    assert!(!Path::new(path).exists(), "{path} was left");
}

#[test]
fn forwards_leave_no_socket_whatever_ends_them() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    for (signal, more) in ending().into_iter().flat_map(|s| [(s, &[][..]), (s, &["--plain"])]) {
        let child = forwards(&f, &path, more);
        send(&child, signal);
        assert_eq!(ended(child).0, 128 + signal, "{more:?}");
        gone(&path);
    }
}

#[test]
fn a_path_from_the_working_directory_is_found_again() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let words = ["-q", "-N", "-L", "./app:hello", "--accept-new", "-p", &f.port(), H];
    let child = piped(f.command(&words).current_dir(d.place.at("")));
    let path = d.place.at("app");
    until("it forwards", || answer(&path) == "hello\n");
    send(&child, 10);
    assert_eq!(ended(child).0, 128 + 10);
    gone(&path);
}

#[test]
fn a_signal_ends_forwards_also_before_there_is_a_session() {
    let d = Daemon::with(CONF).start();
    // It says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("listener");
    let f = Five::at(&d.place, silent.local_addr().expect("address"));
    let path = d.place.at("app");
    for (signal, words) in [(15, &["-N"][..]), (10, &["-N"]), (34, &["hello"])] {
        let local = format!("{path}:hello");
        let words = [&["-q", "-L", &local, H], words].concat();
        let child = f.start(&words);
        until("it listens", || UnixStream::connect(&path).is_ok());
        send(&child, signal);
        assert_eq!(ended(child).0, 128 + signal, "{words:?}");
        gone(&path);
    }
}

#[test]
fn of_two_signals_at_once_neither_ends_it_too_early() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let child = forwards(&f, &path, &[]);
    for signal in [libc::SIGSTOP, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGCONT] {
        send(&child, signal);
    }
    let code = ended(child).0;
    assert!([1, 10, 15].contains(&(code - 128)), "{code}");
    gone(&path);
}

#[test]
fn plain_forwards_end_with_their_service_and_leave_no_socket() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let local = format!("{path}:hello");
    let words = ["-q", "--plain", "-L", &local, H];
    let call = |service| f.start(&[&words[..], &[service]].concat());
    assert_eq!(finish(call("hello"), b""), (0, "hello\n".into(), String::new()));
    gone(&path);
    assert_eq!(finish(call("nosuch"), b"").0, 254);
    gone(&path);
    // Nobody reads its output.
    let mut child = call("zeros");
    until("it forwards", || answer(&path) == "hello\n");
    drop(child.stdout.take());
    assert_eq!(ended(child).0, 128 + libc::SIGPIPE);
    gone(&path);
}

#[test]
fn the_holder_leaves_no_socket_whatever_ends_it() {
    let d = Daemon::with(CONF).start();
    let configured = d.place.at("configured");
    let f = Five::new(&d).config(&format!("forward = {configured}:hello\n"));
    let added = d.place.at("added");
    // SIGHUP does not end it.
    for signal in ending().into_iter().filter(|s| *s != libc::SIGHUP) {
        assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
        assert_eq!(f.run(&["-q", "-O", "forward", "-L", &format!("{added}:hello"), H]).0, 0);
        assert_eq!((answer(&configured), answer(&added)), ("hello\n".into(), "hello\n".into()));
        let holder = f.holder();
        send_to(holder, signal);
        until("the holder has ended", || !support::proc::alive(holder));
        gone(&configured);
        gone(&added);
        assert_eq!(f.sessions(), [""; 0], "{signal}");
    }
}

#[test]
fn the_holder_leaves_no_socket_of_a_session_that_drains() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (call, holder) = (f.open_call(&["-q"]), f.holder());
    d.reload(&CONF.replace("echo hello", "echo hullo"));
    until("the session drains", || f.run(&["-O", "check", H]).1.contains(" state=draining "));
    assert_eq!(f.sessions().len(), 1);
    send_to(holder, libc::SIGUSR1);
    assert_eq!(ended(call).0, 255);
    until("the holder has ended", || !support::proc::alive(holder));
    assert_eq!(f.sessions(), [""; 0]);
}

#[test]
fn somebody_elses_file_at_the_path_stays() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        let child = forwards(&f, &path, &[]);
        std::fs::remove_file(&path).expect("remove");
        std::fs::write(&path, "mine").expect("file");
        send(&child, signal);
        assert_eq!(ended(child).0, 128 + signal);
        assert_eq!(std::fs::read(&path).expect("file"), b"mine");
        std::fs::remove_file(&path).expect("remove");
    }
}

#[test]
fn an_ignored_signal_ends_nothing() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let local = format!("{path}:hello");
    let before = ["--ignore-signal=HUP,USR1,ALRM", "setsid"];
    for more in [&[][..], &["--plain"]] {
        let words = [&["-q", "-N", "-L", &local], more, &[H]].concat();
        let child =
            f.command_by("env", &before, &words).stdin(Stdio::null()).spawn().expect("five");
        until("it forwards", || answer(&path) == "hello\n");
        let pid = Pid::from_raw(child.id() as i32);
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGALRM] {
            kill(pid, signal).expect("kill");
        }
        assert_eq!(answer(&path), "hello\n");
        kill(pid, Signal::SIGTERM).expect("kill");
        assert_eq!(ended(child).0, 128 + libc::SIGTERM);
        gone(&path);
    }
}
