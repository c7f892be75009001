//! Bounds: what strangers, services and the system may take, and what happens then.

mod support;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

fn cat(attributes: &str) -> Daemon {
    Daemon::with(&format!(
        "cat stream tcp nowait @USER@ /bin/cat cat\n {}\n",
        attributes.replace('\n', "\n ")
    ))
    .start()
}

#[test]
fn a_request_has_a_deadline_however_its_bytes_drip() {
    let d = Daemon::with(&format!("request_timeout = 3\n{CONF}")).start();
    let (begun, mut c) = (Instant::now(), d.connect());
    let mut writer = Client(c.0.try_clone().expect("clone"));
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = over.clone();
    let dripping = std::thread::spawn(move || {
        while !seen.load(std::sync::atomic::Ordering::Relaxed) {
            writer.try_send(b"x");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    same(c.read_any(), "");
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    dripping.join().expect("dripped");
    assert!(begun.elapsed() > Duration::from_millis(2900), "{:?}", begun.elapsed());
}

#[test]
fn the_deadline_is_of_the_request_alone() {
    let d = Daemon::with(&format!("request_timeout = 3\n{CONF}")).start();
    let mut service = d.connect().cat();
    same(d.connect().read_any(), "");
    service.send("still there").expect("still there");
}

#[test]
fn a_client_that_reads_nothing_is_not_kept_for_ever() {
    let conf: String = (0..20_000)
        .map(|n| format!("{n}-{} stream tcp nowait @USER@ /bin/cat\n", "n".repeat(200)))
        .collect();
    let d = Daemon::with(&format!("request_timeout = 3\n{conf}")).start();
    let net = d.net_pid();
    let mut deaf: Vec<Client> = (0..3).map(|_| d.connect()).collect();
    deaf.iter_mut().for_each(|c| {
        c.send("HELP\r\n").expect("0-n");
    });
    if root() {
        until("they are let go", || !deaf.iter().any(|c| c.is_at(net)));
    }
    // Who reads has all of it, unless the machine is so slow that the time is over first.
    until("all of it", || {
        let all = d.connect().send("HELP\r\n").half_close().read_any();
        all.split(|b| *b == b'\n').count() > 20_000
    });
}

#[test]
fn out_of_descriptors_it_goes_on_when_there_are_some() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let d = Daemon::with(CONF).under(&["prlimit", "--nofile=40:40"]).start();
    let silent: Vec<Client> = (0..100).map(|_| d.connect()).collect();
    let pids = [d.parent_pid(), d.net_pid()];
    until("all descriptors are taken", || !root() || proc::descriptors(pids[1]).len() >= 36);
    let before = pids.map(proc::ticks);
    std::thread::sleep(Duration::from_secs(1));
    let spent: u64 = pids.map(proc::ticks).iter().zip(before).map(|(now, then)| now - then).sum();
    assert!(spent < 50, "{spent} ticks in a second: it spins");
    drop(silent);
    same(d.ask("hello\r\n"), HELLO);
    assert_eq!(pids, [d.parent_pid(), d.net_pid()], "nobody died of it");
}

#[test]
fn out_of_processes_a_service_is_busy() {
    if !root() || !installed("prlimit") {
        return skip("needs root and prlimit");
    }
    // Linux looks at setuid(2) whether there are too many before that one: the third is.
    let user = user_of_its_own();
    let conf = format!(
        "cat stream tcp nowait {user} /bin/cat\nhello stream tcp nowait {user} /bin/echo echo hello\n\
         roots stream tcp nowait root /bin/echo echo root\n"
    );
    let d = Daemon::with(&conf).under(&["prlimit", "--nproc=1:1"]).start();
    let _two = [0; 2].map(|_| d.connect().cat());
    same(d.ask("hello\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=hello").contains("reason=processes"));
    same(d.ask("roots\r\n"), "+Go\r\nroot\n");
}

#[test]
fn instances() {
    let d = cat("instances = 2");
    let (one, two) = (d.connect().cat(), d.connect().cat());
    same(d.ask("cat\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=cat").contains("from=127.0.0.1 reason=instances"));
    drop((one, two));
    until("free again", || d.ask("cat\r\n") == GO.as_bytes());
}

#[test]
fn unlimited_is_no_limit() {
    let d = Daemon::with(
        "instances = 1\nper_source = 1\ncat stream tcp nowait @USER@ /bin/cat\n instances = UNLIMITED\n per_source = UNLIMITED\n",
    )
    .start();
    let _all: Vec<Client> = (0..20).map(|_| d.connect().cat()).collect();
}

#[test]
fn per_source() {
    let d = cat("per_source = 1");
    let one = d.connect().cat();
    same(d.ask("cat\r\n"), BUSY);
    assert!(d.wait_log("REFUSE service=cat").contains("reason=per_source"));
    let _other = d.connect_from("127.0.0.2").cat();
    drop(one);
    until("free again", || d.ask("cat\r\n") == GO.as_bytes());
}

#[test]
fn per_source_counts_a_network_of_64_bits_as_one() {
    if !root() || !installed("ip") {
        return skip("needs root and ip");
    }
    if !has_ipv6() {
        return;
    }
    // A network of its own for this thread, and for what it starts.
    let tested = std::thread::spawn(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return skip("needs the right to make a network namespace");
        }
        let up = "ip link set lo up && for a in fd00:0:0:1::1 fd00:0:0:1:ffff::2 fd00:0:0:2::1; do ip -6 addr add $a/128 dev lo nodad; done";
        assert!(std::process::Command::new("sh").args(["-c", up]).status().expect("sh").success());
        let d = Daemon::with("cat stream tcp nowait nobody /bin/cat\n per_source = 1\n")
            .listen("[::]:0")
            .start();
        let to = std::net::SocketAddr::new(
            "fd00:0:0:2::1".parse().expect("address"),
            d.address().port(),
        );
        let from = |a: &str| connect_from(a.parse().expect("address"), to);
        let _one = from("fd00:0:0:1::1").cat();
        same(from("fd00:0:0:1:ffff::2").send("cat\r\n").read_all(), BUSY);
        let _other = from("fd00:0:0:2::1").cat();
    });
    tested.join().expect("tested");
}

#[test]
fn cps() {
    let d = cat("cps = 3 600");
    // More than three that come at once are too many; from then on it is busy for long.
    let at_once = |n: usize| {
        let mut all: Vec<Client> = (0..n).map(|_| d.connect()).collect();
        d.signal(Signal::SIGSTOP);
        all.iter_mut().for_each(|c| {
            c.send("cat\r\n").half_close();
        });
        d.signal(Signal::SIGCONT);
        let answers: Vec<Vec<u8>> = all.iter_mut().map(Client::read_all).collect();
        assert!(answers.iter().all(|a| a == GO.as_bytes() || a == BUSY.as_bytes()), "{answers:?}");
        answers.iter().filter(|a| *a == GO.as_bytes()).count()
    };
    assert_eq!(at_once(3), 3, "three may start in a second");
    until("more than three begin in a second", || at_once(10) < 10);
    assert_eq!(at_once(10), 0);
    assert!(d.wait_log("REFUSE service=cat").contains("reason=cps"));
    // Not only for the rest of that second.
    std::thread::sleep(Duration::from_millis(1100));
    same(d.ask("cat\r\n"), BUSY);
}

#[test]
fn cps_is_over_after_its_pause() {
    let d = cat("cps = 1 1");
    until("busy", || d.ask("cat\r\n") == BUSY.as_bytes());
    until("and free again", || d.ask("cat\r\n") == GO.as_bytes());
}

#[test]
fn bsd_s_suffixes_are_limits() {
    let d = Daemon::with(
        "cat stream tcp nowait.2 @USER@ /bin/cat\nmax stream tcp nowait/1 @USER@ /bin/cat cat\n",
    )
    .start();
    let answers = [0; 3].map(|_| d.ask("cat\r\n"));
    assert_eq!(answers.map(|a| a == GO.as_bytes()), [true, true, false], "two starts a minute");
    let mut c = d.connect();
    c.send("max\r\n").expect(GO);
    same(d.ask("max\r\n"), BUSY);
}

#[test]
fn max_load() {
    let d = Daemon::with(
        "a stream tcp nowait @USER@ /bin/echo echo a\n max_load = 100000\nb stream tcp nowait @USER@ /bin/echo echo b\n max_load = 0.01\n",
    )
    .start();
    same(d.ask("a\r\n"), "+Go\r\na\n");
    let load = std::fs::read_to_string("/proc/loadavg").expect("load");
    if load.split(' ').next().is_some_and(|l| l.parse().is_ok_and(|l: f64| l > 0.1)) {
        same(d.ask("b\r\n"), BUSY);
        assert!(d.wait_log("REFUSE service=b").contains("reason=max_load"));
    }
}

#[test]
fn thousands_of_silent_clients_cost_next_to_nothing() {
    let n = trial_size("silent", 2_000, 10_000);
    if !descriptors(n as u64 + 500) {
        return skip("needs more descriptors (ulimit -n)");
    }
    let d =
        Daemon::with(&format!("max_connections = 20000\nrequest_timeout = 600\n{CONF}")).start();
    same(d.ask("hello\r\n"), HELLO);
    until("nothing else runs", || d.services().is_empty());
    let (parent, net) = (d.parent_pid(), d.net_pid());
    let threads = proc::threads(net);
    let before = proc::rss(parent) + proc::rss(net);
    let mut silent: Vec<Client> = (0..n).map(|_| d.connect()).collect();
    silent.iter_mut().for_each(|c| {
        c.send("hel");
    });
    if root() {
        until("all are accepted", || proc::descriptors(net).len() >= n);
    } else {
        same(d.ask("hello\r\n"), HELLO);
    }
    let grown = (proc::rss(parent) + proc::rss(net)).saturating_sub(before);
    assert!(grown <= 2 * n as u64, "{grown} KiB for {n} clients");
    assert_eq!(proc::threads(net), threads);
    // The one that reaps ends when it has had nothing to do for a moment.
    until("the parent has one thread", || proc::threads(parent) == 1);
    same(d.ask("hello\r\n"), HELLO);
    until("no process", || d.services().is_empty());
    let mut last = silent.pop().expect("one");
    same(last.send("lo\r\n").read_all(), HELLO);
    let each = grown * 1024 / n as u64;
    trial("silent", format!("{n} clients with half a request, {each} bytes and no thread each"));
}

#[test]
fn many_services_at_once() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let d = Daemon::with(CONF).start();
    let mut all: Vec<Client> = (0..200).map(|_| d.connect()).collect();
    all.iter_mut().for_each(|c| {
        c.send("cat\r\nx");
    });
    all.iter_mut().for_each(|c| {
        c.expect("+Go\r\nx");
    });
    // One that was just made in advance has no name of its own yet.
    until("each has its own", || d.services().len() == 200);
    all.iter_mut().for_each(|c| c.half_close().end());
    d.wait_logs("EXIT service=cat", 200);
}

/// Orders that stand in a queue are starts that overlap; some of these cannot start, each in its
/// own way.
#[test]
fn of_many_at_once_each_has_its_own_answer() {
    let place = Place::new();
    // What nobody may read is found out by exec alone, after the greeting.
    let (lie, unreadable) = (
        place.write("lie", "no program\n", 0o755),
        place.write("unreadable", "no program\n", 0o111),
    );
    let conf = format!(
        "{CONF}lie stream tcp nowait @USER@ {lie} lie\nunreadable stream tcp nowait @USER@ {unreadable} unreadable\n"
    );
    let d = Daemon::with(&conf).start();
    same(d.ask("hello\r\n"), HELLO);
    d.wait_logs("EXIT service=hello", 1);
    let idle = proc::descriptors(d.parent_pid()).len();
    d.signal(Signal::SIGSTOP);
    let kinds = [
        ("hello\r\n", HELLO),
        ("lie\r\n", "-Service failed\r\n"),
        ("unreadable\r\n", "+Go\r\n"),
        ("cat\r\nx", "+Go\r\nx"),
    ];
    let mut all: Vec<_> = (0..48).map(|n| (d.connect(), kinds[n % 4])).collect();
    all.iter_mut().for_each(|(c, (request, _))| {
        c.send(request).half_close();
    });
    d.signal(Signal::SIGCONT);
    all.iter_mut().for_each(|(c, (_, wanted))| same(c.read_all(), wanted));
    for (line, n) in [
        ("REFUSE service=lie", 12),
        ("REFUSE service=unreadable", 12),
        ("EXIT service=cat", 12),
        ("EXIT service=hello", 13),
    ] {
        assert_eq!(d.wait_logs(line, n).len(), n, "{line}");
    }
    until("nothing is left open", || proc::descriptors(d.parent_pid()).len() <= idle);
}

/// A client that saw a service end is not refused because its end was not told yet.
#[test]
fn whoever_waits_for_the_end_is_not_refused() {
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n instances = 1\n").start();
    let mut first = d.connect();
    first.send("cat\r\nx").expect("+Go\r\nx");
    let pid = nix::unistd::Pid::from_raw(d.service("cat"));
    let net = d.net_pid();
    d.signal(Signal::SIGSTOP);
    let mut second = d.connect();
    second.send("ca");
    until("net has the client", || second.is_at(net));
    second.send("t\r\nx");
    // The order is before the parent when the end comes.
    until("the order is given", || !second.is_at(net));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("kill");
    until("the service has ended", || !proc::alive(pid.as_raw()));
    d.signal(Signal::SIGCONT);
    second.expect("+Go\r\nx");
}
