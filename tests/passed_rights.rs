//! A descriptor that is sent through a Unix socket (SCM_RIGHTS) is closed by whoever reads past it
//! or closes that socket, and a TCP socket with SO_LINGER makes that wait. fived takes none where
//! the kernel can refuse them (SO_PASSRIGHTS, Linux 6.16), and waits for none where it cannot.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use fived::sys::poll;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::unistd::Pid;
use std::io::{ErrorKind, IoSlice, PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};
use support::*;

/// Runs the rest of the words as on a kernel without SO_PASSRIGHTS.
const OLDER: &str = r#"
import ctypes, os, struct, sys
call = {'x86_64': 54, 'aarch64': 208}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 3, call), (0x20, 0, 0, 32), (0x15, 0, 1, 83),
        (6, 0, 0, 0x50000 | 92), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
head = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 6, ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if os.geteuid(): prctl(38, 1, 0, 0, 0)
assert prctl(22, 2, head, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

const CONF: &str =
    "listen = 127.0.0.1:0 @DIR@/fived\nhello stream tcp nowait @USER@ internal echo\n";

/// A connection that is full, and whose close waits for a minute; and its other end.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    setsockopt(&listener, sockopt::RcvBuf, &2304).expect("a small buffer");
    let c = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    c.set_nonblocking(true).expect("nonblocking");
    while (&c).write(&[0; 4096]).is_ok() {}
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 60 };
    setsockopt(&c, sockopt::Linger, &linger).expect("linger");
    (c, listener.accept().expect("accept").0)
}

/// Sends a byte and such a connection, of which nobody else has a descriptor then. Returned: the
/// other end, which must stay.
fn send_lingering(to: impl AsFd) -> Result<TcpStream, Errno> {
    let (c, other) = lingering();
    let (bytes, fds) = ([IoSlice::new(b"d")], [c.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(to.as_fd().as_raw_fd(), &bytes, &rights, flags, None);
    // fived may have closed its own already: then this one waits.
    let own = std::process::id() as i32;
    let all = proc::descriptors(own);
    let link = all.into_iter().find(|(fd, _)| *fd == c.as_raw_fd()).expect("it is open").1;
    std::thread::spawn(move || drop(c));
    until("the test has it no more", || proc::descriptors(own).iter().all(|(_, to)| *to != link));
    sent.map(|_| other)
}

/// One test at a time: a process that another starts meanwhile would have a copy of such a
/// connection, and its exec, which closes it, would wait.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs it with a daemon on this kernel and on one that cannot refuse descriptors. The test is told
/// whether they are refused.
fn on_both(conf: &str, test: impl Fn(&Daemon, bool)) {
    if !installed("python3") {
        return skip("needs python3");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let older = ["python3", "-c", OLDER];
    for under in [&[][..], &older[..]] {
        let d = Daemon::with(&format!("{CONF}{conf}")).listen("").under(under).start();
        d.wait_log(&format!("listening on {}", d.place.at("fived")));
        test(&d, under.is_empty() && fived::sys::local::can_refuse_rights());
        same(d.ask("hello\r\nx"), "+Go\r\nx");
        assert!(!d.log().contains("WARN"), "{}", d.log());
    }
}

fn is_refused<T>(sent: Result<T, Errno>, refused: bool) -> Option<T> {
    match sent {
        Err(Errno::EPERM) if refused => None,
        Ok(sent) if !refused => Some(sent),
        // fived has closed the connection already.
        Err(Errno::EPIPE | Errno::ECONNRESET) => None,
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn at_the_own_socket() {
    on_both("", |d, refused| {
        let mut kept = Vec::new();
        for _ in 0..50 {
            let c = UnixStream::connect(d.place.at("fived")).expect("connect");
            kept.push((is_refused(send_lingering(&c), refused), c));
            same(d.ask("hello\r\nx"), "+Go\r\nx");
        }
        // They wait for none of them, and the last one stays for what comes next.
        until("all are closed", || proc::closers(d.parent_pid()).len() <= 1);
    });
}

#[test]
fn at_the_socket_of_a_row_that_refuses() {
    let row = "no stream unix nowait @USER@ internal echo\n port = @DIR@/no\n no_access = unix:\n";
    on_both(row, |d, refused| {
        let mut kept = Vec::new();
        for _ in 0..400 {
            let c = UnixStream::connect(d.place.at("no")).expect("connect");
            kept.push((is_refused(send_lingering(&c), refused), c));
        }
        same(d.ask("hello\r\nx"), "+Go\r\nx");
        // No more have lines of their own.
        d.wait_logs("REFUSE service=no", 100);
    });
}

#[test]
fn to_a_relay_from_either_side() {
    let place = Place::new();
    let path = place.at("up.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .expect("mode");
    let up = upstream::counts("red");
    let conf = format!(
        "red stream tcp nowait @USER@ redirect {up}\nbad stream tcp nowait @USER@ redirect {path}\n"
    );
    on_both(&conf, |d, refused| {
        let mut kept = Vec::new();
        for _ in 0..5 {
            let mut c = d.connect();
            c.send("bad\r\n").expect("+Go\r\n");
            let server = listener.accept().expect("accept").0;
            kept.push(is_refused(send_lingering(&server), refused));
            let mut c = UnixStream::connect(d.place.at("fived")).expect("connect");
            c.write_all(b"red\r\n").expect("write");
            let mut client = Client(TcpStream::from(std::os::fd::OwnedFd::from(c)));
            client.expect("+Go\r\n");
            kept.push(is_refused(send_lingering(&client.0), refused));
            assert!(d.ask("red\r\nabc").starts_with(b"+Go\r\n"));
        }
    });
}

#[test]
fn a_program_at_a_unix_socket_gets_descriptors() {
    let program = "import socket; s = socket.socket(fileno=0); s.send(b'!'); b, f, *_ = socket.recv_fds(s, 9, 2); s.send(b'%d' % len(f))";
    let row = format!(
        "take stream unix nowait @USER@ /usr/bin/python3 python3 -c \"{program}\"\n port = @DIR@/take\n"
    );
    on_both(&row, |d, _| {
        let mut c = UnixStream::connect(d.place.at("take")).expect("connect");
        let mut byte = [0];
        c.read_exact(&mut byte).expect("it has begun");
        let (bytes, fds) = ([IoSlice::new(b"d")], [0, 1]);
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(c.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).expect("sent");
        let mut answer = String::new();
        let read = c.read_to_string(&mut answer);
        assert!(read.is_ok() || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
        assert_eq!(answer, "2");
    });
}

/// Sends these bytes and those descriptors as one message.
fn send_with(c: &Client, bytes: &str, fds: &[i32]) {
    let raw = c.0.as_raw_fd();
    let (parts, rights) = ([IoSlice::new(bytes.as_bytes())], [ControlMessage::ScmRights(fds)]);
    let sent = sendmsg::<()>(raw, &parts, &rights, MsgFlags::empty(), None);
    assert_eq!(sent.expect("sent"), bytes.len());
}

/// On a kernel that cannot refuse them.
#[test]
fn who_sends_descriptors_to_fived_loses_the_connection() {
    let silent = upstream::tcp(|mut s| drop(s.read_to_end(&mut Vec::new())));
    let conf = format!(
        "request_timeout = 10m\n{CONF}cat stream tcp nowait @USER@ /bin/cat cat\n\
         red stream tcp nowait @USER@ redirect {silent}\n"
    );
    if !installed("python3") {
        return skip("needs python3");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let d = Daemon::with(&conf).listen("").under(&["python3", "-c", OLDER]).start();
    let path = d.place.at("fived");
    d.wait_log(&format!("listening on {path}"));
    for (request, answer, text) in [
        ("", "", "c"),
        ("", "", "cat\r\nx"),
        ("", "", "HOST\r\n"),
        ("", "", &"x".repeat(300)),
        ("red\r\n", "+Go\r\n", "x"),
        ("nothing\r\n", NOT_AVAILABLE, "more"),
    ] {
        let (read, write) = std::io::pipe().expect("a pipe");
        let c = UnixStream::connect(&path).expect("connect");
        c.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        let mut c = Client(TcpStream::from(OwnedFd::from(c)));
        c.send(request).expect(answer);
        send_with(&c, text, &[write.as_raw_fd()]);
        let mut more = Vec::new();
        match c.0.read_to_end(&mut more) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{text:?}: {e}"),
            _ => same(more, ""),
        }
        // Nobody has a descriptor of the pipe any more.
        drop(write);
        until("they are closed", || poll::has_hung(read.as_fd()));
    }
}

/// A socket whose close takes some milliseconds (packet(7)).
fn packet_socket() -> OwnedFd {
    let (family, kind, flag) = (AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC);
    socket(family, kind, flag, None).expect("a packet socket")
}

/// Sends a text, and so many of them that closing all takes seconds; nobody else has one then.
/// Returned: pipes whose other ends are closed with the first of them, and with the last.
fn send_slow(to: impl AsFd, text: &str, urgent: bool) -> [PipeReader; 2] {
    let (pipes, ends): (Vec<_>, Vec<_>) =
        [(); 2].map(|()| std::io::pipe().expect("a pipe")).into_iter().unzip();
    let messages = if urgent { 1 } else { 3 };
    for n in 0..messages {
        let slow: Vec<OwnedFd> = (0..100).map(|_| packet_socket()).collect();
        let mut all: Vec<i32> = slow.iter().map(AsRawFd::as_raw_fd).collect();
        if n == 0 {
            all.insert(0, ends[0].as_raw_fd());
        }
        if n == messages - 1 {
            all.push(ends[1].as_raw_fd());
        }
        let (bytes, rights) = (
            [IoSlice::new(if n == 0 { text } else { "x" }.as_bytes())],
            [ControlMessage::ScmRights(&all)],
        );
        let flags =
            MsgFlags::MSG_NOSIGNAL | if urgent { MsgFlags::MSG_OOB } else { MsgFlags::empty() };
        sendmsg::<()>(to.as_fd().as_raw_fd(), &bytes, &rights, flags, None).expect("sent");
    }
    pipes.try_into().expect("two of them")
}

/// On a kernel that cannot refuse them. Whoever closes them waits for that, and a loop would have
/// kept all others waiting.
#[test]
fn descriptors_whose_close_takes_long_keep_nobody_waiting() {
    if !root() || !installed("python3") {
        return skip("needs root and python3");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let silent = upstream::tcp(|mut s| drop(s.read_to_end(&mut Vec::new())));
    let d = Daemon::with(&format!(
        "request_timeout = 1s\n{CONF}red stream tcp nowait @USER@ redirect {silent}\n\
         no stream unix nowait @USER@ internal echo\n port = @DIR@/no\n no_access = unix:\n"
    ))
    .listen("")
    .under(&["python3", "-c", OLDER])
    .start();
    let path = d.place.at("fived");
    d.wait_log(&format!("listening on {path}"));
    // All has come when fived looks.
    let while_it_is_stopped = |act: &dyn Fn() -> [PipeReader; 2]| {
        let all = [d.net_pid(), d.parent_pid()];
        let signal = |pid: &i32, which| kill(Pid::from_raw(*pid), which).expect("it is there");
        all.iter().rev().for_each(|pid| {
            signal(pid, Signal::SIGSTOP);
            until("it has stopped", || proc::is_stopped(*pid));
        });
        let ends = act();
        all.iter().for_each(|pid| signal(pid, Signal::SIGCONT));
        ends
    };
    let has = |end: &PipeReader| poll::has_hung(end.as_fd());
    let others_are_served = |way: &str, [first, last]: &[PipeReader; 2]| {
        until(way, || has(first) || has(last));
        same(d.ask("hello\r\nx"), "+Go\r\nx");
        assert!(!has(first) || !has(last), "{way}: the answer came after all were closed");
    };
    let connect = |path: &str| UnixStream::connect(path).expect("connect");
    let (mut clients, mut all) = (Vec::new(), Vec::new());
    for (way, begin, text, urgent, stays) in [
        ("it is never read", "", "x", false, false),
        ("they come with a request", "", "hello\r\n", false, false),
        ("they come with a request", "", "hello\r\n", false, true),
        ("they come after a request", "help\r\n", "x", false, true),
        ("they come after a request, which is long", "help\r\n", &"x".repeat(9000), false, true),
        ("with an urgent byte", "", "x", true, false),
        ("with an urgent byte of a line", "h", "e", true, true),
    ] {
        let c = connect(&path);
        let ends = while_it_is_stopped(&|| {
            (&c).write_all(begin.as_bytes()).expect("write");
            let ends = send_slow(&c, text, urgent);
            // What is read then lies behind the urgent byte.
            (&c).write_all(if urgent { b"elp\r\n" } else { b"" }).expect("write");
            ends
        });
        clients.extend(stays.then_some(c));
        others_are_served(way, &ends);
        all.push(ends);
    }
    let c = connect(&path);
    (&c).write_all(b"red\r\n").expect("write");
    (&c).read_exact(&mut [0; 5]).expect("it begins");
    all.push(while_it_is_stopped(&|| send_slow(&c, "x", false)));
    others_are_served("of a relay", &all[all.len() - 1]);
    all.push(while_it_is_stopped(&|| send_slow(connect(&d.place.at("no")), "x", false)));
    others_are_served("at a row that refuses", &all[all.len() - 1]);
    until("all are closed", || all.as_flattened().iter().all(has));
}
