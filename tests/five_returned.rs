//! five: calls that wait for a stream of a session that ends, or takes no more of them. Its holder
//! returns them, and they are made on the next session.

mod support;

use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};
use support::five::{finish, piped};
use support::*;

const CONF: &str = "
max_streams_anonymous = 2
max_services_per_source = 1000
cat    stream tcp nowait @USER@ /bin/cat cat
";
const H: &str = "127.0.0.1";
/// Those that wait. One a second would take longer than a test waits.
const WAITING: usize = 200;

/// A connection through the forward, which says its number.
fn application(address: &str, number: usize) -> TcpStream {
    let mut app = TcpStream::connect(address).expect("the forward");
    app.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    app.write_all(number.to_string().as_bytes()).expect("written");
    app
}

/// Whoever is served makes room for another one.
fn say_all(waiting: &[TcpStream]) {
    waiting.iter().for_each(|app| app.shutdown(Shutdown::Write).expect("its end"));
}

/// They are served, in the time that each test has: what each has said comes back, whole and once.
fn are_served(waiting: Vec<TcpStream>) {
    let end = Instant::now() + TIMEOUT;
    for (mut app, number) in waiting.into_iter().zip(2..) {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        app.set_read_timeout(Some(left)).expect("timeout");
        let mut all = String::new();
        app.read_to_string(&mut all).unwrap_or_else(|e| panic!("application {number}: {e}"));
        assert_eq!(all, number.to_string());
    }
}

/// Two that have the two streams of the session, and so many that wait; the five that forwards.
fn world(d: &Daemon, f: &Five, waiting: usize) -> (Child, Vec<TcpStream>, Vec<TcpStream>) {
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:cat"]);
    // It says much, and stands still where nobody reads that.
    let mut said = child.stderr.take().expect("piped");
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    let mut served: Vec<_> = (0..2).map(|n| application(&addresses[0], n)).collect();
    for (n, app) in served.iter_mut().enumerate() {
        let mut said = [0];
        app.read_exact(&mut said).expect("an answer");
        assert_eq!(said[0], b'0' + n as u8);
    }
    let all = format!(" streams=2 waiting={waiting}\n");
    let waiting = (2..2 + waiting).map(|n| application(&addresses[0], n)).collect();
    until("they wait", || f.run(&["-O", "check", H]).1.ends_with(&all));
    assert_eq!(d.services().len(), 2);
    (child, served, waiting)
}

#[test]
fn those_that_wait_leave_a_session_that_takes_no_more_streams_at_once() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (mut child, served, waiting) = world(&d, &f, WAITING);
    say_all(&waiting);
    d.reload(CONF);
    are_served(waiting);
    for mut app in served {
        app.write_all(b"!").expect("written");
        let mut answer = [0];
        app.read_exact(&mut answer).expect("the old session goes on");
        assert_eq!(&answer, b"!");
    }
    kill_and_wait(&mut child);
}

#[test]
fn those_that_wait_are_served_by_the_next_session() {
    let at = free_address();
    let mut d = Daemon::with(CONF).listen(&at.to_string()).start();
    let f = Five::new(&d);
    let (mut child, served, waiting) = world(&d, &f, WAITING);
    say_all(&waiting);
    d.switch_off();
    let conf = format!("state_directory = {}\n{CONF}", d.place.at("state"));
    let _again = Daemon::with(&conf).stateless().listen(&at.to_string()).start();
    are_served(waiting);
    for mut app in served {
        match app.read(&mut [0]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("its service has ended: {other:?}"),
        }
    }
    kill_and_wait(&mut child);
}

/// As those do whose session was lost; who connects meanwhile waits with them.
#[test]
fn those_that_wait_are_served_after_a_server_that_has_ended_in_order() {
    let at = free_address();
    let mut d =
        Daemon::with(&format!("shutdown_timeout = 1\n{CONF}")).listen(&at.to_string()).start();
    let f = Five::new(&d);
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:cat"]);
    let mut said = child.stderr.take().expect("piped");
    let (to, steps) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(&mut said).lines().map_while(Result::ok);
        lines.try_for_each(|line| to.send(line))
    });
    let hears = |what: &str| loop {
        let step = steps.recv_timeout(TIMEOUT).unwrap_or_else(|e| panic!("{what}: {e}"));
        if step.contains(what) {
            break;
        }
    };
    let served = [0, 1].map(|n| application(&addresses[0], n));
    let mut waiting: Vec<_> = (2..6).map(|n| application(&addresses[0], n)).collect();
    until("they wait", || f.run(&["-O", "check", H]).1.ends_with(" streams=2 waiting=4\n"));
    d.signal(Signal::SIGTERM);
    d.wait();
    hears("there is no session now, and it is tried again");
    waiting.extend((6..100).map(|n| application(&addresses[0], n)));
    say_all(&waiting);
    drop(served);
    let conf = format!("state_directory = {}\n{CONF}", d.place.at("state"));
    let _again = Daemon::with(&conf).stateless().listen(&at.to_string()).start();
    are_served(waiting);
    kill_and_wait(&mut child);
}

/// That is no session that breaks as soon as it is made, of which five makes no more than twenty.
#[test]
fn those_that_wait_may_be_returned_any_number_of_times() {
    const RELOADS: usize = 22;
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let (mut child, _served, waiting) = world(&d, &f, 2 * RELOADS + 4);
    for left in (0..RELOADS).rev() {
        d.reload(CONF);
        // The next session has two of them.
        let all = format!(" state=up streams=2 waiting={}\n", 2 * left + 4);
        until("they wait", || f.run(&["-O", "check", H]).1.contains(&all));
    }
    say_all(&waiting);
    are_served(waiting);
    kill_and_wait(&mut child);
}

#[test]
fn who_waits_for_a_stream_hears_why() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let held = [(); 2].map(|()| f.standing_call(&[]));
    let file = d.place.at("said");
    let into = format!("exec \"$0\" \"$@\" 2>{file}");
    let call = piped(&mut f.command_by("sh", &["-c", &into], &["-n", H, "cat"]));
    let said = || std::fs::read_to_string(&file).unwrap_or_default();
    until("it is said", || {
        said().contains("the server takes no more streams: waiting for one to end")
    });
    for call in held {
        assert_eq!(finish(call, b"").0, 0);
    }
    assert_eq!(finish(call, b"").0, 0);
    assert_eq!(said().lines().count(), 1, "{}", said());
}
