//! A net process that a stranger has taken over hands over what is no client of its own, or says that
//! a client is another: it passes for nobody, and a service gets its own client's connection alone.

#[path = "support/captured.rs"]
mod captured;
mod support;
#[path = "support/tls.rs"]
mod tls;

use captured::*;
use fived::wire::orders::{ClientAddresses, FromNet, Message};
use std::process::{Command, Stdio};
use support::*;

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
