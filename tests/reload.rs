//! Reload, the end, and whoever else wants to know: systemd, a pidfile.

mod support;
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\ncat stream tcp nowait @USER@ /bin/cat cat\n";
const HELLO: &str = "+Go\r\nhello\n";

#[test]
fn a_reload_changes_the_table() {
    let d = Daemon::with(CONF).start();
    same(d.ask("new\r\n"), NOT_AVAILABLE);
    let line = d.reload("new stream tcp nowait @USER@ /bin/echo echo new\n");
    assert!(line.ends_with("services=1"), "{line}");
    same(d.ask("new\r\n"), "+Go\r\nnew\n");
    same(d.ask("hello\r\n"), NOT_AVAILABLE);
}

/// Whoever has read that the reload is over, in the log or as the service manager, meets nobody who
/// still has the old table.
#[test]
fn who_comes_after_the_line_of_a_reload_meets_the_new_table() {
    let place = Place::new();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    let conf = |n: usize| format!("which stream tcp nowait @USER@ /bin/echo echo {n}\n");
    let d = Daemon::with(&conf(0)).env("NOTIFY_SOCKET", &path).start();
    notified(&socket, "READY=1");
    let meets = |n| same(d.ask("which\r\n"), format!("+Go\r\n{n}\n"));
    for n in 1..=20 {
        d.reload(&conf(n));
        meets(n);
        notified(&socket, "READY=1");
        d.begin_reload(&conf(n + 100));
        notified(&socket, "READY=1");
        meets(n + 100);
        // It may be written a moment later.
        d.wait_logs("RELOAD ", 2 * n);
    }
}

#[test]
fn no_connection_is_refused_or_broken_by_reloads() {
    let reloads = trial_size("reload", 20, 1000);
    let d = Daemon::with(&format!("log_on_success =\ncps = UNLIMITED\n{CONF}")).start();
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    same(d.ask("hello\r\n"), HELLO);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=reloads {
            d.signal(Signal::SIGHUP);
            d.wait_logs("RELOAD ", n);
            let seen = asked.load(Ordering::Relaxed);
            until("somebody is served between", || asked.load(Ordering::Relaxed) > seen + 1);
        }
        over.store(true, Ordering::Relaxed);
    });
    until("one net is left", || d.nets().len() == 1);
    let asked = asked.into_inner();
    trial("reload", format!("{reloads} reloads, {asked} connections, all of them served"));
}

/// The parent's own alarm interrupts what might hang while services start. A signal is no end of the
/// time that a key, or a program, has to be looked at.
#[test]
fn alarms_of_the_parent_refuse_no_reload() {
    let d = Daemon::with(CONF).start();
    let over = AtomicBool::new(false);
    let lines = std::thread::scope(|s| {
        s.spawn(|| {
            let end = std::time::Instant::now() + TIMEOUT;
            while !over.load(Ordering::Relaxed) && std::time::Instant::now() < end {
                d.signal(Signal::SIGALRM);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let lines = [0; 5].map(|_| d.reload(CONF));
        over.store(true, Ordering::Relaxed);
        lines
    });
    assert!(lines.iter().all(|l| l.ends_with("services=2")), "{lines:?}");
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

/// Whoever asks for reloads faster than they can be made keeps nobody from being served.
#[test]
fn reloads_without_end_keep_nobody_waiting() {
    // A reload that takes a while, so that the next one is always asked for before it is over.
    let rows = (0..1500).map(|n| format!("s{n} stream tcp nowait @USER@ internal echo\n"));
    let d = Daemon::with(&format!("{CONF}{}", rows.collect::<String>())).start();
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let end = std::time::Instant::now() + 2 * TIMEOUT;
            while !over.load(Ordering::Relaxed) && std::time::Instant::now() < end {
                d.signal(Signal::SIGHUP);
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
        });
        d.wait_logs("RELOAD ", 2);
        let answers = [0; 2].map(|_| d.connect().send("hello\r\n").read_any());
        over.store(true, Ordering::Relaxed);
        answers.into_iter().for_each(|a| same(a, HELLO));
    });
    until("one net is left", || d.nets().len() == 1);
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn an_old_net_goes_without_alarm() {
    let d = Daemon::with(CONF).start();
    for _ in 0..5 {
        let old = d.net_pid();
        d.reload(CONF);
        until("another net", || d.net_pid() != old);
        same(d.ask("hello\r\n"), HELLO);
    }
    assert!(!d.log().contains("WARN net"), "it was told to end and did:\n{}", d.log());
}

#[test]
fn what_runs_and_who_waits_is_undisturbed() {
    let d = Daemon::with(CONF).start();
    let (mut running, mut waiting) = (d.connect(), d.connect());
    running.send("cat\r\nx").expect("+Go\r\nx");
    waiting.send("hel");
    let pid = d.service("cat");
    // Whoever connected under the old table is served, under it.
    until("accepted", || d.ask("HELP\r\n").len() > 4);
    d.reload("other stream tcp nowait @USER@ /bin/echo echo other\n");
    until("the new table", || d.ask("other\r\n") == b"+Go\r\nother\n");
    running.send("still there").expect("still there");
    same(waiting.send("lo\r\n").read_all(), HELLO);
    assert!(proc::alive(pid));
    running.half_close().end();
    d.wait_log("EXIT service=cat");
}

/// The net process of the new table says that it is ready when it has long been told to end.
#[test]
fn a_reload_and_the_end_at_once() {
    let mut d = Daemon::with(CONF).start();
    for signal in [Signal::SIGSTOP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        d.signal(signal);
    }
    assert_eq!(d.wait(), 0);
    let log = d.log();
    assert!(log.contains("RELOAD ") && log.contains("stopping") && !log.contains("WARN"), "{log}");
}

#[test]
fn limits_survive_a_reload() {
    let conf = "cat stream tcp nowait @USER@ /bin/cat\n instances = 1\n";
    let d = Daemon::with(conf).start();
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx");
    d.reload(&format!("{conf}new stream tcp nowait @USER@ /bin/echo echo new\n"));
    until("the new table", || d.ask("new\r\n") == b"+Go\r\nnew\n");
    same(d.ask("cat\r\n"), BUSY);
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported() {
    let d = Daemon::with(CONF).start();
    let line = d.reload("new stream tcp perhaps @USER@ /bin/echo\nnonsense\n");
    assert!(line.contains("refused") && line.ends_with("mistakes=2"), "{line}");
    assert!(d.wait_log(":2: perhaps: ").starts_with("WARN "));
    d.wait_log("fived.conf:3: ");
    same(d.ask("hello\r\n"), HELLO);
    same(d.ask("new\r\n"), NOT_AVAILABLE);
    std::fs::remove_file(d.place.at("fived.conf")).expect("remove");
    d.signal(Signal::SIGHUP);
    d.wait_logs("RELOAD ", 2);
    same(d.ask("hello\r\n"), HELLO);
}

#[test]
fn a_reload_may_listen_elsewhere() {
    let d = Daemon::with(&format!("listen = 127.0.0.1:0\n{CONF}")).listen("").start();
    let old = d.address();
    d.reload(&format!("listen = 127.0.0.2:0\n{CONF}"));
    until("the old address is closed", || TcpStream::connect(old).is_err());
}

#[test]
fn an_address_that_a_reload_adds_is_logged_with_its_real_port() {
    let one = format!("listen = 127.0.0.1:0\n{CONF}");
    let both = format!("listen = 127.0.0.1:0 127.0.0.2:0\n{CONF}");
    let d = Daemon::with(&one).listen("").start();
    d.reload(&both);
    same(Client::connect(d.port(0)).send("hello\r\n").read_all(), HELLO);
    // It is taken back, or bound anew where no net process has it any more.
    d.reload(&one);
    d.reload(&both);
    same(Client::connect(d.port(1)).send("hello\r\n").read_all(), HELLO);
    // What stays is not new.
    d.reload(&both);
    until("the newest table is served", || d.nets().len() == 1);
    assert_eq!(d.ports_named(), 2, "{}", d.log());
}

#[test]
fn a_reload_goes_from_every_address_to_one_of_the_same_port_and_back() {
    if !has_ipv6() {
        return;
    }
    // The system could give one of its own range to somebody else meanwhile.
    let port = free_port();
    let every = format!("listen = [::]:{port} 0.0.0.0:{port}\n{CONF}");
    let d = Daemon::with(&every).listen("").start();
    let at = |ip: &str| std::net::SocketAddr::new(ip.parse().expect("ip"), port);
    let refused = |ip: &str| TcpStream::connect(at(ip)).is_err();
    for _ in 0..2 {
        let line = d.reload(&format!("listen = 127.0.0.1:{port}\n{CONF}"));
        assert!(!line.contains("refused"), "{line}");
        until("the others are closed", || refused("::1") && refused("127.0.0.2"));
        same(Client::connect(at("127.0.0.1")).send("hello\r\n").read_all(), "+Go\r\nhello\n");
        // The port is nobody else's for that.
        assert!(std::net::TcpListener::bind(at("127.0.0.1")).is_err());
        let line = d.reload(&every);
        assert!(!line.contains("refused"), "{line}");
        for ip in ["::1", "127.0.0.2", "127.0.0.1"] {
            until("it is open", || !refused(ip));
            same(Client::connect(at(ip)).send("hello\r\n").read_all(), "+Go\r\nhello\n");
        }
    }
}

#[test]
fn who_has_come_to_an_address_that_is_given_up_is_served() {
    if !descriptors(4096) {
        return skip("needs 4096 descriptors (ulimit -n)");
    }
    let d = Daemon::with(&format!(
        "listen = 127.0.0.1:0 127.0.0.2:0\nmax_services_per_source = 300\n{CONF}"
    ))
    .listen("")
    .start();
    let given_up = d.port(0);
    let net = d.net_pid();
    let Some(held) = proc::hold(net) else { return };
    // More than the parent takes at once, and fewer than may wait for one user's slow starts.
    let come: Vec<Client> = (0..200).map(|_| Client::connect(given_up)).collect();
    let come: Vec<Client> = come
        .into_iter()
        .map(|mut c| {
            c.send("hello\r\n");
            c
        })
        .collect();
    d.begin_reload(&format!("listen = 127.0.0.1:0\nmax_services_per_source = 300\n{CONF}"));
    until("a new net", || {
        d.log().matches("listening on").count() > 2 || d.ask("hello\r\n") == HELLO.as_bytes()
    });
    drop(held);
    for mut c in come {
        same(c.read_all(), HELLO);
    }
    let line = d.wait_log("RELOAD ");
    assert!(!line.contains("refused"), "{line}");
}

/// Net's last orders may be refused: it waits for the parent's word.
#[test]
fn refusals_while_a_net_drains_are_answered() {
    let conf = "missing stream tcp nowait @USER@ /nonexistent/program x\n";
    let d = Daemon::with(&format!("listen = 127.0.0.1:0 127.0.0.2:0\n{conf}")).listen("").start();
    let given_up = d.port(0);
    let net = d.net_pid();
    let Some(held) = proc::hold(net) else { return };
    let mut come: Vec<Client> = (0..50).map(|_| Client::connect(given_up)).collect();
    come.iter_mut().for_each(|c| {
        c.send("missing\r\n");
    });
    d.begin_reload(&format!("listen = 127.0.0.1:0\n{conf}"));
    until("a new net", || d.ask("missing\r\n") == FAILED.as_bytes());
    drop(held);
    for mut c in come {
        same(c.read_all(), FAILED);
    }
    until("the old net is gone", || !proc::alive(net));
}

#[test]
fn term_drains() {
    let mut d = Daemon::with(CONF).start();
    let (mut running, mut waiting) = (d.connect(), d.connect());
    running.send("cat\r\nx").expect("+Go\r\nx");
    waiting.send("hel");
    d.signal(Signal::SIGTERM);
    until("no new connections", || TcpStream::connect(d.address()).is_err());
    running.send("still there").expect("still there");
    // Whoever has asked for nothing yet is closed.
    same(waiting.read_any(), "");
    assert_eq!(d.exited(), None, "it waits for what runs");
    running.half_close().end();
    assert_eq!(d.wait(), 0);
}

#[test]
fn plain_services_keep_their_connections_beyond_the_end() {
    let mut d = Daemon::with(&format!("shutdown_timeout = 3\n{CONF}")).start();
    let mut running = d.connect();
    running.send("cat\r\nx").expect("+Go\r\nx");
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    running.send("still there").expect("still there").half_close().end();
}

#[test]
fn term_ends_at_once_when_nothing_runs() {
    let mut d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let net = d.net_pid();
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    until("net has gone", || !proc::alive(net));
}

#[test]
fn a_second_term_or_an_int_ends_at_once() {
    for signals in [&[Signal::SIGTERM, Signal::SIGTERM][..], &[Signal::SIGINT]] {
        let mut d = Daemon::with(&format!("shutdown_timeout = 600\n{CONF}")).start();
        let mut running = d.connect();
        running.send("cat\r\nx").expect("+Go\r\nx");
        for signal in signals {
            d.signal(*signal);
            // Two signals of a kind at once are one.
            until("taken", || {
                d.exited().is_some()
                    || proc::status(d.parent_pid(), "ShdPnd") == "0000000000000000"
                        && d.log().contains("stopping")
            });
        }
        d.wait();
    }
}

#[test]
fn usr1_writes_the_state() {
    let d = Daemon::with(CONF).start();
    let mut running = d.connect();
    running.send("cat\r\nx").expect("+Go\r\nx");
    let pid = d.service("cat");
    d.signal(Signal::SIGUSR1);
    let line = d.wait_log(&format!("pid={pid} from=127.0.0.1 session="));
    assert!(line.contains("service=cat"), "{line}");
    d.signal(Signal::SIGUSR1);
    same(d.ask("hello\r\n"), HELLO);
}

#[test]
fn sockets_of_systemd_are_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let d = Daemon::with(&format!("listen = 192.0.2.1:1\n{CONF}"))
        .listen("")
        .under(&["sh", "-c", shell])
        .stdin(listener.into())
        .start();
    assert_eq!(d.addresses, [address]);
    let unused = format!(
        "listen: 192.0.2.1:1 is not used, because the service manager handed over sockets (LISTEN_FDS): {address}; "
    );
    d.wait_log(&format!("fived.conf:2: {unused}"));
    same(d.ask("hello\r\n"), HELLO);
    // They are not the services' affair, nor a reload's.
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx");
    let pid = d.service("cat");
    assert_eq!(proc::descriptors(pid).len(), 3);
    assert!(!proc::environment(pid).iter().any(|w| w.starts_with("LISTEN_")));
    d.reload(CONF);
    same(d.ask("hello\r\n"), HELLO);
    let told = |d: &Daemon| d.log().matches(" is not used").count();
    assert_eq!(told(&d), 1, "{}", d.log());
    d.reload(&format!("listen = {address}\n{CONF}"));
    assert_eq!(told(&d), 1, "{}", d.log());
    d.reload(&format!("# another\nlisten = {address} 192.0.2.1:1\n{CONF}"));
    d.wait_log(&format!("fived.conf:3: {unused}"));
}

/// Such a port would have two listeners, and the kernel would deal clients out to both.
#[test]
fn a_socket_of_systemd_at_a_rows_own_port_is_a_mistake() {
    let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    let given = |at: &str, conf: &dyn Fn(u16) -> String| {
        let listener = std::net::TcpListener::bind(at).expect("listener");
        let port = listener.local_addr().expect("address").port();
        let d = Daemon::with(&conf(port)).listen("").under(&["sh", "-c", shell]);
        (d.stdin(listener.into()), port)
    };
    let row = |port: &str| format!("{CONF}own stream tcp nowait @USER@ internal echo\n {port}\n");
    for (at, word, written) in [
        ("127.0.0.1:0", "port", "127.0.0.1:"),
        ("[::]:0", "port", ""),
        ("[::]:0", "port", "0.0.0.0:"),
        ("[::]:0", "tls_port", ""),
    ] {
        let conf = |port: u16| row(&format!("{word} = {written}{port}"));
        let (d, port) = given(at, &conf);
        let (code, err) = d.fails();
        let address = at.replace(":0", &format!(":{port}"));
        let wanted = format!(
            "fived.conf:5: {word}: {written}{port}: expected a port that the sockets of the service manager (LISTEN_FDS) leave, found {address}"
        );
        assert!(code == 1 && err.contains(&wanted), "{code} {err}");
    }
    // As beside `listen`, one address may be a row's own where the other socket is at all of them.
    let (d, port) = given("[::]:0", &|port| row(&format!("port = 127.0.0.1:{port}")));
    let d = d.start();
    assert_eq!(d.addresses.len(), 2, "{}", d.log());
    let line = d.reload(&row(&format!("port = {port}")));
    assert!(line.contains(" refused "), "{line}");
    d.wait_log("expected a port that the sockets of the service manager (LISTEN_FDS) leave");
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let d = Daemon::with(CONF).env("LISTEN_FDS", "1").env("LISTEN_PID", "1").start();
    same(d.ask("hello\r\n"), HELLO);
}

fn notified(socket: &UnixDatagram, word: &str) {
    socket.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let mut bytes = [0; 4096];
    loop {
        let n = socket.recv(&mut bytes).expect("a message");
        if String::from_utf8_lossy(&bytes[..n]).lines().any(|l| l == word) {
            return;
        }
    }
}

#[test]
fn systemd_is_notified_by_a_path() {
    let place = Place::new();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    let mut d = Daemon::with(CONF).env("NOTIFY_SOCKET", &path).start();
    notified(&socket, "READY=1");
    same(d.ask("hello\r\n"), HELLO);
    d.reload(CONF);
    notified(&socket, "RELOADING=1");
    notified(&socket, "READY=1");
    // One that is refused ends, too.
    d.reload("a stream tcp perhaps @USER@ /bin/cat\n");
    notified(&socket, "RELOADING=1");
    notified(&socket, "READY=1");
    d.signal(Signal::SIGTERM);
    notified(&socket, "STOPPING=1");
    assert_eq!(d.wait(), 0);
}

#[test]
fn systemd_is_notified_by_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("fived-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("name");
    let socket = UnixDatagram::bind_addr(&address).expect("socket");
    let d = Daemon::with(CONF).env("NOTIFY_SOCKET", &format!("@{name}")).start();
    notified(&socket, "READY=1");
    same(d.ask("hello\r\n"), HELLO);
}

#[test]
fn a_pidfile_of_another_is_left_alone() {
    let mut d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    d.place.write("pid", "1\n", 0o644);
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    assert_eq!(std::fs::read_to_string(d.place.at("pid")).expect("pidfile"), "1\n");
}

/// Scripts start another at once, which does nothing while the pidfile names one that runs.
#[test]
fn the_pidfile_goes_when_fived_begins_to_stop() {
    let conf = "cat stream tcp nowait @USER@ /bin/cat cat\n";
    let mut d = Daemon::with(conf).arg("-p").arg("@DIR@/pid").start();
    let mut c = d.connect();
    c.send("cat\r\na").expect("+Go\r\na");
    d.signal(Signal::SIGTERM);
    until("the pidfile goes", || std::fs::metadata(d.place.at("pid")).is_err());
    assert!(proc::alive(d.parent_pid()), "its service still runs");
    c.send("b").expect("b").half_close().end();
    assert_eq!(d.wait(), 0);
}

/// `fived --reload -p` and init scripts would reach the wrong one.
#[test]
fn the_pidfile_of_one_that_serves_is_left_alone() {
    let mut first = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    let (pid, first_id) = (first.place.at("pid"), first.parent_pid());
    let read = || std::fs::read_to_string(&pid).expect("pidfile");
    let (code, err) = Daemon::with(CONF).arg("-p").arg(&pid).fails();
    let wanted = format!(
        "{pid}: expected the pidfile of no running fived, found that of process {first_id}\n"
    );
    assert!(code == 111 && err.contains(&wanted), "{code} {err}");
    same(read(), format!("{first_id}\n"));
    same(first.ask("hello\r\n"), HELLO);
    // One that ends, or makes room, gives it up with its ports.
    let mut slow = first.connect();
    slow.send("cat\r\nx").expect("+Go\r\nx");
    for (signal, says) in [(Signal::SIGUSR2, "leaving"), (Signal::SIGTERM, "stopping")] {
        first.signal(signal);
        first.wait_log(says);
        let second = Daemon::with(CONF).arg("-p").arg(&pid).start();
        same(read(), format!("{}\n", second.parent_pid()));
    }
    slow.half_close().end();
    assert_eq!(first.wait(), 0);
}

/// Anybody who may read it can lock it for reading, as soon as fived was killed, say.
#[test]
fn a_pidfile_that_somebody_reads_is_free() {
    let place = Place::new();
    place.write("pid", "1\n", 0o644);
    let read = std::fs::File::open(place.at("pid")).expect("pidfile");
    // SAFETY: all zeros is a valid flock: of the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_RDLCK as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&read);
    // SAFETY: one flock is read.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETLK, &raw const lock) }, 0);
    let d = Daemon::with(CONF).arg("-p").arg(&place.at("pid")).start();
    let now = std::fs::read_to_string(place.at("pid")).expect("pidfile");
    assert_eq!(now, format!("{}\n", d.parent_pid()));
}

/// Whoever types `-p` for another option must not lose a file.
#[test]
fn a_file_that_is_no_pidfile_is_left_alone() {
    let place = Place::new();
    std::os::unix::fs::symlink("pid", place.at("link")).expect("link");
    let given = |text: &str, name: &str| {
        place.write("pid", text, 0o644);
        Daemon::with(CONF).arg("-p").arg(&place.at(name))
    };
    for (text, name) in
        [("key = value\n", "pid"), ("12 34\n", "pid"), ("-1\n", "pid"), ("x", "link")]
    {
        let (code, err) = given(text, name).fails();
        let wanted = format!(
            "{}: expected a pidfile (none yet, an empty one, or one with a process id alone), found another file, which is left as it is",
            place.at(name)
        );
        assert!(code == 1 && err.contains(&wanted), "{code} {err}");
        assert_eq!(std::fs::read_to_string(place.at("pid")).expect("a file"), text);
    }
    let (code, err) = Daemon::with(CONF).arg("-p").arg("@DIR@/fived.conf").fails();
    assert!(code == 1 && err.contains("fived.conf: expected a pidfile "), "{code} {err}");
    for (text, name) in [("", "pid"), ("4711\n", "pid"), (" 1", "pid"), ("1\n", "link")] {
        let d = given(text, name).start();
        let now = std::fs::read_to_string(place.at("pid")).expect("pidfile");
        assert_eq!(now, format!("{}\n", d.parent_pid()));
    }
    same(Daemon::with(CONF).arg("-p").arg("/dev/null").start().ask("hello\r\n"), HELLO);
}

#[test]
fn the_pidfile_has_the_parent_s_id() {
    let mut d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    let path = d.place.at("pid");
    assert_eq!(std::fs::read_to_string(&path).expect("pidfile"), format!("{}\n", d.parent_pid()));
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    assert!(!std::path::Path::new(&path).exists(), "it goes with its process");
}

/// Ends the process of a pidfile, which is nobody's child here.
struct Detached(String);

impl Detached {
    fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        for pid in [vec![pid], proc::descendants(pid)].concat() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn in_the_background_it_serves_when_the_command_has_ended() {
    let place = Place::new();
    let free = free_address();
    place.write(
        "fived.conf",
        &format!("state_directory = @DIR@\nlog_type = FILE @DIR@/log\n{CONF}"),
        0o644,
    );
    let detached = Detached(place.at("pid"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fived"));
    // From there, by names that mean nothing elsewhere.
    let words = ["-b", "-f", "fived.conf", "-p", "pid", "-l", &free.to_string()];
    let done = command.current_dir(&place.path).args(words).output().expect("fived");
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && done.stdout.is_empty(), "{err}");
    same(Client::connect(free).send("hello\r\n").read_all(), HELLO);
    let pid = detached.pid().expect("a number in the pidfile");
    let stat = proc::stat(pid).expect("it runs");
    assert_eq!(stat[4], "0", "no terminal");
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/cwd")).expect("a directory").as_os_str(),
        "/"
    );
    assert_ne!(
        stat[3],
        proc::stat(std::process::id() as i32).expect("us")[3],
        "a session of its own"
    );
    let log = |name: &str, part: &str| {
        std::fs::read_to_string(place.at(name)).is_ok_and(|t| t.contains(part))
    };
    let listening = format!("listening on {free}\n");
    assert!(err.contains(&listening) && log("log", &listening), "told here and there: {err}");
    std::fs::rename(place.at("log"), place.at("log.1")).expect("rename");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGHUP).expect("kill");
    until("a log that was moved away is begun anew", || log("log", "RELOAD "));
}

#[test]
fn in_the_background_a_failure_is_still_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = taken.local_addr().expect("address").to_string();
    let (code, err) = Daemon::with(CONF).arg("-b").listen(&address).fails();
    assert_eq!(code, 111);
    assert!(err.contains(&address), "{err}");
}

#[test]
fn a_log_that_cannot_be_opened_again_is_told_to_whoever_asks_for_the_reload() {
    let place = Place::new();
    std::fs::create_dir(place.at("logs")).expect("a directory");
    place.write(
        "fived.conf",
        &format!("state_directory = @DIR@\nlog_type = FILE @DIR@/logs/log\n{CONF}"),
        0o644,
    );
    let _detached = Detached(place.at("pid"));
    let (conf, pid) = (place.at("fived.conf"), place.at("pid"));
    let (code, _, err) = run(&["-b", "-f", &conf, "-p", &pid, "-l", "127.0.0.1:0"]);
    assert_eq!(code, 0, "{err}");
    std::fs::rename(place.at("logs"), place.at("old")).expect("rename");
    let (code, _, err) = run(&["--reload", "-p", &pid]);
    assert!(code == 0 && err.starts_with("warning: ") && err.contains(":2: log_type: "), "{err}");
}

/// `fived --reload`, with the daemon's pidfile.
fn ask_to_reload(d: &Daemon) -> (i32, String) {
    let (code, out, err) = run(&["--reload", "-p", &d.place.at("pid")]);
    assert_eq!(out, "");
    (code, err)
}

#[test]
fn a_requested_reload_reports_its_outcome() {
    let d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    let conf = |text: &str| {
        d.place.write("fived.conf", &format!("state_directory = @DIR@/state\n{text}"), 0o644)
    };
    conf(
        "new stream tcp nowait @USER@ /bin/echo echo new\nmissing stream tcp nowait @USER@ /nonexistent/program\n",
    );
    let (code, said) = ask_to_reload(&d);
    assert!(code == 0 && said.lines().count() == 1, "{said}");
    assert!(
        said.starts_with("warning: ") && said.contains("fived.conf:3: /nonexistent/program: "),
        "{said}"
    );
    // It is served by then, not only read.
    same(d.ask("new\r\n"), "+Go\r\nnew\n");
    conf(
        "a stream tcp perhaps @USER@ /bin/cat\nb stream tcp nowait @USER@ /bin/cat\n instances = many\n",
    );
    let (code, said) = ask_to_reload(&d);
    assert_eq!((code, said.lines().count()), (1, 3), "{said}");
    assert!(
        said.contains("fived.conf:2: perhaps: ")
            && said.contains("fived.conf:4: instances: ")
            && said.contains("refused"),
        "{said}"
    );
    same(d.ask("new\r\n"), "+Go\r\nnew\n");
}

/// SIGHUP is not queued: of those that are sent while one is pending, all but the first are lost.
#[test]
fn reloads_requested_at_once_are_all_answered_promptly() {
    let d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    let pid = d.parent_pid();
    for conf in ["new stream tcp nowait @USER@ /bin/echo echo new\n", "bad stream tcp\n"] {
        let good = conf.starts_with("new");
        std::thread::scope(|scope| {
            d.signal(Signal::SIGSTOP);
            let asks: Vec<_> = (0..6).map(|_| scope.spawn(|| ask_to_reload(&d))).collect();
            until("it was asked", || proc::is_pending(pid, Signal::SIGHUP));
            std::thread::sleep(Duration::from_millis(200));
            // All have asked: what is read from now on is good for each.
            d.place.write("fived.conf", &format!("state_directory = @DIR@/state\n{conf}"), 0o644);
            let since = Instant::now();
            d.signal(Signal::SIGCONT);
            for ask in asks {
                let (code, said) = ask.join().expect("it ends");
                assert_eq!(code, i32::from(!good), "{said}");
            }
            assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        });
        if good {
            same(d.ask("new\r\n"), "+Go\r\nnew\n");
        }
    }
    // Of each six, one asks first; one more reload, or a few, are enough for the others, but for
    // those that a slow machine lets ask later.
    let reloads = d.log().matches("RELOAD ").count();
    assert!((2..=12).contains(&reloads), "{reloads}");
}

/// A file that a full disk has cut off, say.
#[test]
fn a_reload_after_which_there_is_no_service_says_so() {
    let mut d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
    d.place.write("fived.conf", "state_directory = @DIR@/state\n", 0o644);
    let wanted = format!(
        "{}: the new configuration has no service; the one before it had 2",
        d.place.at("fived.conf")
    );
    assert_eq!(ask_to_reload(&d), (0, format!("warning: {wanted}\n")));
    d.wait_log(&format!("WARN {wanted}"));
    // There was none before.
    let wanted = format!("{}: the configuration has no service", d.place.at("fived.conf"));
    assert_eq!(ask_to_reload(&d), (0, format!("warning: {wanted}\n")));
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
}

#[test]
fn a_start_without_any_service_says_so() {
    let d = Daemon::with("request_timeout = 5\n").start();
    let conf = d.place.at("fived.conf");
    let wanted = format!("{conf}: the configuration has no service");
    d.wait_log(&format!("WARN {wanted}"));
    let tested = d.place.fived("", &["-t"]);
    assert_eq!(tested, (0, "configuration OK\n".into(), format!("warning: {wanted}\n")));
    // One that is switched off is a row all the same: the file has not been cut off.
    let off = format!("{CONF} disable = yes\n");
    assert_eq!(d.place.fived(&off, &["-t"]), (0, "configuration OK\n".into(), "".into()));
}

/// The new net process is not ready when fived is told to end: it never will be.
#[test]
fn a_reload_requested_while_fived_ends_is_refused() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut d = Daemon::with(CONF).arg("-p").arg("@DIR@/pid").start();
        let pid = d.parent_pid();
        let asks = std::thread::scope(|scope| {
            d.signal(Signal::SIGSTOP);
            let asks = scope.spawn(|| ask_to_reload(&d));
            until("it was asked", || proc::is_pending(pid, Signal::SIGHUP));
            d.signal(signal);
            d.signal(Signal::SIGCONT);
            asks.join().expect("it ends")
        });
        let (code, said) = asks;
        let wanted =
            "fived: there was no reload: fived is being ended, and takes no more clients\n";
        assert_eq!((code, said.as_str()), (1, wanted));
        assert_eq!(d.wait(), 0);
    }
}

#[test]
fn a_reload_without_a_running_fived_is_an_error() {
    let place = Place::new();
    let said = |pid: &str| {
        place.write("pid", pid, 0o644);
        run(&["--reload", "-p", &place.at("pid")])
    };
    let (code, _, err) = run(&["--reload", "-p", &place.at("none")]);
    assert!(code == 1 && err.contains("No such file"), "{err}");
    let (code, _, err) = said("many\n");
    assert!(
        code == 1 && err.contains("expected the number of a running process, found \"many\""),
        "{err}"
    );
    // A pidfile that was left behind: nobody else gets a signal.
    let mut other = std::process::Command::new("/bin/sleep").arg("60").spawn().expect("sleep");
    let comm = format!("/proc/{}/comm", other.id());
    until("it is sleep", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"));
    let (code, _, err) = said(&other.id().to_string());
    assert!(code == 1 && err.contains("expected fived, found \"sleep\""), "{err}");
    assert!(other.try_wait().expect("wait").is_none(), "it runs");
    kill_and_wait(&mut other);
}

/// Who asks while a reload takes long has `server_timeout` from the start of the service, not from
/// the beginning of the reload.
#[test]
fn a_slow_reload_shortens_no_deadline() {
    let conf = "own stream tcp nowait @USER@ /bin/sh sh -c \"sleep 1; echo done\"\n server_timeout = 3\n port = 127.0.0.1:0\n";
    let d = Daemon::with(conf).start();
    let text = d.place.fill(&format!("state_directory = @DIR@/state\n{conf}"));
    let path = d.place.at("fived.conf");
    std::fs::remove_file(&path).expect("removed");
    nix::unistd::mkfifo(path.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    // Both ends: so it is open at once, and is not over before it is dropped.
    let mut pipe =
        std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("the pipe");
    d.signal(Signal::SIGSTOP);
    d.signal(Signal::SIGHUP);
    let mut clients: Vec<_> = (0..3).map(|_| d.connect()).collect();
    for c in &mut clients {
        c.send("own\r\n");
    }
    clients.push(Client::connect(d.port(0)));
    std::thread::sleep(Duration::from_millis(300));
    d.signal(Signal::SIGCONT);
    pipe.write_all(text.as_bytes()).expect("written");
    std::thread::sleep(Duration::from_millis(3500));
    drop(pipe);
    d.wait_log("RELOAD ");
    for c in &mut clients[..3] {
        same(c.read_all(), "+Go\r\ndone\n");
    }
    same(clients[3].read_all(), "done\n");
}

/// A start that was asked for under the table before is refused in its words, though the process
/// that asked has nothing else to do.
#[test]
fn a_refusal_that_crosses_a_reload_reaches_its_client() {
    let conf = "one stream tcp nowait @USER@ /bin/cat cat\n instances = 1\n";
    let d = Daemon::with(conf).start();
    let mut holds = d.connect();
    holds.send("one\r\nx").expect("+Go\r\nx");
    for _ in 0..20 {
        let mut c = d.connect();
        d.signal(Signal::SIGSTOP);
        c.send("one\r\n").half_close();
        // The order waits for the parent, and so does the reload.
        d.signal(Signal::SIGHUP);
        d.signal(Signal::SIGCONT);
        same(c.read_all(), BUSY);
    }
}
