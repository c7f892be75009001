//! five: one session a computer, and what becomes of it.

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy::Proxy;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::five::{ended, finish};
use support::{Daemon, Five, Place, TIMEOUT, free_port, kill_and_wait, until};

const CONF: &str = "
cat    stream tcp nowait @USER@ /bin/cat  cat
hello  stream tcp nowait @USER@ /bin/echo echo hello
number stream tcp nowait @USER@ /bin/sh   sh -c \"echo $FIVED_SESSION\"
ready  stream tcp nowait @USER@ /bin/sh   sh -c \"echo ready; exec cat\"
late   stream tcp nowait @USER@ /bin/sh   sh -c \"cat >/dev/null; echo after the end\"
[main]
ready  stream tcp nowait @USER@ /bin/sh   sh -c \"echo ready; exec cat\"
";
const H: &str = "127.0.0.1";
const LOST: &str = "the session was lost: the server no longer answers on it";

/// The same server, when it keeps no sessions that lose their connection: these end.
fn keeps_none() -> String {
    format!("resume_timeout = 0\n{CONF}")
}

fn number(f: &Five) -> String {
    let (code, out, err) = f.run(&["-q", H, "number"]);
    assert_eq!(code, 0, "{err}");
    out
}

#[test]
fn all_calls_are_one_session() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let first = number(&f);
    assert_eq!((number(&f), number(&f), f.sessions().len()), (first.clone(), first.clone(), 1));
    let others = f.run(&["-q", "-x", H, "number"]).1;
    assert!(others != first && !others.is_empty());
    assert_eq!(number(&f), first);
}

#[test]
fn twenty_may_race_to_be_the_first() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", "-x", H, "hello"]).0, 0);
    assert_eq!(f.sessions().len(), 0);
    let all: Vec<Child> = (0..20).map(|_| f.start(&["-q", H, "number"])).collect();
    let answer: Vec<_> = all.into_iter().map(|c| finish(c, b"")).collect();
    assert!(answer.iter().all(|s| s.0 == 0 && s.1 == answer[0].1), "{answer:?}");
}

#[test]
fn the_holder_belongs_to_no_terminal_and_its_socket_to_nobody_else() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let pid = f.holder();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("name").1.split_whitespace().collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert!(session != pid.to_string() && terminal == "0", "{stat}");
    if support::root() {
        for n in 0..3 {
            let to = std::fs::read_link(format!("/proc/{pid}/fd/{n}")).expect("descriptor");
            assert_eq!(to.to_str(), Some("/dev/null"));
        }
        assert_eq!(
            std::fs::read_link(format!("/proc/{pid}/cwd")).expect("cwd").to_str(),
            Some("/")
        );
    }
    let socket = std::fs::metadata(&f.sessions()[0]).expect("socket");
    let directory = std::fs::metadata(format!("{}/run/five", f.home)).expect("directory");
    assert_eq!((socket.mode() & 0o777, directory.mode() & 0o777), (0o600, 0o700));
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let directory = format!("{}/run/five", f.home);
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let (code, _, err) = f.run(&[H, "hello"]);
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).expect("mode");
    assert_eq!(
        (code, err),
        (
            255,
            format!(
                "five: {directory}: must be a directory of yours with mode 0700: sessions are found there; set XDG_RUNTIME_DIR, or use -x\n"
            )
        )
    );
}

/// As on a file system that is full.
#[test]
fn where_no_socket_can_be_made_the_message_names_the_way_out() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    let names = std::fs::read_dir(format!("{}/run/five", f.home)).expect("directory");
    let lock = names.flatten().map(|e| e.path()).find(|p| p.extension().is_some());
    let lock = lock.expect("a lock");
    std::fs::remove_file(&lock).expect("removed");
    std::fs::create_dir(&lock).expect("made");
    let (code, _, err) = f.run(&[H, "hello"]);
    let what = format!("five: {}: Is a directory: ", lock.display());
    assert!(code == 255 && err.starts_with(&what) && err.ends_with("or use -x\n"), "{code} {err}");
    std::fs::remove_dir(&lock).expect("removed");
    let socket = lock.with_extension("");
    std::fs::create_dir(&socket).expect("made");
    let ends = d.wait_logs("END session=", 2).len();
    let (code, _, err) = f.run(&[H, "hello"]);
    let what = format!("five: {}: Is a directory: ", socket.display());
    assert!(code == 255 && err.starts_with(&what) && err.ends_with("or use -x\n"), "{code} {err}");
    // The session was made already: the server does not keep it as a lost one.
    d.wait_logs("END session=", ends + 1);
    assert!(!d.log().contains("LOST "), "{}", d.log());
    assert_eq!(f.run(&["-x", H, "hello"]), (0, "hello\n".into(), String::new()));
}

#[test]
fn a_standing_session_can_be_asked_and_ended() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let none = (255, String::new(), format!("five: {H}:{}: no session\n", f.port()));
    for order in ["check", "list", "exit"] {
        assert_eq!(f.run(&["-O", order, H]), none);
    }
    let mut call = f.open_call(&["-q"]);
    let (code, out, _) = f.run(&["-O", "check", H]);
    assert!(
        code == 0
            && out.starts_with(&format!("session={H}:{} via= pid=", f.port()))
            && out.ends_with(" streams=1 waiting=0\n"),
        "{out}"
    );
    call.stdin.as_mut().expect("piped").write_all(b"12345").expect("written");
    until("the bytes are counted", || {
        let out = f.run(&["-O", "list", H]).1;
        out.starts_with("service=ready host= since=") && out.ends_with(" to=5 from=11\n")
    });
    assert_eq!(f.run(&["-O", "exit", H]), (0, String::new(), String::new()));
    assert_eq!(f.run(&["-O", "check", H]), none);
    assert_eq!(ended(call).0, 255);
    assert!(f.sessions().is_empty());
}

#[test]
fn a_session_is_found_again_after_its_socket_was_removed() {
    let d = Daemon::with(CONF).start();
    let port = free_port();
    let f = Five::new(&d).config(&format!("forward = {port}:cat\n"));
    // Something happens in the holder.
    let mut call = f.standing_call(&["-q"]);
    let mut goes_on = || {
        call.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
        call.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
    };
    let pid = f.holder();
    let directory = format!("{}/run/five", f.home);
    std::fs::remove_dir_all(&directory).expect("removed");
    assert_eq!(f.run(&["-O", "check", H]).0, 255);
    until("it is found", || {
        goes_on();
        f.run(&["-O", "check", H]).0 == 0
    });
    assert_eq!(f.holder(), pid);
    let (code, out, err) = f.run(&["-q", H, "hello"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "hello\n", ""), "and no port is in use");
    assert_eq!(f.run(&["-O", "exit", H]).0, 0);
    assert!(ended(call).2.is_empty());
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n", "its own end is as before");
}

#[test]
fn a_session_that_nobody_uses_goes() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d).config("persist = 1\n");
    let call = f.open_call(&["-q"]);
    let pid = f.holder();
    assert_eq!(finish(call, b"").0, 0);
    until("the holder ends", || !support::proc::alive(pid));
    assert!(f.sessions().is_empty());
    d.wait_log("reason=closed");
}

#[test]
fn a_killed_holder_is_replaced_and_its_calls_report_it() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let call = f.open_call(&[]);
    kill(Pid::from_raw(f.holder()), Signal::SIGKILL).expect("kill");
    let (code, _, err) = ended(call);
    assert!(code == 255 && err.ends_with(": the holder of the session was ended\n"), "{err}");
    assert_eq!(f.run(&["-q", H, "hello"]), (0, "hello\n".into(), String::new()));
}

#[test]
fn a_reload_gives_the_next_call_a_new_session_and_leaves_the_old_ones_alone() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut call = f.open_call(&["-q"]);
    let before = number(&f);
    d.reload(&CONF.replace("echo hello", "echo hullo"));
    until("the new table", || f.run(&["-q", H, "hello"]).1 == "hullo\n");
    assert_ne!(number(&f), before);
    call.stdin.as_mut().expect("piped").write_all(b"still here").expect("written");
    assert_eq!(finish(call, b"").1, "still here");
}

#[test]
fn open_calls_report_that_the_server_has_ended() {
    let mut d = Daemon::with(&keeps_none()).start();
    let f = Five::new(&d);
    let call = f.open_call(&[]);
    d.signal(Signal::SIGINT);
    d.wait();
    let (code, _, err) = ended(call);
    assert_eq!(code, 255, "{err}");
    let (code, _, err) = f.run(&[H, "hello"]);
    assert!(code == 255 && err.contains("no connection (Connection refused)"), "{err}");
    assert!(f.sessions().is_empty());
}

#[test]
fn a_session_that_died_without_a_word_is_found_dead_and_replaced() {
    let d = Daemon::with(&keeps_none()).start();
    let proxy = Proxy::new(d.address(), Duration::ZERO);
    let f = Five::at(&d.place, proxy.address);
    let before = number(&f);
    // What was heard just now counts as alive.
    until("silence", || f.run(&["-O", "check", H]).1.contains("since=2 "));
    proxy.freeze();
    let after = f.run(&["-v", H, "number"]);
    assert!(
        after.0 == 0
            && after.1 != before
            && after.2.contains("five: the session is no more: a new one is made\n"),
        "{after:?}"
    );
}

#[test]
fn input_that_was_sent_into_a_dead_session_is_not_lost() {
    let d = Daemon::with(CONF).start();
    let proxy = Proxy::new(d.address(), Duration::ZERO);
    let f = Five::at(&d.place, proxy.address);
    number(&f);
    proxy.freeze();
    let input = vec![b'x'; 200_000];
    let (code, out, err) = f.run_with(&["-q", H, "cat"], &input);
    assert_eq!((code, out.len(), err.as_str()), (0, input.len(), ""));
}

#[test]
fn a_call_that_writes_into_a_dead_session_reports_it() {
    let d = Daemon::with(&keeps_none()).start();
    let proxy = Proxy::new(d.address(), Duration::ZERO);
    let f = Five::at(&d.place, proxy.address);
    let mut call = f.open_call(&[]);
    proxy.freeze();
    call.stdin.as_mut().expect("piped").write_all(b"anybody there?").expect("written");
    let end = std::time::Instant::now() + TIMEOUT;
    let stdin = call.stdin.take();
    let (code, _, err) = ended(call);
    assert!(std::time::Instant::now() < end);
    assert_eq!(code, 255);
    assert!(err.ends_with(&format!("{LOST}\n")), "{err}");
    drop(stdin);
    assert_eq!(f.run(&["-q", H, "hello"]).1, "hello\n");
}

#[test]
fn more_calls_than_the_server_allows_wait_for_their_turn() {
    let d = Daemon::with(&format!("max_streams_anonymous = 2\n{CONF}")).start();
    let f = Five::new(&d);
    let mut held: Vec<Child> = (0..2).map(|_| f.open_call(&["-q"])).collect();
    let mut waiting: Vec<Child> = (0..4).map(|_| f.start(&["-q", H, "late"])).collect();
    until("they wait", || f.run(&["-O", "check", H]).1.ends_with(" streams=2 waiting=4\n"));
    for call in held.drain(..) {
        assert_eq!(finish(call, b"").0, 0);
    }
    // Whoever has its turn first must not wait for another's input to end.
    waiting.iter_mut().for_each(|call| drop(call.stdin.take()));
    for call in waiting {
        assert_eq!(ended(call), (0, "after the end\n".into(), String::new()));
    }
}

#[test]
fn an_output_that_stands_still_makes_nobody_else_wait() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut stalled = f.open_call(&["-q"]);
    let mut stdin = stalled.stdin.take().expect("piped");
    let filler = std::thread::spawn(move || stdin.write_all(&vec![b'x'; 20_000_000]).is_ok());
    for _ in 0..5 {
        let big = vec![b'y'; 1_000_000];
        assert_eq!(f.run_with(&["-q", H, "cat"], &big).1.len(), big.len());
    }
    let (code, out, _) = ended(stalled);
    assert_eq!((code, out.len()), (0, 20_000_000));
    assert!(filler.join().expect("filler"));
}

#[test]
fn applications_reach_services_by_a_port_of_this_computer() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:cat", "-L", "0:late"]);
    for _ in 0..3 {
        for (address, wanted) in
            [(&addresses[0], "through and back"), (&addresses[1], "after the end\n")]
        {
            let mut app = TcpStream::connect(address.as_str()).expect("connect");
            app.write_all(b"through and back").expect("written");
            app.shutdown(Shutdown::Write).expect("half-close");
            let mut all = String::new();
            app.read_to_string(&mut all).expect("answer");
            assert_eq!(all, wanted);
        }
    }
    // Another one may not have the port, and is told so.
    let port = addresses[0].rsplit_once(':').expect("port").1;
    let (code, _, err) = f.run(&["-N", "-L", &format!("{port}:cat"), H]);
    assert_eq!((code, err), (255, format!("five: -L {port}:cat: Address already in use\n")));
    kill_and_wait(&mut child);
    // Nor is a file that is no socket replaced.
    let file = d.place.write("file", "mine", 0o600);
    let (code, _, err) = f.run(&["-N", "-L", &format!("{file}:cat"), H]);
    let why = "there is a file of that name, which is no socket";
    assert_eq!((code, err), (255, format!("five: -L {file}:cat: {why}\n")));
}

#[test]
fn asking_whether_a_forward_s_socket_is_in_use_starts_no_service() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let forward = format!("{}:cat", d.place.at("local"));
    let (mut child, _) = f.forwards(&["-L", &forward]);
    let (code, _, err) = f.run(&["-N", "-L", &forward, H]);
    assert!(code == 255 && err.contains("Address already in use"), "{err}");
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    assert!(!d.log().contains("START service=cat"), "{}", d.log());
    kill_and_wait(&mut child);
    // One that was left behind is replaced.
    let (mut child, _) = f.forwards(&["-L", &forward]);
    kill_and_wait(&mut child);
}

#[test]
fn a_forward_outlives_its_session() {
    let d = Daemon::with(CONF).start();
    let proxy = Proxy::new(d.address(), Duration::ZERO);
    let f = Five::at(&d.place, proxy.address);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:hello"]);
    let ask = || {
        let mut all = String::new();
        TcpStream::connect(addresses[0].as_str())
            .expect("connect")
            .read_to_string(&mut all)
            .expect("answer");
        all
    };
    assert_eq!(ask(), "hello\n");
    kill(Pid::from_raw(f.holder()), Signal::SIGKILL).expect("kill");
    assert_eq!(ask(), "hello\n");
    proxy.freeze();
    assert_eq!(ask(), "hello\n");
    kill_and_wait(&mut child);
}

#[test]
fn a_socket_in_the_file_system_is_a_forward_too() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let path = d.place.at("app");
    let (child, addresses) = f.forwards(&["-L", &format!("{path}:cat")]);
    assert_eq!(addresses, std::slice::from_ref(&path));
    assert_eq!(std::fs::metadata(&path).expect("socket").mode() & 0o777, 0o600);
    let mut app = UnixStream::connect(&path).expect("connect");
    app.write_all(b"x").expect("written");
    app.shutdown(Shutdown::Write).expect("half-close");
    let mut all = String::new();
    app.read_to_string(&mut all).expect("answer");
    assert_eq!(all, "x");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
    assert_eq!(ended(child).0, 128 + 15);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn a_service_and_forwards_beside_it() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let call = f.open_call(&["-q", "-L", &format!("{path}:hello")]);
    let mut all = String::new();
    UnixStream::connect(&path).expect("connect").read_to_string(&mut all).expect("answer");
    assert_eq!(all, "hello\n");
    assert_eq!(finish(call, b"x"), (0, "x".into(), String::new()));
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn forwards_speak_rfc_1078_too() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = d.place.at("app");
    let mut child = f.start(&["--plain", "-N", "-L", &format!("{path}:cat"), H]);
    until("the socket", || UnixStream::connect(&path).is_ok());
    let mut app = UnixStream::connect(&path).expect("connect");
    app.write_all(b"plain").expect("written");
    app.shutdown(Shutdown::Write).expect("half-close");
    let mut all = String::new();
    app.read_to_string(&mut all).expect("answer");
    assert_eq!(all, "plain");
    kill_and_wait(&mut child);
}

/// Round trips, counted where they matter: between the computers.
#[test]
fn a_new_session_costs_two_round_trips_and_a_call_on_it_one() {
    let d = Daemon::with(&keeps_none()).start();
    let proxy = Proxy::new(d.address(), Duration::from_millis(60));
    let counted = || {
        let place = Place::new();
        let f = Five::at(&place, proxy.address);
        assert_eq!(f.run(&["-q", "-x", H, "hello"]).0, 0);
        let host = &["-q", "-H", "main"][..];
        let (calls, counts): (Vec<_>, Vec<_>) = [&["-q"][..], &["-q"], host, host]
            .iter()
            .map(|words| {
                let call = f.open_call(words);
                let way = proxy.ways().pop().expect("a connection");
                (call, way.round_trips.load(Ordering::SeqCst))
            })
            .unzip();
        for call in calls {
            assert_eq!(finish(call, b"").0, 0);
        }
        counts
    };
    // ClientHello; then everything else. Whether the server has the virtual host comes first, once.
    needs(&[2, 3, 5, 6], counted);
}

/// So many round trips, once all that can be said at once is said in time.
fn needs(wanted: &[usize], mut counted: impl FnMut() -> Vec<usize>) {
    until(&format!("{wanted:?} round trips"), || {
        let counts = counted();
        println!("{counts:?}");
        counts == wanted
    });
}

/// It acknowledges what it has had, at a time of its own: what comes before that is counted.
#[test]
fn a_session_that_can_be_resumed_costs_no_more_round_trips() {
    let d = Daemon::with(CONF).start();
    let proxy = Proxy::new(d.address(), Duration::from_millis(5));
    let f = Five::at(&d.place, proxy.address);
    assert_eq!(f.run(&["-q", "-x", H, "hello"]).0, 0);
    needs(&[2], || {
        let call = f.open_call(&["-q", "-x"]);
        let round_trips =
            proxy.ways().pop().expect("a connection").round_trips.load(Ordering::SeqCst);
        assert_eq!(finish(call, b"").0, 0);
        vec![round_trips]
    });
}

#[test]
fn input_that_is_there_goes_with_the_request() {
    let d = Daemon::with(&keeps_none()).start();
    let proxy = Proxy::new(d.address(), Duration::from_millis(60));
    let f = Five::at(&d.place, proxy.address);
    let call = f.open_call(&["-q"]);
    let way = proxy.ways().pop().expect("a connection");
    needs(&[1], || {
        let before = way.round_trips.load(Ordering::SeqCst);
        let mut c = f.command(&["-p", &f.port(), H, "cat"]);
        let mut echo = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("five");
        echo.stdin.as_mut().expect("piped").write_all(b"echo").expect("written");
        echo.stdout.as_mut().expect("piped").read_exact(&mut [0; 4]).expect("echo");
        let count = way.round_trips.load(Ordering::SeqCst) - before;
        assert_eq!(finish(echo, b"").0, 0);
        vec![count]
    });
    assert_eq!(finish(call, b"").0, 0);
}

#[test]
fn calls_wait_for_descriptors_as_they_do_for_streams() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut c = f.command_by("prlimit", &["--nofile=32", "setsid"], &["-q", H, "hello"]);
    assert!(c.status().expect("prlimit").success());
    // The holder has room for four calls and their callers.
    let open: Vec<Child> = (0..4).map(|_| f.open_call(&["-q"])).collect();
    let mut waiting: Vec<Child> = (0..6).map(|_| f.start(&["-q", H, "late"])).collect();
    for call in open {
        assert_eq!(finish(call, b"").0, 0);
    }
    waiting.iter_mut().for_each(|call| drop(call.stdin.take()));
    for call in waiting {
        assert_eq!(ended(call), (0, "after the end\n".into(), String::new()));
    }
}

#[test]
fn a_long_list_is_whole() {
    let d = Daemon::with(&format!(
        "max_streams_anonymous = 300\nmax_streams = 300\nmax_services_per_source = 300\n{CONF}"
    ))
    .start();
    let f = Five::new(&d);
    let (mut child, addresses) = f.forwards(&["-L", "127.0.0.1:0:ready"]);
    let apps: Vec<TcpStream> = (0..250)
        .map(|_| {
            let mut app = TcpStream::connect(addresses[0].as_str()).expect("connect");
            app.read_exact(&mut [0; 6]).expect("ready");
            app
        })
        .collect();
    let (code, out, _) = f.run(&["-O", "list", H]);
    assert_eq!((code, out.lines().count()), (0, 250));
    assert!(
        out.lines().all(|l| l.starts_with("service=ready host= since=") && l.ends_with(" from=6")),
        "{out}"
    );
    drop(apps);
    kill_and_wait(&mut child);
}
