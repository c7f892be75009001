//! SIGTERM waits for services that run, and for nobody else. SIGINT waits for nothing, but loses no
//! line of the log.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::*;
use tls::Tls;
use yamux_raw::{DATA, FIN, Raw, SYN};

/// Whatever it waits for longer than for what runs, it waits for too long for a test.
const CONF: &str =
    "shutdown_timeout = 600\nkeepalive = 600\nlogin_timeout = 600\nrequest_timeout = 600\n
hello stream tcp nowait @USER@ /bin/echo echo hello
cat stream tcp nowait @USER@ /bin/cat cat
";
const HOST: &str = "+ Success\r\nWhich VHOST? ";

fn multiplex(d: &Daemon) -> Raw<TcpStream> {
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    Raw(c.0)
}

#[test]
fn sessions_and_streams_without_a_service_are_not_waited_for() {
    let mut d = Daemon::with(CONF).start();
    let mut dialogue = d.connect();
    dialogue.send("HOST\r\n").expect(HOST);
    let mut between = d.connect();
    between.send("HOST\r\n\r\n").expect(format!("{HOST}Host  selected\r\n"));
    let _encrypted = Tls::start(d.connect().0, "x.example");
    let _no_stream = multiplex(&d);
    let mut asks = multiplex(&d);
    asks.data(SYN, 1, "unfinis").data(SYN, 3, "HOST\r\n");
    assert!(asks.until(DATA, 0, 3).payload.starts_with(b"+ Success\r\n"));
    // The service has ended, and its client says no end.
    let mut after = multiplex(&d);
    after.data(SYN, 1, "hello\r\n").data(SYN, 3, "unknown\r\n");
    after.stream(1);
    d.wait_logs("SESSION ", 6);
    d.wait_log("EXIT service=hello");
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    same(dialogue.read_any(), "");
    same(between.read_any(), "");
    assert!(d.log().matches("reason=drained").count() >= 5, "{}", d.log());
}

/// They are in the backlog when net hears that it is to accept nobody any more.
#[test]
fn clients_who_have_just_connected_and_say_nothing_are_not_waited_for() {
    for tls in [false, true] {
        let port = if tls { "tls_port" } else { "port" };
        let conf =
            format!("{CONF}own stream tcp nowait @USER@ /bin/cat cat\n {port} = 127.0.0.1:0\n");
        let mut d = Daemon::with(&conf).start();
        let own = d.port(0);
        let Some(held) = proc::hold(d.net_pid()) else { return };
        let mut silent: Vec<_> = (0..3).map(|_| d.connect()).collect();
        silent[1].send("unfinis");
        let mut dialogue = d.connect();
        dialogue.send("HOST\r\n");
        let mut handshake = d.connect();
        handshake.send(b"\x16\x03\x01");
        let mut whole = d.connect();
        whole.send("hello\r\n").half_close();
        if tls {
            silent.push(Client::connect(own));
        }
        d.signal(Signal::SIGTERM);
        d.wait_log("stopping");
        drop(held);
        assert_eq!(d.wait(), 0);
        silent.iter_mut().for_each(|c| same(c.read_any(), ""));
        // A request that was there may still be served.
        let answer = whole.read_any();
        assert!(
            [&b"+Go\r\nhello\n"[..], BUSY.as_bytes(), b""].contains(&&answer[..]),
            "{answer:?}"
        );
    }
}

#[test]
fn a_stream_with_a_service_is_waited_for_and_those_beside_it_are_not() {
    let mut d = Daemon::with(CONF).start();
    let mut r = multiplex(&d);
    r.data(SYN, 1, "cat\r\n").data(SYN, 3, "unfinis").data(SYN, 5, "HOST\r\n\r\ncat\r\n");
    same(r.until(DATA, 0, 1).payload, GO);
    d.wait_logs("START service=cat", 2);
    d.signal(Signal::SIGTERM);
    r.until(yamux_raw::GO_AWAY, 0, 0);
    until("nobody new is served", || TcpStream::connect(d.address()).is_err());
    for id in [1, 5] {
        r.data(0, id, "still there");
        while !r.until(DATA, 0, id).payload.ends_with(b"still there") {}
    }
    assert_eq!(d.exited(), None, "it waits for what runs");
    r.data(FIN, 1, "").data(FIN, 5, "");
    assert_eq!(d.wait(), 0);
}

/// A program that is asked about a password takes as long as it likes. One source has 16 of them;
/// the others wait for their turn.
#[test]
fn logins_that_hang_are_not_waited_for_and_end_with_it() {
    let script = "#!/bin/sh\necho $$ >>@DIR@/hang\nexec sleep 1000\n";
    let asked = "+ Success\r\nEnter Username: Enter Password: ";
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let conf = format!("checkpassword = @DIR@/check\n{CONF}");
        let mut d = Daemon::with(&conf).file("check", script).start();
        let log_in = |_| {
            let mut c = d.connect();
            c.send("AUTH\r\ndemo\r\nx\r\n").expect(asked);
            c
        };
        let mut clients: Vec<_> = (0..18).map(log_in).collect();
        let hang = d.place.at("hang");
        let begun = || std::fs::read_to_string(&hang).unwrap_or_default().lines().count();
        until("16 of them run", || begun() == 16);
        let all = proc::descendants(d.parent_pid());
        assert!(all.len() > 32, "{all:?}");
        let told = Instant::now();
        d.signal(signal);
        drop(clients.split_off(9));
        assert_eq!(d.wait(), 0);
        // A program itself has 60 s.
        assert!(told.elapsed() < Duration::from_secs(30), "it has waited for them");
        until("all of fived is gone", || all.iter().all(|p| !proc::alive(*p)));
        assert!(!d.log().contains("PENALTY"), "{}", d.log());
    }
}

/// Each session that the log has begun it also ends, whatever ends fived.
#[test]
fn every_session_has_a_line_of_its_end() {
    for (timeout, signals) in
        [(600, &[Signal::SIGINT][..]), (600, &[Signal::SIGTERM; 2]), (1, &[Signal::SIGTERM])]
    {
        let conf = CONF.replacen("600", &timeout.to_string(), 1);
        let mut d = Daemon::with(&conf).start();
        let mut all = [multiplex(&d), multiplex(&d)];
        for r in &mut all {
            // Its own facts make the second stream a session's branch, which has no line.
            r.data(SYN, 1, "cat\r\n").data(SYN, 3, "HOST\r\n\r\ncat\r\n");
        }
        d.wait_logs("START service=cat", 4);
        for signal in signals {
            d.signal(*signal);
            until("taken", || d.exited().is_some() || d.log().contains("stopping"));
        }
        assert_eq!(d.wait(), 0);
        for session in ["1", "2"] {
            let end = format!("END session={session} from=127.0.0.1 reason=drained");
            assert_eq!(d.log().matches(&end).count(), 1, "{}", d.log());
        }
        assert_eq!(d.log().matches("END ").count(), 2, "{}", d.log());
    }
}

/// How many refusals the log knows of, and how many net could not report.
fn refusals(log: &str) -> (usize, usize) {
    let lines = log.lines().filter(|l| l.contains(" reason=unknown"));
    let lines = lines.map(|l| l.split_once(" more=").map_or(1, |(_, n)| n.parse().expect("more")));
    let heads = log.lines().filter_map(|l| Some(l.split_once(" refusals not logged")?.0));
    let counts = heads.filter_map(|head| head.rsplit(' ').next()?.parse::<usize>().ok());
    (lines.sum(), counts.sum())
}

/// A fived whose net process has refused so many clients, and so many sessions, while the parent is
/// stopped.
fn refuses(clients: usize, sessions: usize) -> Daemon {
    let d = Daemon::with(&format!("max_sessions = 1000\n{CONF}")).start();
    let net = d.net_pid();
    let mut between: Vec<Client> = (0..sessions).map(|_| d.connect()).collect();
    for c in &mut between {
        c.send("HOST\r\n\r\n").expect(format!("{HOST}Host  selected\r\n"));
    }
    let mut waiting: Vec<Client> = (0..clients).map(|_| d.connect()).collect();
    for c in &mut waiting {
        c.send("no ");
    }
    until("all are accepted", || proc::descriptors(net).len() >= sessions + clients);
    // They have channels to the parent.
    d.wait_logs("SESSION ", sessions);
    d.signal(Signal::SIGSTOP);
    for c in waiting.iter_mut().chain(&mut between) {
        same(c.send("such\r\n").read_any(), NOT_AVAILABLE);
    }
    d
}

/// As many as can be on the way to the parent.
#[test]
fn an_immediate_end_loses_no_refusal() {
    let mut d = refuses(20, 20);
    d.signal(Signal::SIGINT);
    d.signal(Signal::SIGCONT);
    assert_eq!(d.wait(), 0);
    assert_eq!(refusals(&d.log()), (40, 0), "{}", d.log());
}

/// More than are on the way to the parent: the rest is known to net alone, which is killed.
#[test]
fn refusals_that_are_lost_with_net_are_counted() {
    for net_alone in [false, true] {
        let mut d = refuses(700, 20);
        match net_alone {
            true => kill(Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill"),
            false => d.signal(Signal::SIGINT),
        }
        d.signal(Signal::SIGCONT);
        if net_alone {
            d.wait_log("WARN net: pid ");
            d.signal(Signal::SIGTERM);
        }
        assert_eq!(d.wait(), 0);
        let (lines, counted) = refusals(&d.log());
        // One that net had sent just before it was killed may be both logged and counted.
        let all = lines + counted;
        assert!(counted > 0 && (720..=721).contains(&all), "{lines} and {counted}:\n{}", d.log());
    }
}
