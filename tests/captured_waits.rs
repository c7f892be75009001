//! A net process that a stranger has taken over hands the parent descriptors whose close, or whose
//! lock, makes whoever closes or asks them wait. The parent waits for none of them.

#[path = "support/captured.rs"]
mod captured;
mod support;

use captured::*;
use fived::wire::orders::{Ask, ClientAddresses, FromNet, Message};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

/// Arguments: the parent's pid, net's, the kind of the order, and where a connection is that is full
/// and whose close waits: in the queue of a Unix socket that goes with the order (`queue`), among
/// more descriptors than an order has (`extra`), or in the queue of a session's channel (`channel`);
/// then the orders `Start`, `Session`, and one of a session. All of it is closed here before the
/// parent reads it. The connections' other ends stay until the end of the input.
const LINGERS: &str = r"
import array, ctypes, os, signal, socket, struct, sys
parent, pid, where = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
start, session, other = [bytes.fromhex(w) for w in sys.argv[4:]]
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
def send(to, order, *fds):
    to.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))])
def opened(pair):
    fds = pair.recvmsg(1024, 64)[1]
    return socket.socket(fileno=array.array('i', fds[0][2])[0])
l = socket.socket()
l.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
l.bind(('127.0.0.1', 0))
l.listen()
def lingering():
    c = socket.create_connection(l.getsockname())
    c.setblocking(False)
    try:
        while True:
            c.send(bytes(4096))
    except BlockingIOError:
        pass
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 600))
    return c
# Whoever closes the last copy waits for ten minutes, but not a process that ends.
if os.fork():
    assert os.wait()[1] == 0
    os.kill(parent, signal.SIGCONT)
    print('said', flush=True)
    sys.stdin.read()
    os._exit(0)
sys.excepthook = lambda *e: (sys.__excepthook__(*e), os._exit(1))
os.kill(parent, signal.SIGSTOP)
all = [lingering() for _ in range(20)]
if where == 'queue':
    a, b = socket.socketpair()
    send(b, b'x', *all)
    send(own, start, a)
elif where == 'extra':
    send(own, start, *[socket.socket() for _ in range(4)], *all)
else:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    of_net = client(pid)[1]
    send(own, addressed(session, of_net), of_net, b)
    os.kill(parent, signal.SIGCONT)
    c = opened(a)
    os.kill(parent, signal.SIGSTOP)
    c.send(b'no order')
    try:
        send(c, other, *all[:4])
        send(c, other, *all[4:])
    except PermissionError:
        pass  # The system refuses them (SO_PASSRIGHTS).
    # They lie in the pair's queue, too.
    send(a, other, *all)
os._exit(0)
";

/// Descriptors that nobody takes are closed where they came to: by the parent, in its only thread.
#[test]
fn nothing_that_net_sends_keeps_the_parent_from_its_work() {
    if !takes_net_over() {
        return;
    }
    let start = hex(
        &FromNet::Start { service: 0, host: 0, addresses: ClientAddresses::default() }.encode()
    );
    let session =
        hex(&FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode());
    let name = hex(&Ask::Name.encode());
    for at in ["queue", "extra", "channel"] {
        let mut d = Daemon::with(CONF).start();
        same(d.ask("hello\r\n"), HELLO);
        let net = d.net_pid();
        let pids = [d.parent_pid(), net].map(|pid| pid.to_string());
        let (mut said, _) = says(LINGERS, &[&pids[0], &pids[1], at, &start, &session, &name]);
        is_ended(&d, net, 1);
        same(d.ask("hello\r\n"), HELLO);
        d.signal(Signal::SIGTERM);
        d.wait();
        kill_and_wait(&mut said);
    }
}

/// Arguments: the parent's pid, net's, and the order `Session`. It is said with one end of a pair
/// that has 1,500 sockets in its queue, whose close takes some milliseconds each (packet(7)).
/// Nobody else has one of these when the parent reads it.
const QUEUES: &str = r"
import array, ctypes, os, signal, socket, sys
parent, pid, session = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
def send(to, order, *fds):
    to.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))])
c, of_net = client(pid)
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for n in range(6):
    all = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(250)]
    send(a, b'x', *all)
    for s in all:
        s.close()
os.kill(parent, signal.SIGSTOP)
send(own, addressed(session, of_net), of_net, b)
b.close()
a.close()
os.kill(parent, signal.SIGCONT)
";

/// The last one who has a Unix socket closes all that is in its queue.
#[test]
fn what_lies_in_the_queue_of_a_socket_keeps_nobody_waiting() {
    if !takes_net_over() {
        return;
    }
    let session =
        hex(&FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode());
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let mut python = Command::new("python3");
    python.args(["-c", &with_client(QUEUES), &d.parent_pid().to_string()]);
    python.args([d.net_pid().to_string(), session]);
    same(python.output().expect("python3").stderr, "");
    let began = Instant::now();
    // Nobody has the other end any more.
    d.wait_log(" reason=gone");
    same(d.ask("hello\r\n"), HELLO);
    assert!(began.elapsed() < Duration::from_secs(10), "closing them takes 20 s");
}

/// Arguments: the pid of a net process, the order `StartOnClient`, and what goes with it: `null`,
/// or a file whose close is not answered before the end of the input, or for two minutes (`fuse`;
/// `longer`: the order has a byte too many; `more`: the file comes fifty times, `many`: 200 times).
/// It prints whether it was said.
const HANDS_FILE: &str = r"
import array, ctypes, os, select, signal, socket, struct, sys, tempfile
pid, order, what = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None)
own = socket.socket(fileno=libc.syscall(438, os.pidfd_open(pid), 3, 0))
def serve(fuse):
    attributes = lambda node, mode: struct.pack('<6Q10I', node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
    while True:
        asked = os.read(fuse, 1 << 17)
        kind, unique, node = struct.unpack('<IQQ', asked[4:24])
        INIT, LOOKUP, GETATTR, OPEN = 26, 1, 3, 14
        answers = {
            INIT: struct.pack('<5I44x', 7, 31, 0, 0, 0),
            LOOKUP: struct.pack('<4Q2I', 2, 0, 9, 9, 0, 0) + attributes(2, 0o100644),
            GETATTR: struct.pack('<QII', 9, 0, 0) + attributes(node, 0o100644 if node == 2 else 0o40755),
            OPEN: struct.pack('<QII', 1, 0, 0),
        }
        if kind in answers:
            os.write(fuse, struct.pack('<IiQ', 16 + len(answers[kind]), 0, unique) + answers[kind])
path, server = '/dev/null', 0
if what != 'null':
    try:
        fuse = os.open('/dev/fuse', os.O_RDWR)
    except OSError:
        print('none', flush=True)
        sys.exit()
    at = tempfile.mkdtemp()
    CLONE_NEWNS, MS_PRIVATE = 0x20000, 0x44000
    assert libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b'none', b'/', None, MS_PRIVATE, None) == 0
    options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0'
    assert libc.mount(b'none', at.encode(), b'fuse', 0, options.encode()) == 0
    server = os.fork()
    if server == 0:
        serve(fuse)
    os.close(fuse)
    path = f'{at}/file'
file = os.open(path, os.O_RDONLY)
order += b'x' * (what == 'longer')
files = [file] * {'more': 50, 'many': 200}.get(what, 1)
own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))])
print('said', flush=True)
select.select([sys.stdin], [], [], 120)
if server:
    os.kill(server, signal.SIGKILL)
";

/// Whoever serves a file system of their own (FUSE) is told of each close of a file there, and no
/// signal ends the wait for the answer. A local user can send such a file to a captured net through
/// a Unix socket.
#[test]
fn a_file_whose_close_waits_keeps_nobody_waiting() {
    if !takes_net_over() {
        return;
    }
    for what in ["null", "fuse", "longer", "more"] {
        let mut d = Daemon::with(CONF).start();
        same(d.ask("hello\r\n"), HELLO);
        let net = d.net_pid();
        let order = hex(&on_client(0).encode());
        let open = proc::descriptors(d.parent_pid()).len();
        let (mut said, line) = says(HANDS_FILE, &[&net.to_string(), &order, what]);
        if &line == b"none\n" {
            said.wait().expect("python3");
            return;
        }
        let began = Instant::now();
        is_ended(&d, net, 1);
        same(d.ask("hello\r\n"), HELLO);
        assert!(began.elapsed() < TIMEOUT, "{what}: it waits for two minutes");
        // Each has a process, and all of them no descriptor of the parent's but one.
        let now = proc::descriptors(d.parent_pid()).len();
        assert!(now < open + 20, "{what}: {open}, {now}");
        // Nor does it keep the ports from the next fived, however this one ends.
        d.signal(Signal::SIGKILL);
        d.wait();
        until("the port is free", || std::net::TcpListener::bind(d.address()).is_ok());
        drop(said.stdin.take());
        said.wait().expect("python3");
    }
}

/// Each such file takes a process until it is closed, and no net process begins that could send more
/// of them where there are many.
#[test]
fn files_whose_closes_wait_have_a_bound() {
    if !takes_net_over() {
        return;
    }
    let mut d = Daemon::with(CONF).start();
    let order = hex(&on_client(0).encode());
    let mut all = Vec::new();
    for before in [0, d.net_pid()] {
        until("another net serves", || matches!(d.nets()[..], [net] if net != before));
        same(d.ask("hello\r\n"), HELLO);
        let net = d.net_pid();
        let (mut said, line) = says(HANDS_FILE, &[&net.to_string(), &order, "many"]);
        if &line == b"none\n" {
            said.wait().expect("python3");
            return;
        }
        all.push(said);
    }
    d.wait_log("net: files that earlier ones sent cannot be closed: no new one begins");
    until("the second one has ended", || d.nets().is_empty());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert!(d.nets().is_empty(), "one has begun");
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut first = all.remove(0);
    drop(first.stdin.take());
    first.wait().expect("python3");
    same(d.ask("hello\r\n"), HELLO);
    assert_eq!(d.log().matches("no new one begins").count(), 1);
    d.signal(Signal::SIGTERM);
    d.wait();
    drop(all);
}

/// Arguments: the pid of a net process, the orders `Session` and one of a session, and what is done
/// with the end of a pair that goes to the parent, and that somebody else has too: its kernel's lock
/// is kept (`lock`), or messages come to it with a descriptor of their sender's process (`pidfd`).
/// It says the order through the pair, and through what has come from the parent, prints that, and
/// waits for the end of its input, two minutes at most.
const SHARES_AN_END: &str = r"
import array, ctypes, fcntl, os, select, socket, struct, sys, threading
pid, session, order = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if sys.argv[4] == 'lock':
    a.send(b'x')
    keep_lock(b, 'recv')
else:
    SO_PASSPIDFD = 76
    b.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
c, of_net = client(pid)
own.sendmsg([addressed(session, of_net)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [of_net.fileno(), b.fileno()]))])
for n in range(9):
    a.send(order)
a.settimeout(10)
try:
    a = socket.socket(fileno=array.array('i', a.recvmsg(1024, 64)[1][0][2])[0])
    for n in range(100):
        a.send(order)
except TimeoutError:
    pass
print('said', flush=True)
select.select([sys.stdin], [], [], 120)
os._exit(0)
";

/// What a net process has, others may have too: a service can be sent it through a Unix socket. So
/// the parent receives only from sockets that it has made itself.
#[test]
fn nobody_has_the_socket_that_the_parent_receives_from() {
    if !takes_net_over() {
        return;
    }
    let session =
        hex(&FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode());
    let order = hex(&Ask::Tally { tag: 1, to: 1, from: 1 }.encode());
    for what in ["lock", "pidfd"] {
        let d = Daemon::with(CONF).start();
        same(d.ask("hello\r\n"), HELLO);
        let open = proc::descriptors(d.parent_pid()).len();
        let net = d.net_pid().to_string();
        let (mut said, _) = says(SHARES_AN_END, &[&net, &session, &order, what]);
        let began = Instant::now();
        same(d.ask("hello\r\n"), HELLO);
        assert!(began.elapsed() < TIMEOUT, "the lock is kept for two minutes");
        let now = proc::descriptors(d.parent_pid()).len();
        assert!(now < open + 20, "{what}: {open}, {now}");
        kill_and_wait(&mut said);
    }
}

/// The parent asks no socket for its addresses that somebody else has, too.
#[test]
fn whoever_keeps_the_lock_of_a_client_s_socket_keeps_it_from_nobody() {
    if !takes_net_over() {
        return;
    }
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    for right in ["right", "wrong", "nothing"] {
        let d = Daemon::with(CONF).start();
        same(d.ask("hello\r\n"), HELLO);
        let (net, order) = (d.net_pid().to_string(), hex(&session.encode()));
        let (mut said, _) = says(SAYS_ADDRESSES, &[&net, &order, right, "lock"]);
        let began = Instant::now();
        for _ in 0..20 {
            same(d.ask("hello\r\n"), HELLO);
        }
        assert!(began.elapsed() < TIMEOUT, "{right}: the lock is kept for two minutes");
        kill_and_wait(&mut said);
        d.signal(Signal::SIGTERM);
    }
}

/// A service has its client's own socket, and can keep its lock; then a net process hands the same
/// client over once more. Nothing that the parent does with it waits for that lock.
#[test]
fn a_client_that_a_service_has_already_keeps_nobody_waiting() {
    if !takes_net_over() {
        return;
    }
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let conf = format!(
        "listen = 127.0.0.1:0 @DIR@/fived\nproxy_from = 127.0.0.9\n{CONF}\
         red stream tcp nowait @USER@ redirect {}\n banner_success = @DIR@/banner\n\
         gone stream tcp nowait @USER@ @DIR@/gone gone\n port = 127.0.0.1:0\n banner_fail = @DIR@/banner\n",
        upstream.local_addr().expect("it is bound")
    );
    let none = ClientAddresses::default();
    let start = |service| FromNet::Start { service, host: 0, addresses: none };
    for (order, right, to) in [
        (start(4), "right", "tcpmux"),
        (start(0), "nothing", "path"),
        (FromNet::AtPort { addresses: none }, "right", "port"),
    ] {
        let d = Daemon::with(&conf).listen("").file("banner", "hi\n").start();
        d.wait_log(&format!("listening on {}", d.place.at("fived")));
        same(d.ask("hello\r\n"), HELLO);
        let at = match to {
            "path" => Some(d.place.at("fived")),
            "port" => Some(d.port(0).port().to_string()),
            _ => None,
        };
        let (net, order) = (d.net_pid().to_string(), hex(&order.encode()));
        let mut args = vec![&*net, &order, right, "lock"];
        args.extend(at.as_deref());
        let (mut said, _) = says(SAYS_ADDRESSES, &args);
        let began = Instant::now();
        for _ in 0..20 {
            same(d.ask("hello\r\n"), HELLO);
        }
        assert!(began.elapsed() < TIMEOUT, "{to}: the lock is kept for two minutes");
        kill_and_wait(&mut said);
        d.signal(Signal::SIGTERM);
    }
}
