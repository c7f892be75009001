//! System calls that fail when they should not: in the parent, and in a net process, one after the
//! other in a scripted life. Whatever fails, fived goes on or ends with a sentence; nothing is
//! dropped in silence, nothing hangs.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use nix::sys::signal::Signal;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::*;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n\
    here stream unix nowait @USER@ /bin/echo echo here\n port = @DIR@/here\n";
const NEW: &str = "new stream tcp nowait @USER@ /bin/echo echo new\n";
const HERE: &[u8] = b"here\n";
const HELLO: &[u8] = b"+Go\r\nhello\n";
const HELLO_OF_HOST: &[u8] = b"+ Success\r\nWhich VHOST? Host  selected\r\n+Go\r\nhello\n";

/// Calls of the parent and how they fail. What the system cannot refuse is not on it.
const PARENT: &[(&str, &str)] = &[
    ("sendmsg", "ENOMEM"),
    ("sendmsg", "ENOBUFS"),
    ("sendmsg", "ETOOMANYREFS"),
    ("sendto", "ENOMEM"),
    ("sendto", "ENOBUFS"),
    ("recvmsg", "ENOMEM"),
    ("epoll_wait", "EINTR"),
    ("epoll_ctl", "ENOMEM"),
    ("recvfrom", "ENOMEM"),
    ("socket", "EMFILE"),
    ("socketpair", "EMFILE"),
    ("fcntl", "EMFILE"),
    ("clone", "EAGAIN"),
    ("clone3", "EAGAIN"),
    ("openat", "EMFILE"),
    ("memfd_create", "ENOMEM"),
    ("getpeername", "ENOBUFS"),
    ("read", "EINTR"),
    ("write", "EAGAIN"),
];

/// Of net, all of its threads.
const NET: &[(&str, &str)] = &[
    ("sendmsg", "ENOMEM"),
    ("sendmsg", "ENOBUFS"),
    ("recvmsg", "ENOMEM"),
    ("epoll_wait", "EINTR"),
    ("epoll_ctl", "ENOMEM"),
    ("socketpair", "EMFILE"),
    ("accept4", "EMFILE"),
    ("accept4", "ENOBUFS"),
    ("fcntl", "EMFILE"),
    ("clone", "EAGAIN"),
    // The address sanitizer ends whoever gets no memory.
    #[cfg(not(asan))]
    ("mmap", "ENOMEM"),
    ("poll", "EINTR"),
    ("pwritev2", "ENOBUFS"),
    ("recvfrom", "ENOMEM"),
    ("sendto", "ENOBUFS"),
];

/// How many lives there are for a kind of call.
fn size() -> usize {
    trial_size("faults", 8, 30)
}

/// How long an answer may take that comes, whatever fails: what takes longer hangs.
const ANSWERED: Duration = Duration::from_secs(30);

/// All that comes, to the end of the connection; whatever goes wrong is an answer too, but for one
/// that never comes.
fn answer(mut c: impl Read, request: &str) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(e) = c.read_to_end(&mut all) {
        not_hung(&e, request);
    }
    all
}

fn not_hung(e: &io::Error, request: &str) {
    assert!(e.kind() != ErrorKind::WouldBlock, "{request:?} is not answered");
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    let c = TcpStream::connect(to).ok()?;
    c.set_read_timeout(Some(ANSWERED)).ok()?;
    Some(c)
}

fn ask(to: SocketAddr, request: &str) -> Vec<u8> {
    let Some(mut c) = connect(to) else { return Vec::new() };
    let _ = c.write_all(request.as_bytes());
    answer(c, request)
}

/// At the Unix socket, where the parent accepts.
fn ask_here(d: &Daemon) -> Vec<u8> {
    let Ok(c) = UnixStream::connect(d.place.at("here")) else { return Vec::new() };
    c.set_read_timeout(Some(ANSWERED)).expect("a timeout");
    answer(c, "here")
}

fn encrypted(to: SocketAddr) -> Option<tls::Tls> {
    tls::Tls::with(connect(to)?, "nobody.example", tls::config(&[]))
        .inspect_err(|e| not_hung(e, "TLS"))
        .ok()
}

/// The same inside TLS.
fn ask_in_tls(to: SocketAddr, request: &str) -> Vec<u8> {
    let Some(mut c) = encrypted(to) else { return Vec::new() };
    let _ = c.0.write_all(request.as_bytes());
    answer(c.0, request)
}

/// The same in two streams of a session inside TLS, the second of which chooses a host first, and
/// so has facts of its own.
fn ask_in_streams(to: SocketAddr, request: &str) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(), Vec::new()];
    let Some(mut c) = encrypted(to) else { return all };
    let mut success = [0; 11];
    let begun = c.0.write_all(b"MULTIPLEX\r\n").and_then(|()| c.0.read_exact(&mut success));
    if let Err(e) = begun {
        not_hung(&e, "MULTIPLEX");
        return all;
    }
    let mut c = yamux_raw::Raw(c.0);
    for (id, request) in [(1, request.to_string()), (3, format!("HOST\r\n\r\n{request}"))] {
        let head = yamux_raw::header(
            yamux_raw::DATA,
            yamux_raw::SYN | yamux_raw::FIN,
            id,
            u32::try_from(request.len()).expect("a short request"),
        );
        let _ = c.0.write_all(&[&head[..], request.as_bytes()].concat());
    }
    let mut over = 0;
    while over < all.len() {
        match c.try_next() {
            Ok(Some(mut f)) if matches!(f.stream, 1 | 3) => {
                all[f.stream as usize / 2].append(&mut f.payload);
                over += usize::from(f.flags & (yamux_raw::FIN | yamux_raw::RST) != 0);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(e) => {
                not_hung(&e, "a stream");
                break;
            }
        }
    }
    all
}

/// A life while something fails, and then what must hold all the same.
fn live(mut d: Daemon, what: &str) {
    for _ in 0..2 {
        ask(d.address(), "hello\r\n");
        ask_in_tls(d.address(), "hello\r\n");
        ask_in_streams(d.address(), "hello\r\n");
        ask_here(&d);
    }
    d.place.write("fived.conf", &format!("state_directory = @DIR@/state\n{CONF}{NEW}"), 0o644);
    d.signal(Signal::SIGHUP);
    d.wait_log("RELOAD ");
    ask(d.address(), "new\r\n");
    ask_in_tls(d.address(), "hello\r\n");
    ask_in_streams(d.address(), "hello\r\n");
    ask_here(&d);
    let mut refused = 0;
    until(&format!("{what}: the new table is served"), || {
        let now = d.log().matches(" refused mistakes=").count();
        if now > refused {
            // It has said so; whoever asks again is served.
            refused = now;
            d.signal(Signal::SIGHUP);
        }
        ask(d.address(), "new\r\n") == b"+Go\r\nnew\n"
    });
    // By everybody who accepts; the last call that fails may be one of these requests' own.
    until(&format!("{what}: one net"), || d.nets().len() == 1);
    let mut served = 0;
    until(&format!("{what}: plain services are served"), || {
        served = if ask(d.address(), "new\r\n") == b"+Go\r\nnew\n" { served + 1 } else { 0 };
        served == 3
    });
    until(&format!("{what}: TLS is served"), || ask_in_tls(d.address(), "hello\r\n") == HELLO);
    until(&format!("{what}: the Unix socket is served"), || ask_here(&d) == HERE);
    until(&format!("{what}: streams are served"), || {
        ask_in_streams(d.address(), "hello\r\n") == [HELLO, HELLO_OF_HOST]
    });
    d.signal(Signal::SIGTERM);
    assert_eq!(d.wait(), 0, "{what}: {}", d.log());
}

/// All of a table, some at a time. `places`: which calls of a kind fail. The number of lives.
fn all(
    table: &[(&'static str, &'static str)],
    places: &[usize],
    one: impl Fn(&str, &str, usize) + Sync,
) -> usize {
    let lives: Vec<_> = table
        .iter()
        .flat_map(|(call, error)| places.iter().map(move |n| (*call, *error, *n)))
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((call, error, n)) = lives.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(call, error, *n);
                }
            });
        }
    });
    lives.len()
}

#[test]
fn whatever_fails_in_the_parent_it_goes_on_or_says_why_not() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    // Two of them each time: the first calls are those of the start; later ones those of orders and
    // of the reload.
    let places: Vec<usize> = (0..size()).map(|n| 1 + n * 2).collect();
    let lives = all(PARENT, &places, |call, error, n| {
        let what = format!("{call} {error} {n}");
        let inject = format!("inject={call}:error={error}:when={n}..{}", n + 1);
        let strace = [
            "strace",
            "-D",
            "-q",
            "-o",
            "@DIR@/strace",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
        ];
        match Daemon::with(CONF).under(&strace).try_start() {
            Ok(d) => live(d, &what),
            // The loader, before anything of fived ran, has a status of its own.
            Err((127, text)) => assert!(text.contains("shared libraries"), "{what}: {text}"),
            // Nothing is wrong with the configuration.
            Err((code, text)) => {
                assert!(code == 111 && !text.trim().is_empty(), "{what}: {code} {text}")
            }
        }
    });
    trial("faults", format!("{lives} lives of the parent, each with system calls that fail"));
}

/// Nobody has written anything wrong.
#[test]
fn a_configuration_that_the_system_does_not_open_has_no_mistake() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    let paths = ["fived.conf", "more.conf", "state/cert.pem", "state/key.pem", "own.pem"];
    for path in paths.map(|name| format!("@DIR@/{name}")) {
        let fails = ["-e", "trace=openat", "-e", "inject=openat:error=EMFILE", "-P", &path];
        let strace = [&["strace", "-D", "-q", "-o", "/dev/null"], &fails[..]].concat();
        let own = if path.contains("own") { "certificate = @DIR@/own.pem\n" } else { "" };
        let d = Daemon::with(&format!("{own}include @DIR@/more.conf\n"));
        let d = d.file("more.conf", CONF).under(&strace);
        let wanted = d.place.fill(&format!("{path}: Too many open files (os error 24)\n"));
        let (code, text) = d.fails();
        assert!(code == 111 && text.ends_with(&wanted), "{code} {text}");
    }
}

/// Fails calls of a process that runs, until it is dropped.
struct Injected(Child);

impl Drop for Injected {
    fn drop(&mut self) {
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Calls of this process that fail, and of all that it makes, until the answer is dropped.
fn inject(pid: i32, call: &str, fails: &str) -> Injected {
    let inject = format!("inject={call}:{fails}");
    let words = ["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let mut strace = Command::new("strace");
    strace.args(words).args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    Injected(strace.spawn().expect("strace"))
}

/// The program of a `wait` port has ended, and the poll does not take the port again.
#[test]
fn a_port_that_cannot_be_watched_for_the_moment_is_watched_later() {
    if !root() || !installed("strace") || !installed("perl") {
        return skip("needs root, strace and perl");
    }
    let program = "my $who = recv STDIN, my $text, 9, 0; send STDOUT, uc $text, 0, $who";
    let d = Daemon::with(&format!(
        "up dgram udp wait @USER@ /usr/bin/env env perl -e '{program}'\n port = 127.0.0.1:0\n"
    ));
    let d = d.start();
    let [at] = d.ports();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let asks = || {
        let mut answer = [0; 9];
        client.send_to(b"hello", at).expect("sent");
        client.recv(&mut answer).is_ok_and(|n| &answer[..n] == b"HELLO")
    };
    // The port is given away, and is watched again when the program has ended.
    let _injected = inject(d.parent_pid(), "epoll_ctl", "error=ENOMEM:when=2");
    until("it is traced", || proc::traced(d.parent_pid()));
    until("an answer", asks);
    d.wait_log(
        " (udp): poll: Cannot allocate memory (os error 12); fived tries again every second",
    );
    until("the next answer", asks);
}

/// Something is lacking for one moment: the first client of a server that runs already waits, and
/// is not reset as one that has gone.
#[test]
fn no_message_of_the_parent_is_lost_where_memory_is_scarce_for_a_moment() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    let upstream = TcpListener::bind("127.0.0.1:0").expect("bind");
    let conf = format!("up stream tcp nowait @USER@ redirect {}\n", upstream.local_addr().unwrap());
    std::thread::spawn(move || {
        upstream.incoming().flatten().for_each(|mut c| c.write_all(b"up\n").expect("written"));
    });
    for n in 1..=5 {
        let d = Daemon::with(&conf).start();
        let _injected = inject(d.parent_pid(), "sendmsg", &format!("error=ENOMEM:when={n}"));
        until("it is traced", || proc::traced(d.parent_pid()));
        same(d.ask("up\r\n"), "+Go\r\nup\n");
    }
}

/// Nor does a lingering close become a reset.
#[test]
fn a_close_lingers_where_memory_is_scarce_for_a_moment() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    let conf = "ling stream tcp nowait @USER@ /bin/echo echo hi\n lingering_close = yes\n";
    let d = Daemon::with(conf).start();
    // Of each process, so that of the one that closes, too.
    let _injected = inject(d.parent_pid(), "recvmsg", "error=ENOMEM:when=1");
    until("it is traced", || proc::traced(d.parent_pid()));
    for _ in 0..3 {
        let mut c = d.connect();
        c.send(format!("ling\r\n{}", "x".repeat(1000)));
        same(c.read_all(), "+Go\r\nhi\n");
    }
}

#[test]
fn whatever_fails_in_net_it_goes_on_or_is_replaced() {
    if !installed("strace") || !root() {
        return skip("needs root and strace");
    }
    // Each thread's calls are counted by themselves, and a session's are few: none is left out, and
    // one alone fails, for what follows a failure is another session's.
    let places: Vec<usize> = (1..=size()).collect();
    let lives = all(NET, &places, |call, error, n| {
        let what = format!("net: {call} {error} {n}");
        let d = Daemon::with(CONF).start();
        let net = d.net_pid();
        let _injected = inject(net, call, &format!("error={error}:when={n}"));
        // What fails may end it at once.
        let gone = || !std::path::Path::new(&format!("/proc/{net}")).exists();
        until("it is traced", || proc::traced(net) || gone());
        live(d, &what);
    });
    trial("faults", format!("{lives} lives of net, each with a system call that fails"));
}
