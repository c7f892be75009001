//! A descriptor that is sent through a Unix socket (SCM_RIGHTS) is closed by whoever reads past it
//! or closes that socket, and a TCP socket with SO_LINGER makes that wait. fived takes none where
//! the kernel can refuse them (SO_PASSRIGHTS, Linux 6.16), and waits for none where it cannot.

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use fived::sys::poll;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
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

/// On a kernel that cannot refuse them. A read of a Unix socket ends after bytes that came with
/// descriptors: the request's other bytes come with the next one.
#[test]
fn descriptors_that_come_with_a_request_are_closed_and_delay_nothing() {
    let cat = "cat stream tcp nowait @USER@ /bin/cat cat\n";
    // What it says would make net look at the client again.
    let silent = upstream::tcp(|mut s| {
        let mut all = [0; 6];
        if s.read_exact(&mut all).is_ok() {
            let _ = s.write_all(&all);
        }
    });
    let red = format!("red stream tcp nowait @USER@ redirect {silent}\n");
    let conf = format!("request_timeout = 10m\n{CONF}{cat}{red}[www]\n{cat}");
    if !installed("python3") {
        return skip("needs python3");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let d = Daemon::with(&conf).listen("").under(&["python3", "-c", OLDER]).start();
    let path = d.place.at("fived");
    d.wait_log(&format!("listening on {path}"));
    for (parts, answer) in [
        (&["c", "at", "\r\nx"][..], "+Go\r\nx"),
        (&["cat\r", "\nx"], "+Go\r\nx"),
        (&["cat\r\n", "x"], "+Go\r\nx"),
        (
            &["H", "O", "ST\r", "\nww", "w\r\nc", "at\r", "\nx"],
            "+ Success\r\nWhich VHOST? Host www selected\r\n+Go\r\nx",
        ),
        (&["red\r\n", "ab", "c", "def"], "+Go\r\nabcdef"),
        (&["nothing", "\r\n", "more"], NOT_AVAILABLE),
        (&[&"x".repeat(200), &"x".repeat(100), "x"], TOO_LONG),
    ] {
        for finishes in [false, true] {
            let (read, write) = std::io::pipe().expect("a pipe");
            let c = UnixStream::connect(&path).expect("connect");
            c.set_read_timeout(Some(TIMEOUT)).expect("timeout");
            let mut c = Client(TcpStream::from(std::os::fd::OwnedFd::from(c)));
            for part in parts {
                send_with(&c, part, &[write.as_raw_fd()]);
            }
            if finishes {
                same(c.half_close().read_all(), answer);
            } else {
                c.expect(answer);
            }
            // Nobody has a descriptor of the pipe any more.
            drop(write);
            until("they are closed", || poll::has_hung(read.as_fd()));
        }
    }
}
