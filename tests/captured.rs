//! A net process that a stranger has taken over says to the parent whatever it likes: random orders,
//! most of them forbidden, on its own channel and on those of sessions, with descriptors that do
//! not belong there. The parent ends it, starts another, and starts no service that the client may
//! not use. Nor does it say anything for longer than it may.

#[path = "support/captured.rs"]
mod captured;
mod support;
#[path = "support/tls.rs"]
mod tls;

use captured::*;
use fived::wire::orders::{Ask, ClientAddresses, Data, FromNet, Message, Method, OfferAsk};
use fived::wire::run::Way;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::process::Command;
use support::*;
use tls::Tls;

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

/// Argument: a net process's pid. Writes 150 lines where that writes its own.
const WRITES_LINES: &str = r"
import ctypes, os, socket, sys
s = socket.socket(fileno=ctypes.CDLL(None).syscall(438, os.pidfd_open(int(sys.argv[1])), 2, 0))
for n in range(150):
    s.send(b'line %d' % n)
";

#[test]
fn it_does_not_fill_the_log() {
    if !takes_net_over() {
        return;
    }
    let d = Daemon::with(CONF).start();
    let net = d.net_pid();
    let done = Command::new("python3").args(["-c", WRITES_LINES, &net.to_string()]).status();
    assert!(done.expect("python3").success());
    d.wait_logs("WARN net: line ", 100);
    kill(Pid::from_raw(net), Signal::SIGKILL).expect("kill");
    d.wait_log("WARN net: more=50 lines like these");
    assert_eq!(d.log().matches("net: line ").count(), 100, "{}", d.log());
}

/// Arguments: a net process's pid, and ports. Each of its listeners gets SO_LINGER, and those at
/// these ports are shut down; before that it prints whether one had SO_LINGER.
const SPOILS_LISTENERS: &str = r"
import ctypes, os, socket, struct, sys
libc, pid, ports = ctypes.CDLL(None), int(sys.argv[1]), sys.argv[2:]
pidfd = os.pidfd_open(pid)
for n in os.listdir(f'/proc/{pid}/fd'):
    if not os.readlink(f'/proc/{pid}/fd/{n}').startswith('socket:'):
        continue
    s = socket.socket(fileno=libc.syscall(438, pidfd, int(n), 0))
    if s.family != socket.AF_UNIX and s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        print(s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 4) != bytes(4))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30))
        if str(s.getsockname()[1]) in ports:
            s.shutdown(socket.SHUT_RDWR)
";

/// What such a net process has done to the listeners is undone when another one gets them.
#[test]
fn a_listener_that_was_shut_down_keeps_no_other_from_clients_and_listens_again() {
    if !takes_net_over() {
        return;
    }
    let tls = "own stream tcp nowait @USER@ /bin/echo echo own\n tls_port = 127.0.0.1:0\n";
    let conf = format!("{CONF}{tls}");
    let d = Daemon::with(&conf).listen("127.0.0.1:0").listen("127.0.0.2:0").start();
    let [dead, other, tls] = d.listening(3)[..] else { panic!("{}", d.log()) };
    let spoil = |net: i32| {
        let mut python = Command::new("python3");
        python.args(["-c", SPOILS_LISTENERS, &net.to_string()]);
        python.args([dead, tls].map(|at| at.port().to_string()));
        let done = python.output().expect("python3");
        same(done.stdout, "False\nFalse\nFalse\n");
    };
    let hello = |at| same(Client::connect(at).send("hello\r\n").half_close().read_all(), HELLO);
    for round in 1..4 {
        let net = d.net_pid();
        spoil(net);
        assert!([dead, tls].iter().all(|at| TcpStream::connect(at).is_err()));
        (0..20).for_each(|_| hello(other));
        assert_eq!(d.net_pid(), net);
        kill(Pid::from_raw(net), Signal::SIGKILL).expect("kill");
        d.wait_logs(
            &format!("{dead}: a process shut this socket down; fived opens it again"),
            round,
        );
        hello(dead);
        hello(other);
        let tcp = TcpStream::connect(tls).expect("it listens again");
        same(Tls::start(tcp, "x.example").read_all(), "own\n");
    }
}

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
