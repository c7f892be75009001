//! Tables of inetd.conf(5), as they are; fived called by the name of inetd.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use support::*;

fn at(port: u16) -> Client {
    Client::connect(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A daemon that has this table, beside its own listener.
fn table(rows: &str) -> Builder {
    Daemon::with("inetd = @DIR@/inetd.conf\n").file("inetd.conf", rows)
}

#[test]
fn rows_are_served_at_their_ports() {
    if !has_ipv6() {
        return;
    }
    let d = table(
        "# a table\n\
         127.0.0.1:\n\
         0 stream tcp nowait @USER@ sh sh -c\n\t'echo $FIVED_SERVICE \"$0\" $PROTO'\n\
         0 stream tcp wait root internal\n\
         [::1]:0 stream tcp6 nowait @USER@ /bin/echo\n\
         tcpmux stream tcp nowait root internal\n\
         tcpmux/+hello stream tcp nowait @USER@ /bin/echo echo hello\n\
         tcpmux/own stream tcp nowait @USER@ /bin/echo echo +mine\n",
    )
    .start();
    let all = d.ports::<2>();
    same(Client::connect(all[0]).read_all(), "0 sh TCP\n");
    assert!(all[1].is_ipv6());
    same(Client::connect(all[1]).read_all(), "\n");
    same(d.ask("hello\r\n"), "+Go\r\nhello\n");
    same(d.ask("own\r\n"), "+mine\n");
    // Only the rows of tcpmux are reached by name (CVE-2012-0862).
    assert_eq!(d.help(), ["hello", "own"]);
    same(d.ask("0\r\n"), "-Service not available\r\n");
    d.wait_log("inetd.conf:5: 0: not served: expected an internal service");
    assert_eq!(d.ports_named(), 2, "{}", d.log());
}

#[test]
fn a_row_of_unix_has_a_socket_at_its_path() {
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid()).expect("groups");
    let group = group.expect("a group").name;
    let d = table(&format!(
        "@DIR@/plain stream unix nowait @USER@ env env\n\
         :@USER@::660:@DIR@/wrong stream unix nowait @USER@ env env\n\
         :@USER@:{group}:620:@DIR@/mine stream unix nowait @USER@ env env\n\
         @DIR@/datagrams dgram unix wait @USER@ env env\n"
    ))
    .start();
    for (name, mode) in [("plain", 0o666), ("mine", 0o620)] {
        let path = d.place.at(name);
        let mut answer = String::new();
        let connected = std::os::unix::net::UnixStream::connect(&path);
        connected.expect("it listens").read_to_string(&mut answer).expect("an end");
        assert!(answer.contains("PROTO=IPC\nIPCREMOTEEUID="), "{answer}");
        let file = fs::metadata(&path).expect("socket");
        assert_eq!(file.permissions().mode() & 0o7777, mode, "{path}");
    }
    d.wait_log("inetd.conf:4: unix: not served: Unix sockets of datagrams");
    d.wait_log("inetd.conf:2: ");
}

#[test]
fn a_program_that_waits_gets_the_socket_itself() {
    let d = table(
        "127.0.0.1:0 stream tcp wait @USER@ perl perl -e\n\
         \t'accept my $c, STDIN; print $c \"one by one\\n\"'\n\
         127.0.0.2:0 dgram udp wait @USER@ perl perl -e\n\
         \t'my $who = recv STDIN, my $text, 99, 0; send STDOUT, \"heard $text\", 0, $who'\n\
         127.0.0.3:0 dgram udp nowait @USER@ /bin/cat\n",
    )
    .start();
    if !installed("perl") {
        return skip("needs perl");
    }
    let all = d.ports::<2>();
    for _ in 0..2 {
        same(Client::connect(all[0]).read_all(), "one by one\n");
    }
    let s = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    for text in ["a", "b"] {
        s.send_to(text.as_bytes(), all[1]).expect("sent");
        let mut buffer = [0; 99];
        let (n, from) = s.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..n], from), (format!("heard {text}").as_bytes(), all[1]));
    }
    d.wait_log("inetd.conf:5: nowait: not served: a program for each datagram");
    assert_eq!(d.ports_named(), 2, "{}", d.log());
}

/// As under the inetd of OpenBSD: a program of `wait` that knows sockaddr_in alone works, and IPv6
/// clients have a program of their own.
#[test]
fn a_program_that_waits_has_a_socket_for_each_family() {
    if !installed("python3") {
        return skip("needs python3");
    }
    if !has_ipv6() {
        return;
    }
    let (tcp, udp) = (free_port(), free_port());
    let d = table(&format!(
        "{tcp} stream tcp wait @USER@ /usr/bin/python3 python3 @DIR@/tcp\n\
         {udp} dgram udp wait @USER@ /usr/bin/python3 python3 @DIR@/udp\n"
    ))
    .file(
        "tcp",
        "import socket\ns = socket.socket(fileno=0)\nc, who = s.accept()\n\
         c.sendall(f'{s.family.name} {who[0]}'.encode())\n",
    )
    .file(
        "udp",
        "import socket\ns = socket.socket(fileno=0)\n_, who = s.recvfrom(9)\n\
         s.sendto(f'{s.family.name} {who[0]}'.encode(), who)\n",
    )
    .start();
    d.listening(2);
    for (host, said) in [("127.0.0.1", "AF_INET 127.0.0.1"), ("::1", "AF_INET6 ::1")] {
        let ip: IpAddr = host.parse().expect("an address");
        same(Client::connect((ip, tcp).into()).read_all(), said);
        let s = UdpSocket::bind((ip, 0)).expect("a socket");
        s.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        s.send_to(b"x", (ip, udp)).expect("sent");
        let mut buffer = [0; 99];
        let n = s.recv(&mut buffer).expect("an answer");
        same(&buffer[..n], said);
    }
}

#[test]
fn a_broken_row_leaves_the_others_also_at_a_reload() {
    let d = table("0 stream tcp nowait @USER@ /bin/echo echo one\nbroken\n").start();
    assert!(d.wait_log("broken").contains("inetd.conf:2: broken: expected a row of at least six"));
    let one = d.port(0).port();
    same(at(one).read_all(), "one\n");
    let rows = "0 stream tcp nowait @USER@ /bin/echo echo one\nx raw ip wait root /x\n0 stream tcp4 nowait @USER@ /bin/echo echo two\n";
    d.place.write("inetd.conf", rows, 0o644);
    d.signal(Signal::SIGHUP);
    d.wait_log("x:2: raw: not served: sockets of this type".trim_start_matches("x:2: "));
    let two = d.port(1).port();
    same(at(one).read_all(), "one\n");
    same(at(two).read_all(), "two\n");
}

/// As under inetd, which tries again every 10 minutes.
#[test]
fn a_port_that_cannot_be_bound_leaves_the_others_also_at_a_reload() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let rows = format!(
        "127.0.0.1:\n{port} stream tcp nowait @USER@ /bin/echo echo taken\n\
         0 stream tcp nowait @USER@ /bin/echo echo one\n\
         192.0.2.9:7 stream tcp nowait @USER@ /bin/echo echo elsewhere\n\
         @DIR@/inetd.conf stream unix nowait @USER@ /bin/echo echo file\n"
    );
    let d = table(&rows).start();
    let why = format!(
        "inetd.conf:2: {port}: not served: 127.0.0.1:{port}: Address already in use (os error 98): another program has this port; `ss -lntup sport = :{port}` shows which; end that one first; fived tries again every 10 minutes"
    );
    assert!(d.wait_log("already in use").contains(&why), "{}", d.log());
    d.wait_log("inetd.conf:4: 7: not served: 192.0.2.9:7: Cannot assign");
    d.wait_log("/inetd.conf: not served: ");
    same(at(d.port(0).port()).read_all(), "one\n");
    let rows = format!(
        "127.0.0.1:{port} stream tcp nowait @USER@ /bin/echo echo taken\n\
         127.0.0.1:0 stream tcp4 nowait @USER@ /bin/echo echo two\n"
    );
    d.place.write("inetd.conf", &rows, 0o644);
    let conf = "inetd = @DIR@/inetd.conf\n";
    let said = d.reload(conf);
    assert!(said.ends_with(" services=2"), "{said}");
    d.wait_log(&format!("inetd.conf:1: {port}: not served"));
    same(at(d.port(0).port()).read_all(), "two\n");
    drop(taken);
    d.reload(conf);
    same(at(port).read_all(), "taken\n");
}

/// Nobody else gets the port while a program has its socket; afterwards the row is served at once.
#[test]
fn a_port_that_a_program_keeps_is_bound_when_it_ends() {
    let port = free_port();
    let row = |kind: &str, says: &str| {
        format!("127.0.0.1:{port} stream tcp {kind} @USER@ /bin/sh sh -c '{says}'\n")
    };
    let rest = "127.0.0.1:0 stream tcp nowait @USER@ /bin/echo echo rest\n";
    let d = table(&(row("wait", "exec sleep 600") + rest)).start();
    let _waits = at(port);
    let started = d.wait_log("START service=");
    d.place.write("inetd.conf", &(row("nowait", "echo new") + rest), 0o644);
    d.reload("inetd = @DIR@/inetd.conf\n");
    let line = d.wait_log("not served: 127.0.0.1");
    assert!(line.contains("has this port until it ends"), "{line}");
    let pid = started.split("pid=").nth(1).and_then(|p| p.split(' ').next());
    let pid: i32 = pid.and_then(|p| p.parse().ok()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    d.wait_logs(&format!("listening on 127.0.0.1:{port}"), 2);
    same(at(port).read_all(), "new\n");
}

#[test]
fn where_nothing_can_be_bound_fived_refuses_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let row = format!("127.0.0.1:{port} stream tcp nowait @USER@ /bin/echo\n");
    let (code, text) = table(&row).listen("").fails();
    assert_eq!(code, 111, "{text}");
    assert!(text.contains(&format!("{port}: not served: 127.0.0.1:{port}: Address")), "{text}");
}

#[test]
fn what_is_wrong_makes_a_test_fail_and_a_start_go_on() {
    let place = Place::new();
    let conf = place.write("inetd.conf", "7777 stream tcp nowait @USER@ /bin/cat\nx y\n", 0o644);
    let (code, out, err) = run(&["-t", "--inetd", &conf]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("{conf}:2: x: expected a row of at least six words")), "{err}");
    place.write("inetd.conf", "7777 stream tcp nowait @USER@ /bin/cat\n", 0o644);
    assert_eq!(run(&["-t", "--inetd", &conf]), (0, "configuration OK\n".into(), "".into()));
    // A file that is not there is the administrator's mistake, and no row's.
    let (code, _, err) = run(&["-t", "--inetd", "/nonexistent/inetd.conf"]);
    assert_eq!(code, 1);
    assert!(err.starts_with("/nonexistent/inetd.conf: No such file"), "{err}");
}

#[test]
fn a_table_that_is_not_there_keeps_nothing_else_from_being_served() {
    let row = "here stream tcp nowait @USER@ /bin/echo echo here\n";
    let conf = format!("inetd = @DIR@/inetd.conf\n{row}");
    let d = Daemon::with(&conf).start();
    same(d.ask("here\r\n"), "+Go\r\nhere\n");
    d.wait_log("inetd.conf: No such file");
    let place = Place::new();
    let (code, _, err) = place.fived(&place.fill(&conf), &["-t"]);
    assert_eq!(code, 1, "-t says so too: {err}");
    assert!(err.starts_with("warning: ") && err.contains("No such file"), "{err}");
}

#[test]
fn a_directory_is_all_its_files_and_what_is_printed_is_the_same_table() {
    let place = Place::new();
    let row = |port: &str| format!("{port} stream tcp nowait @USER@ /bin/cat\n");
    let conf = place.write("inetd.conf", &(row("127.0.0.1:7001") + &row("ftp")), 0o644);
    for (name, port) in
        [("a", "7002"), ("b.conf", "7003"), ("c~", "7004"), (".d", "7005"), ("#e#", "7006")]
    {
        place.write(&format!("inetd.d/{name}"), &row(port), 0o644);
    }
    for name in ["e.dpkg-old", "f.bak", "g.orig", "h.old", "i.rej", "j.save", "k.ucf-dist"] {
        place.write(&format!("inetd.d/{name}"), &row("7007"), 0o644);
    }
    let (code, out, err) = run(&["-T", "--inetd", &conf, &place.at("inetd.d")]);
    assert_eq!((code, err.as_str()), (0, ""));
    let ports: Vec<_> = out.lines().filter_map(|l| l.strip_prefix("\tport = ")).collect();
    assert_eq!(ports, ["127.0.0.1:7001", "ftp", "7002", "7003"]);
    assert!(out.lines().any(|l| l == "listen ="), "nothing is reached by a name: {out}");
    assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()));
}

#[test]
fn tables_of_other_computers_come_back_as_they_are_printed() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/inetd");
    if fs::metadata(corpus).is_err() {
        return println!("SKIPPED: {corpus} is not there");
    }
    let place = Place::new();
    for n in 1..=48 {
        let path = format!("{corpus}/{n:02}.conf");
        let (code, out, warnings) = run(&["-T", "--inetd", &path]);
        assert_eq!(code, 0, "{path}: {warnings}");
        let again = place.fived(&out, &["-T"]);
        assert_eq!((again.0, &again.1), (0, &out), "{path}: {}", again.2);
        // Each row is in the table, and each that is switched off has its reason.
        let text = String::from_utf8_lossy(&fs::read(&path).expect("file")).into_owned();
        let active =
            text.lines().filter(|l| !l.starts_with('#') && l.split_whitespace().count() > 5);
        let active = active.filter(|l| !l.starts_with("tcpmux")).count();
        let is_row = |l: &&str| l.contains(" stream ") || l.contains(" dgram ");
        let rows: Vec<_> = out.lines().filter(is_row).collect();
        // Programs of `wait` have one for each family.
        let twins = rows.windows(2).filter(|w| w[0].replacen("4 wait", "6 wait", 1) == w[1]);
        assert_eq!(rows.len() - twins.count(), active, "{path}");
        let off = out.lines().filter(|l| *l == "\tdisable = yes").count();
        let reasons = warnings.lines().filter(|l| l.contains(": not served: ")).count();
        assert_eq!(off, reasons, "{path}: {warnings}");
    }
}

/// NetBSD's t_inetd: so many starts a minute, of a row and of an address.
#[test]
fn a_row_is_started_so_often_a_minute() {
    let rows: String = ["nowait.3", "nowait:3", "nowait/0/3", "nowait"]
        .iter()
        .enumerate()
        .map(|(n, wait)| {
            format!("127.0.0.{}:0 stream tcp {wait} @USER@ /bin/echo echo go\n", n + 1)
        })
        .collect();
    let d = table(&rows).start();
    let mut all: Vec<Vec<String>> = Vec::new();
    for port in d.ports::<4>() {
        let answers = (0..5).map(|_| Client::connect(port).read_all());
        all.push(answers.map(|a| String::from_utf8_lossy(&a).into_owned()).collect());
    }
    let limited = ["go\n", "go\n", "go\n", "", ""];
    assert_eq!(all, [limited, limited, limited, ["go\n"; 5]]);
}

/// A program that is fived by this name, in the test's directory. Its state is not the tester's:
/// root's is below /var/lib.
fn called(place: &Place, name: &str, words: &[&str]) -> (i32, String) {
    called_under(place, name, words, "true")
}

/// The same, after a command of a root who has mounts of its own.
fn called_under(place: &Place, name: &str, words: &[&str], first: &str) -> (i32, String) {
    let link = place.at(name);
    if fs::metadata(&link).is_err() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fived"), &link).expect("link");
    }
    let mut command = Command::new(if root() { "unshare" } else { &link });
    if root() {
        let own = format!("mount -t tmpfs none /var/lib && {first} && exec \"$@\"");
        command.args(["-m", "sh", "-c", &own, "sh", &link]);
    }
    command.args(words).env("XDG_STATE_HOME", place.at("")).env_remove("NOTIFY_SOCKET");
    let out = command.output().expect("it starts");
    (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Ends the daemon of a pidfile when the test does.
struct Running<'a>(&'a str);

impl Running<'_> {
    fn pid(&self) -> Pid {
        Pid::from_raw(read(self.0).trim().parse().expect("a process id"))
    }

    fn ends(&self) {
        let pid = self.pid();
        kill(pid, Signal::SIGTERM).expect("it runs");
        until("it has ended", || !proc::alive(pid.as_raw()));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(Ok(pid)) = fs::read_to_string(self.0).map(|t| t.trim().parse()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Nobody can begin TLS there, until fived has a listener of its own.
#[test]
fn a_table_of_ports_alone_needs_no_certificate() {
    let rows = "127.0.0.1:\n0 stream tcp nowait @USER@ /bin/echo echo row\n";
    let d = table(rows).listen("").start();
    same(Client::connect(d.address()).read_all(), "row\n");
    let certificate = d.place.at("state/cert.pem");
    assert!(!fs::exists(&certificate).expect("exists"), "{}", d.log());
    d.reload("inetd = @DIR@/inetd.conf\nlisten = 127.0.0.1:0\n");
    assert!(fs::exists(&certificate).expect("exists"), "{}", d.log());
    same(Client::connect(d.address()).read_all(), "row\n");
}

/// GNU inetutils, tests/inetd.sh: in the background with a pidfile, a port of one address, and at
/// each SIGHUP another port.
#[test]
fn a_link_is_inetd_and_moves_to_a_new_port_at_each_reload() {
    if root() && !installed("unshare") {
        return skip("needs unshare, as root");
    }
    let place = Place::new();
    let (conf, pid) = (place.at("inetd.conf"), place.at("inetd.pid"));
    let all = [0; 6].map(|_| free_port());
    let write = |port: u16| {
        let row = format!(
            "127.0.0.1:{port} stream tcp4 nowait @USER@ /bin/sh sh -c 'echo Your address is $TCPREMOTEIP.'\n"
        );
        place.write("inetd.conf", &row, 0o644);
    };
    write(all[0]);
    let (code, err) = called(&place, "inetd", &[&format!("-p{pid}"), &conf]);
    assert_eq!(code, 0, "{err}");
    let listening: Vec<_> = err.lines().filter(|l| l.starts_with("listening on")).collect();
    assert_eq!(listening, [format!("listening on 127.0.0.1:{}", all[0])], "nothing at port 1");
    let inetd = Running(&pid);
    for (n, port) in all.iter().enumerate() {
        until("it serves there", || TcpStream::connect(("127.0.0.1", *port)).is_ok());
        same(at(*port).read_all(), "Your address is 127.0.0.1.\n");
        if let Some(next) = all.get(n + 1) {
            write(*next);
            kill(inetd.pid(), Signal::SIGHUP).expect("it runs");
        }
    }
    until("the first is given up", || TcpStream::connect(("127.0.0.1", all[0])).is_err());
    inetd.ends();
    assert!(fs::metadata(&pid).is_err(), "the pidfile goes with it");
}

/// The unit of Debian's inetd has `Type=notify` and `WatchdogSec=5`, and no option: its main process
/// must stay and say that it lives.
#[test]
fn where_a_service_manager_waits_inetd_stays_in_the_foreground_and_gives_signs_of_life() {
    let place = Place::new();
    let (link, pid, socket) = (place.at("inetd"), place.at("inetd.pid"), place.at("notify"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fived"), &link).expect("link");
    let conf = place.write("inetd.conf", "127.0.0.1:0 stream tcp nowait @USER@ /bin/cat\n", 0o644);
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    let told = |word: &str| {
        let mut bytes = [0; 4096];
        loop {
            let n = manager.recv(&mut bytes).expect("a message");
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            if text.lines().any(|l| l == word) {
                return text;
            }
        }
    };
    let mut command = Command::new(&link);
    command.args(["-p", &pid, &conf]).env("NOTIFY_SOCKET", &socket);
    command.env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
    let mut main = command.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    let inetd = Running(&pid);
    told("READY=1");
    assert_eq!(inetd.pid().as_raw(), main.id() as i32);
    told("WATCHDOG=1");
    told("WATCHDOG=1");
    // A reload may wait for answers longer than that.
    kill(inetd.pid(), Signal::SIGHUP).expect("it runs");
    let text = told("RELOADING=1");
    assert!(text.contains("\nWATCHDOG_USEC=60000000"), "{text}");
    let text = told("READY=1");
    assert!(text.contains("\nWATCHDOG_USEC=300000"), "{text}");
    kill(inetd.pid(), Signal::SIGTERM).expect("it runs");
    told("STOPPING=1");
    assert_eq!(main.wait().expect("it ends").code(), Some(0));
}

/// As inetd: units and scripts start it again as soon as it has ended, and its ports are closed
/// until then.
#[test]
fn told_to_end_it_ends_at_once_and_services_go_on() {
    let place = Place::new();
    let (pid, port) = (place.at("inetd.pid"), free_port());
    let row = format!("127.0.0.1:{port} stream tcp nowait @USER@ /bin/cat\n");
    let conf = place.write("inetd.conf", &row, 0o644);
    let words = ["-p", &pid, &conf];
    assert_eq!(called(&place, "inetd", &words).0, 0);
    let mut c = at(port);
    c.send("a").expect("a");
    let begun = std::time::Instant::now();
    Running(&pid).ends();
    // Not the 30 s that fived waits for services.
    assert!(begun.elapsed().as_secs() < 15);
    assert_eq!(called(&place, "inetd", &words).0, 0);
    let second = Running(&pid);
    at(port).send("b").expect("b");
    c.send("c").expect("c").half_close().end();
    second.ends();
}

/// Debian's openbsd-inetd: rows on nine ports, then one more and SIGHUP.
#[test]
fn a_row_is_added_at_a_reload() {
    if root() && !installed("unshare") {
        return skip("needs unshare, as root");
    }
    let place = Place::new();
    let (conf, pid) = (place.at("inetd.conf"), place.at("inetd.pid"));
    let all = [0; 10].map(|_| free_port());
    let row = |n: usize| {
        let (port, tcp) = (all[n], ["tcp", "tcp4", "tcp46"][n % 3]);
        format!("{port} stream {tcp} nowait @USER@ /bin/echo echo row {n}\n")
    };
    let nine: String = (0..9).map(row).collect();
    place.write("inetd.conf", &nine, 0o644);
    let (code, err) = called(&place, "inetd", &["-p", &pid, &conf]);
    assert_eq!((code, err.matches("listening on ").count()), (0, 9), "{err}");
    let inetd = Running(&pid);
    let says = |n: usize| same(at(all[n]).read_all(), format!("row {n}\n"));
    (0..9).for_each(says);
    place.write("inetd.conf", &(nine.clone() + &row(9)), 0o644);
    kill(inetd.pid(), Signal::SIGHUP).expect("it runs");
    until("the new row is served", || TcpStream::connect(("127.0.0.1", all[9])).is_ok());
    (0..10).for_each(says);
    inetd.ends();
}

#[test]
fn options_of_inetd_hold_for_every_row() {
    let place = Place::new();
    let (conf, pid, port) = (place.at("inetd.conf"), place.at("inetd.pid"), free_port());
    let row = format!("127.0.0.1:{port} stream tcp nowait @USER@ /bin/echo echo go\n");
    place.write("inetd.conf", &row, 0o644);
    for (words, wanted) in [
        (["-R", "many"], "-R many: expected how many starts a minute"),
        (["-q", "none"], "-q: backlog: expected a number from 1 to 2147483647, found \"none\""),
        (["-x", "-d"], "usage: inetd "),
    ] {
        let (code, err) = called(&place, "inetd", &[&words[..], &[&conf]].concat());
        assert!(code == 1 && err.contains(wanted), "{err}");
    }
    let words = ["-p", &pid, "-R", "2", "-q", "7", &conf];
    assert_eq!(called(&place, "inetd", &words).0, 0);
    let inetd = Running(&pid);
    let says: Vec<_> = (0..3).map(|_| at(port).read_all()).collect();
    assert_eq!(says, [&b"go\n"[..], b"go\n", b""]);
    if installed("ss") {
        let out = Command::new("ss").args(["-Hlnt", &format!("sport = {port}")]).output();
        let text = String::from_utf8_lossy(&out.expect("ss").stdout).into_owned();
        assert_eq!(text.split_whitespace().nth(2), Some("7"), "{text}");
    }
    inetd.ends();
}

/// FreeBSD's option: one address for every row.
#[test]
fn with_a_rows_listen_at_one_address() {
    if root() && !installed("unshare") {
        return skip("needs unshare, as root");
    }
    let place = Place::new();
    let (conf, pid, port) = (place.at("inetd.conf"), place.at("inetd.pid"), free_port());
    let row = |n| format!("{port} stream {n} nowait @USER@ /bin/echo echo go\n");
    place.write("inetd.conf", &(row("tcp") + &row("tcp6")), 0o644);
    let (code, err) = called(&place, "inetd", &["-a", "127.0.0.3", "-p", &pid, &conf]);
    assert_eq!(code, 0, "{err}");
    let inetd = Running(&pid);
    let listening: Vec<_> = err.lines().filter(|l| l.starts_with("listening on")).collect();
    assert_eq!(listening, [format!("listening on 127.0.0.3:{port}")], "nothing else");
    assert!(err.contains("inetd.conf:2: tcp6: not served: at the address of -a"), "{err}");
    let there = SocketAddr::from(([127, 0, 0, 3], port));
    same(Client::connect(there).read_all(), "go\n");
    inetd.ends();
    // fived's own port is there, too; this address is none of this computer.
    place.write("inetd.conf", "tcpmux/go stream tcp nowait @USER@ /bin/echo echo go\n", 0o644);
    let (code, err) = called(&place, "inetd", &["-i", "-a", "192.0.2.7", "-p", &pid, &conf]);
    assert!(code != 0 && err.contains("-a: listen: 192.0.2.7:1: "), "{code} {err}");
}

/// An inetd that serves named services to this computer alone is not opened to the network.
#[test]
fn the_address_of_the_row_of_tcpmux_is_where_fived_listens() {
    let named = "tcpmux/go stream tcp nowait @USER@ /bin/echo echo go\n";
    for (row, wanted) in [
        ("127.0.0.1:tcpmux stream tcp nowait root internal\n", "listen = 127.0.0.1:1\n"),
        ("127.0.0.1:\ntcpmux stream tcp nowait root internal\n", "listen = 127.0.0.1:1\n"),
        // Not known: nobody reaches what it would lead to.
        ("nowhere:tcpmux stream tcp nowait root internal\n", "disable = yes\n"),
    ] {
        let place = Place::new();
        let conf = place.write("inetd.conf", &format!("{row}{named}"), 0o644);
        let (_, table, _) = run(&["-T", "--inetd", &conf]);
        assert!(table.contains(wanted), "{table}");
        assert_eq!(place.fived(&table, &["-T"]).1, table);
    }
}

#[test]
fn a_link_is_xinetd() {
    let place = Place::new();
    let (pid, log, port) = (place.at("xinetd.pid"), place.at("log"), free_port());
    let service = format!(
        "defaults\n{{\n log_type = SYSLOG authpriv\n}}\nservice fast\n{{\n type = UNLISTED\n flags = NOLIBWRAP\n socket_type = stream\n protocol = tcp\n port = {port}\n bind = 127.0.0.1\n\
         wait = no\n user = @USER@\n server = /bin/sh\n server_args = -c 'echo go; cat'\n log_on_success = EXIT\n}}\n"
    )
    .replace("-c 'echo go; cat'", &place.write("serve", "echo go\ncat\n", 0o755));
    let conf = place.write("xinetd.conf", &service, 0o644);
    let words = ["-f", &conf, "-pidfile", &pid, "-filelog", &log, "-stayalive", "-limit", "1"];
    let (code, err) = called(&place, "xinetd", &words);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("xinetd.conf:3: log_type: fived has one log"), "{err}");
    let xinetd = Running(&pid);
    let mut first = at(port);
    first.expect("go\n");
    // One service at a time, and the log is where the option says.
    same(at(port).read_all(), "");
    until("the log says it", || read(&log).contains("reason=max_services"));
    drop(first);
    until("there is room for another", || read(&log).contains("EXIT service=fast"));
    // Old scripts reload it so; the ports stay.
    kill(xinetd.pid(), Signal::SIGUSR2).expect("it runs");
    until("it has reloaded", || read(&log).contains("RELOAD"));
    let mut last = at(port);
    last.expect("go\n");
    // Init scripts end it so, and start it at once again: nothing of it is left in their way.
    let id = xinetd.pid();
    kill(id, Signal::SIGQUIT).expect("it runs");
    until("it has ended", || !proc::alive(id.as_raw()));
    assert!(read(&log).ends_with("stopping\n"), "{}", read(&log));
    assert!(fs::metadata(&pid).is_err(), "the pidfile goes with it");
    assert_eq!(called(&place, "xinetd", &words).0, 0);
    Running(&pid).ends();
    // The service has its client all the same.
    last.send("x").expect("x");
    assert!(called(&place, "xinetd", &["-version"]).1.is_empty());
}

/// As under Debian's inetd.
#[test]
fn with_l_hosts_deny_holds_for_every_row() {
    let library = "/usr/lib/x86_64-linux-gnu/libwrap.so.0";
    if !root() || !installed("unshare") || fs::metadata(library).is_err() {
        return skip("needs root, unshare and libwrap0");
    }
    let place = Place::new();
    let (conf, pid, port) = (place.at("inetd.conf"), place.at("inetd.pid"), free_port());
    let row = format!("127.0.0.1:{port} stream tcp nowait @USER@ /bin/echo in.echod go\n");
    place.write("inetd.conf", &row, 0o644);
    let deny = place.write("deny", "in.echod: ALL\n", 0o644);
    let mount = format!(
        "mount -t tmpfs none /mnt && cp -a /etc/. /mnt && cp {deny} /mnt/hosts.deny && mount --bind /mnt /etc"
    );
    for (options, says) in [(vec![], "go\n"), (vec!["-l"], "")] {
        let words = [options, vec!["-p", &pid, &conf]].concat();
        assert_eq!(called_under(&place, "inetd", &words, &mount).0, 0);
        let inetd = Running(&pid);
        same(at(port).read_all(), says);
        inetd.ends();
    }
}
