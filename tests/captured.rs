//! A net process that a stranger has taken over says to the parent whatever it likes: random orders,
//! most of them forbidden, on its own channel and on those of sessions, with descriptors that do
//! not belong there. The parent ends it, starts another, and starts no service that the client may
//! not use.

mod support;
#[path = "support/tls.rs"]
mod tls;

use fived::wire::orders::phases::kind;
use fived::wire::orders::{
    AddressPair, Ask, Claim, ClientAddresses, Data, FromNet, Message, Method, OfferAsk,
};
use fived::wire::resume;
use fived::wire::run::Way;
use nix::sys::signal::Signal;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

const CONF: &str = "
max_services_per_source = 1000
hello  stream tcp nowait @USER@ /bin/echo echo hello
hidden stream tcp nowait @USER@ /bin/echo echo hidden
 only_from = 192.0.2.1
locked stream tcp nowait @USER@ /bin/echo echo locked
 require = tls login
off    stream tcp nowait @USER@ /bin/echo echo off
 disable = yes
";
const HELLO: &str = "+Go\r\nhello\n";

/// A script that can make clients: what is handed over as one must have come to a listener of net's.
fn with_client(script: &str) -> String {
    format!("{}{script}", include_str!("support/client_of_net.py"))
}

/// Runs such a script until it has printed a line of five bytes: the script, which waits for the end
/// of its input, and the line.
fn says(script: &str, args: &[&str]) -> (Child, [u8; 5]) {
    let mut python = Command::new("python3");
    python.args(["-c", &with_client(script)]).args(args);
    let pipes = python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut said = pipes.spawn().expect("python3");
    let mut line = [0; 5];
    said.stdout.take().expect("piped").read_exact(&mut line).expect("a line");
    (said, line)
}

/// This net process is ended, the `n`th for an order, and another one serves.
fn is_ended(d: &Daemon, net: i32, n: usize) {
    until("it is ended", || d.log().matches(": a forbidden order; fived ends it").count() == n);
    until("another net serves", || matches!(d.nets()[..], [other] if other != net));
}

/// Arguments: the parent's pid, how many net processes are taken over, orders. Each says up to 50 of
/// those orders, spoiled or not, until it is ended. The last line is how many were said.
const CAPTURED: &str = r"
import array, ctypes, os, random, select, socket, sys, time
parent, lives, bases = sys.argv[1], int(sys.argv[2]), [bytes.fromhex(w) for w in sys.argv[3:]]
libc = ctypes.CDLL(None)
def net(last):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for p in filter(str.isdigit, os.listdir('/proc')):
            try:
                stat, argv = open(f'/proc/{p}/stat').read(), open(f'/proc/{p}/cmdline', 'rb').read()
                user = open(f'/proc/{p}/status').read().split('Uid:')[1].split()[0]
            except OSError:
                continue
            own = stat.rsplit(')', 1)[1].split()[1] == parent and stat.rsplit(')', 1)[1].split()[0] != 'Z'
            if own and argv.startswith(b'fived-net\0') and user != '0' and int(p) != last:
                return int(p)
        time.sleep(0.01)
    sys.exit('no net process')
listener = socket.create_server(('127.0.0.1', 0))
def descriptor():
    kind = random.randrange(6)
    if kind < 3:
        c = socket.create_connection(listener.getsockname())
        return [c, listener.accept()[0]]
    if kind == 3:
        return list(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    if kind == 4:
        return [os.fdopen(f, 'rb', 0) for f in os.pipe()]
    return [open('/dev/null', 'rb')]
def order():
    o = bytearray(random.choice(bases))
    if random.randrange(3) == 0:
        o[2:4] = random.choice(bases)[2:4]
    for _ in range(random.choice([0, 0, 1, 1, 2, 5])):
        o[random.choice([random.randrange(len(o)), random.randrange(2, 40)])] = random.choice([0, 1, 2, 3, 255, random.randrange(256)])
    if random.randrange(50) == 0:
        o = o[:random.randrange(len(o))] + bytes(random.randrange(3))
    return bytes(o)
last, said = 0, 0
for n in range(lives):
    last = net(last)
    pidfd = os.pidfd_open(last)
    own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
    own.setblocking(False)
    channels, kept = [own], []
    for n in range(50):
        if select.select([pidfd], [], [], 0)[0]:
            break
        # What the parent has opened through a pair is a channel, too.
        for c in channels[1:]:
            try:
                fds = c.recvmsg(1024, 64)[1]
            except OSError:
                continue
            for f in array.array('i', b''.join(data for _, _, data in fds)):
                channels.append(socket.socket(fileno=f))
                channels[-1].setblocking(False)
        text, count = order(), random.choice([0, 0, 1, 1, 2, 2, 3])
        fds = []
        while len(fds) < count:
            made = descriptor()
            kept += made
            fds.append(made[-1])
            if made[0] not in channels and isinstance(made[0], socket.socket) and made[0].type == socket.SOCK_SEQPACKET:
                made[0].setblocking(False)
                channels.append(made[0])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))] if fds else []
        try:
            random.choice(channels).sendmsg([text or b'x'], rights)
            said += 1
        except OSError:
            pass
    # One that was never caught is ended here.
    if not select.select([pidfd], [], [], 1)[0]:
        os.kill(last, 9)
        select.select([pidfd], [], [], 10)
    os.close(pidfd)
print(said)
";

#[test]
fn whatever_a_captured_net_says_only_it_is_ended() {
    if !takes_net_over() {
        return;
    }
    let lives = trial_size("orders", 4, 150);
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let open = proc::descriptors(d.parent_pid()).len();
    let memory = proc::rss(d.parent_pid());
    let data = Data::new(b"someone").expect("a few bytes");
    let orders = [
        FromNet::Ready.encode(),
        FromNet::Start { service: 0, host: 0, addresses: ClientAddresses::default() }.encode(),
        FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() }.encode(),
        FromNet::Start { service: 2, host: 0, addresses: ClientAddresses::default() }.encode(),
        FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode(),
        FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode(),
        FromNet::AtPort { addresses: ClientAddresses::default() }.encode(),
        on_client(0).encode(),
        FromNet::ListenersClosed.encode(),
        FromNet::Unlogged { refusals: 9 }.encode(),
        FromNet::Name { client: 1, generation: 1, addresses: ClientAddresses::default() }.encode(),
        FromNet::Pong.encode(),
        Ask::Sign { chain: 0, scheme: 0x403, message: data.clone() }.encode(),
        Ask::Encrypted { suite: 0x1301, name: data.clone() }.encode(),
        Ask::MayLogin { method: Method::Password }.encode(),
        Ask::Verify { method: Method::Password, user: data.clone() }.encode(),
        Ask::Branch { host: 0, tag: 1 }.encode(),
        Ask::Tally { tag: 1, to: 1, from: 1 }.encode(),
        Ask::End(data).encode(),
        Ask::Name.encode(),
        Ask::RelayEnded { relay: 1, to: 1, from: 1 }.encode(),
        Ask::Offer(OfferAsk::Begin { service: 0, host: 0 }).encode(),
        Ask::Offer(OfferAsk::End { offer: 1 }).encode(),
        Ask::Offer(OfferAsk::Taken { client: 1 }).encode(),
        Ask::Offer(OfferAsk::Refused { client: 1, busy: true }).encode(),
    ];
    let mut python = Command::new("python3");
    python.args(["-c", CAPTURED, &d.parent_pid().to_string(), &lives.to_string()]);
    let out = python.args(orders.iter().map(|o| hex(o))).output().expect("python3");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    assert!(out.status.success(), "{}", text(&out.stderr));
    until("another net serves", || d.ask("hello\r\n") == HELLO.as_bytes());
    until("nothing is left", || d.nets().len() == 1 && d.services().is_empty());
    until("nothing is left open", || proc::descriptors(d.parent_pid()).len() <= open + 2);
    let log = d.log();
    for name in ["hidden", "locked", "off"] {
        assert!(!log.contains(&format!("START service={name} ")), "{log}");
    }
    let grown = proc::rss(d.parent_pid()).saturating_sub(memory);
    assert!(grown < 4096, "{grown} KiB");
    let (proxied, caught) =
        (text(&out.stdout), log.matches(": a forbidden order; fived ends it").count());
    assert!(caught > 0, "{log}");
    trial(
        "orders",
        format!(
            "{lives} captured nets said {proxied} random orders, {caught} were ended for one, the parent goes on"
        ),
    );
}

/// Arguments: the pid of a net process, an order, and an address. The order is said once, with a TCP
/// socket of that process whose peer is there. Prints how many such sockets it has.
const HANDS_OVER: &str = r"
import array, ctypes, os, socket, sys
pid, order, address = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
get = lambda n: socket.socket(fileno=libc.syscall(438, pidfd, n, 0))
def is_there(s):
    try:
        return s.family == socket.AF_INET and s.getpeername()[0] == address
    except OSError:
        return False
names = [(int(n), os.readlink(f'/proc/{pid}/fd/{n}')) for n in os.listdir(f'/proc/{pid}/fd')]
found = [s for s in [get(n) for n, name in names if name.startswith('socket:')] if is_there(s)]
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [found[0].fileno()]))]
get(3).sendmsg([order], rights)
print(len(found))
";

/// Net has one end of the connection of each service inside TLS, and the connection to each running
/// server. The addresses of both are fived's choice: handed over as a client's, such a socket would
/// be a client from this computer.
#[test]
fn what_fived_has_connected_is_no_client() {
    if !takes_net_over() {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let upstream = server.local_addr().expect("it is bound");
    let d = Daemon::with(&format!(
        "cat stream tcp nowait @USER@ /bin/cat cat\n\
         near stream tcp nowait @USER@ /bin/echo echo near\n only_from = 127.0.0.1\n\
         up stream tcp nowait @USER@ redirect {upstream}\n"
    ))
    .start();
    same(d.connect_from("127.77.0.1").send("near\r\n").read_all(), NOT_AVAILABLE);
    let order =
        FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() }.encode();
    let order = hex(&order);
    let passed_for_a_client = |n: usize| {
        let net = d.net_pid();
        let said = Command::new("python3")
            .args(["-c", HANDS_OVER, &net.to_string(), &order, "127.0.0.1"])
            .output()
            .expect("python3");
        same(said.stdout, "1\n");
        is_ended(&d, net, n);
        same(d.ask("near\r\n"), "+Go\r\nnear\n");
        d.log().matches("START service=near ").count() > n
    };
    let mut tls = tls::Tls::start(d.connect_from("127.77.0.1").0, "localhost");
    tls.send(b"cat\r\nhi\n");
    tls.expect(b"+Go\r\nhi\n");
    assert!(!passed_for_a_client(1), "{}", d.log());
    let mut client = d.connect_from("127.77.0.1");
    client.send("up\r\n").expect("+Go\r\n");
    assert!(!passed_for_a_client(2), "{}", d.log());
}

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
/// `longer`: the order has a byte too many; `more`: the file comes five times). It prints whether
/// it was said.
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
files = [file] * (5 if what == 'more' else 1)
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
        let (mut said, line) = says(HANDS_FILE, &[&net.to_string(), &order, what]);
        if &line == b"none\n" {
            said.wait().expect("python3");
            return;
        }
        let began = Instant::now();
        is_ended(&d, net, 1);
        same(d.ask("hello\r\n"), HELLO);
        assert!(began.elapsed() < TIMEOUT, "{what}: it waits for two minutes");
        // Nor does it keep the ports from the next fived, however this one ends.
        d.signal(Signal::SIGKILL);
        d.wait();
        until("the port is free", || std::net::TcpListener::bind(d.address()).is_ok());
        drop(said.stdin.take());
        said.wait().expect("python3");
    }
}

/// Arguments: the pid of a net process, and the orders `Session` and `StartOnClient`, which is said
/// with that process's listener, for the session that has begun.
const HANDS_LISTENER: &str = r"
import array, ctypes, os, select, socket, sys
pid, session, order = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
def send(to, order, *fds):
    to.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))])
numbers = [n for n in os.listdir(f'/proc/{pid}/fd') if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:')]
all = [socket.socket(fileno=libc.syscall(438, pidfd, int(n), 0)) for n in numbers]
listeners = [s for s in all if s.family != socket.AF_UNIX and s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
of_net = client(pid)[1]
send(own, addressed(session, of_net), of_net, b)
text, fds = a.recvmsg(1024, 64)[:2]
channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
send(own, order[:16] + text[16:24] + order[24:], listeners[0])
print(len(listeners), flush=True)
sys.stdin.read()
";

/// A program that has fived's listener would take its clients, outside of net's confinement and when
/// that net has long been replaced.
#[test]
fn a_service_gets_nothing_but_its_client_s_socket() {
    if !takes_net_over() {
        return;
    }
    let session =
        hex(&FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode());
    let start = FromNet::StartOnClient { session: 0, service: 0, host: 0 };
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let mut python = Command::new("python3");
    python.args([
        "-c",
        &with_client(HANDS_LISTENER),
        &net.to_string(),
        &session,
        &hex(&start.encode()),
    ]);
    let pipes = python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = pipes.spawn().expect("python3");
    is_ended(&d, net, 1);
    assert!(!d.log().contains("START"), "{}", d.log());
    // Until then the session has both ends of its channel.
    drop(python.stdin.take());
    same(python.wait_with_output().expect("python3").stdout, "1\n");
    same(
        d.ask("HOST\r\n\r\nhello\r\n"),
        format!("+ Success\r\nWhich VHOST? Host  selected\r\n{HELLO}"),
    );
}

/// Arguments: the pid of a net process, the order `Session`, and one of a session that is said twice.
/// It prints that, and waits for the end of its input.
const SAYS_TWICE: &str = r"
import array, ctypes, os, socket, sys
pid, session, order = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
c, of_net = client(pid)
own.sendmsg([addressed(session, of_net)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [of_net.fileno(), b.fileno()]))])
fds = a.recvmsg(1024, 64)[1]
channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
channel.send(order)
channel.send(order)
print('said', flush=True)
sys.stdin.read()
";

/// Where bytes are counted, the line about a service's end waits for the counts of its stream.
#[test]
fn no_service_ends_without_a_line_in_the_log() {
    if !takes_net_over() {
        return;
    }
    let session =
        hex(&FromNet::Session { tls_port: None, addresses: ClientAddresses::default() }.encode());
    let start = Ask::Start { service: 0, host: 0, tag: 7, way: Way::Plain };
    let d = Daemon::with(
        "log_on_success = PID HOST EXIT DURATION TRAFFIC\n\
         nap stream tcp nowait @USER@ /bin/sleep sleep 1\n",
    )
    .start();
    let args = [&d.net_pid().to_string(), &session, &hex(&start.encode())];
    let (mut said, _) = says(SAYS_TWICE, &args.map(String::as_str));
    d.wait_log("START service=nap ");
    until("nothing runs", || d.services().is_empty());
    kill_and_wait(&mut said);
    d.wait_log("END session=");
    until("each has its line", || {
        let log = d.log();
        log.matches("START service=nap ").count() == log.matches("EXIT service=nap ").count()
    });
}

/// A net process that tells of no relay's end keeps no more of these lines waiting than a session
/// may have streams.
#[test]
fn services_whose_bytes_nobody_counts_do_not_pile_up() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(
        "max_streams = 2\nmax_streams_anonymous = 2\n\
         log_on_success = PID HOST EXIT DURATION TRAFFIC\n\
         nap stream tcp nowait @USER@ /bin/true true\n",
    )
    .start();
    let mut steps = Steps::new(&format!("at:{}", d.address().port()), None);
    for tag in 1..=12 {
        let start = Ask::Start { service: 0, host: 0, tag, way: Way::Plain };
        steps = steps.then("says", &start).hears();
    }
    let mut said = Command::new("python3")
        .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
        .args(steps.hears().0)
        .stdout(Stdio::null())
        .spawn()
        .expect("python3");
    d.wait_logs("EXIT service=nap ", 8);
    assert!(!d.log().contains("END session="), "{}", d.log());
    kill_and_wait(&mut said);
    d.wait_logs("EXIT service=nap ", 12);
}

/// Arguments: the pid of a net process, an order, and an address. The order is said once, with one
/// end of a connection that was made in another network namespace, from that address to itself.
const FROM_ANOTHER_NETWORK: &str = r"
import array, ctypes, fcntl, os, socket, struct, sys
pid, order, address = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None)
own = socket.socket(fileno=libc.syscall(438, os.pidfd_open(pid), 3, 0))
assert libc.unshare(0x40000000) == 0
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 0x41))
fcntl.ioctl(s, 0x8916, struct.pack('16sHH4s8x', b'lo', socket.AF_INET, 0, socket.inet_aton(address)))
l = socket.create_server((address, 0))
c = socket.create_connection(l.getsockname())
rights = array.array('i', [l.accept()[0].detach()])
own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
";

/// Any user can make one, in a user namespace, and a service of that user can hand it to a captured
/// net.
#[test]
fn a_connection_of_another_network_is_no_client() {
    if !takes_net_over() {
        return;
    }
    let order =
        FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() }.encode();
    let order = hex(&order);
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let mut python = Command::new("python3");
    python.args(["-c", FROM_ANOTHER_NETWORK, &net.to_string(), &order, "192.0.2.1"]);
    same(python.output().expect("python3").stderr, "");
    is_ended(&d, net, 1);
    assert!(!d.log().contains("START service=hidden "), "{}", d.log());
    same(d.ask("hello\r\n"), HELLO);
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

/// Arguments: the pid of a net process, an order, what it says of the client's addresses (`right`,
/// `wrong`: another client, or `nothing`), whether the kernel's lock of the client's socket is kept
/// (`lock`), and the port or path that it came to. The order is said with that socket, and with one
/// end of a pair where it is `Session`. It prints that, and waits for the end of its input, two
/// minutes at most.
const SAYS_ADDRESSES: &str = r"
import array, ctypes, fcntl, os, select, socket, struct, sys, threading
pid, order, says, lock = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], sys.argv[4:5]
at = sys.argv[5] if len(sys.argv) > 5 else None
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
door = client(pid)[0].getpeername()
to = ('127.0.0.9', ('127.0.0.1', int(at))) if at and at.isdigit() else ('127.0.0.1', at)
c, of_net = client(pid, *to)
if says != 'nothing':
    peer = of_net.getpeername()
    order = addressed(order, of_net, ('192.0.2.1', peer[1]) if says == 'wrong' else None)
if lock:
    # When this one is answered, net has looked at the other.
    h = socket.create_connection(door)
    h.send(b'hello\r\n')
    while h.recv(100):
        pass
    keep_lock(of_net, 'send' if c.family == socket.AF_INET else 'filter')
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
fds = [of_net.fileno()] + ([pair[1].fileno()] if order[2:4] == b'\x03\x01' else [])
own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))])
print('said', flush=True)
select.select([sys.stdin], [], [], 120)
os._exit(0)
";

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
        (start(4), "right", "door"),
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

/// An address is that of the client's socket, whatever net says.
#[test]
fn a_net_process_cannot_say_who_its_client_is() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let order = FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() };
    for (n, says) in ["right", "wrong", "nothing"].into_iter().enumerate() {
        let said = Command::new("python3")
            .args(["-c", &with_client(SAYS_ADDRESSES), &d.net_pid().to_string()])
            .args([&hex(&order.encode()), says])
            .stdin(Stdio::null())
            .output()
            .expect("python3");
        same(said.stdout, "said\n");
        let line = "REFUSE service=hidden host= from=127.0.0.1 ";
        until(says, || d.log().matches(line).count() == n + 1);
    }
    assert!(!d.log().contains("START service=hidden "), "{}", d.log());
    same(d.ask("hello\r\n"), HELLO);
}

/// Arguments: the pid of a net process, a forbidden order, and `Start`. A
/// thread of that process is made to wait for the kernel's lock of a client's socket, so that it
/// cannot end; then it says the forbidden order, and when it was killed, in its channel, the other
/// one. It prints that, and waits for the end of its input, two minutes at most.
const CANNOT_END: &str = r"
import array, ctypes, fcntl, os, select, socket, struct, sys, threading, time
pid, forbidden, start = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
def threads():
    all = []
    for t in os.listdir(f'/proc/{pid}/task'):
        try:
            all.append(open(f'/proc/{pid}/task/{t}/stat').read().rsplit(')', 1)[1].split()[0])
        except OSError: # It has ended.
            pass
    return all
asks, asked = client(pid)
c, locked = client(pid)
c.send(b'HOST\r\n')
c.recv(100)
# When this one is answered, the parent has looked at the session's socket.
h = socket.create_connection(c.getpeername())
h.send(b'hello\r\n')
while h.recv(100):
    pass
keep_lock(locked, 'send')
while 'D' not in threads():
    time.sleep(0.01)
own.send(forbidden)
while set(threads()) - set('DZ'):
    time.sleep(0.01)
try:
    own.sendmsg([addressed(start, asked)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [asked.fileno()]))])
except OSError:
    pass
print('said', flush=True)
select.select([sys.stdin], [], [], 120)
os._exit(0)
";

/// A process that waits for a lock cannot be killed, and a local user may have its channel.
#[test]
fn a_net_that_was_killed_says_nothing_more_even_if_it_cannot_end() {
    if !takes_net_over() {
        return;
    }
    let start =
        FromNet::Start { service: 0, host: 0, addresses: ClientAddresses::default() }.encode();
    let d = Daemon::with(&format!("login_timeout = 2s\n{CONF}")).start();
    let net = d.net_pid();
    let orders = [hex(&FromNet::ListenersClosed.encode()), hex(&start)];
    let (mut said, _) = says(CANNOT_END, &[&net.to_string(), &orders[0], &orders[1]]);
    d.wait_log("END session=");
    until("another serves", || d.ask("hello\r\n") == HELLO.as_bytes());
    assert!(proc::stat(net).is_some(), "it has not ended");
    until("both are logged", || d.log().matches("EXIT service=").count() == 2);
    assert_eq!(d.log().matches("START service=").count(), 2, "{}", d.log());
    kill_and_wait(&mut said);
    until("it ends", || proc::stat(net).is_none());
}

/// Arguments: the pid of a net process, and an order. It is said with a connection that was made to
/// a server at 127.0.0.1.
const CONNECTED: &str = r"
import array, ctypes, os, select, socket, sys
pidfd = os.pidfd_open(int(sys.argv[1]))
own = socket.socket(fileno=ctypes.CDLL(None).syscall(438, pidfd, 3, 0))
l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname(), source_address=('127.77.0.1', 0))
own.sendmsg([bytes.fromhex(sys.argv[2])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [c.fileno()]))])
# Whoever is gone is nobody's client in any case.
select.select([pidfd], [], [], 60)
";

/// Any user can connect to any server: that is no client from there.
#[test]
fn a_connection_to_another_server_is_no_client_from_there() {
    if !takes_net_over() {
        return;
    }
    let near = "near stream tcp nowait @USER@ /bin/echo echo near\n only_from = 127.0.0.1\n";
    let d = Daemon::with(near).start();
    let net = d.net_pid();
    let order =
        FromNet::Start { service: 0, host: 0, addresses: ClientAddresses::default() }.encode();
    let order = hex(&order);
    let mut python = Command::new("python3");
    python.args(["-c", CONNECTED, &net.to_string(), &order]);
    same(python.output().expect("python3").stderr, "");
    is_ended(&d, net, 1);
    assert!(!d.log().contains("START"), "{}", d.log());
    same(d.ask("near\r\n"), "+Go\r\nnear\n");
}

/// Arguments: the pid of a net process that drains, and the orders `Start` of two services. The first
/// is said with a client of another one, and when the answer is there the second, a while later.
const DRAINS: &str = r"
import array, ctypes, os, socket, sys, time
drains, now = int(sys.argv[1]), int(sys.argv[2])
own = socket.socket(fileno=ctypes.CDLL(None).syscall(438, os.pidfd_open(drains), 3, 0))
for n, order in enumerate(sys.argv[3:]):
    if n:
        time.sleep(15)
    c, of_net = client(now)
    counts_closed(drains)
    order = addressed(bytes.fromhex(order), of_net)
    own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [of_net.fileno()]))])
    of_net.shutdown(socket.SHUT_RD)
    print(c.recv(100))
";

/// After a reload a net process finishes what it has, for as long as its services run.
#[test]
fn a_net_of_a_table_that_was_replaced_begins_nothing_for_ever() {
    if !takes_net_over() {
        return;
    }
    let timeouts = "request_timeout = 1s\nlogin_timeout = 1s\nresume_timeout = 0\nresume_timeout_anonymous = 0\n";
    let conf = format!("{timeouts}cat stream tcp nowait @USER@ /bin/cat cat\n");
    let old = "old stream tcp nowait @USER@ /bin/echo echo old\n";
    let d = Daemon::with(&format!("{conf}{old}")).start();
    let net = d.net_pid();
    let mut c = d.connect();
    c.send("RUN\r\ncat\r\n").expect("+ Success\r\n+Go\r\n");
    d.reload(&conf);
    until("another serves", || d.nets().len() == 2);
    // The one that drains may still accept.
    until("it alone serves", || d.ask("old\r\n") == NOT_AVAILABLE.as_bytes());
    let before = d.log().matches("START service=old").count();
    let now = d.nets().into_iter().find(|pid| *pid != net).expect("another").to_string();
    let order =
        FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() }.encode();
    let order = hex(&order);
    let words = ["-c", &with_client(DRAINS), &net.to_string(), &now, &order, &order];
    let said = Command::new("python3").args(words).output().expect("python3");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // A client may have come to it just before the reload.
    assert!(text(said.stdout).starts_with("b'+Go"), "{}\n{}", text(said.stderr), d.log());
    d.wait_log("REFUSE service=old host= from=127.0.0.1 reason=drained");
    assert_eq!(d.log().matches("START service=old").count(), before + 1, "{}", d.log());
}

/// Arguments: the pid of a net process, and steps. A connection comes to one of that process's
/// listeners (`at:PORT`); it is handed over with one end of a pair (`session:ORDER`), and on the
/// channel that comes back orders follow: without descriptors (`says:ORDER`), or with that
/// connection (`with-client:ORDER`); or on the process's own channel, for that session and with that
/// connection (`on-client:ORDER`). `name:ORDER` is followed by claims of that session, with a proof
/// (`proved:ORDER`). `password:WORD` answers a login child. `stream` waits for the channel of a stream, on which all that
/// follows is said. `hears` waits for an answer and prints its kind; 0: none came.
const SAYS: &str = r"
import array, base64, ctypes, hmac, os, socket, sys, time
pid, steps = int(sys.argv[1]), sys.argv[2:]
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
get = lambda n: socket.socket(fileno=libc.syscall(438, pidfd, n, 0))
def send(to, order, *fds):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f.fileno() for f in fds]))]
    to.sendmsg([bytes.fromhex(order)], rights if fds else [])
def is_from(s, address):
    try:
        return s.family == socket.AF_INET and s.getpeername() == address
    except OSError:
        return False
def sockets():
    for n in os.listdir(f'/proc/{pid}/fd'):
        try:
            if os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:'):
                yield get(int(n))
        except (OSError, ValueError):
            pass
def taken_from_net(address):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for s in sockets():
            if is_from(s, address):
                return s
    sys.exit('it has accepted nobody')
def heard():
    try:
        return int.from_bytes(channel.recv(4096)[2:4], 'little')
    except OSError:
        return 0
own, kept, channel = get(3), [], None
for step in steps:
    what, _, order = step.partition(':')
    if what == 'at':
        kept.append(socket.create_connection(('127.0.0.1', int(order))))
        client = taken_from_net(kept[-1].getsockname())
    elif what == 'session':
        kept.append(channel)
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send(own, addressed(bytes.fromhex(order), client).hex(), client, theirs)
        theirs.close()
        channel.settimeout(60)
        text, fds = channel.recvmsg(1024, 64)[:2]
        if fds:
            channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
            channel.settimeout(60)
    elif what == 'says':
        send(channel, order)
    elif what == 'with-client':
        send(channel, order, client)
    elif what == 'password':
        # What its session was answered has the channel of a login child, which prompts.
        fds = channel.recvmsg(4096, 64)[1]
        child = socket.socket(fileno=array.array('i', fds[0][2])[0])
        child.recv(4096)
        child.send(b'\x03' + order.encode())
        print(heard())
    elif what == 'name':
        # What names the session; its key is in the order that asked for it.
        name, key = channel.recv(4096)[32:48], bytes.fromhex(order)[32:64]
    elif what == 'proved':
        order = bytes.fromhex(order)
        said = f'fived resume 1\n{name.hex()}\n0\n{base64.b64encode(order[80:112]).decode()}\n'
        proof = hmac.digest(key, said.encode(), 'sha256')
        send(channel, (order[:32] + name + proof + order[80:]).hex())
    elif what == 'stream':
        # What its session was answered has the channel of a stream.
        fds = channel.recvmsg(4096, 64)[1]
        kept.append(channel)
        channel = socket.socket(fileno=array.array('i', fds[0][2])[0])
        channel.settimeout(60)
    elif what == 'on-client':
        send(own, order[:32] + text[16:24].hex() + order[48:], client)
    else:
        print(heard())
";

/// The orders of such steps.
struct Steps(Vec<String>);

impl Steps {
    fn new(client: &str, tls_port: Option<u32>) -> Steps {
        Steps::of(client, FromNet::Session { tls_port, addresses: ClientAddresses::default() })
    }

    fn of(client: &str, session: FromNet) -> Steps {
        Steps(vec![client.into()]).begins(&session)
    }

    fn begins(self, session: &FromNet) -> Steps {
        self.step(&format!("session:{}", hex(&session.encode())))
    }

    /// `demo` logs in, and a stream of that session is said what follows.
    fn in_a_stream_of_demo(self) -> Steps {
        let verify =
            Ask::Verify { method: Method::Password, user: Data::new(b"demo").expect("it fits") };
        let branch = Ask::Branch { host: 0, tag: 1 };
        self.then("says", &verify).step("password:demopass").then("says", &branch).step("stream")
    }

    fn then(mut self, how: &str, order: &impl Message) -> Steps {
        self.0.push(format!("{how}:{}", hex(&order.encode())));
        self
    }

    fn hears(self) -> Steps {
        self.step("hears")
    }

    fn step(mut self, what: &str) -> Steps {
        self.0.push(what.into());
        self
    }

    /// A handshake, of which net alone says that it was one.
    fn encrypted(self) -> Steps {
        let done = Ask::Encrypted { suite: 0x1301, name: Data::default() };
        self.then("says", &sign()).hears().then("says", &done)
    }
}

fn sign() -> Ask {
    let text = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    Ask::Sign { chain: 0, scheme: 0x403, message: Data::new(&text).expect("it fits") }
}

fn on_client(service: u32) -> FromNet {
    FromNet::StartOnClient { session: 0, service, host: 0 }
}

fn hex(order: &[u8]) -> String {
    order.iter().map(|b| format!("{b:02x}")).collect()
}

fn start(service: u32, way: Way) -> Ask {
    Ask::Start { service, host: 0, tag: u32::from(way != Way::Plain), way }
}

/// The rules that net keeps are kept by the parent, too.
#[test]
fn it_gets_nothing_that_its_client_may_not_have() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!(
        "{CONF}here stream tcp nowait @USER@ /bin/echo echo here\n tls_port = 127.0.0.1:0\n\
         there stream tcp nowait @USER@ /bin/echo echo there\n tls_port = 127.0.0.1:0\n"
    ))
    .start();
    let at = |address: SocketAddr| format!("at:{}", address.port());
    let (door, [here, _]) = (at(d.address()), d.ports::<2>().map(at));
    let says = |steps: Steps| {
        Command::new("python3")
            .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
            .args(steps.0)
            .stdin(Stdio::null())
            .output()
            .expect("python3")
    };
    let mut refused = Steps::new(&door, None);
    for service in 1..=3 {
        refused = refused.then("says", &start(service, Way::Plain)).hears();
    }
    same(says(refused).stdout, format!("{}\n", kind::NOT_STARTED).repeat(3));
    let verify = Ask::Verify { method: Method::Password, user: Data::default() };
    let mut tries = Steps::new(&door, None);
    for _ in 0..3 {
        // The channel of the try, which ends at once, and what came of it.
        tries = tries.then("says", &verify).hears().hears();
    }
    const SESSION_S: &str = "a socket on a session's channel";
    let forbidden = [
        ("a fourth try to log in", tries.then("says", &verify).hears()),
        (SESSION_S, Steps::new(&door, None).then("with-client", &start(0, Way::Plain)).hears()),
        (
            "its own socket inside TLS",
            Steps::new(&door, None).encrypted().then("on-client", &on_client(0)).hears(),
        ),
        (
            "its own socket while it waits for a signature",
            Steps::new(&door, None).then("says", &sign()).then("on-client", &on_client(0)).hears(),
        ),
        ("a port that it did not come to", Steps::new(&door, Some(0)).hears()),
        ("no port, but it came to one", Steps::new(&here, None).hears()),
        (
            "a service before TLS",
            Steps::new(&here, Some(0)).then("says", &start(4, Way::Plain)).hears(),
        ),
        (
            "another port's service",
            Steps::new(&here, Some(0)).encrypted().then("says", &start(5, Way::Plain)).hears(),
        ),
    ];
    // No order of a session has a descriptor, and where the system can refuse them none can come.
    let refused = |what: &str| what == SESSION_S && fived::sys::local::can_refuse_rights();
    let (refused, forbidden): (Vec<_>, Vec<_>) =
        forbidden.into_iter().partition(|(what, _)| refused(what));
    for (what, steps) in refused {
        let said = says(steps);
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && why.contains("PermissionError"), "{what}: {said:?}");
    }
    for (n, (what, steps)) in forbidden.into_iter().enumerate() {
        let net = d.net_pid();
        let said = says(steps);
        assert!(said.status.success(), "{what}: {said:?}");
        is_ended(&d, net, n + 1);
    }
    assert!(!d.log().contains("START "), "{}", d.log());
    same(d.ask("hello\r\n"), HELLO);
}

/// Says these steps in turn, each of which ends the net process that says them.
fn each_ends_its_net(d: &Daemon, all: Vec<(&str, Steps)>) {
    for (n, (what, steps)) in all.into_iter().enumerate() {
        let net = d.net_pid();
        let said = Command::new("python3")
            .args(["-c", &with_client(SAYS), &net.to_string()])
            .args(steps.0)
            .stdin(Stdio::null())
            .output()
            .expect("python3");
        assert!(said.status.success(), "{what}: {said:?}");
        is_ended(d, net, n + 1);
    }
}

/// Claims of a session that it has not answered, at most.
const CLAIMS_MAX: usize = 16;

fn claim(n: u8) -> Ask {
    let claim = resume::Claim { id: resume::Id([n; 16]), received: 0, proof: [0; 32] };
    Ask::Resume(Claim { connection: 1, claim, exporter: [0; 32], challenge: [0; 32] })
}

/// Net asks for none of this. The parent does not rely on that.
#[test]
fn what_net_never_asks_for_ends_it() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(&format!(
        "proxy_from = 127.0.0.0/8\npasswords = @DIR@/passwd\n{CONF}\
         hers stream tcp nowait - offer\n offered_by = other\n\
         his stream tcp nowait - offer\n offered_by = demo\n"
    ))
    .file("passwd", &passwords(&["demo"]))
    .start();
    let door = format!("at:{}", d.address().port());
    let afar = AddressPair {
        client: ([192, 0, 2, 1], 9).into(),
        local: (d.address().ip(), d.address().port()).into(),
    };
    let addresses = ClientAddresses { own: None, proxied: Some(afar) };
    let from_afar = FromNet::Session { tls_port: None, addresses };
    let password = Ask::Verify { method: Method::Password, user: Data::default() };
    let key = Ask::Verify { method: Method::Pubkey, user: Data::default() };
    let resumable = Ask::Resumable { key: resume::ProofKey([7; 32]) };
    let mut claims = Steps::new(&door, None).encrypted();
    for n in 0..3 {
        claims = claims.then("says", &claim(n)).hears();
    }
    let [hers, his] = [4, 5].map(|service| Ask::Offer(OfferAsk::Begin { service, host: 0 }));
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    let of_demo = || Steps::new(&door, None).in_a_stream_of_demo();
    let stands = || Steps::new(&door, None).encrypted().then("says", &resumable).hears();
    each_ends_its_net(
        &d,
        vec![
            // Before the penalty for the claims.
            ("an offer that its user may not make", of_demo().then("says", &hers).hears()),
            (
                "the end of another session's offer",
                of_demo()
                    .then("says", &his)
                    .hears()
                    .begins(&session)
                    .then("says", &Ask::Offer(OfferAsk::End { offer: 1 }))
                    .hears(),
            ),
            (
                "a password in the clear",
                Steps::of(&door, from_afar.clone()).then("says", &password),
            ),
            ("a key in the clear", Steps::of(&door, from_afar).then("says", &key)),
            ("a try after three wrong claims", claims.then("says", &password).hears()),
            ("a claim of a session that stands", stands().then("says", &claim(9)).hears()),
            ("a second name", stands().then("says", &resumable).hears()),
            (
                "an answer to a claim that nobody made",
                stands().then("says", &Ask::Resumed { taken: true }).hears(),
            ),
        ],
    );
    let log = d.log();
    assert!(log.contains("PENALTY from=127.0.0.1 "), "{log}");
    assert_eq!(
        (log.matches("OFFER service=his ").count(), log.contains("=hers ")),
        (1, false),
        "{log}"
    );
}

/// A session answers each claim of it. One that does not gets no more of them.
#[test]
fn claims_do_not_pile_up_at_a_session_that_answers_none() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let door = format!("at:{}", d.address().port());
    let session = FromNet::Session { tls_port: None, addresses: ClientAddresses::default() };
    let resumable = Ask::Resumable { key: resume::ProofKey([7; 32]) };
    let mut steps = Steps::new(&door, None).encrypted().then("says", &resumable);
    steps = steps.then("name", &resumable).begins(&session).encrypted();
    for _ in 0..=CLAIMS_MAX {
        steps = steps.then("proved", &claim(0));
    }
    let said = Command::new("python3")
        .args(["-c", &with_client(SAYS), &d.net_pid().to_string()])
        .args(steps.hears().0)
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    same(&said.stderr, "");
    let heard = String::from_utf8(said.stdout).expect("numbers");
    assert_eq!(heard.lines().last(), Some(&*kind::CLAIMED.to_string()), "{heard}{}", d.log());
    // They are proved: a wrong claim has a penalty.
    assert!(!d.log().contains("PENALTY") && !d.log().contains("a forbidden order"), "{}", d.log());
}

/// Arguments: the pid of a net process, `Start`. It hands one client over twice,
/// and waits for the end of its input.
const GIVES_TWICE: &str = r"
import array, os, socket, sys
pid, order = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
own = socket.socket(fileno=libc.syscall(438, os.pidfd_open(pid), 3, 0))
c, of_net = client(pid)
order = addressed(order, of_net)
for answer in 4, 0:
    own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [of_net.fileno()]))])
    if answer:
        c.recv(answer)
sys.stdin.read()
";

/// Who has a client's socket can keep its lock, so that the process of the next service would wait
/// for that before its exec.
#[test]
fn no_service_gets_what_another_one_has() {
    if !root() || !installed("python3") {
        return skip("needs root and python3");
    }
    let d = Daemon::with(CONF).start();
    let order = FromNet::Start { service: 0, host: 0, addresses: ClientAddresses::default() };
    let mut said = Command::new("python3")
        .args(["-c", &with_client(GIVES_TWICE), &d.net_pid().to_string(), &hex(&order.encode())])
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3");
    d.wait_log("REFUSE service=hello host= from=127.0.0.1 reason=gone");
    d.wait_log("EXIT service=hello");
    assert_eq!(d.log().matches("START ").count(), 1, "{}", d.log());
    kill_and_wait(&mut said);
}
