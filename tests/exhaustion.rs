//! Descriptors and processes run out, again and again: whoever comes then is told `-Service busy` or
//! is closed, who runs goes on, and afterwards all is as before.

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::io::{Read, Write};
use support::*;

const CONF: &str = "
log_on_success =
cps = UNLIMITED
instances = UNLIMITED
max_sessions_per_source = 1000
max_services_per_source = 1000
cat   stream tcp nowait @USER@ /bin/cat cat
hello stream tcp nowait @USER@ /bin/echo echo hello
";
const HELLO: &str = "+Go\r\nhello\n";

/// A client of one of the kinds, and what it hears first; nothing where it was closed.
fn client(d: &Daemon, n: usize) -> (Box<dyn std::any::Any>, Vec<u8>) {
    let mut c = d.connect_from(&format!("127.0.0.{}", 2 + n % 200));
    let mut first = [0; 5];
    match n % 4 {
        0 => c.send("cat\r\nx"),
        1 => c.send("HOST\r\n"),
        2 => c.send("MULTIPLEX\r\n"),
        _ => {
            let t = tls::Tls::with(c.0, "nobody.example", tls::config(&[]));
            let Ok(mut t) = t else { return (Box::new(()), Vec::new()) };
            let result = t.0.write_all(b"cat\r\nx").and_then(|()| t.0.read_exact(&mut first));
            return (Box::new(t), result.map_or(Vec::new(), |()| first.to_vec()));
        }
    };
    let result = c.0.read_exact(&mut first);
    (Box::new(c), result.map_or(Vec::new(), |()| first.to_vec()))
}

#[test]
fn descriptors_run_out_and_come_back() {
    if !installed("prlimit") || !root() {
        return skip("needs root and prlimit");
    }
    let rounds = trial_size("descriptors", 3, 100);
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=140:140"]).start();
    let pids = [d.parent_pid(), d.net_pid(), d.keys_pid()];
    let mut running = d.connect();
    running.send("cat\r\nx").expect("+Go\r\nx");
    same(d.ask("hello\r\n"), HELLO);
    until("nothing else runs", || d.services().len() == 1);
    let open = || pids.map(|pid| proc::descriptors(pid).len());
    let before = open();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut all = Vec::new();
        let mut busy = 0;
        while busy < 10 {
            let (c, first) = client(&d, all.len());
            let right = ["+Go\r\n", "+ Suc", "-Serv", ""].iter().any(|w| w.as_bytes() == first);
            assert!(right, "{}", first.escape_ascii());
            let good = first.starts_with(b"+");
            (served, refused) = (served + usize::from(good), refused + usize::from(!good));
            busy += usize::from(!good);
            all.push(c);
            assert!(all.len() < 2000, "they do not run out");
        }
        running.send("undisturbed").expect("undisturbed");
        drop(all);
        until("all is as before", || d.ask("hello\r\n") == HELLO.as_bytes());
    }
    running.send("undisturbed").expect("undisturbed");
    // The parent keeps some processes beside itself, with two descriptors each: those that close for
    // it, and what asks for the addresses of clients that the system no longer knows.
    let kept = 8;
    until("nothing is left open", || {
        open().iter().zip(before).all(|(now, then)| *now <= then + kept)
    });
    assert_eq!([d.parent_pid(), d.net_pid(), d.keys_pid()], pids, "nobody died of it: {}", d.log());
    trial(
        "descriptors",
        format!("ran out {rounds} times: {served} clients served, {refused} refused, nobody lost"),
    );
}

#[test]
fn processes_run_out_and_come_back() {
    if !installed("prlimit") || !root() {
        return skip("needs root and prlimit");
    }
    let rounds = trial_size("processes", 3, 200);
    let few = format!("few stream tcp nowait {} /bin/cat cat\n", user_of_its_own());
    let d = Daemon::with(&format!("{CONF}{few}")).under(&["prlimit", "--nproc=5:5"]).start();
    let (mut served, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut all: Vec<Client> = (0..12).map(|_| d.connect()).collect();
        for c in &mut all {
            c.send("few\r\nx");
        }
        for c in &mut all {
            match &c.read_any_of(6)[..] {
                b"+Go\r\nx" => served += 1,
                answer => {
                    same([answer, &c.read_any()].concat(), BUSY);
                    refused += 1;
                }
            }
        }
        drop(all);
        until("they have ended", || d.services().is_empty());
    }
    assert!(served >= rounds && refused >= rounds, "{served} {refused}");
    // Those that have ended count until they are reaped, for which nobody waits.
    until("all are reaped", || d.ask("few\r\nx") == b"+Go\r\nx");
    trial(
        "processes",
        format!("ran out {rounds} times: {served} clients served, {refused} told -Service busy"),
    );
}
