//! Descriptors run out in the parent, or in net: whoever comes is told `-Service busy`, nobody who
//! is there loses anything, and all is as before when some are free again.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use support::*;
use tls::Tls;
use yamux_client::Client as Mux;

const CONF: &str = "max_sessions_per_source = 1000\nmax_services_per_source = 1000\nhello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

fn in_tls(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "nobody.example")
}

/// So many descriptors for each of fived's processes; of the parent's, 18 are taken.
const FEW: [&str; 4] = [
    "bash",
    "-c",
    "ulimit -n 64; for n in {10..27}; do eval \"exec $n</dev/null\"; done; exec \"$@\"",
    "bash",
];

#[test]
fn the_parent_without_descriptors_is_busy_and_nobody_is_lost() {
    if !installed("bash") {
        return skip("needs bash");
    }
    let d = Daemon::with(&format!("passwords = @DIR@/passwd\n{CONF}"))
        .file("passwd", "")
        .under(&FEW)
        .start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later: Vec<Tls> = (0..3).map(|_| in_tls(&d)).collect();
    let mut tcp = d.connect();
    tcp.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(tcp.0);
    let mut stream = mux.ask("cat\r\nx");
    stream.expect("+Go\r\nx");
    let mut login = d.connect();
    login.send("AUTH\r\nsomebody\r\n").expect("+ Success\r\nEnter Username: Enter Password: ");
    // Each session is a channel of the parent's.
    let mut sessions = Vec::new();
    until("the parent is short of them", || {
        let mut c = d.connect();
        c.send("HOST\r\n");
        let line = first_line(&mut c.0);
        assert!(["+ Success\r\n", BUSY].contains(&line.as_str()), "{line:?}");
        sessions.push(c);
        d.log().contains("WARN descriptors: ")
    });
    // How many depends on what else is open, or still is, in this moment.
    assert!(sessions.len() > 1, "{}", sessions.len());
    for _ in 0..20 {
        let answer = String::from_utf8(d.ask("hello\r\n")).expect("ASCII");
        assert!([BUSY, HELLO].contains(&answer.as_str()), "{answer:?}");
    }
    for c in &mut later {
        c.send(b"hello\r\n");
        // To its close_notify: an end without one is an error.
        let answer = String::from_utf8(c.read_all()).expect("ASCII");
        assert!([BUSY, HELLO].contains(&answer.as_str()), "{answer:?}");
    }
    // What all of these had comes back when the parent knows that they have ended.
    (2..5).for_each(|n| drop(d.wait_log(&format!("END session={n} "))));
    until("no service runs", || {
        let log = d.log();
        let lines = |verb: &str| log.matches(&format!("{verb} service=hello ")).count();
        lines("START") == lines("EXIT")
    });
    // These last: they begin with none of the last descriptors, however many sessions go and come.
    take_all_sessions(&d, &mut sessions);
    // A session needs two at once, a dialogue in a stream one.
    let mut dialogues = Vec::new();
    until("no dialogue more", || {
        let mut c = mux.ask("HOST\r\n");
        let line = first_line(&mut c);
        dialogues.push(c);
        line == BUSY
    });
    same(login.send("a password\r\n").read_all(), "- Try again later (1 s)\r\n");
    stream.write_all(b"undisturbed").expect("send");
    stream.expect("undisturbed");
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    assert_eq!(d.net_pid(), net, "nobody died of it");
    drop(sessions);
    until("all is as before", || d.ask("hello\r\n") == HELLO.as_bytes());
    let mut c = in_tls(&d);
    c.send(b"hello\r\n");
    same(c.read_all(), HELLO);
    assert!(!d.log().contains("is none") && !d.log().contains("reason=nonsense"), "{}", d.log());
}

/// Makes sessions until there is none more.
fn take_all_sessions(d: &Daemon, sessions: &mut Vec<Client>) {
    until("no session more", || {
        let mut c = d.connect();
        c.send("HOST\r\n");
        let line = first_line(&mut c.0);
        sessions.push(c);
        line == BUSY
    });
}

/// Who a row's user is, is asked when the row is: that needs two more, and takes none of the last.
#[test]
fn a_user_who_is_unknown_is_not_looked_up_with_the_last_descriptors() {
    if !installed("bash") || !root() {
        return skip("needs root and bash");
    }
    let d = Daemon::with(&format!("{CONF}late stream tcp nowait nobody-yet /bin/echo echo late\n"))
        .under(&FEW)
        .start();
    same(d.ask("late\r\n"), FAILED);
    let mut sessions = Vec::new();
    take_all_sessions(&d, &mut sessions);
    // One is left for a request's own socket.
    same(d.ask("late\r\n"), BUSY);
    d.wait_log("REFUSE service=late host= from=127.0.0.1 reason=descriptors");
    drop(sessions);
    until("all is as before", || d.ask("late\r\n") == FAILED.as_bytes());
}

/// Sets the limit of a process that runs; what it may be raised to stays.
fn allow(pid: i32, descriptors: u64) {
    // As its own user: root may lack the right to do so for others.
    let id = |field| proc::status(pid, field).split_whitespace().next().expect("an id").to_string();
    let own = [
        format!("--reuid={}", id("Uid")),
        format!("--regid={}", id("Gid")),
        "--clear-groups".into(),
    ];
    let limit = format!("--nofile={descriptors}:");
    let done = Command::new("setpriv")
        .args(own)
        .args(["prlimit", "--pid", &pid.to_string(), &limit])
        .status();
    assert!(done.expect("prlimit").success());
}

/// A plain client needs one for a moment: its own socket.
#[test]
fn a_plain_client_gets_none_of_the_last_ones() {
    if !installed("bash") {
        return skip("needs bash");
    }
    // A session needs more than one: whether one is left depends on how many there were.
    let is_refused = |taken: &str| {
        let under = FEW.map(|w| w.replace("64", "256").replace("27", taken));
        let d = Daemon::with(CONF).under(&under.each_ref().map(String::as_str)).start();
        let mut sessions = Vec::new();
        take_all_sessions(&d, &mut sessions);
        // So many sessions were refused that no more refusals of their source have lines.
        let answer = d.connect_from("127.0.0.2").send("hello\r\n").read_all();
        let answer = String::from_utf8(answer).expect("ASCII");
        assert!([BUSY, HELLO].contains(&answer.as_str()), "{answer:?}");
        if answer == BUSY {
            d.wait_log("REFUSE service=hello host= from=127.0.0.2 reason=descriptors");
        }
        answer == BUSY
    };
    assert!(["200", "201"].into_iter().any(is_refused));
}

#[test]
fn an_order_that_came_without_its_descriptors_is_no_fault_of_net_s() {
    if !installed("prlimit") || !installed("setpriv") || !root() {
        return skip("needs root, prlimit and setpriv");
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later = in_tls(&d);
    // From now on it can have none at all, without warning.
    allow(d.parent_pid(), 3);
    let mut lost = d.connect();
    // Its own socket is what was lost.
    same(lost.send("hello\r\n").read_any(), "");
    d.wait_log("WARN descriptors: ");
    // The next wait in net's channel.
    let mut waiting: Vec<Client> = (0..5).map(|_| d.connect()).collect();
    waiting.iter_mut().for_each(|c| {
        c.send("hello\r\n");
    });
    later.send(b"hello\r\n");
    same(later.read_all(), BUSY);
    let line = d.wait_log("REFUSE service=hello ");
    assert!(line.contains(" reason=descriptors session="), "{line}");
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    assert!(waiting.iter_mut().all(|c| c.silent(20)));
    allow(d.parent_pid(), 1024);
    waiting.iter_mut().for_each(|c| same(c.read_all(), HELLO));
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

#[test]
fn a_service_s_time_is_over_also_where_there_was_no_descriptor_to_end_it() {
    if !installed("prlimit") || !installed("setpriv") || !root() {
        return skip("needs root, prlimit and setpriv");
    }
    let d =
        Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n server_timeout = 3\n").start();
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx");
    allow(d.parent_pid(), 3);
    d.wait_log("WARN descriptors: ");
    c.send("y").expect("y");
    allow(d.parent_pid(), 1024);
    assert!(d.wait_log("EXIT service=cat").contains("signal=15"));
}

/// A service that is taken, so that whoever asks for it has his socket sent back to net with the
/// answer.
const ONE: &str = "one stream tcp nowait @USER@ /bin/cat cat\n instances = 1\n";

fn take(d: &Daemon) -> Client {
    let mut c = d.connect();
    c.send("one\r\nx").expect("+Go\r\nx");
    c
}

#[test]
fn a_refused_client_s_socket_waits_until_net_has_a_number_for_it() {
    if !installed("prlimit") || !installed("setpriv") || !root() {
        return skip("needs root, prlimit and setpriv");
    }
    let d = Daemon::with(&format!("{CONF}{ONE}")).start();
    let net = d.net_pid();
    let _taken = take(&d);
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    d.signal(Signal::SIGSTOP);
    let mut refused = d.connect();
    refused.send("on");
    until("net has the client", || refused.is_at(net));
    refused.send("e\r\n");
    until("the order is given", || !refused.is_at(net));
    allow(net, 3);
    d.signal(Signal::SIGCONT);
    d.wait_log("REFUSE service=one");
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    assert!(refused.silent(20));
    allow(net, 1024);
    same(refused.read_all(), BUSY);
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

/// As the user of its argument, it has more descriptors under way in a socket than 64, until its
/// input ends.
const UNDER_WAY: &str = "
import os, socket, sys
os.setgroups([]); os.setresgid(*[int(sys.argv[1])] * 3); os.setresuid(*[int(sys.argv[1])] * 3)
ours, theirs = socket.socketpair()
for _ in range(50): socket.send_fds(ours, [b'x'], [0, 0])
print('there', flush=True)
sys.stdin.read()
";

/// May more be under way than a user may have? If not, the test was told to be skipped.
fn may_be_under_way() -> bool {
    let may = ["prlimit", "setpriv", "python3"].into_iter().all(installed) && root();
    if !may {
        skip("needs root, prlimit, setpriv and python3");
    }
    may
}

/// They are this user's.
fn under_way(uid: &str) -> Child {
    let mut others = Command::new("python3")
        .args(["-c", UNDER_WAY, uid])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut reply = [0; 6];
    others.stdout.take().expect("output").read_exact(&mut reply).expect("they are under way");
    others
}

/// They have come.
fn have_come(mut others: Child) {
    drop(others.stdin.take());
    others.wait().expect("their end");
}

/// A root without the rights that lift that limit shares it with every root of this computer.
const SHARES: &str = "prlimit --nofile=64:64 setpriv --bounding-set=-sys_admin,-sys_resource \
                      --inh-caps=-sys_admin,-sys_resource";

#[test]
fn a_table_with_more_ports_than_descriptors_says_which_limit_to_raise() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let wanted = "Too many open files (os error 24): the configuration needs more descriptors than fived may open: raise that limit (LimitNOFILE=";
    let row = "discard stream tcp nowait @USER@ internal\n tcpmux = no\n port = 127.0.0.1:0\n";
    let limited = ["prlimit", "--nofile=64:64"];
    let (code, err) = Daemon::with(&row.repeat(100)).under(&limited).fails();
    assert!(code == 111 && err.contains(wanted), "{code} {err}");
    // Rows of inetd.conf are left out, but what fived itself needs is not there either.
    let rows: String = (20_001..20_101)
        .map(|n| format!("127.0.0.1:{n} stream tcp nowait @USER@ /bin/cat\n"))
        .collect();
    let d = Daemon::with("inetd = @DIR@/inetd.conf\n").file("inetd.conf", &rows);
    let (code, err) = d.under(&limited).fails();
    assert!(code == 111 && err.lines().last().is_some_and(|l| l.contains(wanted)), "{code} {err}");
}

/// unix(7), ETOOMANYREFS: it happens wherever processes of one user send many at a time. A request
/// was lost by it.
#[test]
fn requests_wait_where_net_s_user_has_too_many_descriptors_under_way() {
    if !may_be_under_way() {
        return;
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=64:64"]).start();
    let uid = proc::status(d.net_pid(), "Uid");
    let others = under_way(uid.split_whitespace().next().expect("a uid"));
    let mut waiting: Vec<Client> = (0..3).map(|_| d.connect()).collect();
    for c in &mut waiting {
        c.send("hello\r\n");
        assert!(c.silent(50));
    }
    have_come(others);
    waiting.iter_mut().for_each(|c| same(c.read_all(), HELLO));
}

#[test]
fn it_starts_when_descriptors_that_were_under_way_have_come() {
    if !may_be_under_way() {
        return;
    }
    let others = under_way("0");
    let come = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        have_come(others);
    });
    let d = Daemon::with(CONF).under(&SHARES.split_whitespace().collect::<Vec<_>>()).start();
    come.join().expect("they have come");
    same(d.ask("hello\r\n"), HELLO);
}

/// The parent's copy of a connection is closed all the same: else its client would not see the end.
#[test]
fn connections_end_while_too_many_descriptors_are_under_way() {
    if !may_be_under_way() {
        return;
    }
    let here = "here stream unix nowait @USER@ /bin/echo echo here\n port = @DIR@/here\n";
    let d = Daemon::with(here).under(&SHARES.split_whitespace().collect::<Vec<_>>()).start();
    let ask = || {
        let mut c = std::os::unix::net::UnixStream::connect(d.place.at("here")).expect("connect");
        c.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let mut all = String::new();
        c.read_to_string(&mut all).expect("its end");
        all
    };
    // From here on nobody has to be looked up.
    same(ask(), "here\n");
    let others = under_way("0");
    same(ask(), "here\n");
    have_come(others);
    same(ask(), "here\n");
}

#[test]
fn streams_leave_net_what_others_need() {
    if !installed("prlimit") || !installed("setpriv") || !root() {
        return skip("needs root, prlimit and setpriv");
    }
    let d = Daemon::with(&format!("max_streams_anonymous = 200\n{CONF}{ONE}"))
        .under(&["prlimit", "--nofile=64:64"])
        .start();
    let net = d.net_pid();
    let _taken = take(&d);
    let mut tcp = d.connect();
    tcp.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(tcp.0);
    let mut streams: Vec<_> = (0..100).map(|_| mux.ask("cat\r\n")).collect();
    let mut answer = |s: &mut yamux_client::Stream| {
        let mut line = [0; 5];
        s.read_exact(&mut line).expect("an answer");
        line
    };
    let mut answers: Vec<[u8; 5]> = streams.iter_mut().map(&mut answer).collect();
    // They left some to other sources.
    loop {
        let mut one = mux.ask("cat\r\n");
        answers.push(answer(&mut one));
        streams.push(one);
        if answers.ends_with(&[*b"-Serv"]) {
            break;
        }
    }
    assert!(answers.iter().all(|a| a == b"+Go\r\n" || a == b"-Serv"), "{answers:?}");
    let refused = answers.iter().filter(|a| *a == b"-Serv").count();
    assert!(refused > 0, "all had one");
    // Each has its line.
    assert_eq!(d.wait_logs("REFUSE service=cat ", refused).len(), refused);
    same(mux.ask("AUTH\r\n").read_all(), BUSY);
    let line = d.wait_log("REFUSE service= ");
    assert!(line.contains(" reason=descriptors session="), "{line}");
    // Another source has lines of its own.
    let ask = |request: &str| d.connect_from("127.0.0.2").send(request).read_all();
    for _ in 0..20 {
        same(ask("hello\r\n"), HELLO);
        same(ask("one\r\n"), BUSY);
        same(ask("HOST\r\n"), BUSY);
    }
    assert!(d.wait_logs("REFUSE service= ", 21)[1].contains(" reason=descriptors"));
    for (s, _) in streams.iter_mut().zip(answers).filter(|(_, a)| a == b"+Go\r\n") {
        s.write_all(b"undisturbed").expect("send");
        s.expect("undisturbed").finish();
    }
    drop(streams);
    until("all is as before", || {
        answer(&mut mux.ask("cat\r\n")) == *b"+Go\r\n"
            && d.ask("HOST\r\n\r\nhello\r\n").ends_with(HELLO.as_bytes())
    });
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

#[test]
fn a_session_for_whose_service_net_has_no_descriptor_is_refused() {
    if !installed("prlimit") || !installed("setpriv") || !root() {
        return skip("needs root, prlimit and setpriv");
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=48:48"]).start();
    let net = d.net_pid();
    let mut running = in_tls(&d);
    running.send(b"cat\r\nx");
    running.expect(b"+Go\r\nx");
    let mut later = in_tls(&d);
    let mut sessions = Vec::new();
    until("net has none left", || {
        let mut c = d.connect();
        c.send("HOST\r\n");
        sessions.push(c);
        proc::descriptors(net).len() >= 47
    });
    later.send(b"hello\r\n");
    same(later.read_all(), BUSY);
    let line = d.wait_log("REFUSE service=hello ");
    assert!(line.contains(" reason=descriptors session="), "{line}");
    running.send(b"undisturbed");
    running.expect(b"undisturbed");
    drop(sessions);
    until("all is as before", || d.ask("hello\r\n") == HELLO.as_bytes());
    assert_eq!(d.net_pid(), net, "nobody died of it");
}

/// A line, or what came of it before the end.
fn first_line(c: &mut impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") && matches!(c.read(&mut byte), Ok(1)) {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("ASCII")
}
