//! A client's socket goes from net to the parent and from there to its service. When the service
//! begins, nobody else has it: whoever closes the last copy may have to wait for that service.

#[path = "support/captured.rs"]
mod captured;
mod support;

use captured::{hex, with_client};
use fived::wire::orders::{ClientAddresses, FromNet, Message};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use support::*;

const CONF: &str = "
hello   stream tcp nowait @USER@ /bin/echo echo hello
at-port stream tcp nowait @USER@ /bin/echo echo hello
 port = 127.0.0.1:0
missing stream tcp nowait @USER@ @DIR@/missing missing
";
const HELLO: &str = "+Go\r\nhello\n";

fn at_port(d: &Daemon) -> Client {
    Client(TcpStream::connect(d.port(0)).expect("connect"))
}

/// It stops the processes of fived that its first argument names a file of, and writes into the file
/// of its second one which socket it has. It goes on when they do.
const STOPS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char text[200] = "", link[200] = "", *at = text;
    int in = open(argv[1], O_RDONLY);
    if (argc != 3 || read(in, text, sizeof text - 1) < 0)
        return 1;
    for (char *pid; (pid = strtok(at, " ")); at = NULL)
        kill(atoi(pid), SIGSTOP);
    if (readlink("/proc/self/fd/0", link, sizeof link - 1) < 0)
        return 1;
    int out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    return write(out, link, strlen(link)) < 0 || rename(argv[2], argv[1]) != 0;
}
"#;

/// While they are stopped: those that have what the service of this daemon has, which it has written
/// instead of their numbers.
fn others(d: &Daemon, stopped: &[i32]) -> Vec<i32> {
    let at = d.place.at("pids");
    let written = || std::fs::read_to_string(&at).unwrap_or_default();
    until("the service has begun", || written().starts_with("socket:"));
    let socket = written();
    let has = |pid: &&i32| proc::descriptors(**pid).iter().any(|(_, to)| *to == socket);
    let all = stopped.iter().filter(has).copied().collect();
    // The parent last: it ends a net process that stands still.
    for pid in stopped.iter().rev() {
        kill(Pid::from_raw(*pid), Signal::SIGCONT).expect("it is there");
    }
    all
}

/// A daemon whose service stops it; and where its clients come, by its name, at its port and in a
/// session, each several times.
fn each_way(times: usize, then: impl Fn(&Daemon)) {
    let row = "stream tcp nowait root @DIR@/stops stops @DIR@/pids @DIR@/socket\n";
    let conf = format!("stops {row} port = 127.0.0.1:0\n");
    let d = Daemon::with(&conf).file("stops.c", STOPS);
    let built = Command::new("cc")
        .args(["-O2", "-static", "-o", &d.place.at("stops"), &d.place.at("stops.c")])
        .status();
    assert!(built.expect("cc").success());
    let d = d.start();
    then(&d);
    for (request, own_port) in
        [("stops\r\n", false), ("", true), ("HOST\r\n\r\nstops\r\n", false)].repeat(times)
    {
        let stopped = [d.parent_pid(), d.net_pid()];
        std::fs::write(d.place.at("pids"), stopped.map(|pid| pid.to_string()).join(" "))
            .expect("written");
        let mut c = if own_port { at_port(&d) } else { d.connect() };
        c.send(request);
        assert_eq!(others(&d, &stopped), [0; 0], "{request:?}: {stopped:?}");
        c.read_all();
    }
}

#[test]
fn when_a_service_begins_nobody_else_has_its_socket() {
    if !root() || !installed("cc") {
        return skip("needs root and cc");
    }
    each_way(5, |_| ());
}

/// The service may begin before the parent goes on, which stands still here after each child that it
/// makes and each message that it sends. Orders about one client come to it together then.
#[test]
fn nor_has_a_parent_that_does_not_go_on_when_it_has_made_the_child() {
    if !root() || !installed("cc") || !installed("strace") {
        return skip("needs root, cc and strace");
    }
    let calls = std::cell::OnceCell::new();
    let late = ["-e", "trace=clone,sendmsg", "-e", "inject=clone,sendmsg:delay_exit=200000"];
    each_way(1, |d| drop(calls.set(Calls::of_parent(d, &late))));
}

/// Net has the socket of a session's client no more when the service is refused.
#[test]
fn a_session_is_refused_on_its_own_socket() {
    let d = Daemon::with(CONF).start();
    let chosen = "+ Success\r\nWhich VHOST? Host  selected\r\n";
    for _ in 0..3 {
        same(d.ask("HOST\r\n\r\nmissing\r\n"), format!("{chosen}{FAILED}"));
        let mut c = d.connect();
        c.send("HOST\r\n\r\n").expect(chosen);
        c.send("missing\r\nwhat follows is read and thrown away").expect(FAILED);
    }
    same(d.ask("HOST\r\n\r\nhello\r\n"), format!("{chosen}{HELLO}"));
    until("the sessions have ended", || d.log().matches("END session=").count() == 7);
}

/// Arguments: the pid of a net process, and the order `Start`. It is said with a client whose socket
/// the process keeps. Prints what the client gets.
const KEEPS: &str = r"
import array, ctypes, os, socket, sys
pid = int(sys.argv[1])
own = socket.socket(fileno=ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), 3, 0))
c, of_net = client(pid, counts=False)
order = addressed(bytes.fromhex(sys.argv[2]), of_net)
own.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [of_net.fileno()]))])
c.settimeout(60)
sys.stdin.read()
";

/// A service that it is to have does not begin, and nobody else waits for that.
#[test]
fn a_net_that_keeps_what_it_has_handed_over_is_replaced() {
    if !root() || !installed("python3") {
        return skip("needs root and python3");
    }
    let d = Daemon::with(CONF).start();
    let (net, addresses) = (d.net_pid(), ClientAddresses::default());
    let order = FromNet::Start { service: 0, host: 0, addresses }.encode();
    let script = with_client(KEEPS);
    let mut python = Command::new("python3");
    python.args(["-c", &script, &net.to_string(), &hex(&order)]);
    let mut keeps = python.stdin(Stdio::piped()).spawn().expect("python3");
    until("it is seen", || {
        same(at_port(&d).read_all(), "hello\n");
        d.log().contains("REFUSE service=hello host= from=127.0.0.1 reason=net ")
    });
    d.wait_log(&format!(
        "WARN net: pid {net}: it keeps a client's socket that it has handed over; fived ends it"
    ));
    until("another net serves", || matches!(d.nets()[..], [other] if other != net));
    same(d.ask("hello\r\n"), HELLO);
    assert!(!d.log().contains("START service=hello host= pid=0"), "{}", d.log());
    kill_and_wait(&mut keeps);
}
