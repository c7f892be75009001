//! hosts.allow and hosts.deny hold for rows with `libwrap`, and are never silently open.

mod support;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use std::net::UdpSocket;
use support::*;
use yamux_client::Client as Mux;

const ROWS: &str = "one stream tcp nowait @USER@ /bin/echo echo one\n libwrap = yes\n\
    two stream tcp nowait @USER@ /bin/echo echo two\n libwrap = other\n\
    free stream tcp nowait @USER@ /bin/echo echo free\n\
    time stream tcp nowait @USER@ internal daytime\n libwrap = yes\n\
    port stream tcp nowait @USER@ /bin/echo echo port\n libwrap = yes\n port = 127.0.0.1:0\n\
    echo dgram udp wait @USER@ internal\n libwrap = udp\n port = 127.0.0.1:0\n";

/// fived under an /etc with these rules. None: not here.
fn with(allow: &str, deny: &str, more: &str) -> Option<Daemon> {
    if !root() || !installed("unshare") || !library() {
        skip("needs root, unshare and libwrap0");
        return None;
    }
    let mount = format!(
        "mount -t tmpfs none /mnt && cp -a /etc/. /mnt && cp @DIR@/allow /mnt/hosts.allow && cp @DIR@/deny /mnt/hosts.deny && {more} mount --bind /mnt /etc && exec \"$0\" \"$@\""
    );
    let b = Daemon::with(ROWS).file("allow", allow).file("deny", deny);
    Some(b.under(&["unshare", "-m", "sh", "-c", &mount]).start())
}

fn library() -> bool {
    ["/lib", "/usr/lib"].iter().any(|d| {
        let found = |e: std::fs::DirEntry| e.path().join("libwrap.so.0").exists();
        std::fs::read_dir(d).is_ok_and(|mut all| all.any(|e| e.is_ok_and(found)))
    })
}

#[test]
fn the_rules_decide_by_the_daemons_name_and_the_clients_address() {
    let allow = "echo: 127.0.0.2\nother: ALL EXCEPT 127.0.0.2\n";
    let Some(d) = with(allow, "# everybody else\nALL: ALL\n", "") else { return };
    same(d.ask("one\r\n"), "-Service not available\r\n");
    let line = d.wait_log("REFUSE service=one");
    assert!(line.contains(" reason=libwrap"), "{line}");
    same(d.ask("two\r\n"), "+Go\r\ntwo\n");
    same(d.ask("free\r\n"), "+Go\r\nfree\n");
    same(d.ask("time\r\n"), "-Service not available\r\n");
    let mut c = d.connect_from("127.0.0.2");
    c.send("one\r\n").expect("+Go\r\none\n").end();
    let mut c = d.connect_from("127.0.0.2");
    c.send("two\r\n").expect("-Service not available\r\n").end();
}

#[test]
fn the_rules_hold_in_a_stream_and_at_a_port_too() {
    let Some(d) = with("", "echo: ALL\n", "") else { return };
    let mut c = d.connect();
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(c.0);
    same(mux.ask("one\r\n").read_all(), "-Service not available\r\n");
    same(mux.ask("two\r\n").read_all(), "+Go\r\ntwo\n");
    drop(mux);
    Client::connect(d.port(0)).end();
    d.wait_logs("reason=libwrap", 2);
}

/// The clients of a server that accepts by itself are nobody's to ask about.
#[test]
fn where_there_are_rules_a_waiting_server_of_xinetd_is_not_served() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    let service = |name: &str, more: &str| {
        format!(
            "service {name}\n{{\n type = UNLISTED\n port = 0\n bind = 127.0.0.1\n socket_type = stream\n wait = yes\n user = @USER@\n server = /bin/true\n{more}}}\n"
        )
    };
    let table = service("one", "") + &service("two", " flags = NOLIBWRAP\n");
    let mount = "mount -t tmpfs none /mnt && cp -a /etc/. /mnt && cp @DIR@/deny /mnt/hosts.deny && mount --bind /mnt /etc && exec \"$0\" \"$@\"";
    let d = Daemon::with("xinetd = @DIR@/x\n").file("x", &table).file("deny", "ALL: ALL\n");
    let d = d.under(&["unshare", "-m", "sh", "-c", mount]).start();
    d.wait_log("/x:7: wait: not served: hosts.allow or hosts.deny has a rule");
    assert_eq!(d.ports_named(), 1, "{}", d.log());
}

#[test]
fn a_rule_may_ask_for_the_clients_name() {
    let Some(d) = with("ALL: localhost\n", "ALL: ALL\n", "") else { return };
    same(d.ask("one\r\n"), "+Go\r\none\n");
    let mut c = d.connect_from("127.0.0.77");
    c.send("one\r\n").expect("-Service not available\r\n").end();
}

#[test]
fn rules_that_cannot_be_asked_refuse() {
    let hide = "for l in /lib/*/libwrap.so.0* /usr/lib/*/libwrap.so.0*; do mount --bind /dev/null $l; done;";
    let Some(d) = with("", "nobody: ALL\n", hide) else { return };
    let line = d.wait_log(": echo: libwrap.so.0: not installed on this computer: the rules of hosts_access(5) cannot be asked");
    assert!(line.starts_with("WARN "), "{line}");
    same(d.ask("one\r\n"), "-Service not available\r\n");
    same(d.ask("free\r\n"), "+Go\r\nfree\n");
}

/// Whoever opens a pipe waits for its other end, and the parent itself looks whether there are rules.
#[test]
fn a_pipe_in_place_of_the_rules_refuses_and_holds_up_nobody() {
    let more = "rm /mnt/hosts.allow && mkfifo -m 644 /mnt/hosts.allow &&";
    let Some(d) = with("", "", more) else { return };
    let why = "/etc/hosts.allow: expected a regular file, found a named pipe";
    let line = d.wait_log(&format!(": echo: {why}: the rules of hosts_access(5) cannot be asked"));
    assert!(line.starts_with("WARN "), "{line}");
    same(d.ask("one\r\n"), "-Service not available\r\n");
    let line = d.wait_log("REFUSE service=one");
    assert!(line.contains(" reason=libwrap") && line.contains(why), "{line}");
    same(d.ask("free\r\n"), "+Go\r\nfree\n");
}

#[test]
fn rules_that_only_root_may_read_refuse_and_a_warning_says_so() {
    let Some(d) = with("ALL: ALL\n", "", "chmod 600 /mnt/hosts.allow &&") else { return };
    let line = d.wait_log(": echo: /etc/hosts.allow: Permission denied");
    assert!(line.starts_with("WARN "), "{line}");
    same(d.ask("one\r\n"), "-Service not available\r\n");
    let line = d.wait_log("REFUSE service=one");
    assert!(line.contains("/etc/hosts.allow: Permission denied"), "{line}");
}

#[test]
fn without_rules_and_without_the_library_all_is_allowed() {
    let hide = "for l in /lib/*/libwrap.so.0* /usr/lib/*/libwrap.so.0*; do mount --bind /dev/null $l; done;";
    let Some(d) = with("# none\n", "\n", hide) else { return };
    same(d.ask("one\r\n"), "+Go\r\none\n");
    d.wait_log("EXIT service=one");
    assert!(!d.log().contains("libwrap"), "{}", d.log());
}

#[test]
fn a_rule_holds_from_the_moment_it_is_written_and_without_any_nobody_waits() {
    let Some(d) = with("# none\n", "\n", "ln -sf @DIR@/deny /mnt/hosts.deny;") else { return };
    // More at a time than may ask: nothing is asked.
    let all: Vec<Client> = (0..20)
        .map(|_| {
            let mut c = d.connect();
            c.send("one\r\n");
            c
        })
        .collect();
    for mut c in all {
        c.expect("+Go\r\none\n").end();
    }
    d.place.write("deny", "echo: ALL\n", 0o644);
    same(d.ask("one\r\n"), "-Service not available\r\n");
    d.place.write("deny", "# no more\n", 0o644);
    same(d.ask("one\r\n"), "+Go\r\none\n");
}

/// What was asked under rules that have changed since is asked again, and holds for nobody else.
#[test]
fn rules_that_change_while_they_are_asked_decide_as_they_are_now() {
    // They are read, and decide later.
    let slow = "ALL: ALL: spawn sleep 60.5: ALLOW\n";
    let sleeps = |d: &Daemon| -> Vec<i32> {
        let all = proc::descendants(d.parent_pid()).into_iter();
        all.filter(|&pid| proc::arguments(pid) == ["sleep", "60.5"]).collect()
    };
    let mut asked = None;
    until("both are asked about at once", || {
        let d = with("# none\n", slow, "ln -sf @DIR@/deny /mnt/hosts.deny;");
        let Some(d) = d else { return true };
        let mut c = d.connect();
        c.send("one\r\n");
        let s = UdpSocket::bind("127.0.0.4:0").expect("bind");
        s.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("timeout");
        s.send_to(b"hello", d.port(1)).expect("send");
        // On a slow machine one has waited for too long before the other is asked about.
        let is_late = || d.log().contains("REFUSE service=one");
        until("they are asked about", || sleeps(&d).len() == 2 || is_late());
        let both = sleeps(&d);
        asked = (both.len() == 2).then_some((d, c, s, both));
        asked.is_some()
    });
    let Some((d, mut c, s, both)) = asked else { return };
    d.place.write("deny", "ALL: ALL\n", 0o644);
    for pid in both {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .expect("kill");
    }
    c.expect("-Service not available\r\n").end();
    for _ in 0..6 {
        s.send_to(b"again", d.port(1)).expect("send");
        assert!(s.recv_from(&mut [0; 64]).is_err(), "{}", d.log());
    }
    let line = d.wait_log("REFUSE service=echo");
    assert!(!d.log().contains("START service=one") && line.contains("libwrap"), "{line}");
}

/// A timer is for a process id, which may soon be another child's.
#[test]
fn what_has_been_decided_leaves_no_timer() {
    let Some(d) = with("ALL: ALL\n", "", "") else { return };
    let timers = || {
        let n = d.log().matches("STATE timers_now=").count();
        d.signal(nix::sys::signal::Signal::SIGUSR1);
        let line = d.wait_logs("STATE timers_now=", n + 1).pop().expect("a line");
        line.rsplit('=').next().and_then(|n| n.parse::<usize>().ok()).expect("a number")
    };
    let (before, since) = (timers(), std::time::Instant::now());
    for _ in 0..6 {
        same(d.ask("one\r\n"), "+Go\r\none\n");
    }
    let after = timers();
    // Others come and go.
    assert!(after <= before + 2 || since.elapsed().as_secs() >= 5, "{before} {after}");
}

/// Nobody is let in by default.
#[test]
fn a_check_that_ends_without_an_answer_refuses() {
    let Some(d) = with("", "echo: ALL: spawn sleep 60\n", "") else { return };
    let mut c = d.connect();
    c.send("one\r\n");
    let is = |pid: &i32| proc::arguments(*pid).get(1).is_some_and(|a| a == "libwrap");
    let mut check = None;
    until("the check", || {
        check = proc::children(d.parent_pid()).into_iter().find(is);
        check.is_some_and(|pid| !proc::children(pid).is_empty())
    });
    let check = nix::unistd::Pid::from_raw(check.expect("it was found"));
    let _ = nix::sys::signal::killpg(check, nix::sys::signal::Signal::SIGKILL);
    c.expect("-Service not available\r\n").end();
    assert!(d.wait_log("REFUSE service=one ").ends_with(" the rules could not be asked"));
}

#[test]
fn rules_that_wait_hold_up_nobody_and_refuse_after_five_seconds() {
    let Some(d) = with("", "echo: ALL: spawn sleep 60\n", "") else { return };
    let clients: Vec<Client> = (0..8)
        .map(|_| {
            let mut c = d.connect();
            c.send("one\r\n");
            c
        })
        .collect();
    let mut ninth = d.connect();
    ninth.send("one\r\n").expect("-Service busy\r\n").end();
    same(d.ask("two\r\n"), "-Service busy\r\n");
    same(d.ask("free\r\n"), "+Go\r\nfree\n");
    for mut c in clients {
        c.expect("-Service not available\r\n").end();
    }
    let line = d.wait_log("no answer of the rules within 5 s");
    assert!(line.starts_with("REFUSE service=one "), "{line}");
    same(d.ask("two\r\n"), "+Go\r\ntwo\n");
}

#[test]
fn the_rules_are_asked_about_each_sender_of_datagrams() {
    let Some(d) = with("", "udp: 127.0.0.2\n", "") else { return };
    let port = d.port(1);
    let [friend, stranger] = ["127.0.0.1:0", "127.0.0.2:0"].map(|from| {
        let s = UdpSocket::bind(from).expect("bind");
        s.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("timeout");
        s
    });
    // On a slow machine the rules may decide when the datagram is gone.
    let answered = |s: &UdpSocket| {
        s.send_to(b"hello", port).expect("send");
        s.recv_from(&mut [0; 64]).is_ok()
    };
    for _ in 0..2 {
        until("the friend is answered", || answered(&friend));
        assert!(!answered(&stranger));
    }
    d.wait_logs("from=127.0.0.2 reason=libwrap", 1);
}

#[test]
fn a_datagram_whose_rules_are_slow_holds_up_nobody_and_leaves_nothing() {
    // The first hangs; the second decides after a second, when its datagram is gone.
    let allow = "udp: 127.0.0.4: spawn sleep 1: ALLOW\n";
    let deny = "udp: 127.0.0.3: spawn sleep 61.25\nudp: 127.0.0.4\n";
    let Some(d) = with(allow, deny, "") else { return };
    let port = d.port(1);
    let [hangs, slow, other] = ["127.0.0.3:0", "127.0.0.4:0", "127.0.0.5:0"].map(|from| {
        let s = UdpSocket::bind(from).expect("bind");
        s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        s
    });
    let answered = |s: &UdpSocket| s.recv_from(&mut [0; 64]).is_ok();
    for s in [&hangs, &hangs, &slow] {
        s.send_to(b"hello", port).expect("send");
    }
    let sleeps = || {
        let all = proc::descendants(d.parent_pid());
        all.into_iter().find(|&pid| proc::arguments(pid).last().is_some_and(|w| w == "61.25"))
    };
    // On a slow machine its rules, too, decide when its datagram is gone: who has no answer asks
    // again.
    other.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("timeout");
    let mut sleep = None;
    until("another sender is answered meanwhile", || {
        other.send_to(b"hello", port).expect("send");
        let served = answered(&other);
        sleep = sleep.or_else(sleeps);
        served
    });
    until("its rule's command runs meanwhile", || {
        sleep = sleep.or_else(sleeps);
        sleep.is_some()
    });
    let sleep = sleep.expect("it runs");
    let dropped = "the rules have not decided about its sender yet; this datagram is dropped";
    assert!(d.wait_logs(dropped, 3).iter().all(|l| l.contains(" reason=libwrap ")), "{}", d.log());
    // Who tries again when the rules have decided is served.
    slow.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("timeout");
    until("the rules have decided", || {
        slow.send_to(b"again", port).expect("send");
        answered(&slow)
    });
    until("its rule's command is killed", || !proc::alive(sleep));
}
