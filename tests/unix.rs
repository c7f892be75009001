//! Rows on Unix sockets, and fived's own Unix socket, where the system says who asks.

#[path = "support/listed.rs"]
mod listed;
mod support;
#[path = "support/upstream.rs"]
mod upstream;
#[path = "support/yamux_client.rs"]
mod yamux_client;

use listed::Listed;
use nix::libc;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use support::*;
use yamux_client::Client as Mux;

/// A user of every Debian system who is nobody's, and a uid that has no account.
const GAMES: u32 = 5;
const NO_ACCOUNT: u32 = 3_999_999;

/// A client of a Unix socket: the calls of TcpStream are the same.
fn client(stream: UnixStream) -> Client {
    stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    stream.set_write_timeout(Some(TIMEOUT)).expect("timeout");
    Client(std::net::TcpStream::from(std::os::fd::OwnedFd::from(stream)))
}

fn connect(path: &str) -> Client {
    client(UnixStream::connect(path).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// Connects as another user: a thread of its own takes this uid and gid for that.
fn connect_as(id: u32, path: &str) -> Client {
    let path = path.to_string();
    let connected = std::thread::spawn(move || {
        // SAFETY: no memory is handed over. The call without the C library changes this thread
        // alone.
        let became = unsafe {
            libc::syscall(libc::SYS_setresgid, id, id, id) == 0
                && libc::syscall(libc::SYS_setresuid, id, id, id) == 0
        };
        assert!(became, "setresuid: {}", std::io::Error::last_os_error());
        UnixStream::connect(&path).unwrap_or_else(|e| panic!("{path} as {id}: {e}"))
    });
    client(connected.join().expect("connected"))
}

fn text(mut c: Client) -> String {
    String::from_utf8(c.half_close().read_all()).expect("UTF-8")
}

fn ask(mut c: Client, request: &str) -> String {
    c.send(request);
    text(c)
}

/// What runs the tests, as uid.
fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{path}: {e}")).permissions().mode() & 0o7777
}

const ENV: &str = "env stream unix nowait @USER@ /usr/bin/env env\n port = @DIR@/env.sock\n";

#[test]
fn a_row_has_a_socket_and_is_told_who_connected() {
    let d = Daemon::with(ENV).start();
    let path = d.place.at("env.sock");
    d.wait_log(&format!("listening on {path}"));
    assert_eq!(mode(&path), 0o666);
    let reply = text(connect(&path));
    let (uid, gid) = (me(), nix::unistd::getegid());
    let name = nix::unistd::User::from_uid(uid.into()).expect("passwd").expect("a user").name;
    let who = format!("PROTO=IPC\nIPCREMOTEEUID={uid}\nIPCREMOTEEGID={gid}\nFIVED_SERVICE=env\n");
    assert!(reply.contains(&who), "{reply}");
    assert!(reply.contains(&format!("\nREMOTE_USER={name}\nFIVED_AUTH=peer\n")), "{reply}");
    assert!(!reply.contains("TCP") && !reply.contains("REMOTE_ADDR"), "{reply}");
    let line = d.wait_log("START service=env");
    assert!(line.contains(&format!(" from=uid:{uid} ")), "{line}");
    assert!(line.ends_with(&format!(" user={name}")), "{line}");

    // A client's own path is told as it is.
    let own = d.place.at("own path");
    let fd = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("socket");
    let address = |p: &str| nix::sys::socket::UnixAddr::new(p).expect("path");
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    nix::sys::socket::bind(raw, &address(&own)).expect("bind");
    nix::sys::socket::connect(raw, &address(&path)).expect("connect");
    let reply = text(client(fd.into()));
    assert!(reply.contains(&format!("\nIPCREMOTEPATH={own}\n")), "{reply}");
    // It is not reached by its name.
    same(d.ask("env\r\n"), NOT_AVAILABLE);
}

#[test]
fn users_are_told_apart_and_have_their_own_limits() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with(&format!(
        "{ENV} per_source = 1\necho stream unix nowait nobody internal\n port = @DIR@/echo.sock\n per_source = 1\nmine stream unix nowait * /usr/bin/id id -un\n port = @DIR@/mine.sock\n users = games\n"
    ))
    .start();
    let at = |name: &str| d.place.at(name);
    let reply = text(connect_as(GAMES, &at("env.sock")));
    assert!(reply.contains("IPCREMOTEEUID=5\nIPCREMOTEEGID=5\n"), "{reply}");
    assert!(reply.contains("\nFIVED_USER=games\nREMOTE_USER=games\n"), "{reply}");
    let reply = text(connect_as(NO_ACCOUNT, &at("env.sock")));
    assert!(reply.contains(&format!("IPCREMOTEEUID={NO_ACCOUNT}\n")), "{reply}");
    assert!(!reply.contains("REMOTE_USER") && !reply.contains("FIVED_AUTH"), "{reply}");

    let mut first = connect_as(GAMES, &at("echo.sock"));
    first.send("a").expect("a");
    connect_as(GAMES, &at("echo.sock")).end();
    let line = d.wait_log("REFUSE service=echo");
    assert!(line.contains("from=uid:5 reason=per_source"), "{line}");
    assert_eq!(ask(connect_as(NO_ACCOUNT, &at("echo.sock")), "b"), "b");
    first.send("c").expect("c");

    // A row's own rules: for one user alone, as that user.
    assert_eq!(text(connect_as(GAMES, &at("mine.sock"))), "games\n");
    connect_as(NO_ACCOUNT, &at("mine.sock")).end();
    connect(&at("mine.sock")).end();
    let lines = d.wait_logs("REFUSE service=mine", 2);
    assert!(lines[0].contains("from=uid:3999999 reason=login"), "{lines:?}");
    assert!(lines[1].contains("from=uid:0 reason=user"), "{lines:?}");
}

#[test]
fn the_file_has_the_mode_and_owner_that_the_row_says() {
    if !root() {
        return skip("needs root");
    }
    let conf =
        |mode: &str, owner: &str| format!("{ENV} socket_mode = {mode}\n socket_owner = {owner}\n");
    let d = Daemon::with(&conf("0600", "games:mail")).start();
    let path = d.place.at("env.sock");
    let is = || {
        let m = std::fs::metadata(&path).expect("socket");
        (m.mode() & 0o7777, m.uid(), m.gid(), m.ino())
    };
    let (mode, uid, gid, inode) = is();
    assert_eq!((mode, uid, gid), (0o600, 5, 8));
    assert!(text(connect_as(GAMES, &path)).contains("IPCREMOTEEUID=5\n"));
    // A reload changes both, and the socket stays.
    d.reload(&conf("666", "0"));
    until("the new owner", || is() == (0o666, 0, 0, inode));
    assert!(text(connect(&path)).contains("PROTO=IPC"));
    let line = d.reload(&conf("0666", "nosuchuser"));
    assert!(line.contains("refused"), "{line}");
    d.wait_log(
        "fived.conf:5: socket_owner: expected a user of this computer, found \"nosuchuser\"",
    );
    assert_eq!(is(), (0o666, 0, 0, inode));
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let daemon = || Daemon::with(ENV);
    // Both a mistake and what the system refuses are told at the line of the attribute.
    let refused = |b: Builder, (status, line): (i32, usize), what: &str| {
        let (code, err) = b.fails();
        assert_eq!(code, status, "{err}");
        assert!(err.contains(&format!("fived.conf:{line}: port: ")) && err.contains(what), "{err}");
    };
    let b = daemon();
    std::fs::write(b.place.at("env.sock"), "mine").expect("file");
    let another = "expected no file or the socket of a fived that has ended, found another file";
    let (code, _, err) = b.place.fived(ENV, &["-t"]);
    assert!(code == 1 && err.contains("fived.conf:2: port: ") && err.contains(another), "{err}");
    refused(b, (1, 3), another);
    let b = daemon();
    let victim = b.place.at("victim");
    drop(UnixListener::bind(&victim).expect("bind"));
    symlink(&victim, b.place.at("env.sock")).expect("link");
    refused(b, (1, 3), "found another file");
    let b = daemon();
    let alive = UnixListener::bind(b.place.at("env.sock")).expect("bind");
    alive.set_nonblocking(true).expect("nonblocking");
    refused(b, (111, 3), "a process listens there already");
    assert!(alive.accept().is_err(), "nobody has connected");
    let b = daemon();
    let path = b.place.at("env.sock");
    drop(UnixListener::bind(&path).expect("bind"));
    let mut d = b.start();
    assert!(text(connect(&path)).contains("PROTO=IPC"));
    // It is removed at the end.
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    assert!(!Path::new(&path).exists());
    // What somebody has put there meanwhile stays.
    let mut d = daemon().start();
    let path = d.place.at("env.sock");
    std::fs::remove_file(&path).expect("remove");
    std::fs::write(&path, "mine").expect("file");
    d.signal(Signal::SIGINT);
    d.wait();
    assert_eq!(std::fs::read(&path).expect("file"), b"mine");
}

#[test]
fn what_cannot_be_is_a_mistake() {
    let long = format!("/{}", "x".repeat(107));
    for (row, what) in [
        ("a stream unix nowait @USER@ internal echo\n", "2: a: expected `port = /path`"),
        (
            "a stream unix nowait @USER@ internal echo\n port = 7\n",
            "3: port: expected the path of a Unix socket, found 7",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = @x\n",
            "3: port: expected the path of a Unix socket, found @x",
        ),
        ("a stream unix nowait @USER@ internal echo\n port = run/x\n", "3: port: expected PORT"),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/\n",
            "3: port: expected the absolute path",
        ),
        (
            &format!("a stream unix nowait @USER@ internal echo\n port = {long}\n"),
            "3: port: @LONG@: expected a path of at most 107 bytes",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x\n tls_port = /run/y\n",
            "4: tls_port: expected a port of TCP, found a path",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x\n tls_port = 0\n",
            "4: tls_port: expected the path",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x\n tcpmux = yes\n",
            "4: tcpmux: expected no name",
        ),
        (
            "a stream tcp nowait @USER@ internal echo\n port = /run/x\n",
            "3: port: expected a port of tcp, found the path \"/run/x\"",
        ),
        (
            "a dgram unix wait @USER@ /bin/cat\n port = /run/x\n",
            "2: unix: expected a row of the form",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x /run/x\n",
            "3: port: expected each path once, found /run/x at ",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x /run//./x\n",
            "3: port: expected each path once, found /run//./x at ",
        ),
        ("listen = /run/x /run//x\n", "2: listen: expected each path once, found /run//x"),
        (
            "listen = /run/x\na stream unix nowait @USER@ internal echo\n port = /run/x\n",
            "4: port: expected each path once, found /run/x where fived itself listens",
        ),
        (
            "a stream unix wait @USER@ /bin/cat\n port = /run/x\n users = root\n",
            "2: a: expected a row that everybody may use",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x\n socket_mode = rw\n",
            "4: socket_mode: expected ",
        ),
        (
            "a stream unix nowait @USER@ internal echo\n port = /run/x\n socket_owner = a:b:c\n",
            "4: socket_owner: expected USER or USER:GROUP",
        ),
        ("listen = @x\n", "2: listen: expected an address"),
    ] {
        let (code, _, err) = Place::new().fived(&format!("# a comment\n{row}"), &["-t"]);
        assert_eq!(code, 1, "{row}: {err}");
        let what = what.replace("@LONG@", &long);
        assert!(err.contains(&format!("fived.conf:{what}")), "{row}: {err}");
    }
    let (code, err) =
        Daemon::with("a stream unix nowait @USER@ internal echo\n port = @DIR@/none/x\n").fails();
    assert_eq!(code, 111, "{err}");
    assert!(err.contains("fived.conf:3: port: ") && err.contains("No such file"), "{err}");
}

#[test]
fn a_table_is_printed_as_it_is_read() {
    let conf = format!(
        "listen = 127.0.0.1:0 /run/f.sock\nlisten_mode = 0660\n{ENV} socket_mode = 0640\n socket_owner = root:mail\n only_from = 10.0.0.0/8 unix:\n"
    );
    let place = Place::new();
    let (code, first, err) = place.fived(&conf, &["-T"]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "listen = 127.0.0.1:0 /run/f.sock\n",
        "listen_mode = 0660\n",
        "env stream unix nowait ",
        "socket_mode = 0640\n",
        "socket_owner = root:mail\n",
        "only_from = 10.0.0.0/8 unix:\n",
    ] {
        assert!(first.contains(line), "{line}: {first}");
    }
    assert_eq!(place.fived(&first, &["-T"]).1, first);
}

#[test]
fn a_reload_adds_removes_and_keeps() {
    let row = |name: &str| {
        format!("{name} stream unix nowait @USER@ internal echo\n port = @DIR@/{name}.sock\n")
    };
    let d = Daemon::with(&[row("a"), row("b")].concat()).start();
    let inode = |name: &str| std::fs::metadata(d.place.at(name)).ok().map(|m| m.ino());
    let kept = inode("b.sock");
    let mut running = connect(&d.place.at("a.sock"));
    running.send("x").expect("x");
    let line = d.reload(&[row("b"), row("c")].concat());
    assert!(line.contains("services=2"), "{line}");
    until("a is gone", || inode("a.sock").is_none());
    assert_eq!(inode("b.sock"), kept);
    assert_eq!(ask(connect(&d.place.at("b.sock")), "b"), "b");
    assert_eq!(ask(connect(&d.place.at("c.sock")), "c"), "c");
    running.send("y").expect("y");
    // One that cannot be made leaves all as it was.
    std::fs::write(d.place.at("d.sock"), "mine").expect("file");
    let line = d.reload(&[row("c"), row("d")].concat());
    assert!(line.contains("refused"), "{line}");
    assert_eq!(ask(connect(&d.place.at("b.sock")), "b"), "b");
}

#[test]
fn a_file_that_somebody_removed_is_made_again_at_a_reload() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let program = "import socket\ns = socket.socket(fileno=0)\nc, _ = s.accept()\nc.sendall(b'program')\nc.recv(9)\n";
    let conf = "listen = 127.0.0.1:0 @DIR@/fived.sock\nany stream tcp nowait @USER@ internal echo\n\
        echo stream unix nowait @USER@ internal\n port = @DIR@/more/echo.sock\n\
        own stream unix wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = @DIR@/own.sock\n";
    let b = Daemon::with(conf).file("own", program).file("more/x", "").listen("");
    let d = b.start();
    let [fived, echo, own] = ["fived.sock", "more/echo.sock", "own.sock"].map(|n| d.place.at(n));
    let all_serve = || {
        assert_eq!(ask(connect(&fived), "any\r\nx"), "+Go\r\nx");
        assert_eq!(ask(connect(&echo), "x"), "x");
        let mut c = connect(&own);
        c.expect("program");
        c
    };
    drop(all_serve());
    d.wait_logs("EXIT service=own", 1);
    for path in [&fived, &own] {
        std::fs::remove_file(path).expect("remove");
    }
    std::fs::remove_dir_all(d.place.at("more")).expect("remove");
    std::fs::create_dir(d.place.at("more")).expect("directory");
    assert!(d.reload(conf).contains("services=3"), "{}", d.log());
    // The program of this client keeps the socket that it has, for as long as it runs.
    let mut client = all_serve();
    std::fs::remove_file(&own).expect("remove");
    d.reload(conf);
    d.wait_log("keeps the socket that it has, where no new clients come");
    client.send("x").end();
    drop(all_serve());
    // Nothing was removed, and nothing is made.
    let listens = d.log().matches("listening on /").count();
    assert_eq!(listens, 3 + 3 + 1, "{}", d.log());
    d.reload(conf);
    assert_eq!(d.log().matches("listening on /").count(), listens);
}

/// The socket is the same, and so are those who wait there and the program that has it.
#[test]
fn a_path_may_be_written_in_another_way_at_a_reload() {
    let program = "import os, socket\ns = socket.socket(fileno=0)\nwhile True:\n c, _ = s.accept()\n c.sendall(b'%d\\n' % os.getpid())\n c.close()\n";
    let rows = |directory: &str| {
        format!(
            "echo stream unix nowait @USER@ internal\n port = {directory}/echo.sock\n\
             own stream unix wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = {directory}/own.sock\n"
        )
    };
    let d = Daemon::with(&rows("@DIR@")).file("own", program).start();
    let inode = |name: &str| std::fs::metadata(d.place.at(name)).expect("a socket").ino();
    let kept = ["echo.sock", "own.sock"].map(inode);
    let pid = text(connect(&d.place.at("own.sock")));
    std::os::unix::fs::symlink(d.place.at("."), d.place.at("link")).expect("a link");
    for directory in ["@DIR@/", "@DIR@/.", "@DIR@/link", "@DIR@"] {
        let line = d.reload(&rows(directory));
        assert!(line.ends_with("services=2"), "{directory}: {line}\n{}", d.log());
        assert_eq!(["echo.sock", "own.sock"].map(inode), kept, "{directory}");
        assert_eq!(ask(connect(&d.place.at("echo.sock")), "x"), "x");
        assert_eq!(text(connect(&d.place.at("own.sock"))), pid);
    }
    let log = d.log();
    assert!(!log.contains("WARN") && log.matches("START service=own").count() == 1, "{log}");
    // One of fived's own is made anew, because its clients are known by its path.
    let d = with_own_socket("");
    for directory in ["@DIR@/.", "@DIR@"] {
        let line = d.reload(&OWN_SOCKET.replace("@DIR@", directory));
        assert!(line.ends_with("services=2"), "{directory}: {line}\n{}", d.log());
        assert_eq!(ask(connect(&d.place.at("fived")), "secret\r\nx"), "+Go\r\nx");
    }
}

#[test]
fn a_program_of_wait_accepts_by_itself() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let program = "import os, socket\ns = socket.socket(fileno=0)\nfor n in range(2):\n c, _ = s.accept()\n c.sendall(b'%d %s %s\\n' % (n, os.environb[b'PROTO'], str('IPCREMOTEEUID' in os.environ).encode()))\n c.close()\n";
    let d = Daemon::with(
        "own stream unix wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = @DIR@/own.sock\n",
    )
    .file("own", program)
    .start();
    let path = d.place.at("own.sock");
    for round in 1..=2 {
        for n in 0..2 {
            connect(&path).expect(format!("{n} IPC False\n")).end();
        }
        d.wait_logs("EXIT service=own", round);
    }
    let lines = d.wait_logs("START service=own", 2);
    assert!(!lines[0].contains("from="), "{lines:?}");
    // One that takes nothing is started ever less often, and says so.
    let d = Daemon::with("no stream unix wait @USER@ /bin/true\n port = @DIR@/no.sock\n").start();
    let _waits = connect(&d.place.at("no.sock"));
    d.wait_log("ended 2 times in a row without taking what it was started for");
}

#[test]
fn a_path_may_change_between_a_program_fived_and_a_row_at_a_reload() {
    if !installed("python3") {
        return skip("needs python3");
    }
    let program = "import socket\ns = socket.socket(fileno=0)\nc, _ = s.accept()\nwhile True:\n d = c.recv(99)\n if not d: break\n c.sendall(b'program ' + d)\n";
    let wait = "listen = 127.0.0.1:0\nany stream tcp nowait @USER@ internal echo\nown stream unix wait @USER@ /usr/bin/env env python3 @DIR@/own\n port = @DIR@/s\n";
    let nowait = "listen = 127.0.0.1:0\nany stream tcp nowait @USER@ internal echo\nown stream unix nowait @USER@ internal echo\n port = @DIR@/s\n";
    let own = "listen = 127.0.0.1:0 @DIR@/s\nany stream tcp nowait @USER@ internal echo\n";
    let d = Daemon::with(wait).file("own", program).listen("").start();
    let path = d.place.at("s");
    let mut first = connect(&path);
    first.send("a").expect("program a");
    // A reload that is refused for another reason changes nothing.
    std::fs::write(d.place.at("mine"), "mine").expect("file");
    let other = "other stream unix nowait @USER@ internal echo\n port = @DIR@/mine\n";
    for kind in [nowait, own] {
        assert!(d.reload(&[kind, other].concat()).contains("refused"));
        first.send("b").expect("program b");
    }
    for round in 1..3 {
        assert!(d.reload(nowait).contains("services=2"));
        assert_eq!(ask(connect(&path), "x"), "x");
        // The program has what it had; the log says that nobody comes there any more.
        first.send("c").expect("program c");
        d.wait_logs("keeps the socket that it has, where no new clients come", 2 * round - 1);
        assert!(d.reload(own).contains("services=1"));
        assert_eq!(ask(connect(&path), "any\r\nx"), "+Go\r\nx");
        first.send("d").expect("program d").half_close().end();
        d.wait_log("EXIT service=own");
        assert!(d.reload(wait).contains("services=2"));
        first = connect(&path);
        first.send("e").expect("program e");
        // From `wait` to a socket of fived's own at once, and back to it.
        assert!(d.reload(own).contains("services=1"));
        assert_eq!(ask(connect(&path), "any\r\ny"), "+Go\r\ny");
        first.send("f").expect("program f").half_close().end();
        assert!(d.reload(wait).contains("services=2"));
        first = connect(&path);
        first.send("g").expect("program g");
    }
    let left = std::fs::read_dir(d.place.at("")).expect("directory");
    let left: Vec<_> = left.map(|e| e.expect("entry").file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".fived-")), "{left:?}");
}

/// Runs fived with its standard input as the one socket of systemd's.
const ACTIVATED: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";

#[test]
fn a_socket_of_systemd_is_that_of_the_row_or_the_setting_that_names_it() {
    let given = |conf: &str| {
        let b = Daemon::with(conf).listen("").under(&["sh", "-c", ACTIVATED]);
        let socket = UnixListener::bind(b.place.at("s")).expect("bind");
        b.stdin(socket.into())
    };
    let own = "listen = 127.0.0.1:0\nany stream tcp nowait @USER@ internal echo\nown stream unix nowait @USER@ internal echo\n port = @DIR@/s\n";
    let setting = "listen = 127.0.0.1:0 @DIR@/s\nany stream tcp nowait @USER@ internal echo\n";
    // A net process of that table may serve until one of the newest is ready.
    let none = "listen = 127.0.0.1:0\nany stream tcp nowait @USER@ internal echo\nown stream tcp nowait @USER@ internal echo\n";
    let mut d = given(own).start();
    let path = d.place.at("s");
    d.wait_log(&format!("listening on {path}"));
    assert_eq!(ask(connect(&path), "a"), "a");
    // Clients wait there, too, while no row has it.
    d.reload(none);
    let mut waits = connect(&path);
    waits.send("b");
    d.reload(own);
    waits.expect("b").half_close().end();
    d.reload(setting);
    assert_eq!(ask(connect(&path), "any\r\nx"), "+Go\r\nx");
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    assert!(Path::new(&path).exists(), "it is systemd's");
    let d = given(setting).start();
    assert_eq!(ask(connect(&d.place.at("s")), "any\r\nx"), "+Go\r\nx");
    // A program of `wait` gets it, and fived never accepts there again.
    let wait = "listen = 127.0.0.1:0\nany stream tcp nowait @USER@ internal echo\nown stream unix wait @USER@ /bin/sh sh -c 'exec sleep 600'\n port = @DIR@/s\n";
    d.reload(wait);
    let _client = connect(&d.place.at("s"));
    d.wait_log("START service=own");
    let line = d.reload(setting);
    assert!(line.contains("refused"), "{line}");
    d.wait_log("has had this socket of the service manager: restart fived");
}

/// As of a row `port = /var/run/x`, where /var/run is a link to /run.
#[test]
fn a_socket_of_systemd_is_that_of_the_row_whose_path_leads_there() {
    let echo = "stream unix nowait @USER@ internal echo\n port =";
    let of = |path: &str| format!("own {echo} @DIR@/{path}\n");
    let b = Daemon::with(&of("link/s")).under(&["sh", "-c", ACTIVATED]);
    let (directory, path) = (b.place.at("real"), b.place.at("real/s"));
    std::fs::create_dir(&directory).expect("directory");
    std::os::unix::fs::symlink("real", b.place.at("link")).expect("link");
    let socket = UnixListener::bind(&path).expect("bind");
    let d = b.stdin(socket.into()).start();
    assert_eq!(ask(connect(&path), "a"), "a");
    // However a reload writes it, it is this socket.
    for written in ["real/s", "link/../real/s", "link/s"] {
        let line = d.reload(&of(written));
        assert!(line.ends_with("services=1"), "{written}: {line}\n{}", d.log());
        assert_eq!(ask(connect(&path), "b"), "b");
    }
    let bound = d.log().matches(&format!("listening on {}", d.place.at(""))).count();
    assert_eq!(bound, 1, "not once more: {}", d.log());
    // Another row beside it, by another path, has the same socket.
    let line = d.reload(&format!("{}two {echo} @DIR@/real/s\n", of("link/s")));
    assert!(line.contains(" refused "), "{line}");
    d.wait_log("expected each socket once, found it at");
    assert_eq!(ask(connect(&path), "c"), "c");
    // A program that has it is not started once more.
    let waits = |path| {
        let program = "/bin/sh sh -c 'exec sleep 600'";
        let own = of(path).replace("nowait", "wait").replace("internal echo", program);
        format!("any stream tcp nowait @USER@ internal echo\n{own}")
    };
    d.reload(&waits("real/s"));
    let _client = connect(&path);
    let started = || {
        let log = d.log();
        let own = log.lines().filter(|l| l.starts_with("START service=own"));
        own.filter(|l| !l.contains("from=")).count()
    };
    until("it is started", || started() == 1);
    let line = d.reload(&waits("link/s"));
    assert!(line.ends_with("services=2"), "{line}");
    until("the new table is served", || d.ask("any\r\nx") == b"+Go\r\nx");
    assert_eq!(started(), 1, "{}", d.log());
}

#[test]
fn a_socket_of_systemd_that_nothing_names_or_that_is_no_listener_is_refused() {
    let none = "own stream tcp nowait @USER@ internal echo\n";
    let given = || Daemon::with(none).under(&["sh", "-c", ACTIVATED]);
    let b = given();
    let socket = UnixListener::bind(b.place.at("s")).expect("bind");
    let path = b.place.at("s");
    let (code, err) = b.stdin(socket.into()).fails();
    assert_eq!(code, 111, "{err}");
    let wanted = format!(
        "LISTEN_FDS: {path}: expected the path of a row (`port = {path}`) or of `listen`, found a socket that none names"
    );
    assert!(err.contains(&wanted), "{err}");
    let (end, _other) = UnixStream::pair().expect("pair");
    let (code, err) = given().stdin(end.into()).fails();
    let wanted = "LISTEN_FDS: descriptor 3: expected a listening socket, found something else";
    assert!(code == 111 && err.contains(wanted), "{code} {err}");
    use std::os::linux::net::SocketAddrExt;
    let name = format!("fived-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("name");
    let socket = UnixListener::bind_addr(&address).expect("bind");
    let (code, err) = given().stdin(socket.into()).fails();
    let wanted = "found one that has neither an address and port nor a path";
    assert!(code == 111 && err.contains(wanted), "{code} {err}");
}

#[test]
fn more_sockets_of_systemd_than_there_may_be_are_refused() {
    let more = ACTIVATED.replace("LISTEN_FDS=1", "LISTEN_FDS=65");
    let row = "own stream tcp nowait @USER@ internal echo\n";
    let (code, err) = Daemon::with(row).under(&["sh", "-c", &more]).fails();
    let wanted = "LISTEN_FDS: expected at most 64 sockets, found 65";
    assert!(code == 111 && err.contains(wanted), "{code} {err}");
}

#[test]
fn a_directory_where_others_can_write_is_a_warning() {
    let conf = "listen = 127.0.0.1:0 @DIR@/d/fived\nown stream unix nowait @USER@ internal echo\n port = @DIR@/d/s\n";
    let place = Place::new();
    let directory = place.at("d");
    std::fs::create_dir(&directory).expect("directory");
    let warned = |mode: u32| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&directory, mode).expect("mode");
        let (code, _, err) = place.fived(conf, &["-t"]);
        assert_eq!(code, 0, "{err}");
        err.matches("can write to its directory").count()
    };
    assert_eq!((warned(0o755), warned(0o775), warned(0o777), warned(0o1777)), (0, 0, 2, 2));
    let err = place.fived(conf, &["-t"]).2;
    let wanted = format!("fived.conf:3: port: {directory}/s: everybody can write to its directory");
    assert!(err.contains(&wanted), "{err}");
    if root() {
        std::os::unix::fs::chown(&directory, Some(GAMES), Some(GAMES)).expect("chown");
        assert_eq!(warned(0o755), 2);
        std::os::unix::fs::chown(&directory, Some(0), Some(GAMES)).expect("chown");
        assert_eq!((warned(0o755), warned(0o775)), (0, 2));
    }
}

#[test]
fn every_kind_of_service_can_be_there() {
    let answer = |mut s: UnixStream| {
        let mut all = String::new();
        let _ = s.read_to_string(&mut all);
        let _ = s.write_all(format!("heard {all}").as_bytes());
    };
    let d = Daemon::with(
        "echo stream unix nowait @USER@ internal\n port = @DIR@/echo.sock\n\
         redirect stream unix nowait @USER@ redirect @DIR@/upstream\n port = @DIR@/redirect.sock\n \
         banner = @DIR@/banner\n\
         chat stream unix nowait @USER@ handover @DIR@/chat\n port = @DIR@/chat.sock\n",
    );
    d.place.write("banner", "welcome\n", 0o644);
    let d = d.start();
    upstream::unix(&d.place.at("upstream"), 0o666, answer);
    assert_eq!(ask(connect(&d.place.at("echo.sock")), "hello"), "hello");
    assert_eq!(ask(connect(&d.place.at("redirect.sock")), "hello"), "welcome\nheard hello");
    d.wait_log("EXIT service=redirect");
    let chat = UnixListener::bind(d.place.at("chat")).expect("bind");
    std::fs::set_permissions(d.place.at("chat"), std::fs::Permissions::from_mode(0o666))
        .expect("mode");
    let _client = connect(&d.place.at("chat.sock"));
    let (mut from, _) = chat.accept().expect("accept");
    let mut reply = [0; 4096];
    let n = from.read(&mut reply).expect("a message");
    let reply = String::from_utf8_lossy(&reply[..n]).into_owned();
    assert!(reply.starts_with(&format!("PROTO=IPC\nIPCREMOTEEUID={}\n", me())), "{reply}");
}

#[test]
fn rules_on_addresses_do_not_match_a_client_without_one() {
    let row = |name: &str, rule: &str| {
        format!(
            "{name} stream unix nowait @USER@ internal echo\n port = @DIR@/{name}.sock\n {rule}\n"
        )
    };
    let all = [
        ("near", "only_from = 127.0.0.1 ::1 10.0.0.0/8", false),
        ("unix", "only_from = 10.0.0.0/8 unix:", true),
        ("all", "only_from = 0.0.0.0/0 ::/0", true),
        ("far", "no_access = 10.0.0.0/8 .example.org", true),
        ("none", "no_access = unix:", false),
        ("nobody", "no_access = 0.0.0.0/0", false),
    ];
    let conf: String = all.iter().map(|(name, rule, _)| row(name, rule)).collect();
    let d = Daemon::with(&format!(
        "listen = 127.0.0.1:0 @DIR@/fived\n{conf}four stream tcp4 nowait @USER@ internal echo\n"
    ))
    .listen("")
    .start();
    for (name, rule, served) in all {
        let mut c = connect(&d.place.at(&format!("{name}.sock")));
        // Nothing is read of who is refused: the end may be a reset.
        let reply = c.try_send(b"x").read_any_of(1);
        assert_eq!(reply, if served { "x" } else { "" }.as_bytes(), "{rule}");
    }
    d.wait_log(&format!("REFUSE service=near host= from=uid:{} reason=address", me()));
    // Nor has it a family.
    same(ask(connect(&d.place.at("fived")), "four\r\nx").into_bytes(), NOT_AVAILABLE);
    same(d.ask("four\r\nx"), "+Go\r\nx");
}

/// A daemon with a Unix socket of its own; what clients may use there.
const OWN_SOCKET: &str = "listen = 127.0.0.1:0 @DIR@/fived\n\
env stream tcp nowait @USER@ /usr/bin/env env\n\
secret stream tcp nowait @USER@ internal echo\n require = tls\n";

fn with_own_socket(conf: &str) -> Daemon {
    Daemon::with(&format!("{OWN_SOCKET}{conf}")).listen("").start()
}

#[test]
fn fiveds_own_socket_has_names_and_its_sessions_are_logged_in_and_count_as_encrypted() {
    let d = with_own_socket("[www]\nhere stream tcp nowait @USER@ internal echo\n");
    let path = d.place.at("fived");
    d.wait_log(&format!("listening on {path}"));
    assert_eq!(mode(&path), 0o666);
    let name = nix::unistd::User::from_uid(me().into()).expect("passwd").expect("a user").name;
    let built_ins = "AUTH\r\nHOST\r\nMULTIPLEX\r\nPUBKEY\r\nRUN\r\n";
    assert_eq!(ask(connect(&path), "HELP\r\n"), format!("env\r\nsecret\r\n{built_ins}"));
    let reply = ask(connect(&path), "env\r\n");
    let who = format!("PROTO=IPC\nIPCREMOTEEUID={}\n", me());
    assert!(reply.starts_with("+Go\r\n") && reply.contains(&who), "{reply}");
    let login = format!("\nFIVED_USER={name}\nREMOTE_USER={name}\nFIVED_AUTH=peer\n");
    assert!(reply.contains(&login) && !reply.contains("SSL_"), "{reply}");
    // Bytes right behind the request are the service's.
    assert_eq!(ask(connect(&path), "secret\r\nall of it"), "+Go\r\nall of it");
    assert_eq!(
        ask(connect(&path), "HOST\r\nwww\r\nhere\r\nx"),
        "+ Success\r\nWhich VHOST? Host www selected\r\n+Go\r\nx"
    );
    for (request, answer) in [
        ("SSL\r\n", "- Session is already encrypted\r\n"),
        ("RESUME\r\n", NOT_AVAILABLE),
        ("\x16\x03\x01\r\n", NOT_AVAILABLE),
        ("nothing\r\nmore and more", NOT_AVAILABLE),
        (&"x".repeat(300), TOO_LONG),
    ] {
        assert_eq!(ask(connect(&path), request), answer, "{request:?}");
    }
    // In streams, too.
    let mut c = connect(&path);
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(c.0);
    for _ in 0..3 {
        let reply = String::from_utf8(mux.ask("env\r\n").read_all()).expect("UTF-8");
        assert!(reply.starts_with("+Go\r\n") && reply.contains(&who), "{reply}");
        assert!(reply.contains(&login), "{reply}");
    }
    let mut echo = mux.open();
    echo.write_all(b"secret\r\nin a stream").expect("send");
    echo.finish();
    same(echo.read_all(), "+Go\r\nin a stream");
    same(mux.ask("SSL\r\n").read_all(), "- Not inside MULTIPLEX\r\n");
    let line = d.wait_log("SESSION ");
    assert!(line.contains(&format!("from=uid:{}", me())), "{line}");
}

#[test]
fn a_row_of_root_with_users_is_a_sudo_for_one_program() {
    if !root() {
        return skip("needs root");
    }
    let d = with_own_socket(
        "sudo stream tcp nowait root /usr/bin/id id -un\n users = games\n\
         no stream tcp nowait root /usr/bin/id id\n users = root\n log_on_failure = HOST USERID\n\
         group stream tcp nowait root /usr/bin/id id -un\n users = @games\n\
         self stream tcp nowait * /usr/bin/id id -un\n",
    );
    let path = d.place.at("fived");
    let as_games = |request: &str| ask(connect_as(GAMES, &path), request);
    for (request, answer) in [("sudo\r\n", "root"), ("group\r\n", "root"), ("self\r\n", "games")] {
        assert_eq!(as_games(request), format!("+Go\r\n{answer}\n"));
        // Neither root, whom the row does not name, nor nobody.
        same(ask(connect(&path), request), NOT_AVAILABLE);
        same(ask(connect_as(NO_ACCOUNT, &path), request), NOT_AVAILABLE);
    }
    assert!(as_games("HELP\r\n").contains("secret\r\nsudo\r\ngroup\r\nself\r\n"));
    // The log names the user who was refused, without a session and in one.
    for (request, session) in [("no\r\n", ""), ("RUN\r\nno\r\n", " session=")] {
        assert!(as_games(request).ends_with(NOT_AVAILABLE));
        let line = format!("REFUSE service=no host= from=uid:5 reason=user user=games{session}");
        d.wait_log(&line);
    }
    assert!(!ask(connect(&path), "HELP\r\n").contains("sudo"));
    // In a session and its streams, too.
    let mut c = connect_as(GAMES, &path);
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mux = Mux::new(c.0);
    same(mux.ask("sudo\r\n").read_all(), "+Go\r\nroot\n");
    let mut c = connect_as(NO_ACCOUNT, &path);
    c.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    same(Mux::new(c.0).ask("sudo\r\n").read_all(), NOT_AVAILABLE);
    // Whom a login makes somebody else is no longer who connected.
    let reply = as_games("AUTH\r\nroot\r\nwrong\r\nsudo\r\n");
    assert!(reply.ends_with("- Authentication failed\r\n-Service not available\r\n"), "{reply}");
    assert!(d.wait_log("PENALTY ").contains("from=uid:5 "));
    assert!(as_games("AUTH\r\n").starts_with("- Try again later"));
    let other = ask(connect(&path), "AUTH\r\nroot\r\nwrong\r\n");
    assert!(other.ends_with("- Authentication failed\r\n"), "another user has no penalty: {other}");
}

#[test]
fn waiting_clients_and_sessions_are_counted_by_user() {
    if !root() {
        return skip("needs root");
    }
    let d =
        Daemon::with(&format!("max_connections = 3\nmax_sessions_per_source = 1\n{OWN_SOCKET}"))
            .listen("")
            .start();
    let path = d.place.at("fived");
    let mut session = connect_as(GAMES, &path);
    session.send("HOST\r\n\r\n").expect("+ Success\r\nWhich VHOST? Host  selected\r\n");
    same(ask(connect_as(GAMES, &path), "HOST\r\n"), BUSY);
    let reply = ask(connect_as(NO_ACCOUNT, &path), "HOST\r\n\r\n");
    assert!(reply.starts_with("+ Success"), "{reply}");
    // Who has most clients that wait loses the oldest of his.
    let mut honest = connect(&path);
    let mut crowd: Vec<Client> = (0..4).map(|_| connect_as(GAMES, &path)).collect();
    crowd[0].end();
    let line = d.wait_log("reason=connections");
    assert!(line.contains("from=uid:5 "), "{line}");
    honest.send("secret\r\nx").expect("+Go\r\nx");
    session.send("secret\r\nx").expect("+Go\r\nx");
}

#[test]
fn fiveds_own_socket_is_where_the_setting_or_the_option_says() {
    let d = Daemon::with("listen_mode = 0600\necho stream tcp nowait @USER@ internal\n");
    let path = d.place.at("by-option");
    let mut d = d.arg("-l").arg("@DIR@/by-option").start();
    d.wait_log(&format!("listening on {path}"));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(ask(connect(&path), "echo\r\nx"), "+Go\r\nx");
    // A reload keeps it, with those who wait there, and changes its mode.
    let mut waits = connect(&path);
    let inode = std::fs::metadata(&path).expect("socket").ino();
    d.reload("listen_mode = 0660\necho stream tcp nowait @USER@ internal\nmore stream tcp nowait @USER@ internal echo\n");
    until("the new mode", || mode(&path) == 0o660);
    until("the new table", || ask(connect(&path), "more\r\nx") == "+Go\r\nx");
    assert_eq!(std::fs::metadata(&path).expect("socket").ino(), inode);
    waits.send("echo\r\ny").expect("+Go\r\ny");
    // A net process that dies is replaced, and nobody is refused meanwhile.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(d.net_pid()), Signal::SIGKILL).expect("kill");
    d.wait_log("WARN net: pid ");
    assert_eq!(ask(connect(&path), "echo\r\nz"), "+Go\r\nz");
    drop(waits);
    d.signal(Signal::SIGTERM);
    d.wait();
    assert!(!Path::new(&path).exists());
}

#[test]
fn five_reaches_fived_at_its_own_socket() {
    let d = with_own_socket("who stream tcp nowait @USER@ /bin/sh sh -c 'cat; echo $FIVED_USER'\n");
    let (path, five) = (d.place.at("fived"), Five::new(&d));
    let run = |words: &[&str]| {
        let out = five.command(words).stdin(std::process::Stdio::null()).output().expect("five");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
    };
    let name = nix::unistd::User::from_uid(me().into()).expect("passwd").expect("a user").name;
    let (code, out, err) = run(&[&path]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "env\nsecret\nwho\n", ""));
    let (code, out, err) = run(&["-n", &path, "who"]);
    assert_eq!((code, out, err.as_str()), (0, format!("{name}\n"), ""));
    let (code, _, err) = run(&[&path, "none"]);
    assert!(code == 254 && err.contains("Service not available"), "{code} {err}");
    let (code, _, err) = run(&[&d.place.at("nowhere"), "who"]);
    assert!(code == 255 && err.contains("No such file"), "{code} {err}");
    for words in [["-l", "demo"], ["-p", "1"], ["-O", "check"]] {
        let (code, _, err) = run(&[&words[..], &[&path]].concat());
        assert!(code == 255 && err.contains("a socket of this computer excludes"), "{err}");
    }
}

/// What the parent refuses after net has given it the client's socket, which then comes back.
#[test]
fn what_the_parent_refuses_reaches_a_client_of_fiveds_own_socket() {
    let rows = "cat stream tcp nowait @USER@ /bin/cat cat\n instances = 1\n\
         rare stream tcp nowait @USER@ /bin/echo echo rare\n cps = 1 600\n\
         missing stream tcp nowait @USER@ /nonexistent/program x\n banner_fail = @DIR@/banner\n\
         nobody stream tcp nowait no-such-user-here /bin/cat cat\n\
         chat stream tcp nowait @USER@ handover @DIR@/nowhere\n\
         there stream tcp nowait @USER@ redirect @DIR@/nowhere\n";
    let d = Daemon::with(&format!("{OWN_SOCKET}{rows}")).listen("");
    let d = d.file("banner", "ask the operator\n").start();
    let path = d.place.at("fived");
    let mut first = connect(&path);
    first.send("cat\r\nx").expect("+Go\r\nx");
    assert_eq!(ask(connect(&path), "rare\r\n"), "+Go\r\nrare\n");
    const BUSY: &str = "-Service busy\r\n";
    const FAILED: &str = "-Service failed\r\n";
    for (name, answer) in [
        ("cat", BUSY),
        ("rare", BUSY),
        ("missing", &format!("{FAILED}ask the operator\n")),
        ("nobody", FAILED),
        ("chat", FAILED),
        ("there", FAILED),
    ] {
        for more in [0, 5000] {
            let request = format!("{name}\r\n{}", "x".repeat(more));
            assert_eq!(ask(connect(&path), &request), answer, "{name}, and {more} bytes more");
            // Nor does the answer wait until the client has finished.
            same(connect(&path).send(&request).read_all(), answer);
        }
        assert_eq!(
            ask(connect(&path), &format!("RUN\r\n{name}\r\n")),
            format!("+ Success\r\n{answer}")
        );
    }
    let five = Five::new(&d);
    for words in [&[&*path, "missing"][..], &["--plain", &path, "missing"]] {
        let out = five.command(words).stdin(std::process::Stdio::null()).output().expect("five");
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(254) && err.contains("Service failed"),
            "{words:?}: {err}"
        );
    }
}

/// The same at a row's own socket, where a banner is all that can be said; and when a service has
/// ended, its socket is closed so that no reset reaches a client that was still sending.
#[test]
fn a_rows_socket_is_closed_after_what_was_said() {
    let d = Daemon::with(
        "banner_fail = @DIR@/banner\nlog_on_success = PID EXIT\n\
         cat stream unix nowait @USER@ /bin/cat cat\n port = @DIR@/cat.sock\n instances = 1\n\
         missing stream unix nowait @USER@ /nonexistent/program x\n port = @DIR@/missing.sock\n\
         there stream unix nowait @USER@ redirect @DIR@/nowhere\n port = @DIR@/there.sock\n\
         brief stream unix nowait @USER@ /bin/echo echo brief\n port = @DIR@/brief.sock\n \
         lingering_close = yes\n\
         up stream unix nowait @USER@ redirect @DIR@/upstream\n port = @DIR@/up.sock\n",
    );
    let d = d.file("banner", "go away\n").start();
    // It leaves nothing unread, which would be a reset.
    upstream::unix(&d.place.at("upstream"), 0o666, |mut c| {
        c.read_exact(&mut [0; 3000]).expect("all of it");
        c.write_all(b"so much for that\n").expect("said");
    });
    let at = |name: &str| d.place.at(&format!("{name}.sock"));
    let mut first = connect(&at("cat"));
    first.send("x").expect("x");
    for name in ["cat", "missing", "there"] {
        for more in [0, 5000] {
            same(connect(&at(name)).send("x".repeat(more)).read_all(), "go away\n");
        }
    }
    for (name, said) in [("brief", "brief\n"), ("up", "so much for that\n")] {
        let mut c = connect(&at(name));
        c.send("x".repeat(3000));
        d.wait_log(&format!("EXIT service={name}"));
        // A socket that is closed would make this an error.
        c.send("y".repeat(1000));
        same(c.half_close().read_all(), said);
    }
}

/// Whoever may list a socket's directory can keep its lock. That holds up who makes and removes files
/// there, and nobody else.
#[test]
fn whoever_keeps_the_lock_of_a_directory_keeps_nobody_waiting() {
    if !Listed::can_be() {
        return;
    }
    const HELLO: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";
    let row = |name: &str| {
        format!("{name} stream unix nowait @USER@ /bin/echo echo {name}\n port = @DIR@/s/{name}\n")
    };
    let shuts =
        "w stream unix wait @USER@ /usr/bin/python3 python3 @DIR@/shuts\n port = @DIR@/s/w\n";
    let d = Daemon::with(&format!("{HELLO}{}{shuts}", row("a")));
    let shut = "import socket\nsocket.socket(fileno=0).shutdown(socket.SHUT_RDWR)\n";
    let d = d.file("shuts", shut).file("s/other", "");
    let mut d = d.start();
    let (directory, w) = (d.place.at("s"), d.place.at("s/w"));
    let listed = Listed::new(&d.place, &directory);
    let others_are_served = || (0..4).for_each(|_| same(d.ask("hello\r\n"), "+Go\r\nhello\n"));
    if installed("python3") {
        // Another socket is to be bound in place of this one.
        let _ = UnixStream::connect(&w).expect("connect");
        d.wait_log("the lock of its directory");
        others_are_served();
    }
    assert!(d.reload(&format!("{HELLO}{}{}{shuts}", row("a"), row("b"))).contains("refused"));
    others_are_served();
    d.reload(HELLO);
    others_are_served();
    drop(listed);
    until("there is another socket", || {
        !d.reload(&format!("{HELLO}{}", row("b"))).contains("refused")
    });
    same(text(connect(&d.place.at("s/b"))), "b\n");
    until("those of before are removed", || !std::fs::exists(d.place.at("s/a")).expect("a path"));
    let listed = Listed::new(&d.place, &directory);
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
    drop(listed);
}
