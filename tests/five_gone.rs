//! five: callers and applications that go before their service does.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use support::{Daemon, Five, kill_and_wait, proc, until};

const CONF: &str = "
tick   stream tcp nowait @USER@ /bin/sh  sh -c \"while echo x; do sleep 0.1; done\"
pour   stream tcp nowait @USER@ /bin/cat cat /dev/zero
banner stream tcp nowait @USER@ /bin/sh  sh -c \"echo banner; exec sleep 300\"
keep   stream tcp nowait @USER@ /bin/sh  sh -c \"cat >@DIR@/kept; sleep 300\"
slow   stream tcp nowait @USER@ /bin/sh  sh -c \"cat >/dev/null; for i in 1 2 3; do sleep 0.1; echo $i; done\"
hello  stream tcp nowait @USER@ /bin/echo echo hello
tcpmux/no stream tcp nowait @USER@ /bin/sh sh -c \"echo '-no way'; echo >@DIR@/said; exec sleep 300\"
";
const H: &str = "127.0.0.1";

/// A call without input, whose service has said something.
fn call(f: &Five, service: &str) -> Child {
    let mut child = f.start(&["-q", "-n", H, service]);
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 2]).expect("an answer");
    child
}

fn streams(f: &Five, n: u32) {
    until("the streams", || f.run(&["-O", "check", H]).1.contains(&format!(" streams={n} ")));
}

fn end(mut child: Child) {
    kill_and_wait(&mut child);
}

#[test]
fn a_killed_caller_ends_its_service_also_after_its_inputs_end() {
    let d = Daemon::with(&format!("max_streams_anonymous = 1\n{CONF}")).start();
    let f = Five::new(&d);
    end(call(&f, "tick"));
    d.wait_log("EXIT service=tick");
    // It had the one place.
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn an_output_that_nobody_reads_ends_its_service_also_after_its_inputs_end() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut child = call(&f, "tick");
    drop(child.stdout.take());
    assert_eq!(support::five::ended(child).0, 128 + 13);
    d.wait_log("EXIT service=tick");
}

#[test]
fn an_application_that_goes_ends_its_service() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let (child, addresses) = f.forwards(&[
        "-L",
        "127.0.0.1:0:tick",
        "-L",
        "127.0.0.1:0:pour",
        "-L",
        "127.0.0.1:0:banner",
        "-L",
        &format!("{path}:tick"),
    ]);
    for address in &addresses[..2] {
        TcpStream::connect(address.as_str())
            .expect("connect")
            .read_exact(&mut [0; 2])
            .expect("answer");
    }
    // What it was told is not read: its system says so at once.
    let app = TcpStream::connect(addresses[2].as_str()).expect("connect");
    app.peek(&mut [0; 1]).expect("answer");
    drop(app);
    let mut app = UnixStream::connect(&path).expect("connect");
    app.read_exact(&mut [0; 2]).expect("answer");
    drop(app);
    d.wait_logs("EXIT service=tick", 2);
    d.wait_log("EXIT service=pour");
    streams(&f, 0);
    end(child);
}

#[test]
fn an_application_that_has_sent_all_still_gets_its_answer() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let (child, addresses) = f.forwards(&["-L", "127.0.0.1:0:slow", "-L", &format!("{path}:slow")]);
    let (mut tcp, mut unix) = (
        TcpStream::connect(addresses[0].as_str()).expect("connect"),
        UnixStream::connect(&path).expect("connect"),
    );
    tcp.shutdown(Shutdown::Write).expect("half-close");
    unix.shutdown(Shutdown::Write).expect("half-close");
    let apps: [&mut dyn Read; 2] = [&mut tcp, &mut unix];
    for app in apps {
        let mut all = String::new();
        app.read_to_string(&mut all).expect("answer");
        assert_eq!(all, "1\n2\n3\n");
    }
    end(child);
}

#[test]
fn what_an_application_sent_before_it_closed_is_not_lost() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    d.place.write("kept", "", 0o666);
    let (child, _) = f.forwards(&["-L", &format!("{path}:keep")]);
    UnixStream::connect(&path).expect("connect").write_all(&[b'x'; 100_000]).expect("written");
    until("all of it", || std::fs::metadata(d.place.at("kept")).is_ok_and(|m| m.len() == 100_000));
    end(child);
}

#[test]
fn orders_do_not_prolong_a_session() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d).config("persist = 2\n");
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    // Asked without a pause, it goes all the same.
    until("its end", || [f.run(&["-O", "list", H]).0, f.run(&["-O", "check", H]).0].contains(&255));
}

#[test]
fn signals_that_whoever_started_it_had_ignored_stay_so() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let before = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"];
    let mut c = f.command_by("setsid", &before, &["-q", "-N", "-L", &format!("{path}:hello"), H]);
    let child = c.stdin(Stdio::null()).spawn().expect("five");
    let ask = || {
        let mut all = String::new();
        UnixStream::connect(&path)
            .and_then(|mut app| app.read_to_string(&mut all))
            .is_ok_and(|_| all == "hello\n")
    };
    until("it forwards", ask);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGHUP).expect("kill");
    kill(pid, Signal::SIGINT).expect("kill");
    assert!(ask());
    kill(pid, Signal::SIGTERM).expect("kill");
    assert_eq!(support::five::ended(child).0, 128 + 15);
}

#[test]
fn a_refusal_counts_also_where_the_session_breaks_after_it() {
    let mut d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    d.place.write("said", "", 0o666);
    let child = f.start(&["-n", H, "no"]);
    until("it was said", || std::fs::metadata(d.place.at("said")).is_ok_and(|m| m.len() > 0));
    // The call has heard it when a later one has heard more.
    assert_eq!(f.run(&["-n", H, "hello"]).1, "hello\n");
    d.signal(Signal::SIGINT);
    d.wait();
    let out = child.wait_with_output().expect("five");
    assert_eq!(
        (out.status.code(), String::from_utf8_lossy(&out.stderr).contains("no way")),
        (Some(254), true),
        "{out:?}"
    );
}

/// Pipelines end when every process has closed its end of the pipe.
#[test]
fn a_pipeline_ends_whatever_becomes_of_the_holder() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let call = format!("{} --accept-new -p {} {H}", env!("CARGO_BIN_EXE_five"), f.port());
    let pipeline = |service: &str| {
        let mut c = f.program("setsid");
        c.args(["sh", "-c", &format!("{call} {service} </dev/null 2>&1 | cat; echo over")]);
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        c.spawn().expect("sh")
    };
    let ends = |child: Child| support::five::ended(child).1;
    // The holder is started by this call, and stays.
    assert!(ends(pipeline("hello")).ends_with("hello\nover\n"));
    assert_eq!(ends(pipeline("hello")), "hello\nover\n");
    let holder = Pid::from_raw(f.holder());
    kill(holder, Signal::SIGSTOP).expect("kill");
    // A call that it was handed before would keep the pipe open until it goes on.
    until("it stands", || proc::status(holder.as_raw(), "State").starts_with('T'));
    let outcome = ends(pipeline("hello"));
    kill(holder, Signal::SIGCONT).expect("kill");
    assert!(outcome.contains("was stopped") && outcome.ends_with("\nover\n"), "{outcome}");
    // It is killed under a call.
    let mut open = pipeline("banner");
    open.stdout.as_mut().expect("piped").read_exact(&mut [0; 7]).expect("an answer");
    kill(holder, Signal::SIGKILL).expect("kill");
    let outcome = ends(open);
    assert!(outcome.contains("the holder of the session was ended\nover\n"), "{outcome}");
}
