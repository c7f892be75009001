//! `five --plain`, which speaks RFC 1078 and nothing else.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use support::five::{ended, finish, piped};
use support::{Daemon, Five, Place, free_address, kill_and_wait, reset, until};

const CONF: &str = "
wc    stream tcp nowait @USER@ /usr/bin/wc wc
ready stream tcp nowait @USER@ /bin/sh sh -c 'echo ready; exec sleep 600'
";
const H: &str = "127.0.0.1";

/// A service that has been asked for and says `hello`.
fn answers(client: &mut (impl Read + Write)) {
    let mut byte = [0];
    while byte != *b"\n" {
        client.read_exact(&mut byte).expect("a request");
    }
    client.write_all(b"+Go\r\nhello\n").expect("an answer");
}

/// A server whose every client gets such a service, and then this is done with it.
fn server(then: fn(TcpStream)) -> TcpListener {
    let listener = TcpListener::bind((H, 0)).expect("bind");
    let its = listener.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        for mut client in its.incoming().flatten() {
            answers(&mut client);
            then(client);
        }
    });
    listener
}

fn resets(client: TcpStream) {
    reset(&client);
}

/// Input has come, which it does not read: so its end is a reset.
fn leaves_input(client: TcpStream) {
    assert_eq!(client.peek(&mut [0]).expect("input"), 1);
}

#[test]
fn a_service_may_leave_its_input_unread() {
    let place = Place::new();
    let listener = server(leaves_input);
    let f = Five::at(&place, listener.local_addr().expect("address"));
    for _ in 0..10 {
        let (status, out, err) = f.run_with(&["--plain", H, "say"], &[0; 10]);
        assert_eq!((status, &*out, &*err), (0, "hello\n", ""));
    }
    // At a socket of this computer, too.
    let (path, f) = (place.at("fived"), Five::at(&place, free_address()));
    let listener = UnixListener::bind(&path).expect("bind");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            answers(&mut client);
            // It begins to be read, and so has come.
            client.read_exact(&mut [0]).expect("input");
        }
    });
    let (status, out, err) = finish(piped(&mut f.command(&["--plain", &path, "say"])), &[0; 10]);
    assert_eq!((status, &*out, &*err), (0, "hello\n", ""));
}

/// It can only be a connection that broke.
#[test]
fn a_reset_without_any_input_is_an_error() {
    let place = Place::new();
    let listener = server(resets);
    let f = Five::at(&place, listener.local_addr().expect("address"));
    let (status, out, err) = f.run(&["--plain", "-n", H, "say"]);
    // What had come may be lost.
    assert!(status == 255 && "hello\n".starts_with(&out), "{status} {out}");
    assert_eq!(err, "five: say: Connection reset by peer\n");
}

#[test]
fn it_ends_when_nobody_reads_its_output() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let starts = |name: &str, out: Stdio| -> Child {
        let mut c = f.command(&["--plain", "-p", &f.port(), H, name]);
        c.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().expect("five")
    };
    // A pipe; the service says nothing, or has said something.
    let mut child = starts("wc", Stdio::piped());
    let mut input = child.stdin.take().expect("piped");
    d.service("wc");
    drop(child.stdout.take());
    assert_eq!(ended(child).0, 128 + 13);
    until("the service has ended", || d.services().is_empty());
    assert!(input.write_all(b"x").is_err());
    let mut child = starts("ready", Stdio::piped());
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("an answer");
    drop(child.stdout.take());
    assert_eq!(ended(child).0, 128 + 13);
    // A socket. One whose other end says nothing more can still be written.
    let (ours, theirs) = UnixStream::pair().expect("pair");
    let mut child = starts("ready", OwnedFd::from(theirs).into());
    (&ours).read_exact(&mut [0; 6]).expect("an answer");
    ours.shutdown(std::net::Shutdown::Write).expect("shutdown");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none());
    drop(ours);
    assert_eq!(ended(child).0, 128 + 13);
    // A file has no reader.
    let path = d.place.at("out");
    let mut child = starts("ready", File::create(&path).expect("a file").into());
    until("it has answered", || std::fs::metadata(&path).is_ok_and(|m| m.len() == 6));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none());
    kill_and_wait(&mut child);
}
