//! What a net process says and hands over that a stranger has taken over: scripts of Python that take
//! its channel and its clients' sockets (pidfd_getfd(2)).

#![allow(dead_code)] // Each test file uses its own part of this.

use crate::support::*;
use fived::wire::orders::FromNet;
use std::io::Read;
use std::process::{Child, Command, Stdio};

pub const CONF: &str = "
max_services_per_source = 1000
hello  stream tcp nowait @USER@ /bin/echo echo hello
hidden stream tcp nowait @USER@ /bin/echo echo hidden
 only_from = 192.0.2.1
locked stream tcp nowait @USER@ /bin/echo echo locked
 require = tls login
off    stream tcp nowait @USER@ /bin/echo echo off
 disable = yes
";
pub const HELLO: &str = "+Go\r\nhello\n";

/// A script that can make clients: what is handed over as one must have come to a listener of net's.
pub fn with_client(script: &str) -> String {
    format!("{}{script}", include_str!("client_of_net.py"))
}

/// Runs such a script until it has printed a line of five bytes: the script, which waits for the end
/// of its input, and the line.
pub fn says(script: &str, args: &[&str]) -> (Child, [u8; 5]) {
    let mut python = Command::new("python3");
    python.args(["-c", &with_client(script)]).args(args);
    let pipes = python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut said = pipes.spawn().expect("python3");
    let mut line = [0; 5];
    said.stdout.take().expect("piped").read_exact(&mut line).expect("a line");
    (said, line)
}

/// This net process is ended, the `n`th for an order, and another one serves.
pub fn is_ended(d: &Daemon, net: i32, n: usize) {
    until("it is ended", || d.log().matches(": a forbidden order; fived ends it").count() == n);
    until("another net serves", || matches!(d.nets()[..], [other] if other != net));
}

pub fn hex(order: &[u8]) -> String {
    order.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn on_client(service: u32) -> FromNet {
    FromNet::StartOnClient { session: 0, service, host: 0 }
}

/// Arguments: the pid of a net process, an order, what it says of the client's addresses (`right`,
/// `wrong`: another client, or `nothing`), whether the kernel's lock of the client's socket is kept
/// (`lock`), and the port or path that it came to. The order is said with that socket, and with one
/// end of a pair where it is `Session`. It prints that, and waits for the end of its input, two
/// minutes at most.
pub const SAYS_ADDRESSES: &str = r"
import array, ctypes, fcntl, os, select, socket, struct, sys, threading
pid, order, says, lock = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], sys.argv[4:5]
at = sys.argv[5] if len(sys.argv) > 5 else None
libc, pidfd = ctypes.CDLL(None), os.pidfd_open(pid)
own = socket.socket(fileno=libc.syscall(438, pidfd, 3, 0))
listener = client(pid)[0].getpeername()
to = ('127.0.0.9', ('127.0.0.1', int(at))) if at and at.isdigit() else ('127.0.0.1', at)
c, of_net = client(pid, *to)
if says != 'nothing':
    peer = of_net.getpeername()
    order = addressed(order, of_net, ('192.0.2.1', peer[1]) if says == 'wrong' else None)
if lock:
    # When this one is answered, net has looked at the other.
    h = socket.create_connection(listener)
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
