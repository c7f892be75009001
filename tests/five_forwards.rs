//! five: the forwards of the configuration, which the session's holder has.

mod support;

use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use support::{Daemon, Five, proc, until};

const CONF: &str = "
cat    stream tcp nowait @USER@ /bin/cat  cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
";
const H: &str = "127.0.0.1";

/// What the service at a forward's socket says to this.
fn ask(path: &str, text: &str) -> String {
    let mut app = UnixStream::connect(path).expect("the forward");
    app.write_all(text.as_bytes()).expect("written");
    app.shutdown(std::net::Shutdown::Write).expect("half-close");
    let mut all = String::new();
    app.read_to_string(&mut all).expect("an answer");
    all
}

#[test]
fn the_holder_has_them_as_long_as_its_session_stands() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("near");
    let f = Five::new(&d).config(&format!("forward = {path}:cat\n"));
    assert_eq!(f.run(&["-q", H, "hello"]), (0, "hello\n".into(), String::new()));
    // That five has ended.
    assert_eq!(ask(&path, "one"), "one");
    // Whoever comes next finds the session, and has nothing to listen for.
    assert_eq!(f.run(&[H, "hello"]), (0, "hello\n".into(), String::new()));
    let apps: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).expect("connect")).collect();
    assert_eq!(ask(&path, "two"), "two");
    drop(apps);
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    until("its socket is gone", || !Path::new(&path).exists());
}

#[test]
fn the_next_session_has_them_after_a_reload() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("near");
    let f = Five::new(&d).config(&format!("forward = {path}:cat\n"));
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let mut busy = UnixStream::connect(&path).expect("connect");
    busy.write_all(b"before").expect("written");
    let mut said = [0; 6];
    busy.read_exact(&mut said).expect("an answer");
    d.signal(Signal::SIGHUP);
    d.wait_log("RELOAD file=");
    until("another session has them", || {
        f.run(&["-q", H, "hello"]).0 == 0 && UnixStream::connect(&path).is_ok()
    });
    assert_eq!(ask(&path, "after"), "after");
    // What was there goes on in the old session.
    busy.write_all(b"still!").expect("written");
    busy.read_exact(&mut said).expect("an answer");
    assert_eq!(&said, b"still!");
}

#[test]
fn a_forward_that_fails_is_reported_once_and_ends_nothing() {
    let d = Daemon::with(CONF).start();
    let (taken, path) = (TcpListener::bind("127.0.0.1:0").expect("a port"), d.place.at("near"));
    let port = taken.local_addr().expect("address").port();
    let f = Five::new(&d).config(&format!("forward = {port}:cat\nforward = {path}:cat\n"));
    let (code, out, err) = f.run(&[H, "hello"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let about = format!("five: -L {port}:cat: ");
    assert_eq!(err.lines().filter(|l| l.starts_with(&about)).count(), 1, "{err}");
    assert_eq!(f.run(&[H, "hello"]), (0, "hello\n".into(), String::new()));
    assert_eq!(ask(&path, "the other"), "the other");
}

#[test]
fn without_a_shared_session_they_last_as_long_as_the_call() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("near");
    let f = Five::new(&d).config(&format!("forward = {path}:hello\n"));
    let mut call = f.start(&["-q", "-x", H, "cat"]);
    until("it listens", || Path::new(&path).exists());
    assert_eq!(ask(&path, ""), "hello\n");
    drop(call.stdin.take());
    assert_eq!(call.wait().expect("wait").code(), Some(0));
    until("its socket is gone", || !Path::new(&path).exists());
}

#[test]
fn a_forwarded_connection_keeps_the_session_and_costs_nothing_while_it_is_silent() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("near");
    let f = Five::new(&d).config(&format!("persist = 1\nforward = {path}:cat\n"));
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let state = f.run(&["-O", "check", H]).1;
    let pid: i32 = state
        .split_whitespace()
        .find_map(|w| w.strip_prefix("pid=")?.parse().ok())
        .expect("the holder's process id");
    let mut app = UnixStream::connect(&path).expect("connect");
    let mut said = [0; 3];
    app.write_all(b"one").expect("written");
    app.read_exact(&mut said).expect("an answer");
    // Long past `persist`.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let before = proc::ticks(pid);
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert!(proc::ticks(pid) - before <= 5, "it turns without a reason");
    app.write_all(b"two").expect("written");
    app.read_exact(&mut said).expect("an answer");
    drop(app);
    until("nobody needs it any more", || !Path::new(&path).exists());
}
