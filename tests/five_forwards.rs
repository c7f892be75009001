//! five: the forwards that the session's holder has, those of the configuration and those of -O.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use support::five::{ended, finish, piped};
use support::{
    Daemon, Five, has_ipv6, installed, kill_and_wait, passwords, proc, root, skip, until,
    until_listened_at,
};

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
    let path = d.place.at("local");
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
    let path = d.place.at("local");
    let f = Five::new(&d).config(&format!("forward = {path}:cat\n"));
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let mut busy = UnixStream::connect(&path).expect("connect");
    busy.write_all(b"before").expect("written");
    let mut answer = [0; 6];
    busy.read_exact(&mut answer).expect("an answer");
    let sessions = || d.log().matches("SESSION ").count();
    let before = sessions();
    d.signal(Signal::SIGHUP);
    d.wait_log("RELOAD file=");
    // The one of before listens until it has heard of the reload.
    until("another session has them", || {
        f.run(&["-q", H, "hello"]).0 == 0
            && sessions() > before
            && UnixStream::connect(&path).is_ok()
    });
    assert_eq!(ask(&path, "after"), "after");
    // What was there goes on in the old session.
    busy.write_all(b"still!").expect("written");
    busy.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"still!");
}

#[test]
fn a_forward_that_fails_is_reported_once_and_ends_nothing() {
    let d = Daemon::with(CONF).start();
    let (taken, path) = (TcpListener::bind("127.0.0.1:0").expect("a port"), d.place.at("local"));
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
    let path = d.place.at("local");
    let f = Five::new(&d).config(&format!("forward = {path}:hello\n"));
    let mut call = f.start(&["-q", "-x", H, "cat"]);
    until_listened_at(&path);
    assert_eq!(ask(&path, ""), "hello\n");
    drop(call.stdin.take());
    assert_eq!(call.wait().expect("wait").code(), Some(0));
    until("its socket is gone", || !Path::new(&path).exists());
}

#[test]
fn a_forwarded_connection_keeps_the_session_and_costs_nothing_while_it_is_silent() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("local");
    let f = Five::new(&d).config(&format!("persist = 1\nforward = {path}:cat\n"));
    // A call keeps the session until something else does.
    let call = f.standing_call(&["-q"]);
    let state = f.run(&["-O", "check", H]).1;
    let pid: i32 = state
        .split_whitespace()
        .find_map(|w| w.strip_prefix("pid=")?.parse().ok())
        .expect("the holder's process id");
    let mut app = UnixStream::connect(&path).expect("connect");
    let mut answer = [0; 3];
    app.write_all(b"one").expect("written");
    app.read_exact(&mut answer).expect("an answer");
    assert_eq!(support::five::finish(call, b"").0, 0);
    // Long past `persist`.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let before = proc::ticks(pid);
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert!(proc::ticks(pid) - before <= 5, "it turns without a reason");
    app.write_all(b"two").expect("written");
    app.read_exact(&mut answer).expect("an answer");
    drop(app);
    until("nobody needs it any more", || !Path::new(&path).exists());
}

/// As a unit of systemd does it: `five -N` runs, and its session has the configuration's forwards.
#[test]
fn what_is_kept_has_them_again_whenever_a_session_ends() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("local");
    let f = Five::new(&d).config(&format!("forward = {path}:hello\n"));
    let mut kept = f.start(&["-N", H]);
    let served = || {
        let Ok(mut app) = UnixStream::connect(&path) else { return false };
        let mut all = String::new();
        app.read_to_string(&mut all).is_ok() && all == "hello\n"
    };
    until("they are there", served);
    kill(Pid::from_raw(f.holder()), Signal::SIGKILL).expect("kill");
    until("they are there after the end of a session", served);
    // A call goes on in the session that takes no new ones.
    let call = f.standing_call(&["-q"]);
    d.signal(Signal::SIGHUP);
    d.wait_log("RELOAD file=");
    until("the session drains", || f.run(&["-O", "check", H]).1.contains("state=draining"));
    until("they are there beside it", served);
    assert_eq!(support::five::finish(call, b"").0, 0);
    kill_and_wait(&mut kept);
}

/// -O with these words, which succeeds and prints only this.
#[track_caller]
fn order(f: &Five, words: &[&str]) -> String {
    let (code, out, err) = f.run(&[&["-q", "-O"], words, &[H]].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{words:?}: {out}");
    out
}

#[test]
fn an_order_adds_a_forward_that_keeps_the_session_until_it_is_cancelled() {
    let d = Daemon::with(CONF).start();
    let (path, other) = (d.place.at("local"), d.place.at("other"));
    let f = Five::new(&d).config(&format!("persist = 1\nforward = {other}:hello\n"));
    // A call keeps the session until something else does.
    let call = f.standing_call(&["-q"]);
    assert_eq!(order(&f, &["forward", "-L", &format!("{path}:cat")]), "");
    assert_eq!(support::five::finish(call, b"").0, 0);
    let forwards = format!(
        "forward={other} service=hello host= by=configuration\n\
         forward={path} service=cat host= by=order\n"
    );
    assert_eq!(order(&f, &["list"]), forwards);
    // Long past `persist`.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let mut app = UnixStream::connect(&path).expect("connect");
    let mut answer = [0; 3];
    app.write_all(b"one").expect("written");
    app.read_exact(&mut answer).expect("an answer");
    assert_eq!(order(&f, &["cancel", "-L", &format!("{path}:cat")]), "");
    assert!(UnixStream::connect(&path).is_err() && !Path::new(&path).exists());
    // What was open goes on to its end.
    app.write_all(b"two").expect("written");
    app.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"two");
    assert_eq!(order(&f, &["cancel", "-L", &format!("{other}:hello")]), "");
    assert!(!Path::new(&other).exists(), "those of the configuration can be cancelled, too");
    drop(app);
    until("nobody needs the session any more", || f.sessions().is_empty());
}

#[test]
fn an_ordered_forward_goes_to_the_next_session() {
    let d = Daemon::with(CONF).start();
    let path = d.place.at("local");
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    order(&f, &["forward", "-L", &format!("{path}:cat")]);
    let mut busy = UnixStream::connect(&path).expect("connect");
    let mut answer = [0; 6];
    busy.write_all(b"before").expect("written");
    busy.read_exact(&mut answer).expect("an answer");
    // Nobody else makes a session; whoever connects meanwhile waits for it.
    d.signal(Signal::SIGHUP);
    d.wait_log("RELOAD file=");
    until("the session takes no more calls", || {
        f.run(&["-O", "check", H]).1.contains("state=draining")
    });
    assert_eq!(ask(&path, "after"), "after");
    busy.write_all(b"still!").expect("written");
    busy.read_exact(&mut answer).expect("an answer");
    drop(busy);
    let forward = format!("forward={path} service=cat host= by=order\n");
    until("the old session is over", || order(&f, &["list"]) == forward);
    // The session breaks, and cannot be resumed.
    let old = format!(" pid={} ", f.holder());
    kill(Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill");
    until("it has ended", || !f.run(&["-O", "check", H]).1.contains(&old));
    assert_eq!(ask(&path, "replaced"), "replaced");
    until("one holder has it", || order(&f, &["list"]) == forward);
    // An application comes as the session breaks, before its holder has noticed.
    let holder = Pid::from_raw(f.holder());
    kill(holder, Signal::SIGSTOP).expect("kill");
    let mut app = UnixStream::connect(&path).expect("connect");
    app.write_all(b"as it breaks").expect("written");
    app.shutdown(std::net::Shutdown::Write).expect("half-close");
    kill(Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill");
    d.wait_logs("WARN net: ", 2);
    kill(holder, Signal::SIGCONT).expect("kill");
    let mut all = String::new();
    app.read_to_string(&mut all).expect("an answer");
    assert_eq!(all, "as it breaks");
    until("one holder has it", || order(&f, &["list"]) == forward);
    order(&f, &["cancel", "-L", &format!("{path}:cat")]);
    assert!(!Path::new(&path).exists());
}

#[test]
fn an_ordered_forward_waits_for_a_server_and_can_be_cancelled_meanwhile() {
    for last in [&["exit"][..], &["cancel"]] {
        let d = Daemon::with(&format!("resume_timeout_anonymous = 1\n{CONF}")).start();
        let path = d.place.at("local");
        let f = Five::new(&d);
        assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
        let forward = format!("{path}:cat");
        order(&f, &["forward", "-L", &forward]);
        let holder = f.holder();
        d.signal(Signal::SIGTERM);
        until("there is no session any more", || f.run(&["-O", "check", H]).0 == 255);
        let listed = format!("forward={path} service=cat host= by=order\n");
        assert_eq!(order(&f, &["list"]), listed);
        let mut waiting = UnixStream::connect(&path).expect("connect");
        match last {
            ["cancel"] => order(&f, &["cancel", "-L", &forward]),
            words => order(&f, words),
        };
        assert!(!Path::new(&path).exists());
        assert!(matches!(waiting.read(&mut [0]), Ok(0) | Err(_)));
        until("its holder has ended", || !proc::alive(holder));
        assert!(f.sessions().is_empty());
    }
}

#[test]
fn an_ordered_forward_of_a_port_is_named_by_the_port_that_it_got() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    // A script reads it from the output, whatever else is printed.
    let out = order(&f, &["forward", "-L", "0:cat"]);
    let port: u16 = out.trim_end().parse().unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let connect = || std::net::TcpStream::connect((H, port));
    let mut app = connect().expect("the forward");
    app.write_all(b"one").expect("written");
    app.shutdown(std::net::Shutdown::Write).expect("half-close");
    let mut all = String::new();
    app.read_to_string(&mut all).expect("an answer");
    assert_eq!(all, "one");
    assert_eq!(order(&f, &["list"]), format!("forward={port} service=cat host= by=order\n"));
    order(&f, &["cancel", "-L", &format!("{port}:cat")]);
    assert!(connect().is_err());
}

/// As ssh -L does: an application may take either for `localhost`.
#[test]
fn a_forward_at_a_name_listens_at_each_of_its_addresses_that_this_computer_has() {
    if !root() || !installed("unshare") || !has_ipv6() {
        return skip("needs root, unshare and IPv6, for an /etc/hosts of its own");
    }
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    // That of a network for documentation, which nobody has.
    let names = "::1 both\n127.0.0.1 both\n127.0.0.1 both\n192.0.2.1 both\n192.0.2.1 none\n";
    let hosts = d.place.write("hosts", names, 0o644);
    let script = format!("mount --bind {hosts} /etc/hosts && exec \"$@\"");
    let forward = |forward: &str| {
        let before = ["-m", "sh", "-c", &script, "sh"];
        let words = ["-O", "forward", "-L", forward, H];
        finish(piped(&mut f.command_by("unshare", &before, &words)), b"")
    };
    let (code, out, err) = forward("both:0:cat");
    assert_eq!(code, 0, "{err}");
    let port: u16 = out.trim_end().parse().expect("a port");
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let mut c = TcpStream::connect((ip, port)).expect("a listener");
        c.write_all(b"x").and_then(|()| c.shutdown(Shutdown::Write)).expect("write");
        let mut all = Vec::new();
        c.read_to_end(&mut all).expect("read");
        assert_eq!(all, b"x", "{ip}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("address").port();
    for (text, why) in [
        (format!("both:{taken}:cat"), "Address already in use"),
        ("none:0:cat".into(), "Cannot assign requested address"),
    ] {
        let (code, out, err) = forward(&text);
        assert!(code == 255 && out.is_empty() && err.contains(why), "{text}: {out}{err}");
    }
}

#[test]
fn a_path_that_is_too_long_for_a_socket_says_so() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let path = format!("/{}", "x".repeat(107));
    let (code, _, told) = f.run(&["-L", &format!("{path}:cat"), H]);
    let why =
        format!("five: -L {path}:cat: its path has 108 bytes, that of a socket 107 at most\n");
    assert_eq!((code, told), (255, why));
}

#[test]
fn an_order_that_cannot_be_carried_out_says_why() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let fails = |words: &[&str], why: &str| {
        let (code, out, err) = f.run(&[words, &[H]].concat());
        assert_eq!((code, out.as_str()), (255, ""), "{words:?}");
        assert!(err.contains(why), "{words:?}: {err}");
    };
    let path = d.place.at("local");
    let forward = format!("{path}:cat");
    fails(&["-O", "forward", "-L", &forward], "no session");
    assert!(!Path::new(&path).exists(), "nothing stays of it");
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    fails(
        &["-O", "cancel", "-L", &forward],
        &format!("five: -L {forward}: the session has no such forward (-O list shows them)"),
    );
    // Whoever connects to `localhost` might reach the other program.
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(taken) = TcpListener::bind(loopback) else { continue };
        let port = taken.local_addr().expect("address").port();
        fails(&["-O", "forward", "-L", &format!("{port}:cat")], "Address already in use");
    }
}

#[test]
fn an_order_about_several_does_what_it_can() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    assert_eq!(f.run(&["-q", H, "hello"]).0, 0);
    let (path, web) = (format!("{}:cat", d.place.at("local")), "web:127.0.0.1:80");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = format!("{}:cat", busy.local_addr().expect("address").port());
    let ran = |order, all: [&str; 4]| f.run(&[&["-O", order][..], &all, &["-R", web, H]].concat());
    let (code, _, err) = ran("forward", ["-L", &busy, "-L", &path]);
    let what = format!("five: -L {busy}: Address already in use\nfive: -R {web}: Not offered\n");
    assert_eq!((code, err), (255, what));
    let listed = order(&f, &["list"]);
    assert!(listed.contains(" service=cat host= by=order\n"), "{listed}");
    let (code, _, err) = ran("cancel", ["-L", &busy, "-L", &path]);
    let none =
        |what, kind| format!("five: {what}: the session has no such {kind} (-O list shows them)\n");
    let what = none(format!("-L {busy}"), "forward") + &none(format!("-R {web}"), "offer");
    assert_eq!((code, err), (255, what));
    assert_eq!(order(&f, &["list"]), "");
    assert_eq!(order(&f, &["exit"]), "");
    let (code, _, err) = ran("cancel", ["-L", &busy, "-L", &path]);
    let what = format!("five: {H}:{}: no session\n", f.port());
    assert_eq!((code, err), (255, what), "that is said once");
}

/// A line of -O is a line, and a word of it a word, whatever is in names and paths.
#[test]
fn what_orders_print_is_escaped_as_in_the_log() {
    let conf = format!("passwords = @DIR@/passwd\n{CONF}");
    let d = Daemon::with(&conf).file("passwd", &passwords(&["x via= y"])).start();
    let asks = d.place.write("asks", "#!/bin/sh\necho demopass\n", 0o755);
    let f = Five::new(&d).env("SSH_ASKPASS", &asks);
    let ran = |words: &[&str]| f.run(&[words, &["-q", "-l", "x via= y", H]].concat());
    assert_eq!(ran(&["-v", "-n"]).0, 0);
    let (_, out, _) = ran(&["-O", "check"]);
    let whose = format!("session=x\\x20via=\\x20y@{H}:{} via= pid=", f.port());
    assert!(out.starts_with(&whose), "{out}");
    for name in ["a b", "a\nb", "a\\x20c", "\u{fc}"] {
        let path = d.place.at(name);
        let shown = path.replace('\\', "\\\\").replace(' ', "\\x20").replace('\n', "\\x0a");
        let shown = shown.replace('\u{fc}', "\\xc3\\xbc");
        for cancelled in [&path, &shown] {
            let forward = format!("{path}:cat");
            let done = ran(&["-O", "forward", "-H", "v h", "-L", &forward]);
            assert_eq!(done.0, 0, "{done:?}");
            let line = format!("forward={shown} service=cat host=v\\x20h by=order\n");
            assert_eq!(ran(&["-O", "list"]).1, line);
            let done = ran(&["-O", "cancel", "-L", &format!("{cancelled}:cat")]);
            assert_eq!(done, (0, "".into(), "".into()), "{cancelled}");
            assert_eq!(ran(&["-O", "list"]).1, "");
        }
    }
}

#[test]
fn an_order_s_answer_that_cannot_be_printed_is_an_error() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let mut open = f.start(&["-q", H, "cat"]);
    open.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
    open.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("an answer");
    for order in ["check", "list"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut c = f.command(&["-p", &f.port(), "-O", order, H]);
        let child = c.stdout(full).stderr(Stdio::piped()).spawn().expect("five");
        let told = "five: standard output: No space left on device\n";
        assert_eq!(ended(child), (255, "".into(), told.into()), "{order}");
    }
    kill_and_wait(&mut open);
}

/// What an application gets is the service's connection, as without five.
#[test]
fn forwards_do_not_use_run() {
    let row = "both stream tcp nowait @USER@ /bin/sh sh -c 'echo run=$FIVED_RUN; echo err >&2'\n";
    let d = Daemon::with(row).start();
    let f = Five::new(&d);
    let (mut call, at) = f.forwards(&["-L", "0:both"]);
    let mut all = String::new();
    let mut c = std::net::TcpStream::connect(&at[0]).expect("a forward");
    c.read_to_string(&mut all).expect("its end");
    assert_eq!(all, "run=\nerr\n");
    let _ = call.kill().and_then(|()| call.wait());
}

#[test]
fn a_session_can_be_multipath_tcp() {
    if !installed("ss") || std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_err() {
        return skip("needs ss and a kernel with Multipath TCP");
    }
    let d = Daemon::with(CONF).start();
    for (value, multipath) in [("yes", true), ("no", false)] {
        let f = Five::new(&d).config(&format!("mptcp = {value}\n"));
        let mut call = f.standing_call(&["-q", "-x"]);
        let all = std::process::Command::new("ss").args(["-MHn", "dst", H]).output().expect("ss");
        let of_it = format!("{H}:{}", f.port());
        let text = String::from_utf8_lossy(&all.stdout);
        let any = text.lines().any(|l| l.split_whitespace().nth(4) == Some(&of_it));
        assert_eq!(any, multipath, "{text}");
        drop(call.stdin.take());
        assert_eq!(call.wait().expect("wait").code(), Some(0));
    }
}

#[test]
fn a_five_that_reads_nothing_for_a_while_keeps_its_connections() {
    let limits = "max_services_per_source = 1000\nmax_streams_anonymous = 400\n";
    let d = Daemon::with(&format!("{limits}{CONF}")).start();
    let f = Five::new(&d);
    let path = d.place.at("local");
    let (mut child, _) = f.forwards(&["-L", &format!("{path}:cat")]);
    let connected = || {
        let mut app = UnixStream::connect(&path).expect("the forward");
        app.write_all(b"?").expect("written");
        app.read_exact(&mut [0]).expect("an answer");
        app
    };
    let mut kept = connected();
    // The end of each is more than its channel to the holder takes.
    let apps: Vec<_> = (0..320).map(|_| connected()).collect();
    let five = Pid::from_raw(child.id() as i32);
    kill(five, Signal::SIGSTOP).expect("stopped");
    drop(apps);
    let streams = || f.run(&["-O", "check", H]).1;
    until("the others have ended", || !streams().contains("streams=3"));
    until("the others have ended", || {
        [" streams=1 ", " streams=0 "].iter().any(|n| streams().contains(n))
    });
    kill(five, Signal::SIGCONT).expect("continued");
    drop(connected());
    kept.write_all(b"still").expect("written");
    let mut answer = [0; 5];
    kept.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"still");
    kill_and_wait(&mut child);
}
