//! SPEC 4: `five --plain`, which speaks RFC 1078 and nothing else.

mod support;

use nix::sys::socket::{setsockopt, sockopt::Linger};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use support::five::{finish, piped};
use support::{Five, Place, free_address};

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
    setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("linger");
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
    let (path, f) = (place.at("door"), Five::at(&place, free_address()));
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
