//! RESUME: a session goes on when its connection is lost.

#[path = "support/resume_client.rs"]
mod resume_client;
mod support;
#[path = "support/tls.rs"]
mod tls;

use nix::sys::signal::Signal;
use resume_client::{Session, claim, line};
use std::io::{ErrorKind, Read};
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;

const CONF: &str = "
cat stream tcp nowait @USER@ /bin/cat cat
hello stream tcp nowait @USER@ /bin/echo echo hello
who stream tcp nowait @USER@ /bin/sh sh -c 'echo $FIVED_USER at $REMOTE_HOST in $FIVED_SESSION'
";
const NO_SUCH_SESSION: &str = "- No such session\r\n";

fn encrypted(d: &Daemon) -> Tls {
    Tls::start(d.connect().0, "localhost")
}

fn begin(d: &Daemon) -> Session {
    Session::begin(encrypted(d))
}

/// A daemon with two users, and these settings before the rows, and more rows.
fn with_users(settings: &str, rows: &str) -> Daemon {
    let users = passwords(&["alice", "bob"]);
    let conf = format!("passwords = @DIR@/passwd\n{settings}{CONF}{rows}");
    Daemon::with(&conf).file("passwd", &users).start()
}

/// A session of that user.
fn begin_as(d: &Daemon, user: &str) -> Session {
    let mut tls = encrypted(d);
    tls.send(format!("AUTH\r\n{user}\r\ndemopass\r\n").as_bytes());
    tls.expect(b"+ Success\r\nEnter Username: Enter Password: ");
    same(line(&mut tls), format!("Authentication as {user} successful\r\n"));
    Session::begin(tls)
}

/// It is lost, and the server knows.
fn lose(d: &Daemon, s: &mut Session) {
    let n = d.log().matches("LOST ").count();
    s.lose();
    d.wait_logs("LOST ", n + 1);
}

/// A session with a stream to `cat`, which is lost.
fn lost(d: &Daemon) -> Session {
    let mut s = begin(d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    lose(d, &mut s);
    s
}

#[test]
fn it_is_for_tls_and_not_for_streams_and_can_be_switched_off() {
    let d = Daemon::with(CONF).start();
    same(d.ask("RESUME\r\nnew\r\n"), "- RESUME needs SSL first\r\n");
    let mut c = encrypted(&d);
    c.send(b"HELP\r\n");
    same(
        c.read_all(),
        "cat\r\nhello\r\nwho\r\nAUTH\r\nHOST\r\nMULTIPLEX\r\nPUBKEY\r\nRESUME\r\nRUN\r\n",
    );
    let mut s = begin(&d);
    s.open(1, "RESUME\r\n");
    same(s.rest(1), "- Not inside MULTIPLEX\r\n");
    s.open(3, "HELP\r\n");
    same(s.rest(3), "cat\r\nhello\r\nwho\r\nAUTH\r\nHOST\r\nPUBKEY\r\nRUN\r\n");
    assert_eq!((s.id.len(), s.seconds), (32, 60));

    let d = Daemon::with(&format!("resume_timeout = 0\n{CONF}")).start();
    same(d.ask("RESUME\r\n"), NOT_AVAILABLE);
    for (request, answer) in [
        ("RESUME\r\n", NOT_AVAILABLE),
        ("HELP\r\n", "cat\r\nhello\r\nwho\r\nAUTH\r\nHOST\r\nMULTIPLEX\r\nPUBKEY\r\nRUN\r\n"),
    ] {
        let mut c = encrypted(&d);
        c.send(request.as_bytes());
        same(c.read_all(), answer);
    }
}

#[test]
fn a_client_written_from_the_manual_loses_no_byte() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let d = Daemon::with(CONF).start();
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/resume.py");
    let (port, cuts) = (d.address().port().to_string(), 40);
    let out = Command::new("python3")
        .args([client, &port, "2000000", &cuts.to_string()])
        .output()
        .expect("python3");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stderr), d.log());
    assert!(printed.ends_with(&format!(" {cuts} True\n")), "{printed:?}");
    assert_eq!(d.wait_logs("RESUME session=", cuts).len(), cuts);
    d.wait_log("reason=closed");
    let starts = d.log().matches("START ").count();
    assert_eq!(starts, 1, "{}", d.log());
}

#[test]
fn a_lost_session_has_no_thread_and_goes_on_elsewhere() {
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    let threads = proc::threads(d.net_pid());
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    let service = d.service("cat");
    s.lose();
    assert!(d.wait_log("LOST ").contains(" reason=truncated"));
    until("it has no thread", || proc::threads(d.net_pid()) <= threads);
    s.send(1, b"two");
    s.resume(d.connect_from("127.0.0.2").0);
    assert!(d.wait_log("RESUME ").contains(" from=127.0.0.2"));
    s.expect(1, "two");
    assert_eq!(d.service("cat"), service);
    // A new stream comes from the new address, in the same session.
    s.open(3, "who\r\n");
    let start = d.wait_log("START service=cat");
    let number = start.split("session=").nth(1).expect("its session");
    let number = number.split_whitespace().next().expect("a number");
    same(s.rest(3), format!("+Go\r\nat 127.0.0.2 in {number}\n"));
    // Only its own record ends it.
    s.record(2, b"");
    let end = d.wait_log(&format!("END session={number} "));
    assert!(end.contains(" from=127.0.0.2 reason=closed"), "{end}");
    d.wait_log("reason=resumed");
}

#[test]
fn a_connection_that_stands_is_taken_over() {
    let d = Daemon::with(CONF).start();
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    for n in 0..5 {
        let text = format!("{n}");
        let mut old = s.tls.0.sock.try_clone().expect("a descriptor");
        s.resume(d.connect().0);
        s.send(1, text.as_bytes());
        s.expect(1, &text);
        let closed = old.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(closed.kind(), ErrorKind::ConnectionReset);
    }
    assert!(!d.log().contains("LOST"), "{}", d.log());
    d.wait_logs("RESUME ", 5);
}

/// Whether it has a stream or not.
#[test]
fn the_end_of_tls_is_a_loss() {
    let d = Daemon::with(CONF).start();
    let mut s = begin(&d);
    for n in 0..2 {
        s.tls.half_close();
        d.wait_logs("LOST ", n + 1);
        s.resume(d.connect().0);
        let stream = 1 + 2 * n as u32;
        s.open(stream, "cat\r\none");
        s.expect(stream, "+Go\r\none");
    }
    assert!(!d.log().contains("END session=1 "), "{}", d.log());
}

#[test]
fn rules_of_addresses_are_for_its_streams_and_not_for_its_return() {
    let conf = "hello stream tcp nowait @USER@ /bin/echo echo hello\n only_from = 127.0.0.1\n";
    let d = Daemon::with(&format!("only_from = 127.0.0.1\n{conf}")).start();
    let mut s = begin(&d);
    s.open(1, "hello\r\n");
    same(s.rest(1), "+Go\r\nhello\n");
    lose(&d, &mut s);
    s.resume(d.connect_from("127.0.0.2").0);
    s.open(3, "hello\r\n");
    same(s.rest(3), NOT_AVAILABLE);
    s.resume(d.connect().0);
    s.open(5, "hello\r\n");
    same(s.rest(5), "+Go\r\nhello\n");
}

#[test]
fn its_host_stays_its_own() {
    let d = Daemon::with(&format!(
        "{CONF}[inner]\ninside stream tcp nowait @USER@ /bin/echo echo inside\n"
    ))
    .start();
    let mut tls = encrypted(&d);
    tls.send(b"HOST\r\ninner\r\n");
    tls.expect(b"+ Success\r\nWhich VHOST? Host inner selected\r\n");
    let mut s = Session::begin(tls);
    lose(&d, &mut s);
    s.resume(d.connect().0);
    s.open(1, "inside\r\n");
    same(s.rest(1), "+Go\r\ninside\n");
}

/// The client acknowledges nothing: the server sends 4 MiB and no more, but still reads.
#[test]
fn what_is_not_acknowledged_stops_services() {
    let zeros = "zeros stream tcp nowait @USER@ /usr/bin/head head -c 9000000 /dev/zero\n";
    let d = Daemon::with(&format!("{CONF}{zeros}")).start();
    let mut s = begin(&d);
    s.acknowledges = false;
    s.open(1, "zeros\r\n");
    const MOST: u64 = 4 * 1024 * 1024;
    while s.received < MOST {
        assert!(s.receive());
    }
    s.open(3, "hello\r\n");
    while s.acknowledged < s.sent.len() as u64 {
        assert!(s.receive());
    }
    assert_eq!(s.received, MOST);
    // What was acknowledged is trimmed, and the rest is sent again.
    s.acknowledges = true;
    s.resume(d.connect().0);
    s.acknowledge();
    same(s.rest(3), "+Go\r\nhello\n");
    assert_eq!(s.rest(1).len(), "+Go\r\n".len() + 9_000_000);
}

/// The line that claims a session, wrong in some way.
type Claim = fn(&Session, &Tls, &[u8]) -> String;

#[test]
fn a_claim_that_is_wrong_gets_one_answer_and_a_penalty() {
    let d = Daemon::with(CONF).start();
    let mut s = lost(&d);
    let other = [7; 32];
    let wrong: [Claim; 5] = [
        |_, tls, key| claim(tls, &"0".repeat(32), 0, key),
        |s, tls, key| claim(tls, &s.id, s.received, key),
        |s, tls, _| claim(tls, &s.id, 1_000_000, &s.key),
        |s, _, _| claim(&s.tls, &s.id, s.received, &s.key),
        |_, _, _| "nonsense\r\n".into(),
    ];
    for make in wrong {
        let mut tls = encrypted(&d);
        let (began, printed) = (Instant::now(), make(&s, &tls, &other));
        tls.send(format!("RESUME\r\n{printed}").as_bytes());
        same(line(&mut tls), "+ Success\r\n");
        same(line(&mut tls), NO_SUCH_SESSION);
        assert!(began.elapsed() >= Duration::from_millis(200));
        // The dialogue has failed, the session goes on.
        tls.send(b"hello\r\n");
        same(tls.read_all(), "+Go\r\nhello\n");
    }
    let penalties = d.wait_logs("PENALTY ", wrong.len());
    assert!(penalties.iter().all(|l| l.contains("from=127.0.0.1 reason=login")), "{penalties:?}");
    // It is one on logins, of whatever kind.
    assert!(d.ask("PUBKEY\r\n").starts_with(b"- Try again later ("));
    let mut tls = encrypted(&d);
    for n in 1..=3 {
        tls.send(b"RESUME\r\nnonsense\r\n");
        same(line(&mut tls), "+ Success\r\n");
        same(line(&mut tls), NO_SUCH_SESSION);
        if n == 3 {
            same(tls.read_all(), "");
        }
    }
    // Nothing of that has touched it.
    s.resume(d.connect().0);
    s.send(1, b"two");
    s.expect(1, "two");
}

/// Its client cannot know that it has ended. (The private key stays, and so the server knows its
/// own sessions' ids in the next run.)
#[test]
fn a_claim_of_a_session_that_has_ended_is_no_failed_login() {
    let conf = format!("resume_timeout_anonymous = 1\n{CONF}");
    let mut d = Daemon::with(&conf).start();
    let s = lost(&d);
    assert!(d.wait_log("END ").contains("reason=lost"));
    same(s.claim(&mut encrypted(&d)), NO_SUCH_SESSION);
    assert!(!d.log().contains("PENALTY"), "{}", d.log());
    let other = begin(&d);
    d.signal(Signal::SIGKILL);
    d.wait();

    let state = format!("state_directory = {}\n{CONF}", d.place.at("state"));
    let next = Daemon::with(&state).stateless().start();
    for s in [&s, &other] {
        same(s.claim(&mut encrypted(&next)), NO_SUCH_SESSION);
    }
    let mut tls = encrypted(&next);
    tls.send(format!("RESUME\r\n{}", claim(&tls, &"0".repeat(32), 0, &[7; 32])).as_bytes());
    same(line(&mut tls), "+ Success\r\n");
    same(line(&mut tls), NO_SUCH_SESSION);
    assert_eq!(next.wait_logs("PENALTY ", 1).len(), 1, "{}", next.log());
}

#[test]
fn a_reload_keeps_it() {
    let d = Daemon::with(CONF).start();
    let old = d.net_pid();
    let mut s = lost(&d);
    d.reload(CONF);
    until("there is a new net process", || d.nets().iter().any(|n| *n != old));
    for (text, losses) in [("two", 2), ("three", 3)] {
        s.resume(d.connect_from("127.0.0.2").0);
        s.send(1, text.as_bytes());
        s.expect(1, text);
        assert!(d.nets().contains(&old));
        s.lose();
        // Else the next connection may take the session over before that.
        d.wait_logs("LOST ", losses);
    }
    until("nothing wakes the old net process while it waits", || {
        let before = proc::switches(old);
        std::thread::sleep(Duration::from_millis(500));
        proc::switches(old) <= before + 2
    });
    s.resume(d.connect().0);
    s.finish(1);
    while !s.ended.contains(&1) {
        assert!(s.receive());
    }
    s.record(2, b"");
    until("the old net process has ended", || !d.nets().contains(&old));
}

/// A session that was told to go away, and has no stream left, has not ended for a client that has
/// not had all of it.
#[test]
fn a_session_that_is_to_end_waits_until_its_client_has_had_everything() {
    let d = Daemon::with(CONF).start();
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    let sent = s.sent.len();
    d.reload(CONF);
    while s.sent.len() == sent {
        assert!(s.receive(), "until the ping that follows go-away is answered");
    }
    s.acknowledges = false;
    let had = s.received;
    s.send(1, b"two");
    s.finish(1);
    same(s.rest(1), "two");
    lose(&d, &mut s);
    // As if that had not come.
    s.received = had;
    s.ended.clear();
    s.acknowledges = true;
    s.resume(d.connect().0);
    same(s.rest(1), "two");
    while s.receive() {}
    drop(s);
    assert!(d.wait_log("reason=drained").starts_with("END "));
}

/// What stood before goes on; only new sessions are without RESUME.
#[test]
fn a_reload_that_switches_it_off_keeps_what_stands() {
    let d = Daemon::with(CONF).start();
    let (old, mut s, mut stands) = (d.net_pid(), lost(&d), begin(&d));
    stands.open(1, "cat\r\none");
    stands.expect(1, "+Go\r\none");
    let off = format!("resume_timeout = 0\n{CONF}");
    for n in 0..2 {
        d.reload(&off);
        until("the new table", || d.nets().iter().any(|n| *n != old));
        until("it is off", || {
            let mut c = encrypted(&d);
            c.send(b"HELP\r\n");
            !String::from_utf8_lossy(&c.read_all()).contains("RESUME")
        });
        s.resume(d.connect().0);
        s.send(1, b"two");
        s.expect(1, "two");
        lose(&d, &mut s);
        if n == 0 {
            lose(&d, &mut stands);
        }
    }
    stands.resume(d.connect().0);
    stands.send(1, b"two");
    stands.expect(1, "two");
    let mut c = encrypted(&d);
    c.send(b"RESUME\r\nnew\r\n");
    same(c.read_all(), format!("+ Success\r\n{NOT_AVAILABLE}"));
}

#[test]
fn it_ends_in_time_and_the_oldest_goes() {
    let d = Daemon::with(&format!("resume_timeout_anonymous = 1\n{CONF}")).start();
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    let service = d.service("cat");
    s.lose();
    assert!(d.wait_log("END ").contains("reason=lost"));
    until("its service has ended", || !proc::alive(service));
    same(s.claim(&mut encrypted(&d)), NO_SUCH_SESSION);

    let d = Daemon::with(&format!("max_lost = 2\n{CONF}")).start();
    let mut all: Vec<Session> = (0..3).map(|_| lost(&d)).collect();
    d.wait_log("reason=lost");
    same(all[0].claim(&mut encrypted(&d)), NO_SUCH_SESSION);
    for s in &mut all[1..] {
        s.resume(d.connect().0);
        s.send(1, b"two");
        s.expect(1, "two");
    }
}

#[test]
fn each_user_has_lost_sessions_of_their_own() {
    let d = with_users("max_lost = 1\n", "");
    let mut all = [begin_as(&d, "alice"), begin(&d), begin_as(&d, "bob"), begin_as(&d, "alice")];
    for s in &mut all[..3] {
        lose(&d, s);
    }
    assert!(!d.log().contains("END "), "{}", d.log());
    lose(&d, &mut all[3]);
    assert!(d.wait_log("END ").contains(" reason=lost"));
    let [oldest, others @ ..] = &mut all;
    for s in others {
        s.resume(d.connect().0);
        s.open(1, "hello\r\n");
        same(s.rest(1), "+Go\r\nhello\n");
    }
    same(oldest.claim(&mut encrypted(&d)), NO_SUCH_SESSION);
}

#[test]
fn a_user_has_a_time_of_their_own() {
    let d = with_users("resume_timeout = 1\n", "");
    let mut others = begin(&d);
    assert_eq!(others.seconds, 60);
    lose(&d, &mut others);
    let mut s = begin_as(&d, "alice");
    assert_eq!(s.seconds, 1);
    lose(&d, &mut s);
    assert!(d.wait_log("END ").contains(" reason=lost"));
    same(s.claim(&mut encrypted(&d)), NO_SUCH_SESSION);
    others.resume(d.connect().0);
}

#[test]
fn who_has_not_logged_in_may_have_no_time() {
    let d = with_users("resume_timeout_anonymous = 0\n", "");
    let mut s = begin_as(&d, "alice");
    lose(&d, &mut s);
    s.resume(d.connect().0);
    let mut s = begin(&d);
    assert_eq!(s.seconds, 0);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    let service = d.service("cat");
    s.lose();
    d.wait_log("END ");
    until("its service has ended", || !proc::alive(service));
    same(s.claim(&mut encrypted(&d)), NO_SUCH_SESSION);
}

#[test]
fn it_keeps_its_place_among_sessions_and_its_client_comes_back() {
    let d = Daemon::with(&format!("max_sessions = 1\n{CONF}")).start();
    let mut s = lost(&d);
    same(d.ask("HOST\r\n\r\n"), BUSY);
    // One connection at a time may come back; it has gone a moment after its client has.
    let way_back = || {
        let mut way = None;
        until("there is a way back", || {
            way = Tls::with(d.connect().0, "localhost", tls::config(&[])).ok();
            way.is_some()
        });
        way.expect("it is there")
    };
    for request in ["hello\r\n", "MULTIPLEX\r\n", "HOST\r\n\r\n"] {
        let mut tls = way_back();
        tls.send(request.as_bytes());
        same(tls.read_all(), BUSY);
    }
    let mut tls = way_back();
    tls.send(b"RESUME\r\nnew\r\n");
    same(tls.read_all(), format!("+ Success\r\n{BUSY}"));
    for name in ["hello", "MULTIPLEX", "HOST", "RESUME"] {
        let line = format!("REFUSE service={name} host= from=127.0.0.1 reason=sessions session=");
        until("each has its line", || d.log().contains(&line));
    }
    let mut tls = way_back();
    let answer = s.claim(&mut tls);
    s.go_on(tls, &answer);
    s.send(1, b"two");
    s.expect(1, "two");
}

/// The old connection stands for as long as the server has not noticed that it is dead.
#[test]
fn a_session_that_stands_leaves_its_client_a_way_back() {
    for limit in ["sessions", "sessions_per_source"] {
        let d = Daemon::with(&format!("max_{limit} = 1\n{CONF}")).start();
        let mut s = begin(&d);
        s.open(1, "cat\r\none");
        s.expect(1, "+Go\r\none");
        same(d.ask("HOST\r\n\r\n"), BUSY);
        assert!(d.wait_log("REFUSE ").ends_with(&format!(" reason={limit}")), "{}", d.log());
        let mut tls = encrypted(&d);
        // One at a time, as there is one session.
        assert!(Tls::with(d.connect().0, "localhost", tls::config(&[])).is_err());
        let answer = s.claim(&mut tls);
        s.go_on(tls, &answer);
        s.send(1, b"two");
        s.expect(1, "two");
        d.wait_log("RESUME ");
        until("there is a way back again", || {
            let Ok(mut tls) = Tls::with(d.connect().0, "localhost", tls::config(&[])) else {
                return false;
            };
            tls.send(b"hello\r\n");
            tls.read_all() == BUSY.as_bytes()
        });
        // A session that cannot be resumed leaves none.
        s.record(2, b"");
        drop(s);
        d.wait_log("END ");
        let mut other = None;
        until("there is a place", || {
            let mut c = d.connect();
            c.send("MULTIPLEX\r\n");
            let began = c.read_any_of(11) == b"+ Success\r\n";
            other = Some(c);
            began
        });
        assert!(Tls::with(d.connect().0, "localhost", tls::config(&[])).is_err());
    }
}

#[test]
fn silence_is_a_loss() {
    let d = Daemon::with(&format!("keepalive = 4\n{CONF}")).start();
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    assert!(d.wait_log("LOST ").contains("reason=timeout"));
    s.resume(d.connect().0);
    s.send(1, b"two");
    s.expect(1, "two");
}

#[test]
fn it_ends_when_fived_does() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 3\n{CONF}")).start();
    let _with_a_service = lost(&d);
    let mut without = begin(&d);
    without.lose();
    d.wait_logs("LOST ", 2);
    d.signal(Signal::SIGTERM);
    assert!(d.wait_log("END ").contains("reason=drained"));
    assert_eq!(d.wait(), 0);
}

/// A stream that has only changed its facts runs nothing for which fived would wait.
#[test]
fn a_dialogue_in_a_lost_session_keeps_nobody_waiting() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 600\n{CONF}")).start();
    let mut s = begin(&d);
    s.open(1, "HOST\r\n\r\n");
    s.expect(1, "+ Success\r\nWhich VHOST? Host  selected\r\n");
    lose(&d, &mut s);
    d.signal(Signal::SIGTERM);
    assert!(d.wait_log("END ").contains(" reason=drained "), "{}", d.log());
    assert_eq!(d.wait(), 0);
}

/// A service that such a stream has is waited for.
#[test]
fn a_service_after_a_dialogue_in_a_lost_session_is_waited_for() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 600\n{CONF}")).start();
    let mut s = begin(&d);
    s.open(1, "HOST\r\n\r\ncat\r\none");
    s.expect(1, "+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\none");
    lose(&d, &mut s);
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(d.exited(), None);
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
}

/// What a service still sends ends with the session, and its client is told that nothing follows.
#[test]
fn a_session_with_a_service_ends_in_order_when_fived_waits_no_longer() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 1\n{CONF}")).start();
    let _lost = lost(&d);
    // One that does not read keeps nobody waiting.
    let mut deaf = begin(&d);
    deaf.open(1, "cat\r\n");
    deaf.send(1, &[b'x'; 200_000]);
    let mut s = begin(&d);
    s.open(1, "cat\r\none");
    s.expect(1, "+Go\r\none");
    d.signal(Signal::SIGTERM);
    while s.receive() {}
    assert_eq!(s.ended, [1]);
    drop(s);
    assert_eq!(d.wait(), 0);
    assert_eq!(d.log().matches("reason=drained").count(), 3, "{}", d.log());
}

#[test]
fn a_record_that_is_none_ends_the_session() {
    let d = Daemon::with(CONF).start();
    let mut s = begin(&d);
    s.record(3, b"");
    while s.receive() {}
    assert!(d.wait_log("END ").contains("reason=protocol"));
    same(s.claim(&mut encrypted(&d)), NO_SUCH_SESSION);
}

#[test]
fn a_lost_session_costs_little_memory() {
    let conf = format!("max_lost = 1000\nmax_sessions_per_source = 1000\n{CONF}");
    let d = Daemon::with(&conf).start();
    let lose = |n: usize| {
        let before = d.log().matches("LOST ").count();
        (0..n).for_each(|_| begin(&d).lose());
        d.wait_logs("LOST ", before + n);
    };
    lose(30);
    let used = || proc::rss(d.net_pid()) + proc::rss(d.parent_pid());
    let (before, n) = (used(), 100);
    lose(n);
    let more = used().saturating_sub(before);
    assert!(more < 16 * n as u64, "{more} KiB for {n} sessions");
}

/// A row that both users offer, whose clients wait for so many seconds.
fn offered(connect_timeout: u32) -> Daemon {
    let row = "web stream tcp nowait - offer\n offered_by = alice bob\n connect_timeout = ";
    with_users("", &format!("{row}{connect_timeout}\n"))
}

/// The session of this user, who offers `web`.
fn offering_as(d: &Daemon, user: &str) -> Session {
    let mut s = begin_as(d, user);
    assert_eq!(s.seconds, 600);
    s.open(1, "OFFER\r\nweb\r\n");
    s.expect(1, "+ Success\r\nOffering web\r\n");
    s
}

fn offering(connect_timeout: u32) -> (Daemon, Session) {
    let d = offered(connect_timeout);
    let s = offering_as(&d, "alice");
    (d, s)
}

/// A client is taken by this session, in its stream of that number.
fn takes(s: &mut Session, stream: u32, client: &mut Client) {
    assert!(s.line_of(stream).starts_with("web 127.0.0.1 "));
    s.accept(stream);
    client.expect(GO);
}

fn asks(d: &Daemon) -> Client {
    let mut c = d.connect();
    c.send("web\r\n");
    c
}

/// Of two who offer, one is lost: the other has every client, also one that waited for the first.
#[test]
fn those_whose_session_is_up_come_first() {
    let d = offered(60);
    let (mut a, mut b) = (offering_as(&d, "alice"), offering_as(&d, "bob"));
    let mut c = asks(&d);
    assert!(a.line_of(2).starts_with("web "));
    lose(&d, &mut a);
    takes(&mut b, 2, &mut c);
    for n in 2..5 {
        takes(&mut b, 2 * n, &mut asks(&d));
    }
    // Its stream for the client is reset when it is back, and it has its turns again.
    a.resume(d.connect().0);
    same(a.rest(2), "");
    takes(&mut a, 4, &mut asks(&d));
}

/// Both are lost: a client is taken by the one that comes back first, whichever it is.
#[test]
fn a_client_waits_for_whoever_comes_back_first() {
    for first in [0, 1] {
        let d = offered(60);
        let mut both = [offering_as(&d, "alice"), offering_as(&d, "bob")];
        both.iter_mut().for_each(|s| lose(&d, s));
        let mut c = asks(&d);
        assert!(c.silent(300));
        both[first].resume(d.connect().0);
        takes(&mut both[first], 2, &mut c);
        let other = &mut both[1 - first];
        other.resume(d.connect().0);
        other.open(3, "hello\r\n");
        same(other.rest(3), "+Go\r\nhello\n");
    }
}

/// Each of the two is lost before it answers, and while the other is up.
#[test]
fn a_client_does_not_wait_for_ever_for_sessions_that_are_lost_in_turn() {
    let d = offered(1);
    let mut both = [offering_as(&d, "alice"), offering_as(&d, "bob")];
    lose(&d, &mut both[1]);
    let mut c = asks(&d);
    assert!(both[0].line_of(2).starts_with("web "));
    let mut up = 0;
    until("the client is refused", || {
        both[1 - up].resume(d.connect().0);
        lose(&d, &mut both[up]);
        up = 1 - up;
        !c.silent(50)
    });
    same(c.read_all(), FAILED);
    assert!(d.wait_log("REFUSE service=web ").contains("no answer in time"));
}

/// It had the connection of its client when it was lost, and gets it again when the client is taken.
#[test]
fn a_client_of_an_offer_waits_while_its_session_is_lost() {
    let (d, mut s) = offering(60);
    let mut client = d.connect();
    client.send("web\r\nhello");
    assert!(s.line_of(2).starts_with("web 127.0.0.1 "));
    s.lose();
    d.wait_log("LOST ");
    s.resume(d.connect().0);
    s.accept(2);
    client.expect(GO);
    s.expect(2, "hello");
    s.send(2, b"hi");
    client.expect("hi");
    d.wait_log("START service=web ");
}

/// Nobody waits for a lost session to say that it does not take a client.
#[test]
fn a_client_of_a_lost_offer_is_refused_in_time() {
    let (d, mut s) = offering(2);
    let mut waits = d.connect();
    waits.send("web\r\n");
    assert!(s.line_of(2).starts_with("web 127.0.0.1 "));
    s.lose();
    same(waits.read_all(), FAILED);
    assert!(d.wait_log("REFUSE service=web ").contains("no answer in time"));
    s.resume(d.connect().0);
    s.open(3, "who\r\n");
    assert!(s.rest(3).starts_with("+Go\r\nalice at 127.0.0.1 in "));
}

/// Whoever withdraws an offer takes nobody any more: nobody waits until that session says so.
#[test]
fn an_offer_that_is_withdrawn_has_no_clients_that_wait() {
    // While its session is lost, or has the client's connection and does not answer.
    for is_lost in [true, false] {
        let (d, mut s) = offering(600);
        let mut waits = [(); 3].map(|()| asks(&d));
        for n in 1..=3 {
            assert!(s.line_of(2 * n).starts_with("web "));
        }
        if is_lost {
            lose(&d, &mut s);
        }
        s.finish(1);
        if is_lost {
            s.resume(d.connect().0);
        }
        waits.iter_mut().for_each(|c| same(c.read_all(), FAILED));
        let line = d.wait_logs("REFUSE service=web ", 3).pop().expect("a line");
        assert!(line.ends_with(" reason=failed session=4 nobody offers it"), "{line}");
    }
    // Another offers it.
    let d = offered(600);
    let (mut a, mut b) = (offering_as(&d, "alice"), offering_as(&d, "bob"));
    let mut c = asks(&d);
    assert!(a.line_of(2).starts_with("web "));
    a.finish(1);
    takes(&mut b, 2, &mut c);
    same(a.rest(2), "");
}

#[test]
fn who_logged_in_stays_so_and_clients_of_an_offer_wait_for_its_session() {
    let (d, mut s) = offering(20);
    s.lose();
    d.wait_log("LOST ");
    let mut client = d.connect();
    client.send("web\r\n");
    assert!(client.silent(300));
    s.resume(d.connect_from("127.0.0.2").0);
    // The server asks with a stream of its own, which is taken.
    let first = s.line_of(2);
    assert!(first.starts_with("web 127.0.0.1 "), "{first:?}");
    s.accept(2);
    client.expect(GO);
    s.send(2, b"hello");
    client.expect("hello");
    s.open(3, "who\r\n");
    assert!(s.rest(3).starts_with("+Go\r\nalice at 127.0.0.2 in "));
}

#[test]
fn the_state_counts_lost_sessions() {
    let d = Daemon::with(&format!("status stream tcp nowait @USER@ internal\n{CONF}")).start();
    let state = || String::from_utf8(d.ask("status\r\n")).expect("ASCII");
    let mut s = lost(&d);
    let text = state();
    assert!(text.contains("\nsessions_now=1\nsessions_lost_now=1\n"), "{text}");
    let lines = |text: &str, state: &str| {
        let end = format!(" state={state}");
        text.lines().filter(|l| l.starts_with("session=") && l.ends_with(&end)).count()
    };
    assert_eq!((lines(&text, "lost"), lines(&text, "up")), (1, 0), "{text}");
    d.signal(Signal::SIGUSR1);
    d.wait_log("sessions_lost_now=1");
    s.resume(d.connect().0);
    s.send(1, b"two");
    s.expect(1, "two");
    let text = state();
    assert!(text.contains("\nsessions_lost_now=0\n") && lines(&text, "lost") == 0, "{text}");
}
